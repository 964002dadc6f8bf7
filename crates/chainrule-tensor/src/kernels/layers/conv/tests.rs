use super::*;
use crate::kernels::{best, gemm};

fn isas() -> impl Iterator<Item = Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&isa| isa <= best())
}

/// A counter-based generator, for sizes and values alike.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn among(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    fn values<T: Scalar>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_f64(self.below(2001) as f64 / 1000.0 - 1.0)).collect()
    }
}

fn square(images: usize, channels: usize, filters: usize, size: usize, kernel: usize) -> Geometry<2> {
    Geometry {
        images,
        channels,
        filters,
        groups: 1,
        input: [size; 2],
        kernel: [kernel; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [[0; 2]; 2],
    }
}

/// A geometry of any kind, small enough for the plain loops.
fn geometry(draw: &mut Draw) -> Geometry<2> {
    let most = [3, 17, 70][draw.below(3)];
    let (channels, filters) = (draw.among(1..=most), draw.among(1..=most));
    let groups = draw.among(1..=6);
    let kind = draw.below(4);
    let (groups, channels, filters) = match kind {
        0 => (groups, groups * channels.div_ceil(6), groups * filters.div_ceil(6)),
        1 => (channels, channels, channels * draw.among(1..=2)),
        _ => (1, channels, filters),
    };
    let mut pair = |range: std::ops::RangeInclusive<usize>| [draw.among(range.clone()), draw.among(range)];
    let kernel = if kind == 2 { pair(1..=1) } else { pair(1..=5) };
    let (stride, dilation) = (pair(1..=3), pair(1..=3));
    let padding = [pair(0..=3), pair(0..=3)];
    let input = pair(1..=if channels * filters > 300 { 12 } else { 40 });
    let simple = draw.below(3) == 0;
    Geometry {
        images: draw.below(4),
        channels,
        filters,
        groups,
        input,
        kernel,
        stride: if simple { [1; 2] } else { stride },
        dilation: if simple { [1; 2] } else { dilation },
        padding: if simple { [[0; 2]; 2] } else { padding },
    }
}

fn close<T: Scalar>(got: &[T], want: &[T], summands: usize, what: &str) {
    // The values are at most 1, so sums of n products err by at most about n²ε, and far less as a rule.
    let n = summands as f64 + 2.0;
    let bound = T::EPSILON.to_f64() * n * n.sqrt();
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs().to_f64();
        assert!(error <= bound, "{what}: expected {want} at {i}, got {got}, off by {error:e}");
    }
}

/// All three against the definition, with operands that begin `lead` elements into their memory.
fn check<T: Scalar>(isa: Isa, g: &Geometry<2>, draw: &mut Draw, lead: usize, work: &mut Workspace<T>) {
    let what = format!("{} {isa:?} {g:?}", T::NAME);
    let x = &draw.values::<T>(lead + g.x_len())[lead..];
    let w = &draw.values::<T>(lead + g.w_len())[lead..];
    let dy = &draw.values::<T>(lead + g.y_len())[lead..];
    let bias = draw.values::<T>(g.filters);
    let bias = lead.is_multiple_of(2).then_some(&bias[..]);
    let nan = T::from_f64(f64::NAN);
    let [oh, ow] = g.output();
    let taps = g.kernel[0] * g.kernel[1];

    let (mut got, mut want) = (vec![nan; lead + g.y_len()], vec![T::ZERO; g.y_len()]);
    windows_forward(isa, g, x, w, bias, &mut got[lead..], work);
    direct::forward(g, x, w, bias, &mut want);
    close(&got[lead..], &want, g.group_channels() * taps, &format!("y of {what}"));

    let (mut got, mut want) = (vec![nan; lead + g.x_len()], vec![T::ZERO; g.x_len()]);
    windows_input_gradient(isa, g, w, dy, &mut got[lead..], work);
    direct::input_gradient(g, w, dy, &mut want);
    close(&got[lead..], &want, g.group_filters() * taps, &format!("dx of {what}"));

    let mut got = draw.values::<T>(g.w_len());
    let mut want = got.clone();
    windows_weight_gradient(isa, g, addends(g), x, dy, &mut got, work);
    direct::weight_gradient(g, x, dy, &mut want);
    close(&got, &want, g.images * oh * ow, &format!("dw of {what}"));
}

