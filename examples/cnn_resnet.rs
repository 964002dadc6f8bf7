//! A small residual network on images: CIFAR-10 or CIFAR-100 in their binary format, MNIST's idx files, or else the digits that come
//! with chainrule-data.
//!
//! `cargo run --release --example cnn_resnet -- --data DIR [--images N] [--epochs N]` reads `data_batch_*.bin` and `test_batch.bin`,
//! `train.bin` and `test.bin`, or MNIST's four files from DIR, and trains on N of the images, 10,000 unless given. Without `--data` it trains on
//! the digits. It writes learning curves and misclassified images, in gray, to `target/cnn_resnet/`.

use chainrule::{data::Cifar, models::ResNet, optim::schedule::OneCycle, prelude::*, train::pictures};
use std::{path::Path, process::ExitCode};

/// What follows the name of an argument.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

/// (training part, test part) of whatever the folder holds.
fn read(folder: &Path) -> Result<(Dataset, Dataset)> {
    if folder.join("test_batch.bin").is_file() {
        Cifar::Cifar10.folder(folder)
    } else if folder.join("test.bin").is_file() {
        Cifar::Cifar100.folder(folder)
    } else {
        mnist(folder)
    }
}

fn main() -> ExitCode {
    let data = match argument("--data") {
        Some(folder) => read(folder.as_ref()),
        None => {
            println!("the embedded digits; for CIFAR or MNIST name a folder with --data DIR\n");
            digits().split_stratified(0.2, 1)
        }
    };
    let data = match data {
        Ok(data) => data,
        Err(error) => {
            eprintln!("{error}\nname a folder of CIFAR's binary files or MNIST's with --data DIR");
            return ExitCode::from(2);
        }
    };
    match run(data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// At most `n` of the samples, drawn at random.
fn some(data: Dataset, n: usize) -> Result<Dataset> {
    let mut order: Vec<usize> = (0..data.len()).collect();
    Rng::new(1).shuffle(&mut order);
    if n < data.len() { data.select(&order[..n.max(1)]) } else { Ok(data) }
}

/// The same images with the mean of their channels as the only one.
fn gray(data: &Dataset) -> Result<Dataset> {
    data.clone().map_x(|x| {
        let &[n, c, h, w] = &x.shape()[..] else { return Ok(()) };
        let mean = |i: usize| {
            let (image, pixel) = (i / (h * w), i % (h * w));
            (0..c).map(|k| x.data()[(image * c + k) * h * w + pixel]).sum::<f32>() / c as f32
        };
        *x = Tensor::from_vec([n, 1, h, w], (0..n * h * w).map(mean).collect())?;
        Ok(())
    })
}

fn run((train, test): (Dataset, Dataset)) -> Result<()> {
    let number =
        |name: &str, otherwise: usize| argument(name).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let folder = Path::new("target/cnn_resnet");
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;
    let train = some(train, number("--images", 10_000))?;
    let shape = train.sample_shape().to_vec();

    // Three stages of one block, y = relu(f(x) + x); f is two normalised convolutions.
    let network = ResNet { channels: shape[0], blocks: vec![1; 3], ..ResNet::cifar(train.classes()) };
    let model = network.build().build(&[&[1], &shape[..]].concat())?.init(1)?;
    println!("{}\n", model.summary([&[64], &shape[..]].concat())?);

    let small = train.len() < 2000;
    let (epochs, batch) = (number("--epochs", if small { 15 } else { 3 }).max(1), 64);
    let steps = epochs * train.len().div_ceil(batch);
    let mut trainer = Trainer::new(model, CrossEntropy::new(), AdamW::new(1e-2).weight_decay(0.05))
        .epochs(epochs)
        .batch_size(batch)
        .seed(1)
        .schedule(OneCycle::new(steps as u64));
    let history = trainer.fit(&train)?;
    println!("trained for {:.1} s on {} images", history.seconds(), train.len());

    let report = trainer.evaluate(&test)?;
    let wrong = report.mistakes().count();
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;
    pictures::mistakes(&report, &gray(&test)?, 40)?.save(folder.join("mistakes.svg"))?;
    println!("learning curves and mistakes: {0}/curves.svg, {0}/mistakes.svg", folder.display());
    println!(
        "test accuracy: {:.4} ({} of {})",
        report.accuracy().unwrap_or(0.0),
        test.len() - wrong,
        test.len()
    );
    Ok(())
}
