//! Value and gradient of every loss: the examples of the registry that are for benches.

mod common;

use chainrule::{
    core::{Target, Targets},
    prelude::*,
};
use common::{Benches, examples};
use std::{hint::black_box, process::ExitCode};

fn main() -> ExitCode {
    let (catalogue, mut benches) = (chainrule_benches::catalogue(), Benches::new());
    for entry in catalogue.losses() {
        for (name, example) in examples(entry) {
            let Some(c) = benches.wanted(&name) else { continue };
            let loss = catalogue.build_loss(&example.spec).expect("an example is built");
            let predictions: Vec<Tensor> = example.inputs.iter().map(|y| random(y, example.range)).collect();
            let owned: Vec<Targets<f32>> = example.loss_targets();
            let ys: Vec<&Tensor> = predictions.iter().collect();
            let targets: Vec<Target<'_, f32>> = owned.iter().map(Target::from).collect();
            let mut dys: Vec<Tensor> = ys.iter().map(|_| Tensor::default()).collect();
            c.bench_function(&name, |b| {
                b.iter(|| {
                    loss.value_and_gradients(black_box(&ys), &targets, &mut dys).expect("a fitting target")
                });
            });
        }
    }
    benches.finish()
}

/// Normal values, or uniform ones from a range.
fn random(shape: &Shape, range: Option<[f64; 2]>) -> Tensor {
    let (mut y, mut rng) = (Tensor::zeros(*shape), Rng::new(1));
    match range {
        Some([low, high]) => {
            y.data_mut().iter_mut().for_each(|v| *v = (low + (high - low) * rng.uniform()) as f32)
        }
        None => rng.fill_normal(y.data_mut()),
    }
    y
}
