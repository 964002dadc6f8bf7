//! Windows summed into an image (col2im).
//!
//! ```text
//! y[n, c, a, b] = Σ over the (r, s), o that stand for it of x[n, (c, r, s), o]
//! ∂E/∂x[n, (c, r, s), o] = ∂E/∂y[n, c, i·stride + r·dilation − p, j·stride + s·dilation − p], 0 in the padding; window o = (i, j)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/conv/unfold.md.

use super::patches::{Patches, sliding};
use crate::{
    Sizes,
    rank::{check_sizes, join},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::unfold::{fold, unfold};
use std::marker::PhantomData;

/// The sum of windows, each element where [`super::Unfold`] would have read it. An image that was unfolded comes back with each pixel as
/// often as windows see it.
///
/// # Shapes
/// x (N, C·kernel height·kernel width, L) with one column for each of the L windows of an image of the output's size, y (N, C, H, W).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Fold;
/// let x = Tensor::from([[[1.0f32, 2.0], [10.0, 20.0]]]);
/// assert_eq!(Fold::new([1, 3], [1, 2]).infer(&x)?.data(), [1.0, 12.0, 20.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fold<T = f32> {
    size: [usize; 2],
    patches: Patches,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Fold<T> {
    /// Windows of a size (`2`, `[3, 5]`) at every place of an image of `size`.
    pub fn new(size: impl Into<Sizes<2>>, kernel: impl Into<Sizes<2>>) -> Self {
        Self { size: size.into().0, patches: Patches::new(kernel.into().0), scalar: PhantomData }
    }

    sliding!();
}

impl<T: Scalar> Layer for Fold<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        check_sizes("Fold", "output_size", 1, self.size)?;
        self.patches.check("Fold")?;
        self.patches.counts("Fold", self.size).map(drop)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let [taps, windows] = self.patches.counts("Fold", self.size)?;
        match *input {
            [n, rows, columns] if columns == windows && rows > 0 && rows % taps == 0 => {
                join([n, rows / taps], self.size)
            }
            _ => Err(Error::shape(format!(
                "Fold: expected input (N, C·{taps}, {windows}) with at least one channel, got {input:?}"
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, (): &mut (), _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        fold(x.data(), y.reset(shape), &self.patches.window(self.size)); // y[c, pixel] = Σ x[(c, tap), o]
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        (): &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            // dx[(c, tap), o] = dy[c, pixel]
            unfold(call.dy.data(), dx.reset(*call.x.shape()), &self.patches.window(self.size));
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        self.patches.spec(Spec::new("Fold").with("output_size", self.size))
    }
}

impl<T: Scalar> FromSpec<T> for Fold<T> {
    const FACTS: Facts = Facts::new("Fold")
        .family("conv")
        .formula("the sum of columns as windows")
        .page("layers/conv/unfold.md")
        .torch("Fold");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let size = args.get("output_size")?;
        Ok(Self { size, patches: Patches::from_args(args)?, scalar: PhantomData })
    }

    fn examples() -> Vec<Example> {
        let strided = Self::new([5, 4], [2, 3]).stride(2).padding([1, 0]).dilation([2, 1]);
        vec![
            Example::new(Self::new([3, 4], 2).spec(), [[2, 12, 6]]),
            Example::new(strided.spec(), [[1, 12, 3]]),
            Example::bench(Self::new(32, 3).padding(1).spec(), [[4, 288, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conv::patches::tests::axis;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(a in axis(), b in axis(), n in 1..4usize, channels in 1..4usize) {
            layer: Fold::new([a[4], b[4]], [a[0], b[0]])
                .stride([a[1], b[1]])
                .padding([a[2], b[2]])
                .dilation([a[3], b[3]]),
            input: {
                let windows = |[kernel, stride, padding, dilation, n]: [usize; 5]| {
                    (n + 2 * padding - (kernel - 1) * dilation - 1) / stride + 1
                };
                [n, channels * a[0] * b[0], windows(a) * windows(b)]
            },
            wrong: [n, channels, a[4], b[4]],
            wrong: [n, 0, a[4]],
        }
    }

    /// Columns (1 10) and (2 20) over a row of 3: (1, 10 + 2, 20). For g = (3, 4, 5) the columns get (3 4) and (4 5).
    #[test]
    pub fn by_hand() {
        let (x, layer) = (Tensor::from([[[1., 2.], [10., 20.]]]), Fold::new([1, 3], [1, 2]));
        let (mut y, mut dx) = (Tensor::<f64>::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
        assert_eq!(y.data(), [1., 12., 20.]);
        let dy = Tensor::from_vec([1, 1, 1, 3], vec![3., 4., 5.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[[3., 4.], [4., 5.]]]));
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for layer in
            [Fold::<f32>::new(0, 1), Fold::new(3, 0), Fold::new(2, 3), Fold::new(3, 2).stride(usize::MAX)]
        {
            assert!(layer.check().is_err());
        }
        let text = Fold::<f32>::new([2, 3], 2).output_shape(&[1, 6, 2]).unwrap_err().to_string();
        assert_eq!(text, "Fold: expected input (N, C·4, 2) with at least one channel, got [1, 6, 2]");
    }
}
