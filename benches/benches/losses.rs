//! Value and gradient of every loss.

use chainrule::prelude::*;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn bench(c: &mut Criterion, name: &str, loss: &impl Loss<f32>, target: Target<'_, f32>) {
    let mut y = Tensor::zeros([4096, 10]);
    Rng::new(1).fill_normal(y.data_mut());
    let mut dy = Tensor::default();
    c.bench_function(name, |b| {
        b.iter(|| loss.value_and_gradient(black_box(&y), target, &mut dy).expect("a fitting target"));
    });
}

fn losses(c: &mut Criterion) {
    let values = Tensor::from_fn([4096, 10], |i| (i % 7) as f32 / 7.0);
    let classes: Vec<usize> = (0..4096).map(|i| i % 10).collect();
    bench(c, "Mse", &Mse::new(), Target::Values(&values));
    bench(c, "Mae", &Mae::new(), Target::Values(&values));
    bench(c, "Huber", &Huber::new(), Target::Values(&values));
    bench(c, "CrossEntropy", &CrossEntropy::new(), Target::Classes(&classes));
    bench(c, "BceWithLogits", &BceWithLogits::new(), Target::Values(&values));
}

criterion_group!(all, losses);
criterion_main!(all);
