//! What a summary promises of memory is what a training step holds.

#[path = "common/network.rs"]
mod network;

use chainrule::{
    core::StateValue,
    models::{LeNet, ResNet, Stem, UNet},
    prelude::*,
    tensor::par,
};
use network::network;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts the bytes that the program holds, on whatever thread.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a model in training holds after `steps` steps, its input included, and what its summary promises.
fn measure<M: Module<T = f32> + Clone>(model: M, inputs: &[Shape], steps: u64) -> [usize; 2] {
    // What products and threads keep between calls is not the model's.
    let promised = {
        let model = model.clone().init(1).unwrap();
        pass(&model, inputs, steps);
        model.summary(inputs).unwrap().training_bytes()
    };
    let before = HELD.load(Relaxed);
    let model = model.clone().init(1).unwrap();
    let held = pass(&model, inputs, steps);
    [held - before, promised]
}

/// The bytes that the program holds after a pass.
fn pass<M: Module<T = f32>>(model: &M, inputs: &[Shape], steps: u64) -> usize {
    let xs: Vec<Tensor> = inputs.iter().map(|&shape| Tensor::zeros(shape)).collect();
    let mut pass = Pass::new(model);
    for step in 0..steps {
        pass.forward(model, &xs, Context::train(1).step(step)).unwrap();
        let dys: Vec<_> = pass.outputs().iter().map(|y| *y.shape()).collect();
        let grads = pass.output_gradients_mut();
        grads.resize_with(dys.len(), Tensor::default);
        grads.iter_mut().zip(dys).for_each(|(dy, shape)| dy.reset(shape).fill(1.0));
        pass.backward(model, &xs).unwrap();
    }
    HELD.load(Relaxed)
}

/// A layer of a width, and one that keeps its output.
fn block(width: usize) -> Sequential {
    Sequential::new().add(Linear::new(width, width)).add(Tanh::new()).add(Linear::new(width, width))
}

fn residual_conv(channels: usize) -> Sequential {
    let conv = || Conv2d::new(channels, channels, 3).padding(1).bias(false);
    let inner = Sequential::new()
        .add(conv())
        .add(BatchNorm2d::new(channels))
        .add(Relu::new())
        .add(conv())
        .add(BatchNorm2d::new(channels));
    Sequential::new().add(Residual::new(inner)).add(Relu::new())
}

/// Two inputs, values that are read twice, two outputs.
fn graph(width: usize) -> Graph {
    let mut graph = Graph::new();
    let (x, z) = (graph.input("x"), graph.input("z"));
    let a = graph.add("a", block(width), x);
    let b = graph.again("a", z);
    let both = graph.add("both", Concat::new(1), [a, b]);
    let parts = graph.add("parts", Chunk::new(2, 1), both);
    let sum = graph.add("sum", Add::new().terms(3), [parts.at(0), parts.at(1), a]);
    let head = graph.add("head", Linear::new(width, 10), sum);
    graph.output("head", head);
    graph.output("sum", sum);
    graph
}

/// One test, so that no other allocates meanwhile.
#[test]
fn memory_is_what_was_promised() {
    the_promised_memory_is_within_ten_percent_of_what_a_step_holds();
    no_optimizer_holds_what_its_settings_do_not_use();
}

