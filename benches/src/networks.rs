//! The networks of the workloads.

use chainrule::{
    layers::{FeedForwardActivation, Graph, Gru, Lstm, TransformerEncoder, TransformerEncoderLayer},
    models::{Gpt, GptModel, MobileNetV2, ResNet, UNet},
    prelude::*,
};

/// Linear layers of the given sizes with ReLU between them.
pub fn mlp(sizes: &[usize]) -> Sequential {
    let mut model = Sequential::new();
    for (i, pair) in sizes.windows(2).enumerate() {
        model = model.add(Linear::new(pair[0], pair[1]));
        if i + 2 < sizes.len() {
            model = model.add(Relu::new());
        }
    }
    model
}

/// 2-3-1 with tanh after both.
pub fn xor() -> Sequential {
    Sequential::new().add(Linear::new(2, 3)).add(Tanh::new()).add(Linear::new(3, 1)).add(Tanh::new())
}

/// LeNet on 1×28×28.
pub fn lenet() -> Sequential {
    Sequential::new()
        .add(Conv2d::new(1, 6, 5).padding(2))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(6, 16, 5))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Linear::new(400, 120))
        .add(Relu::new())
        .add(Linear::new(120, 84))
        .add(Relu::new())
        .add(Linear::new(84, 10))
}

/// Six 3×3 convolutions with batch norm on 3×32×32, at 32, 64 and 128 channels.
pub fn cnn32() -> Sequential {
    let mut model = Sequential::new();
    let mut inputs = 3;
    for (stage, channels) in [32, 64, 128].into_iter().enumerate() {
        for _ in 0..2 {
            model = model
                .add(Conv2d::new(inputs, channels, 3).padding(1).bias(false))
                .add(BatchNorm2d::new(channels))
                .add(Relu::new());
            inputs = channels;
        }
        if stage < 2 {
            model = model.add(MaxPool2d::new(2));
        }
    }
    model.add(GlobalAvgPool2d::new()).add(Flatten::new()).add(Linear::new(128, 10))
}

/// ResNet-18 with the first layer for 3×32×32.
pub fn resnet18() -> Sequential {
    ResNet { width: vec![64, 128, 256, 512], blocks: vec![2; 4], ..ResNet::cifar(10) }.build()
}

/// MobileNetV2 on 3×32×32.
pub fn mobilenet() -> Sequential {
    MobileNetV2::new(10).build()
}

/// A U-Net of four levels on 3×64×64, three classes.
pub fn unet() -> Graph {
    UNet { width: vec![32, 64, 128, 256], ..UNet::new(3, 3) }.build()
}

/// LSTM(64, 256), then a map to 64 classes at every step.
pub fn lstm() -> Sequential {
    Sequential::new().add(Lstm::new(64, 256)).add(Linear::new(256, 64))
}

/// GRU(64, 256), then a map to 64 classes at every step.
pub fn gru() -> Sequential {
    Sequential::new().add(Gru::new(64, 256)).add(Linear::new(256, 64))
}

/// A layer of 8 heads over 256, its norms first, with GELU and without dropout.
fn block() -> TransformerEncoderLayer {
    TransformerEncoderLayer::new(256, 8)
        .dim_feedforward(1024)
        .dropout(0.0)
        .activation(FeedForwardActivation::Gelu)
        .norm_first(true)
}

/// One causal layer of a transformer, then a map to 96 classes at every position.
pub fn transformer() -> Sequential {
    Sequential::new().add(block().causal(true)).add(Linear::new(256, 96))
}

/// Four layers that see all positions, then a map to 96 classes.
pub fn encoder() -> Sequential {
    Sequential::new().add(TransformerEncoder::new(block(), 4)).add(Linear::new(256, 96))
}

/// A GPT of six layers of 384, 512 positions and 256 tokens.
pub fn gpt() -> GptModel {
    Gpt { layers: 6, ..Gpt::new(256, 512, 384, 6) }.build()
}