#[test]
fn random_geometries_agree_with_the_definition() {
    let cases = if cfg!(miri) { 6 } else { 150 };
    for isa in isas() {
        let draw = &mut Draw(1);
        let (mut work, mut work64) = Default::default();
        for case in 0..cases {
            let g = geometry(draw);
            check::<f32>(isa, &g, draw, case % 4, &mut work);
            check::<f64>(isa, &g, draw, case % 3, &mut work64);
        }
    }
}

/// ∂W of more products than T sums up: every way, with levels of sums.
#[test]
#[cfg_attr(miri, ignore = "millions of products")]
fn gradients_of_long_sums_agree_with_the_definition() {
    for isa in isas() {
        let draw = &mut Draw(2);
        let (mut work, mut work64) = Default::default();
        let filters = [2, 40, 18, 3];
        for (filters, (channels, kernel, stride)) in
            filters.into_iter().zip([(2, 3, 1), (1, 2, 1), (16, 1, 1), (3, 1, 2)])
        {
            let size = 32 * stride;
            let g = Geometry { stride: [stride; 2], ..square(80, channels, filters, size, kernel) };
            assert!(g.output().iter().product::<usize>() * g.images > gemm::LONG);
            check::<f32>(isa, &g, draw, 0, &mut work);
            check::<f64>(isa, &g, draw, 1, &mut work64);
        }
    }
}

/// Forward or ∂X by a stack of images, whether it pays or not.
fn stacked<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    input_gradient: bool,
    w: &[T],
    bias: Option<&[T]>,
    (source, result): (&[T], &mut [T]),
) {
    let (target, mut stack, mut packed) = (target::<T>(isa), Stack::default(), Packed::default());
    if input_gradient {
        stack.input_gradient(g, target);
    } else {
        stack.forward(g, target);
    }
    stack.pack(isa, target, g.groups, w, &mut packed);
    let (source, result) = (source.as_ptr(), result.as_mut_ptr());
    let stacked = Stacked { isa, target, stack: &stack, g, packed: &packed, bias, source, result };
    // SAFETY: the callers' slices are as long as the geometry says.
    unsafe { stacked.run(2, &mut Vec::new()) };
}

#[test]
fn stacks_of_images_agree_with_the_definition() {
    fn check<T: Scalar>(isa: Isa, g: &Geometry<2>, draw: &mut Draw) {
        let what = format!("{} {isa:?} {g:?}", T::NAME);
        let (x, w, dy) = (draw.values::<T>(g.x_len()), draw.values(g.w_len()), draw.values(g.y_len()));
        let bias = draw.values::<T>(g.filters);
        let nan = T::from_f64(f64::NAN);
        let (mut got, mut want) = (vec![nan; g.y_len()], vec![T::ZERO; g.y_len()]);
        stacked(isa, g, false, &w, Some(&bias), (&x, &mut got));
        direct::forward(g, &x, &w, Some(&bias), &mut want);
        let taps = g.kernel[0] * g.kernel[1];
        close(&got, &want, g.group_channels() * taps, &format!("y of {what}"));
        if g.stride == [1, 1] {
            let (mut got, mut want) = (vec![nan; g.x_len()], vec![T::ZERO; g.x_len()]);
            stacked(isa, g, true, &w, None, (&dy, &mut got));
            direct::input_gradient(g, &w, &dy, &mut want);
            close(&got, &want, g.group_filters() * taps, &format!("dx of {what}"));
        }
    }
    let cases = if cfg!(miri) { 3 } else { 40 };
    for isa in isas() {
        let draw = &mut Draw(7);
        let mut done = 0;
        while done < cases {
            let g = Geometry { images: draw.among(1..=70), ..geometry(draw) };
            if g.y_len() == 0 || g.multiply_adds() > if cfg!(miri) { 1 << 12 } else { 1 << 20 } {
                continue;
            }
            check::<f32>(isa, &g, draw);
            check::<f64>(isa, &g, draw);
            done += 1;
        }
    }
}

