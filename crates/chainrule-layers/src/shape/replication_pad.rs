//! Padding by replication: a a | a b c | c.
//!
//! ```text
//! y[i] = x[min(max(i − before, 0), n − 1)]
//! ∂E/∂x[j] = Σ ∂E/∂y[i] over the i whose element is j
//! ```
//!
//! Keeps nothing; the sources are scratch space. Derivation: docs/layers/shape/replication_pad.md.

use super::margins::{Copies, CopyPad, CopyPadCache, Margins, copy_pads};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

copy_pads! {
    /// The outermost element of each border repeated: a a | a b c | c.
    ///
    /// Margins are added before and after each of R axes; negative ones crop.
    ///
    /// # Shapes
    /// x (N, C, …) with R more axes, y likewise with each of them longer by its margins.
    ///
    /// # Examples
    /// ```
    /// use chainrule_core::{Module, Tensor};
    /// use chainrule_layers::ReplicationPad1d;
    /// let x = Tensor::from_vec([1, 1, 3], vec![1.0f32, 2.0, 3.0])?;
    /// assert_eq!(ReplicationPad1d::new([[2, 1]]).infer(&x)?.data(), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ReplicationPad, Replicate, "x, its outermost elements repeated", "layers/shape/replication_pad.md", 1;
    /// ReplicationPad of sequences (N, C, L).
    ReplicationPad1d = 1;
    /// ReplicationPad of images (N, C, H, W).
    ReplicationPad2d = 2;
    /// ReplicationPad of volumes (N, C, D, H, W).
    ReplicationPad3d = 3;
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
            layer: ReplicationPad1d::new([[before, after]]),
            input: [batch, channels, n],
            wrong: [channels, n], wrong: [batch, channels, n, n], wrong: [batch, channels, 0],
        }
        images_obey_the_laws(
            batch in 1..3usize, h in 3..5usize, w in 3..5usize, sides in collection::vec(-1..3isize, 4),
        ) {
            layer: ReplicationPad2d::new([[sides[0], sides[1]], [sides[2], sides[3]]]),
            input: [batch, 2, h, w],
            wrong: [batch, 2, h],
        }
        volumes_obey_the_laws(d in 3..5usize, sides in collection::vec(-1..3isize, 6)) {
            layer: ReplicationPad3d::new([[sides[0], sides[1]], [sides[2], sides[3]], [sides[4], sides[5]]]),
            input: [1, 2, d, 3, 4],
        }
    }

    /// (1, 2, 3) with two before and one behind: (1, 1 | 1, 2, 3 | 3). For g = (1, 2, 4, 8, 16, 32):
    /// ∂x = (1 + 2 + 4, 8, 16 + 32) = (7, 8, 48).
    #[test]
    pub fn by_hand() {
        let layer = ReplicationPad1d::<f64>::new([[2, 1]]);
        let x = Tensor::from_vec([1, 1, 3], vec![1.0, 2.0, 3.0]).unwrap();
        let (mut y, mut cache, mut dx) = (Tensor::default(), CopyPadCache::default(), Tensor::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
        let dy = Tensor::from_vec([1, 1, 6], vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [7.0, 8.0, 48.0]);
    }

    #[test]
    fn negative_margins_crop() {
        let x = Tensor::from_vec([1, 1, 4], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let y = ReplicationPad1d::<f64>::new([[-1, 2]]).infer(&x).unwrap();
        assert_eq!(y.data(), [2.0, 3.0, 4.0, 4.0, 4.0]);
        assert!(ReplicationPad1d::<f64>::new([[-2, -2]]).output_shape(&[1, 1, 4]).is_err());
    }

    #[test]
    fn margins_that_make_no_sense_are_errors() {
        for margin in [isize::MAX, isize::MIN, 1 << 31] {
            assert!(ReplicationPad2d::<f32>::new(margin).check().is_err());
        }
        assert!(ReplicationPad1d::<f32>::new(3).output_shape(&[1, 1, 3]).is_ok());
    }

    /// 100,001 gradients of 1 go to each outermost element of two: 100,001 is exact in f32, and a third of it 1e-7 off.
    #[test]
    fn many_copies_are_summed_as_f64_does() {
        let layer = ReplicationPad1d::<f32>::new(100_000);
        let (x, mut dx, mut cache) = (Tensor::zeros([1, 1, 2]), Tensor::default(), CopyPadCache::default());
        let y = Tensor::full([1, 1, 200_002], 1.0 / 3.0);
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        let want = 100_001.0 * f64::from(1.0f32 / 3.0);
        assert!(dx.data().iter().all(|&v| (f64::from(v) / want - 1.0).abs() < 1e-7));
    }
}
