//! Forward and backward of every layer.

use chainrule::prelude::*;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

/// Forward under training, and backward with ∂E/∂y of ones, wanting ∂E/∂x.
fn bench<L: Layer<f32>>(c: &mut Criterion, name: &str, layer: L, x: &Tensor) {
    let layer = layer.init(1).expect("hyper-parameters that make sense");
    let mut cx = Context::train(1);
    let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), L::Cache::default());
    let mut grads = Grads::new(&layer);
    let mut group = c.benchmark_group(name);
    group.bench_function("forward", |b| {
        b.iter(|| layer.forward(black_box(x), &mut y, &mut cache, &mut cx).expect("a fitting shape"));
    });
    layer.forward(x, &mut y, &mut cache, &mut cx).expect("a fitting shape");
    let dy = Tensor::full(*y.shape(), 1.0);
    group.bench_function("backward", |b| {
        b.iter(|| {
            let call = Call { x: black_box(x), y: &y, dy: &dy };
            layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).expect("recorded")
        });
    });
    group.finish();
}

fn normal(shape: impl Into<Shape>) -> Tensor {
    let mut x = Tensor::zeros(shape);
    Rng::new(1).fill_normal(x.data_mut());
    x
}

fn linear(c: &mut Criterion) {
    bench(c, "Linear", Linear::new(784, 128), &normal([128, 784]));
    let mut rng = Rng::new(2);
    let ids = Tensor::from_fn([4096], |_| rng.below(10_000) as f32);
    bench(c, "Embedding", Embedding::new(10_000, 256), &ids);
    bench(c, "Flatten", Flatten::new(), &normal([32, 16, 8, 8]));
}

fn conv(c: &mut Criterion) {
    bench(c, "Conv2d 3x3 64", Conv2d::new(64, 64, 3).padding(1), &normal([16, 64, 32, 32]));
    bench(c, "Conv2d 1x1", Conv2d::new(64, 128, 1), &normal([16, 64, 32, 32]));
    bench(c, "Conv2d 5x5 first", Conv2d::new(1, 6, 5).padding(2), &normal([64, 1, 28, 28]));
    bench(c, "Conv2d depthwise", Conv2d::new(64, 64, 3).padding(1).groups(64), &normal([16, 64, 32, 32]));
}

fn pool(c: &mut Criterion) {
    let x = normal([16, 64, 32, 32]);
    bench(c, "MaxPool2d", MaxPool2d::new(2), &x);
    bench(c, "AvgPool2d", AvgPool2d::new(2), &x);
    bench(c, "AdaptiveAvgPool2d", AdaptiveAvgPool2d::new(4), &x);
    bench(c, "GlobalAvgPool2d", GlobalAvgPool2d::new(), &x);
}

fn norm(c: &mut Criterion) {
    bench(c, "BatchNorm1d", BatchNorm1d::new(256), &normal([4096, 256]));
    bench(c, "BatchNorm2d", BatchNorm2d::new(64), &normal([16, 64, 32, 32]));
    bench(c, "LayerNorm", LayerNorm::new(256), &normal([4096, 256]));
    bench(c, "Dropout", Dropout::new(0.5), &normal([4096, 256]));
}

fn activation(c: &mut Criterion) {
    let x = normal([256, 1024]);
    bench(c, "Relu", Relu::new(), &x);
    bench(c, "LeakyRelu", LeakyRelu::new(), &x);
    bench(c, "Elu", Elu::new(), &x);
    bench(c, "Gelu", Gelu::new(), &x);
    bench(c, "Silu", Silu::new(), &x);
    bench(c, "Sigmoid", Sigmoid::new(), &x);
    bench(c, "Tanh", Tanh::new(), &x);
    bench(c, "Softplus", Softplus::new(), &x);
    bench(c, "Softmax", Softmax::new(-1), &x);
    bench(c, "LogSoftmax", LogSoftmax::new(-1), &x);
    bench(c, "Identity", Identity::new(), &x);
    bench(c, "Activation", Activation::new(|x: f32| x * x, |x: f32| 2.0 * x), &x);
}

fn container(c: &mut Criterion) {
    let x = normal([128, 64]);
    let two = || Sequential::new().add(Linear::new(64, 64)).add(Relu::new());
    bench(c, "Sequential", two(), &x);
    bench(c, "Residual", Residual::new(two()), &x);
    bench(c, "Parallel", Parallel::sum().add(two()).add(two()), &x);
    let mut graph = Graph::new();
    let input = graph.input();
    let a = graph.add("a", two(), input).expect("a new key");
    let sum = graph.join("sum", Add::new(), &[input, a]).expect("a new key");
    graph.join("side", Concat::new(1), &[sum, a]).expect("a new key");
    bench(c, "Graph with Add and Concat", graph, &x);
}

criterion_group!(layers, linear, conv, pool, norm, activation, container);
criterion_main!(layers);
