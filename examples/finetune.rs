//! A body trained on five digits, a new head for the other five: load part of a file, freeze it, train the rest.
//!
//! `cargo run --release --example finetune [-- SEED]`

use chainrule::{
    io::{self, Load},
    prelude::*,
};
use std::path::Path;

/// A body of convolutions and a head; `5` classes each time.
fn network() -> Sequential {
    let body = Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(16))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(16, 32, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(32))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new());
    Sequential::new().named("body", body).named("head", Linear::new(128, 5))
}

/// The digits from `first` on, five of them, as classes 0 to 4.
fn five(data: &Dataset, first: usize) -> Result<Dataset> {
    let labels = data.labels().unwrap_or_default();
    let at: Vec<usize> = (0..labels.len()).filter(|&i| (first..first + 5).contains(&labels[i])).collect();
    let classes: Vec<usize> = at.iter().map(|&i| labels[i] - first).collect();
    Dataset::classification(data.select(&at)?.x().clone(), classes, 5)
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let file = Path::new("target/finetune/first-five.safetensors");
    std::fs::create_dir_all("target/finetune")?;
    let (train, test) = digits().split_stratified(0.2, seed)?;

    println!("digits 0 to 4, all layers");
    let model = network().init(seed)?;
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(3e-3)).epochs(10).seed(seed);
    trainer.fit(&five(&train, 0)?)?;
    println!("{}\n", trainer.evaluate(&five(&test, 0)?)?);
    io::save(trainer.model(), file)?;

    println!("digits 5 to 9: the body of the file, frozen, under a new head; 50 samples");
    let mut model = network().init(seed + 1)?;
    let is_head = |name: &str| name.starts_with("head.");
    let report = Load::new().skip(is_head).allow_missing(is_head).load(&mut model, file)?;
    println!("{report}");
    let frozen = model.set_frozen(true, &|path| path.starts_with("body."));
    println!("{frozen} parameters are frozen");
    let few: Vec<usize> = (0..50).collect();
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-2)).epochs(40).seed(seed);
    trainer.fit(&five(&train, 5)?.select(&few)?)?;
    println!("{}", trainer.evaluate(&five(&test, 5)?)?);
    Ok(())
}
