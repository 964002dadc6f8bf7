//! Snake (Ziyin, Hartwig and Ueda, 2020): the identity and a periodic part.
//!
//! ```text
//! y = x + s²/a,   s = sin(a x),   c = cos(a x);   y = x for a = 0
//! ∂E/∂x = ∂E/∂y (1 + 2 s c)        ∂E/∂a = Σ ∂E/∂y (2 x c s/a − s²/a²)
//! ```
//!
//! a is fixed, or learned: that of x's channel, or one of all elements, over which the sum is. NaN propagates, in both directions. Keeps
//! nothing but scratch space. Derivation: docs/layers/activation/snake.md.

use super::{
    channels::{self, ChannelsCache},
    finite,
};
use crate::rank::check_sizes;
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut, Result,
    Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::{elementwise::Function, layers::channel, math::sin_cos},
};

/// y = x + sin²(a x)/a, for what repeats itself along x; a = 1 by default, fixed or learned.
///
/// # Shapes
/// x and y have one shape, (N, C, …) with an a learned for each of C channels and any otherwise; `weight` (C) or (1) if learned.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Snake;
/// let y = Snake::new().infer(&Tensor::from([0.0f32, std::f32::consts::PI]))?;
/// assert!(y.data()[0] == 0.0 && (y.data()[1] - std::f32::consts::PI).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Snake<T = f32> {
    num_parameters: Option<usize>,
    start: f64,
    weight: Param<T>,
}

impl<T: Scalar> Snake<T> {
    /// a = 1, fixed.
    pub fn new() -> Self {
        Self::with(None, 1.0)
    }

    /// Sets a, or what it starts at.
    #[must_use]
    pub fn alpha(self, alpha: f64) -> Self {
        Self::with(self.num_parameters, alpha)
    }

    /// Learns a: one of all elements, or as many as there are channels.
    #[must_use]
    pub fn learned(self, num_parameters: usize) -> Self {
        Self::with(Some(num_parameters), self.start)
    }

    fn with(num_parameters: Option<usize>, start: f64) -> Self {
        let weight = Param::new("weight", [num_parameters.unwrap_or(1)], Init::Constant(start));
        Self { num_parameters, start, weight }
    }

    /// Calls f with a and the elements of a channel of a sample.
    fn with_alpha<R>(&self, input: &[usize], f: impl FnOnce(&[T], usize) -> R) -> Result<R> {
        let plane = channels::plane("Snake", self.num_parameters.unwrap_or(1), input)?;
        match self.num_parameters {
            Some(_) => Ok(f(self.weight.value()?, plane)),
            None => Ok(f(&[T::from_f64(self.start)], plane)),
        }
    }
}

impl<T: Scalar> Default for Snake<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// (s, c, s/a): s/a tends to x as a tends to 0.
#[inline(always)]
fn parts<T: Scalar, const FMA: bool>(x: T, a: T) -> (T, T, T) {
    let (s, c) = sin_cos::<T, FMA>(a * x);
    (s, c, if a == T::ZERO { x } else { s / a })
}

#[derive(Clone, Copy)]
struct Value;

impl<T: Scalar> Function<(T, T), T> for Value {
    #[inline(always)]
    fn of<const FMA: bool>(self, (x, a): (T, T)) -> T {
        let (s, _, q) = parts::<T, FMA>(x, a);
        x + s * q
    }
}

#[derive(Clone, Copy)]
struct InputGradient;

impl<T: Scalar> Function<(T, T, T), T> for InputGradient {
    #[inline(always)]
    fn of<const FMA: bool>(self, (x, dy, a): (T, T, T)) -> T {
        let (s, c, _) = parts::<T, FMA>(x, a);
        dy * (T::ONE + (s + s) * c)
    }
}

#[derive(Clone, Copy)]
struct AlphaGradient;

impl<T: Scalar> Function<(T, T, T), T> for AlphaGradient {
    #[inline(always)]
    fn of<const FMA: bool>(self, (x, dy, a): (T, T, T)) -> T {
        let (_, c, q) = parts::<T, FMA>(x, a);
        dy * q * ((x + x) * c - q)
    }
}

compiled! {
    fn forward[T](x: &[T], a: &[T], plane: usize, y: &mut [T]) {
        channel::map(x, a, plane, y, Value);
    }
}

compiled! {
    /// dx = dy (1 + 2 s c)
    fn input_gradient[T](x: &[T], dy: &[T], a: &[T], plane: usize, dx: &mut [T]) {
        channel::map2(x, dy, a, plane, dx, InputGradient);
    }
}

compiled! {
    /// da += Σ dy (2 x c s/a − s²/a²)
    fn alpha_gradient[T](x: &[T], dy: &[T], a: &[T], plane: usize, da: &mut [T], shares: &mut Vec<f64>) {
        channel::sums((x, dy), a, plane, da, shares, AlphaGradient);
    }
}

