//! Kernels are `unsafe` inside and safe to call: whatever sizes they are given, they panic with a message or compute what the sizes
//! say. Run by `.ci/sanitize` too.

use chainrule_tensor::{
    kernels::{
        gemm::{Epilogue, Mat, MatMut, PackedA, PackedB, matmul, matmul_with},
        layers::{
            Window,
            bag::{Bags, max_bags, sum_bags},
            conv::{Filters, Geometry, Workspace, conv, conv_input_gradient, conv_weight_gradient},
            embedding::{gather, scatter_add, zero_rows},
            norm::{Affine, Channels, batch_norm, batch_norm_gradient, normalize_channels},
            pad::{pad, pad_gradient},
            pool::{
                Span, average_pool, average_pool_gradient, max_pool, max_pool_corners,
                max_pool_corners_gradient, max_pool_gradient,
            },
        },
    },
    par,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sizes whose sums, products or strides overflow.
const HOSTILE: [usize; 9] = [
    0,
    1 << 31,
    1 << 40,
    1 << 60,
    (1 << 63) + 1,
    usize::MAX / 2,
    usize::MAX / 3 + 1,
    usize::MAX - 1,
    usize::MAX,
];

/// The message that `f` panics with.
fn message<R>(f: impl FnOnce() -> R) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    Some(match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a panic has a message")).to_owned(),
    })
}

fn refuses<R>(expected: &str, f: impl FnOnce() -> R) {
    let text = message(f).unwrap_or_else(|| panic!("accepted, not refused with \"{expected}\""));
    assert!(text.contains(expected), "expected \"{expected}\", got \"{text}\"");
}

#[test]
fn matrices_that_do_not_fit_in_memory_are_not_packed() {
    let one = [3.0f32];
    let (mut a, mut b) = (PackedA::new(), PackedB::new());
    for (rows, cols) in
        [(1 << 60, 1), (1, 1 << 60), (1 << 60, 16), (usize::MAX, 1), (1 << 32, 1 << 32), (1 << 61, 8)]
    {
        let all = Mat::strided(&one, rows, cols, 0, 0);
        a.pack(Mat::new(&one, 1, 1));
        b.pack(Mat::new(&one, 1, 1));
        refuses("in memory", || a.pack(all));
        refuses("in memory", || b.pack(all));
        // What is left is an operand of no elements, of which there is no product.
        let mut c = [0.0; 1];
        let epilogue = Epilogue::default();
        refuses("is not (1 × 1)", || {
            matmul_with(1.0, &a, Mat::new(&one, 1, 1), 0.0, MatMut::new(&mut c, 1, 1), epilogue);
        });
        let mut c = [0.0; 1];
        refuses("is not (1 × 1)", || {
            matmul_with(1.0, Mat::new(&one, 1, 1), &b, 0.0, MatMut::new(&mut c, 1, 1), epilogue);
        });
    }
    a.pack(Mat::strided(&one, 2, 5, 0, 0));
    let mut c = [0.0; 2];
    matmul_with(1.0, &a, Mat::strided(&one, 5, 1, 0, 0), 0.0, MatMut::new(&mut c, 2, 1), Epilogue::default());
    assert_eq!(c, [45.0; 2]);
}

#[test]
fn views_beyond_their_slice_are_refused() {
    for n in HOSTILE.into_iter().filter(|&n| n > 0) {
        refuses("does not fit", || Mat::new(&[0.0f32; 4], n, 2));
        refuses("does not fit", || Mat::new(&[0.0f32; 4], 2, n));
        refuses("does not fit", || Mat::strided(&[0.0f32; 4], 2, 2, n, 1));
        refuses("does not fit", || Mat::strided(&[0.0f32; 4], 2, 2, 1, n));
        refuses("does not fit", || _ = MatMut::strided(&mut [0.0f32; 4], 2, 2, n, 1));
        refuses("does not fit", || _ = MatMut::strided(&mut [0.0f32; 4], n, n, n, n));
    }
}

