//! What a network looks at: the digits network is trained briefly, and its predictions are explained by four methods.
//!
//! `cargo run --release --example attribution [-- SEED]` writes a picture of each method, and one of all, to `target/attribution/`.

use chainrule::{
    prelude::*,
    train::{
        attribution::{Attribution, GradCam, IntegratedGradients, Occlusion, Saliency},
        pictures::Sheet,
    },
};
use std::{env, fs, path::Path};

fn main() -> Result<()> {
    let seed = env::args().skip(1).find_map(|seed| seed.parse().ok()).unwrap_or(1);
    let folder = Path::new("target/attribution");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let (train, test) = digits().split_stratified(0.2, seed)?;
    let model = Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(16))
        .add(Relu::new())
        .add(Conv2d::new(16, 32, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(32))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 64, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(64))
        .named("features", Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.3))
        .add(Linear::new(256, 10))
        .build(&[1, 1, 8, 8])?
        .init(seed)?;
    let mut trainer =
        Trainer::new(model, CrossEntropy::new(), AdamW::new(3e-3)).epochs(8).batch_size(64).seed(seed);
    trainer.fit(&train)?;
    println!("test accuracy: {:.3}", trainer.evaluate(&test)?.accuracy().unwrap_or(0.0));
    let model = trainer.model_mut();

    // The first image of each class in the test part, explained for the class that the network gives it.
    let labels = test.labels().ok_or_else(|| Error::value("expected data with classes"))?;
    let firsts: Vec<usize> =
        (0..10).filter_map(|class| labels.iter().position(|&label| label == class)).collect();
    let images = test.select(&firsts)?;
    let x = images.x();
    let predicted = model.infer(x)?.argmax_rows();

    let methods: [(&str, Attribution); 4] = [
        ("saliency", Saliency::new().attribute(model, x, &predicted)?),
        ("integrated gradients", IntegratedGradients::new().steps(128).attribute(model, x, &predicted)?),
        ("occlusion", Occlusion::new([1, 3, 3]).attribute(model, x, &predicted)?),
        ("Grad-CAM", GradCam::new("features").attribute(model, x, &predicted)?),
    ];
    for (name, attribution) in &methods {
        let file = folder.join(format!("{}.svg", name.replace(' ', "-").to_lowercase()));
        attribution.picture(*name, x)?.save(&file)?;
    }
    let mut sheet =
        Sheet::new("digits, and what the network sees in them", [8, 8]).columns(1 + methods.len());
    for i in 0..x.shape()[0] {
        sheet.add(x.row(i), format!("taken for {}", predicted[i]))?;
        for (name, attribution) in &methods {
            let caption = name.split(' ').next().unwrap_or(name); // as wide as an image
            sheet.add_map(attribution.maps()?.row(i), [8, 8], caption)?;
        }
    }
    sheet.svg().save(folder.join("all.svg"))?;

    println!("\nintegrated gradients: Σ a and s(x) − s(0)");
    for (class, c) in predicted.iter().zip(methods[1].1.completeness()) {
        println!("  {class}: {:8.4} {:8.4}  gap {:.3} %", c.sum, c.difference, 100.0 * c.gap());
    }
    println!("pictures: {}", folder.display());
    Ok(())
}
