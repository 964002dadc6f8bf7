//! After the first step, training and inference allocate nothing of ours. Where products are matrixmultiply's (the portable
//! set), its packing buffers are left out: it makes them anew in each call.

mod common;

use chainrule::{
    optim::schedule::{Cosine, LinearWarmup},
    prelude::*,
    tensor::{
        kernels::{
            Isa,
            gemm::{Mat, MatMut, matmul},
            isa,
        },
        par,
    },
};
use common::{network, some_digits};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Counts every allocation of the program, on whatever thread.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// Allocations of this alignment and above are not ours: packing buffers of matrixmultiply are aligned to vectors, and all that
/// we allocate is a `Vec` or a `Box` of plain types.
static FOREIGN_ALIGN: AtomicUsize = AtomicUsize::new(usize::MAX);

fn count(layout: Layout) {
    if layout.align() < FOREIGN_ALIGN.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: the caller keeps alloc_zeroed's contract, which is the system's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout);
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

/// Steps over three batches of one size and a short one, which comes twice: the first round may allocate.
fn training(model: Sequential, optimizer: impl Optimizer<f32>, what: &str) {
    let batches = [(0, 64), (64, 128), (128, 192), (192, 210)].map(|(from, to)| some_digits(from, to));
    let mut trainer = Trainer::new(model, CrossEntropy::new(), optimizer)
        .clip_norm(5.0)
        .schedule(LinearWarmup::new(3).then(3, Cosine::new(20)));
    let first = allocations(|| {
        trainer.step(&batches[0].0, &batches[0].1).unwrap();
    });
    assert!(first > 0, "the allocator is not counting");
    for round in 0..2 {
        for (x, labels) in &batches {
            let n = allocations(|| {
                trainer.step(x, labels).unwrap();
            });
            assert_eq!(n, 0, "{what}: round {round}, a batch of {}", labels.len());
        }
    }
    let model = trainer.into_model();
    let mut session = Session::new(&model);
    // Once of each size.
    session.run(&batches[0].0).unwrap();
    session.run(&batches[3].0).unwrap();
    for (x, _) in batches.iter().chain(&batches) {
        let n = allocations(|| {
            session.run(x).unwrap();
        });
        assert_eq!(n, 0, "{what}: inference of {}", x.shape());
    }
}

/// A graph of ten inputs and two outputs, of which the loss reads both, by a plain loop.
fn passes() {
    let mut graph = Graph::new();
    let inputs: Vec<_> = (0..10).map(|i| graph.input(format!("x{i}"))).collect();
    let all = graph.add("all", Concat::new(1).parts(10), &inputs[..]);
    let body = graph.add("body", Linear::new(20, 8), all);
    let halves = graph.add("halves", Chunk::new(2, 1), body);
    graph.output("left", halves.at(0));
    graph.output("right", halves.at(1));
    let mut graph = graph.init(1).unwrap();
    let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(0.5, Mse::new());
    let (mut adam, mut pass) = (Adam::new(1e-3), Pass::new(&graph));
    let xs: Vec<Tensor> = (0..10).map(|i| Tensor::full([6, 2], i as f32)).collect();
    let xs: Vec<&Tensor> = xs.iter().collect();
    let (classes, values) = ([0, 1, 2, 3, 0, 1], Tensor::zeros([6, 4]));
    for step in 0..4 {
        let n = allocations(|| {
            pass.forward(&graph, &xs[..], Context::train(1).step(step)).unwrap();
            pass.loss(&loss, [Target::from(&classes), Target::from(&values)]).unwrap();
            pass.backward(&graph, &xs[..]).unwrap();
            pass.update(&mut graph, &mut adam).unwrap();
        });
        // A pass over more than eight inputs makes two lists of references.
        assert!(step == 0 || n <= 2, "step {step}: {n}");
    }
}

/// Recurrent layers: the first step of the longest sequences may allocate, no later one of shorter sequences does.
fn sequences() {
    let model = Sequential::new()
        .add(Lstm::new(7, 24).num_layers(2).dropout(0.2).proj_size(5))
        .add(Gru::new(5, 24).bidirectional(true).last(true))
        .add(Linear::new(48, 3));
    let mut model = model.init(1).unwrap();
    let (loss, mut adam, mut pass) = (CrossEntropy::new(), Adam::new(1e-3), Pass::new(&model));
    let labels: Vec<usize> = (0..40).map(|i| i % 3).collect();
    for (step, time) in [20, 20, 13, 20, 1, 7].into_iter().enumerate() {
        let x = Tensor::full([40, time, 7], 0.5);
        let n = allocations(|| {
            pass.forward(&model, &x, Context::train(1).step(step as u64)).unwrap();
            pass.loss(&loss, &labels).unwrap();
            pass.backward(&model, &x).unwrap();
            pass.update(&mut model, &mut adam).unwrap();
        });
        assert!(step == 0 || n == 0, "step {step}, {time} long: {n}");
    }
}

/// Has every thread make its memory for products, which it keeps: which thread takes which piece of a step is left to chance, and one
/// that comes late to its first would allocate then.
fn warm_up(threads: usize) {
    let (all, n) = (Barrier::new(threads), 1024);
    let (a, b) = (vec![1.0f32; n * n], vec![1.0f32; n * n]);
    par::for_each(threads, |_| {
        all.wait(); // a piece each
        let mut c = vec![0.0; n * n];
        matmul(1.0, Mat::new(&a, n, n), Mat::new(&b, n, n).t(), 0.0, MatMut::new(&mut c, n, n));
    });
}

/// One test, so that no other allocates meanwhile.
#[test]
fn after_the_first_step_nothing_is_allocated() {
    if isa() == Isa::Portable {
        FOREIGN_ALIGN.store(32, Relaxed);
    }
    for threads in [1, 2] {
        par::with_threads(threads, || {
            warm_up(threads);
            training(network().init(1).unwrap(), AdamW::new(1e-3), "digits");
            let mlp = Sequential::new()
                .add(Flatten::new())
                .add(Linear::new(64, 48))
                .add(BatchNorm1d::new(48))
                .add(Gelu::new())
                .add(Residual::new(Sequential::new().add(Linear::new(48, 48)).add(Tanh::new())))
                .add(LayerNorm::new(48))
                .add(Dropout::new(0.2))
                .add(Linear::new(48, 10));
            training(mlp.init(1).unwrap(), Sgd::new(0.01).momentum(0.9), "perceptron");
            let computed = Sequential::new()
                .add(WeightNorm::new(Conv2d::new(1, 16, 3).padding(1)))
                .add(SpectralNorm::new(Conv2d::new(16, 32, 3).padding(1)))
                .add(Relu::new())
                .add(MaxPool2d::new(2))
                .add(Flatten::new())
                .add(
                    Pruned::new(
                        Sequential::new().named("fc", Linear::new(512, 32)).add(BatchNorm1d::new(32)),
                    )
                    .on("fc.weight"),
                )
                .add(Lora::new(Linear::new(32, 10), 4).dropout(0.2));
            training(computed.init(1).unwrap(), AdamW::new(1e-3), "computed weights");
            passes();
            sequences();
        });
    }
}
