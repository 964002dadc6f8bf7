//! One body, two heads, two losses: the class of a handwritten digit, and how much ink it took.
//!
//! `cargo run --release --example multitask [-- SEED]`

use chainrule::{
    prelude::*,
    train::{Accuracy, MeanAbsoluteError, RSquared},
};

/// Images with their class, and the mean of their pixels as a second target.
fn with_ink(data: &Dataset) -> Result<Dataset> {
    let labels = data.labels().unwrap_or_default().to_vec();
    let ink = data.x().data().chunks(64).map(|image| image.iter().sum::<f32>() / 64.0).collect();
    let ink = Targets::Values(Tensor::from_vec([data.len(), 1], ink)?);
    Dataset::new([data.x().clone()], [Targets::classes(labels), ink])
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let (train, test) = digits().split_stratified(0.2, seed)?;
    let (train, test) = (with_ink(&train)?, with_ink(&test)?);

    let mut graph = Graph::new();
    let image = graph.input("image");
    let body = Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Linear::new(256, 64))
        .add(Relu::new());
    let seen = graph.add("body", body, image);
    let (class, ink) =
        (graph.add("class", Linear::new(64, 10), seen), graph.add("ink", Linear::new(64, 1), seen));
    graph.output("class", class);
    graph.output("ink", ink);
    let graph = graph.init(seed)?;
    println!("{graph}\n\n{}\n", graph.summary([64, 1, 8, 8])?);

    let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(10.0, Mse::new());
    let mut trainer = Trainer::new(graph, loss, Adam::new(2e-3))
        .epochs(25)
        .batch_size(64)
        .seed(seed)
        .metric(Accuracy::of(0))
        .metric(MeanAbsoluteError::of(1))
        .metric(RSquared::of(1));
    trainer.fit(&train)?;
    println!("unseen digits: {}", trainer.evaluate(&test)?);
    Ok(())
}