#[test]
fn a_stack_is_taken_where_rows_leave_lanes_empty() {
    let target = Target { lanes: 16, wide: true };
    for (g, pays) in [
        (square(64, 6, 16, 14, 5), [true, true]),
        (square(17, 6, 16, 14, 5), [false, false]),
        (square(32, 6, 16, 14, 5), [true, true]),
        (Geometry { padding: [[1; 2]; 2], ..square(64, 3, 16, 64, 3) }, [false, false]),
    ] {
        let (mut forward, mut input) = (Stack::default(), Stack::default());
        forward.forward(&g, target);
        input.input_gradient(&g, target);
        assert_eq!([&forward, &input].map(|stack| stack.pays(g.images, target)), pays, "{g:?}");
        assert!(stack::enough(&g, target));
    }
    assert!(!stack::enough(&square(16, 6, 16, 14, 5), target));
}

#[cfg(not(miri))]
#[test]
fn the_sizes_of_known_networks_agree_with_the_definition() {
    for isa in isas() {
        let draw = &mut Draw(2);
        let padded = |p: usize, g: Geometry<2>| Geometry { padding: [[p; 2]; 2], ..g };
        for g in [
            padded(2, square(3, 1, 6, 28, 5)),
            square(3, 6, 16, 14, 5),
            padded(1, square(2, 3, 32, 32, 3)),
            Geometry { stride: [2; 2], ..padded(2, square(1, 3, 32, 64, 5)) },
            square(2, 64, 128, 16, 1),
            square(1, 40, 70, 7, 1),
            Geometry { groups: 64, ..padded(1, square(2, 64, 64, 32, 3)) },
            Geometry { stride: [2; 2], ..padded(1, square(2, 64, 48, 14, 3)) },
            padded(2, square(1, 64, 64, 16, 5)),
            Geometry { dilation: [2; 2], ..padded(2, square(1, 32, 33, 20, 3)) },
            Geometry { stride: [2; 2], ..square(2, 64, 32, 9, 1) },
            Geometry { kernel: [7, 1], ..padded(3, square(1, 4, 9, 50, 1)) },
            padded(2, square(9, 70, 70, 3, 3)),
        ] {
            check::<f32>(isa, &g, draw, 1, &mut Workspace::default());
            check::<f64>(isa, &g, draw, 0, &mut Workspace::default());
        }
    }
}

#[cfg(not(miri))]
#[test]
fn every_method_agrees_with_the_plain_loops() {
    let draw = &mut Draw(6);
    let padded = |g| Geometry { padding: [[1; 2]; 2], ..g };
    for (g, winograd) in [
        (padded(square(2, 16, 20, 13, 3)), true),
        (padded(square(2, 4, 20, 13, 3)), false),
        (Geometry { stride: [2; 2], ..padded(square(2, 16, 20, 13, 3)) }, false),
        (square(1, 16, 20, 13, 1), false),
    ] {
        assert_eq!(winograd::serves(&g), winograd, "{g:?}");
        let (x, w, dy) = (draw.values::<f64>(g.x_len()), draw.values(g.w_len()), draw.values(g.y_len()));
        let (bias, work) = (draw.values(g.filters), &mut Workspace::default());
        let (mut y, mut dx) = (vec![f64::NAN; g.y_len()], vec![f64::NAN; g.x_len()]);
        let mut dw = vec![1.0; g.w_len()];
        conv(&g, &x, Filters::new(&w), Some(&bias), &mut y, work);
        conv_input_gradient(&g, &w, &dy, &mut dx, work);
        conv_weight_gradient(&g, &x, &dy, &mut dw, work);
        let (mut y_, mut dx_, mut dw_) = (y.clone(), dx.clone(), vec![1.0; g.w_len()]);
        direct::forward(&g, &x, &w, Some(&bias), &mut y_);
        direct::input_gradient(&g, &w, &dy, &mut dx_);
        direct::weight_gradient(&g, &x, &dy, &mut dw_);
        for (got, want) in [(&y, &y_), (&dx, &dx_), (&dw, &dw_)] {
            close(got, want, 400, &format!("{g:?}"));
        }
    }
}

