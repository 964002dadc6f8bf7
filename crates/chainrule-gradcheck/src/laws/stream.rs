//! The law of streaming.

use super::{Broken, Outcome, layer::Subject, passes::all_equal};
use crate::evaluate::{buffers, forward, refs};
use chainrule_core::{Context, Module, Result, Shape, StreamState, Tensor};
use chainrule_tensor::ndarray::{ArrayD, Slice};

pub(super) fn streaming<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    if subject.case.refuses_streams {
        return refused(subject);
    }
    match subject.case.sequences.first() {
        None => batches(subject),
        Some(&(input, axis)) => {
            let time = subject.case.inputs.get(input).and_then(|shape| shape.get(axis));
            let time = *time.ok_or_else(|| format!("expected input {input} with a time axis {axis}"))?;
            pieces(subject, time)
        }
    }
}

/// Of what needs the whole sequence: an error.
fn refused<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    match forward(&subject.module, &subject.xs, Context::stream()) {
        Err(_) => Ok(()),
        Ok(_) => Err(Broken("expected a stream to be refused".into())),
    }
}

/// Without memory: each batch of a stream gives its inference.
fn batches<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    let Subject { case, module, .. } = subject;
    let (mut ys, mut state) = (buffers(module.outputs()), M::State::default());
    let sizes =
        [case.inputs.clone(), case.batch(|n| n + 1), case.inputs.clone(), case.batch(|n| n.div_ceil(2))];
    for (k, shapes) in sizes.iter().enumerate() {
        let xs = case.tensors(shapes, &format!("batch {k} of a stream"))?;
        // This layer may have no other batch size.
        let Ok((want, _)) = forward(module, &xs, Context::infer()) else { continue };
        module.apply(&refs(&xs), &mut ys, &mut state, Context::stream().step(k as u64))?;
        all_equal(&format!("y of batch {k} of a stream"), &ys, &want)?;
        restored(module, &mut state)?;
    }
    Ok(())
}

/// A new state that was given what a stream remembers.
fn restored<M: Module<T = f64>>(module: &M, state: &mut M::State) -> Result<M::State, Broken> {
    let saved = StreamState::of(|out| module.remember(state, out))?;
    let mut new = M::State::default();
    saved.restore(|out| module.remember(&mut new, out))?;
    if StreamState::of(|out| module.remember(&mut new, out))? != saved {
        return Err(Broken(format!("expected what was restored to be what was saved, {saved:?}")));
    }
    Ok(new)
}

/// With memory: the pieces of a sequence give the whole, wherever it is cut.
fn pieces<M: Module<T = f64>>(subject: &Subject<'_, M>, time: usize) -> Outcome {
    let Subject { case, module, xs, .. } = subject;
    let (want, _) = forward(module, xs, Context::infer())?;
    let mut rng = case.rng("cuts");
    let mut random = || {
        let mut cuts: Vec<usize> = (1..time).filter(|_| rng.below(2) == 0).collect();
        cuts.push(time);
        cuts
    };
    for (ends, saved) in
        [(vec![time], false), ((1..=time).collect(), false), (random(), false), (random(), true)]
    {
        let (mut state, mut start) = (M::State::default(), 0);
        let mut outputs: Vec<Vec<Tensor<f64>>> = vec![Vec::new(); module.outputs()];
        for &end in &ends {
            let mut piece = xs.clone();
            for &(input, axis) in &case.sequences {
                piece[input] = slice(&xs[input], axis, start, end)?;
            }
            let mut ys = buffers(module.outputs());
            module.apply(&refs(&piece), &mut ys, &mut state, Context::stream())?;
            outputs.iter_mut().zip(ys).for_each(|(all, y)| all.push(y));
            start = end;
            if saved {
                state = restored(module, &mut state)?;
            }
        }
        let got: Vec<_> =
            outputs.iter().zip(&want).map(|(ys, y)| join(ys, y.shape())).collect::<Result<_, _>>()?;
        let how = if saved { ", saved and restored" } else { "" };
        all_equal(&format!("y of a sequence in pieces that end at {ends:?}{how}"), &got, &want)?;
    }
    reordered(subject, time)
}

