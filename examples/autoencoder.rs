//! A convolutional autoencoder: 64 pixels of a handwritten digit become a code of 8 values, and 64 pixels again.
//!
//! `cargo run --release --example autoencoder [-- SEED]` writes `target/autoencoder/digits.svg`, unseen digits above and their
//! reconstructions below.

use chainrule::{models::AutoEncoder, optim::schedule::Cosine, prelude::*, train::pictures};
use std::path::Path;

/// Images that are their own target.
fn to_itself(data: &Dataset) -> Result<Dataset> {
    Dataset::regression(data.x().clone(), data.x().clone())
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let folder = Path::new("target/autoencoder");
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;
    let (train, test) = digits().split_stratified(0.2, seed)?;
    let (train, unseen) = (to_itself(&train)?, to_itself(&test)?);

    // Conv2d at stride 2 and a linear layer to the code; a linear layer and ConvTranspose2d at stride 2 back.
    let code = 8;
    let model = AutoEncoder::new(1, [8, 8], code).build()?.init(seed)?;
    println!("{model}\n\n{}\n", model.summary([64, 1, 8, 8])?);

    let (epochs, batch) = (60, 64);
    let steps = epochs * train.len().div_ceil(batch);
    let mut trainer = Trainer::new(model, Mse::new(), AdamW::new(3e-3))
        .epochs(epochs)
        .batch_size(batch)
        .seed(seed)
        .schedule(Cosine::new(steps as u64));
    let before = trainer.evaluate(&unseen)?.loss();
    let history = trainer.fit(&train)?;
    let after = trainer.evaluate(&unseen)?.loss();
    println!("trained for {:.1} s", history.seconds());

    // The first unseen image of each class, the code and the image that comes of it.
    let labels = test.labels().unwrap_or_default();
    let shown: Vec<usize> = (0..10).filter_map(|class| labels.iter().position(|&c| c == class)).collect();
    let originals = test.select(&shown)?;
    let outputs = trainer.model().infer_all(originals.x())?;
    let title = format!("unseen digits, and what {code} values keep of them");
    let mut sheet = pictures::Sheet::new(title, [8, 8]).columns(shown.len());
    for (images, what) in [(originals.x(), "original"), (&outputs[0], "from code")] {
        images.data().chunks(64).try_for_each(|image| sheet.add(image, what))?;
    }
    sheet.svg().save(folder.join("digits.svg"))?;
    println!("originals and reconstructions: {}/digits.svg", folder.display());

    println!("mean squared error of unseen digits: {before:.4} before, {after:.4} after");
    Ok(())
}
