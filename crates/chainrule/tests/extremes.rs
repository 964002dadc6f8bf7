//! Losses at extreme values: ±1e4, ±1e30, ±∞, one class, nothing to compare with. Where PyTorch has a number it is ours, and nowhere
//! is there NaN where the same loss in f64 has a number.

use chainrule::{
    core::{Classes, Example, Objective, Spec, Target, Targets, Value},
    prelude::*,
};
use std::collections::{BTreeMap, BTreeSet};

/// The spec with an attribute set to another value.
fn with(spec: &Spec, name: &str, value: impl Into<Value>) -> Spec {
    let others = spec.attributes().iter().filter(|(other, _)| other != name);
    let new =
        others.fold(Spec::new(spec.kind()), |new, (name, value)| new.with(name.as_str(), value.clone()));
    let new = new.with(name, value);
    spec.children().iter().fold(new, |new, (name, child)| new.child(name.as_str(), child.clone()))
}

fn build<T: Scalar>(spec: &Spec) -> Box<dyn Objective<T = T>> {
    chainrule_parity::registry::<T>().build_loss(spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// A tensor of the file: its shape, a colon, its values.
fn tensor(text: &str) -> Tensor {
    let (shape, values) = text.split_once(':').unwrap();
    let axes: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
    Tensor::from_vec(
        Shape::new(&axes).unwrap(),
        values.split_whitespace().map(|v| v.parse().unwrap()).collect(),
    )
    .unwrap()
}

/// A case that PyTorch has computed.
struct Known {
    class: String,
    attributes: Vec<(String, Value)>,
    ys: Vec<Tensor>,
    target: Option<Targets<f32>>,
    each: Tensor,
    gradients: Vec<Tensor>,
}

impl Known {
    fn new(line: &str) -> Self {
        let mut parts = line.split(" | ").map(str::trim);
        let class = parts.next().unwrap().to_owned();
        let attributes = parts.next().unwrap().split_whitespace();
        let attributes = attributes.map(|text| {
            let (name, value) = text.split_once('=').unwrap();
            let number = |text: &str| Value::from(text.parse::<f64>().unwrap());
            let value = match value {
                "True" | "False" => Value::from(value == "True"),
                list if list.contains('/') => list.split('/').map(number).collect::<Vec<_>>().into(),
                text => text.parse::<i64>().map_or_else(|_| number(text), Value::Int),
            };
            (name.to_owned(), value)
        });
        let attributes = attributes.collect();
        let mut known = Self {
            class,
            attributes,
            ys: Vec::new(),
            target: None,
            each: Tensor::default(),
            gradients: Vec::new(),
        };
        for part in parts {
            match part.split_once(' ') {
                Some(("t", text)) => known.target = Some(Targets::Values(tensor(text))),
                Some(("c", text)) => {
                    let classes = tensor(text);
                    let index = |&c: &f32| if c < 0.0 { Classes::IGNORED } else { c as usize };
                    let indices = classes.data().iter().map(index).collect();
                    known.target = Some(Targets::Classes { indices, shape: *classes.shape() });
                }
                Some(("e", text)) => known.each = tensor(text),
                Some(("g", text)) => known.gradients.push(tensor(text)),
                _ => known.ys.push(tensor(part)),
            }
        }
        known
    }

    fn loss(&self, reduction: &str) -> (Spec, Box<dyn Objective<T = f32>>) {
        let registry = chainrule_parity::registry::<f32>();
        let kind =
            registry.losses().find(|entry| entry.facts.torch == Some(&*self.class)).unwrap().facts.kind;
        let spec = Spec::new(kind).with("reduction", reduction);
        let spec =
            self.attributes.iter().fold(spec, |spec, (name, value)| spec.with(name.as_str(), value.clone()));
        let loss = build(&spec);
        (spec, loss)
    }

    /// Row i alone.
    fn row(&self, i: usize) -> (Vec<Tensor>, Option<Targets<f32>>) {
        let ys = self.ys.iter().map(|y| y.rows(i, i + 1)).collect();
        let target = self.target.as_ref().map(|target| match target {
            Targets::Values(t) => Targets::Values(t.rows(i, i + 1)),
            Targets::Classes { indices, shape } => {
                let each = indices.len() / shape[0];
                Targets::Classes { indices: indices[i * each..][..each].to_vec(), shape: shape.with(0, 1) }
            }
            other => other.clone(),
        });
        (ys, target)
    }
}

/// The loss, and the gradients: of one pass and by themselves.
fn passes<T: Scalar>(
    loss: &dyn Objective<T = T>,
    ys: &[Tensor<T>],
    targets: &[Targets<T>],
) -> Result<(Tensor<T>, Vec<[Tensor<T>; 2]>)> {
    let (ys, targets): (Vec<_>, Vec<Target<'_, T>>) =
        (ys.iter().collect(), targets.iter().map(Target::from).collect());
    let (mut e, mut apart, mut fused) =
        (Tensor::default(), vec![Tensor::default(); ys.len()], vec![Tensor::default(); ys.len()]);
    loss.evaluate(&ys, &targets, &mut e)?;
    let ones = Tensor::full(*e.shape(), T::ONE);
    loss.differentiate(&ys, &targets, &ones, &mut apart.iter_mut().map(Some).collect::<Vec<_>>())?;
    match loss.value_and_gradients(&ys, &targets, &mut fused) {
        Ok(_) => {}
        Err(_) if !e.shape().is_empty() => fused = apart.clone(), // not reduced
        Err(error) => return Err(error),
    }
    Ok((e, apart.into_iter().zip(fused).map(|(a, b)| [a, b]).collect()))
}

/// The same number, where there is one. `size` is that of what PyTorch takes differences of in f32.
fn agrees(got: f32, want: f32, size: f32) -> bool {
    want.is_nan() || got == want || (got - want).abs() <= 2e-5 * want.abs().max(1.0) + 4e-7 * size
}

#[test]
fn where_pytorch_has_a_number_it_is_ours() {
    let known: Vec<Known> =
        include_str!("extremes.txt").lines().filter(|line| !line.starts_with('#')).map(Known::new).collect();
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for case in &known {
        let targets: Vec<Targets<f32>> = case.target.iter().cloned().collect();
        let rows = case.ys[0].shape()[0];
        // Of all rows, or of one. Where PyTorch's loss of a row is NaN, its gradient is of no use.
        let mut compare = |what: &str, spec: &Spec, row: Option<usize>, got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len(), "{spec}: {what}");
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let row = row.unwrap_or(i * rows / want.len());
                let ys: Vec<&[f32]> = case.ys.iter().map(|y| y.row(row)).collect();
                let sizes = ys.iter().copied().flatten().map(|y| y.abs()).filter(|size| *size < 1e5);
                let useless = case.each.data()[row * case.each.len() / rows].is_nan();
                if !useless && !agrees(g, w, sizes.fold(0.0, f32::max)) {
                    let all = wrong.entry(format!("{spec}: {what}")).or_default();
                    all.push(format!("{g} for {w}, of {ys:?}"));
                }
            }
        };
        let (spec, loss) = case.loss("none");
        let (e, gradients) = passes(&*loss, &case.ys, &targets).unwrap();
        compare("loss", &spec, None, e.data(), case.each.data());
        for (got, want) in gradients.iter().zip(&case.gradients) {
            compare("gradient of each", &spec, None, got[0].data(), want.data());
        }
        let (spec, loss) = case.loss("sum");
        let (_, gradients) = passes(&*loss, &case.ys, &targets).unwrap();
        for (got, want) in gradients.iter().zip(&case.gradients) {
            compare("gradient of the sum", &spec, None, got[0].data(), want.data());
            compare("gradient of the sum in one pass", &spec, None, got[1].data(), want.data());
        }
        // The mean of one row is its loss, unless it has a weight or is ignored.
        if case.attributes.iter().any(|(name, _)| name == "weight" || name == "ignore_index") {
            continue;
        }
        let (spec, loss) = case.loss("mean");
        for i in 0..rows {
            let (ys, target) = case.row(i);
            let (e, gradients) = passes(&*loss, &ys, &target.into_iter().collect::<Vec<_>>()).unwrap();
            let want = case.each.len() / rows;
            compare("loss of one row", &spec, Some(i), e.data(), &case.each.data()[i * want..][..1]);
            for (got, want) in gradients.iter().zip(&case.gradients) {
                let width = want.len() / rows;
                let want = &want.data()[i * width..][..width];
                compare("gradient of one row", &spec, Some(i), got[0].data(), want);
                compare("gradient of one row in one pass", &spec, Some(i), got[1].data(), want);
            }
        }
    }
    wrong.values_mut().for_each(|all| all.truncate(3));
    assert!(wrong.is_empty(), "{wrong:#?}");
    // CTC has frames and sequences: tests of its own.
    let covered: BTreeSet<&str> = known.iter().map(|case| &*case.class).chain(["CTCLoss"]).collect();
    let registry = chainrule_parity::registry::<f32>();
    let all: BTreeSet<&str> = registry.losses().filter_map(|entry| entry.facts.torch).collect();
    assert_eq!(covered, all);
}

