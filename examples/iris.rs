//! Three kinds of iris told apart by four measures of 150 flowers.
//!
//! `cargo run --release --example iris [-- SEED]`

use chainrule::prelude::*;

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (train, test) = iris::<f32>().split_stratified(0.2, seed)?;
    // By the mean and spread of the training part alone: the rest must not be seen.
    let scaler = Scaler::standardise(train.x())?;
    let (train, test) = (train.map_x(|x| scaler.apply(x))?, test.map_x(|x| scaler.apply(x))?);

    let model = Sequential::new()
        .add(Linear::new(4, 16))
        .add(Relu::new())
        .add(Linear::new(16, 3))
        .build(&[1, 4])?
        .init(seed)?;
    let mut trainer =
        Trainer::new(model, CrossEntropy::new(), Adam::new(0.01)).epochs(40).batch_size(16).seed(seed);
    let history = trainer.fit(&train)?;
    println!("trained for {:.2} s", history.seconds());
    println!("{}", trainer.evaluate(&test)?);
    Ok(())
}
