//! A multi-layer perceptron on MNIST: 60,000 handwritten digits to learn from, 10,000 to test on.
//!
//! `cargo run --release --example mnist_mlp -- --data DIR` with the four idx files in DIR, compressed or not.

use chainrule::{optim::schedule::Cosine, prelude::*};
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args().skip_while(|arg| arg != "--data").nth(1).unwrap_or("data/mnist".into());
    let data = match mnist(&folder) {
        Ok(data) => data,
        Err(error) => {
            eprintln!("{error}\nname their folder with --data DIR");
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

fn run((train, test): (Dataset, Dataset)) -> Result<()> {
    let model = Sequential::new()
        .add(Flatten::new())
        .add(Linear::new(784, 256))
        .add(Relu::new())
        .add(Dropout::new(0.2))
        .add(Linear::new(256, 128))
        .add(Relu::new())
        .add(Linear::new(128, 10))
        .build(&[1, 1, 28, 28])?
        .init(1)?;
    println!("{}\n", model.summary([64, 1, 28, 28])?);

    let (epochs, batch) = (8, 64);
    let steps = epochs * train.len().div_ceil(batch);
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-3))
        .epochs(epochs)
        .batch_size(batch)
        .schedule(Cosine::new(steps as u64));
    let history = trainer.fit(&train)?;
    println!("trained for {:.1} s", history.seconds());

    let report = trainer.evaluate(&test)?;
    let wrong = report.mistakes().count();
    println!(
        "test accuracy: {:.4} ({} of {})",
        report.accuracy().unwrap_or(0.0),
        test.len() - wrong,
        test.len()
    );
    Ok(())
}
