//! The workloads by name, as functions to be called again and again.

use crate::{layers, losses, networks, optimizers};
use chainrule::{
    core::{Call, Grads, ModuleCall, Objective, Pass, Session, Targets},
    layers::ScaledDotProductAttention,
    models::GptModel,
    prelude::*,
    tensor::kernels::gemm::{Mat, MatMut, matmul},
};

/// One workload, ready to run.
pub type Run = Box<dyn FnMut()>;

/// All names, in order: those of `workloads.txt` that are not of the peers alone.
pub fn names() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../workloads.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.ends_with(" peers")).filter_map(|line| line.split(' ').next())
}

/// The names that contain a filter, whatever its case; of a whole name it alone.
///
/// # Errors
/// There is none.
pub fn matching(filter: &str) -> Result<Vec<&'static str>> {
    let filter = filter.to_lowercase();
    if let Some(name) = names().find(|name| *name == filter) {
        return Ok(vec![name]);
    }
    let found: Vec<&str> = names().filter(|name| name.contains(&filter)).collect();
    if found.is_empty() {
        return Err(Error::value(format!("no workload matches `{filter}`: `list` prints their names")));
    }
    Ok(found)
}

/// Builds a workload; `None` for a name that is not among [`names`].
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
        "w5_lstm_b32" => sequence(networks::lstm(), [32, 64, 64], 64, Adam::new(1e-3))?,
        "w5_gru_b32" => sequence(networks::gru(), [32, 64, 64], 64, Adam::new(1e-3))?,
        "w6_transformer_b8" => sequence(networks::transformer(), [8, 128, 256], 96, AdamW::new(1e-3))?,
        "w6_encoder_t512" => sequence(networks::encoder(), [2, 512, 256], 96, AdamW::new(1e-3))?,
        "w6_attention_t128_fb" => attention(8, 128)?,
        "w6_attention_t512_fb" => attention(4, 512)?,
        "w6_attention_t2048_fb" => attention(1, 2048)?,
        "w6_gpt_token_16" => token(networks::gpt(), 16)?,
        "w6_gpt_token_500" => token(networks::gpt(), 500)?,
        "w7_mlp6_infer" => inference(networks::mlp(&[6, 64, 8, 4]), &[1, 6])?,
        "w7_mlp_infer" => inference(networks::mlp(&[784, 128, 64, 10]), &[1, 784])?,
        "w7_lenet_infer" => inference(networks::lenet(), &[1, 1, 28, 28])?,
        "w7_cnn32_infer" => inference(networks::cnn32(), &[1, 3, 32, 32])?,
        "w7_resnet18_infer" => inference(networks::resnet18(), &[1, 3, 32, 32])?,
        "w7_mobilenet_infer" => inference(networks::mobilenet(), &[1, 3, 32, 32])?,
        "w7_unet_infer" => inference(networks::unet(), &[1, 3, 64, 64])?,
        "w8_adam_1m" => adam(1 << 20)?,
        "w9_resnet18_b16" => training(networks::resnet18(), &[16, 3, 32, 32], Sgd::new(0.01).momentum(0.9))?,
        "w9_mobilenet_b16" => {
            training(networks::mobilenet(), &[16, 3, 32, 32], Sgd::new(0.01).momentum(0.9))?
        }
        "w9_unet_b4" => {
            let labels =
                Targets::Classes { indices: classes(4 * 64 * 64, 3), shape: Shape::new(&[4, 64, 64])? };
            step(networks::unet(), normal(&[4, 3, 64, 64])?, CrossEntropy::new(), labels, AdamW::new(1e-3))?
        }
        _ if name.starts_with("loss_") => return losses::build(name),
        _ if name.starts_with("opt_") => return optimizers::build(name),
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
                layer if backward => return layers::build(layer),
                _ => return Ok(None),
            }
        }
    }))
}

/// Standard normal values.
pub fn normal(shape: &[usize]) -> Result<Tensor> {
    let mut x = Tensor::zeros(Shape::new(shape)?);
    Rng::new(1).fill_normal(x.data_mut());
    Ok(x)
}

/// A whole training step: forward, loss, backward from zero gradients, optimizer.
pub fn step<M: Module<T = f32> + 'static>(
    model: M,
    x: Tensor,
    loss: impl Objective<T = f32> + 'static,
    target: Targets<f32>,
    mut optimizer: impl Optimizer<f32> + 'static,
) -> Result<Run> {
    let mut model = model.init(1)?;
    let mut pass = Pass::new(&model);
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        let mut once = || -> Result<()> {
            pass.forward(&model, &x, Context::train(1).step(number))?;
            pass.loss(&loss, &target)?;
            pass.backward(&model, &x)?;
            pass.update(&mut model, &mut optimizer)
        };
        once().expect("a workload fits together");
    }))
}

