//! PyTorch's layers as ours, from their arguments alone.

use crate::{Step, Stop, args::Args, module::Built};
use chainrule_core::{BoxLayer, Layer, Scalar, Shape};
use chainrule_layers as ours;

/// The layer of a module; `None` if the library does not have it.
pub fn build<T: Scalar>(module: &str, a: &Args) -> Step<Option<Built<T>>> {
    a.ignore(&["inplace"]);
    Ok(Some(match module {
        "Linear" => {
            any(ours::Linear::new(a.usize("in_features")?, a.usize("out_features")?).bias(a.bool("bias")?))
        }
        "Embedding" => {
            // The numbers come with the parameters; norm_type matters with max_norm alone, which must be off.
            a.ignore(&["norm_type", "sparse", "_weight"]);
            let rows = a.usize("num_embeddings")?;
            let layer = ours::Embedding::new(rows, a.usize("embedding_dim")?);
            if a.is_none("padding_idx")? {
                any(layer)
            } else {
                let row = a.isize("padding_idx")?;
                let from_the_end = rows.saturating_sub(row.unsigned_abs());
                any(layer.padding_idx(if row < 0 { from_the_end } else { row as usize }))
            }
        }
        "Conv2d" => images(conv2d(a)?),
        "MaxPool2d" => {
            let layer = ours::MaxPool2d::new(a.pair("kernel_size")?)
                .padding(a.pair("padding")?)
                .dilation(a.pair("dilation")?)
                .ceil_mode(a.bool("ceil_mode")?);
            a.ignore(&["return_indices"]);
            images(if a.is_none("stride")? { layer } else { layer.stride(a.pair("stride")?) })
        }
        "AvgPool2d" => {
            let mut layer = ours::AvgPool2d::new(a.pair("kernel_size")?)
                .padding(a.pair("padding")?)
                .ceil_mode(a.bool("ceil_mode")?)
                .count_include_pad(a.bool("count_include_pad")?);
            if !a.is_none("stride")? {
                layer = layer.stride(a.pair("stride")?);
            }
            if !a.is_none("divisor_override")? {
                layer = layer.divisor_override(a.usize("divisor_override")?);
            }
            images(layer)
        }
        "AdaptiveAvgPool2d" => images(ours::AdaptiveAvgPool2d::new(a.optional_pair("output_size")?)),
        "Flatten" => any(ours::Flatten::new().start_dim(a.isize("start_dim")?).end_dim(a.isize("end_dim")?)),
        "BatchNorm1d" => any(ours::BatchNorm1d::new(a.usize("num_features")?)
            .eps(a.f64("eps")?)
            .momentum(momentum(a)?)
            .affine(a.bool("affine")?)
            .bias(a.bool("bias")?)
            .track_running_stats(a.bool("track_running_stats")?)),
        "BatchNorm2d" => images(
            ours::BatchNorm2d::new(a.usize("num_features")?)
                .eps(a.f64("eps")?)
                .momentum(momentum(a)?)
                .affine(a.bool("affine")?)
                .bias(a.bool("bias")?)
                .track_running_stats(a.bool("track_running_stats")?),
        ),
        "LayerNorm" => any(ours::LayerNorm::new(Shape::new(&a.list("normalized_shape")?)?)
            .eps(a.f64("eps")?)
            .elementwise_affine(a.bool("elementwise_affine")?)
            .bias(a.bool("bias")?)),
        "ReLU" => any(ours::Relu::new()),
        "LeakyReLU" => any(ours::LeakyRelu::new().negative_slope(a.f64("negative_slope")?)),
        "ELU" => any(ours::Elu::new().alpha(a.f64("alpha")?)),
        "GELU" => match a.str("approximate")? {
            "none" => any(ours::Gelu::new()),
            "tanh" => any(ours::Gelu::new().approximate_tanh()),
            other => return Err(Stop::Skip(format!("argument approximate = {other}"))),
        },
        "SiLU" => any(ours::Silu::new()),
        "Sigmoid" => any(ours::Sigmoid::new()),
        "Tanh" => any(ours::Tanh::new()),
        "Softplus" => any(ours::Softplus::new().beta(a.f64("beta")?).threshold(a.f64("threshold")?)),
        "Softmax2d" => images(ours::Softmax::new(-3)),
        "Softmax" => any(ours::Softmax::new(a.isize("dim")?)),
        "LogSoftmax" => any(ours::LogSoftmax::new(a.isize("dim")?)),
        "Dropout" => match a.f64("p")? {
            0.0 => any(ours::Dropout::new(0.0)),
            p => return Err(Stop::Skip(format!("argument p = {p}: its noise is drawn"))),
        },
        "Identity" => {
            a.ignore(&["args", "kwargs"]);
            any(ours::Identity::new())
        }
        _ => return Ok(None),
    }))
}

/// A layer for inputs of any number of axes.
fn any<T: Scalar>(layer: impl Layer<T> + Clone + 'static) -> Built<T> {
    Built::Layer(BoxLayer::new(layer), None)
}

/// A layer for N C H W.
fn images<T: Scalar>(layer: impl Layer<T> + Clone + 'static) -> Built<T> {
    Built::Layer(BoxLayer::new(layer), Some(4))
}

/// `None` averages over all batches.
fn momentum(a: &Args) -> Step<Option<f64>> {
    if a.is_none("momentum")? { Ok(None) } else { a.f64("momentum").map(Some) }
}

fn conv2d<T: Scalar>(a: &Args) -> Step<ours::Conv2d<T>> {
    let layer = ours::Conv2d::new(a.usize("in_channels")?, a.usize("out_channels")?, a.pair("kernel_size")?)
        .stride(a.pair("stride")?)
        .dilation(a.pair("dilation")?)
        .groups(a.usize("groups")?)
        .bias(a.bool("bias")?)
        .padding_mode(match a.str("padding_mode")? {
            "zeros" => ours::PaddingMode::Zeros,
            "reflect" => ours::PaddingMode::Reflect,
            "replicate" => ours::PaddingMode::Replicate,
            "circular" => ours::PaddingMode::Circular,
            other => return Err(Stop::Skip(format!("argument padding_mode = {other}"))),
        });
    Ok(match a.value("padding")?.as_str() {
        Some("same") => layer.padding(ours::Padding::Same),
        Some("valid") => layer.padding(ours::Padding::Valid),
        _ => layer.padding(a.pair("padding")?),
    })
}
