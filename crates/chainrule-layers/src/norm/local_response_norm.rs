//! Local response normalisation: each element by those of its neighbouring channels.
//!
//! ```text
//! y = x d^−β,   d_c = k + α/n Σ x_j² over the channels j from c − ⌊n/2⌋ to c + ⌊(n − 1)/2⌋
//! ```
//!
//! Given g = ∂E/∂y, with W_c the channels j of which c is a neighbour:
//!
//! ```text
//! ∂E/∂x_c = g_c d_c^−β − 2αβ/n x_c Σ_{j ∈ W_c} g_j x_j d_j^(−β − 1)
//! ```
//!
//! Keeps d. Derivation: docs/layers/norm/local_response_norm.md.

use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::taps::{Taps, weigh},
};
use std::marker::PhantomData;

/// y = x/(k + α/n Σ x²)^β, with the sum over a window of n channels. Krizhevsky, Sutskever and Hinton, 2012.
///
/// # Shapes
/// x and y (N, C, …).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::LocalResponseNorm;
/// let layer = LocalResponseNorm::new(1).alpha(1.0).beta(0.5).k(0.0); // x/|x|
/// assert_eq!(layer.infer(&Tensor::from([[4.0f32, -2.0]]))?.data(), [1.0, -1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct LocalResponseNorm<T = f32> {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
    of: PhantomData<T>,
}

/// What forward keeps for backward.
#[derive(Debug)]
pub struct LocalResponseNormCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// d, of x's shape.
    d: Vec<T>,
    /// Scratch space: x², or g x d^(−β − 1), and its sums over windows of channels.
    terms: Vec<T>,
    sums: Vec<T>,
    windows: Taps<T>,
    transpose: Taps<T>,
}

impl<T> Default for LocalResponseNormCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            d: Vec::new(),
            terms: Vec::new(),
            sums: Vec::new(),
            windows: Taps::default(),
            transpose: Taps::default(),
        }
    }
}

impl<T: Scalar> LocalResponseNorm<T> {
    /// Over windows of so many channels.
    pub fn new(size: usize) -> Self {
        Self { size, alpha: 1e-4, beta: 0.75, k: 1.0, of: PhantomData }
    }

    /// The weight α of the mean of squares, 10⁻⁴ by default.
    #[must_use]
    pub fn alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// The exponent β, ¾ by default.
    #[must_use]
    pub fn beta(self, beta: f64) -> Self {
        Self { beta, ..self }
    }

    /// The summand k, 1 by default.
    #[must_use]
    pub fn k(self, k: f64) -> Self {
        Self { k, ..self }
    }

    /// The windows over an axis of so many channels, each entry α/n.
    fn windows(&self, channels: usize, taps: &mut Taps<T>) {
        taps.clear(channels);
        let weight = self.alpha / self.size as f64;
        for c in 0..channels {
            let (first, end) = (c.saturating_sub(self.size / 2), (c + (self.size - 1) / 2 + 1).min(channels));
            taps.push((first..end).map(|j| (j, weight)));
        }
    }
}

/// d^−β: powers of ¼ by square roots.
#[inline(always)]
fn power<T: Scalar>(d: T, beta: T, quarters: u32) -> T {
    match quarters {
        2 => T::ONE / d.sqrt(),
        3 => T::ONE / (d.sqrt() * d.sqrt().sqrt()),
        4 => T::ONE / d,
        _ => d.powf(-beta),
    }
}

/// 4 β where it is 2, 3 or 4.
fn quarters(beta: f64) -> u32 {
    [2, 3, 4].into_iter().find(|&n| beta * 4.0 == f64::from(n)).unwrap_or(0)
}

compiled! {
    fn squares[T](x: &[T], out: &mut [T]) {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * x);
    }
}

compiled! {
    /// d += k, y = x d^−β
    fn normalize[T](x: &[T], d: &mut [T], y: &mut [T], k: T, beta: f64) {
        let (exponent, quarters) = (T::from_f64(beta), quarters(beta));
        for ((y, d), &x) in y.iter_mut().zip(d).zip(x) {
            *d += k;
            *y = x * power(*d, exponent, quarters);
        }
    }
}

compiled! {
    /// terms = dy y/d
    fn terms_of[T](y: &[T], dy: &[T], d: &[T], terms: &mut [T]) {
        for (((t, &y), &dy), &d) in terms.iter_mut().zip(y).zip(dy).zip(d) {
            *t = dy * y / d;
        }
    }
}

compiled! {
    /// dx = dy d^−β − 2β x sums
    fn gradient[T](x_and_dy: (&[T], &[T]), d: &[T], sums: &[T], dx: &mut [T], beta: f64) {
        let (exponent, quarters, two) = (T::from_f64(beta), quarters(beta), T::from_f64(2.0 * beta));
        for ((((dx, &x), &dy), &d), &sum) in dx.iter_mut().zip(x_and_dy.0).zip(x_and_dy.1).zip(d).zip(sums) {
            *dx = dy * power(d, exponent, quarters) - two * x * sum;
        }
    }
}

impl<T: Scalar> Layer for LocalResponseNorm<T> {
    type T = T;
    type Cache = LocalResponseNormCache<T>;

