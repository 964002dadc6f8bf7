//! Depthwise-separable convolutions, a composition of two layers.

use super::{Conv2d, Padding};
use crate::{Sequential, Sizes};
use chainrule_core::Scalar;

/// A convolution of each channel on its own, and then one of 1 × 1 that mixes the channels: with `kernel` of 3 × 3 some ninth of the
/// weights and multiply-adds of a full convolution. The first, `depthwise`, keeps the size of the image at stride 1 and has no bias, which the
/// second, `pointwise`, would absorb. Derivation: docs/layers/conv/separable.md. Sifre, 2014; Chollet, 2017.
///
/// # Shapes
/// x (N, inputs, H, W), y (N, outputs, H, W).
///
/// # Errors
/// Sizes of 0: when built.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::depthwise_separable_conv2d;
/// let layer = depthwise_separable_conv2d(32, 64, 3).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([8, 32, 28, 28]))?.shape()[..], [8, 64, 28, 28]);
/// assert_eq!(layer.parameter_count(), 32 * 9 + 64 * 32 + 64); // a full one: 64 · 32 · 9 + 64
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub fn depthwise_separable_conv2d<T: Scalar>(
    inputs: usize,
    outputs: usize,
    kernel: impl Into<Sizes<2>>,
) -> Sequential<T> {
    let depthwise = Conv2d::new(inputs, inputs, kernel).groups(inputs).padding(Padding::Same).bias(false);
    Sequential::of().named("depthwise", depthwise).named("pointwise", Conv2d::new(inputs, outputs, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 16]
        a_separable_convolution_obeys_the_laws(
            [inputs, outputs] in [1..4usize, 1..4], kernel in [1..4usize, 1..4], n in 1..3usize, [h, w] in [1..6usize, 1..6],
        ) {
            layer: depthwise_separable_conv2d::<T>(inputs, outputs, kernel),
            input: [n, inputs, h, w],
            wrong: [n, inputs + 1, h, w],
        }
    }

    /// One weight for each filter and channel, W[k, c] ⊗ V[c]: a full convolution with the products gives the same.
    #[test]
    fn it_is_a_full_convolution_whose_weights_are_products() {
        let separable = depthwise_separable_conv2d::<f64>(2, 3, 3).init(1).unwrap();
        let mut values = Vec::new();
        separable.visit(&mut |_, p| values.push(p.value().unwrap().to_vec()));
        let mut full = Conv2d::<f64>::new(2, 3, 3).padding(1).init(1).unwrap();
        let product: Vec<f64> = (0..3 * 2 * 9).map(|i| values[1][i / 9] * values[0][i % 18]).collect();
        let mut at = 0;
        full.visit_mut(&mut |_, p| {
            p.value_mut().unwrap().copy_from_slice(if at == 0 { &product } else { &values[2] });
            at += 1;
        });
        let x = Tensor::from_fn([1, 2, 5, 6], |i| (i as f64 * 0.7).sin());
        let [a, b] = [separable.infer(&x).unwrap(), full.infer(&x).unwrap()];
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
