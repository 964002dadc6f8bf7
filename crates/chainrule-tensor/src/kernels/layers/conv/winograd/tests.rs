//! Against the definition, for every instruction set.

use super::{
    super::{Filters, direct},
    range::Exempt,
    *,
};
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
    assert!(forward(isa, &Pass::forward(g), &x, &w, Some(&bias), &mut y, &mut work));
    let d = distance(&y, &want, 9 * g.channels);
    assert!(d < bound, "{isa:?} {g:?}: y is {d} off");

    if g.padding.iter().flatten().all(|&p| p <= 2) {
        let mut want = vec![0.0; g.x_len()];
        direct::input_gradient(g, &wide(&w), &wide(&dy), &mut want);
        let mut dx = vec![nan; g.x_len()];
        assert!(forward(isa, &Pass::input_gradient(g), &dy, &w, None, &mut dx, &mut work));
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

/// dW of equal addends, 576,000 and more of them: every block rounds the same way.
#[test]
#[cfg_attr(miri, ignore = "millions of products")]
fn long_sums_of_a_gradient_do_not_drift() {
    for isa in isas() {
        for (images, [h, w]) in [(640, [32, 32]), (2, [600, 600])] {
            let g = geometry(images, [2, 3], [h, w], [[0, 0], [0, 0]]);
            let (x, dy) = (vec![0.1f32; g.x_len()], vec![1.0 / 3.0f32; g.y_len()]);
            let mut dw = vec![0.0; g.w_len()];
            weight_gradient(isa, &Pass::forward(&g), &x, &dy, &mut dw, &mut Workspace::default());
            let want = (images * (h - 2) * (w - 2)) as f64 * f64::from(x[0]) * f64::from(dy[0]);
            let error = dw.iter().map(|&v| (f64::from(v) - want).abs() / want).fold(0.0, f64::max);
            assert!(error < 1e-6, "{isa:?} {images} images: {error:e}");
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
            let (mut x, w, mut dy) =
                (values::<f32>(g.x_len(), 1), values(g.w_len(), 2), values(g.y_len(), 3));
            // Some tiles are not transformed.
            (x[7], dy[5]) = (1e6, 1e6);
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
            assert!(forward_prepared(isa, pass, &x, (&w, &prepared), Some(&bias), &mut two, &mut work));
            assert_eq!(one, two);
        }
    }
}

/// y, ∂x and ∂w in f32, as the layer calls them.
fn all_directions(isa: Isa, g: &Geometry<2>, x: &[f32], w: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
    let (mut y, mut dx, mut dw) =
        (vec![f32::NAN; g.y_len()], vec![f32::NAN; g.x_len()], vec![0.0; g.w_len()]);
    let mut work = super::super::Workspace::default();
    super::super::forward(isa, g, x, Filters::new(w), None, &mut y, &mut work);
    super::super::input_gradient(isa, g, w, dy, &mut dx, &mut work);
    super::super::weight_gradient(isa, g, super::super::addends(g), x, dy, &mut dw, &mut work);
    [y, dx, dw]
}

/// The same in f64 by the definition.
fn definition(g: &Geometry<2>, x: &[f64], w: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
    direct::forward(g, x, w, None, &mut y);
    direct::input_gradient(g, w, dy, &mut dx);
    direct::weight_gradient(g, x, dy, &mut dw);
    [y, dx, dw]
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| f64::from(v)).collect()
}

/// The magnitudes, 0 for what is not finite.
fn sizes(v: &[f32]) -> Vec<f64> {
    v.iter().map(|v| if v.is_finite() { f64::from(v.abs()) } else { 0.0 }).collect()
}

/// Each value within `bound` of the definition, relative to the sum of the magnitudes of its own products; infinite, or not a
/// number, exactly where the definition says so.
fn agree(isa: Isa, g: &Geometry<2>, x: &[f32], w: &[f32], dy: &[f32], bound: f64, what: &str) {
    let want = definition(g, &wide(x), &wide(w), &wide(dy));
    let scale = definition(g, &sizes(x), &sizes(w), &sizes(dy));
    let got = all_directions(isa, g, x, w, dy);
    for (name, (got, (want, scale))) in ["y", "dx", "dw"].iter().zip(got.iter().zip(want.iter().zip(&scale)))
    {
        for (i, (&got, (&want, &scale))) in got.iter().zip(want.iter().zip(scale)).enumerate() {
            let right = match want {
                want if want.is_nan() => got.is_nan(),
                want if want.is_infinite() => f64::from(got) == want,
                want => (f64::from(got) - want).abs() <= bound * scale,
            };
            assert!(
                right,
                "{isa:?} {g:?}, {what}: {name}[{i}] is {got} and not {want}, of magnitude {scale}"
            );
        }
    }
}

