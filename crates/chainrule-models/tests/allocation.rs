//! After the first step of a length, training a GPT or an LSTM allocates nothing, nor does a step of a shorter length; nor does a decoder with
//! masks, or a stream that has room.

use chainrule_core::{Context, Module, Parameters, Pass, Session, Tensor};
use chainrule_layers::{MaskKind, TransformerDecoderLayer};
use chainrule_models::{CharLstm, Gpt};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts every allocation of the program, on whatever thread.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout, and the caller keeps realloc's contract.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Relaxed);
    f();
    ALLOCATIONS.load(Relaxed) - before
}

/// One step of training: forward, backward, and weights that change.
fn step<M: Module<T = f32>>(model: &mut M, pass: &mut Pass<M>, xs: &[Tensor], number: u64) {
    pass.forward(model, xs, Context::train(1).step(number)).unwrap();
    let shape = *pass.outputs()[0].shape();
    let dys = pass.output_gradients_mut();
    dys.resize_with(1, Tensor::default);
    dys[0].reset(shape).fill(0.01);
    pass.backward(model, xs).unwrap();
    model.visit_mut(&mut |_, p| p.value_mut().unwrap().iter_mut().for_each(|v| *v *= 0.999));
    pass.zero();
}

/// Steps of some lengths: the first may allocate, and no later one, which is not longer.
fn shorter<M: Module<T = f32>>(model: &mut M, lengths: &[Vec<Tensor>], what: &str) {
    let mut pass = Pass::new(model);
    for (number, xs) in lengths.iter().chain(lengths).enumerate() {
        let n = allocations(|| step(model, &mut pass, xs, number as u64));
        assert!(number == 0 || n == 0, "{what}: inputs of {}: {n}", xs[0].shape());
    }
}

/// Steps of some lengths: each may allocate the first time.
fn training<M: Module<T = f32>>(model: &mut M, lengths: &[Vec<Tensor>], what: &str) {
    let mut pass = Pass::new(model);
    for (number, xs) in lengths.iter().enumerate() {
        step(model, &mut pass, xs, number as u64);
    }
    for (number, xs) in lengths.iter().chain(lengths).enumerate() {
        let n = allocations(|| step(model, &mut pass, xs, number as u64));
        assert_eq!(n, 0, "{what}: inputs of {}", xs[0].shape());
    }
}

// One test: others beside it would be counted.
#[test]
fn after_the_first_step_nothing_is_allocated() {
    chainrule_core::tensor::par::set_threads(1); // memory for products is each thread's own
    let tokens = |n: usize, t: usize| vec![Tensor::from_fn([n, t], |i| (i * 7 % 20) as f32)];
    let mut gpt = Gpt { layers: 2, dropout: 0.1, ..Gpt::new(20, 80, 16, 2) }.build().init(1).unwrap();
    training(&mut gpt, &[tokens(3, 70), tokens(3, 11), tokens(2, 70)], "gpt");

    let uneven = [tokens(3, 70), tokens(3, 11), tokens(3, 1), tokens(3, 64), tokens(2, 70), tokens(3, 70)];
    shorter(&mut gpt, &uneven, "gpt, shorter");
    let again = Gpt { layers: 3, dropout: 0.1, recompute: true, ..Gpt::new(20, 80, 16, 2) };
    shorter(&mut again.build().init(1).unwrap(), &uneven, "gpt, computed again");
    let lstm = CharLstm { layers: 2, dropout: 0.1, ..CharLstm::new(20, 24) };
    shorter(&mut lstm.build().init(1).unwrap(), &uneven, "char lstm");

    let decoder = TransformerDecoderLayer::new(8, 2).dim_feedforward(16).causal(true);
    let decoder = decoder.memory_mask(MaskKind::Additive).tgt_key_padding_mask(MaskKind::Boolean);
    let of = |t: usize, s: usize| {
        vec![
            Tensor::from_fn([2, t, 8], |i| (i as f32).sin()),
            Tensor::from_fn([2, s, 8], |i| (i as f32).cos()),
            Tensor::zeros([t, s]),
            Tensor::zeros([2, t]),
        ]
    };
    training(&mut decoder.init(1).unwrap(), &[of(9, 5), of(4, 7)], "decoder layer");

    // A cache of keys and values grows by doubling: from 33 to 64 there is room.
    let mut session = Session::new(&gpt);
    let one = Tensor::from([[3.0f32]]);
    for _ in 0..33 {
        session.stream(&one).unwrap();
    }
    let n = allocations(|| (33..64).for_each(|_| _ = session.stream(&one).unwrap()));
    assert_eq!(n, 0, "stream");
}
