//! Attribution and the teaching mode take every module of the registry.

use chainrule::{core::Example, prelude::*, teach::Lesson, train::attribution::Saliency};

/// Inputs of an example.
fn inputs(example: &Example) -> Vec<Tensor> {
    let value = |i: usize| match (example.ids, example.range) {
        (Some(bound), _) => (i % bound) as f32,
        (None, Some([low, high])) => (low + (high - low) * ((i as f64 * 0.37).fract())) as f32,
        _ => (i as f32 * 0.7).sin(),
    };
    example.inputs.iter().map(|&shape| Tensor::from_fn(shape, value)).collect()
}

fn examples() -> Vec<Example> {
    let registry = chainrule::registry::<f32>();
    registry.modules().flat_map(|entry| (entry.examples)()).filter(|example| !example.bench).collect()
}

#[test]
fn every_module_with_a_derivative_is_explained() {
    let (registry, mut explained) = (chainrule::registry::<f32>(), 0);
    for example in examples() {
        let (xs, spec) = (inputs(&example), &example.spec);
        let model = registry.build_module(spec).unwrap().init(1).unwrap();
        let samples = xs[0].shape().first().copied().unwrap_or(0);
        // The sum of a sample's outputs; of outputs without a batch axis the first sample has all.
        let sums = |ys: &[Tensor], dys: &mut [Tensor]| {
            let mut scores = vec![0.0; samples];
            for (y, dy) in ys.iter().zip(dys) {
                dy.fill(1.0);
                match y.shape().first() {
                    Some(&n) if n == samples => {
                        (0..n).for_each(|i| scores[i] += y.row(i).iter().sum::<f32>())
                    }
                    _ => scores[0] += y.sum(),
                }
            }
            Ok(scores)
        };
        let result = Saliency::new().attribute(&model, &xs, sums);
        let any = (0..xs.len()).any(|i| model.differentiable_input(i));
        match result {
            Ok(map) => {
                for (i, x) in xs.iter().enumerate() {
                    let own = map.input(i).map(|map| map.shape());
                    assert_eq!(own, model.differentiable_input(i).then_some(x.shape()), "{spec}");
                }
                explained += 1;
            }
            Err(error) if !any || samples == 0 => {
                assert!(error.to_string().contains("expected"), "{spec}: {error}")
            }
            Err(error) => panic!("{spec}: {error}"),
        }
    }
    assert!(explained > 200, "{explained}");
}

#[test]
fn every_layer_is_told() {
    let (registry, mut told) = (chainrule::registry::<f32>(), 0);
    for example in examples() {
        let (xs, spec) = (inputs(&example), &example.spec);
        let module = registry.build_module(spec).unwrap();
        if module.inputs() != 1 || module.outputs() != 1 {
            continue;
        }
        let mut model = Sequential::new().named("it", module).init(1).unwrap();
        let shape = model.output_shapes(&[*xs[0].shape()]).unwrap()[0];
        let (t, mut sgd) = (Tensor::full(shape, 0.25), Sgd::new(0.01));
        let text = Lesson::new().step(&mut model, &Mse::new(), &mut sgd, &xs[0], &t, Context::train(1));
        let text = text.unwrap_or_else(|error| panic!("{spec}: {error}"));
        let alone = spec.children().is_empty() && spec.kind() != "Sequential";
        assert!(!alone || text.contains(&format!("it  {}: y = ", spec.kind())), "{spec}: {text}");
        told += 1;
    }
    assert!(told > 150, "{told}");
}
