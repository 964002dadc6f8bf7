//! The workloads by name, as functions to be called again and again.

use crate::networks;
use chainrule::{
    prelude::*,
    tensor::kernels::gemm::{Mat, MatMut, matmul},
};

/// One workload, ready to run.
pub type Run = Box<dyn FnMut()>;

/// All names, in order.
pub const NAMES: &[&str] = &[
    "w1_xor_b1",
    "w1_xor_b4",
    "w2_mlp_b32",
    "w2_mlp_b128",
    "w2_mlp512_b128",
    "w3_lenet_b64",
    "w4_cnn32_b32",
    "w7_mlp6_infer",
    "w7_mlp_infer",
    "w7_lenet_infer",
    "w7_cnn32_infer",
    "w8_gemm1024_f",
    "w8_gemm1024_fb",
    "w8_gemm256_f",
    "w8_gemm256_fb",
    "w8_conv_64x32_k3_f",
    "w8_conv_64x32_k3_fb",
    "w8_conv_128x16_k3_f",
    "w8_conv_128x16_k3_fb",
    "w8_conv_256x8_k3_f",
    "w8_conv_256x8_k3_fb",
    "w8_conv_64x32_k1_f",
    "w8_conv_64x32_k1_fb",
    "w8_conv_3x64_k5s2_f",
    "w8_conv_3x64_k5s2_fb",
    "w8_conv_dw64x32_k3_f",
    "w8_conv_dw64x32_k3_fb",
    "w8_maxpool2_f",
    "w8_maxpool2_fb",
    "w8_batchnorm_f",
    "w8_batchnorm_fb",
    "w8_layernorm_f",
    "w8_layernorm_fb",
    "w8_softmax_f",
    "w8_softmax_fb",
    "w8_embedding_f",
    "w8_embedding_fb",
    "w8_adam_1m",
];

/// Builds a workload; `None` for a name that is not in [`NAMES`].
///
/// # Errors
/// A layer does not fit: a mistake in this file.
pub fn build(name: &str) -> Result<Option<Run>> {
    Ok(Some(match name {
        "w1_xor_b1" => regression(networks::xor(), 1)?,
        "w1_xor_b4" => regression(networks::xor(), 4)?,
        "w2_mlp_b32" => training(networks::mlp(&[784, 128, 64, 10]), &[32, 784], Adam::new(1e-3))?,
        "w2_mlp_b128" => training(networks::mlp(&[784, 128, 64, 10]), &[128, 784], Adam::new(1e-3))?,
        "w2_mlp512_b128" => training(networks::mlp(&[784, 512, 512, 10]), &[128, 784], Adam::new(1e-3))?,
        "w3_lenet_b64" => training(networks::lenet(), &[64, 1, 28, 28], Sgd::new(0.01).momentum(0.9))?,
        "w4_cnn32_b32" => training(networks::cnn32(), &[32, 3, 32, 32], AdamW::new(1e-3))?,
        "w7_mlp6_infer" => inference(networks::mlp(&[6, 64, 8, 4]), &[1, 6])?,
        "w7_mlp_infer" => inference(networks::mlp(&[784, 128, 64, 10]), &[1, 784])?,
        "w7_lenet_infer" => inference(networks::lenet(), &[1, 1, 28, 28])?,
        "w7_cnn32_infer" => inference(networks::cnn32(), &[1, 3, 32, 32])?,
        "w8_adam_1m" => adam(1 << 20)?,
        _ => {
            let Some((layer, backward)) = name
                .strip_suffix("_fb")
                .map(|n| (n, true))
                .or_else(|| name.strip_suffix("_f").map(|n| (n, false)))
            else {
                return Ok(None);
            };
            match layer.strip_prefix("w8_").unwrap_or_default() {
                "gemm1024" => product(1024, backward),
                "gemm256" => product(256, backward),
                "conv_64x32_k3" => single(Conv2d::new(64, 64, 3).padding(1), &[16, 64, 32, 32], backward)?,
                "conv_128x16_k3" => {
                    single(Conv2d::new(128, 128, 3).padding(1), &[16, 128, 16, 16], backward)?
                }
                "conv_256x8_k3" => single(Conv2d::new(256, 256, 3).padding(1), &[16, 256, 8, 8], backward)?,
                "conv_64x32_k1" => single(Conv2d::new(64, 128, 1), &[16, 64, 32, 32], backward)?,
                "conv_3x64_k5s2" => {
                    single(Conv2d::new(3, 32, 5).stride(2).padding(2), &[16, 3, 64, 64], backward)?
                }
                "conv_dw64x32_k3" => {
                    single(Conv2d::new(64, 64, 3).padding(1).groups(64), &[16, 64, 32, 32], backward)?
                }
                "maxpool2" => single(MaxPool2d::new(2), &[16, 64, 32, 32], backward)?,
                "batchnorm" => batchnorm(backward)?,
                "layernorm" => single(LayerNorm::new(256), &[4096, 256], backward)?,
                "softmax" => single(Softmax::new(-1), &[4096, 1024], backward)?,
                "embedding" => embedding(backward)?,
                _ => return Ok(None),
            }
        }
    }))
}

/// Standard normal numbers.
pub fn normal(shape: &[usize]) -> Result<Tensor> {
    let mut x = Tensor::zeros(Shape::new(shape)?);
    Rng::new(1).fill_normal(x.data_mut());
    Ok(x)
}

