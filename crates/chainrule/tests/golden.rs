//! Short runs end with the weights that they always ended with: the bits are those of `golden.txt`, on every instruction set that
//! the machine has, whatever the number of threads. `UPDATE=1 cargo test -p chainrule --test golden` writes them anew; `CHANGELOG.md` says
//! when results change.
//!
//! Of the system's mathematical library these runs call `pow` (AdamW's βᵗ), `sin` and `cos` (positions of tokens), in f64, whose results are rounded
//! to f32: a library that differs in the last bit of an f64 gives other hashes only where that bit decides the rounding.

use chainrule::{prelude::*, tensor};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const FILE: &str = "CHAINRULE_TEST_GOLDEN_FILE";
const STEPS: u64 = 6;
const BATCH: usize = 32;

/// 64 → 40 → 24 → 10, with dropout.
fn mlp() -> Sequential {
    Sequential::new()
        .add(Flatten::new())
        .add(Linear::new(64, 40))
        .add(Tanh::new())
        .add(Dropout::new(0.2))
        .add(Linear::new(40, 24))
        .add(Gelu::new())
        .add(Linear::new(24, 10))
}

/// Two convolutions, the second with the channels at which Winograd's way begins, each with batch norm.
fn cnn() -> Sequential {
    Sequential::new()
        .add(Conv2d::new(1, 12, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(12))
        .add(Relu::new())
        .add(Conv2d::new(12, 16, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(16))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(16, 8, 3).stride(2))
        .add(Flatten::new())
        .add(Linear::new(8, 10))
}

/// An image read row by row.
fn lstm() -> Sequential {
    Sequential::new()
        .add(Reshape::new([8, 8]))
        .add(Lstm::new(8, 24).num_layers(2).dropout(0.1).last(true))
        .add(Linear::new(24, 10))
}

/// Rows as tokens.
fn transformer() -> Sequential {
    Sequential::new()
        .add(Reshape::new([8, 8]))
        .add(Linear::new(8, 24))
        .add(SinusoidalPosition::new(24))
        .add(TransformerEncoderLayer::new(24, 3).dim_feedforward(40).dropout(0.1))
        .add(Mean::new([1]))
        .add(Linear::new(24, 10))
}

const MODELS: [(&str, fn() -> Sequential); 4] =
    [("mlp", mlp), ("cnn", cnn), ("lstm", lstm), ("transformer", transformer)];

/// A hash of the bits (FNV-1a) of all parameters and buffers after some steps, and of the outputs that inference then gives.
fn fingerprint(model: Sequential) -> Result<u64> {
    let (data, mut model) = (digits(), model.build(&[1, 1, 8, 8])?.init(1)?);
    let labels = data.labels().expect("digits have classes");
    let (loss, mut optimizer) = (CrossEntropy::new().label_smoothing(0.1), AdamW::new(3e-3));
    let mut pass = Pass::new(&model);
    for step in 0..STEPS {
        let (from, to) = (step as usize * BATCH, (step as usize + 1) * BATCH);
        let x = data.x().rows(from, to);
        pass.forward(&model, &x, Context::train(1).step(step))?;
        pass.loss(&loss, &labels[from..to])?;
        pass.backward(&model, &x)?;
        chainrule::optim::clip_norm(pass.grads_mut(), 1.0)?;
        pass.update(&mut model, &mut optimizer)?;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |values: &[f32]| {
        for byte in values.iter().flat_map(|v| v.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    model.try_visit(&mut |_, p| p.value().map(&mut add))?;
    add(model.infer(&data.x().rows(200, 250))?.data());
    Ok(hash)
}

/// The kind of the instruction set in use, with its architecture: AVX2 and AVX-512 share a row, as they multiply and add in one step.
fn set() -> String {
    let kind = if tensor::isa() == tensor::Isa::Portable { "portable" } else { "fused" };
    format!("{} {kind}", env::consts::ARCH)
}

/// The runs of one instruction set, as lines of a file: it does nothing unless it is told which.
#[test]
fn the_program_that_runs_on_one_instruction_set() {
    let Ok(file) = env::var(FILE) else { return };
    let mut lines = String::new();
    for threads in 1..=4 {
        for (name, model) in MODELS {
            let hash = tensor::par::with_threads(threads, || fingerprint(model())).unwrap();
            lines += &format!("{} {name} {threads} {hash:016x}\n", set());
        }
    }
    fs::write(file, lines).unwrap();
}

/// The hash of each "architecture set model" with one thread; panics where more threads have another.
fn run(set: &str) -> BTreeMap<String, String> {
    let file = env::temp_dir().join(format!("chainrule-golden-{set}-{}", std::process::id()));
    let mut program = Command::new(env::current_exe().unwrap());
    program.args(["--exact", "the_program_that_runs_on_one_instruction_set"]).env(FILE, &file);
    let out = program.env("CHAINRULE_ISA", set).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(file).unwrap();
    let mut hashes = BTreeMap::new();
    for line in text.lines() {
        let (name, hash) = line.rsplit_once(' ').unwrap();
        let (name, threads) = name.rsplit_once(' ').unwrap();
        let first = hashes.entry(name.to_owned()).or_insert_with(|| hash.to_owned());
        assert!(first == hash, "{name}: {threads} threads gave {hash}, one gave {first}");
    }
    hashes
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt")
}

#[test]
fn short_runs_end_with_the_recorded_bits_on_every_instruction_set() {
    let text = fs::read_to_string(recorded()).unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let mut table: BTreeMap<String, String> =
        rows.map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect();
    let mut wrong = Vec::new();
    // A lesser set than the one that was asked for is another's row, and compared with that.
    for set in ["portable", "avx2", "avx512"] {
        for (name, hash) in run(set) {
            match table.get(&name) {
                Some(golden) if *golden == hash => {}
                golden => wrong.push(format!("{name}: expected {golden:?}, got {hash}")),
            }
            table.insert(name, hash);
        }
    }
    if env::var_os("UPDATE").is_some() {
        let mut text = "# What the runs of golden.rs end with: architecture, kind of instruction set, model, hash of weights and outputs.\n".to_owned();
        table.iter().for_each(|(name, hash)| text += &format!("{name} {hash}\n"));
        fs::write(recorded(), text).unwrap();
    } else if env::consts::ARCH == "x86_64" {
        assert!(wrong.is_empty(), "UPDATE=1 records what is meant to change:\n{}", wrong.join("\n"));
    }
}
