//! Normalisation to length 1 along one axis.
//!
//! ```text
//! y = x/max(‖x‖, ε)        ∂E/∂x = (g − ∂‖x‖/∂x Σ g y)/‖x‖ where ‖x‖ > ε, g/ε elsewhere,   g = ∂E/∂y
//! ‖x‖ = (Σ |x|ᵖ)^(1/p)     ∂‖x‖/∂x = sign(y) |y|^(p − 1), which is y for p = 2;   p = ∞: sign(x)/k for the k elements with |x| = ‖x‖
//! ```
//!
//! Keeps ‖x‖. Derivation: docs/layers/norm/l2_normalize.md.

use crate::rank::axis;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::axis::{
        combine_along, dot_along, max_along, max_along_gradient, norm_along, spread_along, sum_along,
    },
};
use std::marker::PhantomData;

/// y = x/max(‖x‖, ε), with the Euclidean norm along one axis, or another p-norm.
///
/// # Shapes
/// x and y have one shape, of any rank with that axis; a negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::L2Normalize;
/// let y = L2Normalize::new(-1).infer(&Tensor::from([[3.0f32, 4.0]]))?;
/// assert!((y.data()[0] - 0.6).abs() < 1e-6 && (y.data()[1] - 0.8).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct L2Normalize<T = f32> {
    dim: isize,
    p: f64,
    eps: f64,
    of: PhantomData<T>,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct L2NormalizeCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// ‖x‖ of each line.
    norms: Vec<T>,
    /// Scratch space: what x and y, or ∂E/∂y and y, are multiplied by.
    scale: Vec<T>,
    other: Vec<T>,
    /// |x|ᵖ, or ∂‖x‖/∂x, and the largest |x| of each line, where p is not 2.
    powers: Vec<T>,
    slopes: Vec<T>,
    /// What each of the largest |x| of a line takes on, where p is infinite.
    shares: Vec<T>,
}

compiled! {
    fn sizes[T](x: &[T], out: &mut Vec<T>) {
        out.resize(x.len(), T::ZERO);
        out.iter_mut().zip(x).for_each(|(size, &x)| *size = x.abs());
    }
}

compiled! {
    /// (v/m)ᵖ for the largest m of each line, which stands in `largest` for each v; 0 where m is 0.
    fn relative_powers[T](v: &mut [T], largest: &[T], p: f64) {
        for (v, &m) in v.iter_mut().zip(largest) {
            let share = if m > T::ZERO { v.to_f64() / m.to_f64() } else { 0.0 };
            *v = if m.is_nan() { m } else { T::from_f64(share.powf(p)) };
        }
    }
}

compiled! {
    /// sign(y) |y|^(p − 1), 0 where y is 0: |y| is at most 1, but for rounding.
    fn slopes[T](y: &[T], p: f64, out: &mut Vec<T>) {
        out.resize(y.len(), T::ZERO);
        if p == 1.0 {
            out.iter_mut().zip(y).for_each(|(slope, &y)| *slope = if y == T::ZERO { y } else { y.signum() });
            return;
        }
        let most = f64::from(f32::MAX);
        for (slope, &y) in out.iter_mut().zip(y) {
            let size = y.to_f64().abs().min(1.0).powf(p - 1.0).min(most);
            *slope = if y == T::ZERO { y } else { T::from_f64(size) * y.signum() };
        }
    }
}

compiled! {
    fn with_signs[T](x: &[T], out: &mut [T]) {
        out.iter_mut().zip(x).for_each(|(v, &x)| *v *= x.signum());
    }
}

impl<T: Scalar> L2Normalize<T> {
    /// Along the axis `dim`.
    pub fn new(dim: isize) -> Self {
        Self { dim, p: 2.0, eps: 1e-12, of: PhantomData }
    }

    /// The p of the norm (Σ |x|ᵖ)^(1/p), 2 by default; infinite for the largest |x|.
    #[must_use]
    pub fn p(self, p: f64) -> Self {
        Self { p, ..self }
    }

    /// The least length that is divided by, 10⁻¹² by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// ‖x‖ of each line into `norms`.
    fn norms(&self, x: &[T], (n, inner): (usize, usize), cache: &mut L2NormalizeCache<T>) {
        let L2NormalizeCache { norms, powers, slopes, .. } = cache;
        norms.resize(x.len() / n.max(1), T::ZERO);
        if self.p == 2.0 {
            return norm_along(x, norms, n, inner);
        }
        if x.is_empty() {
            return norms.fill(T::ZERO);
        }
        sizes(x, powers);
        if self.p == 1.0 {
            return sum_along(powers, norms, n, inner, 1.0); // Σ |x|
        }
        max_along(powers, norms, n, inner); // max |x|
        if self.p.is_infinite() {
            return;
        }
        // ‖x‖ = m (Σ (|x|/m)ᵖ)^(1/p) for m = max |x|, which no power overflows.
        slopes.resize(x.len(), T::ZERO);
        spread_along(norms, slopes, n, inner, T::ONE);
        relative_powers(powers, slopes, self.p);
        let sums = &mut slopes[..norms.len()];
        sum_along(powers, sums, n, inner, 1.0);
        for (norm, sum) in norms.iter_mut().zip(sums) {
            *norm = T::from_f64(norm.to_f64() * sum.to_f64().powf(1.0 / self.p));
        }
    }

