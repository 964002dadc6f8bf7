//! A part of a model that is not trained: frozen, and in the inference function.

use chainrule::prelude::*;

fn model() -> Sequential {
    let backbone = Sequential::new()
        .add(Linear::new(3, 4))
        .add(BatchNorm1d::new(4))
        .add(Relu::new())
        .add(Dropout::new(0.5));
    let head = Sequential::new().add(BatchNorm1d::new(4)).add(Dropout::new(0.5)).add(Linear::new(4, 2));
    Sequential::new().named("backbone", backbone).named("head", head).init(1).unwrap()
}

fn data(n: usize) -> (Tensor, Vec<usize>) {
    let x = Tensor::from_fn([n, 3], |i| (i as f32 * 0.7).sin() + 0.3);
    (x, (0..n).map(|i| i % 2).collect())
}

/// The values by path.
fn values(model: &impl Parameters<T = f32>) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    model.visit(&mut |path, p| all.push((path.to_string(), p.value().unwrap().to_vec())));
    all
}

/// The paths of what differs.
fn changed(before: &[(String, Vec<f32>)], after: &[(String, Vec<f32>)]) -> Vec<String> {
    before.iter().zip(after).filter(|(a, b)| a != b).map(|(a, _)| a.0.clone()).collect()
}

#[test]
fn fine_tuning_with_frozen_statistics() {
    let mut model = model();
    model.set_frozen(true, &|path| path.starts_with("backbone."));
    model.set_mode("backbone", Mode::Inference).unwrap();
    let (x, labels) = data(16);
    let before = values(&model);
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Sgd::new(0.1));
    for _ in 0..3 {
        trainer.step(&x, &labels).unwrap();
    }
    let head = [
        "head.0.weight",
        "head.0.bias",
        "head.0.running_mean",
        "head.0.running_var",
        "head.0.num_batches_tracked",
        "head.2.weight",
        "head.2.bias",
    ];
    let after = values(trainer.model());
    assert_eq!(changed(&before, &after), head);
    // Back in training, and frozen still: the statistics alone move.
    trainer.model_mut().set_mode("backbone", Mode::Training).unwrap();
    trainer.step(&x, &labels).unwrap();
    let statistics = changed(&after, &values(trainer.model()));
    let backbone: Vec<_> = statistics.iter().filter(|path| path.starts_with("backbone")).collect();
    assert_eq!(
        backbone,
        ["backbone.1.running_mean", "backbone.1.running_var", "backbone.1.num_batches_tracked"]
    );
}

/// The output of a part in inference, in a training pass, is that of inference; the rest draws its noise.
#[test]
fn a_part_in_inference_computes_its_inference_function() {
    let (x, _) = data(8);
    let part = || {
        let body =
            Sequential::<f32>::new().add(Linear::new(3, 3)).add(BatchNorm1d::new(3)).add(Dropout::new(0.5));
        Sequential::new().named("body", body)
    };
    let graph = || {
        let mut graph = Graph::new();
        let x = graph.input("x");
        let once = graph.add("part", part(), x);
        let twice = graph.again("part", once);
        graph.add("sum", Add::new(), [once, twice]);
        graph
    };
    let models: [(&str, &[&str], Sequential); 5] = [
        ("sequential", &["part", "part.body", "part.body."], Sequential::new().named("part", part())),
        ("residual", &["part", "part.body"], Sequential::new().named("part", Residual::new(part()))),
        (
            "parallel",
            &["both", "both.part", "both.part.body"],
            Sequential::new().named("both", Parallel::sum().named("part", part())),
        ),
        ("graph", &["graph", "graph.part", "graph.part.body"], Sequential::new().named("graph", graph())),
        (
            "nested residual",
            &["part.body"],
            Sequential::new().named("part", Residual::new(Residual::new(part()))),
        ),
    ];
    for (what, paths, model) in models {
        let model = model.init(1).unwrap();
        let want = model.infer(&x).unwrap();
        for path in paths.iter().chain(&[""]) {
            let mut model = model.clone();
            let run = |model: &Sequential| {
                let mut pass = Pass::new(model);
                pass.forward(model, &x, Context::train(1)).unwrap().clone()
            };
            let trained = run(&model);
            model.set_mode(path, Mode::Inference).unwrap();
            assert_eq!(run(&model), want, "{what}: `{path}`");
            let mut clone = model.clone();
            assert_eq!(run(&clone), want, "{what}: a clone of `{path}`");
            // All parts follow the pass again, those inside too.
            clone.set_mode("", Mode::Training).unwrap();
            assert_eq!(run(&clone), trained, "{what}: `{path}` and back");
            assert_eq!(model.to_spec(), clone.to_spec(), "it is no part of the architecture");
        }
    }
    let mut outermost = Residual::new(part()).init(1).unwrap();
    let want = outermost.infer(&x).unwrap();
    outermost.set_mode("", Mode::Inference).unwrap();
    assert_eq!(Pass::new(&outermost).forward(&outermost, &x, Context::train(1)).unwrap(), &want);
}

/// Gradients go through a part in inference: those of the inference function.
#[test]
fn gradients_go_through_a_part_in_inference() {
    let body = Sequential::<f64>::of().add(Linear::new(3, 4)).add(BatchNorm1d::new(4)).add(Tanh::new());
    let mut model = Sequential::of().named("body", body).named("head", Linear::new(4, 2)).init(1).unwrap();
    model.set_mode("body", Mode::Inference).unwrap();
    let x = Tensor::from([[0.5, -1.0, 2.0], [0.1, 0.7, -3.0]]);
    let run = |cx: Context| {
        let mut pass = Pass::new(&model);
        pass.forward(&model, &x, cx).unwrap();
        *pass.output_gradients_mut() = vec![Tensor::from([[1.0, 2.0], [3.0, -1.0]])];
        pass.backward(&model, &x).unwrap();
        pass.grads().values().to_vec()
    };
    assert_eq!(run(Context::train(1)), run(Context::frozen()));
}

#[test]
fn a_path_without_a_part_is_an_error_that_names_it() {
    let mut model = model();
    for (path, text) in [
        ("back", "Sequential: expected the name of a part, got `back`"),
        ("backbone.9", "in layer `backbone`: Sequential: expected the name of a part, got `9`"),
        (
            "backbone.0.weight",
            "in layer `backbone.0`: Linear: expected the path of a part, got `weight` where there are none",
        ),
    ] {
        assert_eq!(model.set_mode(path, Mode::Inference).unwrap_err().to_string(), text);
    }
    let mut layer: Linear = Linear::new(2, 2);
    assert!(layer.set_mode("", Mode::Inference).is_err() && layer.set_mode("", Mode::Training).is_ok());
}

#[test]
fn a_part_starts_anew_by_another_initialiser() {
    let mut model = model();
    let before = values(&model);
    let head = |path: &str| path.starts_with("head.") && path.ends_with(".weight");
    assert_eq!(model.init_where(7, Init::Constant(0.25), &head).unwrap(), 2);
    assert_eq!(changed(&before, &values(&model)), ["head.0.weight", "head.2.weight"]);
    model.init_where(7, Init::Normal { mean: 0.0, std: 1.0 }, &head).unwrap();
    let again = values(&model);
    model.init_where(7, Init::Normal { mean: 0.0, std: 1.0 }, &|path| path == "head.2.weight").unwrap();
    assert_eq!(values(&model), again, "a stream for each path");
    assert!(model.init_where(7, Init::Constant(f64::NAN), &|_| true).is_err());
    assert_eq!((values(&model), model.init_where(7, Init::ONES, &|_| false).unwrap()), (again, 0));
}
