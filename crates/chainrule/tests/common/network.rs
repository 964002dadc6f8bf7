//! A network that several tests train.

use chainrule::prelude::*;

/// The network of the `digits` example: convolutions, normalisation, pooling, dropout.
pub fn network<T: Scalar>() -> Sequential<T> {
    Sequential::of()
        .add(Conv2d::new(1, 16, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(16))
        .add(Relu::new())
        .add(Conv2d::new(16, 32, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(32))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 64, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(64))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.3))
        .add(Linear::new(256, 10))
}