fn training(model: Sequential, input: &[usize], optimizer: impl Optimizer<f32> + 'static) -> Result<Run> {
    step(model, normal(input)?, CrossEntropy::new(), Targets::classes(classes(input[0], 10)), optimizer)
}

fn classes(n: usize, of: usize) -> Vec<usize> {
    (0..n).map(|i| (i * 7919 + 13) % of).collect()
}

/// A step of training whose logits (N, T, C) have a class at every position.
fn sequence(
    model: Sequential,
    input: [usize; 3],
    of: usize,
    optimizer: impl Optimizer<f32> + 'static,
) -> Result<Run> {
    let [n, t, _] = input;
    let labels = Targets::Classes { indices: classes(n * t, of), shape: Shape::new(&[n, t])? };
    step(model, normal(&input)?, CrossEntropy::new().classes_last(true), labels, optimizer)
}

/// Causal attention of 8 heads of 32, forward with all gradients.
fn attention(n: usize, t: usize) -> Result<Run> {
    let layer = ScaledDotProductAttention::new().causal(true);
    let shape = [n, 8, t, 32];
    let xs = [normal(&shape)?, normal(&shape)?, normal(&shape)?];
    let dy = Tensor::full(shape, 1.0);
    let (mut ys, mut state) = (vec![Tensor::default()], Default::default());
    let (mut dxs, mut grads) =
        ([Tensor::default(), Tensor::default(), Tensor::default()], Grads::new(&layer));
    Ok(Box::new(move || {
        let xs = xs.each_ref();
        let mut once = || -> Result<()> {
            layer.apply(&xs, &mut ys, &mut state, Context::train(1))?;
            let dys = [Some(&dy)];
            let call = ModuleCall::recorded(&xs, &ys, &dys)?;
            layer.pull(call, &mut state, &mut grads, &mut dxs.each_mut().map(Some))
        };
        once().expect("a workload fits together");
    }))
}

/// The next token of a sequence of this length, with the cache of keys and values.
fn token(model: GptModel, position: usize) -> Result<Run> {
    let model = model.init(1)?;
    let ids = |n: usize| Tensor::from_fn([1, n], |i| ((i * 31) % 256) as f32);
    let (mut session, prompt, next) = (Session::new(Box::new(model)), ids(position), ids(1));
    // The stream goes back to the prompt every twelve tokens.
    let (mut at, most) = (usize::MAX, position + 12);
    Ok(Box::new(move || {
        if at >= most {
            session.reset();
            session.stream(&prompt).expect("a workload fits together");
            at = position;
        }
        session.stream(&next).expect("a workload fits together");
        at += 1;
    }))
}

fn regression(model: Sequential, batch: usize) -> Result<Run> {
    let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);
    let rows = if batch == 1 { 1..2 } else { 0..4 };
    let (x, t) = (x.rows(rows.start, rows.end), t.rows(rows.start, rows.end));
    step(model, x, Mse::new(), Targets::Values(t), Sgd::new(0.1))
}

/// Inference that keeps its memory from call to call.
fn inference<M: Module<T = f32> + 'static>(model: M, input: &[usize]) -> Result<Run> {
    let (mut session, x) = (Session::new(Box::new(model.init(1)?)), normal(input)?);
    Ok(Box::new(move || {
        session.run(&x).expect("a workload fits together");
    }))
}

/// One layer: forward in inference, or forward and backward with ∂E/∂y of ones.
fn layer<L: Layer<T = f32> + 'static>(
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
        let cx = if backward || train { Context::train(1) } else { Context::infer() };
        layer.forward(&x, &mut y, &mut cache, cx).expect("a workload fits together");
        if backward {
            grads.zero();
            Call::recorded(&x, &y, &dy)
                .and_then(|call| layer.backward(call, &mut cache, &mut grads, want_dx.then_some(&mut dx)))
                .expect("a workload fits together");
        }
    }))
}

/// One layer: forward in inference, or forward and backward with ∂E/∂x.
///
/// # Errors
/// The layer does not fit.
pub fn single<L: Layer<T = f32> + 'static>(l: L, input: &[usize], backward: bool) -> Result<Run> {
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
    let values = |seed| {
        let mut v = vec![0.0f32; n * n];
        Rng::new(seed).fill_normal(&mut v);
        v
    };
    let (a, b, ones) = (values(1), values(2), vec![1.0f32; n * n]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_built_and_a_filter_has_no_case() {
        // Building the large ones takes memory, not time.
        names().for_each(|name| assert!(build(name).unwrap().is_some(), "{name}"));
        assert!(build("w0").unwrap().is_none());
        assert_eq!(matching("W1_XOR_b1").unwrap(), ["w1_xor_b1"]);
        assert_eq!(matching("MLP_inf").unwrap(), ["w7_mlp_infer"]);
        assert_eq!(matching("").unwrap().len(), names().count());
        assert!(matching("w0").unwrap_err().to_string().contains("`w0`"));
    }
}
