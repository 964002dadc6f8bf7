//! A GPT of 0.8 million parameters learns to write, character by character, from a text.
//!
//! `cargo run --release --example gpt [-- TEXT [STEPS]]` reads TEXT, by default Shakespeare's plays from
//! `../shared/data/tinyshakespeare/input.txt`, and writes the curves of the loss to `target/gpt/curves.svg` and the model to
//! `target/gpt/model.safetensors`. At the end it prints what the model makes of some beginnings.

use chainrule::{
    io,
    models::{Gpt, GptModel},
    optim::schedule::{Cosine, LinearWarmup},
    prelude::*,
    text::{Chars, Generator, Tokenizer, Windows},
    train::pictures,
};
use std::{env, fs, path::Path};

const CONTEXT: usize = 128;
const BATCH: usize = 24;

fn main() -> Result<()> {
    let path = env::args().nth(1).unwrap_or_else(|| "../shared/data/tinyshakespeare/input.txt".into());
    let steps = env::args().nth(2).and_then(|steps| steps.parse().ok()).unwrap_or(3000);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(e, format!("read {path}")))?;
    let folder = Path::new("target/gpt");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let chars = Chars::fit(&text)?;
    let v = chars.vocab_size();
    let ids = chars.encode(&text)?;
    // The last tenth is held back.
    let (train, held) = ids.split_at(ids.len() / 10 * 9);
    let epochs = 30.min(steps);
    let train = Windows::new(train, CONTEXT, v)?.drawn(steps / epochs * BATCH, 1)?;
    let validation = Windows::new(held, CONTEXT, v)?;

    let model: GptModel = Gpt { layers: 4, dropout: 0.05, ..Gpt::new(v, CONTEXT, 128, 4) }.build().init(1)?;
    println!("{} characters, {v} different ones\n{}\n", ids.len(), model.summary([BATCH, CONTEXT])?);
    let warmup = (steps / 20).max(1) as u64;
    let rate = LinearWarmup::new(warmup).from(0.05).then(warmup, Cosine::new(steps as u64).minimum(0.1));
    let optimizer = AdamW::new(3e-3)
        .betas(0.9, 0.99)
        .weight_decay(0.1)
        .group(Group::biases_and_norms().weight_decay(0.0));
    let mut trainer = Trainer::new(model, CrossEntropy::new().classes_last(true), optimizer)
        .epochs(epochs)
        .batch_size(BATCH)
        .clip_norm(1.0)
        .schedule(rate)
        .validation(validation);
    let history = trainer.fit(train)?;
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;
    io::save(trainer.model(), folder.join("model.safetensors"))?;

    let loss =
        history.last().and_then(|epoch| epoch.validation.as_ref()).map_or(f64::NAN, |scores| scores.loss);
    println!(
        "validation loss {loss:.3} nats a character after {:.0} s; curves: {}/curves.svg\n",
        history.seconds(),
        folder.display()
    );
    let mut generator = Generator::new(trainer.model())?.temperature(0.8).seed(1).max_tokens(CONTEXT - 20);
    for begin in ["ROMEO:\n", "First Citizen:\n", "KING RICHARD II:\n", "To be, or "] {
        match generator.write(&chars, begin) {
            Ok(continuation) => println!("{begin}{continuation}\n---"),
            Err(_) => continue, // a text of other characters
        }
    }
    Ok(())
}