#[test]
fn elements_that_are_written_to_share_no_place() {
    for (rows, cols, row_stride, col_stride) in [
        (2, 1, 0, 1),
        (1, 2, 1, 0),
        (1 << 60, 1, 0, 7),
        (1, 1 << 60, 7, 0),
        (2, 2, 1, 1),
        (3, 3, 0, 1),
        (2, 3, 3, 2),
    ] {
        refuses("must not share a place", || {
            MatMut::strided(&mut [0.0f32; 9], rows, cols, row_stride, col_stride);
        });
    }
    for (rows, cols, row_stride, col_stride) in
        [(1, 1, 0, 0), (0, 9, 0, 0), (2, 2, 2, 1), (2, 2, 1, 2), (2, 3, 1, 2), (1, 3, 0, 4), (3, 1, 4, 0)]
    {
        MatMut::strided(&mut [0.0f32; 9], rows, cols, row_stride, col_stride);
    }
}

/// The stride of an axis of no element or of one leads nowhere and may be anything.
#[test]
fn strides_that_lead_nowhere_are_ignored() {
    let ones = vec![1.0f32; 4096];
    for stride in HOSTILE {
        for (m, k, n) in
            [(1, 1, 1), (1, 7, 1), (1, 64, 64), (64, 64, 1), (64, 1, 64), (1, 1, 64), (5, 0, 7), (64, 0, 64)]
        {
            let strides = |rows: usize, cols: usize| {
                [if rows < 2 { stride } else { cols.max(1) }, if cols < 2 { stride } else { 1 }]
            };
            let ([ar, ac], [br, bc], [cr, cc]) = (strides(m, k), strides(k, n), strides(m, n));
            let (a, b) = (Mat::strided(&ones, m, k, ar, ac), Mat::strided(&ones, k, n, br, bc));
            let mut c = vec![f32::NAN; m * n];
            matmul(1.0, a, b, 0.0, MatMut::strided(&mut c, m, n, cr, cc));
            assert!(c.iter().all(|&v| v == k as f32), "{m} × {k} × {n} at stride {stride}: {c:?}");
        }
        // No element, whatever the strides.
        let mut c = [f32::NAN; 6];
        matmul(
            1.0,
            Mat::strided(&[], 2, 0, stride, stride),
            Mat::strided(&[], 0, 3, stride, stride),
            0.0,
            MatMut::new(&mut c, 2, 3),
        );
        assert_eq!(c, [0.0; 6]);
        matmul(
            1.0,
            Mat::strided(&ones, stride, 0, 1, 1),
            Mat::strided(&[], 0, 0, 1, 1),
            0.0,
            MatMut::strided(&mut [], stride, 0, 1, 1),
        );
    }
}

fn square() -> Geometry<2> {
    Geometry {
        images: 2,
        channels: 4,
        filters: 6,
        groups: 2,
        input: [5, 7],
        kernel: [3, 3],
        stride: [1, 2],
        dilation: [1, 1],
        padding: [[1, 1], [0, 1]],
    }
}

/// Calls all three with slices of the lengths that the geometry says or, where those are too long, of some elements.
fn passes<const R: usize>(g: &Geometry<R>) -> [Option<String>; 3] {
    let slice = |n: usize| vec![1.0f32; if n > 1 << 16 { 17 } else { n }];
    // Groups of 0 have no channels.
    let w_len = message(|| g.w_len()).map_or_else(|| g.w_len(), |_| 17);
    let (mut x, mut w, mut y) = (slice(g.x_len()), slice(w_len), slice(g.y_len()));
    let mut work = Workspace::default();
    [
        message(|| conv(g, &x, Filters::new(&w), None, &mut y, &mut work)),
        message(|| conv_input_gradient(g, &w, &y, &mut x, &mut work)),
        message(|| conv_weight_gradient(g, &x, &y, &mut w, &mut work)),
    ]
}

