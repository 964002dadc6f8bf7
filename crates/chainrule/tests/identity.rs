//! What belongs to one model is refused by another.

use chainrule::{
    core::{BoxModule, Example, Kind, StateValue},
    prelude::*,
};
use chainrule_parity::registry;

fn model() -> Sequential {
    let model = Sequential::new().add(Linear::new(2, 3)).add(BatchNorm1d::new(3)).add(Linear::new(3, 2));
    model.init(1).unwrap()
}

fn x() -> Tensor {
    Tensor::from([[0.5, -1.0], [2.0, 0.25], [-0.5, 1.5]])
}

/// Every value of a model.
fn values(model: &(impl Parameters<T = f32> + ?Sized)) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    model.visit(&mut |_, p| all.push(p.value().unwrap().to_vec()));
    all
}

fn ones(grads: &mut Grads<f32>) {
    grads.values_mut().fill(1.0);
}

/// Every case of every module.
fn modules() -> Vec<(BoxModule<f32>, Example)> {
    let registry = registry::<f32>();
    let examples = registry.modules().flat_map(|entry| (entry.examples)()).filter(|example| !example.bench);
    examples.map(|e| (registry.build_module(&e.spec).unwrap().init(1).unwrap(), e)).collect()
}

/// Inputs of an example.
fn inputs(example: &Example) -> Vec<Tensor> {
    let value = |i: usize| match example.ids {
        Some(bound) => (i % bound) as f32,
        None => (i as f32 * 0.7).sin(),
    };
    example.inputs.iter().map(|&shape| Tensor::from_fn(shape, value)).collect()
}

#[test]
fn no_optimizer_takes_gradients_of_another_model() {
    let registry = registry::<f32>();
    for entry in registry.optimizers() {
        for spec in (entry.examples)().into_iter().map(|example| example.spec) {
            for steps in [0, 1] {
                let mut model = model();
                let mut optimizer = registry.build_optimizer(&spec).unwrap();
                let mut grads = Grads::new(&model);
                ones(&mut grads);
                for _ in 0..steps {
                    optimizer.step(&mut model, &grads).unwrap();
                }
                let before = values(&model);
                let part = Linear::<f32>::new(2, 3).init(1).unwrap();
                for mut foreign in [Grads::new(&model.clone()), Grads::new(&part)] {
                    ones(&mut foreign);
                    assert!(optimizer.step(&mut model, &foreign).is_err(), "{spec} after {steps} steps");
                    assert_eq!(values(&model), before, "{spec}");
                }
                optimizer.step(&mut model, &grads).unwrap();
                // Its state is of this model.
                let mut clone = model.clone();
                let (mut of_clone, before) = (Grads::new(&clone), values(&clone));
                ones(&mut of_clone);
                assert!(optimizer.step(&mut clone, &of_clone).is_err(), "{spec}: a clone");
                assert!(
                    optimizer.visit_state(&clone, &mut |_, _, _: StateValue<&Tensor>| ()).is_err(),
                    "{spec}"
                );
                assert!(optimizer.adopt(&clone, &model).is_err() && optimizer.adopt(&model, &part).is_err());
                assert_eq!(values(&clone), before, "{spec}");
                optimizer.adopt(&model, &clone).unwrap();
                optimizer.step(&mut clone, &of_clone).unwrap();
            }
        }
    }
}

/// Gradients that lack some of the model's parameters move none.
#[test]
fn gradients_of_a_part_move_nothing() {
    struct Two {
        first: Linear,
        second: Linear,
    }
    chainrule::parameters! { Two: f32 { first, second } }
    let mut both = Two { first: Linear::new(2, 2), second: Linear::new(2, 2) }.init(1).unwrap();
    let [whole, mut part] = [Grads::new(&both), Grads::new(&both.first)];
    ones(&mut part);
    let mut sgd = Sgd::new(0.1);
    for _ in 0..2 {
        let before = values(&both);
        assert!(sgd.step(&mut both, &part).is_err());
        assert_eq!(values(&both), before);
        sgd.step(&mut both, &whole).unwrap();
    }
    let mut all = whole.clone();
    assert!(all.add(&part).is_err() && part.add(&whole).is_err() && all.add(&whole).is_ok());
    assert!(all.add(&Grads::new(&both)).is_ok(), "another shard of the same model");
}

