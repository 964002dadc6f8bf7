//! Backward goes no further than to what learns, and to what was requested.

use chainrule_core::{
    BoxModule, Call, Context, Grads, Init, Layer, Learning, Module, ModuleCall, Param, Parameters, Params,
    ParamsMut, Pass, Result, Scalar, Shape, Tensor,
};
use chainrule_layers::{Add, Concat, Graph, Linear, Parallel, Residual, Sequential, Tanh};
use proptest::prelude::*;
use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// How often backward was called, and with how many multiply-adds.
#[derive(Clone, Debug, Default)]
struct Count(Arc<[AtomicU64; 2]>);

impl Count {
    /// Both, and zeros from now on.
    fn take(&self) -> [u64; 2] {
        [0, 1].map(|i| self.0[i].swap(0, Relaxed))
    }

    fn calls(&self) -> u64 {
        self.take()[0]
    }
}

/// A layer that counts its backward calls, and the products of those that are needed.
#[derive(Clone)]
struct Counted<L> {
    inner: L,
    count: Count,
}

impl<L: Layer> Layer for Counted<L> {
    type T = L::T;
    type Cache = L::Cache;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.inner.output_shape(input)
    }

    fn forward(
        &self,
        x: &Tensor<L::T>,
        y: &mut Tensor<L::T>,
        cache: &mut L::Cache,
        cx: Context,
    ) -> Result<()> {
        self.inner.forward(x, y, cache, cx)
    }

    fn backward(
        &self,
        call: Call<'_, L::T>,
        cache: &mut L::Cache,
        grads: &mut Grads<L::T>,
        dx: Option<&mut Tensor<L::T>>,
    ) -> Result<()> {
        let products = u64::from(dx.is_some()) + u64::from(self.inner.learning() == Learning::Active);
        self.count.0[0].fetch_add(1, Relaxed);
        self.count.0[1].fetch_add(products * self.inner.multiply_adds(call.x.shape()), Relaxed);
        self.inner.backward(call, cache, grads, dx)
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        self.inner.multiply_adds(input)
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, L::T>) {
        self.inner.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, L::T>) {
        self.inner.params_mut(out);
    }
}

fn linear(width: usize, count: &Count) -> Counted<Linear<f64>> {
    Counted { inner: Linear::new(width, width), count: count.clone() }
}

/// ∂E/∂θ of a pass in which every ∂E/∂y is 1, and ∂E/∂x of the inputs that are requested.
fn pull<M: Module<T = f64>>(
    model: &M,
    xs: &[Tensor<f64>],
    requested: &[bool],
    grads: &mut Grads<f64>,
) -> Vec<Tensor<f64>> {
    let xs: Vec<_> = xs.iter().collect();
    let (mut ys, mut state) = (vec![Tensor::default(); model.outputs()], Default::default());
    model.apply(&xs, &mut ys, &mut state, Context::train(1)).unwrap();
    let dys: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
    let dys: Vec<_> = dys.iter().map(Some).collect();
    let mut dxs = vec![Tensor::full([1], f64::NAN); xs.len()];
    let mut wanted: Vec<_> = dxs.iter_mut().zip(requested).map(|(dx, r)| r.then_some(dx)).collect();
    grads.zero();
    model.pull(ModuleCall::new(model, &xs, &ys, &dys).unwrap(), &mut state, grads, &mut wanted).unwrap();
    dxs
}

fn x() -> Tensor<f64> {
    Tensor::from([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]])
}

/// Every kind of container, in which the body comes before the head; all layers but `head` are counted.
fn models(body: &Count, head: &Count) -> Vec<(&'static str, BoxModule<f64>)> {
    let layer = || linear(3, body);
    let block = || Sequential::of().add(layer()).add(Tanh::new()).add(layer());
    let top = || linear(3, head);
    let graph = || {
        let mut graph = Graph::of();
        let x = graph.input("x");
        let a = graph.add("body", layer(), x);
        let b = graph.again("body", a);
        let sum = graph.add("sum", Add::new(), [a, b]);
        graph.add("head", top(), sum);
        graph
    };
    let body = |body: BoxModule<f64>| Sequential::of().named("body", body).named("head", top());
    vec![
        ("sequential", BoxModule::new(body(BoxModule::new(block())))),
        ("residual", BoxModule::new(body(BoxModule::new(Residual::new(block()))))),
        ("parallel", BoxModule::new(body(BoxModule::new(Parallel::sum().add(block()).add(layer()))))),
        ("branches", BoxModule::new(Parallel::concat(1).named("body", layer()).named("head", top()))),
        ("graph", BoxModule::new(graph())),
        ("nested graph", BoxModule::new(Sequential::of().named("body", block()).named("head", graph()))),
    ]
}