/// y, dx and dw by the public functions and by the definition.
fn check_rank<const R: usize>(g: &Geometry<R>, draw: &mut Draw) {
    assert!(g.check().is_ok(), "{g:?}");
    let (x, w, dy) = (draw.values::<f64>(g.x_len()), draw.values(g.w_len()), draw.values(g.y_len()));
    let (bias, work) = (draw.values(g.filters), &mut Workspace::default());
    let (mut y, mut dx, mut dw) =
        (vec![f64::NAN; g.y_len()], vec![f64::NAN; g.x_len()], vec![1.0; g.w_len()]);
    let (mut y_, mut dx_, mut dw_) = (y.clone(), dx.clone(), dw.clone());
    conv(g, &x, Filters::new(&w), Some(&bias), &mut y, work);
    conv_input_gradient(g, &w, &dy, &mut dx, work);
    conv_weight_gradient(g, &x, &dy, &mut dw, work);
    direct::forward(g, &x, &w, Some(&bias), &mut y_);
    direct::input_gradient(g, &w, &dy, &mut dx_);
    direct::weight_gradient(g, &x, &dy, &mut dw_);
    for (got, want) in [(&y, &y_), (&dx, &dx_), (&dw, &dw_)] {
        close(got, want, 400, &format!("{g:?}"));
    }
}

#[test]
fn sequences_agree_with_the_definition() {
    let draw = &mut Draw(8);
    for _ in 0..if cfg!(miri) { 2 } else { 60 } {
        let (groups, length) = (draw.among(1..=3), draw.among(1..=70));
        let g = Geometry {
            images: draw.below(4),
            channels: groups * draw.among(1..=9),
            filters: groups * draw.among(1..=9),
            groups,
            input: [length],
            kernel: [draw.among(1..=5)],
            stride: [draw.among(1..=3)],
            dilation: [draw.among(1..=3)],
            padding: [[draw.below(4), draw.below(4)]],
        };
        check_rank(&g, draw);
    }
}

/// A volume of depth 1 is an image: the definition and the kernels over three axes give what those over two do.
#[test]
fn volumes_of_depth_one_are_images() {
    let draw = &mut Draw(9);
    for _ in 0..if cfg!(miri) { 2 } else { 20 } {
        let g = Geometry { images: 1 + draw.below(2), ..geometry(draw) };
        if g.multiply_adds() > 1 << 18 {
            continue;
        }
        let ([h, w], [r, s], [i, j], [k, l]) = (g.input, g.kernel, g.stride, g.dilation);
        let volume = Geometry {
            images: g.images,
            channels: g.channels,
            filters: g.filters,
            groups: g.groups,
            input: [1, h, w],
            kernel: [1, r, s],
            stride: [2, i, j],
            dilation: [3, k, l],
            padding: [[0, 0], g.padding[0], g.padding[1]],
        };
        check_rank(&volume, draw);
        let (x, weights) = (draw.values::<f64>(g.x_len()), draw.values(g.w_len()));
        let (mut image, mut y) = (vec![0.0; g.y_len()], vec![f64::NAN; volume.y_len()]);
        direct::forward(&g, &x, &weights, None, &mut image);
        direct::forward(&volume, &x, &weights, None, &mut y);
        assert_eq!(y, image, "{g:?}");
        conv(&g, &x, Filters::new(&weights), None, &mut image, &mut Workspace::default());
        conv(&volume, &x, Filters::new(&weights), None, &mut y, &mut Workspace::default());
        assert_eq!(y, image, "{g:?}");
    }
}

/// x = 1 … 8 as a cube of side 2, w = (1, 10) along the depth, padded by 1 behind: y[0] = x[0] + 10 x[1] of each column, y[1] = x[1].
#[test]
fn a_volume_by_hand() {
    let g = Geometry {
        images: 1,
        channels: 1,
        filters: 1,
        groups: 1,
        input: [2, 2, 2],
        kernel: [2, 1, 1],
        stride: [1; 3],
        dilation: [1; 3],
        padding: [[0, 1], [0, 0], [0, 0]],
    };
    let x: Vec<f64> = (1..9).map(f64::from).collect();
    let (mut y, mut dx, mut dw, work) = ([0.0; 8], [0.0; 8], [0.0; 2], &mut Workspace::default());
    conv(&g, &x, Filters::new(&[1.0, 10.0]), Some(&[0.5]), &mut y, work);
    assert_eq!(y, [51.5, 62.5, 73.5, 84.5, 5.5, 6.5, 7.5, 8.5]);
    conv_input_gradient(&g, &[1.0, 10.0], &x, &mut dx, work);
    assert_eq!(dx, [1., 2., 3., 4., 15., 26., 37., 48.]);
    conv_weight_gradient(&g, &x, &x, &mut dw, work);
    assert_eq!(dw, [204.0, 70.0]); // Σ xᵢ², Σ xᵢ xᵢ₊₄
}

