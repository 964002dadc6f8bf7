//! Small valid files of every form, damaged at random: errors or tensors, but no panic, no hang and no memory beyond a limit.
//!
//! It takes some seconds, the same cases each time; `FUZZ_SECONDS=300` adds that many seconds of others to each form. A failure
//! prints the bytes, which belong into [`found`] then.

mod common;

use chainrule_io::TensorFile;
use common::{
    Pickle, all, floats, measured, npy, safetensors, state_dict, torch_legacy, torch_zip, turn, zip,
};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How many cases of each form there are always.
const CASES: u64 = 3000;

const TIME: Duration = Duration::from_secs(2);

/// Beside a small multiple of the file and its tensors.
const MEMORY: usize = 2 << 20;

/// Numbers without a pattern (Steele et al. 2014, SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Damages a file in a few places: bits, bytes, extreme numbers, runs taken out, moved, or of another file.
fn damage(numbers: &mut Numbers, bytes: &mut Vec<u8>, other: &[u8]) {
    const EXTREME: [u64; 10] =
        [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 31, i64::MAX as u64, u64::MAX];
    const TOKENS: &[u8] = b"0123456789-.,:{}[]()'\"NKMJXhqjrctRQbus\x81\x85\x86\x87\x88\x8a\x94";
    for _ in 0..1 + numbers.below(4) {
        let n = bytes.len();
        let at = numbers.below(n);
        match numbers.below(9) {
            0 if n > 0 => bytes[at] ^= 1 << numbers.below(8),
            1 if n > 0 => bytes[at] = numbers.next() as u8,
            2 => {
                let value = EXTREME[numbers.below(EXTREME.len())]
                    .wrapping_add(numbers.below(3) as u64)
                    .wrapping_sub(1);
                let width = [1, 2, 4, 8][numbers.below(4)].min(n - at);
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            3 => _ = bytes.drain(at..n.min(at + 1 + numbers.below(16))),
            4 => {
                let run = bytes[at..n.min(at + 1 + numbers.below(64))].to_vec();
                let to = numbers.below(n + 1);
                bytes.splice(to..to, run);
            }
            5 => {
                let run = bytes[at..n.min(at + 1 + numbers.below(32))].to_vec();
                let to = numbers.below(n);
                let end = n.min(to + run.len());
                bytes[to..end].copy_from_slice(&run[..end - to]);
            }
            6 => {
                let from = numbers.below(other.len());
                let run = &other[from..other.len().min(from + 1 + numbers.below(64))];
                bytes.splice(at..n.min(at + numbers.below(64)), run.iter().copied());
            }
            7 if numbers.below(8) == 0 => bytes.truncate(at),
            // A digit, an opcode or a bracket.
            _ if n > 0 => bytes[at] = TOKENS[numbers.below(TOKENS.len())],
            _ => {}
        }
    }
}

fn pickles() -> Vec<Vec<u8>> {
    let mut nested = Pickle::new();
    nested.op(b"}(").text("state_dict").global("collections", "OrderedDict").op(b")R(").text("a");
    nested
        .tensor("0", 8, 0, &[2, 2], &[2, 1])
        .op(b"u}")
        .text("_metadata")
        .op(b"}sb")
        .text("n")
        .op(b"q\x05](K\x01h\x05e");
    nested.text("args").global("argparse", "Namespace").op(b")\x81}").text("lr").op(b"G\0\0\0\0\0\0\0\0sb");
    nested.op(b"\x8a\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x8c\x01x\x94u");
    let mut listed = Pickle::new();
    listed
        .op(b"](")
        .global("torch._utils", "_rebuild_parameter")
        .op(b"(")
        .tensor("0", 8, 1, &[], &[])
        .op(b"\x88N");
    listed.op(b"tR").tensor("0", 8, 0, &[4, 2], &[1, 4]).op(b"e");
    vec![state_dict(), nested.done(), listed.done()]
}

fn seeds(form: &str) -> Vec<Vec<u8>> {
    let storage = [("0", floats((0..8).map(|i| i as f32)))];
    let arrays = [
        ("a.npy", npy("<f4", false, "(2, 3)", &floats((0..6).map(|i| i as f32)))),
        ("b/c.npy", npy(">i2", true, "(2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8])),
        ("d.npy", npy("|b1", false, "()", &[1])),
    ];
    match form {
        "safetensors" => vec![
            safetensors(
                r#"{"__metadata__":{"b":"a"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"c":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#,
                &[7; 16],
            ),
            safetensors(r#"{"a":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]}}"#, &[]),
        ],
        "index" => vec![
            br#"{"metadata":{"total_size":32},"weight_map":{"weight":"a.safetensors","bias":"b.bin"}}"#
                .to_vec(),
            br#"{"weight_map":{"weight":"a.safetensors"}}"#.to_vec(),
        ],
        "zip" => pickles().into_iter().map(|pickle| torch_zip(pickle, &storage, false)).collect(),
        "deflated zip" => pickles().into_iter().map(|pickle| torch_zip(pickle, &storage, true)).collect(),
        "legacy" => pickles().into_iter().map(|pickle| torch_legacy(pickle, &storage)).collect(),
        #[cfg(feature = "keras")]
        "keras" => {
            let mut builder = hdf5_pure::FileBuilder::new();
            builder.create_dataset("a").with_f32_data(&[1.0, 2.0, 3.0, 4.0]).with_shape(&[2, 2]);
            builder.create_dataset("b").with_i64_data(&[5]).with_shape(&[1]);
            let file = builder.finish().unwrap();
            vec![file.clone(), zip(&[("model.weights.h5", file)], false)]
        }
        "npz" => vec![zip(&arrays, false), zip(&arrays, true), zip(&[], false)],
        _ => arrays.iter().map(|(_, bytes)| bytes.clone()).collect(),
    }
}

/// Cases that once failed.
fn found(form: &str) -> Vec<Vec<u8>> {
    match form {
        // Its name stood in the message of the operating system's error.
        "index" => vec![b"{\"weight_map\":{\"weight\":\"a.safetens\x7frs\"}}".to_vec()],
        _ => Vec::new(),
    }
}

/// Opens a file and reads all of it.
fn case(form: &str, bytes: &[u8], index: Option<&PathBuf>, again: bool) -> Result<bool, String> {
    // Not to be counted: the file itself.
    if let Some(index) = index {
        fs::write(index, bytes).unwrap();
    }
    let mut size = 0;
    let (outcome, time, took) = measured(|| {
        let opened = match index {
            Some(index) => TensorFile::open(index),
            None => TensorFile::from_bytes(bytes),
        };
        let mut file = opened.map_err(|e| e.to_string())?;
        let total: u64 = file.tensors().map(|t| t.bytes()).sum();
        size = total as usize;
        // A view that repeats its elements may be large beside its file.
        if total > 64 << 20 {
            return Err(String::new());
        }
        all(&mut file).map(drop).map_err(|e| e.to_string())
    });
    let fault = |what: String| Err(format!("{form}: {what}: {:?}", bytes.escape_ascii().to_string()));
    match outcome {
        Err(panic) => fault(format!("panicked: {panic}")),
        Ok(Err(text)) if text.chars().count() > 8100 || text.contains(char::is_control) => {
            fault(format!("message {text:?}"))
        }
        // On a machine that does other things too it counts if it does so again.
        _ if time > TIME => match again {
            true => fault(format!("took {time:?}")),
            false => case(form, bytes, index, true),
        },
        _ if took > MEMORY + 32 * bytes.len() + 8 * size => fault(format!("took {took} bytes")),
        Ok(outcome) => Ok(outcome.is_ok()),
    }
}

fn fuzz(form: &str) {
    let _turn = turn();
    let folder = std::env::temp_dir().join(format!("chainrule-io-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let index = folder.join("model.safetensors.index.json");
    if form == "index" {
        let header = r#"{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        fs::write(folder.join("a.safetensors"), safetensors(header, &[0; 8])).unwrap();
        let mut pickle = Pickle::new();
        pickle.op(b"}").text("bias").tensor("0", 8, 6, &[2], &[1]).op(b"s");
        let storage = [("0", floats((0..8).map(|i| i as f32)))];
        fs::write(folder.join("b.bin"), torch_zip(pickle.done(), &storage, false)).unwrap();
    }
    let index = (form == "index").then_some(&index);
    let seeds = seeds(form);
    for seed in &seeds[..if form == "index" { 1 } else { seeds.len() }] {
        assert_eq!(case(form, seed, index, false), Ok(true), "{:?}", TensorFile::from_bytes(seed));
    }
    let mut faults: Vec<String> =
        found(form).iter().filter_map(|bytes| case(form, bytes, index, false).err()).collect();
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let begun = Instant::now();
    let (mut cases, mut loaded) = (0, 0);
    // What was still read is damaged further.
    let mut corpus = seeds.clone();
    while (cases < CASES || begun.elapsed() < Duration::from_secs(seconds)) && faults.len() < 5 {
        let mut numbers = Numbers(cases);
        let mut bytes = corpus[numbers.below(corpus.len())].clone();
        let other = corpus[numbers.below(corpus.len())].clone();
        damage(&mut numbers, &mut bytes, &other);
        match case(form, &bytes, index, false) {
            Err(fault) => faults.push(format!("case {cases}: {fault}")),
            Ok(read) => {
                loaded += u64::from(read);
                if read && bytes.len() < 4096 {
                    let at = seeds.len() + numbers.below(64);
                    if at < corpus.len() { corpus[at] = bytes } else { corpus.push(bytes) }
                }
            }
        }
        cases += 1;
    }
    _ = fs::remove_dir_all(&folder);
    assert!(faults.is_empty(), "{} of {cases} cases:\n{}", faults.len(), faults.join("\n"));
    println!("{form}: {cases} cases, {loaded} of them read");
}

macro_rules! forms {
    ($($test:ident $form:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            fuzz($form);
        })*
    };
}

forms! {
    damaged_safetensors "safetensors",
    a_damaged_index "index",
    a_damaged_zip_of_torch "zip",
    a_damaged_zip_of_torch_that_is_deflated "deflated zip",
    a_damaged_legacy_file_of_torch "legacy",
    a_damaged_npz "npz",
    a_damaged_npy "npy",
}

#[cfg(feature = "keras")]
#[test]
fn a_damaged_file_of_keras() {
    fuzz("keras");
}
