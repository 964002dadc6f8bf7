//! Maxima over axes.
//!
//! ```text
//! y = max x over the axes        ∂E/∂x = ∂E/∂y/k for the k elements that are the maximum, 0 for all others
//! ```
//!
//! Keeps nothing; the maxima are found again. Derivation: docs/layers/shape/reduce.md.

use super::reduce::{Axes, from_args};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::axis::{max_along, max_along_gradient};
use std::marker::PhantomData;

/// The maximum over some axes; NaN if an element is. Elements that are all the maximum share ∂E/∂y in equal parts.
///
/// # Shapes
/// x of any shape with these axes; y without them, or with axes of length 1 instead if `keepdim`. A negative axis counts from the
/// end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Max;
/// let x = Tensor::from([[1.0f32, 2.0, 6.0], [4.0, 5.0, 9.0]]);
/// assert_eq!(Max::new([1]).infer(&x)?.data(), [6.0, 9.0]);
/// assert_eq!(Max::new([0, 1]).keepdim(true).infer(&x)?, Tensor::from([[9.0]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Max<T = f32> {
    axes: Axes,
    of: PhantomData<T>,
}

/// Scratch space of both passes.
#[derive(Debug, Default)]
pub struct MaxCache<T> {
    /// x, or ∂E/∂x, with the axes of the maximum innermost, where they are not neighbours.
    ordered: Vec<T>,
    /// ∂x in this order, and ∂y/k.
    gradient: Vec<T>,
    shares: Vec<T>,
}

impl<T: Scalar> Max<T> {
    /// Over these axes.
    pub fn new(dims: impl Into<Vec<isize>>) -> Self {
        Self { axes: Axes { dims: dims.into(), keepdim: false }, of: PhantomData }
    }

    /// Whether the axes stay, of length 1.
    #[must_use]
    pub fn keepdim(mut self, keepdim: bool) -> Self {
        self.axes.keepdim = keepdim;
        self
    }
}

impl<T: Scalar> Layer for Max<T> {
    type T = T;
    type Cache = MaxCache<T>;

    fn check(&self) -> Result<()> {
        self.axes.check("Max")
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Ok(self.axes.plan_of_some("Max", input)?.output)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let plan = self.axes.plan_of_some("Max", x.shape())?;
        let x = plan.ordered(x, &mut cache.ordered);
        max_along(x, y.reset(plan.output), plan.n, plan.inner); // y = max x
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let plan = self.axes.plan("Max", call.x.shape())?;
        let MaxCache { ordered, gradient, shares } = cache;
        shares.resize(call.y.len(), T::ZERO);
        let x = plan.ordered(call.x, ordered);
        plan.fill(dx, *call.x.shape(), gradient, |dx| {
            // dx = dy/k where x = y
            max_along_gradient((x, call.y.data()), call.dy.data(), dx, shares, plan.n, plan.inner);
        });
        Ok(())
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok(plan) = self.axes.plan("Max", input) else { return 0 };
        let shares = plan.output.volume().saturating_mul(size_of::<T>());
        plan.copy_bytes::<T>(input).saturating_mul(2).saturating_add(shares)
    }

    fn spec(&self) -> Spec {
        Spec::new("Max").with("dim", self.axes.dims.clone()).with("keepdim", self.axes.keepdim)
    }
}

impl<T: Scalar> FromSpec<T> for Max<T> {
    const FACTS: Facts =
        Facts::new("Max").family("shape").formula("max x over axes").page("layers/shape/reduce.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self { axes: from_args(args)?, of: PhantomData })
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new([-1]).spec(), [[3, 4]]),
            Example::new(Self::new([1]).keepdim(true).spec(), [[2, 3, 4]]),
            Example::new(Self::new([1, 3]).spec(), [[2, 3, 2, 4]]),
            Example::bench(Self::new([2, 3]).spec(), [[16, 64, 32, 32]]),
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
            (shape, dims) in collection::vec(1..5usize, 2..5).prop_flat_map(|shape| {
                let dims: Vec<isize> = (0..shape.len() as isize).collect();
                let rank = shape.len();
                (Just(shape), proptest::sample::subsequence(dims, 1..=rank))
            }),
            back in any::<bool>(), keepdim in any::<bool>(),
        ) {
            layer: Max::new(match back {
                true => dims.iter().map(|dim| dim - shape.len() as isize).collect::<Vec<_>>(),
                false => dims.clone(),
            })
            .keepdim(keepdim),
            input: shape.clone(),
            wrong: vec![2; match back {
                true => shape.len() - dims[0] as usize - 1,
                false => dims[dims.len() - 1] as usize,
            }],
        }
    }

    /// The maxima of the rows of (1 3; 4 4): (3, 4). For g = (5, 6): ∂x = (0 5; 3 3).
    #[test]
    pub fn by_hand() {
        let layer = Max::<f64>::new([1]);
        let x = Tensor::from([[1., 3.], [4., 4.]]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y.data(), [3., 4.]);
        let (dy, mut dx, mut cache) = (Tensor::from([5., 6.]), Tensor::default(), MaxCache::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0., 5.], [3., 3.]]));
    }

    #[test]
    fn axes_that_do_not_fit_are_errors() {
        assert!(Max::<f32>::new([]).check().is_err());
        let text = Max::<f32>::new([1, -1]).output_shape(&[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Max: expected an input with axes [1, -1], each once, got [3, 4]");
        assert!(Max::<f32>::new([isize::MIN]).output_shape(&[3]).is_err());
        assert!(Max::<f32>::new([1]).output_shape(&[2, 0]).is_err());
        let nan = Max::<f32>::new([0]).infer(&Tensor::from([1.0, f32::NAN, 2.0])).unwrap();
        assert!(nan.data()[0].is_nan());
    }
}
