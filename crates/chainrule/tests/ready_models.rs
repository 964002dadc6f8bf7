//! The ready models of sequences print as trees, have specs, and come back from a model file without their code.

use chainrule::{
    io::{model_from_bytes, model_to_bytes},
    models::{Bert, CharLstm, Gpt, GruClassifier, LstmClassifier, VisionTransformer},
    prelude::*,
    registry,
};
use std::fmt::Display;

/// Through a model file and back: the same spec, names, outputs and gradients.
fn round_trip<M: Module<T = f32> + Clone + Display + 'static>(
    name: &str,
    model: M,
    xs: &[Tensor],
    parts: &[&str],
) {
    let text = model.to_string();
    for part in parts {
        assert!(text.contains(part), "{name}: expected {part} in\n{text}");
    }
    assert!(text.lines().count() > parts.len(), "{name}: expected a tree, got\n{text}");
    let mut model = model.init(5).unwrap();
    model.visit_mut(&mut |path, p| {
        let shift = path.to_string().len() as f32 / 1e3;
        p.value_mut().unwrap().iter_mut().for_each(|v| *v += shift);
    });
    let spec = model.to_spec();
    assert_eq!(registry::<f32>().build_module(&spec).unwrap().to_spec(), spec, "{name}");

    let bytes = model_to_bytes(&model).unwrap();
    let again = model_from_bytes(&registry::<f32>(), &bytes).unwrap();
    assert_eq!(again.to_spec(), spec, "{name}");
    assert_eq!(model_to_bytes(&again).unwrap(), bytes, "{name}: other bytes the second time");
    let names = |model: &dyn Fn(&mut dyn FnMut(String))| {
        let mut names = Vec::new();
        model(&mut |name| names.push(name));
        names
    };
    let before = names(&|f| model.visit(&mut |path, _| f(path.to_string())));
    assert_eq!(before, names(&|f| again.visit(&mut |path, _| f(path.to_string()))), "{name}");
    assert_eq!(model.infer_all(xs).unwrap(), again.infer_all(xs).unwrap(), "{name}: other outputs");

    fn gradients<M: Module<T = f32>>(model: &M, xs: &[Tensor]) -> Vec<f32> {
        let mut pass = Pass::new(model);
        pass.forward(model, xs, Context::train(3)).unwrap();
        let shape = *pass.outputs()[0].shape();
        let dys = pass.output_gradients_mut();
        dys.resize_with(1, Tensor::default);
        dys[0].reset(shape).iter_mut().enumerate().for_each(|(i, dy)| *dy = (i % 3) as f32 - 1.0);
        pass.backward(model, xs).unwrap();
        pass.grads().values().to_vec()
    }
    assert_eq!(gradients(&model, xs), gradients(&again, xs), "{name}: other gradients");
}

fn ids(n: usize, t: usize, bound: usize) -> Tensor {
    Tensor::from_fn([n, t], |i| (i * 5 % bound) as f32)
}

#[test]
fn char_lstm() {
    let model = CharLstm { layers: 2, dropout: 0.2, ..CharLstm::new(11, 6) }.build();
    round_trip("CharLstm", model, &[ids(2, 7, 11)], &["Sequential(", "(lstm): Lstm(", "(fc): Linear("]);
}

#[test]
fn lstm_classifier() {
    for (mean, bidirectional) in [(false, true), (true, false)] {
        let model = LstmClassifier { layers: 2, mean, bidirectional, ..LstmClassifier::new(11, 5, 6, 3) };
        round_trip(
            "LstmClassifier",
            model.build(),
            &[ids(2, 7, 11)],
            &["(embedding): Embedding(", "(lstm): Lstm("],
        );
    }
}

#[test]
fn gru_classifier() {
    let model = GruClassifier { layers: 2, bidirectional: true, ..GruClassifier::new(3, 5, 4) }.build();
    let x = Tensor::from_fn([2, 6, 3], |i| i as f32 / 20.0 - 1.0);
    round_trip("GruClassifier", model, &[x, Tensor::from([6.0, 4.0])], &["Graph(", "Gru(", "Linear("]);
}