/// An optimizer holds its state by name, all of which its settings change, and no more.
fn no_optimizer_holds_what_its_settings_do_not_use() {
    let registry = chainrule_parity::registry::<f32>();
    for spec in registry.optimizers().flat_map(|entry| (entry.examples)()).map(|example| example.spec) {
        let mut model = Linear::new(512, 512).init(1).unwrap();
        let mut grads = Grads::new(&model);
        let mut steps = |optimizer: &mut dyn Optimizer<f32>| {
            for t in 0..3 {
                // Signs that change from step to step, and not the same for all.
                let values = grads.values_mut().iter_mut().enumerate();
                values.for_each(|(i, g)| *g = ((i + t * i / 7) as f32).sin() + 0.5);
                optimizer.step(&mut model, &grads).unwrap();
            }
        };
        // What the products keep for every caller is there before.
        steps(&mut *registry.build_optimizer(&spec).unwrap());
        let before = HELD.load(Relaxed);
        let mut optimizer = registry.build_optimizer(&spec).unwrap();
        steps(&mut *optimizer);
        let (held, mut bytes) = (HELD.load(Relaxed) - before, 0);
        let mut visit = |path: &str, name: &str, value: StateValue<&Tensor>| {
            if let StateValue::Values(values) = value {
                bytes += values.len() * size_of::<f32>();
                let one = values.len() == 1; // a number of a whole tensor
                assert!(
                    one || values.data().iter().any(|&v| v != values.data()[0]),
                    "{spec}: {name} of `{path}`"
                );
            }
        };
        optimizer.visit_state(&model, &mut visit).unwrap();
        // What two hold besides: the gradient in one piece; two matrices and two products of the weight with itself.
        let bytes = bytes
            + match spec.kind() {
                "Lbfgs" => size_of::<f32>() * (512 * 512 + 512),
                "Muon" => size_of::<f32>() * 4 * 512 * 512,
                _ => 0,
            };
        assert!((bytes..bytes + 4096).contains(&held), "{spec}: {held} bytes for {bytes} of state");
        let plain = spec.kind() == "Sgd" && spec.get("momentum").is_none();
        assert_eq!(bytes == 0, plain, "{spec}");
    }
}

