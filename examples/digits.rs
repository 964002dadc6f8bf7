//! The main job: a convolutional network learns the 1,797 handwritten digits that come with chainrule-data.
//!
//! `cargo run --release --example digits [-- SEED] [--resume]` writes learning curves, the misclassified images and the model to
//! `target/digits/`; `predict` reads it. Ctrl-C ends it with a checkpoint, from which `--resume` goes on, as it does after a crash.

use chainrule::{io, optim::schedule::Cosine, prelude::*, registry, train::pictures};
use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Three convolutions, each normalised, over images that shrink from 8×8 to 2×2.
fn network() -> Sequential {
    Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(16))
        .add(Relu::new())
        .add(Conv2d::new(16, 32, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(32))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 64, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(64))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.3))
        .add(Linear::new(256, 10))
}

fn main() -> Result<()> {
    let seed = env::args().skip(1).find_map(|seed| seed.parse().ok()).unwrap_or(1);
    let resume = env::args().any(|argument| argument == "--resume");
    let folder = Path::new("target/digits");
    let run = folder.join("run");
    if run.exists() && !resume {
        fs::remove_dir_all(&run).map_err(|e| Error::io(e, format!("remove {}", run.display())))?;
    }
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    // The weights are chosen by the validation part; the test part is looked at once, at the end.
    let (rest, test) = digits().split_stratified(0.2, seed)?;
    let (train, validation) = rest.split_stratified(0.1, seed)?;
    let model = network().build(&[1, 1, 8, 8])?.init(seed)?;
    println!("{}\n", model.summary([64, 1, 8, 8])?);

    let (epochs, batch) = (30, 64);
    let steps = epochs * train.len().div_ceil(batch);
    let mut trainer = Trainer::new(model, CrossEntropy::new().label_smoothing(0.05), AdamW::new(3e-3))
        .epochs(epochs)
        .batch_size(batch)
        .seed(seed)
        .schedule(Cosine::new(steps as u64))
        .validation(validation)
        .early_stopping(epochs) // never, but the weights of the best epoch are kept
        .checkpoint(Checkpoint::new(&run))
        .stop_on(on_ctrl_c());
    if resume && trainer.resume(&run)? {
        println!("goes on after epoch {}", trainer.history().last().map_or(0, |epoch| epoch.number));
    }
    let history = trainer.fit(&train)?;
    if history.ended == Ended::Stopped {
        println!("stopped: `--resume` goes on from {}", run.display());
        return Ok(());
    }
    println!("trained for {:.1} s, weights of epoch {}", history.seconds(), history.best.unwrap_or(epochs));

    let report = trainer.evaluate(&test)?;
    println!("\n{report}\n");
    let wrong = report.mistakes().count();
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;
    pictures::mistakes(&report, &test, wrong)?.save(folder.join("mistakes.svg"))?;
    println!("learning curves and mistakes: {0}/curves.svg, {0}/mistakes.svg", folder.display());

    let file = folder.join("model.safetensors");
    io::save_model(trainer.model(), &file)?;
    let loaded = io::load_model(&registry::<f32>(), &file)?;
    let data = digits();
    let (before, after) = (trainer.model().infer(data.x())?, loaded.infer(data.x())?);
    let same = before.data().iter().zip(after.data()).all(|(a, b)| a.to_bits() == b.to_bits());
    let verdict = if same { "predictions are the same bits" } else { "PREDICTIONS DIFFER" };
    println!("model: {}, loaded back: {verdict}", file.display());
    println!("fingerprint of the outputs: {:016x}", fingerprint(&before));

    let accuracy = report.accuracy().unwrap_or(0.0);
    println!("test accuracy: {accuracy:.3} ({} of {})", test.len() - wrong, test.len());
    Ok(())
}

/// A flag that Ctrl-C sets.
fn on_ctrl_c() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    if let Err(error) = ctrlc::set_handler(move || set.store(true, Ordering::Relaxed)) {
        eprintln!("Ctrl-C ends the program without a checkpoint: {error}");
    }
    flag
}

/// A hash of the bits of a tensor (FNV-1a); `predict` prints that of the model it read.
fn fingerprint(y: &Tensor) -> u64 {
    let bytes = y.data().iter().flat_map(|v| v.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