#[test]
fn what_is_frozen_before_all_that_learns_is_not_called() {
    let (body, head) = (Count::default(), Count::default());
    for (what, model) in models(&body, &head) {
        let mut model = model.init(1).unwrap();
        let mut grads = Grads::new(&model);
        let mut calls = |model: &BoxModule<f64>, dx: bool| {
            let dx = &pull(model, &[x()], &[dx], &mut grads)[0];
            assert_eq!(dx.data().iter().any(|v| v.is_nan()), dx.len() == 1);
            let nonzero = grads.values().iter().filter(|&&g| g != 0.0).count();
            ([body.calls() > 0, head.calls() > 0], nonzero)
        };
        let all = calls(&model, false);
        assert_eq!(all.0, [true; 2], "{what}");
        let frozen = model.set_frozen(true, &|path| path.contains("body"));
        assert!(frozen > 0, "{what}");
        assert_eq!(calls(&model, false), ([false, true], 12), "{what}: a frozen body");
        assert_eq!(calls(&model, true), ([true, true], 12), "{what}: a frozen body, ∂E/∂x requested");
        model.set_frozen(true, &|_| true);
        assert_eq!(calls(&model, false), ([false; 2], 0), "{what}: all frozen");
        assert_eq!(calls(&model, true), ([true; 2], 0), "{what}: all frozen, ∂E/∂x requested");
        let clone = model.clone();
        model.set_frozen(false, &|_| true);
        assert_eq!(calls(&model, false), all, "{what}: thawed");
        assert_eq!(calls(&clone, false), ([false; 2], 0), "{what}: a clone stays frozen");
    }
}

#[test]
fn with_all_but_the_last_layer_frozen_backward_costs_next_to_nothing() {
    let count = Count::default();
    let mut model = (0..20).fold(Sequential::of(), |model, _| model.add(linear(3, &count)).add(Tanh::new()));
    model = model.named("head", linear(3, &count)).init(1).unwrap();
    let mut grads = Grads::new(&model);
    pull(&model, &[x()], &[false], &mut grads);
    let one = model.multiply_adds(&[2, 3]) / 21;
    // The first layer needs no ∂E/∂x.
    assert_eq!(count.take(), [21, 41 * one]);
    model.set_frozen(true, &|path| !path.starts_with("head"));
    pull(&model, &[x()], &[false], &mut grads);
    assert_eq!(count.take(), [1, one]);
    // A frozen layer above one that learns passes ∂E/∂x on.
    model.set_frozen(false, &|path| path.starts_with("36."));
    pull(&model, &[x()], &[false], &mut grads);
    assert_eq!(count.take(), [3, 4 * one]);
}

#[test]
fn a_body_that_is_thawed_while_it_trains_learns_from_then_on() {
    let count = Count::default();
    let model = Sequential::of().named("body", linear(3, &count)).named("head", linear(3, &count));
    let mut model = model.init(1).unwrap();
    let (x, mut pass) = (x(), Pass::new(&model));
    let mut step = |model: &Sequential<f64>| {
        pass.zero();
        pass.forward(model, &x, Context::train(1)).unwrap();
        *pass.output_gradients_mut() = vec![Tensor::full([2, 3], 1.0)];
        pass.backward(model, &x).unwrap();
        (count.calls(), pass.grads().values().to_vec())
    };
    let whole = step(&model);
    for _ in 0..3 {
        model.set_frozen(true, &|path| path.starts_with("body"));
        let (calls, grads) = step(&model);
        assert_eq!((calls, &grads[..12], &grads[12..]), (1, &[0.0; 12][..], &whole.1[12..]));
        model.set_frozen(false, &|_| true);
        assert_eq!(step(&model), whole);
    }
}

/// An optimizer walks over all parameters after each backward; none of them was frozen, so nothing is forgotten. What was
/// frozen may have been replaced meanwhile.
#[test]
fn a_frozen_parameter_that_is_replaced_by_one_that_learns_is_found() {
    let count = Count::default();
    let model = Sequential::of().named("body", linear(3, &count)).named("head", linear(3, &count));
    let mut model = model.init(1).unwrap();
    let mut other = Linear::<f64>::new(3, 3).init(2).unwrap();
    model.set_frozen(true, &|path| path.starts_with("body"));
    let mut grads = Grads::new(&model);
    pull(&model, &[x()], &[false], &mut grads);
    assert_eq!(count.calls(), 1);
    model.visit_mut(&mut |path, p| {
        if path.to_string() == "body.weight" {
            other.visit_mut(&mut |_, q| {
                if q.shape() == p.shape() {
                    mem::swap(p, q);
                }
            });
        }
    });
    let mut grads = Grads::new(&model);
    pull(&model, &[x()], &[false], &mut grads);
    assert_eq!(count.calls(), 2);
    assert!(grads.values()[..9].iter().all(|&g| g != 0.0));
}

