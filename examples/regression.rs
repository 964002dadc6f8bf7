//! How far diabetes goes on within a year, from ten measures of 442 patients.
//!
//! `cargo run --release --example regression [-- SEED]`

use chainrule::{prelude::*, train::RSquared};

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (train, test) = diabetes::<f32>().split(0.2, seed)?;
    // By the mean and spread of the training part alone: the rest must not be seen.
    let inputs = Scaler::standardise(train.x())?;
    let outputs = Scaler::standardise(train.values().expect("a regression has values"))?;
    let scaled = |data: Dataset| data.map_x(|x| inputs.apply(x))?.map_values(|t| outputs.apply(t));
    let (train, test) = (scaled(train)?, scaled(test)?);

    let model = Sequential::new()
        .add(Linear::new(10, 16))
        .add(Tanh::new())
        .add(Dropout::new(0.2))
        .add(Linear::new(16, 1))
        .build(&[1, 10])?
        .init(seed)?;
    println!("{}\n", model.summary([32, 10])?);
    let mut trainer = Trainer::new(model, Mse::new(), AdamW::new(3e-3).weight_decay(0.1))
        .epochs(60)
        .batch_size(32)
        .seed(seed)
        .metric(RSquared::new());
    let history = trainer.fit(&train)?;
    println!("trained for {:.2} s", history.seconds());

    let report = trainer.evaluate(&test)?;
    let spread = f64::from(outputs.scale()[0]);
    println!("held-out patients: {}", report.samples());
    println!("root mean squared error: {:.1}, the spread is {spread:.1}", report.loss().sqrt() * spread);
    println!("variance explained: {:.2}", report.scores().get("r2").unwrap_or(f64::NAN));
    Ok(())
}
