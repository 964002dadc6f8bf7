//! Padding with a constant, or with zeros.
//!
//! ```text
//! y[i] = x[i − before] on x, c elsewhere        ∂E/∂x[j] = ∂E/∂y[j + before]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/constant_pad.md.

use super::margins::{self, Margins};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// x with a constant around it, on each of R axes; negative margins crop.
///
/// # Shapes
/// x (N, C, …) with R more axes, y likewise with each of them longer by its margins.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::ConstantPad1d;
/// let x = Tensor::from_vec([1, 1, 2], vec![1.0f32, 2.0])?;
/// assert_eq!(ConstantPad1d::new([[1, 2]], 9.0).infer(&x)?.data(), [9.0, 1.0, 2.0, 9.0, 9.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct ConstantPad<const R: usize, T = f32> {
    margins: Margins<R>,
    value: f64,
    of: PhantomData<T>,
}

/// x with zeros around it, on each of R axes; negative margins crop.
///
/// # Shapes
/// x (N, C, …) with R more axes, y likewise with each of them longer by its margins.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::ZeroPad2d;
/// let y = ZeroPad2d::new([[0, 0], [1, -1]]).infer(&Tensor::from_vec([1, 1, 1, 2], vec![1.0f32, 2.0])?)?;
/// assert_eq!(y.data(), [0.0, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ZeroPad<const R: usize, T = f32> {
    margins: Margins<R>,
    of: PhantomData<T>,
}

impl<const R: usize, T: Scalar> ConstantPad<R, T> {
    const NAME: &'static str = ["ConstantPad1d", "ConstantPad2d", "ConstantPad3d"][R - 1];

    /// With so many elements of a value added around each axis.
    pub fn new(padding: impl Into<Margins<R>>, value: f64) -> Self {
        Self { margins: padding.into(), value, of: PhantomData }
    }
}

impl<const R: usize, T: Scalar> ZeroPad<R, T> {
    const NAME: &'static str = ["ZeroPad1d", "ZeroPad2d", "ZeroPad3d"][R - 1];

    /// With so many zeros added around each axis.
    pub fn new(padding: impl Into<Margins<R>>) -> Self {
        Self { margins: padding.into(), of: PhantomData }
    }
}

impl<const R: usize, T: Scalar> Layer for ConstantPad<R, T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        if self.value.is_nan() {
            return Err(Error::value(format!("{}: expected a value to pad with, got NaN", Self::NAME)));
        }
        self.margins.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        self.margins.output_shape(Self::NAME, input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        self.check()?;
        self.margins.fill(Self::NAME, x, y, T::from_f64(self.value)) // y = c, and x within the margins
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        self.margins.fill_gradient(Self::NAME, call, dx) // dx[j] = dy[j + before]
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME).with("padding", self.margins).with("value", self.value)
    }
}

impl<const R: usize, T: Scalar> Layer for ZeroPad<R, T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        self.margins.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.margins.output_shape(Self::NAME, input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        self.margins.fill(Self::NAME, x, y, T::ZERO) // y = 0, and x within the margins
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        self.margins.fill_gradient(Self::NAME, call, dx) // dx[j] = dy[j + before]
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME).with("padding", self.margins)
    }
}