#[test]
#[should_panic(expected = "expected sizes that fit in memory")]
fn sizes_that_overflow_are_refused() {
    let g = Geometry { padding: [[usize::MAX / 2; 2], [0, 0]], ..square(0, 1, 1, 3, 3) };
    conv(&g, &[], Filters::new(&[0.0f32; 9]), None, &mut [], &mut Workspace::default());
}

#[test]
fn windows_without_room_give_nothing_and_no_gradient() {
    for isa in isas() {
        let g = square(2, 3, 4, 3, 5);
        check::<f32>(isa, &g, &mut Draw(3), 0, &mut Workspace::default());
        let mut dx = vec![f32::NAN; g.x_len()];
        windows_input_gradient(isa, &g, &vec![1.0; g.w_len()], &[], &mut dx, &mut Workspace::default());
        assert!(dx.iter().all(|&v| v == 0.0));
    }
}

#[test]
fn infinities_reach_only_the_windows_that_see_them() {
    for isa in isas() {
        for (kernel, channels, filters) in [(3, 2, 3), (3, 8, 32), (1, 3, 5)] {
            let g = Geometry { padding: [[1; 2]; 2], ..square(2, channels, filters, 11, kernel) };
            let draw = &mut Draw(4);
            let (mut x, w, mut dy) =
                (draw.values::<f32>(g.x_len()), draw.values(g.w_len()), draw.values(g.y_len()));
            (x[60], dy[40]) = (f32::INFINITY, f32::NAN);
            let work = &mut Workspace::default();
            let finite = |v: &[f32]| v.iter().map(|v| v.is_finite()).collect::<Vec<_>>();
            let (mut got, mut want) = (vec![0.0; g.y_len()], vec![0.0; g.y_len()]);
            windows_forward(isa, &g, &x, &w, None, &mut got, work);
            direct::forward(&g, &x, &w, None, &mut want);
            assert_eq!(finite(&got), finite(&want), "y, {isa:?}");
            let (mut got, mut want) = (vec![0.0; g.x_len()], vec![0.0; g.x_len()]);
            windows_input_gradient(isa, &g, &w, &dy, &mut got, work);
            direct::input_gradient(&g, &w, &dy, &mut want);
            assert_eq!(finite(&got), finite(&want), "dx, {isa:?}");
            let (mut got, mut want) = (vec![0.0; g.w_len()], vec![0.0; g.w_len()]);
            windows_weight_gradient(isa, &g, addends(&g), &x, &dy, &mut got, work);
            direct::weight_gradient(&g, &x, &dy, &mut want);
            assert_eq!(finite(&got), finite(&want), "dw, {isa:?}");
        }
    }
}

/// The bits of y, dx and dw.
fn bits(isa: Isa, g: &Geometry<2>, threads: usize, work: &mut Workspace<f32>) -> [Vec<u32>; 3] {
    let draw = &mut Draw(5);
    let (x, w, dy) = (draw.values(g.x_len()), draw.values(g.w_len()), draw.values(g.y_len()));
    let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.5; g.w_len()]);
    par::with_threads(threads, || {
        windows_forward(isa, g, &x, &w, None, &mut y, work);
        windows_input_gradient(isa, g, &w, &dy, &mut dx, work);
        windows_weight_gradient(isa, g, addends(g), &x, &dy, &mut dw, work);
    });
    [y, dx, dw].map(|v| v.into_iter().map(f32::to_bits).collect())
}

#[cfg(not(miri))]
#[test]
fn more_threads_give_the_same_bits() {
    for isa in isas() {
        for g in [
            Geometry { padding: [[2; 2]; 2], ..square(13, 1, 6, 28, 5) },
            square(13, 6, 16, 14, 5),
            square(70, 6, 16, 9, 5),
            Geometry { stride: [2; 2], padding: [[2; 2]; 2], ..square(5, 3, 32, 33, 5) },
            square(1, 64, 96, 16, 1),
            square(3, 64, 96, 7, 1),
            Geometry { groups: 64, padding: [[1; 2]; 2], ..square(3, 64, 64, 32, 3) },
            Geometry { stride: [2; 2], ..square(1, 64, 96, 15, 3) },
            Geometry { padding: [[2; 2]; 2], ..square(3, 64, 40, 15, 5) },
        ] {
            let one = bits(isa, &g, 1, &mut Workspace::default());
            let mut work = Workspace::default();
            for threads in [3, 2, 4] {
                assert!(bits(isa, &g, threads, &mut work) == one, "{isa:?}, {threads} threads, {g:?}");
            }
        }
    }
}

