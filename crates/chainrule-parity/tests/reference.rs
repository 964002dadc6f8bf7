//! The reference cases kept in `cases/`, and what the runner does with wrong values and broken files.

mod common;

use chainrule_parity::{Outcome, Report, run};
use common::{Folder, cases, tensors};
use std::{collections::BTreeMap, path::Path};

/// How many cases of each module must pass: what `select_cases.py` counted when it chose them.
fn kept() -> BTreeMap<String, usize> {
    serde_json::from_slice(&std::fs::read(cases().join("counts.json")).unwrap()).unwrap()
}

/// Muon's iterations are rounded to bfloat16, and f32 is now and then rounded to another value than f64.
const IN_F64_ALONE: &[&str] = &["Muon"];

fn every_kept_case_passed(report: &Report, skipped: &[&str]) {
    let mut passed = BTreeMap::new();
    for (module, id, outcome) in report.cases() {
        match skipped.contains(&module) {
            true => assert!(matches!(outcome, Outcome::Skipped(_)), "{id}: {outcome:?}"),
            false => assert_eq!(*outcome, Outcome::Passed, "{id}"),
        }
        *passed.entry(module.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(passed, kept());
}

#[test]
fn the_kept_cases_agree_in_f64() {
    every_kept_case_passed(&run::<f64>(&cases(), None).unwrap(), &[]);
}

#[test]
fn the_kept_cases_agree_in_f32() {
    every_kept_case_passed(&run::<f32>(&cases(), None).unwrap(), IN_F64_ALONE);
}

#[test]
fn one_module_can_be_run_alone() {
    let report = run::<f64>(&cases(), Some("Linear")).unwrap();
    assert_eq!(report.totals(), [2, 0, 0]);
    assert_eq!(report.to_string().lines().last(), Some("2 passed, 0 failed, 0 skipped"));
    assert!(run::<f64>(&cases(), Some("Lineal")).is_err());
}

/// Changes one value of each reference tensor of a kind, in each module: the runner must notice each.
fn every_wrong_value_is_noticed(kind: &str, least: usize) {
    let (folder, mut changed) = (Folder::new(), 0);
    for entry in std::fs::read_dir(cases()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".safetensors") || name == "optimizers.safetensors" {
            continue;
        }
        let original = std::fs::read(&path).unwrap();
        for (key, place) in tensors(&original).into_iter().filter(|(key, _)| key.contains(kind)) {
            let mut bytes = original.clone();
            let number: &mut [u8; 8] = bytes[place].first_chunk_mut().unwrap();
            *number = (f64::from_le_bytes(*number) * 1.001 + 0.01).to_le_bytes();
            folder.write(&name, &bytes);
            let [_, failed, _] = run::<f64>(folder.path(), None).unwrap().totals();
            assert_eq!(failed, 1, "{name}: {key}");
            changed += 1;
        }
        folder.remove(&name);
    }
    assert!(changed >= least, "{changed}");
}

#[test]
fn every_wrong_output_is_noticed() {
    every_wrong_value_is_noticed(".output.0", 120);
}

#[test]
fn every_wrong_gradient_of_an_input_is_noticed() {
    every_wrong_value_is_noticed(".grad_input.", 120);
}

#[test]
fn every_wrong_gradient_of_a_parameter_is_noticed() {
    every_wrong_value_is_noticed(".grad_param.", 40);
}

#[test]
fn every_wrong_running_statistic_is_noticed() {
    every_wrong_value_is_noticed(".after.running_", 10);
}

#[test]
fn a_failure_names_the_first_coordinate_that_differs() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(cases().join("Tanh.safetensors")).unwrap();
    let (key, place) = tensors(&bytes).into_iter().find(|(key, _)| key.ends_with(".output.0")).unwrap();
    bytes[place.start + 8..place.start + 16].copy_from_slice(&2.5f64.to_le_bytes());
    folder.write("Tanh.safetensors", &bytes);
    let text = run::<f32>(folder.path(), None).unwrap().to_string();
    let line =
        text.lines().find(|line| line.contains("expected 2.5e0, got")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(&format!("Tanh-{}: output[", &key[..4])) && line.contains("1]"), "{line}");
}

