//! Batch normalisation of images. Equations and gradient: `batch_norm.rs`. Derivation: docs/layers/norm/batch_norm.md.

use super::batch_norm::{BatchNorm, BatchNormCache, batch_norm_layer};
use chainrule_core::{Call, Context, Grads, Layer, Params, ParamsMut, Result, Scalar, Shape, Tensor};

batch_norm_layer! {
    /// y = (x − μ)/√(σ² + ε) γ + β, each channel over the batch and over all pixels.
    ///
    /// Training uses the mean and the biased variance of the batch, and `absorb` moves the running mean and the running
    /// unbiased variance towards them; inference uses the running ones. Ioffe and Szegedy, 2015.
    ///
    /// # Shapes
    /// x and y (N, C, H, W); `weight`, `bias`, `running_mean`, `running_var` (C); `num_batches_tracked` ().
    ///
    /// # Errors
    /// Forward in training (and without running statistics always) of a batch with a single value per channel.
    ///
    /// # Examples
    /// ```
    /// use chainrule_core::{Layer, Tensor};
    /// use chainrule_layers::BatchNorm2d;
    /// let layer = BatchNorm2d::new(16).init(1)?;
    /// let y = layer.infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?;
    /// assert_eq!(y.shape()[..], [8, 16, 28, 28]);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    BatchNorm2d, axes: [4], wanted: "(N, C, H, W)"
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 2..6usize, channels in 1..5usize, height in 1..4usize, width in 1..4usize,
            affine in any::<bool>(), bias in any::<bool>(), track in any::<bool>(),
            momentum in prop_oneof![Just(None), (0.0..1.0f64).prop_map(Some)],
            eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: BatchNorm2d::new(channels)
                .eps(eps)
                .momentum(momentum)
                .affine(affine)
                .bias(bias)
                .track_running_stats(track),
            input: [rows, channels, height, width],
            wrong: [rows, channels + 1, height, width], wrong: [rows, channels, height],
        }
    }

    /// Two images of one channel and two pixels, x = (0, 2), (4, 2), ε = 2: μ = 2, σ² = (4 + 0 + 4 + 0)/4 = 2, ρ = ½,
    /// y = x̂ = (−1, 0), (1, 0).
    /// For g = (4, 0), (0, 0): mean(g) = 1, mean(g x̂) = −1, ∂x = ½ (4 − 1 − 1, −1), ½ (−1 + 1, −1) = (1, −½), (0, −½).
    #[test]
    fn by_hand() {
        let layer = BatchNorm2d::<f64>::new(1).eps(2.0).init(0).unwrap();
        let x = Tensor::from_vec([2, 1, 1, 2], vec![0., 2., 4., 2.]).unwrap();
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(y.data(), [-1., 0., 1., 0.]);
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from_vec([2, 1, 1, 2], vec![4., 0., 0., 0.]).unwrap();
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [1., -0.5, 0., -0.5]);
        assert_eq!(grads.values(), [-4., 4.]);
    }

    /// A running mean of 0 and variance of 1, ε = 3: y = x/2, and ∂x = g/2.
    #[test]
    fn the_inference_function_has_a_gradient_of_its_own() {
        let layer = BatchNorm2d::<f64>::new(1).eps(3.0).init(0).unwrap();
        let x = Tensor::from_vec([1, 1, 1, 2], vec![2., 8.]).unwrap();
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::frozen()).unwrap();
        assert_eq!(y.data(), [1., 4.]);
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        layer.backward(Call { x: &x, y: &y, dy: &x }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [1., 4.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = BatchNorm2d::<f32>::new(5).output_shape(&[4, 3, 8, 8]).unwrap_err().to_string();
        assert_eq!(text, "BatchNorm2d: expected input (N, 5, H, W), got [4, 3, 8, 8]");
        assert!(BatchNorm2d::<f32>::new(5).output_shape(&[4, 5]).is_err());
    }
}
