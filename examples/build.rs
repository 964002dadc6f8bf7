//! Makes a test of every code block of docs/*.md, for tests/pages.rs: what a page shows compiles and runs.
//!
//! A block with a `main` stands alone. Another one follows `pages/<page>.txt`, what the page's text takes for granted, in a
//! function that may fail. A block with `mod tests` belongs to the block before it.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../docs");
    println!("cargo::rerun-if-changed=pages");
    let mut pages = fs::read_dir("../docs")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let mut tests = String::new();
    for page in pages {
        let name = page.file_stem().and_then(|stem| stem.to_str()).ok_or("a page has a name")?;
        let before = fs::read_to_string(Path::new("pages").join(format!("{name}.txt"))).unwrap_or_default();
        for (line, code) in blocks(&fs::read_to_string(&page)?) {
            let test = format!("{}_line_{line}", name.replace('-', "_"));
            if code.contains("fn main() -> Result<()>") {
                write!(
                    tests,
                    "mod {test} {{\n{code}\n#[test]\nfn runs() -> Result<()> {{ main() }}\n}}\n\n"
                )?;
            } else {
                let begin = format!(
                    "#[test]\nfn {test}() -> chainrule::core::Result<()> {{\nuse chainrule::prelude::*;\n"
                );
                write!(tests, "{begin}{before}\n{{\n{code}\n}}\nOk(())\n}}\n\n")?;
            }
        }
    }
    Ok(fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), tests)?)
}

/// The blocks of Rust code of a page, each with the number of its first line.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, _)) = lines.find(|(_, line)| *line == "```rust") {
        let code = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let code = code.collect::<Vec<_>>().join("\n");
        match blocks.last_mut() {
            Some((_, before)) if code.contains("mod tests") => before.extend(["\n\n", &code]),
            _ => blocks.push((at + 2, code)),
        }
    }
    blocks
}
