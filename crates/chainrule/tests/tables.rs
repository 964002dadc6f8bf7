//! The tables of README.md and docs/README.md, generated from the registry. `UPDATE=1 cargo test -p chainrule --test tables`
//! writes them anew.

use chainrule::core::{Facts, Registry};
use std::{fs, path::Path};

/// The families of layers in the order of a first reading.
const FAMILIES: &[&str] = &[
    "linear",
    "conv",
    "pool",
    "norm",
    "noise",
    "recurrent",
    "attention",
    "shape",
    "activation",
    "container",
    "weight",
];

#[test]
fn the_tables_are_those_of_the_registry() {
    let registry: Registry<f32> = chainrule_parity::registry();
    let mut layers: Vec<Facts> = registry.modules().map(|entry| entry.facts).collect();
    let place = |facts: &Facts| FAMILIES.iter().position(|family| *family == facts.family);
    for facts in &layers {
        assert!(place(facts).is_some(), "{} is of no family: `{}`", facts.kind, facts.family);
    }
    layers.sort_by_key(|facts| (place(facts), facts.page, facts.kind));
    let losses: Vec<Facts> = registry.losses().map(|entry| entry.facts).collect();
    let optimizers: Vec<Facts> = registry.optimizers().map(|entry| entry.facts).collect();
    let schedules: Vec<Facts> = registry.schedules().map(|entry| entry.facts).collect();
    let tables = [
        ("layers", "y =", layers),
        ("losses", "of y and t", losses),
        ("optimizers", "step", optimizers),
        ("schedules", "the rate's factor at step t", schedules),
    ];
    for (file, pages) in [("README.md", "docs/"), ("docs/README.md", "")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        let text = fs::read_to_string(&path).expect("a file of the repository");
        let mut new = text.clone();
        for (name, heading, facts) in &tables {
            new = replaced(&new, name, &table(name, heading, facts, pages))
                .unwrap_or_else(|| panic!("{file} has no place for the table of {name}"));
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, new).expect("a file that can be written");
        } else {
            assert!(new == text, "{file}: a table is out of date: run this test with UPDATE=1");
        }
    }
}

/// The text with what stands between two markers replaced.
fn replaced(text: &str, name: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("<!-- {name}: generated -->\n"))?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    Some(format!("{before}<!-- {name}: generated -->\n{table}<!-- end -->{after}"))
}

/// Kinds of one page and one formula share a row.
fn table(name: &str, heading: &str, facts: &[Facts], pages: &str) -> String {
    let mut text = format!("| {name} | {heading} | in PyTorch | page |\n|---|---|---|---|\n");
    for group in facts.chunk_by(|a, b| (a.page, a.formula) == (b.page, b.formula)) {
        let kinds: Vec<&str> = group.iter().map(|facts| facts.kind).collect();
        let torch: Vec<&str> = group.iter().filter_map(|facts| facts.torch).collect();
        // A vertical bar would end the cell.
        let formula = group[0].formula.replace('|', "\\|");
        let (kinds, torch) = (kinds.join(", "), torch.join(", "));
        text += &format!("| {kinds} | {formula} | {torch} | [page]({pages}{}) |\n", group[0].page);
    }
    text
}
