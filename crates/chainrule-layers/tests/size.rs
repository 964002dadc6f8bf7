//! The work of containers is proportional to what they hold.

use chainrule_core::{
    BoxModule, Call, Context, Grads, Init, Layer, Module, Param, Parameters, Params, ParamsMut, Pass, Result,
    Shape, Tensor,
};
use chainrule_layers::{Graph, Parallel, Residual, Sequential};
use std::{
    array,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How often each method of the [`Counted`] layers of a model was called.
#[derive(Debug, Default)]
struct Calls([AtomicUsize; 6]);

/// The most containers inside each other.
const DEEPEST: usize = 1024;

const SHAPE: usize = 0;
const FORWARD: usize = 1;
const BACKWARD: usize = 2;
const LIST: usize = 3;
const LIST_MUT: usize = 4;
const ABSORB: usize = 5;

impl Calls {
    fn count(&self, which: usize) {
        self.0[which].fetch_add(1, Relaxed);
    }

    /// All counts, and zeros from now on.
    fn take(&self) -> [usize; 6] {
        array::from_fn(|i| self.0[i].swap(0, Relaxed))
    }
}

/// y = x, with a parameter that gets a gradient of one.
struct Counted {
    weight: Param<f32>,
    calls: &'static Calls,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self { weight: self.weight.clone(), calls: self.calls }
    }
}

impl Layer for Counted {
    type T = f32;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.calls.count(SHAPE);
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> {
        self.calls.count(FORWARD);
        y.copy_from(x);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, f32>,
        _: &mut (),
        grads: &mut Grads<f32>,
        dx: Option<&mut Tensor>,
    ) -> Result<()> {
        self.calls.count(BACKWARD);
        grads.of(&self.weight).into_iter().for_each(|dw| dw[0] += 1.0);
        dx.into_iter().for_each(|dx| dx.copy_from(call.dy));
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
        self.calls.count(LIST);
        out.add(&self.weight);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) {
        self.calls.count(LIST_MUT);
        out.add(&mut self.weight);
    }

    fn absorb(&mut self, (): &()) {
        self.calls.count(ABSORB);
    }
}

fn calls() -> &'static Calls {
    Box::leak(Box::default())
}

fn counted(calls: &'static Calls) -> Counted {
    Counted { weight: Param::new("weight", [1], Init::ONES), calls }
}

/// Builds, runs and differentiates a model of `n` counted layers, and counts.
fn linear<M: Module<T = f32> + Clone>(n: usize, calls: &'static Calls, model: M) {
    assert_eq!(calls.take(), [0; 6], "putting it together");
    model.output_shapes(&[Shape::from([1, 1])]).unwrap();
    assert_eq!(calls.take(), [n, 0, 0, 0, 0, 0], "shapes");
    model.summary([1, 1]).unwrap();
    let [shape, .., list, _, _] = calls.take();
    assert!(shape <= n && list <= 2 * n, "summary: {shape} {list}");
    let mut model = model.init(1).unwrap();
    assert_eq!(calls.take(), [0, 0, 0, 2 * n, 3 * n, 0], "init"); // both lists compared, initialisers checked, filled, lent once more
    let mut pass = Pass::new(&model);
    assert_eq!(calls.take(), [0, 0, 0, n, 0, 0], "gradients");
    let x = Tensor::from([[1.0]]);
    for frozen in [false, true, false] {
        model.set_frozen(frozen, &|_| true);
        calls.take();
        for step in 0..3 {
            pass.zero();
            pass.forward(&model, &x, Context::train(1).step(step)).unwrap();
            *pass.output_gradients_mut() = vec![Tensor::from([[1.0]])];
            pass.backward(&model, &x).unwrap();
            let (pulled, sum) = (if frozen { 0 } else { n }, pass.grads().values().iter().sum::<f32>());
            let [shape, forward, backward, list, ..] = calls.take();
            assert!(shape <= n, "shapes: {shape}");
            assert_eq!((forward, backward, sum), (n, pulled, pulled as f32));
            // Whether they learn is asked once.
            let asked = list == 0 || (step == 0 && list == n);
            assert!(asked, "frozen: {frozen}, step {step}: {list}");
        }
        model.fold(pass.state());
        assert_eq!(calls.take(), [0, 0, 0, 0, 0, n]);
    }
    let clone = model.clone();
    drop(model);
    clone.infer(&x).unwrap();
    assert_eq!(calls.take()[FORWARD], n);
}

