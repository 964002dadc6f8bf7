//! Layers of the feed-forward catalogue, each at three sizes.

use crate::workloads::{Run, single};
use chainrule::{
    core::{Grads, ModuleCall},
    layers::{
        AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool3d, Conv1d, Conv3d, ConvTranspose2d, EmbeddingBag,
        Geglu, Glu, GroupNorm, InstanceNorm2d, MaxPool3d, RmsNorm, Swiglu, Upsample, UpsampleMode,
    },
    prelude::*,
};

/// `kind_s`, `kind_m` or `kind_l`, forward with all gradients; `None` for another name.
///
/// # Errors
/// A layer does not fit: a mistake in this file.
pub fn build(name: &str) -> Result<Option<Run>> {
    let Some((kind, size)) = name.rsplit_once('_') else { return Ok(None) };
    let Some(size) = ["s", "m", "l"].iter().position(|&letter| letter == size) else { return Ok(None) };
    let images = [[8, 32, 14, 14], [16, 64, 32, 32], [16, 128, 56, 56]][size];
    let volumes = [[2, 16, 8, 16, 16], [4, 32, 16, 32, 32], [4, 32, 16, 56, 56]][size];
    let small = [[8, 32, 8, 8], [16, 64, 16, 16], [8, 64, 64, 64]][size];
    let (rows, gated) =
        ([[256, 128], [4096, 256], [4096, 1024]][size], [[256, 256], [4096, 512], [4096, 2048]][size]);
    let c = images[1];
    let upsample = |mode| Upsample::scale_factor([2.0]).mode(mode);
    Ok(Some(match kind {
        "conv1d" => match size {
            0 => single(Conv1d::new(32, 32, 3).padding(1), &[8, 32, 128], true)?,
            1 => single(Conv1d::new(64, 128, 5).padding(2), &[16, 64, 512], true)?,
            _ => single(Conv1d::new(128, 128, 3).padding(1), &[16, 128, 2048], true)?,
        },
        "conv3d" => match size {
            0 => single(Conv3d::new(8, 16, 3).padding(1), &[2, 8, 8, 16, 16], true)?,
            1 => single(Conv3d::new(16, 32, 3).padding(1), &[4, 16, 16, 16, 16], true)?,
            _ => single(Conv3d::new(32, 32, 3).padding(1), &[4, 32, 16, 32, 32], true)?,
        },
        "convt2d" => match size {
            0 => single(ConvTranspose2d::new(16, 8, 2).stride(2), &[8, 16, 8, 8], true)?,
            1 => single(ConvTranspose2d::new(64, 32, 4).stride(2).padding(1), &[16, 64, 16, 16], true)?,
            _ => {
                let layer = ConvTranspose2d::new(128, 64, 3).stride(2).padding(1).output_padding(1);
                single(layer, &[16, 128, 32, 32], true)?
            }
        },
        "dw7" => {
            let (c, x) = [(32, [4, 32, 14, 14]), (96, [8, 96, 28, 28]), (64, [16, 64, 56, 56])][size];
            single(Conv2d::new(c, c, 7).padding(3).groups(c), &x, true)?
        }
        "adaptiveavg" => single(AdaptiveAvgPool2d::new([7, 5, 7][size]), &images, true)?,
        "adaptivemax" => single(AdaptiveMaxPool2d::new([7, 5, 7][size]), &images, true)?,
        "maxpool3d" if size == 2 => single(MaxPool3d::new(3).stride(2).padding(1), &volumes, true)?,
        "maxpool3d" => single(MaxPool3d::new(2), &volumes, true)?,
        "avgpool3d" if size == 2 => single(AvgPool3d::new(3).stride(2).padding(1), &volumes, true)?,
        "avgpool3d" => single(AvgPool3d::new(2), &volumes, true)?,
        "groupnorm" => single(GroupNorm::new([8, 32, 32][size], c), &images, true)?,
        "instancenorm" => single(InstanceNorm2d::new(c).affine(true), &images, true)?,
        "rmsnorm" => single(RmsNorm::new([rows[1]]), &rows, true)?,
        "layernorm" => single(LayerNorm::new([rows[1]]), &rows, true)?,
        "nearest" => single(upsample(UpsampleMode::Nearest), &small, true)?,
        "bilinear" => single(upsample(UpsampleMode::Bilinear), &small, true)?,
        "embeddingbag" => {
            bags([(1000, 32), (10_000, 64), (50_000, 128)][size], [[128, 8], [1024, 16], [4096, 32]][size])?
        }
        "glu" => single(Glu::new(), &gated, true)?,
        "swiglu" => single(Swiglu::new(), &gated, true)?,
        "geglu" => single(Geglu::new(), &gated, true)?,
        _ => return Ok(None),
    }))
}

/// Means of bags of ids, forward and ∂E/∂W.
fn bags((rows, width): (usize, usize), [n, k]: [usize; 2]) -> Result<Run> {
    let layer: EmbeddingBag = EmbeddingBag::new(rows, width).init(1)?;
    let mut rng = Rng::new(2);
    let ids = Tensor::from_fn([n, k], |_| rng.below(rows) as f32);
    let (mut ys, mut state, mut grads) = ([Tensor::default()], Default::default(), Grads::new(&layer));
    let dy = Tensor::full([n, width], 1.0);
    Ok(Box::new(move || {
        layer.apply(&[&ids], &mut ys, &mut state, Context::train(1)).expect("a workload fits together");
        grads.zero();
        ModuleCall::recorded(&[&ids], &ys, &[Some(&dy)])
            .and_then(|call| layer.pull(call, &mut state, &mut grads, &mut [None]))
            .expect("a workload fits together");
    }))
}
