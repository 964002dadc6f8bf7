//! The multilayer perceptron.

use chainrule_core::{BoxModule, Scalar};
use chainrule_layers::{BatchNorm1d, Dropout, Linear, Relu, Sequential};

/// For each hidden width a linear layer, optionally batch norm, an activation and dropout; then a linear layer. All in `net`.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::Mlp;
/// let model = Mlp { batch_norm: true, dropout: 0.2, ..Mlp::new(20, [64, 48], 5) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([8, 20]))?.shape()[..], [8, 5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp<T: Scalar = f32> {
    /// Inputs.
    pub features: usize,
    /// Outputs of each hidden layer.
    pub hidden: Vec<usize>,
    /// Outputs.
    pub classes: usize,
    /// Whether hidden layers have a bias.
    pub bias: bool,
    /// Whether hidden layers are normalised.
    pub batch_norm: bool,
    /// ε of the norm, and its momentum.
    pub norm: (f64, f64),
    /// The activation.
    pub activation: BoxModule<T>,
    /// The probability of dropout.
    pub dropout: f64,
}

impl Mlp {
    /// Hidden layers with bias and ReLU, without norm and dropout.
    #[must_use]
    pub fn new(features: usize, hidden: impl Into<Vec<usize>>, classes: usize) -> Self {
        Self::of(features, hidden, classes)
    }
}

impl<T: Scalar> Mlp<T> {
    /// [`Mlp::new`] for any element type.
    #[must_use]
    pub fn of(features: usize, hidden: impl Into<Vec<usize>>, classes: usize) -> Self {
        let (hidden, activation) = (hidden.into(), BoxModule::new(Relu::new()));
        Self {
            features,
            hidden,
            classes,
            bias: true,
            batch_norm: false,
            norm: (1e-5, 0.1),
            activation,
            dropout: 0.0,
        }
    }

    /// x (N, features) → logits (N, classes).
    #[must_use]
    pub fn build(&self) -> Sequential<T> {
        let (mut net, mut inputs) = (Sequential::of(), self.features);
        for &width in &self.hidden {
            net = net.add(Linear::new(inputs, width).bias(self.bias));
            if self.batch_norm {
                net = net.add(BatchNorm1d::new(width).eps(self.norm.0).momentum(self.norm.1));
            }
            net = net.add(self.activation.clone()).add(Dropout::new(self.dropout));
            inputs = width;
        }
        Sequential::of().named("net", net.add(Linear::new(inputs, self.classes)))
    }
}
