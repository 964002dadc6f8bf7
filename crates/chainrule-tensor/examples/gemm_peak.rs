//! Matrix products as a share of what the processor can do, next to the `matrixmultiply` crate.
//!
//! Run: `cargo run --release -p chainrule-tensor --example gemm_peak -- [threads] [word of a case]`. The peak is a loop of
//! independent multiply-adds in registers; every figure is the best of many short runs that alternate with it.

use chainrule_tensor::{
    kernels::gemm::{Epilogue, Left, Mat, MatMut, PackedA, PackedB, matmul, matmul_with},
    kernels::{isa, layers::limits},
    par,
};
use std::{hint::black_box, time::Instant};

/// Seconds a floating-point operation takes at the peak of one thread.
fn peak() -> f64 {
    1.0 / limits::flops()
}

fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads: usize = args.next().and_then(|v| v.parse().ok()).unwrap_or(1);
    let filter = args.next().unwrap_or_default();
    let mut cases = Vec::new();
    for n in [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048] {
        cases.push((n, n, n));
    }
    cases.extend([(64, 784, 128), (128, 784, 512), (32, 256, 1024), (1024, 576, 64)]);
    cases.extend([
        (32, 784, 128),
        (128, 784, 128),
        (128, 512, 512),
        (32, 128, 64),
        (32, 64, 10),
        (128, 512, 10),
    ]);
    cases.extend([
        (64, 576, 1024),
        (16, 150, 64),
        (6, 25, 576),
        (1, 784, 128),
        (1, 128, 64),
        (1, 64, 8),
        (1, 6, 64),
        (4, 2, 3),
    ]);
    let size: Vec<usize> = filter.split(' ').filter_map(|v| v.parse().ok()).collect();
    if let [m, k, n] = size[..] {
        return par::with_threads(threads, || case(m, k, n, threads));
    }
    println!("{:?}, {threads} threads; share of the peak, in %; NN: A B, NT: A Bᵀ, TN: Aᵀ B", isa());
    println!(
        "{:>20} {:>8} | {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} | matrixmultiply NN NT TN",
        "m k n", "ns NN", "NN", "NT", "TN", "A pk", "B pk", "both"
    );
    for (m, k, n) in cases.into_iter().filter(|case| format!("{case:?}").contains(&filter)) {
        par::with_threads(threads, || case(m, k, n, threads));
    }
}

fn case(m: usize, k: usize, n: usize, threads: usize) {
    let value = |i: usize| (i % 17) as f32 * 0.1 - 0.8;
    let a: Vec<f32> = (0..m * k).map(value).collect();
    let b: Vec<f32> = (0..k * n).map(value).collect();
    let mut c = vec![0.0; m * n];
    let (mut pa, mut pb) = (PackedA::new(), PackedB::new());
    pa.pack(Mat::new(&a, m, k));
    pb.pack(Mat::new(&b, k, n));
    let nn = (Mat::new(&a, m, k), Mat::new(&b, k, n));
    let nt = (Mat::new(&a, m, k), Mat::new(&b, n, k).t());
    let tn = (Mat::new(&a, k, m).t(), Mat::new(&b, k, n));
    let flops = 2.0 * (m * k * n) as f64;
    let repeat = (2e6 / flops).ceil() as usize;
    let mut best = [f64::INFINITY; 10];
    let rounds = (4e9 / (flops * repeat as f64)).clamp(10.0, 300.0) as usize;
    for _ in 0..rounds {
        best[0] = best[0].min(peak());
        for (i, (a, b)) in [nn, nt, tn].into_iter().enumerate() {
            let out = &mut c;
            // Wakes the other threads.
            matmul(1.0, a, b, 0.0, MatMut::new(out, m, n));
            let t = seconds(|| {
                for _ in 0..repeat {
                    matmul(1.0, a, b, 0.0, MatMut::new(black_box(&mut *out), m, n));
                }
            });
            best[1 + i] = best[1 + i].min(t / repeat as f64);
        }
        for (i, left) in [Left::from(&pa), Left::from(nn.0), Left::from(&pa)].into_iter().enumerate() {
            let out = &mut c;
            let t = seconds(|| {
                for _ in 0..repeat {
                    let c = MatMut::new(out, m, n);
                    if i == 0 {
                        matmul_with(1.0, left, nn.1, 0.0, c, Epilogue::default());
                    } else {
                        matmul_with(1.0, left, &pb, 0.0, c, Epilogue::default());
                    }
                }
            });
            best[4 + i] = best[4 + i].min(t / repeat as f64);
        }
        let (k1, n1) = (k as isize, n as isize);
        for (i, (ra, ca, rb, cb)) in
            [(k1, 1, n1, 1), (k1, 1, 1, k1), (1, m as isize, n1, 1)].into_iter().enumerate()
        {
            let t = seconds(|| {
                for _ in 0..repeat {
                    // SAFETY: the slices hold m × k, k × n and m × n elements, in the layouts of `nn`, `nt` and `tn`.
                    unsafe {
                        let (a, b, c) = (black_box(a.as_ptr()), b.as_ptr(), c.as_mut_ptr());
                        matrixmultiply::sgemm(m, k, n, 1.0, a, ra, ca, b, rb, cb, 0.0, c, n1, 1);
                    }
                }
            });
            best[7 + i] = best[7 + i].min(t / repeat as f64);
        }
    }
    let share = |t: f64| 100.0 * best[0] * flops / t / threads as f64;
    print!("{:>20} {:>8.0} |", format!("{m} {k} {n}"), best[1] * 1e9);
    best[1..7].iter().for_each(|&t| print!(" {:>5.1}", share(t)));
    print!(" |");
    best[7..].iter().for_each(|&t| print!(" {:>5.1}", share(t)));
    println!("  ({:.1} GFLOP/s peak)", 1e-9 / best[0]);
}
