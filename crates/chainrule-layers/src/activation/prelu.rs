//! The parametric rectified linear unit (He, Zhang, Ren and Sun, 2015): a leaky rectifier whose slope is learned.
//!
//! ```text
//! y = x for x > 0, a x otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, a otherwise)        ∂E/∂a = Σ ∂E/∂y min(x, 0)
//! ```
//!
//! a is that of x's channel, or one of all elements; the sum is over its elements. At 0 the slope is a; NaN propagates, in both
//! directions. Keeps nothing but scratch space. Derivation: docs/layers/activation/prelu.md.

use super::{
    channels::{self, ChannelsCache},
    finite,
};
use crate::rank::check_sizes;
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut, Result,
    Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{compiled, kernels::layers::channel};

/// y = x for x > 0 and a x otherwise, with a slope a that is learned: one of all elements, or one of each channel. It starts at ¼.
///
/// # Shapes
/// x and y have one shape, (N, C, …) with a slope for each of C channels and any with a single one; `weight` (C) or (1).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::PRelu;
/// let y = PRelu::new().init(1)?.infer(&Tensor::from([-4.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-1.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PRelu<T = f32> {
    num_parameters: usize,
    start: f64,
    weight: Param<T>,
}

impl<T: Scalar> PRelu<T> {
    /// One slope of all elements, which starts at ¼.
    pub fn new() -> Self {
        Self::with(1, 0.25)
    }

    /// Sets the number of slopes: 1, or that of the channels.
    #[must_use]
    pub fn num_parameters(self, num_parameters: usize) -> Self {
        Self::with(num_parameters, self.start)
    }

    /// Sets what the slopes start at, `init` in PyTorch.
    #[must_use]
    pub fn start(self, start: f64) -> Self {
        Self::with(self.num_parameters, start)
    }

    fn with(num_parameters: usize, start: f64) -> Self {
        let weight = Param::new("weight", [num_parameters], Init::Constant(start));
        Self { num_parameters, start, weight }
    }
}

impl<T: Scalar> Default for PRelu<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn forward[T](x: &[T], a: &[T], plane: usize, y: &mut [T]) {
        channel::map(x, a, plane, y, |(x, a): (T, T)| if x > T::ZERO { x } else { a * x });
    }
}

compiled! {
    /// dx = dy (1 for x > 0, a otherwise)
    fn input_gradient[T](x: &[T], dy: &[T], a: &[T], plane: usize, dx: &mut [T]) {
        channel::map2(x, dy, a, plane, dx, |(x, dy, a): (T, T, T)| {
            let slope = if x > T::ZERO { T::ONE } else { a };
            dy * if x.is_nan() { x } else { slope }
        });
    }
}

compiled! {
    /// da += Σ dy min(x, 0)
    fn slope_gradient[T](x: &[T], dy: &[T], a: &[T], plane: usize, da: &mut [T], shares: &mut Vec<f64>) {
        channel::sums((x, dy), a, plane, da, shares, |(x, dy, _): (T, T, T)| {
            if x > T::ZERO { T::ZERO } else { dy * x }
        });
    }
}

impl<T: Scalar> Layer for PRelu<T> {
    type T = T;
    type Cache = ChannelsCache;

    fn check(&self) -> Result<()> {
        finite("PRelu", "init", self.start)?;
        check_sizes("PRelu", "num_parameters", 1, [self.num_parameters])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        channels::plane("PRelu", self.num_parameters, input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut ChannelsCache, _: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let plane = channels::plane("PRelu", self.num_parameters, x.shape())?;
        forward(x.data(), self.weight.value()?, plane, y);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut ChannelsCache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let plane = channels::plane("PRelu", self.num_parameters, call.x.shape())?;
        let (x, dy, a) = (call.x.data(), call.dy.data(), self.weight.value()?);
        if let Some(da) = grads.of(&self.weight) {
            slope_gradient(x, dy, a, plane, da, &mut cache.shares);
        }
        if let Some(dx) = dx {
            input_gradient(x, dy, a, plane, dx.reset(*call.x.shape()));
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        channels::bytes(self.num_parameters, input)
    }

    fn spec(&self) -> Spec {
        Spec::new("PRelu").with("num_parameters", self.num_parameters).with("init", self.start)
    }
}

impl<T: Scalar> FromSpec<T> for PRelu<T> {
    const FACTS: Facts = Facts::new("PRelu")
        .family("activation")
        .formula("max(x, 0) + a min(x, 0), a learned")
        .page("layers/activation/prelu.md")
        .torch("PReLU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::with(args.or("num_parameters", 1)?, args.or("init", 0.25)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new().spec(), [[3, 5]]),
            Example::new(Self::new().num_parameters(3).start(-0.5).spec(), [[2, 3, 4]]),
            Example::bench(Self::new().num_parameters(64).spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((n, c, axes) in (1..6usize, 2..6usize, collection::vec(1..6usize, 0..3)), start in -1.0..1.5) {
            layer: PRelu::new().num_parameters(c).start(start),
            input: [&[n, c][..], &axes].concat(),
            wrong: [&[n, c + 1][..], &axes].concat(),
            wrong: [c],
        }
        with_one_slope(shape in collection::vec(1..6usize, 0..4)) {
            layer: PRelu::new(),
            input: shape,
        }
    }

    /// a = (½, 2), x = ((−2, 4), (−6, −1)): y = ((−1, 4), (−3, −2)). For g = ((1, 2), (3, 4)): ∂x = ((½, 2), (3/2, 8)),
    /// ∂a = (1·(−2) + 3·(−6), 4·(−1)) = (−20, −4).
    #[test]
    pub fn by_hand() {
        let mut layer = PRelu::<f64>::new().num_parameters(2);
        layer.weight.set(Tensor::from([0.5, 2.0])).unwrap();
        let (x, dy) = (Tensor::from([[-2.0, 4.0], [-6.0, -1.0]]), Tensor::from([[1.0, 2.0], [3.0, 4.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ChannelsCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[-1.0, 4.0], [-3.0, -2.0]]));
        let mut grads = Grads::new(&layer);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0.5, 2.0], [1.5, 8.0]]));
        assert_eq!(grads.values(), [-20.0, -4.0]);
    }

    #[test]
    fn nan_gives_nan_and_so_do_its_gradients() {
        let layer = PRelu::<f64>::new().init(1).unwrap();
        let (x, dy) = (Tensor::from([1.0, f64::NAN]), Tensor::from([1.0, 1.0]));
        let (y, mut dx, mut grads) = (layer.infer(&x).unwrap(), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut ChannelsCache::default(), &mut grads, Some(&mut dx)).unwrap();
        assert!(y.data()[1].is_nan() && dx.data()[1].is_nan() && grads.values()[0].is_nan());
        assert_eq!((y.data()[0], dx.data()[0]), (1.0, 1.0));
    }

    #[test]
    fn slopes_that_do_not_fit_are_errors() {
        let text = PRelu::<f32>::new().num_parameters(3).output_shape(&[2, 4]).unwrap_err().to_string();
        assert_eq!(text, "PRelu: expected input (N, 3, ..), got [2, 4]");
        assert!(PRelu::<f32>::new().num_parameters(0).init(1).is_err());
        assert!(PRelu::<f32>::new().start(f64::NAN).init(1).is_err());
    }
}
