//! Training where there is no operating system: XOR and a small convolution through the trainer, without clock, threads or
//! files. `.ci/wasm` builds it for `wasm32-unknown-unknown` and runs it in Node.js; it fails where it does not learn.
//!
//! `cargo run --release --example wasm`

use chainrule::prelude::*;

fn main() -> Result<()> {
    xor()?;
    stripes()
}

fn learned(what: &str, accuracy: Option<f64>) -> Result<()> {
    println!("{what}: accuracy {accuracy:?}");
    match accuracy {
        Some(1.0) => Ok(()),
        other => Err(Error::value(format!("{what}: expected an accuracy of 1, got {other:?}"))),
    }
}

/// Four points, two classes.
fn xor() -> Result<()> {
    let x = Tensor::from([[0.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let data = Dataset::classification(x, [0, 1, 1, 0], 2)?;
    let model = Sequential::new().add(Linear::new(2, 8)).add(Tanh::new()).add(Linear::new(8, 2)).init(1)?;
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(0.05)).epochs(200);
    trainer.fit(&data)?;
    learned("XOR", trainer.evaluate(&data)?.accuracy())
}

/// Images of 6 × 6 with stripes along one axis or the other, and noise.
fn stripes() -> Result<()> {
    let (mut rng, n) = (Rng::new(2), 64);
    let x = Tensor::from_fn([n, 1, 6, 6], |i| {
        let (image, row, column) = (i / 36, i / 6 % 6, i % 6);
        let along = if image % 2 == 0 { row } else { column };
        ((along + image / 2) % 2) as f32 + 0.3 * rng.normal() as f32
    });
    let data = Dataset::classification(x, (0..n).map(|image| image % 2).collect::<Vec<_>>(), 2)?;
    let model = Sequential::new()
        .add(Conv2d::new(1, 4, 3).padding(1))
        .add(BatchNorm2d::new(4))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.1))
        .add(Linear::new(36, 2))
        .init(3)?;
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(0.01)).epochs(20).batch_size(16);
    let history = trainer.fit(&data)?;
    println!("{history}");
    learned("stripes", trainer.evaluate(&data)?.accuracy())
}