/// Even and ragged tiles, few and many, with padding of every kind.
fn framed() -> Vec<Geometry<2>> {
    let one = [[1, 1], [1, 1]];
    vec![
        geometry(1, [12, 12], [8, 8], one),
        geometry(1, [12, 17], [13, 9], one),
        geometry(2, [20, 13], [10, 14], [[0, 0], [0, 0]]),
        geometry(3, [12, 33], [7, 6], [[2, 0], [1, 2]]),
        geometry(1, [35, 12], [9, 9], [[4, 3], [0, 5]]),
        geometry(9, [12, 12], [13, 10], one),
    ]
}

#[test]
fn a_wild_pixel_changes_nothing_that_does_not_see_it() {
    for isa in isas() {
        for (case, g) in framed().into_iter().enumerate() {
            assert!(serves(&g), "{g:?}");
            let (x, w, dy) = (values::<f32>(g.x_len(), 1), values(g.w_len(), 2), values(g.y_len(), 3));
            agree(isa, &g, &x, &w, &dy, 1e-5, "tame");
            let [h, width] = g.input;
            let [oh, ow] = g.output();
            // Corners, edges, the middle, and the borders of tiles.
            let places = |h: usize, w: usize| {
                [
                    (0, 0),
                    (h - 1, w - 1),
                    (0, w / 2),
                    (h / 2, 0),
                    (h / 2, w / 2),
                    (3.min(h - 1), 4),
                    (h - 1, 3),
                ]
            };
            for (i, wild) in
                [1e6, f32::INFINITY, 300.0, f32::NAN, -1e12, f32::NEG_INFINITY, 1e30].into_iter().enumerate()
            {
                let at = |of: [usize; 2], image: usize, channel: usize, channels: usize| {
                    let (row, col) = places(of[0], of[1])[(i + case) % 7];
                    ((image * channels + channel) * of[0] + row) * of[1] + col
                };
                let (mut one, mut other) = (x.clone(), dy.clone());
                one[at([h, width], g.images - 1, i + 1, g.channels)] = wild;
                other[at([oh, ow], 0, i + 2, g.filters)] = wild;
                par::with_threads(1 + 2 * (i % 2), || {
                    agree(isa, &g, &one, &w, &dy, 1e-5, &format!("x has {wild}"));
                    agree(isa, &g, &x, &w, &other, 1e-5, &format!("dy has {wild}"));
                });
            }
        }
    }
}

#[test]
fn a_lone_pixel_is_seen_where_it_is_and_nowhere_else() {
    let isa = isa();
    for g in framed() {
        let w = values::<f32>(g.w_len(), 2);
        for at in [0, 5, g.x_len() / 2, g.x_len() - 1] {
            let (mut x, mut dy) = (vec![0.0; g.x_len()], vec![0.0; g.y_len()]);
            x[at] = 1e6;
            agree(isa, &g, &x, &w, &values(g.y_len(), 3), 1e-5, "x");
            dy[at % g.y_len()] = 1e6;
            agree(isa, &g, &values(g.x_len(), 1), &w, &dy, 1e-5, "dy");
        }
    }
}

/// Where pixels in all channels are as much larger as transforms allow.
#[test]
fn the_error_stays_within_its_bound_at_the_widest_range() {
    for isa in isas() {
        let g = geometry(1, [16, 16], [16, 16], [[1, 1], [1, 1]]);
        let (x, w) = (values::<f32>(g.x_len(), 1), values::<f32>(g.w_len(), 2));
        let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let x: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, v)| if i % 5 == 0 && i / 16 % 5 == 0 { v.signum() * largest * 30.0 } else { *v })
            .collect();
        let mut y = vec![0.0; g.y_len()];
        let mut work = Workspace::default();
        assert!(forward(isa, &Pass::forward(&g), &x, &w, None, &mut y, &mut work));
        assert!(work.exempt.iter().all(|e| *e == Exempt::default()), "{:?}", work.exempt);
        let want = definition(&g, &wide(&x), &wide(&w), &vec![0.0; g.y_len()]);
        let worst = y.iter().zip(&want[0]).map(|(&y, want)| (f64::from(y) - want).abs()).fold(0.0, f64::max);
        let (window, filter) = (f64::from(largest), 9.0 * 16.0 * 0.8);
        assert!(worst < 16.0 * 64.0 * f64::from(f32::EPSILON) * window * filter, "{isa:?}: {worst}");
    }
}

