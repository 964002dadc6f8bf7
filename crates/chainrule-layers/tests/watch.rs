//! Watching parts of a model changes nothing, and shows what they compute.

use chainrule_core::{
    BoxModule, Captured, Context, Event, Example, Grads, Module, ModuleCall, Observer, Parameters, Parts,
    Pass, Probe, Rng, Seen, Shape, Tensor, parameters, unwatch, watch,
};
use chainrule_layers::{
    Add, Dropout, Graph, Linear, Parallel, Relu, Residual, Sequential, Tanh, registry, weight::WeightNorm,
};
use std::sync::{Arc, Mutex};

fn inputs(example: &Example) -> Vec<Tensor> {
    let mut rng = Rng::new(1);
    let tensor = |shape: &Shape| match (example.ids, example.range) {
        (Some(bound), _) => Tensor::from_fn(*shape, |_| rng.below(bound) as f32),
        (_, Some([low, high])) => Tensor::from_fn(*shape, |_| (low + (high - low) * rng.uniform()) as f32),
        _ => {
            let mut x = Tensor::zeros(*shape);
            rng.fill_normal(x.data_mut());
            x
        }
    };
    example.inputs.iter().map(tensor).collect()
}

/// The module of an example at the only node of a graph.
fn graph(example: &Example) -> Graph {
    let mut graph = Graph::new();
    let inputs: Vec<_> = (0..example.inputs.len()).map(|i| graph.input(format!("x{i}"))).collect();
    let module = registry::<f32>().build_module(&example.spec).unwrap();
    let outputs = module.outputs();
    let node = graph.add("it", module, inputs);
    (0..outputs).for_each(|j| graph.output(format!("y{j}"), node.at(j)));
    graph.init(1).unwrap()
}

/// The bits of two training passes, one after the other, with folded statistics, and of inference after them.
fn bits<M: Module<T = f32>>(model: &mut M, xs: &[Tensor]) -> Vec<u32> {
    let (mut bits, mut state, mut grads) = (Vec::new(), M::State::default(), Grads::new(model));
    let refs: Vec<&Tensor> = xs.iter().collect();
    let mut ys = vec![Tensor::default(); model.outputs()];
    let mut keep = |values: &[f32]| bits.extend(values.iter().map(|v| v.to_bits()));
    for step in 0..2 {
        model.apply(&refs, &mut ys, &mut state, Context::train(3).step(step)).unwrap();
        let dys: Vec<Tensor> = ys.iter().map(|y| Tensor::from_fn(*y.shape(), |i| (i as f32).sin())).collect();
        let dys: Vec<Option<&Tensor>> = dys.iter().map(Some).collect();
        let mut dxs = vec![Tensor::default(); xs.len()];
        let mut requested: Vec<Option<&mut Tensor>> = dxs.iter_mut().map(Some).collect();
        for (i, dx) in requested.iter_mut().enumerate() {
            dx.take_if(|_| !model.differentiable_input(i));
        }
        let call = ModuleCall::new(model, &refs, &ys, &dys).unwrap();
        model.pull(call, &mut state, &mut grads, &mut requested).unwrap();
        model.fold(&state);
        ys.iter().chain(&dxs).for_each(|t| keep(t.data()));
        keep(grads.values());
    }
    model.visit(&mut |_, p| keep(p.value().unwrap()));
    model.infer_all(&xs.to_vec()).unwrap().iter().for_each(|y| keep(y.data()));
    bits
}

#[test]
fn every_module_gives_the_same_bits_while_its_parts_are_watched() {
    let examples = registry::<f32>().modules().flat_map(|entry| (entry.examples)()).collect::<Vec<_>>();
    for example in examples.iter().filter(|example| !example.bench) {
        let xs = inputs(example);
        let want = bits(&mut graph(example), &xs);
        let mut model = graph(example);
        let (mut paths, spec) = (Vec::new(), model.to_spec());
        model.visit(&mut |path, _| paths.push(path.to_string()));
        let probe = Probe::attach(&mut model, ["*"]).unwrap();
        assert_eq!(probe.paths()[0], "it");
        assert!(bits(&mut model, &xs) == want, "{}", example.spec);
        let mut clone = graph(example);
        let other = Probe::attach(&mut clone, ["*"]).unwrap();
        assert!(bits(&mut clone.clone(), &xs) == want, "a clone of {}", example.spec);
        drop(other);
        assert!(bits(&mut clone, &xs) == want, "{}", example.spec);
        let mut listed = Vec::new();
        model.visit(&mut |path, _| listed.push(path.to_string()));
        assert_eq!((listed, model.to_spec()), (paths, spec));
        // The last pass was one of inference.
        let y = probe.activation("it").unwrap();
        let got = &want[want.len() - model.infer_all(&xs).unwrap().iter().map(Tensor::len).sum::<usize>()..];
        assert!(y.data().iter().map(|v| v.to_bits()).eq(got[..y.len()].iter().copied()), "{}", example.spec);
        probe.detach(&mut model);
    }
}