#[test]
fn a_smaller_batch_after_a_larger_one_gives_its_own_bits() {
    for isa in isas() {
        let mut work = Workspace::default();
        for g in [
            Geometry { padding: [[2; 2]; 2], ..square(4, 1, 6, 12, 5) },
            square(4, 6, 16, 9, 5),
            Geometry { stride: [2; 2], padding: [[1; 2]; 2], ..square(4, 3, 20, 9, 3) },
        ] {
            for images in [4, 1, 3, 4] {
                let g = Geometry { images, ..g };
                let alone = bits(isa, &g, 2, &mut Workspace::default());
                assert!(bits(isa, &g, 2, &mut work) == alone, "{isa:?} {g:?}");
            }
        }
    }
}

/// Finite wherever the definition is. Of sums that read the padding it counts 0 · ∞, as x with its padding written out.
fn finite_where(got: &[f32], want: &[f64], what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.is_finite() || !want.is_finite(), "{what}: expected {want} at {i}, got {got}");
    }
}

/// The image with its zero padding, and the convolution of it without any.
fn padded(g: &Geometry<2>, x: &[f32]) -> (Geometry<2>, Vec<f64>) {
    let [[top, bottom], [left, right]] = g.padding;
    let [h, w] = g.input;
    let bare = Geometry { input: [h + top + bottom, w + left + right], padding: [[0; 2]; 2], ..*g };
    let mut to = vec![0.0; bare.x_len()];
    for (i, &v) in x.iter().enumerate() {
        let (plane, row, col) = (i / (h * w), i / w % h, i % w);
        to[(plane * bare.input[0] + row + top) * bare.input[1] + col + left] = f64::from(v);
    }
    (bare, to)
}

#[test]
fn an_infinite_pixel_reaches_what_sees_it_and_nothing_else() {
    let cases = if cfg!(miri) { 3 } else { 100 };
    for isa in isas() {
        let draw = &mut Draw(3);
        let mut work = Workspace::default();
        for case in 0..cases {
            let g = geometry(draw);
            if g.x_len() == 0 || g.y_len() == 0 {
                continue;
            }
            let wild = [f32::INFINITY, f32::NAN][case % 2];
            let what = format!("{isa:?} {g:?}");
            let (mut x, w) = (draw.values::<f32>(g.x_len()), draw.values::<f32>(g.w_len()));
            let mut dy = draw.values::<f32>(g.y_len());
            if case % 4 < 2 {
                x[draw.below(g.x_len())] = wild;
            } else {
                dy[draw.below(g.y_len())] = wild;
            }
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let (w64, dy64) = (wide(&w), wide(&dy));
            let (bare, x64) = padded(&g, &x);
            let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
            let (mut want_y, mut want_dx, mut want_dw) =
                (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
            direct::forward(&bare, &x64, &w64, None, &mut want_y);
            direct::input_gradient(&g, &w64, &dy64, &mut want_dx);
            direct::weight_gradient(&bare, &x64, &dy64, &mut want_dw);
            windows_forward(isa, &g, &x, &w, None, &mut y, &mut work);
            windows_input_gradient(isa, &g, &w, &dy, &mut dx, &mut work);
            windows_weight_gradient(isa, &g, addends(&g), &x, &dy, &mut dw, &mut work);
            finite_where(&y, &want_y, &format!("y of {what}"));
            finite_where(&dx, &want_dx, &format!("dx of {what}"));
            finite_where(&dw, &want_dw, &format!("dw of {what}"));
            stacked(isa, &g, false, &w, None, (&x, &mut y));
            finite_where(&y, &want_y, &format!("y by a stack of {what}"));
            if g.stride == [1, 1] {
                stacked(isa, &g, true, &w, None, (&dy, &mut dx));
                finite_where(&dx, &want_dx, &format!("dx by a stack of {what}"));
            }
        }
    }
}
