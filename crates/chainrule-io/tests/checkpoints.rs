//! The checkpoints and models of `../shared`: every valid file gives its content, every hostile one an error.

mod common;

use chainrule_io::TensorFile;
use common::{all, measured, shared, turn};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    time::Duration,
};

/// The time of one file, on a machine that does other things too.
const TIME: Duration = Duration::from_secs(5);

/// The memory of one file, beside a small multiple of its size and of its tensors.
const MEMORY: usize = 4 << 20;

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The expected tensors of a file: those under its name.
fn expected(
    known: &HashMap<String, (String, Vec<usize>, Vec<u8>)>,
    name: &str,
) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let below = known.iter().filter_map(|(key, tensor)| {
        let rest = key.strip_prefix(name)?;
        let rest = if rest.is_empty() { Some("") } else { rest.strip_prefix('/') };
        Some((rest?.to_owned(), tensor.clone()))
    });
    below.collect()
}

#[test]
fn every_file_is_loaded_or_refused_as_its_manifest_says() {
    let Some(folder) = shared("checkpoints") else { return };
    let _turn = turn();
    let known = all(&mut TensorFile::open(folder.join("valid/expected.safetensors")).unwrap()).unwrap();
    let manifest = json(&folder.join("manifest.json"));
    let mut faults = Vec::new();
    let (mut loaded, mut refused) = (0, 0);
    for case in manifest.as_array().unwrap() {
        let [name, expect, why] = ["file", "expect", "why"].map(|key| case[key].as_str().unwrap());
        let path = folder.join(name);
        let length = fs::metadata(&path).unwrap().len() as usize;
        let mut file = None;
        let (opened, time, took) = measured(|| TensorFile::open(&path));
        let mut fault = |what: String| faults.push(format!("{name} ({why}): {what}"));
        if time > TIME || took > MEMORY + 32 * length {
            fault(format!("opening took {time:?} and {took} bytes for {length}"));
        }
        match opened {
            Ok(Ok(opened)) => file = Some(opened),
            Ok(Err(error)) if error.to_string().contains(char::is_control) => {
                fault(format!("message {error:?}"))
            }
            Ok(Err(error)) if expect == "load" => fault(format!("expected to load, got {error}")),
            Ok(Err(error)) => println!("{name}: {error}"),
            Err(panic) => fault(format!("panicked: {panic}")),
        }
        let Some(mut file) = file else {
            refused += 1;
            continue;
        };
        let size: u64 = file.tensors().map(|t| t.bytes()).sum();
        let (values, time, took) = measured(|| all(&mut file));
        if time > TIME || took > MEMORY + 32 * length + 8 * size as usize {
            fault(format!("reading took {time:?} and {took} bytes for {length} and {size}"));
        }
        match values {
            Ok(Ok(values)) if expect == "refuse" => {
                fault(format!("expected an error, got {:?}", values.keys()))
            }
            Ok(Ok(values)) => {
                loaded += 1;
                let base = name.strip_prefix("valid/").unwrap_or("no expectation");
                for (tensor, wanted) in expected(&known, base) {
                    if values.get(&tensor) != Some(&wanted) {
                        fault(format!("{tensor}: expected {wanted:?}, got {:?}", values.get(&tensor)));
                    }
                }
            }
            Ok(Err(error)) if expect == "load" => fault(format!("expected to load, got {error}")),
            Ok(Err(error)) => {
                refused += 1;
                println!("{name}: {error}");
            }
            Err(panic) => fault(format!("panicked: {panic}")),
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(!Path::new("chainrule_was_here").exists(), "a file was run");
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded >= 80 && refused >= 120, "{loaded} loaded, {refused} refused");
}

/// The bits of a value of a half type that another form rounds to.
fn rounded(dtype: &str, value: f32) -> u16 {
    match dtype {
        "BF16" => {
            let bits = value.to_bits();
            ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
        }
        // Through f64: multiples of the unit of the last place.
        _ => {
            let exponent = ((value.to_bits() >> 23 & 0xff) as i32 - 127).max(-14);
            let units = (f64::from(value.abs()) * 2f64.powi(10 - exponent)).round_ties_even() as u32;
            ((value.to_bits() >> 31 << 15) | ((((exponent + 14) as u32) << 10) + units)) as u16
        }
    }
}

#[test]
fn every_form_of_a_model_holds_the_same_numbers() {
    let Some(folder) = shared("models") else { return };
    let _turn = turn();
    let (mut forms, mut faults) = (0, Vec::new());
    for model in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if !model.join("weights.safetensors").exists() {
            continue;
        }
        let whole = all(&mut TensorFile::open(model.join("weights.safetensors")).unwrap()).unwrap();
        let mut files: Vec<_> = fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files {
            let name = path.file_name().unwrap().to_str().unwrap();
            let weights = name.starts_with("weights")
                || name.starts_with("checkpoint")
                || name.ends_with(".index.json");
            if !weights {
                continue;
            }
            forms += 1;
            let opened = TensorFile::open(&path);
            let opened = if name == "checkpoint.pt" {
                opened.and_then(|file| file.item("state_dict"))
            } else {
                opened
            };
            let values = match opened.and_then(|mut file| all(&mut file)) {
                Ok(values) => values,
                Err(error) => {
                    faults.push(format!("{}: {error}", path.display()));
                    continue;
                }
            };
            let mut same = values.len() == whole.len();
            for (key, (dtype, shape, bytes)) in &values {
                let key =
                    if name.contains("dataparallel") { key.strip_prefix("module.").unwrap() } else { key };
                let Some((kind, size, wanted)) = whole.get(key) else {
                    same = false;
                    continue;
                };
                let values = |bytes: &[u8]| {
                    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>()
                };
                same &= shape == size
                    && match dtype == kind {
                        true => bytes == wanted,
                        false => {
                            let halves: Vec<u8> = values(wanted)
                                .iter()
                                .flat_map(|&v| rounded(dtype, v).to_le_bytes())
                                .collect();
                            *bytes == halves
                        }
                    };
            }
            if !same {
                faults.push(format!("{}: other numbers than weights.safetensors", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{forms} forms");
    assert!(forms >= 40, "{forms}");
}

#[test]
fn arrays_of_keras_are_read() {
    let Some(folder) = shared("models/keras") else { return };
    let _turn = turn();
    let mut found = 0;
    for model in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if !model.join("weights.npz").exists() {
            continue;
        }
        let mut file = TensorFile::open(model.join("weights.npz")).unwrap();
        assert!(file.tensors().all(|t| t.name().contains('/')), "{file:?}");
        found += all(&mut file).unwrap().len();
        let arrays = all(&mut file).unwrap();
        for name in ["model.keras", "model.h5", "model.weights.h5"] {
            let opened = TensorFile::open(model.join(name));
            if cfg!(not(feature = "keras")) {
                let error = opened.unwrap_err().to_string();
                assert!(error.contains("Keras") && error.contains("numpy.savez"), "{error}");
                continue;
            }
            // The same arrays under other names.
            let values = all(&mut opened.unwrap()).unwrap();
            for (name, array) in &arrays {
                assert!(
                    values.values().any(|value| value == array),
                    "{name} of {} {values:?}",
                    model.display()
                );
            }
        }
    }
    assert!(found > 50, "{found}");
}
