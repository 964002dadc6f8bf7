//! Sums over axes.
//!
//! ```text
//! y = Σ x over the axes        ∂E/∂x = ∂E/∂y, the same for all elements of a sum
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/reduce.md.

use super::reduce::{Axes, from_args};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::axis::{spread_along, sum_along};
use std::marker::PhantomData;

/// The sum over some axes.
///
/// # Shapes
/// x of any shape with these axes; y without them, or with axes of length 1 instead if `keepdim`. A negative axis counts from the
/// end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Sum;
/// let x = Tensor::from([[1.0f32, 2.0, 6.0], [4.0, 5.0, 9.0]]);
/// assert_eq!(Sum::new([1]).infer(&x)?.data(), [9.0, 18.0]);
/// assert_eq!(Sum::new([0, 1]).keepdim(true).infer(&x)?, Tensor::from([[27.0]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Sum<T = f32> {
    axes: Axes,
    of: PhantomData<T>,
}

/// Scratch space of both passes.
#[derive(Debug, Default)]
pub struct SumCache<T> {
    /// x, or ∂E/∂x, with the axes of the sum innermost, where they are not neighbours.
    ordered: Vec<T>,
}

impl<T: Scalar> Sum<T> {
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

impl<T: Scalar> Layer for Sum<T> {
    type T = T;
    type Cache = SumCache<T>;

    fn check(&self) -> Result<()> {
        self.axes.check("Sum")
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let plan = self.axes.plan("Sum", input)?;
        Ok(plan.output)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let plan = self.axes.plan("Sum", x.shape())?;
        let x = plan.ordered(x, &mut cache.ordered);
        sum_along(x, y.reset(plan.output), plan.n, plan.inner, 1.0); // y = Σ x
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
        let plan = self.axes.plan("Sum", call.x.shape())?;
        plan.fill(dx, *call.x.shape(), &mut cache.ordered, |dx| {
            spread_along(call.dy.data(), dx, plan.n, plan.inner, T::ONE); // dx = dy
        });
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.axes.plan("Sum", input).map_or(0, |plan| plan.copy_bytes::<T>(input))
    }

    fn spec(&self) -> Spec {
        Spec::new("Sum").with("dim", self.axes.dims.clone()).with("keepdim", self.axes.keepdim)
    }
}

impl<T: Scalar> FromSpec<T> for Sum<T> {
    const FACTS: Facts =
        Facts::new("Sum").family("shape").formula("Σ x over axes").page("layers/shape/reduce.md");

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
            layer: Sum::new(match back {
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

    /// The sums of the rows of (1 2; 3 4): (3, 7). For g = (5, 6): ∂x = (5 5; 6 6).
    #[test]
    pub fn by_hand() {
        let layer = Sum::<f64>::new([1]);
        let x = Tensor::from([[1., 2.], [3., 4.]]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y.data(), [3., 7.]);
        let (dy, mut dx, mut cache) = (Tensor::from([5., 6.]), Tensor::default(), SumCache::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[5., 5.], [6., 6.]]));
    }

    #[test]
    fn axes_that_do_not_fit_are_errors() {
        assert!(Sum::<f32>::new([]).check().is_err());
        let text = Sum::<f32>::new([1, -1]).output_shape(&[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Sum: expected an input with axes [1, -1], each once, got [3, 4]");
        assert!(Sum::<f32>::new([isize::MIN]).output_shape(&[3]).is_err());
        assert_eq!(Sum::<f32>::new([1]).infer(&Tensor::zeros([2, 0])).unwrap().data(), [0.0; 2]);
    }
}
