use super::*;
use crate::{kernels::best, par};

fn isas() -> impl Iterator<Item = Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&isa| isa <= best())
}

/// Small integers: their products and sums are exact, so that any order gives the same.
fn values<T: Scalar>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64(((i * 7919 + seed * 104_729 + 13) % 31) as f64 - 15.0)).collect()
}

/// The plain loop that every product is compared with; C is row-major.
fn naive<T: Scalar>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: &mut [T], e: Epilogue<'_, T>) {
    for i in 0..a.rows {
        for j in 0..b.cols {
            let at = |k: usize| a.data[i * a.row_stride + k * a.col_stride];
            let bt = |k: usize| b.data[k * b.row_stride + j * b.col_stride];
            let mut v = alpha * (0..a.cols).map(|k| at(k) * bt(k)).sum::<T>();
            if beta != T::ZERO {
                v += beta * c[i * b.cols + j];
            }
            v += e.row.map_or(T::ZERO, |row| row[j]) + e.col.map_or(T::ZERO, |col| col[i]);
            c[i * b.cols + j] = if e.relu && v < T::ZERO { T::ZERO } else { v };
        }
    }
}

/// The layout of a matrix in its slice: strides, and how many elements come first.
#[derive(Clone, Copy, Debug)]
struct Layout {
    row_stride: usize,
    col_stride: usize,
    first: usize,
}

fn layouts(rows: usize, cols: usize) -> [Layout; 4] {
    [(cols, 1, 0), (1, rows, 1), (cols + 3, 1, 2), (3, 3 * rows + 1, 0)].map(
        |(row_stride, col_stride, first)| Layout {
            row_stride: row_stride.max(1),
            col_stride: col_stride.max(1),
            first,
        },
    )
}

impl Layout {
    fn len(self, rows: usize, cols: usize) -> usize {
        self.first + rows * self.row_stride + cols * self.col_stride
    }

    fn mat<T>(self, data: &[T], rows: usize, cols: usize) -> Mat<'_, T> {
        Mat::strided(&data[self.first..], rows, cols, self.row_stride, self.col_stride)
    }
}

fn check<T: Scalar>(isa: Isa, (m, k, n): (usize, usize, usize), which: usize, packed: usize) {
    let (la, lb, lc) =
        (layouts(m, k)[which % 4], layouts(k, n)[which / 4 % 4], layouts(m, n)[which / 16 % 4]);
    let (da, db) = (values::<T>(la.len(m, k), 1), values::<T>(lb.len(k, n), 2));
    let (a, b) = (la.mat(&da, m, k), lb.mat(&db, k, n));
    let (row, col) = (values::<T>(n, 4), values::<T>(m, 5));
    let (one, two) = (T::ONE, T::from_f64(2.0));
    for (alpha, beta, e) in [
        (one, T::ZERO, Epilogue::default()),
        (two, one, Epilogue { row: Some(&row), ..Epilogue::default() }),
        (-one, -two, Epilogue { row: Some(&row), col: Some(&col), relu: true }),
    ] {
        let mut want = values::<T>(m * n, 3);
        let mut got = vec![T::from_f64(f64::NAN); lc.len(m, n)];
        let at = |i: usize, j: usize| lc.first + i * lc.row_stride + j * lc.col_stride;
        if beta != T::ZERO {
            (0..m * n).for_each(|ij| got[at(ij / n, ij % n)] = want[ij]);
        }
        naive(alpha, a, b, beta, &mut want, e);
        let c = MatMut::strided(&mut got[lc.first..], m, n, lc.row_stride, lc.col_stride);
        let (mut pa, mut pb) = (PackedA::new(), PackedB::new());
        let (mut left, mut right) = (Left::from(a), Right::from(b));
        if packed & 1 != 0 {
            pa.pack_for(isa, a);
            left = (&pa).into();
        }
        if packed & 2 != 0 {
            pb.pack_for(isa, b);
            right = (&pb).into();
        }
        product((isa, left.inner), alpha, left, right, beta, c, e);
        for i in 0..m {
            for j in 0..n {
                let (got, want) =
                    (std::mem::replace(&mut got[at(i, j)], T::from_f64(f64::NAN)), want[i * n + j]);
                assert!(
                    got == want,
                    "{isa:?} {m} {k} {n} layouts {which} packed {packed} ({i}, {j}): {got} {want}"
                );
            }
        }
        let untouched = got.iter().filter(|v| v.is_nan()).count();
        assert!(beta != T::ZERO || untouched == got.len(), "{isa:?} {m} {k} {n} {which}: wrote beside C");
    }
}

