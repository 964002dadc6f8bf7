//! Value and gradient of every loss: the examples of the registry that are for benches.

mod common;

use chainrule::{
    core::{Target, Targets},
    prelude::*,
};
use common::{Benches, examples};
use std::{hint::black_box, process::ExitCode};

fn main() -> ExitCode {
    let (catalogue, mut benches) = (chainrule::registry::<f32>(), Benches::new());
    for entry in catalogue.losses() {
        for (name, example) in examples(entry) {
            let Some(c) = benches.wanted(&name) else { continue };
            let loss = catalogue.build_loss(&example.spec).expect("an example is built");
            let predictions: Vec<Tensor> = example.inputs.iter().map(normal).collect();
            let owned: Vec<Targets<f32>> =
                predictions.iter().map(|y| target(y, example.ids.is_some())).collect();
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

fn normal(shape: &Shape) -> Tensor {
    let mut y = Tensor::zeros(*shape);
    Rng::new(1).fill_normal(y.data_mut());
    y
}

/// Classes in turn, or values in [0, 1).
fn target(y: &Tensor, classes: bool) -> Targets<f32> {
    if classes {
        return Targets::classes((0..y.shape()[0]).map(|i| i % y.shape()[1]).collect::<Vec<_>>());
    }
    Targets::Values(Tensor::from_fn(*y.shape(), |i| (i % 7) as f32 / 7.0))
}
