//! A variational autoencoder (Kingma and Welling, 2014), and its loss.

use chainrule_core::{BoxModule, Error, Loss, Objective, Reduction, Result, Scalar, Target, Tensor};
use chainrule_layers::{Graph, Linear, Relu, Reparametrize};
use chainrule_losses::BceWithLogits;
use std::marker::PhantomData;

/// Mean and log-variance of a code from x, a sample of it by noise that is an input, and logits of x from the sample.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::Vae;
/// let model = Vae::new(64, 40, 5).build().init(1)?;
/// let (x, noise) = (Tensor::<f32>::zeros([6, 64]), Tensor::zeros([6, 5]));
/// let outputs = model.infer_all([&x, &noise])?; // logits, mu, logvar
/// assert_eq!((&outputs[0].shape()[..], &outputs[1].shape()[..]), (&[6, 64][..], &[6, 5][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Vae<T: Scalar = f32> {
    /// Elements of a sample.
    pub features: usize,
    /// Outputs of the hidden layers.
    pub hidden: usize,
    /// Elements of the code.
    pub code: usize,
    /// The activation.
    pub activation: BoxModule<T>,
}

impl Vae {
    /// With ReLU.
    #[must_use]
    pub fn new(features: usize, hidden: usize, code: usize) -> Self {
        Self::of(features, hidden, code)
    }
}

impl<T: Scalar> Vae<T> {
    /// [`Vae::new`] for any element type.
    #[must_use]
    pub fn of(features: usize, hidden: usize, code: usize) -> Self {
        Self { features, hidden, code, activation: BoxModule::new(Relu::new()) }
    }

    /// x (N, features) and `noise` (N, code), standard normal → `logits` (N, features), `mu` and `logvar` (N, code).
    #[must_use]
    pub fn build(&self) -> Graph<T> {
        let &Self { features, hidden, code, .. } = self;
        let mut graph = Graph::of();
        let (x, noise) = (graph.input("x"), graph.input("noise"));
        let h = graph.add("fc1", Linear::new(features, hidden), x);
        let h = graph.add("act", self.activation.clone(), h);
        let mu = graph.add("fc21", Linear::new(hidden, code), h);
        let logvar = graph.add("fc22", Linear::new(hidden, code), h);
        let z = graph.add("sample", Reparametrize::new(), [mu, logvar, noise]);
        let y = graph.add("fc3", Linear::new(code, hidden), z);
        let y = graph.again("act", y);
        let logits = graph.add("fc4", Linear::new(hidden, features), y);
        for (name, node) in [("logits", logits), ("mu", mu), ("logvar", logvar)] {
            graph.output(name, node);
        }
        graph
    }
}

/// E = (Σ BCE(σ(logits), x) − ½ β Σ (1 + v − μ² − eᵛ))/N, of logits, μ and v = ln σ², with target x in [0, 1]: reconstruction, and
/// the divergence of the code's distribution from the standard normal.
///
/// ```text
/// ∂E/∂logits = (σ(logits) − x)/N        ∂E/∂μ = β μ/N        ∂E/∂v = ½ β (eᵛ − 1)/N
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VaeLoss<T = f32> {
    beta: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> VaeLoss<T> {
    /// With β = 1.
    pub fn new() -> Self {
        Self { beta: 1.0, of: PhantomData }
    }

    /// The weight of the divergence (Higgins et al., 2017).
    #[must_use]
    pub fn beta(self, beta: f64) -> Self {
        Self { beta, ..self }
    }

    fn parts<'a>(
        &self,
        ys: &[&'a Tensor<T>],
        targets: &[Target<'a, T>],
    ) -> Result<([&'a Tensor<T>; 3], &'a Tensor<T>)> {
        let (&[logits, mu, logvar], &[target]) = (ys, targets) else {
            return Err(Error::shape(format!(
                "VaeLoss: expected 3 predictions and 1 target, got {} and {}",
                ys.len(),
                targets.len()
            )));
        };
        if mu.shape() != logvar.shape() {
            let (mu, logvar) = (mu.shape(), logvar.shape());
            return Err(Error::shape(format!(
                "VaeLoss: expected μ and ln σ² of one shape, got {mu} and {logvar}"
            )));
        }
        Ok(([logits, mu, logvar], target.values()?))
    }

    fn samples(logits: &Tensor<T>) -> f64 {
        logits.shape().first().copied().unwrap_or(1) as f64
    }

    fn reconstruction() -> BceWithLogits<T> {
        BceWithLogits::new().reduction(Reduction::Sum)
    }
}

impl<T: Scalar> Default for VaeLoss<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Objective for VaeLoss<T> {
    type T = T;

    fn verify(&self) -> Result<()> {
        match self.beta.is_finite() {
            true => Ok(()),
            false => Err(Error::value(format!("VaeLoss: expected a finite beta, got {}", self.beta))),
        }
    }

    fn predictions(&self) -> usize {
        3
    }

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        self.verify()?;
        let ([logits, mu, logvar], x) = self.parts(ys, targets)?;
        Self::reconstruction().forward(logits, x.into(), loss)?;
        let term = |(m, v): (&T, &T)| {
            let (m, v) = (m.to_f64(), v.to_f64());
            m * m + v.exp() - 1.0 - v
        };
        let divergence: f64 = mu.data().iter().zip(logvar.data()).map(term).sum();
        let e = (loss.data()[0].to_f64() + 0.5 * self.beta * divergence) / Self::samples(logits);
        loss.data_mut()[0] = T::from_f64(e);
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.verify()?;
        let ([logits, mu, logvar], x) = self.parts(ys, targets)?;
        let [dlogits, dmu, dlogvar] = dys else {
            return Err(Error::shape(format!("VaeLoss: expected 3 gradients, got {}", dys.len())));
        };
        let g = dloss.data().first().map_or(0.0, |g| g.to_f64()) / Self::samples(logits);
        if dlogits.is_some() {
            Self::reconstruction().backward(
                logits,
                x.into(),
                &Tensor::from(T::from_f64(g)),
                dlogits.as_deref_mut(),
                None,
            )?;
        }
        let each = |y: &Tensor<T>, dy: &mut Option<&mut Tensor<T>>, slope: &dyn Fn(f64) -> f64| {
            if let Some(dy) = dy {
                let dy = dy.reset(*y.shape());
                dy.iter_mut()
                    .zip(y.data())
                    .for_each(|(dy, y)| *dy = T::from_f64(g * self.beta * slope(y.to_f64())));
            }
        };
        each(mu, dmu, &|m| m);
        each(logvar, dlogvar, &|v| 0.5 * v.exp_m1());
        Ok(())
    }
}
