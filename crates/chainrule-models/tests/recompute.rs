//! A decoder of twelve layers whose caches are made again in backward: the bits of one that keeps them, in less memory.

use chainrule_core::{Context, Grads, Module, Parameters, Pass, Tensor};
use chainrule_layers::{Recompute, Sequential, TransformerEncoderLayer};
use chainrule_models::{Gpt, GptModel};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts the bytes that are in use, and the most that ever were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let used = USED.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(used, Relaxed);
    ALLOCATIONS.fetch_add(1, Relaxed);
}

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout, and the caller keeps realloc's contract.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One step's forward and backward.
fn step<M: Module<T = f32>>(pass: &mut Pass<M>, model: &M, x: &Tensor, number: u64) {
    pass.forward(model, x, Context::train(1).step(number)).unwrap();
    let shape = *pass.outputs()[0].shape();
    let dys = pass.output_gradients_mut();
    dys.resize_with(1, Tensor::default);
    dys[0].reset(shape).iter_mut().enumerate().for_each(|(i, dy)| *dy = (i % 7) as f32 / 100.0 - 0.03);
    pass.zero();
    pass.backward(model, x).unwrap();
}

/// The bytes that three steps take beside the model and its gradients, and those gradients.
fn measured<M: Module<T = f32>>(model: &M, x: &Tensor, what: &str) -> (usize, Vec<f32>) {
    let of_gradients = size_of_val(Grads::new(model).values());
    let before = USED.load(Relaxed);
    MOST.store(before, Relaxed);
    let mut pass = Pass::new(model);
    for number in 0..3 {
        let allocations = ALLOCATIONS.load(Relaxed);
        step(&mut pass, model, x, number);
        let n = ALLOCATIONS.load(Relaxed) - allocations;
        assert!(number == 0 || n == 0, "{what}: {n} allocations in step {number}");
    }
    let bytes = MOST.load(Relaxed) - before - of_gradients;
    (bytes, pass.grads().values().to_vec())
}

// One test: others beside it would be counted.
#[test]
fn recompute_takes_less_memory_and_gives_the_same_bits() {
    chainrule_core::tensor::par::set_threads(1); // memory for products is each thread's own
    let gpt = |recompute| -> GptModel {
        Gpt { dropout: 0.1, recompute, ..Gpt::new(65, 64, 64, 4) }.build().init(1).unwrap()
    };
    let tokens = Tensor::from_fn([4, 64], |i| (i * i % 65) as f32);
    let (kept, want) = measured(&gpt(false), &tokens, "all caches");
    let (again, got) = measured(&gpt(true), &tokens, "recompute");
    println!("a GPT of twelve layers: {kept} bytes with all caches, {again} with recompute");
    assert!(want == got, "other gradients");
    assert!(again * 3 < kept, "{again} of {kept} bytes");

    let layer = || TransformerEncoderLayer::<f32>::new(32, 4).dim_feedforward(128).causal(true);
    let whole = (0..12).fold(Sequential::of(), |model, _| model.add(layer())).init(1).unwrap();
    let model = (0..12).fold(Recompute::of(), |model, _| model.add(layer())).init(1).unwrap();
    let x = Tensor::from_fn([4, 32, 32], |i| (i % 19) as f32 / 10.0 - 0.9);
    let (kept, want) = measured(&whole, &x, "Sequential");
    let (again, got) = measured(&model, &x, "Recompute");
    println!("twelve layers: {kept} bytes in a Sequential, {again} in a Recompute");
    assert!(want == got, "other gradients");
    assert!(again * 3 < kept, "{again} of {kept} bytes");
}
