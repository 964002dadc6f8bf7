//! Optimizer steps over a million parameters, and whole training steps.

mod common;

use chainrule::{core::Grads, prelude::*};
use chainrule_benches::workloads;
use common::{Benches, examples};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (catalogue, mut benches) = (chainrule_benches::catalogue(), Benches::new());
    for entry in catalogue.optimizers() {
        for (name, example) in examples(entry) {
            let Some(c) = benches.wanted(&name) else { continue };
            let mut optimizer = catalogue.build_optimizer(&example.spec).expect("an example is built");
            let n = example.inputs[0].volume();
            let mut model = Linear::new(n, 1).bias(false).init(1).expect("a fitting size");
            let mut grads = Grads::new(&model);
            Rng::new(3).fill_normal(grads.values_mut());
            c.bench_function(&name, |b| {
                b.iter(|| optimizer.step(&mut model, &grads).expect("gradients of this model"));
            });
        }
    }
    // Single layers, losses and optimizers have benches of their own.
    for name in workloads::names().filter(|name| name.starts_with('w') && !name.starts_with("w8")) {
        let Some(c) = benches.wanted(name) else { continue };
        let mut run = workloads::build(name).expect("a network that fits together").expect("a known name");
        c.bench_function(name, |b| b.iter(&mut run));
    }
    benches.finish()
}