#[test]
fn a_wrong_step_and_a_wrong_rate_are_noticed() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(cases().join("optimizers.safetensors")).unwrap();
    let (_, place) = tensors(&bytes).into_iter().find(|(key, _)| key.contains(".after.7.1")).unwrap();
    bytes[place][..8].copy_from_slice(&9.0f64.to_le_bytes());
    folder.write("optimizers.safetensors", &bytes);
    let text = run::<f64>(folder.path(), None).unwrap().to_string();
    assert!(
        text.contains("parameter 1 after step 7[0]: expected 9e0") && text.contains(" 1 failed"),
        "{text}"
    );

    let folder = Folder::new();
    let mut schedules: serde_json::Value =
        serde_json::from_slice(&std::fs::read(cases().join("schedules.json")).unwrap()).unwrap();
    for case in schedules.as_array_mut().unwrap() {
        case["lrs"][31] = serde_json::json!(0.5);
    }
    folder.write("schedules.json", &serde_json::to_vec(&schedules).unwrap());
    let all = schedules.as_array().unwrap().len();
    assert_eq!(run::<f64>(folder.path(), None).unwrap().totals(), [0, all, 0]);
}

#[test]
fn broken_files_are_errors() {
    let folder = Folder::new();
    let broken = |name: &str, bytes: &[u8]| {
        folder.write(name, bytes);
        let error = run::<f64>(folder.path(), None).err().map(|e| e.to_string());
        folder.remove(name);
        error.unwrap_or_else(|| panic!("{name} of {} bytes was accepted", bytes.len()))
    };
    for name in ["BatchNorm1d.safetensors", "optimizers.safetensors"] {
        let bytes = std::fs::read(cases().join(name)).unwrap();
        for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
            assert!(broken(name, &bytes[..length]).contains("not a safetensors file"), "{length}");
        }
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        broken(name, &lying);
    }
    let with = |cases: &str| common::file(&[("cases", cases)]);
    let text = broken("Tanh.safetensors", &common::file(&[("format", "pt")]));
    assert!(text.contains("expected a metadata entry `cases`"), "{text}");
    assert!(broken("Tanh.safetensors", &with("{")).contains("is not a list"));
    assert!(broken("Tanh.safetensors", &with("[3]")).contains("no text `id`"));
    let lost = r#"[{"id": "a", "module": "Tanh", "training": true, "inputs": [{"tensor": "lost"}]}]"#;
    assert!(broken("Tanh.safetensors", &with(lost)).contains("tensor `lost`"));
    assert!(broken("optimizers.safetensors", &with("[{}]")).contains("no text `optimizer`"));
    assert!(broken("schedules.json", b"[{}]").contains("no text `schedule`"));
    assert!(broken("schedules.json", b"{").contains("not a list of schedules"));
}

