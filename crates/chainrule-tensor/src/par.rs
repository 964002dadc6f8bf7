//! Threads: work is cut into pieces by its size alone and every piece is computed in one way, so the bits do not depend
//! on how many threads there are.
//!
//! How many threads are used is limited in code by [`with_threads`] or [`set_threads`], and from outside by the
//! environment variable `CHAINRULE_NUM_THREADS` (or, failing that, `RAYON_NUM_THREADS`).

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

thread_local!(static LIMIT: Cell<usize> = const { Cell::new(0) });
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

/// How many threads a kernel called from here may use.
pub fn threads() -> usize {
    match LIMIT.get() {
        0 => match DEFAULT.load(Ordering::Relaxed) {
            0 => {
                let n = from_environment();
                DEFAULT.store(n, Ordering::Relaxed);
                n
            }
            n => n,
        },
        n => n,
    }
}

fn from_environment() -> usize {
    ["CHAINRULE_NUM_THREADS", "RAYON_NUM_THREADS"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok().filter(|&n: &usize| n > 0))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Sets how many threads kernels use from now on, in the whole program; 0 goes back to the environment's answer.
pub fn set_threads(n: usize) {
    DEFAULT.store(n, Ordering::Relaxed);
}

/// Runs `f` with kernels that it calls on this thread limited to `n` threads.
///
/// ```
/// use chainrule_tensor::par;
/// assert_eq!(par::with_threads(1, par::threads), 1);
/// ```
pub fn with_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(n.max(1)));
    f()
}

/// Calls `f(0)`, …, `f(pieces − 1)`, each once, in any order and on any thread.
pub fn for_each(pieces: usize, f: impl Fn(usize) + Sync) {
    if pieces < 2 || threads() < 2 {
        return (0..pieces).for_each(f);
    }
    use rayon::prelude::*;
    (0..pieces).into_par_iter().with_max_len(1).for_each(|i| f(i));
}

/// Cuts `data` into pieces of `length` (the last may be shorter) and calls `f(piece number, piece)` for each.
pub fn for_chunks<V: Send>(data: &mut [V], length: usize, f: impl Fn(usize, &mut [V]) + Sync) {
    let length = length.max(1);
    if data.len() <= length || threads() < 2 {
        return data.chunks_mut(length).enumerate().for_each(|(i, piece)| f(i, piece));
    }
    use rayon::prelude::*;
    data.par_chunks_mut(length).enumerate().with_max_len(1).for_each(|(i, piece)| f(i, piece));
}

/// [`for_chunks`] over two slices that are cut into the same number of pieces.
pub fn for_chunks2<V: Send, W: Send>(
    (a, a_length): (&mut [V], usize),
    (b, b_length): (&mut [W], usize),
    f: impl Fn(usize, &mut [V], &mut [W]) + Sync,
) {
    let (a_length, b_length) = (a_length.max(1), b_length.max(1));
    if a.len() <= a_length || threads() < 2 {
        let pieces = a.chunks_mut(a_length).zip(b.chunks_mut(b_length)).enumerate();
        return pieces.for_each(|(i, (a, b))| f(i, a, b));
    }
    use rayon::prelude::*;
    a.par_chunks_mut(a_length)
        .zip(b.par_chunks_mut(b_length))
        .enumerate()
        .with_max_len(1)
        .for_each(|(i, (a, b))| f(i, a, b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_visited_once() {
        for threads in [1, 2, 3, 8] {
            with_threads(threads, || {
                let mut data = vec![0usize; 1003];
                for_chunks(&mut data, 10, |i, piece| piece.iter_mut().for_each(|v| *v += i + 1));
                assert!(data.iter().enumerate().all(|(i, &v)| v == i / 10 + 1));
                let count = AtomicUsize::new(0);
                for_each(17, |i| _ = count.fetch_add(i, Ordering::Relaxed));
                assert_eq!(count.into_inner(), 136);
            });
        }
    }
}
