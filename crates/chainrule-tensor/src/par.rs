//! Threads: work is cut into pieces by its size alone and every piece is computed in one way, so the bits do not depend
//! on how many threads there are.
//!
//! How many threads are used is limited in code by [`with_threads`] or [`set_threads`], and from outside by the
//! environment variable `CHAINRULE_NUM_THREADS` (or, failing that, `RAYON_NUM_THREADS`).
//! A call from inside a piece runs in its own thread, and so does a call while another thread's pieces are at work.

mod pool;

use crate::disjoint::Disjoint;
use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

thread_local!(static LIMIT: Cell<usize> = const { Cell::new(0) });
/// Most threads that work together, this one included, whatever limit is set: the pool starts no more.
pub const MOST_THREADS: usize = pool::MOST + 1;
/// The limit inside a piece: one thread, and no way up from there.
const INSIDE: usize = usize::MAX;
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

/// How many threads a kernel called from here may use, at most [`MOST_THREADS`]: 1 inside one of several pieces.
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
        INSIDE => 1,
        n => n,
    }
}

fn from_environment() -> usize {
    ["CHAINRULE_NUM_THREADS", "RAYON_NUM_THREADS"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok().filter(|&n: &usize| n > 0))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .min(MOST_THREADS)
}

/// Sets how many threads kernels use from now on, in the whole program: [`MOST_THREADS`] where `n` is larger; 0 goes back to the
/// environment's answer.
pub fn set_threads(n: usize) {
    DEFAULT.store(n.min(MOST_THREADS), Ordering::Relaxed);
}

/// Runs `f` with kernels that it calls on this thread limited to `n` threads, of 1 to [`MOST_THREADS`]; inside a piece the
/// limit stays 1.
///
/// ```
/// use chainrule_tensor::par;
/// assert_eq!(par::with_threads(1, par::threads), 1);
/// ```
pub fn with_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    limited(if LIMIT.get() == INSIDE { INSIDE } else { n.clamp(1, MOST_THREADS) }, f)
}

fn limited<R>(limit: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(limit));
    f()
}

/// Calls `f(0)`, …, `f(pieces − 1)`, each once, in any order and on any thread.
///
/// # Panics
/// If a piece panics, with its payload; pieces not begun by then are left out. Of several payloads the first is kept, and the others
/// are leaked rather than dropped: a destructor may panic too.
pub fn for_each(pieces: usize, f: impl Fn(usize) + Sync) {
    let threads = threads();
    // The pool's count of pieces runs on by one for each thread.
    if pieces < 2 || threads < 2 || pieces > isize::MAX as usize {
        return (0..pieces).for_each(f);
    }
    limited(INSIDE, || {
        if !pool::run(pieces, threads, &f) {
            (0..pieces).for_each(f);
        }
    });
}

/// Cuts `data` into pieces of `length` (the last may be shorter) and calls `f(index of the piece, piece)` for each.
///
/// # Panics
/// As [`for_each`].
pub fn for_chunks<V: Send>(data: &mut [V], length: usize, f: impl Fn(usize, &mut [V]) + Sync) {
    if data.len() <= length {
        // One piece or none.
        if !data.is_empty() {
            f(0, data);
        }
        return;
    }
    let data = Disjoint::new(data);
    // SAFETY: `for_each` visits every i < count once, and different pieces do not overlap.
    for_each(data.count(length), |i| f(i, unsafe { data.chunk(i, length) }));
}

/// [`for_chunks`] over two slices that are cut into the same number of pieces.
///
/// # Panics
/// As [`for_each`].
pub(crate) fn for_chunks2<V: Send, W: Send>(
    (a, a_length): (&mut [V], usize),
    (b, b_length): (&mut [W], usize),
    f: impl Fn(usize, &mut [V], &mut [W]) + Sync,
) {
    let (a, b) = (Disjoint::new(a), Disjoint::new(b));
    let count = a.count(a_length).min(b.count(b_length));
    // SAFETY: `for_each` visits every i < count once, and different pieces of a slice do not overlap.
    for_each(count, |i| unsafe { f(i, a.chunk(i, a_length), b.chunk(i, b_length)) });
}

