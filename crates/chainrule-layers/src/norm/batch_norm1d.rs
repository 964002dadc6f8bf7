//! Batch normalisation of rows and of sequences. Equations and gradient: `batch_norm.rs`. Derivation:
//! docs/layers/norm/batch_norm.md.

use super::batch_norm::{BatchNorm, BatchNormCache, batch_norm_layer};
use chainrule_core::{Call, Context, Grads, Layer, Params, ParamsMut, Result, Scalar, Shape, Tensor};

batch_norm_layer! {
    /// y = (x − μ)/√(σ² + ε) γ + β, each channel over the batch and over all places of a sequence.
    ///
    /// Training uses the mean and the biased variance of the batch, and `absorb` moves the running mean and the running
    /// unbiased variance towards them; inference uses the running ones. Ioffe and Szegedy, 2015.
    ///
    /// # Shapes
    /// x and y (N, C) or (N, C, L); `weight`, `bias`, `running_mean`, `running_var` (C); `num_batches_tracked` ().
    ///
    /// # Errors
    /// Forward in training (and without running statistics always) of a batch with a single value per channel.
    ///
    /// # Examples
    /// ```
    /// use chainrule_core::{Layer, Tensor};
    /// use chainrule_layers::BatchNorm1d;
    /// let layer = BatchNorm1d::new(100).momentum(0.05).init(1)?;
    /// assert_eq!(layer.infer(&Tensor::<f32>::zeros([32, 100]))?.shape()[..], [32, 100]);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    BatchNorm1d, axes: [2, 3], wanted: "(N, C) or (N, C, L)"
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Error, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 2..6usize, channels in 1..5usize, length in 1..5usize, sequence in any::<bool>(),
            affine in any::<bool>(), bias in any::<bool>(), track in any::<bool>(),
            momentum in prop_oneof![Just(None), (0.0..1.0f64).prop_map(Some)],
            eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: BatchNorm1d::new(channels)
                .eps(eps)
                .momentum(momentum)
                .affine(affine)
                .bias(bias)
                .track_running_stats(track),
            input: if sequence { vec![rows, channels, length] } else { vec![rows, channels] },
            wrong: [rows, channels + 1], wrong: [rows, channels, 2, 2], wrong: [channels],
        }
    }

    fn train(layer: &mut BatchNorm1d<f64>, x: &Tensor<f64>) -> Result<Tensor<f64>> {
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(x, &mut y, &mut cache, &mut Context::train(0))?;
        layer.absorb(&cache);
        Ok(y)
    }

    fn running(layer: &BatchNorm1d<f64>) -> [f64; 3] {
        let r = layer.0.running.as_ref().unwrap();
        [&r.mean, &r.var, &r.batches].map(|p| p.value().unwrap()[0])
    }

    /// x = (1, 3), ε = 3, γ = 4, β = 10: μ = 2, σ² = 1, ρ = 1/√4 = ½, x̂ = (−½, ½), y = (8, 12).
    /// For g = (1, 0): ∂γ = −½, ∂β = 1, mean(g) = ½, mean(g x̂) = −¼,
    /// ∂x = 4·½·(1 − ½ − ½·¼, 0 − ½ + ½·¼) = (¾, −¾).
    /// Running statistics with α = ¼: mean ¾·0 + ¼·2 = ½; var ¾·1 + ¼·(1·2/1) = 1¼.
    #[test]
    fn by_hand() {
        let mut layer = BatchNorm1d::<f64>::new(1).eps(3.0).momentum(0.25).init(0).unwrap();
        layer.0.weight.as_mut().unwrap().set(Tensor::from([4.0])).unwrap();
        layer.0.bias.as_mut().unwrap().set(Tensor::from([10.0])).unwrap();
        let x = Tensor::from([[1.0], [3.0]]);
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[8.0], [12.0]]));

        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1.0], [0.0]]);
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0.75], [-0.75]]));
        assert_eq!(grads.values(), [-0.5, 1.0]);

        layer.absorb(&cache);
        assert_eq!(running(&layer), [0.5, 1.25, 1.0]);
    }

    #[test]
    fn no_momentum_gives_the_average_of_all_batches() {
        let mut layer = BatchNorm1d::<f64>::new(1).momentum(None).init(0).unwrap();
        for x in [[[1.0], [3.0]], [[5.0], [9.0]], [[0.0], [0.0]]] {
            train(&mut layer, &Tensor::from(x)).unwrap();
        }
        let [mean, var, batches] = running(&layer);
        assert!((mean - 3.0).abs() < 1e-12 && (var - (2.0 + 8.0) / 3.0).abs() < 1e-12 && batches == 3.0);
    }

    #[test]
    fn an_empty_batch_counts_but_teaches_nothing() {
        let mut layer = BatchNorm1d::<f64>::new(5).init(0).unwrap();
        let y = train(&mut layer, &Tensor::zeros([0, 5, 9])).unwrap();
        assert_eq!(y.shape()[..], [0, 5, 9]);
        assert_eq!(running(&layer), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn one_value_per_channel_is_an_error_in_training_alone() {
        let mut layer = BatchNorm1d::<f64>::new(2).init(0).unwrap();
        let text = train(&mut layer, &Tensor::zeros([1, 2])).unwrap_err().to_string();
        assert!(text.contains("more than one value per channel") && text.contains("[1, 2]"), "{text}");
        assert!(layer.infer(&Tensor::zeros([1, 2])).is_ok());
        assert!(train(&mut layer, &Tensor::zeros([1, 2, 2])).is_ok());
        assert!(layer.track_running_stats(false).infer(&Tensor::zeros([1, 2])).is_err());
    }

    #[test]
    fn a_pass_that_is_not_training_leaves_the_running_statistics() {
        let mut layer = BatchNorm1d::<f64>::new(1).init(0).unwrap();
        let (x, mut y, mut cache) = (Tensor::from([[1.0], [3.0]]), Tensor::default(), Default::default());
        for mut cx in [Context::infer(), Context::frozen()] {
            layer.forward(&x, &mut y, &mut cache, &mut cx).unwrap();
            layer.absorb(&cache);
        }
        assert_eq!(running(&layer), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn backward_wants_a_recorded_forward() {
        let layer = BatchNorm1d::<f64>::new(1).init(0).unwrap();
        let (x, mut y, mut cache) = (Tensor::from([[1.0], [3.0]]), Tensor::default(), Default::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::infer()).unwrap();
        let call = Call { x: &x, y: &y, dy: &y };
        let error: Error = layer.backward(call, &mut cache, &mut Grads::new(&layer), None).unwrap_err();
        assert!(matches!(error.kind(), chainrule_core::Kind::NotRecorded(_)));
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let layer = BatchNorm1d::<f32>::new(5);
        let text = layer.output_shape(&[4, 3]).unwrap_err().to_string();
        assert_eq!(text, "BatchNorm1d: expected input (N, 5) or (N, 5, L), got [4, 3]");
        assert!(layer.output_shape(&[5]).is_err() && layer.output_shape(&[1, 5, 2, 2]).is_err());
        assert!(BatchNorm1d::<f32>::new(0).init(0).is_err());
        assert!(BatchNorm1d::<f32>::new(1).eps(-1.0).init(0).is_err());
        assert!(BatchNorm1d::<f32>::new(1).momentum(1.5).init(0).is_err());
    }

    #[test]
    fn names_are_those_of_pytorch() {
        let names = |layer: &BatchNorm1d<f32>| {
            let mut names = Vec::new();
            layer.visit(&mut |path, p| names.push((path.to_string(), p.volume())));
            names.into_iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
        };
        let layer = BatchNorm1d::new(3);
        let all = "weight 3, bias 3, running_mean 3, running_var 3, num_batches_tracked 1";
        assert_eq!(names(&layer), all);
        assert_eq!(layer.parameter_count(), 6);
        assert_eq!(names(&layer.clone().bias(false).track_running_stats(false)), "weight 3");
        assert_eq!(names(&layer.affine(false).bias(true).track_running_stats(false)), "");
    }
}