#[test]
fn a_pass_is_of_one_model() {
    let (mut model, x) = (model(), x());
    let mut clone = model.clone();
    let (mut pass, mut sgd) = (Pass::new(&model), Sgd::new(0.1));
    let t = Tensor::zeros([3, 2]);
    let before = values(&clone);
    for (forward, backward) in [(&model, &clone), (&clone, &model), (&clone, &clone)] {
        pass.forward(forward, &x, Context::train(1)).unwrap();
        pass.loss(&Mse::new(), &t).unwrap();
        assert!(pass.backward(backward, &x).is_err());
        pass.zero();
    }
    pass.forward(&model, &x, Context::train(1)).unwrap();
    pass.loss(&Mse::new(), &t).unwrap();
    pass.backward(&model, &x).unwrap();
    assert!(pass.update(&mut clone, &mut sgd).is_err());
    assert_eq!(values(&clone), before, "neither weights nor statistics");
    pass.update(&mut model, &mut sgd).unwrap();
    // A layer alone, and several inputs.
    let layer = Linear::<f32>::new(2, 2).init(1).unwrap();
    let mut pass = Pass::new(&layer);
    let other = layer.clone();
    pass.forward(&other, &x, Context::train(1)).unwrap();
    pass.loss(&Mse::new(), &t).unwrap();
    let text = pass.backward(&other, &x).unwrap_err().to_string();
    assert!(text.contains("expected gradients of this model, got those of another"), "{text}");
}

/// Wherever a layer adds to gradients that are not its own, the container around it says so.
#[test]
fn no_module_loses_gradients_in_silence() {
    for (module, example) in modules() {
        let clone = module.clone();
        let (xs, spec) = (inputs(&example), &example.spec);
        let xs: Vec<_> = xs.iter().collect();
        let (mut ys, mut state) = (vec![Tensor::default(); module.outputs()], Default::default());
        module.apply(&xs, &mut ys, &mut state, Context::train(1)).unwrap();
        let dys: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
        let dys: Vec<_> = dys.iter().map(Some).collect();
        let mut none: Vec<_> = xs.iter().map(|_| None).collect();
        let call = ModuleCall::new(&module, &xs, &ys, &dys).unwrap();
        let learns = module.parameter_count() > 0;
        let mut foreign = Grads::new(&clone);
        let result = module.pull(call, &mut state, &mut foreign, &mut none);
        assert_eq!(result.is_err(), learns, "{spec}");
        assert!(foreign.values().iter().all(|&g| g == 0.0), "{spec}");
        assert!(module.pull(call, &mut state, &mut Grads::new(&module), &mut none).is_ok(), "{spec}");
    }
}

/// The state of a container is of the container that recorded it.
#[test]
fn no_container_takes_the_state_of_a_clone() {
    for (module, example) in modules() {
        let registry = registry::<f32>();
        let container = registry.modules().any(|entry| {
            entry.facts.kind == example.spec.kind()
                && ["Sequential", "Residual", "Parallel", "Graph"].contains(&entry.facts.kind)
        });
        if !container {
            continue;
        }
        let mut clone = module.clone();
        let xs = inputs(&example);
        let xs: Vec<_> = xs.iter().collect();
        let (mut ys, mut state) = (vec![Tensor::default(); module.outputs()], Default::default());
        module.apply(&xs, &mut ys, &mut state, Context::train(1)).unwrap();
        let dys: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
        let dys: Vec<_> = dys.iter().map(Some).collect();
        let mut none: Vec<_> = xs.iter().map(|_| None).collect();
        let call = ModuleCall::new(&clone, &xs, &ys, &dys).unwrap();
        let error = clone.pull(call, &mut state, &mut Grads::new(&clone), &mut none).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotRecorded(_)), "{}: {error}", example.spec);
        let before = values(&clone);
        clone.fold(&state);
        assert_eq!(values(&clone), before);
    }
}

#[test]
fn a_trainer_whose_model_is_exchanged_gives_an_error_or_trains_it() {
    let mut trainer = Trainer::new(model(), Mse::new(), Adam::new(0.1));
    let t = Tensor::zeros([3, 2]);
    trainer.step(&x(), &t).unwrap();
    let other = trainer.model().clone();
    let old = std::mem::replace(trainer.model_mut(), other);
    let before = values(trainer.model());
    let text = trainer.step(&x(), &t).unwrap_err().to_string();
    assert!(text.contains("another model"), "{text}");
    assert_eq!(values(trainer.model()), before);
    let new = trainer.model().clone();
    *trainer.model_mut() = new;
    let heir = trainer.model().clone();
    trainer.optimizer_mut().adopt(&old, &heir).unwrap();
    *trainer.model_mut() = heir;
    trainer.step(&x(), &t).unwrap();
}