/// [`for_chunks`] over three slices that are cut into the same number of pieces.
///
/// # Panics
/// As [`for_each`].
pub(crate) fn for_chunks3<V: Send, W: Send, X: Send>(
    (a, a_length): (&mut [V], usize),
    (b, b_length): (&mut [W], usize),
    (c, c_length): (&mut [X], usize),
    f: impl Fn(usize, &mut [V], &mut [W], &mut [X]) + Sync,
) {
    let (a, b, c) = (Disjoint::new(a), Disjoint::new(b), Disjoint::new(c));
    let count = a.count(a_length).min(b.count(b_length)).min(c.count(c_length));
    // SAFETY: `for_each` visits every i < count once, and different pieces of a slice do not overlap.
    for_each(count, |i| unsafe { f(i, a.chunk(i, a_length), b.chunk(i, b_length), c.chunk(i, c_length)) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn every_piece_is_visited_once() {
        for threads in [1, 2, 3, 8] {
            with_threads(threads, || {
                let mut data = vec![0usize; 1003];
                for_chunks(&mut data, 10, |i, piece| piece.iter_mut().for_each(|v| *v += i + 1));
                assert!(data.iter().enumerate().all(|(i, &v)| v == i / 10 + 1));
                for pieces in [0, 1, 2, 17, 100] {
                    let seen: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                    for_each(pieces, |i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                    assert!(seen.into_iter().all(|n| n.into_inner() == 1));
                }
            });
        }
    }

    #[test]
    fn slices_of_different_lengths_are_cut_together() {
        with_threads(2, || {
            let (mut a, mut b, mut c) = (vec![0; 20], vec![0u8; 31], vec![0i64; 7]);
            for_chunks2((&mut a, 2), (&mut b, 3), |i, a, b| {
                a.fill(i);
                b.fill(i as u8);
            });
            assert_eq!((a[19], b[29], b[30]), (9, 9, 0));
            for_chunks3((&mut a, 4), (&mut b, 7), (&mut c, 2), |i, a, b, c| {
                a.fill(i + 100);
                b.fill(i as u8 + 100);
                c.fill(i as i64 + 100);
            });
            assert_eq!((a[0], a[15], a[16], b[27], c[6]), (100, 103, 8, 103, 103));
            for_chunks(&mut [] as &mut [u8], 0, |_, _| panic!("nothing to do"));
        });
    }

    #[test]
    fn many_jobs_in_a_row_lose_no_piece() {
        with_threads(3, || {
            let mut data = [0u64; 8];
            for round in 0..2000 {
                for_chunks(&mut data, 1, |i, v| v[0] += i as u64 + round);
            }
            let sum: u64 = (0..2000).sum();
            assert!(data.iter().enumerate().all(|(i, &v)| v == sum + 2000 * i as u64));
        });
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_survives() {
        with_threads(2, || {
            for bad in 0..6 {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    for_each(6, |i| assert!(i != bad, "piece {bad} is bad"));
                }));
                let message = caught.unwrap_err().downcast::<String>().unwrap();
                assert_eq!(*message, format!("piece {bad} is bad"));
                assert_eq!(threads(), 2);
            }
            let count = AtomicUsize::new(0);
            for_each(6, |i| _ = count.fetch_add(i, Ordering::Relaxed));
            assert_eq!(count.into_inner(), 15);
        });
    }

    /// A payload whose destructor panics.
    struct Bomb(usize);

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload of piece {} is dropped", self.0);
        }
    }

    #[test]
    fn of_several_payloads_the_first_is_kept_and_none_is_dropped() {
        for round in 0..50 {
            let (pieces, begun, ended) = (3, AtomicUsize::new(0), AtomicUsize::new(0));
            let caught = with_threads(pieces, || {
                catch_unwind(AssertUnwindSafe(|| {
                    for_each(pieces, |i| {
                        begun.fetch_add(1, Ordering::SeqCst);
                        // All pieces panic, at about the same time, if there are as many threads.
                        let start = std::time::Instant::now();
                        while begun.load(Ordering::SeqCst) < pieces && start.elapsed().as_millis() < 20 {
                            std::hint::spin_loop();
                        }
                        ended.fetch_add(1, Ordering::SeqCst);
                        std::panic::panic_any(Bomb(i));
                    });
                }))
            });
            // No piece runs any more, and the pool goes on with all its threads.
            assert_eq!(begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst), "round {round}");
            let payload = caught.unwrap_err().downcast::<Bomb>().unwrap();
            assert!(payload.0 < pieces);
            std::mem::forget(payload);
            let count = AtomicUsize::new(0);
            with_threads(pieces, || for_each(100, |i| _ = count.fetch_add(i, Ordering::Relaxed)));
            assert_eq!(count.into_inner(), 4950);
        }
    }

    #[test]
    fn the_number_of_threads_is_limited() {
        for n in [MOST_THREADS, MOST_THREADS + 1, 1 << 60, usize::MAX - 1, usize::MAX] {
            assert_eq!(with_threads(n, threads), MOST_THREADS);
        }
        assert_eq!(with_threads(0, threads), 1);
        // Two pieces are for two threads, and no more are started.
        let count = AtomicUsize::new(0);
        with_threads(usize::MAX, || for_each(2, |i| _ = count.fetch_add(i + 1, Ordering::Relaxed)));
        assert_eq!(count.into_inner(), 3);
    }

    #[test]
    fn calls_inside_a_piece_run_in_their_own_thread() {
        with_threads(2, || {
            let count = AtomicUsize::new(0);
            for_each(4, |_| {
                assert_eq!(threads(), 1);
                let here = std::thread::current().id();
                with_threads(2, || {
                    for_each(5, |i| {
                        assert_eq!(std::thread::current().id(), here);
                        count.fetch_add(i, Ordering::Relaxed);
                    });
                });
            });
            assert_eq!(count.into_inner(), 40);
        });
    }

    #[test]
    fn callers_at_the_same_time_each_get_all_their_pieces() {
        std::thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    with_threads(3, || {
                        let mut data = vec![0usize; 64];
                        for _ in 0..200 {
                            for_chunks(&mut data, 4, |i, piece| {
                                piece.iter_mut().for_each(|v| *v += i + caller)
                            });
                        }
                        assert!(data.iter().enumerate().all(|(i, &v)| v == 200 * (i / 4 + caller)));
                    });
                });
            }
        });
    }
}
