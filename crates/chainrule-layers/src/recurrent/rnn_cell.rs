//! One step of the simple recurrent layer (Elman, 1990).
//!
//! ```text
//! h′ = tanh(W x + b_ih + U h + b_hh), or with ReLU in place of tanh
//! ```
//!
//! The equations, and what backward does with them, are those of `Rnn`. Derivation: docs/layers/recurrent/rnn.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// One step of [`Rnn`](crate::Rnn), for loops over time of one's own.
///
/// # Shapes
/// Inputs x (N, I) and h (N, H), outputs h′ (N, H). `weight_ih` (H, I), `weight_hh` (H, H), `bias_ih` and `bias_hh`
/// (H). All start uniform in ±1/√H, as PyTorch's do.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::RnnCell;
/// let cell = RnnCell::new(8, 16).init(1)?;
/// let (x, h) = (Tensor::<f32>::zeros([4, 8]), Tensor::zeros([4, 16]));
/// assert_eq!(cell.infer_all([&x, &h])?[0].shape()[..], [4, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RnnCell<T = f32> {
    stack: Stack<T>,
}

recurrent!(cell RnnCell);

impl<T: Scalar> RnnCell<T> {
    /// A cell of `hidden_size` states over `input_size` features.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("RnnCell", Cell::Tanh, true, input_size, hidden_size) }
    }

    /// The function of the step, `"tanh"` (the default) or `"relu"`.
    #[must_use]
    pub fn nonlinearity(self, nonlinearity: impl AsRef<str>) -> Self {
        let mut stack = self.stack;
        stack.set_nonlinearity(nonlinearity.as_ref());
        Self { stack }
    }

    fn settings(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("input_size", self.stack.inputs)
            .with("hidden_size", self.stack.hidden)
            .with_unless(true, "bias", self.stack.bias)
            .with_unless("tanh", "nonlinearity", self.stack.nonlinearity())
    }
}

impl<T: Scalar> FromSpec<T> for RnnCell<T> {
    const FACTS: Facts = Facts::new("RnnCell")
        .family("recurrent")
        .formula("tanh(W x + U h + b)")
        .page("layers/recurrent/rnn.md")
        .torch("RNNCell");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let nonlinearity: String = args.or("nonlinearity", "tanh".to_owned())?;
        let cell = Self::new(args.get("input_size")?, args.get("hidden_size")?);
        Ok(cell.bias(args.or("bias", true)?).nonlinearity(nonlinearity))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3, 4).to_spec(), [[2, 3], [2, 4]]),
            Example::new(Self::new(3, 4).bias(false).nonlinearity("relu").to_spec(), [[2, 3], [2, 4]]),
            Example::bench(Self::new(128, 128).to_spec(), [[32, 128], [32, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recurrent::tests::{close, pass, set};
    use chainrule_core::{Parameters, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, inputs in 1..5usize, hidden in 1..5usize, bias in any::<bool>(), relu in any::<bool>(),) {
            layer: RnnCell::new(inputs, hidden).bias(bias).nonlinearity(if relu { "relu" } else { "tanh" }),
            inputs: [[rows, inputs], [rows, hidden]],
            wrong_inputs: [[rows, inputs + 1], [rows, hidden]],
            wrong_inputs: [[rows, inputs], [rows + 1, hidden]],
        }
    }

    /// ReLU, w = 2, u = 3, b = 1, x = −1, h = 3: h′ = −2 + 9 + 1 = 8. For δh′ = 2: ∂x = 4, ∂h = 6, ∂w = −2, ∂u = 6, ∂b = 2.
    #[test]
    pub fn by_hand() {
        let mut cell = RnnCell::<f64>::new(1, 1).nonlinearity("relu").init(0).unwrap();
        for (path, value) in [("weight_ih", 2.0), ("weight_hh", 3.0), ("bias_ih", 1.0), ("bias_hh", 0.0)] {
            set(&mut cell, path, &[value]);
        }
        let (x, h, dy) = (Tensor::from([[-1.0]]), Tensor::from([[3.0]]), Tensor::from([[2.0]]));
        let (ys, dxs, grads) = pass(&cell, &[&x, &h], &[Some(&dy)]);
        close(&[ys[0].data()[0], dxs[0].data()[0], dxs[1].data()[0]], &[8.0, 4.0, 6.0]);
        close(&grads, &[-2.0, 6.0, 2.0, 2.0]);
    }
}
