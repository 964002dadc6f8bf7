//! Normalisation to length 1 along one axis.
//!
//! ```text
//! y = x/max(‖x‖, ε)        ∂E/∂x = (g − y Σ g y)/‖x‖ where ‖x‖ > ε, g/ε elsewhere,   g = ∂E/∂y
//! ```
//!
//! Keeps ‖x‖. Derivation: docs/layers/norm/l2_normalize.md.

use crate::rank::axis;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::axis::{combine_along, dot_along, norm_along};
use std::marker::PhantomData;

/// y = x/max(‖x‖, ε), with the Euclidean norm along one axis.
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
}

impl<T: Scalar> L2Normalize<T> {
    /// Along the axis `dim`.
    pub fn new(dim: isize) -> Self {
        Self { dim, eps: 1e-12, of: PhantomData }
    }

    /// The least length that is divided by, 10⁻¹² by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
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
        let L2NormalizeCache { recorded, norms, scale, other } = cache;
        norms.resize(x.len() / n.max(1), T::ZERO);
        norm_along(x.data(), norms, n, inner);
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
        let L2NormalizeCache { recorded, norms, scale, other } = cache;
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
        // dx = (g − y Σ g y)/‖x‖
        combine_along((call.dy.data(), call.y.data()), (scale, other), dx.reset(*call.x.shape()), n, inner);
        Ok(())
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(2, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok((n, _)) = self.sizes(input) else { return 0 };
        let volume = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        (volume / n.max(1)).saturating_mul(3 * size_of::<T>())
    }

    fn spec(&self) -> Spec {
        Spec::new("L2Normalize").with("dim", self.dim).with("eps", self.eps)
    }
}

impl<T: Scalar> FromSpec<T> for L2Normalize<T> {
    const FACTS: Facts = Facts::new("L2Normalize")
        .family("norm")
        .formula("x/max(‖x‖, ε), along an axis")
        .page("layers/norm/l2_normalize.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.or("dim", 1)?).eps(args.or("eps", 1e-12)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(-1).spec(), [[3, 4]]),
            Example::new(Self::new(1).eps(0.5).spec(), [[2, 3, 4]]),
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
        a_large_least_length_obeys_the_laws(rows in 1..4usize, n in 1..5usize) {
            layer: L2Normalize::new(1).eps(100.0),
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

    #[test]
    fn zeros_stay_zeros_and_senseless_values_are_errors() {
        assert_eq!(L2Normalize::<f32>::new(1).infer(&Tensor::zeros([2, 3])).unwrap(), Tensor::zeros([2, 3]));
        for eps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(L2Normalize::<f32>::new(1).eps(eps).check().is_err());
        }
    }
}