#[test]
fn convolutions_of_hostile_sizes_are_refused_or_right() {
    fn all<const R: usize>(good: Geometry<R>) {
        let mut kinds = Vec::new();
        for n in HOSTILE {
            let some = |v: [usize; R], axis: usize| std::array::from_fn(|a| if a == axis { n } else { v[a] });
            let pads = |axis: usize, sides: [usize; 2]| {
                std::array::from_fn(|a| if a == axis { sides } else { good.padding[a] })
            };
            kinds.extend([
                Geometry { images: n, ..good },
                Geometry { channels: n, ..good },
                Geometry { filters: n, ..good },
                Geometry { groups: n, ..good },
                Geometry { channels: n - n % 2, filters: n - n % 2, ..good },
            ]);
            for axis in 0..R {
                kinds.extend([
                    Geometry { input: some(good.input, axis), ..good },
                    Geometry { kernel: some(good.kernel, axis), ..good },
                    Geometry { stride: some(good.stride, axis), ..good },
                    Geometry { dilation: some(good.dilation, axis), ..good },
                    Geometry { padding: pads(axis, [n, 0]), ..good },
                    Geometry { padding: pads(axis, [0, n]), ..good },
                    Geometry { padding: pads(axis, [n, n]), ..good },
                    Geometry { padding: pads(axis, [n, n]), stride: some(good.stride, axis), ..good },
                    Geometry { padding: pads(axis, [n, n]), dilation: some(good.dilation, axis), ..good },
                    Geometry { padding: pads(axis, [n, n]), kernel: some(good.kernel, axis), ..good },
                    Geometry {
                        padding: pads(axis, [n / 2, n / 2]),
                        stride: some(good.stride, axis),
                        dilation: some(good.dilation, axis),
                        ..good
                    },
                ]);
            }
        }
        let mut right = 0;
        for g in kinds {
            for text in passes(&g) {
                match text {
                    None => right += 1,
                    Some(text) => assert!(
                        ["expected", "as long as", "divide by zero"].iter().any(|part| text.contains(part)),
                        "{g:?}: {text}"
                    ),
                }
            }
        }
        assert!(right > 0, "some are computed");
    }
    all(square());
    let Geometry { images, channels, filters, groups, .. } = square();
    all(Geometry {
        images,
        channels,
        filters,
        groups,
        input: [9],
        kernel: [3],
        stride: [1],
        dilation: [1],
        padding: [[1, 1]],
    });
    all(Geometry {
        images,
        channels,
        filters,
        groups,
        input: [3, 4, 5],
        kernel: [2, 2, 2],
        stride: [1; 3],
        dilation: [1; 3],
        padding: [[1, 1]; 3],
    });
    // Those that go by tiles.
    all(Geometry {
        channels: 12,
        filters: 16,
        groups: 1,
        input: [9, 9],
        stride: [1, 1],
        padding: [[1; 2]; 2],
        ..square()
    });
}

#[test]
fn a_bias_of_another_length_is_refused() {
    for channels in [4, 32] {
        let g = Geometry { channels, filters: channels, groups: 1, stride: [1; 2], ..square() };
        let (x, w, mut y) = (vec![0.0f32; g.x_len()], vec![0.0; g.w_len()], vec![0.0; g.y_len()]);
        refuses("a bias has one element a filter", || {
            conv(&g, &x, Filters::new(&w), Some(&[0.0; 3]), &mut y, &mut Workspace::default());
        });
    }
}

