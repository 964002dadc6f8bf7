//! The windows of an image, written out (im2col).
//!
//! ```text
//! y[n, (c, r, s), o] = x[n, c, i·stride + r·dilation − p, j·stride + s·dilation − p], 0 in the padding; window o = (i, j)
//! ∂E/∂x[n, c, a, b] = Σ over the (r, s), o that read it of ∂E/∂y[n, (c, r, s), o]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/conv/unfold.md.

use super::patches::{Patches, sliding};
use crate::{
    Sizes,
    rank::{axes_of, split},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::unfold::{fold, unfold};
use std::marker::PhantomData;

/// The elements of each window as a column: a convolution is then a product of matrices. The inverse, up to how often windows overlap, is
/// [`super::Fold`].
///
/// # Shapes
/// x (N, C, H, W), y (N, C·kernel height·kernel width, L) with one column for each of the L windows, row by row.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Unfold;
/// let x = Tensor::from_vec([1, 1, 1, 3], vec![1.0f32, 2.0, 3.0])?;
/// assert_eq!(Unfold::new([1, 2]).infer(&x)?, Tensor::from([[[1.0, 2.0], [2.0, 3.0]]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unfold<T = f32> {
    patches: Patches,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Unfold<T> {
    /// Windows of a size (`2`, `[3, 5]`) at every place.
    pub fn new(kernel: impl Into<Sizes<2>>) -> Self {
        Self { patches: Patches::new(kernel.into().0), scalar: PhantomData }
    }

    sliding!();
}

impl<T: Scalar> Layer for Unfold<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        self.patches.check("Unfold")
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?; // lengths that can be added
        let ([n, c], axes): (_, [usize; 2]) = split("Unfold", None, input)?;
        let [taps, windows] = self.patches.counts("Unfold", axes)?;
        let rows = c.checked_mul(taps);
        let rows = rows.ok_or_else(|| {
            Error::shape(format!("Unfold: expected windows that fit in memory, got {c} × {taps} rows"))
        })?;
        Shape::new(&[n, rows, windows])
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, (): &mut (), _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        unfold(x.data(), y.reset(shape), &self.patches.window(axes_of(x.shape()))); // y[(c, tap), o] = x[c, pixel]
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
            let shape = *call.x.shape();
            // dx[c, pixel] = Σ dy[(c, tap), o]
            fold(call.dy.data(), dx.reset(shape), &self.patches.window(axes_of(&shape)));
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        self.patches.spec(Spec::new("Unfold"))
    }
}

impl<T: Scalar> FromSpec<T> for Unfold<T> {
    const FACTS: Facts = Facts::new("Unfold")
        .family("conv")
        .formula("the windows as columns")
        .page("layers/conv/unfold.md")
        .torch("Unfold");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self { patches: Patches::from_args(args)?, scalar: PhantomData })
    }

    fn examples() -> Vec<Example> {
        let strided = Self::new([2, 3]).stride(2).padding([1, 0]).dilation([2, 1]);
        vec![
            Example::new(Self::new(2).spec(), [[2, 3, 3, 4]]),
            Example::new(strided.spec(), [[1, 2, 5, 4]]),
            Example::bench(Self::new(3).padding(1).spec(), [[4, 32, 32, 32]]),
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
            layer: Unfold::new([a[0], b[0]])
                .stride([a[1], b[1]])
                .padding([a[2], b[2]])
                .dilation([a[3], b[3]]),
            input: [n, channels, a[4], b[4]],
            wrong: [n, channels, a[4]],
            wrong: [n, channels, 0, b[4]],
        }
    }

    /// Windows of 2 over 1 2 3: columns (1 2) and (2 3). For g = (1 10; 100 1000): ∂x = (1, 10 + 100, 1000).
    #[test]
    pub fn by_hand() {
        let (x, layer) = (Tensor::from_vec([1, 1, 1, 3], vec![1., 2., 3.]).unwrap(), Unfold::new([1, 2]));
        let (mut y, mut dx) = (Tensor::<f64>::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[[1., 2.], [2., 3.]]]));
        let dy = Tensor::from([[[1., 10.], [100., 1000.]]]);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [1., 110., 1000.]);
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for layer in [Unfold::<f32>::new(0), Unfold::new(2).stride(0), Unfold::new(2).dilation(usize::MAX)] {
            assert!(layer.check().is_err());
        }
        let text = Unfold::<f32>::new(3).output_shape(&[1, 1, 2, 5]).unwrap_err().to_string();
        assert!(text.contains("Unfold: expected an image that holds a window of [3, 3]"), "{text}");
        assert!(Unfold::<f32>::new(1 << 30).padding(1 << 30).output_shape(&[1, 1, 2, 5]).is_err());
    }
}
