//! Forward and backward of every layer: the examples of the registry that are for benches.

mod common;

use chainrule::{
    core::{BoxModule, Example, Grads, ModuleCall},
    layers::Activation,
    prelude::*,
};
use common::{Benches, examples};
use std::{hint::black_box, process::ExitCode};

/// Forward under training, and backward with ∂E/∂y of ones, with ∂E/∂x requested where there is one.
fn bench(benches: &mut Benches, name: &str, module: BoxModule<f32>, inputs: &[Tensor]) {
    let module = module.init(1).expect("hyper-parameters that make sense");
    let (cx, xs) = (Context::train(1), inputs.iter().collect::<Vec<_>>());
    let mut ys: Vec<Tensor> = (0..module.outputs()).map(|_| Tensor::default()).collect();
    let mut state = Default::default();
    if let Some(c) = benches.wanted(&format!("{name}/forward")) {
        c.bench_function(&format!("{name}/forward"), |b| {
            b.iter(|| module.apply(black_box(&xs), &mut ys, &mut state, cx).expect("a fitting shape"));
        });
    }
    let Some(c) = benches.wanted(&format!("{name}/backward")) else { return };
    module.apply(&xs, &mut ys, &mut state, cx).expect("a fitting shape");
    let ones: Vec<Tensor> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
    let dys: Vec<_> = ones.iter().map(Some).collect();
    let mut dxs: Vec<Tensor> = inputs.iter().map(|_| Tensor::default()).collect();
    let mut grads = Grads::new(&module);
    c.bench_function(&format!("{name}/backward"), |b| {
        let wanted = |i| module.differentiable_input(i);
        let mut requested: Vec<_> =
            dxs.iter_mut().enumerate().map(|(i, dx)| wanted(i).then_some(dx)).collect();
        b.iter(|| {
            let call = ModuleCall::new(&module, black_box(&xs), &ys, &dys).expect("recorded");
            module.pull(call, &mut state, &mut grads, &mut requested).expect("recorded");
        });
    });
}

fn main() -> ExitCode {
    let (catalogue, mut benches) = (chainrule_benches::catalogue(), Benches::new());
    for entry in catalogue.modules() {
        for (name, example) in examples(entry) {
            let module = catalogue.build_module(&example.spec).expect("an example is built");
            let inputs: Vec<Tensor> = example.inputs.iter().map(|shape| input(&example, shape)).collect();
            bench(&mut benches, &name, module, &inputs);
        }
    }
    // It holds closures: no spec builds it.
    let square = Activation::new(|x: f32| x * x, |x: f32| 2.0 * x);
    let mut x = Tensor::zeros([256, 1024]);
    Rng::new(1).fill_normal(x.data_mut());
    bench(&mut benches, "Activation", BoxModule::new(square), &[x]);
    benches.finish()
}

/// What an input of an example holds: ids, or standard normal values.
fn input(example: &Example, shape: &Shape) -> Tensor {
    let mut x = Tensor::zeros(*shape);
    match example.ids {
        Some(bound) => {
            let mut rng = Rng::new(2);
            x.data_mut().iter_mut().for_each(|x| *x = rng.below(bound) as f32);
        }
        None => Rng::new(1).fill_normal(x.data_mut()),
    }
    x
}