#[test]
fn gpt() {
    for (tied, recompute) in [(true, false), (false, true)] {
        let model = Gpt { layers: 3, tied, recompute, dropout: 0.1, ..Gpt::new(11, 9, 8, 2) }.build();
        let parts = [
            "Gpt(vocab=11, context=9, embed=8, heads=2, layers=3",
            "(transformer.wte): Embedding(",
            "(transformer.h.2): TransformerEncoderLayer(",
        ];
        round_trip("Gpt", model, &[ids(2, 7, 11)], &parts);
    }
}

#[test]
fn bert() {
    let model = Bert { layers: 2, ..Bert::new(11, 9, 8, 2, 3) }.build();
    let mask = Tensor::from_fn([2, 7], |i| if i % 7 < 5 { 1.0 } else { 0.0 });
    let parts = ["Graph(", "bert.encoder.layer.1", "Renamed(names=bert", "TransformerEncoderLayer("];
    round_trip("Bert", model, &[ids(2, 7, 11), Tensor::zeros([2, 7]), mask], &parts);
}

#[test]
fn vision_transformer() {
    for class_token in [true, false] {
        let vit = VisionTransformer::new(2, [8, 8], 4, 6, 2, 3);
        let model = VisionTransformer { layers: 2, class_token, ..vit }.build();
        let x = Tensor::from_fn([2, 2, 8, 8], |i| (i % 17) as f32 / 9.0 - 1.0);
        let parts =
            ["(pos_embed): LearnedTokens(", "(blocks.1): Renamed(names=timm", "TransformerEncoderLayer("];
        round_trip("VisionTransformer", model, &[x], &parts);
    }
}

/// The kinds that ready models need, each from its own examples; settings that make no sense are errors.
#[test]
fn kinds_of_ready_models_are_built_from_their_specs() {
    let registry = registry::<f32>();
    for entry in chainrule::models::registry::<f32>().modules() {
        for example in (entry.examples)() {
            let model = registry.build_module(&example.spec).unwrap();
            assert_eq!(model.to_spec(), example.spec);
            let model = model.init(1).unwrap();
            let xs: Vec<Tensor> = example
                .inputs
                .iter()
                .map(|shape| Tensor::from_fn(*shape, |i| (i % example.ids.unwrap_or(7)) as f32))
                .collect();
            model.infer_all(&xs).unwrap();
        }
    }
    let refused = |spec: Spec, text: &str| {
        let error =
            registry.build_module(&spec).and_then(|model| model.init(1)).map(drop).unwrap_err().to_string();
        assert!(error.contains(text), "{spec}: {error}");
    };
    let gpt = |sizes: [i64; 5]| {
        let names = ["vocab", "context", "embed", "heads", "layers"];
        names.iter().zip(sizes).fold(Spec::new("Gpt"), |spec, (name, size)| spec.with(*name, size))
    };
    refused(gpt([6, 8, 4, 2, 0]), "expected 1 to 4096 layers, got 0");
    refused(gpt([6, 8, 4, 2, i64::MAX]), "expected 1 to 4096 layers");
    refused(gpt([6, 8, 5, 2, 1]), "expected nhead that divides d_model 5, got 2");
    refused(gpt([0, 8, 4, 2, 1]), "transformer.wte");
    refused(gpt([6, i64::MAX, 4, 2, 1]), "transformer.wpe");
    refused(gpt([6, 8, -4, 2, 1]), "embed");
    refused(Spec::new("LearnedTokens").with("count", 0).with("dim", 3), "expected from 1 to");
    refused(Spec::new("LearnedTokens").with("count", i64::MAX).with("dim", i64::MAX), "expected from 1 to");
    let layer = || Spec::new("TransformerEncoderLayer").with("d_model", 4).with("nhead", 2);
    refused(Spec::new("Renamed").with("names", "other").child("inner", layer()), "expected names of one of");
    refused(Spec::new("Renamed").with("names", "timm"), "expected one child");
    refused(
        Spec::new("Renamed").with("names", "timm").child("inner", Spec::new("Relu")),
        "expected one child",
    );
}