/// Two inputs with a branch each, and a third that only joins them.
#[test]
fn a_graph_follows_the_inputs_that_are_requested() {
    let [left, right, top] = [(); 3].map(|()| Count::default());
    let mut graph = Graph::of();
    let (a, b) = (graph.input("a"), graph.input("b"));
    let a = graph.add("left", linear(3, &left), a);
    let b = graph.add("right", linear(3, &right), b);
    let both = graph.add("both", Concat::new(1), [a, b]);
    let head = Counted { inner: Linear::new(6, 2), count: top.clone() };
    graph.add("head", head, both);
    let mut graph = graph.init(1).unwrap();
    let mut grads = Grads::new(&graph);
    let xs = [x(), x()];
    let want = pull(&graph, &xs, &[true; 2], &mut grads);
    let _ = [&left, &right, &top].map(Count::take);
    graph.set_frozen(true, &|_| true);
    for requested in [[false, false], [true, false], [false, true], [true, true]] {
        let dxs = pull(&graph, &xs, &requested, &mut grads);
        let calls = [&left, &right, &top].map(|count| count.calls() > 0);
        assert_eq!(calls, [requested[0], requested[1], requested[0] || requested[1]]);
        for i in 0..2 {
            assert!(!requested[i] || dxs[i] == want[i]);
        }
    }
    graph.set_frozen(false, &|path| path == "right.bias");
    pull(&graph, &xs, &[false; 2], &mut grads);
    assert_eq!([&left, &right, &top].map(|count| count.calls() > 0), [false, true, true]);
}

#[test]
fn threads_that_share_a_model_find_the_same() {
    let mut model = Sequential::of().named("body", Linear::<f64>::new(3, 3)).named("head", Linear::new(3, 3));
    model = model.init(1).unwrap();
    for frozen in [true, false] {
        model.set_frozen(frozen, &|path| path.starts_with("body"));
        let model = &model;
        std::thread::scope(|scope| {
            let run = move || {
                let mut grads = Grads::new(model);
                pull(model, &[x()], &[false], &mut grads);
                grads.values().iter().filter(|&&g| g != 0.0).count()
            };
            let counts = [(); 4].map(|()| scope.spawn(run)).map(|thread| thread.join().unwrap());
            assert_eq!(counts, [if frozen { 12 } else { 24 }; 4]);
        });
    }
}

/// A nest of containers, chosen by the digits of `kind`.
fn composite<T: Scalar>(depth: u32, kind: u32) -> BoxModule<T> {
    if depth == 0 {
        return BoxModule::new(Linear::new(3, 3).weight_init(Init::Normal { mean: 0.0, std: 0.5 }));
    }
    let inner = |i: u32| composite::<T>(depth - 1, kind / 5 + i);
    match kind % 5 {
        0 => BoxModule::new(Sequential::of().add(inner(0)).add(Tanh::new()).add(inner(1))),
        1 => BoxModule::new(Residual::new(inner(0))),
        2 => BoxModule::new(Parallel::sum().add(inner(0)).add(inner(1))),
        3 => BoxModule::new(Sequential::of().add(Tanh::new()).add(inner(0)).add(Tanh::new())),
        _ => {
            let mut graph = Graph::of();
            let x = graph.input("x");
            let a = graph.add("a", inner(0), x);
            let b = graph.add("b", inner(1), a);
            let c = graph.again("a", b);
            graph.add("sum", Add::new().terms(3), [b, c, x]);
            BoxModule::new(graph)
        }
    }
}

proptest! {
    #[test]
    fn what_is_not_frozen_has_the_gradients_of_a_model_without_frozen_parts(
        depth in 1..4u32, kind in 0..625u32, seed in any::<u64>(), requested in any::<bool>(),
    ) {
        let mut model = composite::<f64>(depth, kind).init(1).unwrap();
        let mut grads = Grads::new(&model);
        let want = pull(&model, &[x()], &[requested], &mut grads);
        let all = grads.clone();
        // Twice, so that what was known of the first is not taken for the second.
        for seed in [seed, seed.rotate_left(17)] {
            let mut i = 0;
            model.visit_mut(&mut |_, p: &mut Param<f64>| {
                p.set_frozen(seed >> (i % 64) & 1 == 1);
                i += 1;
            });
            let got = pull(&model, &[x()], &[requested], &mut grads);
            prop_assert!(!requested || got == want);
            model.visit(&mut |_, p| {
                let expected = all.get(p).unwrap();
                match p.trainable() {
                    true => assert_eq!(grads.get(p).unwrap(), expected),
                    false => assert!(grads.get(p).unwrap().iter().all(|&g| g == 0.0)),
                }
            });
        }
    }
}
