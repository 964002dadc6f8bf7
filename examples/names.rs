//! A GRU learns how names are spelt, and makes up new ones.
//!
//! `cargo run --release --example names [-- FILE]` reads one name a line, by default `../shared/data/names/names.txt`, prints 200
//! names and how many of them are in the file, and writes the curves of the loss to `target/names/curves.svg`.

use chainrule::{
    core::Classes,
    optim::schedule::Cosine,
    prelude::*,
    text::{Chars, Generator, Padded, Tokenizer},
    train::pictures,
};
use std::{collections::HashSet, env, fs, path::Path};

/// Stands before and after each name.
const EDGE: &str = "\n";

fn main() -> Result<()> {
    let path = env::args().nth(1).unwrap_or_else(|| "../shared/data/names/names.txt".into());
    let text = fs::read_to_string(&path).map_err(|e| Error::io(e, format!("read {path}")))?;
    let folder = Path::new("target/names");
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("make the folder {}", folder.display())))?;

    let names: Vec<&str> = text.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    let chars = Chars::fit(&format!("{text}{EDGE}"))?;
    let v = chars.vocab_size();
    let spelt: Vec<Vec<u32>> =
        names.iter().map(|name| chars.encode(&format!("{EDGE}{name}{EDGE}"))).collect::<Result<_>>()?;
    // Every tenth name is held back.
    let part = |held: bool| -> Vec<Vec<u32>> {
        spelt
            .iter()
            .enumerate()
            .filter(|(i, _)| (i % 10 == 0) == held)
            .map(|(_, name)| name.clone())
            .collect()
    };
    let train = Padded::next_token(part(false), v)?.lengths(false);
    let validation = Padded::next_token(part(true), v)?.lengths(false);

    let model = Sequential::new()
        .add(Embedding::new(v, 32))
        .add(Gru::new(32, 192))
        .add(Dropout::new(0.1))
        .add(Linear::new(192, v))
        .init(1)?;
    println!("{} names, {v} characters\n{}\n", names.len(), model.summary([64, 8])?);
    let (epochs, batch) = (12, 64);
    let steps = epochs * (names.len() - names.len() / 10).div_ceil(batch);
    let loss = CrossEntropy::new().classes_last(true).ignore_index(Classes::IGNORED);
    let mut trainer = Trainer::new(model, loss, AdamW::new(4e-3).weight_decay(0.01))
        .epochs(epochs)
        .batch_size(batch)
        .clip_norm(1.0)
        .schedule(Cosine::new(steps as u64))
        .validation(validation);
    let history = trainer.fit(train)?;
    pictures::learning_curves(&history).save(folder.join("curves.svg"))?;
    let loss =
        history.last().and_then(|epoch| epoch.validation.as_ref()).map_or(f64::NAN, |scores| scores.loss);
    println!("validation loss {loss:.3} nats a character; curves: {}/curves.svg\n", folder.display());

    let mut generator =
        Generator::new(trainer.model())?.temperature(0.9).seed(1).max_tokens(20).stop_string(EDGE);
    let made = generator.write_all(&chars, [EDGE; 200])?;
    for row in made.chunks(8) {
        println!("{}", row.iter().map(|name| format!("{:<12}", name.text)).collect::<String>());
    }
    let (known, all): (HashSet<&str>, HashSet<&str>) =
        (names.iter().copied().collect(), made.iter().map(|name| name.text.as_str()).collect());
    let found = made.iter().filter(|name| known.contains(name.text.as_str())).count();
    println!(
        "\n200 names, {} of them different; {found} are in the file, {} are new",
        all.len(),
        made.len() - found
    );
    Ok(())
}
