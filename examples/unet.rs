//! A class for each pixel: a U-Net finds circles, squares and triangles in noise.
//!
//! `cargo run --release --example unet [-- SEED]` writes `target/unet/shapes.svg`: unseen images, the truth and the prediction.

use chainrule::{models::UNet, optim::schedule::Cosine, prelude::*, train::Confusion, train::pictures};
use std::path::Path;

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
const CLASSES: [&str; 4] = ["background", "circle", "square", "triangle"];

/// Images of one to three shapes, lighter or darker than the noise around them, and the class of each pixel. The last shape drawn
/// is the foremost.
fn shapes(count: usize, rng: &mut Rng) -> Result<Dataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (mut image, mut classes) = ([0.0f32; PIXELS], [0; PIXELS]);
        for _ in 0..1 + rng.below(3) {
            let class = 1 + rng.below(3);
            let radius = 4.0 + 5.0 * rng.uniform();
            let [cx, cy] = [(); 2].map(|()| radius + (SIDE as f64 - 2.0 * radius) * rng.uniform());
            let shade = (0.5 + 0.5 * rng.uniform()) * if rng.below(2) == 0 { 1.0 } else { -1.0 };
            for i in 0..PIXELS {
                let (x, y) = ((i % SIDE) as f64 + 0.5 - cx, (i / SIDE) as f64 + 0.5 - cy);
                let inside = match CLASSES[class] {
                    "circle" => x * x + y * y < radius * radius,
                    "square" => x.abs().max(y.abs()) < 0.85 * radius,
                    // The apex is above; the sides widen by 1 for each 2 downwards.
                    _ => y.abs() < radius && x.abs() < (y + radius) / 2.0,
                };
                if inside {
                    (image[i], classes[i]) = (shade as f32, class);
                }
            }
        }
        pixels.extend(image.iter().map(|v| v + 0.3 * rng.normal() as f32));
        labels.extend(classes);
    }
    let x = Tensor::from_vec([count, 1, SIDE, SIDE], pixels)?;
    Dataset::segmentation(x, labels, CLASSES.len())?.with_class_names(CLASSES)
}

/// Of the pixels that are of a class or were predicted to be, the share that is both.
fn intersection_over_union(confusion: &Confusion, class: usize) -> f64 {
    let classes = 0..confusion.classes();
    let both = confusion.count(class, class);
    let either = classes.map(|c| confusion.count(class, c) + confusion.count(c, class)).sum::<usize>() - both;
    both as f64 / either.max(1) as f64
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let folder = Path::new("target/unet");
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;
    let mut rng = Rng::new(seed);
    let (train, test) = (shapes(1200, &mut rng)?, shapes(200, &mut rng)?);

    let model = UNet { width: vec![8, 16, 32], ..UNet::new(1, CLASSES.len()) }.build().init(seed)?;
    println!("{model}\n\n{}\n", model.summary([16, 1, SIDE, SIDE])?);

    // Cross-entropy of logits (N, 4, H, W) and labels (N, H, W): the mean over all pixels.
    let (epochs, batch) = (12, 16);
    let steps = epochs * train.len().div_ceil(batch);
    let mut trainer = Trainer::new(model, CrossEntropy::new(), AdamW::new(4e-3))
        .epochs(epochs)
        .batch_size(batch)
        .seed(seed)
        .schedule(Cosine::new(steps as u64));
    let history = trainer.fit(&train)?;
    println!("trained for {:.1} s", history.seconds());

    let report = trainer.evaluate(&test)?;
    println!("\n{report}\n");
    let predicted: Vec<f32> = report.predictions().take(10 * PIXELS).map(|class| class as f32).collect();
    let (images, truth) = (test.x().data(), test.labels().unwrap_or_default());
    let truth: Vec<f32> = truth.iter().map(|&class| class as f32).collect();
    let mut sheet = pictures::Sheet::new("unseen images | truth | prediction", [SIDE, SIDE]).columns(6);
    for i in 0..10 {
        let image =
            |of: &[f32], by: f32| of[i * PIXELS..][..PIXELS].iter().map(|v| v * by).collect::<Vec<f32>>();
        sheet.add(&image(images, 1.0), "image")?;
        sheet.add(&image(&truth, 0.5), "truth")?;
        sheet.add(&image(&predicted, 0.5), "prediction")?;
    }
    sheet.svg().save(folder.join("shapes.svg"))?;
    println!("images, truth and prediction: {}/shapes.svg", folder.display());

    let confusion = report.confusion().expect("labels are classes");
    let shares: Vec<f64> = (0..CLASSES.len()).map(|c| intersection_over_union(confusion, c)).collect();
    CLASSES
        .iter()
        .zip(&shares)
        .for_each(|(name, share)| println!("intersection over union, {name}: {share:.3}"));
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    println!(
        "unseen images: pixel accuracy {:.4}, mean intersection over union {mean:.3}",
        confusion.accuracy()
    );
    Ok(())
}