/// Predictions of an example that go through the values, from another one on each time.
fn filled<T: Scalar>(example: &Example, values: &[f64], from: usize) -> Vec<Tensor<T>> {
    // In no order that repeats with the rows.
    let value = |input: usize, i: usize| values[(from + 3 * input + i + i / values.len()) % values.len()];
    let tensors = example.inputs.iter().enumerate();
    tensors.map(|(input, shape)| Tensor::from_fn(*shape, |i| T::from_f64(value(input, i)))).collect()
}

fn small() -> Vec<Example> {
    let registry = chainrule_parity::registry::<f32>();
    let examples = registry.losses().flat_map(|entry| (entry.examples)());
    examples.filter(|example| !example.bench).collect()
}

/// Finite values: f64 has numbers for all that is a number.
#[test]
fn where_f64_has_a_number_there_is_no_nan() {
    const VALUES: [f64; 7] = [0.0, 1e4, -1e30, 1.0, 1e30, -1e4, 0.5];
    for example in small() {
        for reduction in ["mean", "sum", "none"] {
            let spec = match example.spec.children() {
                [] => with(&example.spec, "reduction", reduction),
                _ => example.spec.clone(),
            };
            for from in 0..VALUES.len() {
                let single =
                    passes(&*build::<f32>(&spec), &filled(&example, &VALUES, from), &example.loss_targets());
                let double =
                    passes(&*build::<f64>(&spec), &filled(&example, &VALUES, from), &example.loss_targets());
                let (Ok((e, gradients)), Ok((want_e, wanted))) = (single, double) else { continue };
                let compare = |what: &str, got: &Tensor, want: &Tensor<f64>| {
                    for (i, (got, want)) in got.data().iter().zip(want.data()).enumerate() {
                        assert!(
                            !got.is_nan() || want.is_nan(),
                            "{spec}, from {from}: {what} {i}: NaN for {want}"
                        );
                    }
                };
                compare("loss", &e, &want_e);
                for (got, want) in gradients.iter().zip(&wanted) {
                    compare("gradient", &got[0], &want[0]);
                    compare("gradient of one pass", &got[1], &want[1]);
                }
            }
        }
    }
}

