//! Optimizer steps over a million parameters, and whole training steps.

use chainrule::prelude::*;
use chainrule_benches::workloads;
use criterion::{Criterion, criterion_group, criterion_main};

fn optimizer(c: &mut Criterion, name: &str, mut optimizer: impl Optimizer<f32>) {
    let mut model = Linear::new(1 << 20, 1).bias(false).init(1).expect("a fitting size");
    let mut grads = Grads::new(&model);
    Rng::new(3).fill_normal(grads.values_mut());
    c.bench_function(name, |b| {
        b.iter(|| optimizer.step(&mut model, &grads).expect("gradients of this model"))
    });
}

fn optimizers(c: &mut Criterion) {
    optimizer(c, "Sgd", Sgd::new(0.01).momentum(0.9));
    optimizer(c, "Adam", Adam::new(1e-3));
    optimizer(c, "AdamW", AdamW::new(1e-3));
}

fn steps(c: &mut Criterion) {
    for name in workloads::NAMES.iter().filter(|name| !name.starts_with("w8")) {
        let mut run = workloads::build(name).expect("a network that fits together").expect("a known name");
        c.bench_function(name, |b| b.iter(&mut run));
    }
}

criterion_group!(all, optimizers, steps);
criterion_main!(all);