#[test]
fn any_setting_of_threads_gives_the_same_convolution() {
    let grouped = Geometry { images: 3, channels: 24, filters: 24, input: [40, 40], ..square() };
    let tiled = Geometry { groups: 1, stride: [1; 2], ..grouped };
    for g in [
        grouped,
        tiled,
        Geometry { kernel: [5, 5], ..tiled },
        Geometry { kernel: [1, 1], padding: [[0; 2]; 2], ..tiled },
    ] {
        let all = |threads: usize| {
            par::with_threads(threads, || {
                let values = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
                let (x, w, mut work) = (values(g.x_len()), values(g.w_len()), Workspace::default());
                let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; x.len()], vec![0.0; w.len()]);
                conv(&g, &x, Filters::new(&w), None, &mut y, &mut work);
                conv_input_gradient(&g, &w, &y, &mut dx, &mut work);
                conv_weight_gradient(&g, &x, &y, &mut dw, &mut work);
                [y, dx, dw].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        let one = all(1);
        assert!([7, 1 << 60, usize::MAX].into_iter().all(|threads| all(threads) == one), "{g:?}");
    }
}

#[test]
fn products_take_any_setting_of_threads() {
    let (a, b) = (vec![1.0f32; 200 * 300], vec![2.0f32; 300 * 100]);
    let mut c = vec![0.0; 200 * 100];
    par::with_threads(1 << 60, || {
        matmul(1.0, Mat::new(&a, 200, 300), Mat::new(&b, 300, 100), 0.0, MatMut::new(&mut c, 200, 100));
    });
    assert!(c.iter().all(|&v| v == 600.0));
}

#[test]
fn windows_of_hostile_sizes_are_refused_or_right() {
    let good = Window { stride: [1, 2], padding: [[1, 1]; 2], ..Window::new([4, 5], [3, 3]) };
    let mut all = Vec::new();
    for n in HOSTILE {
        all.extend([
            Window { input: [n, 5], ..good },
            Window { kernel: [n, 3], ..good },
            Window { stride: [1, n], ..good },
            Window { dilation: [n, 1], ..good },
            Window { padding: [[n, n], [1, 1]], ..good },
            Window { padding: [[n, n], [1, 1]], kernel: [n, 3], ..good },
            Window { padding: [[n / 2, n / 2], [1, 1]], kernel: [n, 3], stride: [n, 1], ..good },
            Window { padding: [[n, n], [n, n]], kernel: [3, 3], stride: [n, n], dilation: [n, n], ..good },
        ]);
    }
    for window in all {
        for ceil in [false, true] {
            let window = Window { ceil, ..window };
            let volume = |axes: [usize; 2]| axes[0].saturating_mul(axes[1]);
            let [plane, out] = [window.input, window.output()].map(volume).map(|n| n.min(64));
            let (x, mut y, mut winners) = (vec![1.0f32; plane], vec![0.0; out], vec![0; out]);
            for text in [
                message(|| max_pool(&x, &mut y, Some(&mut winners), &window)),
                message(|| max_pool(&x, &mut y, None, &window)),
            ] {
                assert!(text.as_ref().is_none_or(|text| text.contains("expected")), "{window:?}: {text:?}");
            }
        }
    }
    let (mut y, mut dx) = ([0.0f32; 4], [0.0f32; 4]);
    refuses("a winner for each", || {
        max_pool(&[0.0; 4], &mut y, Some(&mut [0; 3]), &Window::new([2, 2], [1, 1]))
    });
    refuses("a winner for each", || max_pool_gradient(&[0.0; 4], &[0; 3], &mut dx, 4));
    refuses("out of bounds", || max_pool_gradient(&[0.0], &[4], &mut dx, 4));
    for n in HOSTILE.into_iter().filter(|&n| n > 4) {
        refuses("whole planes", || max_pool_gradient(&[0.0; 4], &[0; 4], &mut dx, n));
        refuses("as many planes", || max_pool_corners(&[0.0f32; 4], &mut [0.0], None, [n, n]));
        refuses("as many planes", || max_pool_corners_gradient(&[0.0f32; 4], &[0; 4], &mut dx, [n, 2]));
        let span = |end: usize| [Span { start: 0, end, count: n }];
        let (one, beyond, mut rows) = (span(2), span(n), Vec::new());
        refuses("inside their axis", || {
            average_pool(&[0.0; 4], &mut [0.0], [2, 2], [&one, &beyond], None, &mut rows)
        });
        refuses("as many planes", || {
            average_pool(&[0.0; 4], &mut [0.0], [n, 2], [&one, &one], None, &mut rows)
        });
        refuses("as many planes", || {
            average_pool_gradient(&[0.0], &mut dx, [2, n], [&one, &one], None, &mut rows);
        });
        // The mean of a window that counts n² elements.
        let mut y = [0.0f64];
        average_pool(&[1.0; 4], &mut y, [2, 2], [&one, &one], None, &mut Vec::new());
        assert!((y[0] * (n as f64).powi(2) / 4.0 - 1.0).abs() < 1e-12);
    }
}

#[test]
fn bags_that_do_not_fit_are_refused() {
    let bags = |ids, starts, gathered| Bags { ids, starts, skip: None, gathered };
    for (bags, d, y, why) in [
        (bags(&[0, 2], &[0, 2], false), 2, 2, "rows of the table"),
        (bags(&[0, 0, 0], &[0, 3], true), 2, 2, "rows of the table"),
        (bags(&[u32::MAX], &[0, 1], false), usize::MAX, 2, "for each bag"),
        (bags(&[0], &[0, 1], false), 0, 0, "for each bag"),
        (bags(&[0], &[0, 2], false), 2, 2, "one behind the other"),
        (bags(&[0, 0], &[0, 2, 1], false), 2, 4, "one behind the other"),
    ] {
        let (table, mut y) = ([1.0f32; 4], vec![0.0; y]);
        refuses(why, || sum_bags(&table, d, bags, None, true, &mut y.clone()));
        let mut winners = vec![0; y.len()];
        refuses(why, || max_bags(&table, d, bags, &mut y, &mut winners));
    }
    refuses("a weight for each", || {
        sum_bags(&[1.0f32; 4], 2, bags(&[0], &[0, 1], false), Some(&[]), false, &mut [0.0; 2]);
    });
}

#[test]
fn rows_of_hostile_widths_are_refused() {
    for (ids, d, len) in [
        (2, 1 << 63, 0),
        (2, (1 << 63) + 1, 2),
        (4, (1 << 62) + 1, 4),
        (2, 0, 0),
        (3, usize::MAX, usize::MAX - 2),
    ] {
        let (ids, mut y) = (vec![0; ids], vec![0.0f32; len.min(9)]);
        refuses("for each index", || gather(&[1.0; 4], d, &ids, &mut y));
        refuses("for each index", || scatter_add(&ids, None, &y, d, None, &mut [0.0; 4]));
        refuses(if d == 0 { "a row has an element" } else { "within the" }, || {
            zero_rows(&ids, d, &mut [0.0f32; 4]);
        });
    }
    refuses("for each index", || scatter_add(&[0], Some(&[1]), &[0.0; 2], 2, None, &mut [0.0f32; 4]));
    refuses("for each index", || scatter_add(&[0], Some(&[0]), &[], 0, None, &mut [0.0f32; 4]));
    refuses("for each index", || scatter_add(&[0, 1], Some(&[0]), &[0.0; 2], 2, None, &mut [0.0f32; 4]));
    refuses("within the", || zero_rows(&[2], 2, &mut [0.0f32; 5]));
    refuses("within the", || scatter_add(&[u32::MAX], None, &[0.0; 2], 2, None, &mut [0.0f32; 4]));
}

#[test]
fn channels_of_hostile_sizes_are_refused() {
    let none = Affine { weight: None, bias: None };
    for (n, c, l) in [
        (1 << 63, 2, 1),
        ((1 << 63) + 1, 2, 1),
        (1 << 33, 1, 1 << 31),
        (1, 2, (1 << 63) + 1),
        (usize::MAX, 2, usize::MAX),
    ] {
        let sizes = Channels { n, c, l };
        for len in [0, 2, 8] {
            let (x, mut y, each) = (vec![1.0f32; len], vec![0.0; len], vec![1.0; c]);
            let [mut a, mut b] = [(); 2].map(|()| vec![0.0; c]);
            let mut mean = vec![[0.0; 2]; c];
            refuses("as long as", || batch_norm(&x, &mut y, sizes, 0.1, none, &mut mean, [&mut a, &mut b]));
            refuses("as long as", || normalize_channels(&x, &mut y, sizes, (&mean, &each), none));
            refuses("as long as", || {
                let all = [&mut a[..], &mut b];
                batch_norm_gradient((&x, &x), sizes, (&mean, &each), None, true, all, Some(&mut y));
            });
        }
    }
}

#[test]
fn places_of_padding_lie_inside_the_image() {
    for n in HOSTILE.into_iter().filter(|&n| n > 1) {
        refuses("inside their axis", || pad(&[0.0f32; 4], &mut [0.0; 2], [2, 2], [&[0], &[0, n]]));
        refuses("as many planes", || pad(&[0.0f32; 4], &mut [0.0; 2], [n, n], [&[0], &[0, 1]]));
        refuses("as many planes", || pad_gradient(&[0.0f32; 2], &mut [0.0; 4], [n, 2], [&[0], &[0, 1]]));
    }
}