/// Rows of the batch that are picked and repeated go on as those that they were.
fn reordered<M: Module<T = f64>>(subject: &Subject<'_, M>, time: usize) -> Outcome {
    let Subject { case, module, xs, .. } = subject;
    let axes: Vec<_> = (0..xs.len()).map(|input| case.batch_axis(input)).collect();
    let sizes: Vec<_> =
        xs.iter().zip(&axes).filter_map(|(x, axis)| x.shape().get((*axis)?).copied()).collect();
    let alone = case.sequences.iter().all(|&(input, axis)| axes[input] != Some(axis));
    let Some(n) = sizes.first().copied().filter(|&n| n > 0 && sizes.iter().all(|&m| m == n)) else {
        return Ok(());
    };
    if time < 2 || !alone {
        return Ok(());
    }
    let mut rng = case.rng("rows");
    let cut = 1 + rng.below(time - 1);
    let rows: Vec<usize> = (0..n).map(|_| rng.below(n)).collect();
    let piece = |xs: &[Tensor<f64>], start: usize, end: usize| -> Result<Vec<Tensor<f64>>> {
        let mut piece = xs.to_vec();
        for &(input, axis) in &case.sequences {
            piece[input] = slice(&xs[input], axis, start, end)?;
        }
        Ok(piece)
    };
    let of_rows = |(x, axis): (&Tensor<f64>, &Option<usize>)| match axis {
        Some(axis) => pick(x, *axis, &rows),
        None => Ok(x.clone()),
    };
    let picked: Vec<_> = xs.iter().zip(&axes).map(of_rows).collect::<Result<_>>()?;
    let (mut ys, mut want) = (buffers(module.outputs()), buffers(module.outputs()));
    for (first, reorders, ys) in [(&picked, false, &mut want), (xs, true, &mut ys)] {
        let mut state = M::State::default();
        module.apply(&refs(&piece(first, 0, cut)?), ys, &mut state, Context::stream())?;
        if reorders {
            StreamState::reorder(&rows, |out| module.remember(&mut state, out))?;
        }
        module.apply(&refs(&piece(&picked, cut, time)?), ys, &mut state, Context::stream())?;
    }
    all_equal(&format!("y of the rows {rows:?} of a stream, reordered after step {cut}"), &ys, &want)
}

/// `t[.., rows, ..]` along an axis.
fn pick(t: &Tensor<f64>, axis: usize, rows: &[usize]) -> Result<Tensor<f64>> {
    let [_, n, inner] = around(t.shape(), axis);
    let blocks = t.data().chunks((n * inner).max(1));
    let data = blocks.flat_map(|block| rows.iter().flat_map(move |row| &block[row * inner..][..inner]));
    Tensor::from_vec(t.shape().with(axis, rows.len()), data.copied().collect())
}

/// The elements before an axis, along it, and behind it.
fn around(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

/// `t[.., start..end, ..]` along an axis.
fn slice(t: &Tensor<f64>, axis: usize, start: usize, end: usize) -> Result<Tensor<f64>> {
    let [_, n, inner] = around(t.shape(), axis);
    let rows = t.data().chunks((n * inner).max(1)).flat_map(|row| &row[start * inner..end * inner]);
    Tensor::from_vec(t.shape().with(axis, end - start), rows.copied().collect())
}

/// The pieces one after another along the first axis on which they are shorter than the whole; along a later one, such as
/// the keys so far of attention weights, zeros follow. Pieces of the shape of the whole are final states, of which the last
/// counts.
fn join(pieces: &[Tensor<f64>], whole: &Shape) -> Result<Tensor<f64>, Broken> {
    let shorter = |axis: &usize| pieces.iter().any(|piece| piece.shape().get(*axis) != whole.get(*axis));
    let (Some(axis), Some(last)) = ((0..whole.len()).find(shorter), pieces.last()) else {
        return Ok(pieces.last().cloned().unwrap_or_default());
    };
    let length: usize = pieces.iter().map(|piece| piece.shape().get(axis).copied().unwrap_or(0)).sum();
    let fits = |piece: &Tensor<f64>| {
        piece.shape().len() == whole.len() && piece.shape().iter().zip(&**whole).all(|(n, whole)| n <= whole)
    };
    if length != whole[axis] || !pieces.iter().all(fits) {
        return Err(Broken(format!(
            "expected pieces that join to {whole}, got {length} along axis {axis} and a last one of {}",
            last.shape()
        )));
    }
    let mut joined = ArrayD::zeros(whole.to_vec());
    let mut start = 0;
    for piece in pieces {
        joined
            .slice_each_axis_mut(|at| {
                let (i, n) = (at.axis.index(), piece.shape()[at.axis.index()]);
                let from = if i == axis { start } else { 0 };
                Slice::from(from..from + n)
            })
            .assign(&piece.view());
        start += piece.shape()[axis];
    }
    Ok(Tensor::try_from(joined)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_join_to_the_whole() {
        let whole = Tensor::from_fn([2, 3, 2], |i| i as f64);
        for axis in 0..3 {
            let pieces: Vec<_> =
                (0..whole.shape()[axis]).map(|i| slice(&whole, axis, i, i + 1).unwrap()).collect();
            assert!(join(&pieces, whole.shape()).is_ok_and(|joined| joined == whole), "axis {axis}");
            assert!(join(&pieces[1..], whole.shape()).is_err());
        }
        let (corner, row) = (Tensor::from([[1.0]]), Tensor::from([[2.0, 3.0]]));
        assert!(join(&[corner, row], &Shape::from([2, 2])).is_ok_and(|y| y.data() == [1.0, 0.0, 2.0, 3.0]));
        assert!(
            join(&[Tensor::zeros([2, 3, 2]), whole.clone()], whole.shape()).is_ok_and(|last| last == whole)
        );
    }
}
