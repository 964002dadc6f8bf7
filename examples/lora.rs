//! A network trained on five digits learns the other five by adapters of rank 4 beside its frozen weights.
//!
//! `cargo run --release --example lora [-- SEED]`

use chainrule::{
    core::BoxModule,
    io::{self, Load},
    prelude::*,
};
use std::path::Path;

const RANK: usize = 4;

/// Ten outputs; which of them are learned depends on the samples.
fn network() -> Sequential {
    Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(16, 32, 3).padding(1))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Linear::new(128, 64))
        .add(Relu::new())
        .add(Linear::new(64, 10))
}

/// The model with an adapter around each layer that has a weight.
fn adapted(model: &Sequential, seed: u64) -> Result<Sequential> {
    model.map(|_, layer| match layer.to_spec().kind() {
        "Conv2d" | "Linear" => Ok(BoxModule::new(Lora::new(layer.clone(), RANK).start(seed)?)),
        _ => Ok(layer.clone()),
    })
}

/// The model with plain layers in place of those with adapters.
fn merged(model: &Sequential) -> Result<Sequential> {
    model.map(|_, layer| match layer.downcast_ref::<Lora>() {
        Some(lora) => lora.merge(),
        None => Ok(layer.clone()),
    })
}

/// The digits from `first` on, five of them, under their own names.
fn five(data: &Dataset, first: usize) -> Result<Dataset> {
    let labels = data.labels().unwrap_or_default();
    let at: Vec<usize> = (0..labels.len()).filter(|&i| (first..first + 5).contains(&labels[i])).collect();
    data.select(&at)
}

fn is_adapter(path: &str) -> bool {
    path.contains("lora_")
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let folder = Path::new("target/lora");
    std::fs::create_dir_all(folder)?;
    let (base_file, adapter_file) = (folder.join("base.safetensors"), folder.join("adapter.safetensors"));
    let (train, test) = digits().split_stratified(0.2, seed)?;

    let mut trainer =
        Trainer::new(network().init(seed)?, CrossEntropy::new(), Adam::new(3e-3)).epochs(15).seed(seed);
    trainer.fit(&five(&train, 0)?)?;
    let accuracy = |trainer: &mut Trainer<Sequential, CrossEntropy, Adam>, first| -> Result<f64> {
        Ok(trainer.evaluate(&five(&test, first)?)?.accuracy().unwrap_or(0.0))
    };
    println!("trained on digits 0 to 4: accuracy {:.3}", accuracy(&mut trainer, 0)?);
    println!("of digits 5 to 9, before: accuracy {:.3}", accuracy(&mut trainer, 5)?);
    let base = trainer.into_model();
    io::save(&base, &base_file)?;

    let model = adapted(&base, seed)?;
    let mut learned = 0;
    model.visit(&mut |_, p| learned += if p.trainable() { p.volume() } else { 0 });
    println!("adapters of rank {RANK}: {learned} of {} parameters learn", model.parameter_count());
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-2)).epochs(30).seed(seed);
    trainer.fit(&five(&train, 5)?)?;
    println!("of digits 5 to 9, after: accuracy {:.3}", accuracy(&mut trainer, 5)?);
    let model = trainer.into_model();

    let (x, classes) = (test.x(), |model: &Sequential| Ok::<_, Error>(model.infer(test.x())?.argmax_rows()));
    let plain = merged(&model)?;
    let same = classes(&plain)? == classes(&model)? && plain.infer(x)? == model.infer(x)?;
    println!("merged into {} plain parameters: {}", plain.parameter_count(), verdict(same));

    // The base and the adapter come from two files; other adapters would go with the same base.
    io::save_part(&model, is_adapter, &adapter_file)?;
    let mut loaded = adapted(&network().init(seed + 1)?, seed + 1)?;
    Load::new().allow_missing(is_adapter).load(&mut loaded, &base_file)?;
    Load::new().allow_missing(|path| !is_adapter(path)).load(&mut loaded, &adapter_file)?;
    let size = |file: &Path| std::fs::metadata(file).map(|m| m.len());
    println!("the adapter's file has {} bytes, the base's {}", size(&adapter_file)?, size(&base_file)?);
    println!("loaded back: {}", verdict(loaded.infer(x)? == model.infer(x)?));
    Ok(())
}

fn verdict(same: bool) -> &'static str {
    if same { "the same predictions" } else { "OTHER PREDICTIONS" }
}