/// Aliases and `FromSpec` of each rank.
macro_rules! ranks {
    ($($rank:literal $what:literal: $constant:ident, $zero:ident;)*) => {$(
        #[doc = concat!("A constant around ", $what, ".")]
        pub type $constant<T = f32> = ConstantPad<$rank, T>;

        #[doc = concat!("Zeros around ", $what, ".")]
        pub type $zero<T = f32> = ZeroPad<$rank, T>;

        impl<T: Scalar> FromSpec<T> for ConstantPad<$rank, T> {
            const FACTS: Facts = Facts::new(stringify!($constant))
                .family("shape")
                .formula("x, c around it")
                .page("layers/shape/constant_pad.md")
                .torch(stringify!($constant));

            fn from_spec(args: &Args<'_, T>) -> Result<Self> {
                Ok(Self::new(args.get::<Margins<$rank>>("padding")?, args.get("value")?))
            }

            fn examples() -> Vec<Example> {
                margins::examples::<$rank>(|margins| Self::new(margins, 0.5).spec(), 1)
            }
        }

        impl<T: Scalar> FromSpec<T> for ZeroPad<$rank, T> {
            const FACTS: Facts = Facts::new(stringify!($zero))
                .family("shape")
                .formula("x, zeros around it")
                .page("layers/shape/constant_pad.md")
                .torch(stringify!($zero));

            fn from_spec(args: &Args<'_, T>) -> Result<Self> {
                Ok(Self::new(args.get::<Margins<$rank>>("padding")?))
            }

            fn examples() -> Vec<Example> {
                margins::examples::<$rank>(|margins| Self::new(margins).spec(), 1)
            }
        }
    )*};
}

ranks! {
    1 "sequences (N, C, L)": ConstantPad1d, ZeroPad1d;
    2 "images (N, C, H, W)": ConstantPad2d, ZeroPad2d;
    3 "volumes (N, C, D, H, W)": ConstantPad3d, ZeroPad3d;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            batch in 1..3usize, channels in 1..3usize, n in 3..6usize, before in -1..3isize, after in -1..3isize,
            value in -2.0..2.0f64,
        ) {
            layer: ConstantPad1d::new([[before, after]], value),
            input: [batch, channels, n],
            wrong: [channels, n], wrong: [batch, channels, n, n], wrong: [batch, channels, 0],
        }
        images_obey_the_laws(
            batch in 1..3usize, h in 3..5usize, w in 3..5usize, sides in collection::vec(-1..3isize, 4),
        ) {
            layer: ZeroPad2d::new([[sides[0], sides[1]], [sides[2], sides[3]]]),
            input: [batch, 2, h, w],
            wrong: [batch, 2, h],
        }
        volumes_obey_the_laws(d in 3..5usize, sides in collection::vec(-1..3isize, 6)) {
            layer: ZeroPad3d::new([[sides[0], sides[1]], [sides[2], sides[3]], [sides[4], sides[5]]]),
            input: [1, 2, d, 3, 4],
        }
    }

    /// (1 2; 3 4) with a column of 9 before it and its first row cropped: (9 3 4). For g = (1 2 4): ∂x = (0 0; 2 4).
    #[test]
    pub fn by_hand() {
        let layer = ConstantPad2d::<f64>::new([[-1, 0], [1, 0]], 9.0);
        let x = Tensor::from_vec([1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let (mut y, mut dx) = (Tensor::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 3][..], &[9.0, 3.0, 4.0][..]));
        let dy = Tensor::from_vec([1, 1, 1, 3], vec![1.0, 2.0, 4.0]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0.0, 0.0, 2.0, 4.0]);
    }

    #[test]
    fn margins_that_make_no_sense_are_errors() {
        for margin in [isize::MAX, isize::MIN, 1 << 31] {
            assert!(ZeroPad2d::<f32>::new(margin).check().is_err());
            assert!(ConstantPad1d::<f32>::new(margin, 0.0).check().is_err());
        }
        assert!(ConstantPad1d::<f32>::new(1, f64::NAN).check().is_err());
        let text = ZeroPad1d::<f32>::new(-2).output_shape(&[1, 1, 4]).unwrap_err().to_string();
        assert_eq!(
            text,
            "ZeroPad1d: expected axes with an element at least within margins [[-2, -2]], got lengths [4]"
        );
    }

    #[test]
    fn a_spec_lists_the_innermost_axis_first_as_pytorch_does() {
        let layer = ZeroPad2d::<f32>::new([[1, 2], [3, 4]]);
        assert_eq!(layer.spec().to_string(), "ZeroPad2d(padding=(3, 4, 1, 2))");
    }
}
