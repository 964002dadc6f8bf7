//! Winograd's convolution as effective GFLOP/s, which count the operations of the plain sum.
//!
//! Run: `cargo run --release -p chainrule-tensor --example winograd_peak -- [threads] [word of a case] [direction]`. With a
//! direction (0 to 4) it computes that alone for some seconds, for a profiler to look at.

use chainrule_tensor::{
    kernels::conv::{
        Geometry,
        winograd::{
            Prepared, Workspace, forward, forward_prepared, input_gradient, prepare, weight_gradient,
        },
    },
    par,
};
use std::time::Instant;

const NAMES: [&str; 5] = ["forward", "prepared", "weights", "dx", "dw"];

fn main() {
    let mut args = std::env::args().skip(1);
    let threads: usize = args.next().and_then(|v| v.parse().ok()).unwrap_or(1);
    let filter = args.next().unwrap_or_default();
    let alone: Option<usize> = args.next().and_then(|v| v.parse().ok());
    println!("{:>24} | {}", "N C K size", NAMES.map(|n| format!("{n:>8} GF/s      µs")).join(" |"));
    for (n, c, k, size) in [
        (16, 64, 64, 32),
        (16, 128, 128, 16),
        (16, 256, 256, 8),
        (32, 3, 32, 32),
        (32, 32, 64, 16),
        (32, 64, 128, 8),
        (1, 3, 32, 32),
        (1, 32, 64, 16),
        (1, 64, 128, 8),
        (1, 64, 64, 224),
    ] {
        if format!("{n} {c} {k} {size}").contains(&filter) {
            par::with_threads(threads, || case(n, c, k, size, alone));
        }
    }
}

fn case(n: usize, c: usize, k: usize, size: usize, alone: Option<usize>) {
    let g = Geometry {
        images: n,
        channels: c,
        filters: k,
        groups: 1,
        input: [size; 2],
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [[1; 2]; 2],
    };
    let numbers = |n: usize| (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect::<Vec<_>>();
    let (x, w, bias) = (numbers(g.x_len()), numbers(g.w_len()), numbers(k));
    let (mut y, mut dx, mut dw) = (numbers(g.y_len()), numbers(g.x_len()), numbers(g.w_len()));
    let dy = y.clone();
    let (mut work, mut prepared) = (Workspace::default(), Prepared::default());
    prepare(&g, &w, &mut prepared);
    let mut again = Prepared::default();
    let mut run = |which: usize| match which {
        0 => forward(&g, &x, &w, Some(&bias), &mut y, &mut work),
        1 => forward_prepared(&g, &x, &prepared, Some(&bias), &mut y, &mut work),
        2 => prepare(&g, &w, &mut again),
        3 => input_gradient(&g, &w, &dy, &mut dx, &mut work),
        _ => weight_gradient(&g, &x, &dy, &mut dw, &mut work),
    };
    if let Some(which) = alone {
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 5.0 {
            run(which);
        }
        return;
    }
    let flops = 2.0 * g.multiply_adds() as f64;
    print!("{:>24} |", format!("{n} {c} {k} {size}"));
    for which in 0..NAMES.len() {
        let mut best = f64::INFINITY;
        let begin = Instant::now();
        while begin.elapsed().as_secs_f64() < 0.5 {
            let start = Instant::now();
            run(which);
            best = best.min(start.elapsed().as_secs_f64());
        }
        print!(" {:>13.1} {:>7.1} |", flops / best * 1e-9, best * 1e6);
    }
    println!();
}
