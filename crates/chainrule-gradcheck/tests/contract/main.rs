//! The contract on its hardest cases, as plain implementations: states that are inputs and outputs, memory over time, an
//! input without a derivative, several outputs, noise. The fast layers of the catalogue obey the same laws.

mod attention;
mod lstm;
mod vae;

use chainrule_core::{Context, Module, Result, Scalar, Tensor};

/// The elements `range` of axis 1 of a tensor (N, T, …).
fn piece<T: Scalar>(x: &Tensor<T>, range: std::ops::Range<usize>) -> Tensor<T> {
    let (n, t) = (x.shape()[0], x.shape()[1]);
    let width = x.len() / (n * t);
    Tensor::from_fn(x.shape().with(1, range.len()), |i| {
        let (row, rest) = (i / (range.len() * width), i % (range.len() * width));
        x.data()[row * t * width + range.start * width + rest]
    })
}

/// The first output for a sequence that comes in pieces of the given lengths through one state.
fn streamed<M: Module>(
    model: &M,
    xs: &[Tensor<M::T>],
    timed: &[bool],
    lengths: &[usize],
) -> Result<Vec<M::T>> {
    let mut state = M::State::default();
    let mut ys: Vec<_> = (0..model.outputs()).map(|_| Tensor::default()).collect();
    let (n, t) = (xs[0].shape()[0], xs[0].shape()[1]);
    let mut rows = vec![Vec::new(); n];
    let mut at = 0;
    for &length in lengths {
        let pieces: Vec<Tensor<M::T>> = xs
            .iter()
            .zip(timed)
            .map(|(x, &timed)| if timed { piece(x, at..at + length) } else { x.clone() })
            .collect();
        model.apply(&pieces.iter().collect::<Vec<_>>(), &mut ys, &mut state, Context::stream())?;
        for (row, y) in rows.iter_mut().zip(ys[0].data().chunks((ys[0].len() / n).max(1))) {
            row.extend_from_slice(y);
        }
        at += length;
    }
    assert_eq!(at, t, "the pieces are the whole sequence");
    Ok(rows.concat())
}