#[test]
fn features_of_ordinary_networks_are_transformed() {
    let isa = isa();
    let g = geometry(4, [16, 16], [28, 28], [[1, 1], [1, 1]]);
    let (w, dy) = (values::<f32>(g.w_len(), 2), values::<f32>(g.y_len(), 3));
    // After ReLU, and with a dark frame around them where the biases alone are left.
    let mut x: Vec<f32> = values::<f32>(g.x_len(), 1).into_iter().map(|v| v.max(0.0)).collect();
    for (i, v) in x.iter_mut().enumerate() {
        let (row, col) = (i / 28 % 28, i % 28);
        if !(4..23).contains(&row) || !(6..22).contains(&col) {
            *v = 0.05 * (i / 784 % 3) as f32;
        }
    }
    // Gradients behind ReLU and a maximum over 2 × 2 pixels.
    let dy: Vec<f32> = dy.iter().enumerate().map(|(i, &v)| if i % 7 < 2 { v } else { 0.0 }).collect();
    let mut work = Workspace::default();
    let mut check = |pass: &Pass, from: &[f32], to: usize| {
        assert!(forward(isa, pass, from, &w, None, &mut vec![0.0; to], &mut work));
        assert!(work.exempt.iter().all(|e| e.wide == 0), "{:?}", work.exempt);
    };
    check(&Pass::forward(&g), &x, g.y_len());
    check(&Pass::input_gradient(&g), &dy, g.x_len());
    weight_gradient(isa, &Pass::forward(&g), &x, &dy, &mut vec![0.0; g.w_len()], &mut work);
    assert!(work.gathered.places.is_empty(), "{:?}", work.gathered.places);
}

#[test]
fn windows_of_zeros_give_the_bias_itself() {
    let g = geometry(2, [16, 16], [20, 20], [[1, 1], [1, 1]]);
    let (mut x, w, bias) = (values::<f32>(g.x_len(), 1), values::<f32>(g.w_len(), 2), values(g.filters, 3));
    for (i, v) in x.iter_mut().enumerate() {
        *v *= f32::from(i % 20 > 10);
    }
    let (mut y, mut work) = (vec![f32::NAN; g.y_len()], Workspace::default());
    assert!(forward(isa(), &Pass::forward(&g), &x, &w, Some(&bias), &mut y, &mut work));
    assert!(work.exempt.iter().all(|e| e.wide == 0) && work.exempt.iter().any(|e| e.zero != 0));
    assert!((0..y.len()).all(|i| i % 20 > 9 || y[i] == bias[i / 400 % 16]));
}

/// An element of a filter that is infinite, or whose products with transformed tiles could be.
#[test]
fn a_wild_filter_spoils_its_own_outputs_alone() {
    for isa in isas() {
        for g in [
            geometry(1, [12, 17], [13, 9], [[1, 1], [1, 1]]),
            geometry(9, [12, 12], [17, 15], [[0, 0], [0, 0]]),
        ] {
            for wild in [f32::INFINITY, f32::NAN, 1e30] {
                let (x, mut w, dy) =
                    (values::<f32>(g.x_len(), 1), values(g.w_len(), 2), values(g.y_len(), 3));
                let [tame_y, tame_dx, _] = all_directions(isa, &g, &x, &w, &dy);
                let (filter, channel) = (7, 3);
                w[(filter * g.channels + channel) * 9 + 4] = wild;
                let [y, dx, _] = all_directions(isa, &g, &x, &w, &dy);
                let (out, plane) = (g.output()[0] * g.output()[1], g.input[0] * g.input[1]);
                let near = |a: &f32, b: &f32| (a - b).abs() < 1e-4;
                assert!((0..y.len()).all(|i| i / out % g.filters == filter || near(&y[i], &tame_y[i])));
                assert!(
                    (0..dx.len()).all(|i| i / plane % g.channels == channel || near(&dx[i], &tame_dx[i]))
                );
                // Prepared filters likewise.
                let (mut work, mut again) = (super::super::Workspace::default(), vec![0.0; y.len()]);
                super::super::forward(
                    isa,
                    &g,
                    &x,
                    Filters::versioned(&w, [1, 2]),
                    None,
                    &mut again,
                    &mut work,
                );
                assert!(
                    y.iter()
                        .zip(&again)
                        .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
                );
            }
        }
    }
}
