//! An LSTM learns to write, character by character, from a text.
//!
//! `cargo run --release --example char_lstm [-- TEXT [STEPS]]` reads TEXT, by default Shakespeare's plays from
//! `../shared/data/tinyshakespeare/input.txt`, and writes the curves of the loss to `target/char_lstm/curves.svg`. At the end it
//! prints a page of its own: the state is carried from character to character, however long the page is.

use chainrule::{
    models::CharLstm,
    optim::schedule::Cosine,
    prelude::*,
    text::{Chars, Generator, Tokenizer, Windows},
    train::pictures,
};
use std::{env, fs, path::Path};

/// Steps through which gradients are propagated.
const STEPS_BACK: usize = 96;
const BATCH: usize = 32;

fn main() -> Result<()> {
    let path = env::args().nth(1).unwrap_or_else(|| "../shared/data/tinyshakespeare/input.txt".into());
    let steps = env::args().nth(2).and_then(|steps| steps.parse().ok()).unwrap_or(3000);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(e, format!("read {path}")))?;
    let folder = Path::new("target/char_lstm");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let chars = Chars::fit(&text)?;
    let v = chars.vocab_size();
    let ids = chars.encode(&text)?;
    // The last tenth is held back.
    let (train, held) = ids.split_at(ids.len() / 10 * 9);
    let epochs = 30.min(steps);
    let train = Windows::new(train, STEPS_BACK, v)?.drawn(steps / epochs * BATCH, 1)?;
    let validation = Windows::new(held, STEPS_BACK, v)?;

    let model: Sequential =
        CharLstm { embedding: 64, dropout: 0.1, ..CharLstm::new(v, 320) }.build().init(1)?;
    println!("{} characters, {v} different ones\n{}\n", ids.len(), model.summary([BATCH, STEPS_BACK])?);
    let mut trainer = Trainer::new(model, CrossEntropy::new().classes_last(true), Adam::new(4e-3))
        .epochs(epochs)
        .batch_size(BATCH)
        .clip_norm(1.0)
        .schedule(Cosine::new(steps as u64).minimum(0.05))
        .validation(validation);
    let history = trainer.fit(train)?;
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;

    let loss =
        history.last().and_then(|epoch| epoch.validation.as_ref()).map_or(f64::NAN, |scores| scores.loss);
    println!(
        "validation loss {loss:.3} nats a character after {:.0} s; curves: {}/curves.svg\n",
        history.seconds(),
        folder.display()
    );
    let begin: String = text.chars().take(1).collect();
    let mut generator = Generator::new(trainer.model())?.temperature(0.7).seed(1).max_tokens(800);
    print!("{begin}");
    for piece in generator.text(&chars, &begin)? {
        print!("{}", piece?);
    }
    println!();
    Ok(())
}
