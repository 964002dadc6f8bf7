//! The pool: threads that are started once and then wait for work. Handing work out allocates nothing.
//!
//! One word of state says everything: `epoch | slots | running`. A caller writes the job while slots and running are 0,
//! when no worker reads it, and opens it by setting the slots. A worker takes a slot, which makes it running, and
//! claims pieces until none are left. The caller claims pieces too; then it closes the slots, so that a worker that wakes
//! too late is not waited for, and waits until no worker runs.
//!
//! Two pieces on two threads, medians of 3,000 in one run on two cores of a Zen 4, in µs, with a worker that
//! parked after 50 µs; rayon 1.12 for comparison:
//!
//! | µs since the last call | 0 | 20 | 200 (the worker is parked) |
//! |---|---|---|---|
//! | empty pieces | 0.14 (rayon 9.4) | 0.29 (18) | 7.0 (49) |
//! | pieces of 10 µs | 10.3 (16) | 10.3 (40) | 27 (71) |
//! | pieces of 50 µs | 50.3 (56) | 50.3 (77) | 72 (146) |

use std::{
    any::Any,
    cell::UnsafeCell,
    hint, mem,
    panic::{self, AssertUnwindSafe},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// One worker that runs, one free slot, and one epoch in the state word.
const RUNNING: u64 = 1;
const SLOT: u64 = 1 << 16;
const EPOCH: u64 = 1 << 32;
const RUNNING_MASK: u64 = SLOT - 1;
const SLOTS_MASK: u64 = EPOCH - SLOT;

/// Most workers that are ever started: they fit into the state word's count.
pub(super) const MOST: usize = 1023;
/// How long an idle worker spins for the next job before it parks: longer than the gap between two kernels of a
/// small network. Waking one costs the caller 7 µs, and 20 µs on a virtual machine.
const SPIN: Duration = Duration::from_micros(200);

/// A closure `Fn(usize)` behind two plain words, and how many pieces it has.
#[derive(Clone, Copy)]
struct Job {
    f: *const (),
    call: unsafe fn(*const (), usize),
    pieces: usize,
}

struct Pool {
    state: AtomicU64,
    next: AtomicUsize,
    job: UnsafeCell<Job>,
    busy: AtomicBool,
    workers: AtomicUsize,
    cores: AtomicUsize,
    parked: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

unsafe fn nothing(_: *const (), _: usize) {}

// SAFETY: `job` alone is not `Sync`. It is written only while no slot is open and no worker runs, by the one caller that
// holds `busy`, and read only by workers that took a slot; `state` orders the two.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    state: AtomicU64::new(0),
    next: AtomicUsize::new(0),
    job: UnsafeCell::new(Job { f: std::ptr::null(), call: nothing, pieces: 0 }),
    busy: AtomicBool::new(false),
    workers: AtomicUsize::new(0),
    cores: AtomicUsize::new(0),
    parked: AtomicUsize::new(0),
    lock: Mutex::new(()),
    wake: Condvar::new(),
    panicked: Mutex::new(None),
};

/// Calls `f(0)`, …, `f(pieces − 1)` on up to `threads` threads, this one included. Returns false, having done nothing,
/// if the pool is at work already (for another thread, or for a caller further up) or has no workers.
pub(super) fn run<F: Fn(usize) + Sync>(pieces: usize, threads: usize, f: &F) -> bool {
    unsafe fn call<F: Fn(usize)>(f: *const (), i: usize) {
        // SAFETY: `f` was made from a `&F` in `run`, which returns only when no thread calls it any more.
        unsafe { (*f.cast::<F>())(i) }
    }
    let pool = &POOL;
    if pool.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        return false;
    }
    let helpers = pool.grow(threads.min(pieces).saturating_sub(1));
    if helpers == 0 {
        pool.busy.store(false, Ordering::Release);
        return false;
    }
    let job = Job { f: std::ptr::from_ref(f).cast(), call: call::<F>, pieces };
    // SAFETY: slots and running are 0 and `busy` is ours, so no other thread touches the job.
    unsafe { *pool.job.get() = job };
    pool.next.store(0, Ordering::Relaxed);
    let epoch = pool.state.load(Ordering::Relaxed) & !(EPOCH - 1);
    pool.state.store(epoch.wrapping_add(EPOCH) + helpers as u64 * SLOT, Ordering::SeqCst);
    if pool.parked.load(Ordering::SeqCst) > 0 {
        drop(pool.lock());
        pool.wake.notify_all();
    }
    pool.work(job);
    pool.state.fetch_and(!SLOTS_MASK, Ordering::AcqRel);
    let mut spins = 0u32;
    while pool.state.load(Ordering::Acquire) & RUNNING_MASK != 0 {
        spins += 1;
        if spins < 1000 { hint::spin_loop() } else { thread::yield_now() }
    }
    let payload = pool.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
    pool.busy.store(false, Ordering::Release);
    if let Some(payload) = payload {
        panic::resume_unwind(payload);
    }
    true
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts workers until there are `target`, as far as the system gives them; returns how many may help.
    fn grow(&'static self, target: usize) -> usize {
        let target = target.min(MOST);
        let mut workers = self.workers.load(Ordering::Relaxed);
        while workers < target {
            if workers == 0 {
                let cores = thread::available_parallelism().map_or(1, usize::from);
                self.cores.store(cores, Ordering::Relaxed);
            }
            let name = format!("chainrule-{}", workers + 1);
            if thread::Builder::new().name(name).spawn(|| self.serve()).is_err() {
                break;
            }
            workers += 1;
            self.workers.store(workers, Ordering::Relaxed);
        }
        workers.min(target)
    }

    /// Claims pieces until none are left, and never unwinds. A panic ends the job: its payload is kept if it is the first, and the
    /// pieces not yet begun are left out.
    fn work(&self, job: Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.pieces {
                return;
            }
            // SAFETY: the closure outlives the job, see `run`.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.f, i) }));
            if let Err(payload) = outcome {
                self.next.store(job.pieces, Ordering::Relaxed);
                let mut kept = self.panicked.lock().unwrap_or_else(PoisonError::into_inner);
                match *kept {
                    // Dropping it may panic: the caller would leave its borrow while pieces run, a worker would not say that it
                    // has ended.
                    Some(_) => mem::forget(payload),
                    None => *kept = Some(payload),
                }
                return;
            }
        }
    }

    /// The loop of a worker.
    fn serve(&self) {
        super::LIMIT.set(super::INSIDE);
        let mut epoch = 0;
        loop {
            let state = self.wait(epoch);
            let taken = state - SLOT + RUNNING;
            if self.state.compare_exchange(state, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                epoch = state / EPOCH;
                // SAFETY: this worker holds a slot of the job, so the job was published and will not change.
                self.work(unsafe { *self.job.get() });
                self.state.fetch_sub(RUNNING, Ordering::Release);
            }
        }
    }

    /// Waits for a job of another epoch with a free slot.
    fn wait(&self, epoch: u64) -> u64 {
        let open = |state: u64| state & SLOTS_MASK != 0 && state / EPOCH != epoch;
        loop {
            // Spinning is worth a core only if every thread has one.
            if self.workers.load(Ordering::Relaxed) < self.cores.load(Ordering::Relaxed) {
                let start = Instant::now();
                let mut spins = 0u32;
                while start.elapsed() < SPIN {
                    spins += 1;
                    if spins.is_multiple_of(64) {
                        thread::yield_now();
                    }
                    for _ in 0..16 {
                        let state = self.state.load(Ordering::Acquire);
                        if open(state) {
                            return state;
                        }
                        hint::spin_loop();
                    }
                }
            }
            let mut guard = self.lock();
            self.parked.fetch_add(1, Ordering::SeqCst);
            let mut state = self.state.load(Ordering::SeqCst);
            if !open(state) {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                state = self.state.load(Ordering::SeqCst);
            }
            self.parked.fetch_sub(1, Ordering::SeqCst);
            drop(guard);
            if open(state) {
                return state;
            }
            // Woken too late for a short job: spins for the next, or each of a series of them would be a useless wake-up. It yields
            // first to the caller, on whose core it may have been woken.
            thread::yield_now();
        }
    }
}
