//! Channels of several groups, interleaved.
//!
//! ```text
//! y[j G + i] = x[i C/G + j] for channel j of group i        ∂E/∂x: ∂E/∂y in the places where x was
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/channel_shuffle.md.

use super::order::{Reorder, Reordered, reordered};
use crate::rank::check_sizes;
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use std::marker::PhantomData;

/// Channel j of every group, then channel j + 1 of every group, so that a grouped convolution sees channels of all groups of the one
/// before. Zhang et al., 2018.
///
/// # Shapes
/// x and y (N, C, …), with C a multiple of the groups.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::ChannelShuffle;
/// let x = Tensor::from([[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]]);
/// assert_eq!(ChannelShuffle::new(2).infer(&x)?, Tensor::from([[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelShuffle<T = f32> {
    groups: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> ChannelShuffle<T> {
    /// Of so many groups of channels.
    pub fn new(groups: usize) -> Self {
        Self { groups, of: PhantomData }
    }
}

impl<T: Scalar> Reorder for ChannelShuffle<T> {
    fn check_settings(&self) -> Result<()> {
        check_sizes("ChannelShuffle", "groups", 1, [self.groups])
    }

    fn reordered(&self, input: &[usize]) -> Result<Reordered> {
        self.check_settings()?;
        let (g, shape) = (self.groups, Shape::new(input)?);
        match *shape {
            [n, c, ref rest @ ..] if c.is_multiple_of(g) => Ok(Reordered {
                from: Shape::from([n, g, c / g, rest.iter().product()]),
                order: Shape::from([0, 2, 1, 3]), // (N, C/G, G, L)
                output: shape,
            }),
            _ => Err(Error::shape(format!(
                "ChannelShuffle: expected input (N, C, ..) with C a multiple of {g}, got {input:?}"
            ))),
        }
    }

    fn settings(&self) -> Spec {
        Spec::new("ChannelShuffle").with("groups", self.groups)
    }
}

reordered!(ChannelShuffle);

impl<T: Scalar> FromSpec<T> for ChannelShuffle<T> {
    const FACTS: Facts = Facts::new("ChannelShuffle")
        .family("shape")
        .formula("x[i C/G + j] at channel j G + i")
        .page("layers/shape/channel_shuffle.md")
        .torch("ChannelShuffle");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("groups")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2).spec(), [[2, 6, 3]]),
            Example::new(Self::new(3).spec(), [[2, 6]]),
            Example::bench(Self::new(4).spec(), [[8, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Call, Grads, Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            n in 1..3usize, groups in 1..4usize, each in 1..4usize, rest in collection::vec(1..4usize, 0..3),
        ) {
            layer: ChannelShuffle::new(groups),
            input: [vec![n, groups * each], rest.clone()].concat(),
            wrong: [n],
        }
    }

    /// Two groups of three channels, (1 2 3 | 4 5 6): (1 4 2 5 3 6). For g = 0 … 5: ∂x = (0 2 4 | 1 3 5).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1., 2., 3., 4., 5., 6.]]);
        let layer = ChannelShuffle::<f64>::new(2);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y.data(), [1., 4., 2., 5., 3., 6.]);
        let (dy, mut dx) = (Tensor::from([[0., 1., 2., 3., 4., 5.]]), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 2., 4., 1., 3., 5.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = ChannelShuffle::<f32>::new(2).output_shape(&[1, 3]).unwrap_err().to_string();
        assert_eq!(text, "ChannelShuffle: expected input (N, C, ..) with C a multiple of 2, got [1, 3]");
        for groups in [0, usize::MAX, 1 << 31] {
            assert!(ChannelShuffle::<f32>::new(groups).check().is_err());
        }
    }
}