fn the_promised_memory_is_within_ten_percent_of_what_a_step_holds() {
    let mlp = || Sequential::new().add(Linear::new(256, 256)).add(Relu::new()).add(block(256));
    let rows = |n| [Shape::from([n, 256])];
    let images = |n, c, s| [Shape::from([n, c, s, s])];
    let norms =
        || Sequential::new().add(LayerNorm::new(256)).add(Gelu::new()).add(Dropout::new(0.1)).add(block(256));
    let wide = || {
        let branches = Parallel::concat(1).add(block(256)).add(Linear::new(256, 64)).add(Sigmoid::new());
        Sequential::new().add(Linear::new(256, 256)).add(branches).add(Linear::new(576, 10))
    };
    let nested = || {
        let inner = Residual::new(Parallel::sum().add(block(256)).add(Residual::new(Tanh::new())));
        Sequential::new().add(Residual::new(block(256))).add(inner).add(Residual::new(Sigmoid::new()))
    };
    let resnet = |c| {
        let stem =
            Sequential::new().add(Conv2d::new(3, c, 3).padding(1)).add(BatchNorm2d::new(c)).add(Relu::new());
        let body = (0..3).fold(stem, |model, _| model.add(residual_conv(c)));
        body.add(GlobalAvgPool2d::new()).add(Flatten::new()).add(Linear::new(c, 10))
    };
    let digits = || {
        let conv = |i, o| {
            let conv = Conv2d::new(i, o, 3).padding(1).bias(false);
            Sequential::new().add(conv).add(BatchNorm2d::new(o)).add(Relu::new())
        };
        Sequential::new()
            .add(conv(1, 16))
            .add(conv(16, 32))
            .add(MaxPool2d::new(2))
            .add(conv(32, 64))
            .add(MaxPool2d::new(2))
            .add(Flatten::new())
            .add(Linear::new(256, 10))
    };
    let small_lenet = || {
        Sequential::new()
            .add(Conv2d::new(1, 6, 5).padding(2))
            .add(Tanh::new())
            .add(AvgPool2d::new(2))
            .add(Conv2d::new(6, 16, 5))
            .add(Tanh::new())
            .add(MaxPool2d::new([3, 2]).stride(2))
            .add(Flatten::new())
    };
    let lenet = LeNet::new(1, 10);
    let resnet18 = ResNet { stem: Stem::Cifar, ..ResNet::resnet18(10) };
    let unet = |width| UNet { width, ..UNet::new(1, 4) };
    let reflected = || {
        Sequential::new()
            .add(Conv2d::new(3, 8, 3).padding(1).padding_mode(PaddingMode::Reflect))
            .add(Relu::new())
    };
    let text =
        || Sequential::new().add(Embedding::new(1000, 64)).add(Flatten::new()).add(Linear::new(64 * 32, 10));
    let mut frozen = Sequential::new().named("body", block(256)).named("head", block(256));
    frozen.set_frozen(true, &|path| path.starts_with("body"));
    let computed = || {
        Sequential::new()
            .add(WeightNorm::new(Linear::new(256, 256)))
            .add(SpectralNorm::new(Linear::new(256, 256)))
            .add(Pruned::new(Linear::new(256, 256)))
            .add(Lora::new(Linear::new(256, 256), 16).dropout(0.5))
    };
    let again = || Recompute::new().repeat(6, Residual::new(norms()));
    let kinds = || {
        let model = Recompute::new().add(Linear::new(256, 256)).add(BatchNorm1d::new(256));
        model.repeat(3, Residual::new(block(256))).add(Linear::new(256, 10))
    };
    let steps = || TimeDistributed::new(mlp());
    for threads in [1, 2] {
        par::with_threads(threads, || {
            let mut cases = vec![
                ("small", measure(mlp(), &rows(2), 3)),
                ("mlp", measure(mlp(), &rows(512), 3)),
                ("norms", measure(norms(), &rows(512), 3)),
                ("residual", measure(Residual::new(block(256)), &rows(512), 3)),
                ("parallel", measure(wide(), &rows(512), 3)),
                ("nested", measure(nested(), &rows(512), 3)),
                ("graph", measure(graph(256), &[Shape::from([512, 256]); 2], 3)),
                ("computed weights", measure(computed(), &rows(128), 3)),
                ("frozen", measure(frozen.clone(), &rows(512), 3)),
                ("digits", measure(digits(), &images(64, 1, 8), 3)),
                ("lenet", measure(small_lenet(), &images(32, 1, 28), 3)),
                ("LeNet", measure(lenet.build().unwrap(), &images(32, 1, 28), 3)),
                ("LeNet of one image", measure(lenet.build().unwrap(), &images(1, 1, 28), 3)),
                ("the example's digits", measure(network::<f32>(), &images(64, 1, 8), 3)),
                ("ResNet-18", measure(resnet18.build(), &images(2, 3, 32), 3)),
                ("ResNet-20", measure(ResNet::cifar(10).build(), &images(8, 3, 32), 3)),
                ("U-Net", measure(unet(vec![16, 32, 64, 128, 256]).build(), &images(2, 1, 64), 3)),
                ("U-Net of three levels", measure(unet(vec![8, 16, 32]).build(), &images(16, 1, 32), 3)),
                ("resnet 16", measure(resnet(16), &images(16, 3, 32), 3)),
                ("resnet 8", measure(resnet(8), &images(16, 3, 32), 3)),
                ("resnet of one image", measure(resnet(16), &images(1, 3, 32), 3)),
                ("reflected", measure(reflected(), &images(16, 3, 32), 3)),
                ("computed again", measure(again(), &rows(512), 3)),
                ("computed again, of several kinds", measure(kinds(), &rows(512), 3)),
                ("steps of a sequence", measure(steps(), &[Shape::from([32, 16, 256])], 3)),
                ("embedding", measure(text(), &[Shape::from([64, 32])], 3)),
            ];
            cases.retain(|(what, [held, promised])| {
                let ratio = *promised as f64 / *held as f64;
                println!("{what}: {held} {promised} {ratio:.3}");
                !(0.9..=1.1).contains(&ratio)
            });
            assert!(cases.is_empty(), "with {threads} threads, held and promised: {cases:?}");
        });
    }
}
