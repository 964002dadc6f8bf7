//! Against the definition, for every instruction set.

use super::{super::direct, *};
use crate::{
    kernels::{best, isa},
    par,
};

fn isas() -> impl Iterator<Item = Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&isa| isa <= best())
}

/// About normally distributed values, the same for the same seed.
fn values<T: Scalar>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    (0..n).map(|_| T::from_f64((0..12).map(|_| uniform()).sum())).collect()
}

fn geometry(
    images: usize,
    [channels, filters]: [usize; 2],
    input: [usize; 2],
    padding: [[usize; 2]; 2],
) -> Geometry<2> {
    Geometry {
        images,
        channels,
        filters,
        groups: 1,
        input,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding,
    }
}

fn geometries() -> Vec<Geometry<2>> {
    let mut seed = 12345usize;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let mut all = vec![
        geometry(0, [3, 4], [5, 5], [[1, 1], [1, 1]]),
        geometry(5, [16, 32], [8, 8], [[1, 1], [1, 1]]),
        geometry(2, [70, 33], [16, 16], [[1, 1], [1, 1]]),
        geometry(1, [1, 1], [1, 1], [[1, 1], [1, 1]]),
        geometry(1, [2, 3], [1, 300], [[1, 1], [1, 1]]),
        geometry(1, [2, 3], [70, 40], [[0, 0], [0, 0]]),
    ];
    while all.len() < 60 {
        let images = [1, 1, 2, 5][below(4)];
        let mut pair = |from: usize, n: usize| [from + below(n), from + below(n)];
        let (channels, input) = (pair(1, if all.len() % 3 == 0 { 70 } else { 20 }), pair(1, 21));
        let g = geometry(images, channels, input, [pair(0, 3), pair(0, 3)]);
        if possible(&g) {
            all.push(g);
        }
    }
    all
}

/// The largest difference as a share of what the terms of a sum of `terms` values of size 1 make.
fn distance<T: Scalar>(got: &[T], want: &[f64], terms: usize) -> f64 {
    let scale = (terms as f64).sqrt();
    got.iter().zip(want).map(|(g, w)| (g.to_f64() - w).abs() / scale).fold(0.0, f64::max)
}

fn check<T: Scalar>(isa: Isa, g: &Geometry<2>, bound: f64) {
    let (x, w, bias): (Vec<f64>, _, _) = (values(g.x_len(), 1), values(g.w_len(), 2), values(g.filters, 3));
    let dy: Vec<f64> = values(g.y_len(), 4);
    let own = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (x, w, bias, dy): (Vec<T>, Vec<T>, Vec<T>, Vec<T>) = (own(&x), own(&w), own(&bias), own(&dy));
    let wide = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let mut work = Workspace::default();
    let nan = T::from_f64(f64::NAN);

    let mut want = vec![0.0; g.y_len()];
    direct::forward(g, &wide(&x), &wide(&w), Some(&wide(&bias)), &mut want);
    let mut y = vec![nan; g.y_len()];
    forward(isa, &Pass::forward(g), &x, &w, Some(&bias), &mut y, &mut work);
    let d = distance(&y, &want, 9 * g.channels);
    assert!(d < bound, "{isa:?} {g:?}: y is {d} off");

    if g.padding.iter().flatten().all(|&p| p <= 2) {
        let mut want = vec![0.0; g.x_len()];
        direct::input_gradient(g, &wide(&w), &wide(&dy), &mut want);
        let mut dx = vec![nan; g.x_len()];
        forward(isa, &Pass::input_gradient(g), &dy, &w, None, &mut dx, &mut work);
        let d = distance(&dx, &want, 9 * g.filters);
        assert!(d < bound, "{isa:?} {g:?}: dx is {d} off");
    }

    let mut want = vec![3.0; g.w_len()];
    direct::weight_gradient(g, &wide(&x), &wide(&dy), &mut want);
    let mut dw = vec![T::from_f64(3.0); g.w_len()];
    weight_gradient(isa, &Pass::forward(g), &x, &dy, &mut dw, &mut work);
    let [oh, ow] = g.output();
    let d = distance(&dw, &want, (g.images * oh * ow).max(9));
    assert!(d < bound, "{isa:?} {g:?}: dw is {d} off");
}

#[test]
fn all_directions_agree_with_the_definition() {
    for isa in isas() {
        for g in geometries() {
            check::<f32>(isa, &g, 2e-5);
            check::<f64>(isa, &g, 1e-13);
        }
    }
}