#[test]
fn graphs_refuse_nodes_of_others_wherever_one_is_taken() {
    let (mut other, mut cut) = (Graph::new(), Graph::new());
    let x = other.input("x");
    let far = other.add("far", Linear::new(2, 2), x);
    cut.input("x");
    type Wrong<'a> = &'a dyn Fn(&mut Graph, Node);
    let wrongs: [Wrong<'_>; 6] = [
        &|g, x| _ = g.add("sum", Add::new(), [x, far]),
        &|g, _| _ = g.again("a", far),
        &|g, _| g.output("y", far),
        &|g, _| g.output("y", far.at(0)),
        &|g, x| _ = g.again("a", [x, x]),
        &|g, _| _ = g.again("a", []),
    ];
    for (i, wrong) in wrongs.iter().enumerate() {
        let mut graph = Graph::new();
        let x = graph.input("x");
        graph.add("a", Linear::new(2, 2), x);
        wrong(&mut graph, x);
        assert!(graph.clone().build([1, 2]).is_err(), "{i}");
        assert!(graph.infer(&Tensor::zeros([1, 2])).is_err(), "{i}");
        assert!(graph.init(1).is_err(), "{i}");
    }
}

#[test]
fn an_axis_that_there_is_not_is_an_error_when_built_and_when_run() {
    let x = Tensor::<f32>::zeros([2, 3]);
    for dim in [2, 5, -3, isize::MIN, isize::MAX] {
        for branches in 1..3 {
            let layer = (0..branches).fold(Parallel::concat(dim), |layer, _| layer.add(Linear::new(3, 3)));
            assert!(Sequential::new().add(layer.clone()).build(&[2, 3]).is_err(), "{dim}");
            assert!(layer.init(1).unwrap().infer(&x).is_err(), "{dim}");
        }
        for module in [
            BoxModule::new(Concat::new(dim).parts(1)),
            BoxModule::new(Split::new([3], dim)),
            BoxModule::new(Chunk::new(1, dim)),
            BoxModule::new(LogSoftmax::new(dim)),
        ] {
            assert!(module.output_shapes(&[*x.shape()]).is_err(), "{module}: {dim}");
            assert!(module.infer_all(&x).is_err(), "{module}: {dim}");
        }
    }
}

/// Another number of inputs, outputs or requested gradients than a module has.
#[test]
fn another_number_of_tensors_is_an_error() {
    for (module, example) in modules() {
        let xs = inputs(&example);
        let (spec, extra) = (&example.spec, [xs.clone(), xs.clone()].concat());
        let (n, m) = (xs.len(), module.outputs());
        let run = |xs: &[Tensor], outputs: usize| {
            let xs: Vec<_> = xs.iter().collect();
            let mut ys = vec![Tensor::default(); outputs];
            module.apply(&xs, &mut ys, &mut Default::default(), Context::train(1))
        };
        run(&xs, m).unwrap();
        for wrong in [0, n - 1, n + 1, 2 * n].into_iter().filter(|&wrong| wrong != n) {
            assert!(run(&extra[..wrong.min(2 * n)], m).is_err() || wrong > 2 * n, "{spec}: {wrong} inputs");
        }
        for wrong in [m - 1, m + 1] {
            assert!(run(&xs, wrong).is_err(), "{spec}: {wrong} outputs");
        }
        let refs: Vec<_> = xs.iter().collect();
        let (mut ys, mut state) = (vec![Tensor::default(); m], Default::default());
        module.apply(&refs, &mut ys, &mut state, Context::train(1)).unwrap();
        let dys: Vec<_> = ys.iter().map(Some).collect();
        let call = ModuleCall::new(&module, &refs, &ys, &dys).unwrap();
        for wrong in [n - 1, n + 1] {
            let mut dxs: Vec<Tensor> = vec![Tensor::default(); wrong];
            let mut dxs: Vec<_> = dxs.iter_mut().map(Some).collect();
            let result = module.pull(call, &mut state, &mut Grads::new(&module), &mut dxs);
            assert!(result.is_err(), "{spec}: {wrong} requested gradients");
        }
    }
}
