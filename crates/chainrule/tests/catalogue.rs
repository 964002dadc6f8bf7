//! Every public layer, loss and optimizer has its laws, its page, its example by hand and its bench.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Public types that are neither layers nor losses nor optimizers, though they stand among them.
const HELPERS: [&str; 11] = [
    "Node",
    "Padding",
    "PaddingMode",
    "Pair",
    "Constant",
    "Cosine",
    "Group",
    "LinearWarmup",
    "Schedule",
    "Sequence",
    "Step",
];

/// (type, text of its file) of everything that a crate's root exports: `LayerNorm` stands in `layer_norm.rs`.
fn exports(package: &str) -> Vec<(String, String)> {
    let source = root().join("crates").join(package).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let lib = fs::read_to_string(source.join("lib.rs")).expect("a crate's root");
    let uses = lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let names = uses.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()) && !HELPERS.contains(name))
        .map(|name| {
            let plain = name.to_lowercase();
            let file = files.iter().find(|file| {
                let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                stem.replace('_', "") == plain
            });
            let file = file.unwrap_or_else(|| panic!("{package}: no file is named after {name}"));
            (name.to_owned(), fs::read_to_string(file).expect("a source file"))
        })
        .collect()
}

/// What is missing of a type, as lines.
fn missing(package: &str, laws: &str, bench: &str, at_least: usize) -> Vec<String> {
    let all = exports(package);
    assert!(all.len() >= at_least, "{package}: found {} exports only", all.len());
    let bench = fs::read_to_string(root().join("benches/benches").join(bench)).expect("a bench file");
    let mut missing = Vec::new();
    for (name, text) in all {
        let page = text
            .split_whitespace()
            .map(|word| word.trim_end_matches(['.', ')', ',']))
            .find(|word| word.starts_with("docs/") && word.ends_with(".md"));
        match page {
            None => missing.push(format!("{name}: its head names no page")),
            Some(page) if !root().join(page).is_file() => missing.push(format!("{name}: no page {page}")),
            Some(_) => {}
        }
        if !text.contains(laws) {
            missing.push(format!("{name}: no laws"));
        }
        if !text.contains("by_hand") {
            missing.push(format!("{name}: no example by hand"));
        }
        if !bench.split(|c: char| !c.is_alphanumeric()).any(|word| word == name) {
            missing.push(format!("{name}: no bench"));
        }
    }
    missing
}

#[test]
fn every_layer_has_laws_page_example_and_bench() {
    let missing = missing("chainrule-layers", "laws!", "layers.rs", 30);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_loss_has_laws_page_example_and_bench() {
    let missing = missing("chainrule-losses", "loss_laws!", "losses.rs", 5);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_optimizer_has_a_reference_page_example_and_bench() {
    let missing = missing("chainrule-optim", "reference", "steps.rs", 3);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_layer_is_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    for (name, _) in exports("chainrule-layers") {
        assert!(
            readme.split(|c: char| !c.is_alphanumeric()).any(|word| word == name),
            "{name} is not in the README"
        );
    }
}