    /// (n, inner): the length of the axis, and the product of those behind it.
    fn sizes(&self, shape: &[usize]) -> Result<(usize, usize)> {
        let shape = Shape::new(shape)?;
        let at = axis(self.dim, shape.len()).ok_or_else(|| {
            Error::shape(format!("L2Normalize: expected an input with axis {}, got {shape}", self.dim))
        })?;
        Ok((shape[at], shape[at + 1..].iter().product()))
    }
}

impl<T: Scalar> Layer for L2Normalize<T> {
    type T = T;
    type Cache = L2NormalizeCache<T>;

    fn check(&self) -> Result<()> {
        if self.p.is_nan() || self.p <= 0.0 {
            return Err(Error::value(format!("L2Normalize: expected p > 0, got {}", self.p)));
        }
        if self.eps > 0.0 && self.eps.is_finite() {
            return Ok(());
        }
        Err(Error::value(format!("L2Normalize: expected eps > 0, got {}", self.eps)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        self.sizes(input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let (n, inner) = self.sizes(&shape)?;
        self.norms(x.data(), (n, inner), cache);
        let L2NormalizeCache { recorded, norms, scale, other, .. } = cache;
        let eps = T::from_f64(self.eps);
        scale.clear();
        scale.extend(norms.iter().map(|&norm| T::ONE / if norm > eps { norm } else { eps }));
        other.clear();
        other.resize(norms.len(), T::ZERO);
        // y = x/max(‖x‖, ε)
        combine_along((x.data(), x.data()), (scale, other), y.reset(shape), n, inner);
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
        let L2NormalizeCache { recorded, norms, scale, other, powers, slopes: toward, shares } = cache;
        if *recorded != Some(*call.x.shape()) {
            return Err(Error::not_recorded(
                "L2Normalize: expected the cache of a recorded forward of this input",
            ));
        }
        let Some(dx) = dx else { return Ok(()) };
        let ((n, inner), eps) = (self.sizes(call.x.shape())?, T::from_f64(self.eps));
        dot_along(call.dy.data(), call.y.data(), other, n, inner); // Σ g y
        for ((s, o), &norm) in scale.iter_mut().zip(&mut *other).zip(&*norms) {
            (*s, *o) = if norm > eps { (T::ONE / norm, -*o / norm) } else { (T::ONE / eps, T::ZERO) };
        }
        let (x, y, dy, dx) = (call.x.data(), call.y.data(), call.dy.data(), dx.reset(*call.x.shape()));
        let toward = if self.p == 2.0 || x.is_empty() {
            y
        } else if self.p.is_infinite() {
            sizes(x, powers);
            toward.resize(x.len(), T::ZERO);
            shares.resize(norms.len(), T::ZERO);
            max_along_gradient((powers, norms), other, toward, shares, n, inner);
            with_signs(x, toward);
            other.fill(T::ONE);
            toward
        } else {
            slopes(y, self.p, toward);
            toward
        };
        combine_along((dy, toward), (scale, other), dx, n, inner); // dx = (g − ∂‖x‖/∂x Σ g y)/‖x‖
        Ok(())
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(2, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok((n, _)) = self.sizes(input) else { return 0 };
        let volume = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        let lines = (volume / n.max(1)).saturating_mul(if self.p.is_infinite() { 4 } else { 3 });
        let elements = if self.p == 2.0 { 0 } else { volume.saturating_mul(2) };
        lines.saturating_add(elements).saturating_mul(size_of::<T>())
    }

    fn spec(&self) -> Spec {
        Spec::new("L2Normalize").with("dim", self.dim).with("eps", self.eps).with_unless(2.0, "p", self.p)
    }
}

impl<T: Scalar> FromSpec<T> for L2Normalize<T> {
    const FACTS: Facts = Facts::new("L2Normalize")
        .family("norm")
        .formula("x/max(‖x‖, ε), along an axis")
        .page("layers/norm/l2_normalize.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.or("dim", 1)?).eps(args.or("eps", 1e-12)?).p(args.or("p", 2.0)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(-1).spec(), [[3, 4]]),
            Example::new(Self::new(1).eps(0.5).spec(), [[2, 3, 4]]),
            Example::new(Self::new(-1).p(1.0).spec(), [[3, 4]]),
            Example::new(Self::new(1).p(3.0).spec(), [[2, 3, 2]]),
            Example::new(Self::new(0).p(f64::INFINITY).spec(), [[3, 4]]),
            Example::bench(Self::new(-1).spec(), [[4096, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis) in collection::vec(1..6usize, 1..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), -rank..rank)
        })) {
            layer: L2Normalize::new(axis),
            input: shape,
            wrong: vec![2; if axis < 0 { (-axis) as usize - 1 } else { axis as usize }],
        }
        with_another_norm_it_obeys_the_laws(
            (shape, axis) in collection::vec(1..6usize, 1..5).prop_flat_map(|shape| {
                let rank = shape.len() as isize;
                (Just(shape), -rank..rank)
            }),
            p in prop_oneof![Just(1.0), Just(f64::INFINITY), Just(3.0), 1.2..6.0f64],
        ) {
            layer: L2Normalize::new(axis).p(p),
            input: shape,
        }
        a_power_below_1_obeys_the_laws(rows in 1..4usize, n in 1..5usize, p in 0.5..1.0f64) {
            layer: L2Normalize::new(1).p(p),
            input: [rows, n],
        }
        a_large_least_length_obeys_the_laws(rows in 1..4usize, n in 1..5usize, p in prop_oneof![Just(2.0), Just(1.0), Just(f64::INFINITY), 0.5..4.0f64]) {
            layer: L2Normalize::new(1).p(p).eps(10_000.0),
            input: [rows, n],
        }
    }

    /// x = (3, 4): ‖x‖ = 5, y = (0.6, 0.8). For g = (5, 0): Σ g y = 3, ∂x = (5 − 1.8, −2.4)/5 = (0.64, −0.48).
    #[test]
    pub fn by_hand() {
        let layer = L2Normalize::<f64>::new(-1);
        let x = Tensor::from([[3.0, 4.0]]);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), L2NormalizeCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let dy = Tensor::from([[5.0, 0.0]]);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        for (got, want) in y.data().iter().chain(dx.data()).zip([0.6, 0.8, 0.64, -0.48]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
    }

    /// x = (3, −4, 4). p = 1: ‖x‖ = 11, y = x/11; for g = (11, 0, 0): Σ g y = 3, ∂x = ((11, 0, 0) − 3 (1, −1, 1))/11 = (8, 3, −3)/11.
    /// p = ∞: ‖x‖ = 4, y = (¾, −1, 1); for g = (4, 0, 0): Σ g y = 3, ∂‖x‖/∂x = (0, −½, ½), ∂x = (1, ⅜, −⅜).
    #[test]
    fn other_norms_by_hand() {
        let x = Tensor::from([[3.0, -4.0, 4.0]]);
        let third = |v: [f64; 3]| v.map(|v| v / 11.0);
        for (p, g, want_y, want_dx) in [
            (1.0, 11.0, third([3.0, -4.0, 4.0]), third([8.0, 3.0, -3.0])),
            (f64::INFINITY, 4.0, [0.75, -1.0, 1.0], [1.0, 0.375, -0.375]),
        ] {
            let (layer, mut y, mut dx) = (L2Normalize::new(1).p(p), Tensor::default(), Tensor::default());
            let (mut cache, dy) = (L2NormalizeCache::default(), Tensor::from([[g, 0.0, 0.0]]));
            layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
            let call = Call::new(&layer, &x, &y, &dy).unwrap();
            layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
            for (got, want) in y.data().iter().chain(dx.data()).zip(want_y.iter().chain(&want_dx)) {
                assert!((got - want).abs() < 1e-15, "p = {p}: {got} for {want}");
            }
        }
    }

    /// f32 holds neither 10³⁰ cubed nor 10⁻³⁰ cubed.
    #[test]
    fn powers_neither_overflow_nor_vanish() {
        for size in [1e30f32, 1e-30] {
            let y = L2Normalize::new(1).p(3.0).eps(1e-35).infer(&Tensor::from([[size, -size]])).unwrap();
            let want = 0.5f32.powf(1.0 / 3.0);
            assert!((y.data()[0] - want).abs() < 1e-6 && (y.data()[1] + want).abs() < 1e-6, "{y:?}");
        }
        for p in [1e-300, 0.1, 1.0, 3.0, 1e300, f64::INFINITY] {
            let layer = L2Normalize::<f32>::new(1).p(p);
            let x = Tensor::from([[0.0, 0.0], [1.0, 0.0], [2.0, 3.0]]);
            let (mut y, mut dx, mut cache) =
                (Tensor::default(), Tensor::default(), L2NormalizeCache::default());
            layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
            let dy = Tensor::full([3, 2], 0.5);
            let call = Call::new(&layer, &x, &y, &dy).unwrap();
            layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
            assert!(y.data().iter().chain(dx.data()).all(|v| v.is_finite()), "p = {p}: {y:?} {dx:?}");
        }
        assert_eq!(L2Normalize::<f32>::new(1).p(3.0).infer(&Tensor::zeros([2, 0])).unwrap().len(), 0);
        for p in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(L2Normalize::<f32>::new(1).p(p).check().is_err());
        }
    }

    #[test]
    fn zeros_stay_zeros_and_senseless_values_are_errors() {
        assert_eq!(L2Normalize::<f32>::new(1).infer(&Tensor::zeros([2, 3])).unwrap(), Tensor::zeros([2, 3]));
        for eps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(L2Normalize::<f32>::new(1).eps(eps).check().is_err());
        }
    }
}
