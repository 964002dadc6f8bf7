//! Padding by reflection: c b | a b c | b.
//!
//! ```text
//! y[i] = x[r(i − before)],   r(t) = −t before the axis, 2(n − 1) − t behind it, t on it
//! ∂E/∂x[j] = Σ ∂E/∂y[i] over the i with r(i − before) = j
//! ```
//!
//! Keeps nothing; the sources are scratch space. Derivation: docs/layers/shape/reflection_pad.md.

use super::margins::{Copies, CopyPad, CopyPadCache, Margins, copy_pads};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

copy_pads! {
    /// Each border mirrored at its outermost element, which is not repeated: c b | a b c | b.
    ///
    /// Margins are added before and after each of R axes; negative ones crop.
    ///
    /// # Shapes
    /// x (N, C, …) with R more axes, y likewise with each of them longer by its margins.
    ///
    /// # Examples
    /// ```
    /// use chainrule_core::{Module, Tensor};
    /// use chainrule_layers::ReflectionPad1d;
    /// let x = Tensor::from_vec([1, 1, 3], vec![1.0f32, 2.0, 3.0])?;
    /// assert_eq!(ReflectionPad1d::new([[2, 1]]).infer(&x)?.data(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ReflectionPad, Reflect, "x, mirrored beyond its borders", "layers/shape/reflection_pad.md", 1;
    /// ReflectionPad of sequences (N, C, L).
    ReflectionPad1d = 1;
    /// ReflectionPad of images (N, C, H, W).
    ReflectionPad2d = 2;
    /// ReflectionPad of volumes (N, C, D, H, W).
    ReflectionPad3d = 3;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            batch in 1..3usize, channels in 1..3usize, n in 3..6usize, before in -1..3isize, after in -1..3isize,
        ) {
            layer: ReflectionPad1d::new([[before, after]]),
            input: [batch, channels, n],
            wrong: [channels, n], wrong: [batch, channels, n, n], wrong: [batch, channels, 0],
        }
        images_obey_the_laws(
            batch in 1..3usize, h in 3..5usize, w in 3..5usize, sides in collection::vec(-1..3isize, 4),
        ) {
            layer: ReflectionPad2d::new([[sides[0], sides[1]], [sides[2], sides[3]]]),
            input: [batch, 2, h, w],
            wrong: [batch, 2, h],
        }
        volumes_obey_the_laws(d in 3..5usize, sides in collection::vec(-1..3isize, 6)) {
            layer: ReflectionPad3d::new([[sides[0], sides[1]], [sides[2], sides[3]], [sides[4], sides[5]]]),
            input: [1, 2, d, 3, 4],
        }
    }

    /// (1, 2, 3) with two before and one behind: (3, 2 | 1, 2, 3 | 2). For g = (1, 2, 4, 8, 16, 32):
    /// ∂x = (4, 2 + 8 + 32, 1 + 16) = (4, 42, 17).
    #[test]
    pub fn by_hand() {
        let layer = ReflectionPad1d::<f64>::new([[2, 1]]);
        let x = Tensor::from_vec([1, 1, 3], vec![1.0, 2.0, 3.0]).unwrap();
        let (mut y, mut cache, mut dx) = (Tensor::default(), CopyPadCache::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
        let dy = Tensor::from_vec([1, 1, 6], vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [4.0, 42.0, 17.0]);
    }

    #[test]
    fn negative_margins_crop() {
        let x = Tensor::from_vec([1, 1, 4], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let y = ReflectionPad1d::<f64>::new([[-1, 2]]).infer(&x).unwrap();
        assert_eq!(y.data(), [2.0, 3.0, 4.0, 3.0, 2.0]);
        assert!(ReflectionPad1d::<f64>::new([[-2, -2]]).output_shape(&[1, 1, 4]).is_err());
    }

    #[test]
    fn margins_that_make_no_sense_are_errors() {
        for margin in [isize::MAX, isize::MIN, 1 << 31] {
            assert!(ReflectionPad2d::<f32>::new(margin).check().is_err());
        }
        let text = ReflectionPad1d::<f32>::new(3).output_shape(&[1, 1, 3]).unwrap_err().to_string();
        assert_eq!(text, "ReflectionPad1d: expected a margin below the axis's length, got 3 of 3 elements");
    }
}