/// ±∞ and NaN give a value or an error, never a panic.
#[test]
fn infinities_give_a_value_or_an_error() {
    const VALUES: [f64; 5] = [f64::INFINITY, 0.5, f64::NEG_INFINITY, 1e30, f64::NAN];
    for example in small() {
        for from in 0..VALUES.len() {
            let _ = passes(
                &*build::<f32>(&example.spec),
                &filled(&example, &VALUES, from),
                &example.loss_targets(),
            );
        }
    }
}

/// Targets without a sample.
fn none_of<T: Scalar>(targets: Vec<Targets<T>>) -> Vec<Targets<T>> {
    let none = |target: Targets<T>| match target {
        Targets::Values(t) if t.shape().is_empty() => Targets::Values(t),
        Targets::Values(t) => Targets::Values(t.rows(0, 0)),
        Targets::Classes { shape, .. } if !shape.is_empty() => {
            Targets::Classes { indices: Vec::new(), shape: shape.with(0, 0) }
        }
        Targets::Sequences { .. } => Targets::Sequences { indices: Vec::new(), lengths: Vec::new() },
        other => other,
    };
    targets.into_iter().map(none).collect()
}

/// The sum over nothing is 0, and its gradients are empty; or a batch without samples is refused.
#[test]
fn a_batch_without_samples_gives_zero_or_an_error() {
    let mut zeros = 0;
    for example in small().iter().filter(|example| example.spec.children().is_empty()) {
        // The batch of CTC is the second axis.
        let axis = usize::from(example.spec.kind() == "Ctc");
        if example.inputs.iter().any(|shape| shape.len() <= axis) {
            continue;
        }
        let ys: Vec<Tensor> = example.inputs.iter().map(|shape| Tensor::zeros(shape.with(axis, 0))).collect();
        let targets = none_of(example.loss_targets());
        for reduction in ["mean", "sum", "none"] {
            let spec = with(&example.spec, "reduction", reduction);
            let Ok((e, gradients)) = passes(&*build::<f32>(&spec), &ys, &targets) else { continue };
            assert!(gradients.iter().flatten().all(|g| g.is_empty()), "{spec}");
            match reduction {
                "sum" => assert_eq!(e.data(), [0.0], "{spec}"),
                "none" => assert!(e.is_empty(), "{spec}: {e:?}"),
                _ => assert!(e.data()[0].is_nan() || e.data()[0] == 0.0, "{spec}: {e:?}"), // PyTorch's is NaN
            }
            zeros += 1;
        }
    }
    assert!(zeros > 60, "{zeros}");
}