/// Linear, an activation in its place, a way around, a branch beside, a computed weight.
fn model() -> Sequential {
    let inner = Sequential::new().add(Linear::new(4, 4)).add(Tanh::new());
    Sequential::new()
        .add(Linear::new(3, 4))
        .add(Relu::new())
        .named("around", Residual::new(inner.clone()))
        .named(
            "beside",
            Parallel::sum().add(Linear::new(4, 4)).named("norm", WeightNorm::new(inner).on("0.weight")),
        )
        .named("last", Dropout::new(0.3))
        .init(1)
        .unwrap()
}

const PATHS: [&str; 12] = [
    "0",
    "1",
    "around",
    "around.inner",
    "around.0",
    "around.1",
    "beside",
    "beside.0",
    "beside.norm",
    "beside.norm.inner",
    "beside.norm.0",
    "beside.norm.1",
];

fn batch() -> Tensor {
    let mut x = Tensor::zeros([5, 3]);
    Rng::new(2).fill_normal(x.data_mut());
    x
}

/// y and ∂E/∂y of a pass with E = Σ y.
fn pass<M: Module<T = f32>>(model: &M, x: &Tensor) -> Pass<M> {
    let mut pass = Pass::new(model);
    let shape = *pass.forward(model, x, Context::train(1)).unwrap().shape();
    *pass.output_gradients_mut() = vec![Tensor::full(shape, 1.0)];
    pass.backward(model, x).unwrap();
    pass
}

#[test]
fn every_part_shows_its_output_and_its_gradient() {
    let (mut model, x) = (model(), batch());
    let probe = Probe::attach(&mut model, ["*"]).unwrap();
    assert_eq!(probe.paths()[..12], PATHS);
    let pass = pass(&model, &x);
    let y = |path: &str| probe.activation(path).unwrap();
    let dy = |path: &str| probe.gradient(path).unwrap();
    assert_eq!((&y("last"), &dy("last")), (&pass.outputs()[0], &Tensor::full([5, 4], 1.0)));
    // What ReLU overwrote is kept from before.
    assert!(y("0").data().iter().any(|v| *v < 0.0) && y("1").data().iter().all(|v| *v >= 0.0));
    let relu: Vec<f32> = y("0").data().iter().map(|v| v.max(0.0)).collect();
    assert_eq!(y("1").data(), relu);
    let through: Vec<f32> =
        y("1").data().iter().zip(dy("1").data()).map(|(y, dy)| if *y > 0.0 { *dy } else { 0.0 }).collect();
    assert_eq!(dy("0").data(), through);
    // y = x + f(x)
    let sum: Vec<f32> = y("1").data().iter().zip(y("around.inner").data()).map(|(x, fx)| x + fx).collect();
    assert_eq!(
        (y("around").data(), &y("around.1"), &dy("around.1")),
        (&sum[..], &y("around.inner"), &dy("around"))
    );
    let sum: Vec<f32> =
        y("beside.0").data().iter().zip(y("beside.norm").data()).map(|(a, b)| a + b).collect();
    assert_eq!((y("beside").data(), &y("beside.norm.1")), (&sum[..], &y("beside.norm")));
    // ∂E/∂b of the first layer is the sum of ∂E/∂y over the batch.
    let db = pass.grads().at(&model, "0.bias").unwrap();
    let columns = (0..4).map(|j| (0..5).map(|i| dy("0").data()[4 * i + j]).sum::<f32>());
    assert!(db.iter().zip(columns).all(|(a, b)| (a - b).abs() < 1e-6));
    let text = pass.grads().at(&model, "0.w").unwrap_err().to_string();
    assert!(text.contains("got `0.w`; there are `0.weight`, `0.bias`"), "{text}");
    probe.detach(&mut model);
}

#[test]
fn a_path_that_leads_to_no_part_is_an_error_that_lists_them() {
    let mut model = model();
    let text = Probe::attach(&mut model, ["0", "encoder.0"]).unwrap_err().to_string();
    assert!(
        text.starts_with("expected the path of a part of the model, got `encoder.0`; there are `0`, `1`"),
        "{text}"
    );
    assert!(text.ends_with("`beside.norm.1`, `last`"), "{text}");
    let text = Probe::attach(&mut Linear::<f32>::new(2, 2), ["weight"]).unwrap_err().to_string();
    assert!(text.ends_with("there are none"), "{text}");
    let probe = Probe::attach(&mut model, ["0", "around.*"]).unwrap();
    assert_eq!(probe.paths(), ["0", "around.inner", "around.0", "around.1"]);
    assert!(
        probe.activation("1").is_err()
            && probe.activation("0").is_err()
            && probe.calls("0").unwrap().is_empty()
    );
    model.infer(&batch()).unwrap();
    assert!(probe.activation("0").is_ok() && probe.gradient("0").is_err());
    probe.clear();
    assert!(probe.activation("0").is_err());
}

