//! Shapes, right and wrong.

use super::{Broken, Law, Outcome, hold, layer::Subject, layer::contexts};
use crate::evaluate::{self, backward, buffers, present, refs};
use chainrule_core::{Context, Grads, Module, Result, Shape, Tensor};

/// Tensors with more elements than this are not made.
pub(super) const VOLUME: usize = 10_000;

pub(super) fn shapes<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    let (case, module) = (subject.case, &subject.module);
    let want = module.output_shapes(&evaluate::shapes(&subject.xs))?;
    for (mode, cx) in contexts(case) {
        let pass = subject.pass(cx)?;
        same_shapes(&pass.ys, &want).map_err(|Broken(what)| Broken(format!("{mode}: {what}")))?;
        shapes_of_dx(module, &subject.xs, &pass.dxs)
            .map_err(|Broken(what)| Broken(format!("{mode}: {what}")))?;
    }
    for wrong in &case.wrong {
        if let Ok(shapes) = output_shapes(module, wrong) {
            return Err(Broken(format!(
                "expected {wrong:?} to be refused, got the output shapes {}",
                list(&shapes)
            )));
        }
        consistent(subject, wrong)?;
    }
    others(&case.inputs).iter().chain([&case.batch(|_| 0)]).try_for_each(|inputs| {
        // A panic is reported with the shape that caused it.
        let mut out = Vec::new();
        hold(Law::Shapes, &mut out, || consistent(subject, inputs));
        out.pop().map_or(Ok(()), |broken| Err(Broken(format!("input {inputs:?}: {}", broken.what))))
    })
}

/// Output shapes for shapes that a tensor may not be able to have.
pub(super) fn output_shapes<M: Module>(module: &M, inputs: &[Vec<usize>]) -> Result<Vec<Shape>> {
    let inputs: Vec<Shape> = inputs.iter().map(|shape| Shape::new(shape)).collect::<Result<_>>()?;
    module.output_shapes(&inputs)
}

fn list(shapes: &[Shape]) -> String {
    shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ")
}

fn same_shapes(ys: &[Tensor<f64>], want: &[Shape]) -> Outcome {
    let got = evaluate::shapes(ys);
    if got != want {
        return Err(Broken(format!("output_shapes says {}, forward makes {}", list(want), list(&got))));
    }
    Ok(())
}

fn shapes_of_dx<M: Module<T = f64>>(module: &M, xs: &[Tensor<f64>], dxs: &[Tensor<f64>]) -> Outcome {
    for (i, (x, dx)) in xs.iter().zip(dxs).enumerate() {
        if module.differentiable_input(i) && dx.shape() != x.shape() {
            return Err(Broken(format!("expected dx{i} of x's shape {}, got {}", x.shape(), dx.shape())));
        }
    }
    Ok(())
}

fn gradients<M: Module<T = f64>>(
    module: &M,
    xs: &[Tensor<f64>],
    ys: &[Tensor<f64>],
    state: &mut M::State,
) -> Outcome {
    let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
    let ones: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
    backward(module, (xs, ys, &present(&ones)), state, &mut grads, &mut dxs, |_| true)?;
    shapes_of_dx(module, xs, &dxs)?;
    if ys.iter().all(Tensor::is_empty) && grads.values().iter().any(|&g| g != 0.0) {
        return Err(Broken(format!("expected no gradient of an empty y, got {:?}", grads.values())));
    }
    Ok(())
}

/// Forward refuses what `output_shapes` refuses, and makes what it says; an empty batch gives nothing but zeros.
fn consistent<M: Module<T = f64>>(subject: &Subject<'_, M>, inputs: &[Vec<usize>]) -> Outcome {
    let module = &subject.module;
    let shapes = output_shapes(module, inputs);
    let small = |s: &Vec<usize>| Shape::new(s).is_ok_and(|s| s.volume() <= VOLUME);
    let large = |shapes: &Vec<Shape>| shapes.iter().any(|s| s.volume() > 100 * VOLUME);
    if !inputs.iter().all(small) || shapes.as_ref().is_ok_and(large) {
        return Ok(());
    }
    let xs = subject.case.tensors(inputs, "other shapes")?;
    for cx in [Context::train(1), Context::frozen(), Context::infer()] {
        let (mut ys, mut state) = (buffers(module.outputs()), M::State::default());
        match (&shapes, module.apply(&refs(&xs), &mut ys, &mut state, cx)) {
            (Err(_), Err(_)) => {}
            (Err(error), Ok(())) => {
                return Err(Broken(format!(
                    "output_shapes refuses ({error}), forward makes {}",
                    list(&evaluate::shapes(&ys))
                )));
            }
            // A layer may need more values than there are: statistics of a single one.
            (Ok(_), Err(_)) => {}
            (Ok(shapes), Ok(())) => {
                same_shapes(&ys, shapes)?;
                if cx.recording() {
                    gradients(module, &xs, &ys, &mut state)?;
                }
            }
        }
    }
    Ok(())
}

/// Multiply-adds are proportional to the batch, none for an empty one, and defined for every shape that is accepted.
pub(super) fn cost<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    let (case, module) = (subject.case, &subject.module);
    let cost = |inputs: &[Vec<usize>]| -> Option<u64> {
        output_shapes(module, inputs).ok()?;
        let inputs: Vec<Shape> = inputs.iter().map(|shape| Shape::new(shape)).collect::<Result<_>>().ok()?;
        Some(module.cost(&inputs))
    };
    let Some(once) = cost(&case.inputs) else { return Ok(()) };
    for times in [0, 2, 3] {
        let batch = case.batch(|n| n * times);
        let want = once * times as u64;
        if let Some(got) = cost(&batch).filter(|&got| got != want) {
            return Err(Broken(format!(
                "expected {want} multiply-adds of inputs {batch:?}, {times} times the {once} of {:?}, got {got}",
                case.inputs
            )));
        }
    }
    // As large as a tensor may be: each axis, and the batch of all inputs together.
    let most = isize::MAX as usize / 8;
    let volume = case.inputs.iter().map(|s| s.iter().product::<usize>()).max().unwrap_or(1).max(1);
    let mut large = vec![case.batch(|n| most / volume * n)];
    for (i, shape) in case.inputs.iter().enumerate() {
        for axis in 0..shape.len() {
            let mut inputs = case.inputs.clone();
            inputs[i][axis] *= most / volume;
            large.push(inputs);
        }
    }
    for inputs in others(&case.inputs).into_iter().chain(large) {
        let (mut out, mut got) = (Vec::new(), None);
        hold(Law::Cost, &mut out, || {
            got = cost(&inputs);
            Ok(())
        });
        if let Some(broken) = out.pop() {
            return Err(Broken(format!("inputs {inputs:?}: {}", broken.what)));
        }
        let larger = inputs
            .iter()
            .zip(&case.inputs)
            .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a >= b));
        if let Some(got) = got.filter(|&got| larger && inputs.len() == case.inputs.len() && got < once) {
            return Err(Broken(format!(
                "expected at least the {once} multiply-adds of {:?} for the larger {inputs:?}, got {got}",
                case.inputs
            )));
        }
    }
    Ok(())
}

/// Shapes near the right ones: an axis less or more, longer, shorter, empty, or too long for any memory; and another number
/// of inputs.
pub(super) fn others(inputs: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
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
    out
}
