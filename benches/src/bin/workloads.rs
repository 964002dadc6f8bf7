//! `cargo run --release -p chainrule-benches --bin workloads -- [--threads N] [--filter NAME] [--seconds S] [--breakdown] [list|limits|traffic]`
//!
//! A filter is the name of a workload or a part of several, in any case; `list` prints the names, `limits` what the machine can do, `traffic`
//! memory-bound layers as a share of a copy loop. One JSON line a workload, each in a process of its own, so that the peak memory
//! is that workload's.

use chainrule::tensor::par;
use chainrule_benches::{
    breakdown, limits,
    timing::{peak_rss_mb, time},
    traffic,
    workloads::{build, matching, names},
};
use std::process::{Command, ExitCode};

const USAGE: &str =
    "usage: workloads [--threads N] [--filter NAME] [--seconds S] [--breakdown] [list|limits|traffic]";

fn main() -> ExitCode {
    let (mut threads, mut filter, mut seconds, mut one) = (0, String::new(), 1.0, None);
    let (mut by_layer, mut machine, mut moved) = (false, false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--threads" => threads = value().parse().unwrap_or(0),
            "--filter" => filter = value(),
            "--seconds" => seconds = value().parse().unwrap_or(1.0),
            "--one" => one = Some(value()),
            "--breakdown" => by_layer = true,
            "limits" => machine = true,
            "traffic" => moved = true,
            "list" => {
                names().for_each(|name| println!("{name}"));
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("unexpected argument {arg}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    par::set_threads(threads);
    if machine {
        limits::print();
        return ExitCode::SUCCESS;
    }
    if by_layer || moved {
        let print = if moved { traffic::print } else { breakdown::print };
        return match print(&filter, seconds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(name) = one {
        return measure(&name, seconds);
    }
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let found = match matching(&filter) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    for name in found {
        let mut child = Command::new(&program);
        child.args(["--one", name, "--threads", &threads.to_string(), "--seconds", &seconds.to_string()]);
        if !child.status().is_ok_and(|status| status.success()) {
            eprintln!("{name}: failed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(name: &str, seconds: f64) -> ExitCode {
    let mut run = match build(name) {
        Ok(Some(run)) => run,
        Ok(None) => {
            eprintln!("no workload is named {name}");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let t = time(seconds, &mut run);
    println!(
        "{{\"peer\":\"chainrule\",\"workload\":\"{name}\",\"threads\":{},\"median_us\":{:.3},\"min_us\":{:.3},\"p90_us\":{:.3},\"iterations\":{},\"peak_rss_mb\":{:.1}}}",
        par::threads(),
        t.median_us,
        t.min_us,
        t.p90_us,
        t.iterations,
        peak_rss_mb()
    );
    ExitCode::SUCCESS
}