#[test]
fn parts_without_a_watch_are_as_before_and_probes_do_not_know_of_each_other() {
    let (mut model, x) = (model(), batch());
    let one = Probe::attach(&mut model, ["*"]).unwrap();
    let two = Probe::attach(&mut model, ["0", "around"]).unwrap();
    pass(&model, &x);
    assert_eq!(one.activation("0").unwrap(), two.activation("0").unwrap());
    one.detach(&mut model);
    pass(&model, &Tensor::zeros([2, 3]));
    assert_eq!(two.activation("around").unwrap().shape()[..], [2, 4]);
    assert!(model.children().next().unwrap().1.downcast_ref::<Linear>().is_some());
    drop(two);
    let three = Probe::attach(&mut model, ["1"]).unwrap();
    pass(&model, &x);
    assert_eq!(three.calls("1").unwrap().len(), 1);
    three.detach(&mut model);
    assert!(model.children().next().unwrap().1.downcast_ref::<Linear>().is_some());
}

#[test]
fn a_part_at_two_places_shows_both_calls_and_a_pass_that_is_gone_none() {
    let mut graph = Graph::new();
    let x = graph.input("x");
    let once = graph.add("shared", Sequential::new().add(Linear::new(3, 3)).add(Tanh::new()), x);
    let twice = graph.again("shared", once);
    graph.add("sum", Add::new(), [once, twice]);
    let mut graph = graph.init(1).unwrap();
    let probe = Probe::attach(&mut graph, ["shared", "shared.0"]).unwrap();
    let x = batch();
    for _ in 0..2 {
        pass(&graph, &x);
        let [first, second]: [Captured<f32>; 2] = probe.calls("shared").unwrap().try_into().unwrap();
        let layer = graph.children().next().unwrap().1.clone();
        assert_eq!(layer.infer(&first.ys[0]).unwrap(), second.ys[0]);
        // The second use gets ∂E/∂y of the sum, the first more.
        assert_eq!(second.dys, [Some(Tensor::full([5, 3], 1.0))]);
        assert_ne!(first.dys, second.dys);
        drop(layer);
    }
    for _ in 0..3 {
        graph.infer(&x).unwrap();
    }
    assert_eq!(probe.calls("shared.0").unwrap().len(), 2);
}

/// A model that is no container: a typed part, and a part in a box.
struct Own {
    body: Sequential,
    head: BoxModule<f32>,
}
parameters! { Own: f32 { body, head } }

impl Module for Own {
    type State = (<Sequential as Module>::State, Tensor, chainrule_core::AnyState);

    fn output_shapes(&self, inputs: &[Shape]) -> chainrule_core::Result<Vec<Shape>> {
        self.head.output_shapes(&self.body.output_shapes(inputs)?)
    }

    fn apply(
        &self,
        xs: &[&Tensor],
        ys: &mut [Tensor],
        (body, between, head): &mut Self::State,
        cx: Context,
    ) -> chainrule_core::Result<()> {
        self.body.apply_one(xs[0], between, body, cx.child(0))?;
        self.head.apply_one(between, &mut ys[0], head, cx.child(1))
    }

    fn pull(
        &self,
        _: ModuleCall<'_, f32>,
        _: &mut Self::State,
        _: &mut Grads<f32>,
        _: &mut [Option<&mut Tensor>],
    ) -> chainrule_core::Result<()> {
        Ok(())
    }

    fn lend(&mut self, out: &mut Parts<'_, f32>) {
        self.body.lend(&mut out.child("body"));
        out.part("head", &mut self.head);
    }
}

/// Writes down what was seen.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer<f32> for Notes {
    fn see(&self, seen: Seen<'_, f32>) {
        let what = match seen.event {
            Event::Forward(ys) => format!("{} → {}", seen.xs[0].shape(), ys[0].shape()),
            Event::Backward { dys, dxs, .. } => format!("{} ← {}", dxs.len(), dys.len()),
        };
        self.0.lock().unwrap().push(format!("{} {} {what}", seen.path, seen.part.to_spec().kind()));
    }
}

#[test]
fn a_model_of_ones_own_lends_what_it_has_in_boxes() {
    let body = Sequential::new().add(Linear::new(3, 4)).add(Relu::new());
    let mut model = Own { body, head: BoxModule::new(Linear::new(4, 2)) }.init(1).unwrap();
    let notes = Arc::new(Notes::default());
    let observer: Arc<dyn Observer<f32>> = notes.clone();
    assert_eq!(watch(&mut model, ["*"], &observer).unwrap(), ["body.0", "body.1", "head"]);
    model.infer(&batch()).unwrap();
    let expected =
        ["body.0 Linear [5, 3] → [5, 4]", "body.1 Relu [5, 4] → [5, 4]", "head Linear [5, 4] → [5, 2]"];
    assert_eq!(*notes.0.lock().unwrap(), expected);
    unwatch(&mut model, &observer);
    model.infer(&batch()).unwrap();
    assert_eq!(notes.0.lock().unwrap().len(), 3);
}
