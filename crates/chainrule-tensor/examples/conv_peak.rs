//! Convolutions as a share of what the processor can do.
//!
//! Run: `cargo run --release -p chainrule-tensor --example conv_peak -- [word of a case] [threads] [y, dx or dw]`. The peak is a loop of
//! independent multiply-adds in registers; every figure is the best of many short runs that alternate with it.

use chainrule_tensor::{
    kernels::layers::{
        conv::{Filters, Geometry, Workspace, conv, conv_input_gradient, conv_weight_gradient},
        limits,
    },
    par,
};
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let filter = args.next().unwrap_or_default();
    let threads: Option<usize> = args.next().and_then(|v| v.parse().ok());
    let only = args.next().unwrap_or_default();
    println!("{:?}; µs, GFLOP/s and share of the peak in %", chainrule_tensor::kernels::isa());
    println!("{:>16} {:>7} | {:^22} | {:^22} | {:^22}", "", "threads", "y", "dx", "dw");
    for (name, g) in cases().into_iter().filter(|(name, _)| name.contains(&filter)) {
        for threads in threads.map_or(vec![1, 2], |n| vec![n]) {
            par::with_threads(threads, || case(name, &g, threads, &only));
        }
    }
}

fn cases() -> Vec<(&'static str, Geometry<2>)> {
    let conv = |images, channels, filters, size, kernel, padding| Geometry {
        images,
        channels,
        filters,
        groups: 1,
        input: [size; 2],
        kernel: [kernel; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [[padding; 2]; 2],
    };
    let strided = |g| Geometry { stride: [2; 2], ..g };
    vec![
        ("lenet 1", conv(64, 1, 6, 28, 5, 2)),
        ("lenet 2", conv(64, 6, 16, 14, 5, 0)),
        ("lenet 1, 1 image", conv(1, 1, 6, 28, 5, 2)),
        ("lenet 2, 1 image", conv(1, 6, 16, 14, 5, 0)),
        ("cnn 1", conv(32, 3, 32, 32, 3, 1)),
        ("cnn 1, 1 image", conv(1, 3, 32, 32, 3, 1)),
        ("1x1", conv(16, 64, 128, 32, 1, 0)),
        ("1x1 7", conv(16, 64, 128, 7, 1, 0)),
        ("5x5 /2", strided(conv(16, 3, 32, 64, 5, 2))),
        ("depthwise", Geometry { groups: 64, ..conv(16, 64, 64, 32, 3, 1) }),
        ("3x3 64", conv(16, 64, 64, 32, 3, 1)),
        ("3x3 128", conv(16, 128, 128, 16, 3, 1)),
        ("3x3 256", conv(16, 256, 256, 8, 3, 1)),
        ("3x3 64 /2", strided(conv(16, 64, 128, 32, 3, 1))),
        ("5x5 64", conv(16, 64, 64, 16, 5, 2)),
        ("7x7 /2", strided(conv(4, 3, 64, 112, 7, 3))),
        ("3x3 64, dilated", Geometry { dilation: [2; 2], ..conv(16, 64, 64, 32, 3, 2) }),
    ]
}

fn case(name: &str, g: &Geometry<2>, threads: usize, only: &str) {
    let values = |n: usize| (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect::<Vec<_>>();
    let (x, w, bias, dy) = (values(g.x_len()), values(g.w_len()), values(g.filters), values(g.y_len()));
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
    let work = &mut Workspace::default();
    let flops = 2.0 * g.multiply_adds() as f64;
    let repeat = (2e7 / flops).ceil() as usize;
    let rounds = (1.5e10 / (flops * repeat as f64)).clamp(5.0, 60.0) as usize;
    let mut best = [f64::INFINITY; 4];
    for _ in 0..rounds {
        best[3] = best[3].min(1.0 / limits::flops());
        if "y".contains(only) {
            best[0] =
                best[0].min(seconds(repeat, || conv(g, &x, Filters::new(&w), Some(&bias), &mut y, work)));
        }
        if "dx".contains(only) {
            best[1] = best[1].min(seconds(repeat, || conv_input_gradient(g, &w, &dy, &mut dx, work)));
        }
        if "dw".contains(only) {
            best[2] = best[2].min(seconds(repeat, || conv_weight_gradient(g, &x, &dy, &mut dw, work)));
        }
    }
    print!("{name:>16} {threads:>7} |");
    for t in &best[..3] {
        let share = 100.0 * best[3] * flops / t / threads as f64;
        print!(" {:>8.1} {:>6.1} {share:>6.1} |", t * 1e6, flops / t * 1e-9);
    }
    println!(" ({:.0} GFLOP/s peak)", 1e-9 / best[3]);
}

/// Of one call.
fn seconds(repeat: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..repeat).for_each(|_| f());
    start.elapsed().as_secs_f64() / repeat as f64
}