/// One test, since all of the program counts when a parameter is frozen.
#[test]
fn work_is_proportional_to_size() {
    a_hundred_thousand_layers_in_a_row();
    ten_thousand_branches();
    ten_thousand_nodes();
    a_thousand_containers_inside_each_other();
    deeper_nests_are_refused_and_dropped();
}

fn a_hundred_thousand_layers_in_a_row() {
    let (n, calls) = (100_000, calls());
    linear(n, calls, (0..n).fold(Sequential::new(), |model, _| model.add(counted(calls))));
}

fn ten_thousand_branches() {
    let (n, calls) = (10_000, calls());
    linear(n, calls, (0..n).fold(Parallel::sum(), |model, _| model.add(counted(calls))));
}

fn ten_thousand_nodes() {
    let (n, calls) = (10_000, calls());
    let mut graph = Graph::new();
    let mut node = graph.input("x");
    for i in 0..n {
        node = graph.add(i.to_string(), counted(calls), node);
    }
    linear(n, calls, graph);
}

/// Residual layers and branches inside each other, a counted layer on each level.
fn nest(levels: usize, calls: &'static Calls) -> BoxModule<f32> {
    (0..levels).fold(BoxModule::new(counted(calls)), |inner, i| match i % 2 {
        // x + x would grow beyond all bounds.
        0 => BoxModule::new(Parallel::concat(0).named("inner", inner)),
        _ => BoxModule::new(Sequential::new().add(counted(calls)).add(inner)),
    })
}

fn a_thousand_containers_inside_each_other() {
    let calls = calls();
    linear(1 + 1000 / 2, calls, nest(1000, calls));
    let nested = (0..1000).fold(BoxModule::new(counted(calls)), |inner, i| match i % 2 {
        0 => BoxModule::new(Residual::new(inner)),
        _ => BoxModule::new(Parallel::sum().add(inner)),
    });
    linear(1, calls, nested);
}

fn deeper_nests_are_refused_and_dropped() {
    let calls = calls();
    type Wrap = fn(BoxModule<f32>) -> BoxModule<f32>;
    let wraps: [Wrap; 4] = [
        |inner| BoxModule::new(Sequential::new().add(inner)),
        |inner| BoxModule::new(Residual::new(inner)),
        |inner| BoxModule::new(Parallel::sum().add(inner)),
        |inner| {
            let mut graph = Graph::new();
            let x = graph.input("x");
            graph.add("inner", inner, x);
            BoxModule::new(graph)
        },
    ];
    let text = &format!("expected at most {DEEPEST} containers inside each other, got more");
    for wrap in wraps {
        let model = (0..DEEPEST).fold(BoxModule::new(counted(calls)), |inner, _| wrap(inner));
        assert_eq!(model.nesting(), DEEPEST);
        let model = model.init(1).unwrap();
        let (x, mut pass) = (Tensor::from([[1.0]]), Pass::new(&model));
        pass.forward(&model, &x, Context::train(1)).unwrap();
        *pass.output_gradients_mut() = vec![Tensor::from([[1.0]])];
        pass.backward(&model, &x).unwrap();
        model.summary([1, 1]).unwrap();
        assert_eq!(model.clone().to_spec(), model.to_spec());
        assert!(model.to_string().len() > DEEPEST);
        let model = wrap(model);
        assert!(model.validate().unwrap_err().to_string().ends_with(text));
        for levels in [DEEPEST + 1, 2 * DEEPEST, 2 * DEEPEST + 1, 20_000] {
            let model = (0..levels).fold(BoxModule::new(counted(calls)), |inner, _| wrap(inner));
            for error in [
                model.validate().unwrap_err(),
                model.output_shapes(&[Shape::from([1, 1])]).unwrap_err(),
                model.infer(&x).unwrap_err(),
                model.clone().init(1).unwrap_err(),
            ] {
                assert!(error.to_string().ends_with(text), "{levels}");
            }
        }
    }
}
