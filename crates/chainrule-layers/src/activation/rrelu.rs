//! The randomised leaky rectified linear unit (Xu, Wang, Chen and Li, 2015).
//!
//! ```text
//! y = x for x > 0, a x otherwise;   a uniform in [l, u) for each element in training, (l + u)/2 in inference
//! ∂E/∂x = ∂E/∂y (1 for x > 0, a otherwise)
//! ```
//!
//! At 0 the slope is a; NaN propagates, in both directions. Stores the key of its noise, not the slopes. Derivation:
//! docs/layers/activation/rrelu.md.

use super::{LeakyRelu, finite, pointwise};
use crate::noise::NoiseCache;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{compiled, kernels::layers::noise::random_slopes};
use std::marker::PhantomData;

/// y = x for x > 0 and a x otherwise, where a is uniform in [l, u) for each element in training and (l + u)/2 in inference; l = 1/8 and
/// u = 1/3 by default.
///
/// Slopes are drawn as the mask of [`Dropout`](crate::Dropout) is.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::RRelu;
/// let y = RRelu::new().lower(0.25).upper(0.75).infer(&Tensor::from([-4.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-2.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct RRelu<T = f32> {
    lower: f64,
    upper: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> RRelu<T> {
    /// l = 1/8, u = 1/3.
    pub fn new() -> Self {
        Self { lower: 1.0 / 8.0, upper: 1.0 / 3.0, of: PhantomData }
    }

    /// Sets l, the smallest slope.
    #[must_use]
    pub fn lower(mut self, lower: f64) -> Self {
        self.lower = lower;
        self
    }

    /// Sets u ≥ l, the largest slope.
    #[must_use]
    pub fn upper(mut self, upper: f64) -> Self {
        self.upper = upper;
        self
    }

    /// The function of inference.
    fn mean(&self) -> LeakyRelu<T> {
        LeakyRelu::new().negative_slope(0.5 * self.lower + 0.5 * self.upper)
    }
}

impl<T: Scalar> Default for RRelu<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    /// dx of the function of inference.
    fn mean_gradient[T](f: LeakyRelu<T>, call: Call<'_, T>, dx: &mut Tensor<T>) {
        pointwise::backward(f, call.x, call, dx);
    }
}

impl<T: Scalar> Layer for RRelu<T> {
    type T = T;
    type Cache = NoiseCache;

    fn check(&self) -> Result<()> {
        finite("RRelu", "lower", self.lower)?;
        finite("RRelu", "upper", self.upper)?;
        if self.lower <= self.upper {
            return Ok(());
        }
        let (lower, upper) = (self.lower, self.upper);
        Err(Error::value(format!("RRelu: expected lower ≤ upper, got {lower} and {upper}")))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut NoiseCache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        match cache.record(&shape, cx) {
            Some(noise) => {
                random_slopes(x.data(), x.data(), y.reset(shape), noise.key, self.lower, self.upper)
            }
            None => self.mean().forward(x, y, &mut (), cx)?,
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut NoiseCache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let noise = cache.recorded("RRelu", call.x.shape())?;
        let Some(dx) = dx else { return Ok(()) };
        match noise {
            Some(noise) => {
                let (x, dy, dx) = (call.x.data(), call.dy.data(), dx.reset(*call.x.shape()));
                random_slopes(x, dy, dx, noise.key, self.lower, self.upper); // dx = dy (1 for x > 0, a otherwise)
            }
            None => mean_gradient(self.mean(), call, dx),
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("RRelu").with("lower", self.lower).with("upper", self.upper)
    }
}

impl<T: Scalar> FromSpec<T> for RRelu<T> {
    const FACTS: Facts = Facts::new("RRelu")
        .family("activation")
        .formula("max(x, 0) + a min(x, 0), a random")
        .page("layers/activation/rrelu.md")
        .torch("RReLU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new().lower(args.or("lower", 1.0 / 8.0)?).upper(args.or("upper", 1.0 / 3.0)?))
    }

    fn examples() -> Vec<Example> {
        pointwise::examples([Self::new(), Self::new().lower(-0.5).upper(0.5)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::noise::noisy::tests::pass;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), lower in -1.0..1.0, width in 0.0..1.0) {
            layer: RRelu::new().lower(lower).upper(lower + width),
            input: shape,
        }
    }

    /// With l = ¼ and u = ½, x = −4 and g = 2: y = −4 a and ∂x = 2 a with one a of [¼, ½) for both; frozen, a = 3/8: y = −3/2, ∂x = ¾.
    /// x = 3 gives 3 and 2.
    #[test]
    pub fn by_hand() {
        let layer = || RRelu::new().lower(0.25).upper(0.5);
        let (y, dx) = pass(layer(), [40], -4.0, Context::train(3));
        assert!(y.iter().zip(&dx).all(|(y, dx)| y / -4.0 == dx / 2.0 && (0.25..0.5).contains(&(dx / 2.0))));
        assert!(y.iter().any(|&v| v != y[0]));
        assert_eq!(pass(layer(), [2], -4.0, Context::frozen()), (vec![-1.5; 2], vec![0.75; 2]));
        assert_eq!(pass(layer(), [2], 3.0, Context::train(3)), (vec![3.0; 2], vec![2.0; 2]));
    }

    #[test]
    fn nan_stays_and_another_step_draws_other_slopes() {
        let at = |step| pass(RRelu::new(), [40], -3.0, Context::train(3).step(step));
        assert!(at(1) == at(1) && at(1).0 != at(2).0);
        for cx in [Context::train(1), Context::frozen()] {
            let (y, dx) = pass(RRelu::new(), [1], f64::NAN, cx);
            assert!(y[0].is_nan() && dx[0].is_nan());
        }
    }

    #[test]
    fn an_empty_interval_is_an_error() {
        let text = RRelu::<f32>::new().lower(2.0).upper(1.0).check().unwrap_err().to_string();
        assert_eq!(text, "RRelu: expected lower ≤ upper, got 2 and 1");
        assert!(RRelu::<f32>::new().upper(f64::NAN).check().is_err());
    }
}