impl<T: Scalar> Layer for Snake<T> {
    type T = T;
    type Cache = ChannelsCache;

    fn check(&self) -> Result<()> {
        finite("Snake", "alpha", self.start)?;
        check_sizes("Snake", "num_parameters", 1, [self.num_parameters.unwrap_or(1)])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        channels::plane("Snake", self.num_parameters.unwrap_or(1), input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut ChannelsCache, _: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        self.with_alpha(x.shape(), |a, plane| forward(x.data(), a, plane, y))
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut ChannelsCache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (x, dy) = (call.x.data(), call.dy.data());
        let da = self.num_parameters.and_then(|_| grads.of(&self.weight));
        self.with_alpha(call.x.shape(), |a, plane| {
            if let Some(da) = da {
                alpha_gradient(x, dy, a, plane, da, &mut cache.shares);
            }
            if let Some(dx) = dx {
                input_gradient(x, dy, a, plane, dx.reset(*call.x.shape()));
            }
        })
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        if self.num_parameters.is_some() {
            out.add(&self.weight);
        }
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        if self.num_parameters.is_some() {
            out.add(&mut self.weight);
        }
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.num_parameters.map_or(0, |parameters| channels::bytes(parameters, input))
    }

    fn spec(&self) -> Spec {
        Spec::new("Snake").with("num_parameters", self.num_parameters).with("alpha", self.start)
    }
}

impl<T: Scalar> FromSpec<T> for Snake<T> {
    const FACTS: Facts = Facts::new("Snake")
        .family("activation")
        .formula("x + sin²(a x)/a")
        .page("layers/activation/snake.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::with(args.optional("num_parameters")?, args.or("alpha", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new().alpha(0.5).spec(), [[3, 5]]),
            Example::new(Self::new().learned(1).spec(), [[3, 5]]),
            Example::new(Self::new().learned(3).alpha(2.0).spec(), [[2, 3, 4]]),
            Example::bench(Self::new().learned(64).spec(), [[16, 64, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters};
    use chainrule_gradcheck::laws;
    use std::f64::consts::PI;

    laws! {
        obeys_the_laws((n, c, axes) in (1..6usize, 2..6usize, collection::vec(1..6usize, 0..3)), alpha in 0.3..3.0) {
            layer: Snake::new().learned(c).alpha(alpha),
            input: [&[n, c][..], &axes].concat(),
            wrong: [&[n, c + 1][..], &axes].concat(),
            wrong: [c],
        }
        with_one_that_is_learned(shape in collection::vec(1..6usize, 0..4)) {
            layer: Snake::new().learned(1),
            input: shape,
        }
        with_one_that_is_fixed(shape in collection::vec(1..6usize, 0..4), alpha in -3.0..3.0) {
            layer: Snake::new().alpha(alpha),
            input: shape,
        }
    }

    /// With a = 2 at x = π/8, 0 and π/4: a x = π/4, 0, π/2, so s² = ½, 0, 1 and s c = ½, 0, 0. y = x + s²/2, y' = 1 + 2 s c = 2, 1, 1.
    /// ∂y/∂a = x·2 s c/2 − s²/4 = π/16 − 1/8, 0, −¼. For g = 5: ∂x = 10, 5, 5, ∂a = 5 (π/16 − 3/8).
    #[test]
    pub fn by_hand() {
        let layer = Snake::<f64>::new().learned(1).alpha(2.0).init(1).unwrap();
        let (x, dy) = (Tensor::from([PI / 8.0, 0.0, PI / 4.0]), Tensor::from([5.0; 3]));
        let (y, mut dx, mut grads) = (layer.infer(&x).unwrap(), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut ChannelsCache::default(), &mut grads, Some(&mut dx)).unwrap();
        let got = y.data().iter().chain(dx.data()).chain(grads.values());
        let want = [PI / 8.0 + 0.25, 0.0, PI / 4.0 + 0.5, 10.0, 5.0, 5.0, 5.0 * (PI / 16.0 - 0.375)];
        for (got, want) in got.zip(want) {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
    }

    /// As a → 0: y → x and ∂y/∂a → x².
    #[test]
    fn an_alpha_of_0_gives_the_limit() {
        let layer = Snake::<f64>::new().learned(1).alpha(0.0).init(1).unwrap();
        let (x, dy) = (Tensor::from([3.0, -2.0]), Tensor::from([1.0; 2]));
        let (y, mut dx, mut grads) = (layer.infer(&x).unwrap(), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut ChannelsCache::default(), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (x.data(), dy.data(), &[13.0][..]));
        let text = Snake::<f32>::new().alpha(f64::NAN).check().unwrap_err().to_string();
        assert_eq!(text, "Snake: expected a finite alpha, got NaN");
        assert!(Snake::<f32>::new().learned(0).check().is_err());
    }
}