#[test]
fn cases_that_make_no_sense_fail_one_by_one() {
    let folder = Folder::new();
    let case = |text: &str| {
        folder.write("Tanh.safetensors", &common::file(&[("cases", &format!("[{text}]"))]));
        let report = run::<f64>(folder.path(), None).unwrap();
        let outcome = report.cases().next().unwrap().2.clone();
        match outcome {
            Outcome::Failed(why) => format!("failed: {why}"),
            Outcome::Skipped(why) => format!("skipped: {why}"),
            Outcome::Passed => "passed".into(),
        }
    };
    let start = r#"{"id": "a", "training": true, "module""#;
    assert_eq!(case(&format!(r#"{start}: "Warp"}}"#)), "skipped: module");
    assert_eq!(case(&format!(r#"{start}: "Tanh", "args": {{}}}}"#)), "failed: the case has no output");
    assert_eq!(case(&format!(r#"{start}: "Tanh", "args": {{"warp": 9}}}}"#)), "skipped: argument warp = 9");
    let argument = "failed: Linear: attribute `in_features`: expected a value, got none";
    assert_eq!(case(&format!(r#"{start}: "Linear", "args": {{}}}}"#)), argument);
}

/// Kinds with a name in PyTorch of which no case is kept, and why.
const WITHOUT_CASES: &[(&str, &str)] = &[
    ("AdaptiveLogSoftmaxWithLoss", "there are no cases of it"),
    ("AlphaDropout", "its noise is drawn"),
    ("CELU", "in the gradient of its cases 1/α is that of α in f32"),
    ("ChainedScheduler", "its parts have cases of their own"),
    ("ChannelShuffle", "there are no cases of it"),
    ("Fold", "there are no cases of it"),
    ("FractionalMaxPool2d", "its windows are drawn"),
    ("FractionalMaxPool3d", "its windows are drawn"),
    ("MaxUnpool1d", "there are no cases of it"),
    ("MaxUnpool2d", "there are no cases of it"),
    ("MaxUnpool3d", "there are no cases of it"),
    ("Unflatten", "there are no cases of it"),
    ("LBFGS", "its cases are functions, not gradients"),
    ("Dropout", "its noise is drawn"),
    ("Dropout1d", "its noise is drawn"),
    ("Dropout2d", "its noise is drawn"),
    ("Dropout3d", "its noise is drawn"),
    ("FeatureAlphaDropout", "its noise is drawn"),
    ("Hardsigmoid", "in the gradient of its cases 1/6 is that of f32"),
    ("Identity", "it computes nothing"),
    ("RReLU", "its noise is drawn"),
    ("Sequential", "its children have cases of their own"),
    ("SequentialLR", "its cases are named WarmupCosine"),
    ("TransformerDecoder", "its layers have cases of their own"),
    ("TransformerEncoder", "its layers have cases of their own"),
];

#[test]
fn every_kind_with_a_name_in_pytorch_has_a_case_or_a_reason() {
    let registry = chainrule_parity::registry::<f64>();
    let facts = registry.modules().map(|e| e.facts).chain(registry.losses().map(|e| e.facts));
    let facts = facts.chain(registry.optimizers().map(|e| e.facts));
    let facts = facts.chain(registry.schedules().map(|e| e.facts));
    let counts = kept();
    for name in facts.filter_map(|facts| facts.torch) {
        let kept = counts.contains_key(name);
        let excused = WITHOUT_CASES.iter().any(|(module, _)| *module == name);
        assert!(kept != excused, "{name}: kept {kept}, with a reason {excused}");
    }
}

fn command(args: &[&str]) -> (Option<i32>, String, String) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_chainrule-parity")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_code_tells_how_it_ended() {
    let kept = cases();
    let kept = kept.to_str().unwrap();
    let (code, out, _) = command(&[kept, "--only", "Tanh", "--dtype", "f32", "--verbose"]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("3 passed, 0 failed, 0 skipped")));
    assert!(out.contains(": passed"), "{out}");

    let folder = Folder::new();
    let mut bytes = std::fs::read(Path::new(kept).join("Tanh.safetensors")).unwrap();
    let (_, place) = tensors(&bytes).into_iter().find(|(key, _)| key.ends_with(".output.0")).unwrap();
    bytes[place][..8].copy_from_slice(&9.0f64.to_le_bytes());
    folder.write("Tanh.safetensors", &bytes);
    let (code, out, _) = command(&[folder.path().to_str().unwrap()]);
    assert_eq!((code, out.lines().last()), (Some(1), Some("2 passed, 1 failed, 0 skipped")));

    let nowhere = folder.path().join("nowhere");
    let (code, _, error) = command(&[nowhere.to_str().unwrap()]);
    assert!(code == Some(2) && error.contains("nowhere"), "{error}");
    for wrong in [&[][..], &[kept, "--dtype", "f16"], &[kept, "--fast"], &[kept, "--only", "Warp"]] {
        assert_eq!(command(wrong).0, Some(2), "{wrong:?}");
    }
}
