//! Square f32 products in one thread by our engine, on the instruction set in use, and by the `matrixmultiply` crate (through
//! ndarray), which computes them where there are no vectors (`CHAINRULE_ISA=portable`).

use chainrule::tensor::{
    kernels::gemm::{Mat, MatMut, matmul},
    ndarray::{Array2, linalg::general_mat_mul},
    par,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn engines(c: &mut Criterion) {
    let mut group = c.benchmark_group("engines");
    for n in [4, 16, 64, 256, 1024] {
        let matrix =
            |seed: usize| (0..n * n).map(|i| ((i + seed) % 17) as f32 * 0.1 - 0.8).collect::<Vec<_>>();
        let (a, b, mut c) = (matrix(0), matrix(5), vec![0.0f32; n * n]);
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64)); // floating-point operations
        group.bench_with_input(BenchmarkId::new("chainrule", n), &n, |bench, &n| {
            par::with_threads(1, || {
                bench.iter(|| {
                    let (a, b) = (Mat::new(black_box(&a), n, n), Mat::new(&b, n, n));
                    matmul(1.0, a, b, 0.0, MatMut::new(&mut c, n, n));
                });
            });
        });
        let array = |seed: usize| Array2::from_shape_vec((n, n), matrix(seed)).expect("n × n elements");
        let (a, b, mut c) = (array(0), array(5), array(0));
        group.bench_with_input(BenchmarkId::new("matrixmultiply", n), &n, |bench, _| {
            bench.iter(|| general_mat_mul(1.0, black_box(&a), &b, 0.0, &mut c));
        });
    }
    group.finish();
}

criterion_group!(all, engines);
criterion_main!(all);
