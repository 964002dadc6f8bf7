//! Law 1: shapes, right and wrong.

use super::{Broken, Outcome, hold, layer::Bench, layer::contexts};
use crate::{laws::Law, subject::refs};
use chainrule_core::{Context, Grads, MultiLayer, Shape, Tensor};

/// Shapes with more elements than this are only asked about.
const VOLUME: usize = 10_000;

pub(super) fn shapes<L: MultiLayer<f64>>(bench: &Bench<'_, L>) -> Outcome {
    let want = bench.subject.shape(&bench.xs)?;
    for (mode, cx) in contexts(bench.case) {
        let pass = bench.pass(cx)?;
        if *pass.y.shape() != want {
            return Err(Broken(format!(
                "{mode}: output_shape says {want}, forward makes {}",
                pass.y.shape()
            )));
        }
        for (x, dx) in bench.xs.iter().zip(&pass.dxs) {
            if dx.shape() != x.shape() {
                return Err(Broken(format!(
                    "{mode}: expected dx of x's shape {}, got {}",
                    x.shape(),
                    dx.shape()
                )));
            }
        }
    }
    for wrong in &bench.case.wrong {
        if let Ok(shape) = output_shape(bench, wrong) {
            return Err(Broken(format!("expected {wrong:?} to be refused, got the output shape {shape}")));
        }
        consistent(bench, wrong)?;
    }
    others(&bench.case.inputs).iter().try_for_each(|inputs| {
        // A panic is told with the shape that caused it.
        let mut out = Vec::new();
        hold(Law::Shapes, &mut out, || consistent(bench, inputs));
        out.pop().map_or(Ok(()), |broken| Err(Broken(format!("input {inputs:?}: {}", broken.what))))
    })
}

fn output_shape<L: MultiLayer<f64>>(
    bench: &Bench<'_, L>,
    inputs: &[Vec<usize>],
) -> chainrule_core::Result<Shape> {
    bench.subject.0.output_shape(&inputs.iter().map(|s| &s[..]).collect::<Vec<_>>())
}

/// Forward refuses what `output_shape` refuses, and makes what it says; an empty batch gives nothing but zeros.
fn consistent<L: MultiLayer<f64>>(bench: &Bench<'_, L>, inputs: &[Vec<usize>]) -> Outcome {
    let shape = output_shape(bench, inputs);
    let small = |s: &Vec<usize>| Shape::new(s).is_ok_and(|s| s.volume() <= VOLUME);
    if !inputs.iter().all(small) || shape.as_ref().is_ok_and(|s| s.volume() > 100 * VOLUME) {
        return Ok(());
    }
    let xs = bench.case.tensors(inputs, "other shapes")?;
    for mut cx in [Context::train(1), Context::frozen(), Context::infer()] {
        let (mut y, mut cache) = (Tensor::default(), L::Cache::default());
        let made = bench.subject.0.forward(&refs(&xs), &mut y, &mut cache, &mut cx);
        match (&shape, made) {
            (Err(_), Err(_)) => {}
            (Err(error), Ok(())) => {
                return Err(Broken(format!("output_shape refuses ({error}), forward makes {}", y.shape())));
            }
            // A layer may need more values than there are: statistics of a single one.
            (Ok(_), Err(_)) => {}
            (Ok(shape), Ok(())) if shape != y.shape() => {
                return Err(Broken(format!("output_shape says {shape}, forward makes {}", y.shape())));
            }
            (Ok(_), Ok(())) if cx.recording() => {
                let (mut grads, mut dxs) = (Grads::new(&bench.subject), vec![Tensor::default(); xs.len()]);
                let dy = Tensor::full(*y.shape(), 1.0);
                bench.subject.backward((&xs, &y, &dy), &mut cache, &mut grads, &mut dxs, |_| true)?;
                if let Some((x, dx)) = xs.iter().zip(&dxs).find(|(x, dx)| x.shape() != dx.shape()) {
                    return Err(Broken(format!(
                        "expected dx of x's shape {}, got {}",
                        x.shape(),
                        dx.shape()
                    )));
                }
                if y.is_empty() && grads.values().iter().any(|&g| g != 0.0) {
                    return Err(Broken(format!(
                        "expected no gradient of an empty y, got {:?}",
                        grads.values()
                    )));
                }
            }
            (Ok(_), Ok(())) => {}
        }
    }
    Ok(())
}

/// Shapes near the right ones: an axis less or more, longer, shorter, empty, or too long for any memory; and another number
/// of inputs.
fn others(inputs: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
    let mut out = Vec::new();
    for (i, shape) in inputs.iter().enumerate() {
        let mut near = vec![vec![], vec![1; 8], vec![1; 9], vec![usize::MAX; 2]];
        near.extend(shape.len().checked_sub(1).map(|rank| shape[..rank].to_vec()));
        near.extend(shape.len().checked_sub(1).map(|_| shape[1..].to_vec()));
        near.extend([1, 2].map(|n| [&shape[..], &[n]].concat()));
        near.push([&[1], &shape[..]].concat());
        for axis in 0..shape.len() {
            for n in [shape[axis] + 1, shape[axis].saturating_sub(1), 0, usize::MAX, usize::MAX / 2] {
                let mut other = shape.clone();
                other[axis] = n;
                near.push(other);
            }
            // An empty batch of what no memory could hold.
            let mut other = vec![usize::MAX / 2; shape.len()];
            other[axis] = 0;
            near.push(other);
        }
        out.extend(near.into_iter().map(|shape| {
            let mut all = inputs.to_vec();
            all[i] = shape;
            all
        }));
    }
    out.push(Vec::new());
    out.push([inputs, inputs].concat());
    // An empty batch for all inputs together.
    out.push(
        inputs
            .iter()
            .map(|s| s.iter().enumerate().map(|(a, &n)| if a == 0 { 0 } else { n }).collect())
            .collect(),
    );
    out
}
