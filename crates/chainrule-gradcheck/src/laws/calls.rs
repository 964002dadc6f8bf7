//! Laws about calls of backward that are incomplete or do not fit the recorded pass.

use super::{
    Broken, Outcome,
    layer::{Subject, filled},
    passes::{all_equal, equal, equal_grads, refused_or_right},
    shapes::{VOLUME, others, output_shapes},
};
use crate::evaluate::{self, backward, buffers, forward, present, refs};
use chainrule_core::{Context, Grads, Module, Shape, Tensor};

pub(super) fn absent_gradients<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    let zeros: Vec<_> = dys.iter().map(|dy| Tensor::zeros(*dy.shape())).collect();
    // ∂E/∂θ is added to what is there, dx overwrites it.
    let gradients = |dys: &[Option<&Tensor<f64>>]| {
        let (ys, mut state) = forward(module, xs, cx)?;
        let mut grads = Grads::new(module);
        grads.values_mut().fill(0.5);
        let mut dxs: Vec<_> =
            (0..xs.len())
                .map(|i| {
                    if module.differentiable_input(i) {
                        Tensor::full([3], f64::NAN)
                    } else {
                        Tensor::default()
                    }
                })
                .collect();
        backward(module, (xs, &ys, dys), &mut state, &mut grads, &mut dxs, |_| true)?;
        // 0 · w + 0 · v may be 0 or −0.
        dxs.iter_mut().for_each(|dx| dx.data_mut().iter_mut().for_each(|v| *v += 0.0));
        Ok::<_, Broken>((dxs, grads))
    };
    for mask in absences(dys.len()) {
        let given: Vec<_> = dys.iter().zip(&mask).map(|(dy, &given)| given.then_some(dy)).collect();
        let filled: Vec<_> = given.iter().zip(&zeros).map(|(dy, zeros)| Some(dy.unwrap_or(zeros))).collect();
        let ((dxs, grads), (want_dxs, want_grads)) = (gradients(&given)?, gradients(&filled)?);
        let when = format!("with ∂E/∂y present: {mask:?}");
        all_equal(&format!("dx {when}"), &dxs, &want_dxs)?;
        equal_grads(&format!("gradients {when}"), &grads, &want_grads)?;
        if mask.iter().any(|&present| present) {
            continue;
        }
        for (i, (x, dx)) in xs.iter().zip(&dxs).enumerate() {
            if module.differentiable_input(i) {
                equal(&format!("dx{i} without any ∂E/∂y"), dx, &Tensor::zeros(*x.shape()))?;
            }
        }
        if grads.values().iter().any(|&g| g != 0.5) {
            return Err(Broken("expected no gradient of a parameter without any ∂E/∂y".into()));
        }
    }
    Ok(())
}

/// Which ∂E/∂y are present: every combination of few outputs, of many none, each alone and all but each.
fn absences(outputs: usize) -> Vec<Vec<bool>> {
    if outputs <= 3 {
        let combinations = 0..1usize << outputs;
        return combinations.map(|bits| (0..outputs).map(|j| bits >> j & 1 == 1).collect()).collect();
    }
    let alone = |present: bool| move |k: usize| (0..outputs).map(|j| (j == k) == present).collect();
    let mut all = vec![vec![false; outputs]];
    all.extend((0..outputs).map(alone(true)));
    all.extend((0..outputs).map(alone(false)));
    all
}

pub(super) fn wrong_calls<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    let (ys, _) = forward(module, xs, cx)?;
    let refused = |what: &str, xs: &[Tensor<f64>], ys: &[Tensor<f64>], dys: &[Tensor<f64>]| {
        let (_, mut state) = forward(module, &subject.xs, cx)?;
        let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
        match backward(module, (xs, ys, &present(dys)), &mut state, &mut grads, &mut dxs, |_| true) {
            Err(_) => Ok(()),
            Ok(()) => Err(Broken(format!("expected an error of backward with {what}, got none"))),
        }
    };
    for (j, y) in ys.iter().enumerate() {
        for shape in neighbours(y.shape()) {
            let other = |ts: &[Tensor<f64>]| {
                let mut ts = ts.to_vec();
                ts[j] = Tensor::full(shape, 0.5);
                ts
            };
            let (other_y, other_dy) = (other(&ys), other(dys));
            let instead = format!("of shape {shape} instead of {}", y.shape());
            refused(&format!("∂E/∂y{j} {instead}"), xs, &ys, &other_dy)?;
            refused(&format!("y{j} and ∂E/∂y{j} {instead}"), xs, &other_y, &other_dy)?;
        }
    }
    for (i, x) in xs.iter().enumerate() {
        for shape in neighbours(x.shape()) {
            let mut shapes = evaluate::shapes(xs);
            shapes[i] = shape;
            // Where it gives the same outputs, it is another call that fits.
            if module.output_shapes(&shapes).is_ok_and(|shapes| shapes == evaluate::shapes(&ys)) {
                continue;
            }
            let mut other = xs.to_vec();
            other[i] = Tensor::full(shape, 1.0);
            refused(&format!("x{i} of shape {shape} instead of {}", x.shape()), &other, &ys, dys)?;
        }
    }
    Ok(())
}

/// Shapes with other elements than this one, or in other places.
fn neighbours(shape: &Shape) -> Vec<Shape> {
    let mut out: Vec<Shape> = shape.push(1).into_iter().collect();
    for axis in 0..shape.len() {
        let n = shape[axis];
        out.push(shape.with(axis, n + 1));
        out.extend((n > 0).then(|| shape.with(axis, n - 1)));
    }
    out
}

pub(super) fn foreign_cache<M: Module<T = f64>>(
    subject: &Subject<'_, M>,
    build: &impl Fn() -> M,
    cx: Context,
) -> Outcome {
    let Subject { case, module, xs, dys } = subject;
    let want = subject.pass(cx)?;
    let call = (&xs[..], &want.ys[..], &dys[..]);
    refused_or_right("a fresh cache", module, call, &mut M::State::default(), &want)?;
    let other = filled(build(), case.seed ^ 1)?;
    let mut shapes = vec![case.batch(|n| n + 1), case.batch(|n| n / 2), case.batch(|_| 0)];
    shapes.extend(others(&case.inputs));
    let volume = |shape: &Vec<usize>| shape.iter().product::<usize>();
    for shapes in shapes {
        let small = |s: &Vec<usize>| Shape::new(s).is_ok_and(|s| s.volume() <= VOLUME);
        let fits = shapes.iter().all(small) && output_shapes(module, &shapes).is_ok();
        // A cache may not tell two shapes of as many elements apart.
        if !fits || shapes.iter().zip(&case.inputs).all(|(a, b)| volume(a) == volume(b)) {
            continue;
        }
        let xs = case.tensors(&shapes, "another batch")?;
        let (mut ys, mut state) = (buffers(module.outputs()), M::State::default());
        if other.apply(&refs(&xs), &mut ys, &mut state, cx.step(7)).is_ok() {
            refused_or_right(&format!("a cache of inputs {shapes:?}"), module, call, &mut state, &want)?;
        }
    }
    Ok(())
}
