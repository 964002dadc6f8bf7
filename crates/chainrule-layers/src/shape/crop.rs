//! Cropping of borders.
//!
//! ```text
//! y[i] = x[i + before]        ∂E/∂x[j] = ∂E/∂y[j − before], 0 where x was cropped
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/constant_pad.md.

use super::margins::Margins;
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// x without its borders, on each of R axes: padding by the negative margins.
///
/// # Shapes
/// x (N, C, …) with R more axes, y likewise with each of them shorter by its margins.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Crop1d;
/// let x = Tensor::from_vec([1, 1, 4], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(Crop1d::new([[2, 1]]).infer(&x)?.data(), [3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Crop<const R: usize, T = f32> {
    margins: Margins<R>,
    of: PhantomData<T>,
}

impl<const R: usize, T: Scalar> Crop<R, T> {
    const NAME: &'static str = ["Crop1d", "Crop2d", "Crop3d"][R - 1];

    /// Without so many elements at the ends of each axis.
    pub fn new(cropping: impl Into<Margins<R>>) -> Self {
        Self { margins: cropping.into(), of: PhantomData }
    }
}

impl<const R: usize, T: Scalar> Layer for Crop<R, T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        self.margins.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        self.margins.negated().output_shape(Self::NAME, input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        self.margins.negated().fill(Self::NAME, x, y, T::ZERO) // y[i] = x[i + before]
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        self.margins.negated().fill_gradient(Self::NAME, call, dx) // dx[j] = dy[j − before]
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME).with("cropping", self.margins)
    }
}

/// Aliases and `FromSpec` of each rank.
macro_rules! ranks {
    ($($rank:literal $what:literal: $crop:ident, $small:expr, $large:expr;)*) => {$(
        #[doc = concat!("Cropping of ", $what, ".")]
        pub type $crop<T = f32> = Crop<$rank, T>;

        impl<T: Scalar> FromSpec<T> for Crop<$rank, T> {
            const FACTS: Facts = Facts::new(stringify!($crop))
                .family("shape")
                .formula("x without its borders")
                .page("layers/shape/constant_pad.md");

            fn from_spec(args: &Args<'_, T>) -> Result<Self> {
                Ok(Self::new(args.get::<Margins<$rank>>("cropping")?))
            }

            fn examples() -> Vec<Example> {
                let mut sides = [[1, 0]; $rank];
                sides[$rank - 1] = [0, 2];
                vec![
                    Example::new(Self::new(1).spec(), [$small]),
                    Example::new(Self::new(sides).spec(), [$small]),
                    Example::bench(Self::new(1).spec(), [$large]),
                ]
            }
        }
    )*};
}

ranks! {
    1 "sequences (N, C, L)": Crop1d, [2, 3, 4], [8, 64, 4096];
    2 "images (N, C, H, W)": Crop2d, [2, 3, 4, 5], [8, 64, 64, 64];
    3 "volumes (N, C, D, H, W)": Crop3d, [2, 1, 3, 4, 5], [2, 16, 32, 32, 32];
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(batch in 1..3usize, n in 4..7usize, before in 0..2isize, after in 0..3isize) {
            layer: Crop1d::new([[before, after]]),
            input: [batch, 2, n],
            wrong: [2, n], wrong: [batch, 2, (before + after) as usize],
        }
        images_obey_the_laws(h in 3..5usize, w in 3..5usize, sides in collection::vec(0..2isize, 4)) {
            layer: Crop2d::new([[sides[0], sides[1]], [sides[2], sides[3]]]),
            input: [2, 2, h, w],
            wrong: [2, 2, h],
        }
    }

    /// (1 2 3; 4 5 6) without its first row and last column: (4 5). For g = (7 8): ∂x = (0 0 0; 7 8 0).
    #[test]
    pub fn by_hand() {
        let layer = Crop2d::<f64>::new([[1, 0], [0, 1]]);
        let x = Tensor::from_vec([1, 1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let (mut y, mut dx) = (Tensor::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
        assert_eq!(y.data(), [4.0, 5.0]);
        let dy = Tensor::from_vec([1, 1, 1, 2], vec![7.0, 8.0]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0.0, 0.0, 0.0, 7.0, 8.0, 0.0]);
    }
}