    fn check(&self) -> Result<()> {
        let Self { size, alpha, beta, k, .. } = *self;
        crate::rank::check_sizes("LocalResponseNorm", "size", 1, [size])?;
        for (name, value) in [("alpha", alpha), ("beta", beta), ("k", k)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::value(format!("LocalResponseNorm: expected {name} ≥ 0, got {value}")));
            }
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        if input.len() < 2 {
            return Err(Error::shape(format!("LocalResponseNorm: expected input (N, C, ..), got {input:?}")));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let LocalResponseNormCache { recorded, d, terms, windows, .. } = cache;
        [&mut *d, &mut *terms].into_iter().for_each(|v| v.resize(x.len(), T::ZERO));
        self.windows(shape[1], windows);
        squares(x.data(), terms);
        weigh(terms, d, windows, shape[2..].iter().product()); // d = α/n Σ x²
        normalize(x.data(), d, y.reset(shape), T::from_f64(self.k), self.beta); // y = x (k + d)^−β
        *recorded = cx.recording().then_some(shape);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let LocalResponseNormCache { recorded, d, terms, sums, windows, transpose } = cache;
        if *recorded != Some(*call.x.shape()) {
            return Err(Error::not_recorded(
                "LocalResponseNorm: expected the cache of a recorded forward of this input",
            ));
        }
        let Some(dx) = dx else { return Ok(()) };
        let shape = *call.x.shape();
        self.windows(shape[1], windows);
        transpose.transpose_of(windows);
        sums.resize(call.x.len(), T::ZERO);
        terms_of(call.y.data(), call.dy.data(), d, terms); // g x d^(−β − 1)
        weigh(terms, sums, transpose, shape[2..].iter().product());
        gradient((call.x.data(), call.dy.data()), d, sums, dx.reset(shape), self.beta);
        Ok(())
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let window = self.size.min(input.get(1).copied().unwrap_or(1)) as u64;
        input.iter().fold(window, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], dx: bool) -> usize {
        let tensors = if dx { 3 } else { 2 };
        input.iter().fold(tensors * size_of::<T>(), |n, &axis| n.saturating_mul(axis))
    }

    fn spec(&self) -> Spec {
        Spec::new("LocalResponseNorm")
            .with("size", self.size)
            .with("alpha", self.alpha)
            .with("beta", self.beta)
            .with("k", self.k)
    }
}

impl<T: Scalar> FromSpec<T> for LocalResponseNorm<T> {
    const FACTS: Facts = Facts::new("LocalResponseNorm")
        .family("norm")
        .formula("x/(k + α/n Σ x²)^β, over n channels")
        .page("layers/norm/local_response_norm.md")
        .torch("LocalResponseNorm");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("size")?)
            .alpha(args.or("alpha", 1e-4)?)
            .beta(args.or("beta", 0.75)?)
            .k(args.or("k", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3).alpha(0.5).spec(), [[2, 4, 3]]),
            Example::new(Self::new(2).alpha(1.0).beta(0.6).k(2.0).spec(), [[2, 5]]),
            Example::bench(Self::new(5).spec(), [[8, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..4usize, channels in 1..6usize, rest in collection::vec(1..4usize, 0..3), size in 1..7usize,
            alpha in 0.0..2.0f64, beta in prop_oneof![Just(0.5), Just(0.75), Just(1.0), 0.0..2.0f64], k in 0.5..2.0f64,
        ) {
            layer: LocalResponseNorm::new(size).alpha(alpha).beta(beta).k(k),
            input: [vec![rows, channels], rest.clone()].concat(),
            wrong: [rows],
        }
    }

    /// x = (1, 3) in two channels, n = 2, α = 2, β = 1, k = 1. The window of channel c is c − 1 and c: d = (1 + 1, 1 + 1 + 9) =
    /// (2, 11), y = (½, 3/11). For g = (2, 11): g x/d² = (½, 3/11), with 2αβ/n = 2:
    /// ∂x = (2/2 − 2·1·(½ + 3/11), 11/11 − 2·3·3/11) = (−6/11, −7/11).
    #[test]
    pub fn by_hand() {
        let layer = LocalResponseNorm::<f64>::new(2).alpha(2.0).beta(1.0);
        let x = Tensor::from([[1.0, 3.0]]);
        let (mut y, mut dx) = (Tensor::default(), Tensor::default());
        let mut cache = LocalResponseNormCache::default();
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let dy = Tensor::from([[2.0, 11.0]]);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        for (got, want) in y.data().iter().chain(dx.data()).zip([0.5, 3. / 11., -6. / 11., -7. / 11.]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
    }

    #[test]
    fn hyper_parameters_that_make_no_sense_are_errors() {
        for size in [0, usize::MAX] {
            assert!(LocalResponseNorm::<f32>::new(size).check().is_err());
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let layer = LocalResponseNorm::<f32>::new(3);
            assert!([layer.alpha(bad), layer.beta(bad), layer.k(bad)].iter().all(|l| l.check().is_err()));
        }
        assert!(LocalResponseNorm::<f32>::new(1 << 20).infer(&Tensor::zeros([1, 3])).is_ok());
    }
}