#[test]
fn more_threads_give_the_same_bits() {
    for isa in isas() {
        for g in [
            geometry(3, [40, 33], [17, 19], [[1, 1], [1, 1]]),
            geometry(1, [70, 70], [8, 8], [[1, 1], [1, 1]]),
            geometry(1, [20, 70], [4, 4], [[0, 2], [1, 1]]),
        ] {
            let (x, w, dy) = (values::<f32>(g.x_len(), 1), values(g.w_len(), 2), values(g.y_len(), 3));
            let bits = |threads| {
                let (mut y, mut dx, mut dw) =
                    (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![1.0; g.w_len()]);
                par::with_threads(threads, || {
                    let mut work = Workspace::default();
                    forward(isa, &Pass::forward(&g), &x, &w, None, &mut y, &mut work);
                    forward(isa, &Pass::input_gradient(&g), &dy, &w, None, &mut dx, &mut work);
                    weight_gradient(isa, &Pass::forward(&g), &x, &dy, &mut dw, &mut work);
                });
                [y, dx, dw].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = bits(1);
            assert!((2..5).all(|threads| bits(threads) == one), "{isa:?} {g:?}");
        }
    }
}

/// The largest and the root-mean-square distance from what `want` says.
fn errors(got: &[f32], want: &[f64]) -> [f64; 2] {
    let off = || got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs());
    [off().fold(0.0, f64::max), (off().map(|e| e * e).sum::<f64>() / want.len() as f64).sqrt()]
}

/// Layers as they are met in training: inputs of size 1, weights of variance 2/(9 C), gradients of size 1.
#[test]
fn the_error_stays_within_what_is_stated() {
    for [channels, filters] in [[64, 64], [256, 32]] {
        let g = geometry(2, [channels, filters], [16, 16], [[1, 1], [1, 1]]);
        let scale = (2.0 / (9.0 * channels as f64)).sqrt() as f32;
        let (x, dy) = (values::<f32>(g.x_len(), 1), values::<f32>(g.y_len(), 2));
        let w: Vec<f32> = values(g.w_len(), 3).into_iter().map(|v: f32| v * scale).collect();
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x64, w64, dy64) = (wide(&x), wide(&w), wide(&dy));
        let (mut y64, mut dx64, mut dw64) =
            (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
        direct::forward(&g, &x64, &w64, None, &mut y64);
        direct::input_gradient(&g, &w64, &dy64, &mut dx64);
        direct::weight_gradient(&g, &x64, &dy64, &mut dw64);
        let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
        direct::forward(&g, &x, &w, None, &mut y);
        direct::input_gradient(&g, &w, &dy, &mut dx);
        direct::weight_gradient(&g, &x, &dy, &mut dw);
        let direct = [errors(&y, &y64), errors(&dx, &dx64), errors(&dw, &dw64)];
        for isa in isas() {
            let mut work = Workspace::default();
            forward(isa, &Pass::forward(&g), &x, &w, None, &mut y, &mut work);
            forward(isa, &Pass::input_gradient(&g), &dy, &w, None, &mut dx, &mut work);
            dw.fill(0.0);
            weight_gradient(isa, &Pass::forward(&g), &x, &dy, &mut dw, &mut work);
            let own = [errors(&y, &y64), errors(&dx, &dx64), errors(&dw, &dw64)];
            for (own, direct) in own.into_iter().zip(direct) {
                let stated = own[0] <= 4.0 * direct[0] && own[1] <= 3.0 * direct[1];
                assert!(stated, "{isa:?} {channels} {filters}: {own:?}, the direct sum {direct:?}");
            }
            // Where y reaches 5.7.
            assert!(own[0][0] < 2.5e-5, "{isa:?} {channels} {filters}: {own:?}");
        }
    }
}

#[test]
fn prepared_filters_give_the_same_bits() {
    for g in [
        geometry(3, [40, 33], [17, 19], [[1, 1], [1, 1]]),
        geometry(1, [20, 70], [8, 8], [[1, 1], [1, 1]]),
        geometry(2, [20, 70], [5, 33], [[0, 2], [1, 1]]),
    ] {
        let (w, bias) = (values::<f32>(g.w_len(), 2), values(g.filters, 3));
        let (mut work, mut prepared, isa) = (Workspace::default(), Prepared::default(), isa());
        prepare(isa, &Pass::forward(&g), &w, &mut prepared);
        for images in [1, g.images, 9] {
            let g = Geometry { images, ..g };
            let pass = &Pass::forward(&g);
            let x = values::<f32>(g.x_len(), 1);
            let (mut one, mut two) = (vec![0.0; g.y_len()], vec![f32::NAN; g.y_len()]);
            forward(isa, pass, &x, &w, Some(&bias), &mut one, &mut work);
            forward_prepared(isa, pass, &x, &prepared, Some(&bias), &mut two, &mut work);
            assert_eq!(one, two);
        }
    }
}