const SMALL: [(usize, usize, usize); 24] = [
    (1, 1, 1),
    (1, 2, 3),
    (1, 7, 5),
    (1, 6, 64),
    (1, 130, 1),
    (1, 40, 300),
    (5, 33, 1),
    (2, 16, 70),
    (3, 0, 4),
    (4, 4, 1),
    (3, 19, 140),
    (6, 17, 65),
    (7, 5, 16),
    (14, 16, 32),
    (15, 9, 33),
    (17, 9, 33),
    (29, 40, 47),
    (64, 31, 8),
    (31, 64, 10),
    (0, 3, 2),
    (2, 3, 0),
    (32, 32, 32),
    (45, 1, 50),
    (13, 23, 129),
];

#[test]
fn products_of_all_layouts_agree_with_the_naive_loop() {
    for isa in isas() {
        for size in SMALL {
            for which in 0..64 {
                check::<f32>(isa, size, which, 0);
            }
            for which in 0..8 {
                check::<f64>(isa, size, which, 0);
            }
        }
    }
}

#[test]
fn products_of_packed_operands_agree_with_the_naive_loop() {
    for isa in isas() {
        for (at, size) in SMALL.into_iter().enumerate() {
            for packed in 1..4 {
                for which in 0..8 {
                    check::<f32>(isa, size, which + 8 * at, packed);
                    check::<f64>(isa, size, which + 8 * at, packed);
                }
            }
        }
    }
}

