//! AVX2 and AVX-512 give the same bits: every kind of the catalogue, in a process of its own for each instruction set.

use chainrule::{
    core::{AnyState, BoxModule, Example, ModuleCall, Target},
    prelude::*,
    tensor::{Isa, kernels::best},
};
use chainrule_parity::registry;
use std::{
    env,
    fmt::Write as _,
    process::{Child, Command, Stdio},
};

/// Set in a process that is one of those compared.
const CHILD: &str = "CHAINRULE_TEST_BITS";

/// A hash of the bits of values.
fn hash<'v, T: Scalar>(values: impl IntoIterator<Item = &'v T>) -> u64 {
    values.into_iter().fold(0, |hash: u64, v| {
        (hash.rotate_left(5) ^ v.to_f64().to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Normal values, or those that the example asks for.
fn inputs<T: Scalar>(example: &Example) -> Vec<Tensor<T>> {
    let mut rng = Rng::new(17);
    let mut value = |_| match (example.ids, example.range) {
        (Some(bound), _) => T::from_f64(rng.below(bound) as f64),
        (_, Some([low, high])) => T::from_f64(low + (high - low) * rng.uniform()),
        _ => T::from_f64(rng.normal()),
    };
    example.inputs.iter().map(|&shape| Tensor::from_fn(shape, &mut value)).collect()
}

/// Hashes of y in inference, and of y, ∂E/∂x and ∂E/∂θ in training.
fn of_module<T: Scalar>(module: &BoxModule<T>, example: &Example) -> Result<[u64; 4]> {
    let xs = inputs::<T>(example);
    let xs: Vec<&Tensor<T>> = xs.iter().collect();
    let all = |ys: &[Tensor<T>]| hash(ys.iter().flat_map(|y| y.data()));
    let mut ys = vec![Tensor::default(); module.outputs()];
    module.apply(&xs, &mut ys, &mut AnyState::default(), Context::infer())?;
    let inferred = all(&ys);
    let mut state = AnyState::default();
    module.apply(&xs, &mut ys, &mut state, Context::train(1))?;
    let mut rng = Rng::new(3);
    let dys: Vec<_> = ys.iter().map(|y| Tensor::from_fn(*y.shape(), |_| T::from_f64(rng.normal()))).collect();
    let dys: Vec<_> = dys.iter().map(Some).collect();
    let mut dxs = vec![Tensor::default(); xs.len()];
    let mut grads = Grads::new(module);
    let mut requested: Vec<_> =
        dxs.iter_mut().enumerate().map(|(i, dx)| module.differentiable_input(i).then_some(dx)).collect();
    module.pull(ModuleCall::new(module, &xs, &ys, &dys)?, &mut state, &mut grads, &mut requested)?;
    Ok([inferred, all(&ys), all(&dxs), hash(grads.values())])
}

fn lines<T: Scalar>(out: &mut String) {
    let registry = registry::<T>();
    let name = std::any::type_name::<T>();
    // f64 has the same vectors on both: some small cases will do.
    let tried = |example: &Example| T::EPSILON.to_f64() > 1e-10 || !example.bench;
    for entry in registry.modules() {
        for example in (entry.examples)().into_iter().filter(tried) {
            let module = registry.build_module(&example.spec).unwrap().init(1).unwrap();
            let hashes = of_module(&module, &example).unwrap();
            writeln!(out, "bits {name} {} {:?}: {hashes:x?}", example.spec, example.inputs).unwrap();
        }
    }
    for entry in registry.losses() {
        for example in (entry.examples)().into_iter().filter(tried) {
            let loss = registry.build_loss(&example.spec).unwrap();
            let (ys, targets) = (inputs::<T>(&example), example.loss_targets::<T>());
            let ys: Vec<&Tensor<T>> = ys.iter().collect();
            let targets: Vec<Target<'_, T>> = targets.iter().map(Target::from).collect();
            let mut dys = vec![Tensor::default(); ys.len()];
            let Ok(value) = loss.value_and_gradients(&ys, &targets, &mut dys) else { continue };
            let hashes = [hash([&value]), hash(dys.iter().flat_map(|dy| dy.data()))];
            writeln!(out, "bits {name} {} {:?}: {hashes:x?}", example.spec, example.inputs).unwrap();
        }
    }
    for entry in registry.optimizers() {
        for example in (entry.examples)() {
            let mut optimizer = registry.build_optimizer(&example.spec).unwrap();
            let mut model =
                Sequential::<T>::of().add(Linear::new(37, 29)).add(Linear::new(29, 5)).init(1).unwrap();
            let mut grads = Grads::new(&model);
            for step in 0..4 {
                Rng::new(step).fill_normal(grads.values_mut());
                optimizer.step(&mut model, &grads).unwrap();
            }
            let mut values = Vec::new();
            model.visit(&mut |_, p| values.extend_from_slice(p.value().unwrap()));
            writeln!(out, "bits {name} {}: {:x}", example.spec, hash(&values)).unwrap();
        }
    }
}

/// A process that uses an instruction set.
fn start(set: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_catalogue_gives_the_same_bits", "--nocapture"])
        .env(CHILD, "1")
        .env("CHAINRULE_ISA", set)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The lines that it writes.
fn written(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let out = String::from_utf8(output.stdout).unwrap();
    out.lines().filter(|line| line.starts_with("bits ")).map(str::to_owned).collect()
}

#[test]
fn the_catalogue_gives_the_same_bits() {
    if env::var_os(CHILD).is_some() {
        let mut out = String::new();
        lines::<f32>(&mut out);
        lines::<f64>(&mut out);
        return print!("\n{out}");
    }
    if best() != Isa::Avx512 {
        return println!("skipped: this processor has no AVX-512");
    }
    let [wide, narrow] = ["avx512", "avx2"].map(start).map(written);
    assert!(wide.len() > 400 && wide.len() == narrow.len(), "{} and {} lines", wide.len(), narrow.len());
    let differ: Vec<_> = wide.iter().zip(&narrow).filter(|(wide, narrow)| wide != narrow).collect();
    let shown: Vec<_> = differ.iter().map(|(wide, narrow)| format!("{wide}\n{narrow}")).collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), wide.len(), shown.join("\n"));
}
