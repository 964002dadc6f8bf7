//! `cargo run --release -p chainrule-parity -- DIR [--dtype f32|f64] [--only MODULE] [--verbose]`

use chainrule_parity::{Outcome, run};
use std::{path::PathBuf, process::ExitCode};

const USAGE: &str = "usage: chainrule-parity DIR [--dtype f32|f64] [--only MODULE] [--verbose]";

fn main() -> ExitCode {
    let (mut folder, mut dtype, mut only, mut verbose) = (None, "f64".to_owned(), None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dtype" => dtype = args.next().unwrap_or_default(),
            "--only" => only = args.next(),
            "--verbose" => verbose = true,
            _ if folder.is_none() && !arg.starts_with("--") => folder = Some(PathBuf::from(arg)),
            _ => return wrong(&format!("unexpected argument {arg}")),
        }
    }
    let Some(folder) = folder else { return wrong("expected a folder of reference cases") };
    let report = match dtype.as_str() {
        "f64" => run::<f64>(&folder, only.as_deref()),
        "f32" => run::<f32>(&folder, only.as_deref()),
        other => return wrong(&format!("expected dtype f32 or f64, got {other:?}")),
    };
    match report {
        Err(error) => wrong(&error.to_string()),
        Ok(report) => {
            if verbose {
                for (_, id, outcome) in report.cases() {
                    match outcome {
                        Outcome::Passed => println!("{id}: passed"),
                        Outcome::Failed(why) => println!("{id}: FAILED: {why}"),
                        Outcome::Skipped(why) => println!("{id}: not covered: {why}"),
                    }
                }
            }
            println!("{report}");
            if report.totals()[1] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("{why}\n{USAGE}");
    ExitCode::from(2)
}