#[test]
fn products_of_several_blocks_agree_with_the_naive_loop() {
    for isa in isas() {
        for (size, whiches) in [
            ((300, 1100, 70), [0, 1, 4, 5, 20, 10]),
            ((70, 790, 300), [0, 1, 4, 5, 20, 10]),
            ((70, 100, 2100), [0, 1, 4, 5, 20, 10]),
            ((130, 512, 513), [0, 1, 4, 5, 20, 10]),
        ] {
            for (packed, which) in whiches.into_iter().enumerate() {
                check::<f32>(isa, size, which, packed % 4);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "millions of products")]
fn products_of_long_sums_agree_with_the_naive_loop() {
    for isa in isas() {
        for (at, size) in [(1, LONG + 1, 1), (3, LONG + 300, 40), (20, LONG + 77, 2)].into_iter().enumerate()
        {
            for (packed, which) in [0, 1, 4, 5, 20, 10].into_iter().enumerate() {
                check::<f32>(isa, size, which + at, packed % 4);
                check::<f64>(isa, size, which + at, packed % 4);
            }
        }
    }
}

/// Of equal addends, which all round the same way: as many as stay in f32, in products small enough to be read in place.
#[test]
#[cfg_attr(miri, ignore = "millions of products")]
fn sums_that_stay_in_their_type_round_little() {
    for isa in isas() {
        for (m, k, n) in [(4, 43_690, 6), (1, LONG, 1), (2, LONG, 40), (7, 50_000, 3), (1, 12_288, 1)] {
            for which in [0, 1, 4, 5] {
                let (la, lb) = (layouts(m, k)[which % 4], layouts(k, n)[which / 4]);
                let (a, b) = (vec![0.1f32; la.len(m, k)], vec![1.0 / 3.0f32; lb.len(k, n)]);
                let mut c = vec![0.0; m * n];
                let (x, y) = (la.mat(&a, m, k).into(), lb.mat(&b, k, n).into());
                product((isa, k), 1.0, x, y, 0.0, MatMut::new(&mut c, m, n), Epilogue::default());
                let want = k as f64 * f64::from(a[0]) * f64::from(b[0]);
                let error = c.iter().map(|&v| (f64::from(v) - want).abs() / want).fold(0.0, f64::max);
                assert!(error < 1e-5, "{isa:?} {m} {k} {n} {which}: {error:e}");
            }
        }
    }
}

#[test]
fn more_threads_give_the_same_bits() {
    for isa in isas() {
        for (m, k, n) in [
            (100, 1030, 90),
            (300, 64, 200),
            (33, 2000, 700),
            (8, 3000, 100),
            (1, 3000, 400),
            (40, LONG + 9, 50),
        ] {
            for which in [0, 1, 4, 5] {
                let (la, lb) = (layouts(m, k)[which % 4], layouts(k, n)[which / 4]);
                let sines = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
                let (da, db) = (sines(la.len(m, k), 0.37), sines(lb.len(k, n), 0.73));
                let bits = |threads| {
                    let mut c = vec![1.0f32; m * n];
                    par::with_threads(threads, || {
                        let (a, b) = (la.mat(&da, m, k).into(), lb.mat(&db, k, n).into());
                        product((isa, k), 0.7, a, b, 0.3, MatMut::new(&mut c, m, n), Epilogue::default());
                    });
                    c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let one = bits(1);
                assert!((2..6).all(|threads| bits(threads) == one), "{isa:?} {m} {k} {n} {which}");
            }
        }
    }
}

#[test]
fn relu_in_the_epilogue_keeps_nan() {
    for isa in isas() {
        for (m, n) in [(1, 1), (20, 40)] {
            let (a, b) = (vec![f32::NAN; m * 3], vec![1.0; 3 * n]);
            let mut c = vec![0.0; m * n];
            let e = Epilogue { relu: true, ..Epilogue::default() };
            let (a, b) = (Mat::new(&a, m, 3).into(), Mat::new(&b, 3, n).into());
            product((isa, 3), 1.0, a, b, 0.0, MatMut::new(&mut c, m, n), e);
            assert!(c.iter().all(|v| v.is_nan()), "{isa:?}");
        }
    }
}

#[test]
fn a_row_of_a_steady_product_has_its_bits_whatever_the_number_of_rows() {
    fn check<T: Scalar>(k: usize, n: usize) {
        let noisy =
            |n: usize, by: f64| -> Vec<T> { (0..n).map(|i| T::from_f64((i as f64 * by).sin())).collect() };
        let (a, w, bias) = (noisy(40 * k, 0.7), noisy(n * k, 1.3), noisy(n, 0.9));
        let mut packed = PackedB::new();
        packed.pack(Mat::new(&w, n, k).t());
        let e = Epilogue { row: Some(&bias), ..Epilogue::default() };
        let product = |from: usize, to: usize| {
            let (m, mut c, mut d) =
                (to - from, vec![T::ZERO; (to - from) * n], vec![T::ZERO; (to - from) * n]);
            let a = || Mat::new(&a[from * k..to * k], m, k);
            matmul_steady(T::ONE, a(), Mat::new(&w, n, k).t(), T::ZERO, MatMut::new(&mut c, m, n), e);
            matmul_steady(T::ONE, a(), &packed, T::ZERO, MatMut::new(&mut d, m, n), e);
            assert!(c == d, "{k} {n}");
            c
        };
        let all = product(0, 40);
        for (from, to) in [(0, 1), (3, 5), (7, 14), (20, 40), (39, 40)] {
            assert!(product(from, to) == all[from * n..to * n], "{from}..{to} of {k} and {n}");
        }
    }
    for k in [1, 2, 3, 16, 31, 64, 200] {
        for n in [1, 2, 7, 32, 65, 130] {
            check::<f32>(k, n);
            check::<f64>(k, n);
        }
    }
    check::<f32>(1000, 50);
}