/// A whole training step: zero the gradients, forward, loss, backward, optimizer.
pub fn step<M: Layer<f32> + 'static, L: Loss<f32> + 'static>(
    model: M,
    x: Tensor,
    loss: L,
    target: Labels,
    mut optimizer: impl Optimizer<f32> + 'static,
) -> Result<Run> {
    let mut model = model.init(1)?;
    let mut grads = Grads::new(&model);
    let (mut y, mut dy, mut cache) = (Tensor::default(), Tensor::default(), M::Cache::default());
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        let mut once = || -> Result<()> {
            grads.zero();
            model.forward(&x, &mut y, &mut cache, &mut Context::train(1).step(number))?;
            let target = match &target {
                Labels::Classes(c) => Target::Classes(c),
                Labels::Values(t) => Target::Values(t),
            };
            loss.value_and_gradient(&y, target, &mut dy)?;
            model.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, None)?;
            optimizer.step(&mut model, &grads)?;
            model.absorb(&cache);
            Ok(())
        };
        once().expect("a workload fits together");
    }))
}

/// Targets of a workload.
pub enum Labels {
    /// Classes.
    Classes(Vec<usize>),
    /// Numbers.
    Values(Tensor),
}

fn training(model: Sequential, input: &[usize], optimizer: impl Optimizer<f32> + 'static) -> Result<Run> {
    let classes = (0..input[0]).map(|i| (i * 7919 + 13) % 10).collect();
    step(model, normal(input)?, CrossEntropy::new(), Labels::Classes(classes), optimizer)
}

fn regression(model: Sequential, batch: usize) -> Result<Run> {
    let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);
    let rows = if batch == 1 { 1..2 } else { 0..4 };
    let (x, t) = (x.rows(rows.start, rows.end), t.rows(rows.start, rows.end));
    step(model, x, Mse::new(), Labels::Values(t), Sgd::new(0.1))
}

/// Inference that keeps its memory from call to call.
fn inference(model: Sequential, input: &[usize]) -> Result<Run> {
    let (model, x) = (model.init(1)?, normal(input)?);
    let (mut y, mut cache) = (Tensor::default(), <Sequential as Layer<f32>>::Cache::default());
    Ok(Box::new(move || {
        model.forward(&x, &mut y, &mut cache, &mut Context::infer()).expect("a workload fits together");
    }))
}

/// One layer: forward in inference, or forward and backward with ∂E/∂y of ones.
fn layer<L: Layer<f32> + 'static>(
    layer: L,
    x: Tensor,
    backward: bool,
    want_dx: bool,
    train: bool,
) -> Result<Run> {
    let layer = layer.init(1)?;
    let mut grads = Grads::new(&layer);
    let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), L::Cache::default());
    let dy = Tensor::full(layer.output_shape(x.shape())?, 1.0);
    Ok(Box::new(move || {
        let mut cx = if backward || train { Context::train(1) } else { Context::infer() };
        layer.forward(&x, &mut y, &mut cache, &mut cx).expect("a workload fits together");
        if backward {
            grads.zero();
            let call = Call { x: &x, y: &y, dy: &dy };
            layer
                .backward(call, &mut cache, &mut grads, want_dx.then_some(&mut dx))
                .expect("a workload fits together");
        }
    }))
}

fn single<L: Layer<f32> + 'static>(l: L, input: &[usize], backward: bool) -> Result<Run> {
    layer(l, normal(input)?, backward, true, false)
}

/// Batch norm is measured in training mode, forward alone too.
fn batchnorm(backward: bool) -> Result<Run> {
    layer(BatchNorm2d::new(64), normal(&[16, 64, 32, 32])?, backward, true, true)
}

fn embedding(backward: bool) -> Result<Run> {
    let mut rng = Rng::new(2);
    let ids = Tensor::from_fn([4096], |_| rng.below(10_000) as f32);
    layer(Embedding::new(10_000, 256), ids, backward, false, false)
}

/// C = A B, and both gradients for an incoming one of ones.
fn product(n: usize, backward: bool) -> Run {
    let numbers = |seed| {
        let mut v = vec![0.0f32; n * n];
        Rng::new(seed).fill_normal(&mut v);
        v
    };
    let (a, b, ones) = (numbers(1), numbers(2), vec![1.0f32; n * n]);
    let (mut c, mut da, mut db) = (vec![0.0f32; n * n], vec![0.0f32; n * n], vec![0.0f32; n * n]);
    Box::new(move || {
        let m = |v| Mat::new(v, n, n);
        matmul(1.0, m(&a), m(&b), 0.0, MatMut::new(&mut c, n, n)); // C = A B
        if backward {
            matmul(1.0, m(&ones), m(&b).t(), 0.0, MatMut::new(&mut da, n, n)); // dA = dC Bᵀ
            matmul(1.0, m(&a).t(), m(&ones), 0.0, MatMut::new(&mut db, n, n)); // dB = Aᵀ dC
        }
    })
}

/// One Adam step over a single parameter.
fn adam(n: usize) -> Result<Run> {
    let mut model: Linear = Linear::new(n, 1).bias(false).init(1)?;
    let mut grads = Grads::new(&model);
    Rng::new(3).fill_normal(grads.values_mut());
    let mut optimizer = Adam::new(1e-3);
    Ok(Box::new(move || optimizer.step(&mut model, &grads).expect("a workload fits together")))
}
