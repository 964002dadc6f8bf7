//! Layers whose outputs are made from windows, over all small sizes against their definitions, written out in f64.
//!
//! Where all combinations take too long, every so many of them are run; `CHAINRULE_ALL_WINDOWS=1` runs all.

use chainrule_core::{
    Call, Context, Grads, Layer, Module, ModuleCall, Parameters, Result, Scalar, Shape, Tensor,
};
use chainrule_layers::{
    AdaptiveAvgPool, AdaptiveAvgPool2d, AdaptiveMaxPool, AvgPool, AvgPool2d, Conv, Conv2d, ConvTranspose,
    Fold, FractionalMaxPool, GlobalAvgPool, GlobalAvgPool2d, GlobalMaxPool, LpPool, MaxPool, MaxPool2d,
    MaxUnpool, Padding, PaddingMode, Unfold,
};
use chainrule_tensor::kernels::layers::{
    Window,
    conv::{Filters, Geometry, Workspace, conv, conv_input_gradient, conv_weight_gradient},
    pool::{max_pool, max_pool_gradient},
};
use std::time::{Duration, Instant};

/// Windows along an axis of `n` elements.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    n: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
    dilation: usize,
}

impl Axis {
    /// How many windows there are, counted one by one.
    fn windows(self, ceil: bool) -> usize {
        let (padded, reach) = (self.before + self.n + self.after, (self.kernel - 1) * self.dilation + 1);
        let fits = |o: usize| match ceil {
            false => o * self.stride + reach <= padded,
            // A part of a stride may be missing, if the window does not begin in the padding behind the axis.
            true => o * self.stride + reach < padded + self.stride && o * self.stride < self.n + self.before,
        };
        (0..).take_while(|&o| fits(o)).count()
    }

    /// The element that tap t of window o reads; `None` in the padding.
    fn place(self, o: usize, t: usize) -> Option<usize> {
        (o * self.stride + t * self.dilation).checked_sub(self.before).filter(|&i| i < self.n)
    }
}

/// (window, tap, element) of every tap that reads one, windows and taps in row-major order.
fn reads(axes: &[Axis], ceil: bool) -> Vec<(usize, usize, usize)> {
    let mut all = vec![(0, 0, 0)];
    for &axis in axes {
        let mut next = Vec::new();
        for &(o, t, i) in &all {
            for window in 0..axis.windows(ceil) {
                for tap in 0..axis.kernel {
                    if let Some(place) = axis.place(window, tap) {
                        let flat =
                            (o * axis.windows(ceil) + window, t * axis.kernel + tap, i * axis.n + place);
                        next.push(flat);
                    }
                }
            }
        }
        all = next;
    }
    all.sort_unstable();
    all
}

fn volume(axes: &[Axis], of: impl Fn(Axis) -> usize) -> usize {
    axes.iter().map(|&axis| of(axis)).product()
}

/// Small integers, many of them equal.
fn values<T: Scalar>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64(((i * 7919 + seed * 104_729 + 13) % 31 % 9) as f64 - 4.0)).collect()
}

fn tensor<T: Scalar, const R: usize>(shape: [usize; R], seed: usize) -> Tensor<T> {
    Tensor::from_vec(shape, values(shape.iter().product(), seed)).unwrap()
}

/// A tensor (n, c, …) with R axes of these lengths.
fn batch<T: Scalar, const R: usize>([n, c]: [usize; 2], axes: [usize; R], seed: usize) -> Tensor<T> {
    let shape = [&[n, c], &axes[..]].concat();
    let values = values(shape.iter().product(), seed);
    Tensor::from_vec(Shape::new(&shape).unwrap(), values).unwrap()
}

/// y, ∂E/∂x and the parameters' gradients for ∂E/∂y = `values(…, 3)`, in a cache that other sizes were in before.
fn pass<L: Layer>(layer: &L, x: &Tensor<L::T>, cache: &mut L::Cache) -> Result<[Vec<f64>; 3]> {
    let (mut y, mut dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(layer));
    layer.forward(x, &mut y, cache, Context::train(0))?;
    let dy = Tensor::from_vec(*y.shape(), values(y.len(), 3))?;
    layer.backward(Call::new(layer, x, &y, &dy)?, cache, &mut grads, Some(&mut dx))?;
    Ok([y.data(), dx.data(), grads.values()].map(|v| v.iter().map(|v| v.to_f64()).collect()))
}

#[track_caller]
fn assert_same(got: &[f64], want: &[f64], what: impl Fn() -> String) {
    let near = |(&a, &b): (&f64, &f64)| a == b || (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    let same = got.len() == want.len() && got.iter().zip(want).all(near);
    assert!(same, "{}: expected {want:?}, got {got:?}", what());
}

/// All axes of a kind whose windows fit.
fn axes(most: usize, dilations: usize, padding: impl Fn(usize) -> usize) -> Vec<Axis> {
    let mut all = Vec::new();
    for n in 1..=most {
        for kernel in 1..=5 {
            for stride in 1..=3 {
                for dilation in 1..=dilations {
                    for before in 0..=padding(kernel) {
                        all.push(Axis { n, kernel, stride, before, after: before, dilation });
                    }
                }
            }
        }
    }
    all
}

/// Of `total` combinations about `most`, evenly spread, each as its digits in the bases.
fn combinations<const R: usize>(bases: [usize; R], most: usize) -> impl Iterator<Item = [usize; R]> {
    let total: usize = bases.iter().product();
    let all = std::env::var_os("CHAINRULE_ALL_WINDOWS").is_some();
    let prime = |n: usize| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    // A prime that no base shares runs through all digits.
    let apart = |n: &usize| prime(*n) && bases.iter().all(|base| !base.is_multiple_of(*n));
    let step = if all || total <= most { 1 } else { (total / most..).find(apart).unwrap() };
    (0..total).step_by(step).map(move |mut i| {
        bases.map(|base| {
            let digit = i % base;
            i /= base;
            digit
        })
    })
}

/// The definition of max pooling: y, and dx for dy.
fn maxima(axes: &[Axis], ceil: bool, x: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
    let [out, plane] = [volume(axes, |a| a.windows(ceil)), volume(axes, |a| a.n)];
    let reads = reads(axes, ceil);
    let (mut y, mut dx) = (vec![f64::NEG_INFINITY; dy.len()], vec![0.0; x.len()]);
    for p in 0..x.len() / plane {
        for o in 0..out {
            let elements = reads.iter().filter(|read| read.0 == o).map(|read| p * plane + read.2);
            // The first of the largest; none in a window that lies in the padding.
            let winner = elements.reduce(|best, i| if x[i] > x[best] { i } else { best });
            if let Some(winner) = winner {
                y[p * out + o] = x[winner];
                dx[winner] += dy[p * out + o];
            }
        }
    }
    [y, dx]
}

#[test]
fn max_pool_is_its_definition_over_all_small_windows() {
    let (all, mut cache) = (axes(4, 3, |kernel| kernel / 2), Default::default());
    for [i, j, ceil] in combinations([all.len(), all.len(), 2], 100_000) {
        let (axes, ceil) = ([all[i], all[j]], ceil == 1);
        let [a, b] = axes;
        let layer = MaxPool2d::<f64>::new([a.kernel, b.kernel])
            .stride([a.stride, b.stride])
            .padding([a.before, b.before])
            .dilation([a.dilation, b.dilation])
            .ceil_mode(ceil);
        let x = tensor([1, 2, a.n, b.n], i + j);
        let out = volume(&axes, |a| a.windows(ceil));
        if out == 0 {
            assert!(layer.output_shape(x.shape()).is_err(), "{axes:?} {ceil}");
            continue;
        }
        let [y, dx, _] = pass(&layer, &x, &mut cache).unwrap();
        let [want_y, want_dx] = maxima(&axes, ceil, x.data(), &values(2 * out, 3));
        assert_same(&y, &want_y, || format!("y of {axes:?} {ceil}"));
        assert_same(&dx, &want_dx, || format!("dx of {axes:?} {ceil}"));
    }
}

/// A window of 5 over one pixel, of which the outer elements lie in no window.
#[test]
fn a_window_larger_than_the_padded_image_on_each_side_is_pooled() {
    let (layer, mut cache) = (MaxPool2d::<f64>::new(5).stride(1).padding(2), Default::default());
    let [y, dx, _] = pass(&layer, &tensor([1, 1, 1, 1], 0), &mut cache).unwrap();
    assert_eq!((y, dx), (values(1, 0), values(1, 3)));
}

/// A flat index as one along each axis.
fn digits(mut flat: usize, axes: &[Axis], of: impl Fn(Axis) -> usize) -> Vec<usize> {
    let mut all = vec![0; axes.len()];
    for (digit, &axis) in all.iter_mut().zip(axes).rev() {
        (*digit, flat) = (flat % of(axis), flat / of(axis));
    }
    all
}

/// Elements of window o on the axis, or on the axis and its padding.
fn along(axis: Axis, o: usize, include: bool) -> usize {
    let on = |t: &usize| match include {
        true => o * axis.stride + t < axis.before + axis.n + axis.after,
        false => axis.place(o, *t).is_some(),
    };
    (0..axis.kernel).filter(on).count()
}

/// The definition of average pooling: y, and dx for dy.
fn means(
    axes: &[Axis],
    ceil: bool,
    count: impl Fn(&[usize]) -> usize,
    x: &[f64],
    dy: &[f64],
) -> [Vec<f64>; 2] {
    let (out, plane) = (volume(axes, |a| a.windows(ceil)), volume(axes, |a| a.n));
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    for p in 0..x.len() / plane {
        for (o, _, i) in reads(axes, ceil) {
            let m = count(&digits(o, axes, |a| a.windows(ceil))) as f64;
            y[p * out + o] += x[p * plane + i] / m;
            dx[p * plane + i] += dy[p * out + o] / m;
        }
    }
    [y, dx]
}

#[test]
fn average_pool_is_its_definition_over_all_small_windows() {
    let (all, mut cache) = (axes(4, 1, |kernel| kernel / 2), Default::default());
    for [i, j, ceil, include, divisor] in combinations([all.len(), all.len(), 2, 2, 2], 100_000) {
        let (axes, ceil, include) = ([all[i], all[j]], ceil == 1, include == 1);
        let (divisor, [a, b]) = ((divisor == 1).then_some(3), axes);
        let layer = AvgPool2d::<f64>::new([a.kernel, b.kernel])
            .stride([a.stride, b.stride])
            .padding([a.before, b.before])
            .ceil_mode(ceil)
            .count_include_pad(include)
            .divisor_override(divisor);
        let x = tensor([1, 2, a.n, b.n], i + j);
        let out = volume(&axes, |a| a.windows(ceil));
        if out == 0 {
            assert!(layer.output_shape(x.shape()).is_err(), "{axes:?} {ceil}");
            continue;
        }
        let count = |o: &[usize]| divisor.unwrap_or(along(a, o[0], include) * along(b, o[1], include));
        let [y, dx, _] = pass(&layer, &x, &mut cache).unwrap();
        let [want_y, want_dx] = means(&axes, ceil, count, x.data(), &values(2 * out, 3));
        let what = || format!("{axes:?} {ceil} {include} {divisor:?}");
        assert_same(&y, &want_y, || format!("y of {}", what()));
        assert_same(&dx, &want_dx, || format!("dx of {}", what()));
    }
}

#[test]
fn adaptive_pools_are_their_definitions_over_all_small_sizes() {
    let mut cache = Default::default();
    let sizes = || (1..=6).flat_map(|n| (1..=6).map(move |m| [n, m]));
    for [h, w] in sizes() {
        let x = tensor::<f64, 4>([2, 2, h, w], h);
        for [rows, cols] in sizes() {
            let out = rows * cols;
            let (mut want_y, mut want_dx) = (vec![0.0; 4 * out], vec![0.0; x.len()]);
            let dy = values::<f64>(4 * out, 3);
            // From ⌊o n/O⌋ up to, and without, ⌈(o + 1) n/O⌉.
            let span = |o: usize, n: usize, parts: usize| o * n / parts..((o + 1) * n).div_ceil(parts);
            for (o, y) in want_y.iter_mut().enumerate() {
                let (p, i, j) = (o / out, o % out / cols, o % cols);
                let m = (span(i, h, rows).len() * span(j, w, cols).len()) as f64;
                for a in span(i, h, rows) {
                    for b in span(j, w, cols) {
                        *y += x.data()[(p * h + a) * w + b] / m;
                        want_dx[(p * h + a) * w + b] += dy[o] / m;
                    }
                }
            }
            let [y, dx, _] = pass(&AdaptiveAvgPool2d::new([rows, cols]), &x, &mut cache).unwrap();
            assert_same(&y, &want_y, || format!("y of {h} × {w} to {rows} × {cols}"));
            assert_same(&dx, &want_dx, || format!("dx of {h} × {w} to {rows} × {cols}"));
            if out == 1 {
                let [y, dx, _] = pass(&GlobalAvgPool2d::new(), &x, &mut cache).unwrap();
                assert_same(&y, &want_y, || format!("y of {h} × {w}"));
                assert_same(&dx, &want_dx, || format!("dx of {h} × {w}"));
            }
        }
    }
}

/// The definition of a convolution of `images` images: y, dx, dw, db for dy.
fn sums(
    axes: &[Axis],
    [images, channels, filters, groups]: [usize; 4],
    (x, w, b): (&[f64], &[f64], &[f64]),
    dy: &[f64],
) -> [Vec<f64>; 4] {
    let [out, plane, taps] =
        [volume(axes, |a| a.windows(false)), volume(axes, |a| a.n), volume(axes, |a| a.kernel)];
    let (c, k) = (channels / groups, filters / groups);
    let mut y: Vec<f64> = (0..dy.len()).map(|i| b[i / out % filters]).collect();
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; filters]);
    let reads = reads(axes, false);
    for n in 0..images {
        for filter in 0..filters {
            let to = (n * filters + filter) * out;
            db[filter] += dy[to..to + out].iter().sum::<f64>();
            for channel in 0..c {
                let (from, at) =
                    ((n * channels + filter / k * c + channel) * plane, (filter * c + channel) * taps);
                for &(o, t, i) in &reads {
                    y[to + o] += w[at + t] * x[from + i];
                    dx[from + i] += w[at + t] * dy[to + o];
                    dw[at + t] += dy[to + o] * x[from + i];
                }
            }
        }
    }
    [y, dx, dw, db]
}

/// A padded axis: of each element, the one that it copies.
fn copies(mode: PaddingMode, axis: Axis) -> Vec<usize> {
    let n = axis.n as isize;
    let place = |i: isize| match mode {
        PaddingMode::Reflect if i < 0 => -i,
        PaddingMode::Reflect if i >= n => 2 * (n - 1) - i,
        PaddingMode::Circular => (i + n) % n,
        _ => i.clamp(0, n - 1),
    };
    (-(axis.before as isize)..n + axis.after as isize).map(|i| place(i) as usize).collect()
}

/// Channels, filters and groups: dense, one channel, depthwise, groups.
const CHANNELS: [[usize; 3]; 5] = [[1, 1, 1], [2, 3, 1], [3, 3, 3], [2, 4, 2], [4, 6, 2]];
const MODES: [PaddingMode; 4] =
    [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular];

/// A convolution layer in precision T, whose sums are exact in it.
fn convolution<T: Scalar, const R: usize>(
    axes: [Axis; R],
    mode: PaddingMode,
    sizes @ [images, channels, filters, groups]: [usize; 4],
    cache: &mut <Conv<R, T> as Layer>::Cache,
) {
    let what = || format!("{axes:?} {mode:?} {sizes:?} {}", T::NAME);
    let mut layer = Conv::<R, T>::new(channels, filters, axes.map(|a| a.kernel))
        .stride(axes.map(|a| a.stride))
        .padding(axes.map(|a| [a.before, a.after]))
        .dilation(axes.map(|a| a.dilation))
        .padding_mode(mode)
        .groups(groups);
    let x = batch::<T, R>([images, channels], axes.map(|a| a.n), axes[0].kernel);
    let most = |axis: Axis| match mode {
        PaddingMode::Reflect => axis.n - 1,
        PaddingMode::Circular => axis.n,
        _ => usize::MAX,
    };
    let out = volume(&axes, |a| a.windows(false));
    if out == 0 || axes.iter().any(|axis| axis.before.max(axis.after) > most(*axis)) {
        assert!(layer.output_shape(x.shape()).is_err(), "{}", what());
        return;
    }
    layer = layer.init(0).unwrap();
    let theta = set_parameters(&mut layer);
    let real: Vec<f64> = x.data().iter().map(|v| v.to_f64()).collect();
    let dy = values(images * filters * out, 3);
    let (mut seen, mut larger, mut sources) = (axes, real.clone(), (0..real.len()).collect::<Vec<_>>());
    if mode != PaddingMode::Zeros {
        // An image that was padded before is one without padding.
        let places = axes.map(|axis| copies(mode, axis));
        seen = axes.map(|axis| Axis { n: axis.before + axis.n + axis.after, before: 0, after: 0, ..axis });
        sources = (0..images * channels).collect();
        for (places, axis) in places.iter().zip(axes) {
            sources = sources.iter().flat_map(|at| places.iter().map(move |i| at * axis.n + i)).collect();
        }
        larger = sources.iter().map(|&i| real[i]).collect();
    }
    let [want_y, dlarger, want_dw, want_db] = sums(&seen, sizes, (&larger, &theta[0], &theta[1]), &dy);
    let mut want_dx = vec![0.0; real.len()];
    sources.iter().zip(&dlarger).for_each(|(&i, g)| want_dx[i] += g);
    let [y, dx, grads] = pass(&layer, &x, cache).unwrap();
    assert_same(&y, &want_y, || format!("y of {}", what()));
    assert_same(&dx, &want_dx, || format!("dx of {}", what()));
    assert_same(&grads, &[want_dw, want_db].concat(), || format!("dw and db of {}", what()));
    let y = layer.forward_alone(&x);
    assert_same(&y, &want_y, || format!("y in inference of {}", what()));
}

/// Sets all parameters to small integers, and returns them.
fn set_parameters<L: Layer>(layer: &mut L) -> Vec<Vec<f64>> {
    let mut theta = Vec::new();
    layer.visit_mut(&mut |_, param| {
        let set = values::<L::T>(param.volume(), 7);
        theta.push(set.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        param.value_mut().unwrap().copy_from_slice(&set);
    });
    theta
}

/// Inference, with what it keeps of the weights.
trait Alone: Layer {
    fn forward_alone(&self, x: &Tensor<Self::T>) -> Vec<f64> {
        let (mut y, mut cache) = (Tensor::default(), Self::Cache::default());
        self.forward(x, &mut y, &mut cache, Context::infer()).unwrap();
        y.data().iter().map(|v| v.to_f64()).collect()
    }
}
impl<L: Layer> Alone for L {}

#[test]
fn convolution_is_its_definition_over_all_small_windows() {
    let all = axes(4, 3, |_| 3);
    let (mut cache, mut cache32) = Default::default();
    let bases = [all.len(), all.len(), MODES.len(), CHANNELS.len(), 3];
    for (case, [i, j, mode, channels, odd]) in combinations(bases, 100_000).enumerate() {
        let mut axes = [all[i], all[j]];
        // The sides may differ.
        axes[0].after = axes[0].after.saturating_sub(odd);
        axes[1].before = axes[1].before.saturating_sub(odd);
        let [c, k, groups] = CHANNELS[channels];
        // Many images go another way, in f32.
        let images = if case % 64 == 1 { 35 } else { 1 + case % 2 };
        if case % 2 == 0 {
            convolution::<f64, 2>(axes, MODES[mode], [images, c, k, groups], &mut cache);
        } else {
            convolution::<f32, 2>(axes, MODES[mode], [images, c, k, groups], &mut cache32);
        }
    }
}

#[test]
fn convolution_of_sequences_and_volumes_is_its_definition_over_all_small_windows() {
    let all = axes(4, 3, |_| 3);
    let (mut cache, mut cache32) = Default::default();
    for (case, [i, mode, channels, odd]) in
        combinations([all.len(), MODES.len(), CHANNELS.len(), 3], 40_000).enumerate()
    {
        let [c, k, groups] = CHANNELS[channels];
        let mut axis = all[i];
        axis.after = axis.after.saturating_sub(odd);
        let images = if case % 64 == 1 { 35 } else { 1 + case % 2 };
        if case % 2 == 0 {
            convolution::<f64, 1>([axis], MODES[mode], [images, c, k, groups], &mut cache);
        } else {
            convolution::<f32, 1>([axis], MODES[mode], [images, c, k, groups], &mut cache32);
        }
    }
    let all = axes(3, 2, |kernel| kernel.min(2));
    let (mut cache, mut cache32) = Default::default();
    let bases = [all.len(), all.len(), all.len(), MODES.len(), CHANNELS.len(), 3];
    for (case, [i, j, k, mode, channels, odd]) in combinations(bases, 8_000).enumerate() {
        let mut axes = [all[i], all[j], all[k]];
        axes[0].after = axes[0].after.saturating_sub(odd);
        axes[2].before = axes[2].before.saturating_sub(odd);
        let [c, k, groups] = CHANNELS[channels];
        if case % 2 == 0 {
            convolution::<f64, 3>(axes, MODES[mode], [1 + case % 3, c, k, groups], &mut cache);
        } else {
            convolution::<f32, 3>(axes, MODES[mode], [1 + case % 3, c, k, groups], &mut cache32);
        }
    }
}

/// Every element of x adds the filters to y: y, dx, dw, db for dy. `axes` are those of x, of which `before` is cut off at both ends of
/// y, and y has `after` more elements at the end.
fn transposed_sums(
    axes: &[Axis],
    [images, channels, filters, groups]: [usize; 4],
    (x, w, b): (&[f64], &[f64], &[f64]),
    dy: &[f64],
) -> [Vec<f64>; 4] {
    let [out, plane, taps] = [volume(axes, transposed), volume(axes, |a| a.n), volume(axes, |a| a.kernel)];
    let (c, k) = (channels / groups, filters / groups);
    let mut y: Vec<f64> = (0..dy.len()).map(|i| b[i / out % filters]).collect();
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; filters]);
    dy.iter().enumerate().for_each(|(i, g)| db[i / out % filters] += g);
    for i in 0..plane {
        for t in 0..taps {
            let (at, tap) = (digits(i, axes, |a| a.n), digits(t, axes, |a| a.kernel));
            let place = axes.iter().enumerate().try_fold(0, |o, (j, axis)| {
                let place = (at[j] * axis.stride + tap[j] * axis.dilation).checked_sub(axis.before)?;
                (place < transposed(*axis)).then_some(o * transposed(*axis) + place)
            });
            let Some(o) = place else { continue };
            for n in 0..images {
                for channel in 0..channels {
                    let from = (n * channels + channel) * plane + i;
                    for filter in 0..k {
                        let weight = (channel * k + filter) * taps + t;
                        let to = (n * filters + channel / c * k + filter) * out + o;
                        y[to] += w[weight] * x[from];
                        dx[from] += w[weight] * dy[to];
                        dw[weight] += x[from] * dy[to];
                    }
                }
            }
        }
    }
    [y, dx, dw, db]
}

/// The length of an axis after a transposed convolution; 0 where nothing is left.
fn transposed(axis: Axis) -> usize {
    let length = (axis.n - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 + axis.after;
    length.saturating_sub(2 * axis.before)
}

#[test]
fn transposed_convolution_is_its_definition_over_all_small_windows() {
    fn check<T: Scalar, const R: usize>(
        axes: [Axis; R],
        sizes @ [images, channels, filters, groups]: [usize; 4],
        cache: &mut <ConvTranspose<R, T> as Layer>::Cache,
    ) {
        let what = || format!("{axes:?} {sizes:?} {}", T::NAME);
        let layer = ConvTranspose::<R, T>::new(channels, filters, axes.map(|a| a.kernel))
            .stride(axes.map(|a| a.stride))
            .padding(axes.map(|a| a.before))
            .output_padding(axes.map(|a| a.after))
            .dilation(axes.map(|a| a.dilation))
            .groups(groups);
        let x = batch::<T, R>([images, channels], axes.map(|a| a.n), axes[0].kernel);
        let out = volume(&axes, transposed);
        if out == 0 || axes.iter().any(|a| a.after >= a.stride.max(a.dilation)) {
            assert!(layer.output_shape(x.shape()).is_err(), "{}", what());
            return;
        }
        let mut layer = layer.init(0).unwrap();
        let theta = set_parameters(&mut layer);
        let real: Vec<f64> = x.data().iter().map(|v| v.to_f64()).collect();
        let dy = values(images * filters * out, 3);
        let [want_y, want_dx, want_dw, want_db] =
            transposed_sums(&axes, sizes, (&real, &theta[0], &theta[1]), &dy);
        let [y, dx, grads] = pass(&layer, &x, cache).unwrap();
        assert_same(&y, &want_y, || format!("y of {}", what()));
        assert_same(&dx, &want_dx, || format!("dx of {}", what()));
        assert_same(&grads, &[want_dw, want_db].concat(), || format!("dw and db of {}", what()));
    }
    // An axis of x with the output padding as `after`.
    let with = |axis: Axis, more: usize| Axis { after: more, ..axis };
    let all = axes(4, 3, |_| 3);
    let (mut cache, mut cache2, mut cache3) = Default::default();
    for (case, [i, more, channels]) in combinations([all.len(), 3, CHANNELS.len()], 20_000).enumerate() {
        let [c, k, groups] = CHANNELS[channels];
        check::<f64, 1>([with(all[i], more)], [1 + case % 3, c, k, groups], &mut cache);
    }
    let bases = [all.len(), all.len(), 3, 3, CHANNELS.len()];
    for (case, [i, j, more, extra, channels]) in combinations(bases, 20_000).enumerate() {
        let [c, k, groups] = CHANNELS[channels];
        let axes = [with(all[i], more), with(all[j], extra)];
        check::<f32, 2>(axes, [1 + case % 3, c, k, groups], &mut cache2);
    }
    let all = axes(3, 2, |kernel| kernel.min(2));
    let bases = [all.len(), all.len(), all.len(), 3, CHANNELS.len()];
    for [i, j, k, more, channels] in combinations(bases, 3_000) {
        let axes = [with(all[i], more), with(all[j], 0), with(all[k], more % 2)];
        let [c, k, groups] = CHANNELS[channels];
        check::<f64, 3>(axes, [1, c, k, groups], &mut cache3);
    }
}

#[test]
fn pools_of_sequences_and_volumes_are_their_definitions_over_all_small_windows() {
    fn check<const R: usize>(axes: [Axis; R], ceil: bool, include: bool, divisor: Option<usize>) {
        let what = || format!("{axes:?} {ceil} {include} {divisor:?}");
        let x = batch::<f64, R>([1, 2], axes.map(|a| a.n), axes[0].kernel);
        let max = MaxPool::<R, f64>::new(axes.map(|a| a.kernel))
            .stride(axes.map(|a| a.stride))
            .padding(axes.map(|a| a.before))
            .dilation(axes.map(|a| a.dilation))
            .ceil_mode(ceil);
        let out = volume(&axes, |a| a.windows(ceil));
        if out == 0 {
            assert!(max.output_shape(x.shape()).is_err(), "{}", what());
            return;
        }
        let dy = values(2 * out, 3);
        let [y, dx, _] = pass(&max, &x, &mut Default::default()).unwrap();
        let [want_y, want_dx] = maxima(&axes, ceil, x.data(), &dy);
        assert_same(&y, &want_y, || format!("maxima of {}", what()));
        assert_same(&dx, &want_dx, || format!("gradient of the maxima of {}", what()));
        if axes.iter().any(|a| a.dilation > 1) {
            return;
        }
        let mean = AvgPool::<R, f64>::new(axes.map(|a| a.kernel))
            .stride(axes.map(|a| a.stride))
            .padding(axes.map(|a| a.before))
            .ceil_mode(ceil)
            .count_include_pad(include)
            .divisor_override(divisor);
        let count = |o: &[usize], include| axes.iter().zip(o).map(|(&a, &o)| along(a, o, include)).product();
        let [y, dx, _] = pass(&mean, &x, &mut Default::default()).unwrap();
        let by = |o: &[usize]| divisor.unwrap_or(count(o, include));
        let [want_y, want_dx] = means(&axes, ceil, by, x.data(), &dy);
        assert_same(&y, &want_y, || format!("means of {}", what()));
        assert_same(&dx, &want_dx, || format!("gradient of the means of {}", what()));
        norms(axes, ceil, &x, &dy);
    }
    let all = axes(4, 2, |kernel| kernel / 2);
    for [i, ceil, include, divisor] in combinations([all.len(), 2, 2, 2], usize::MAX) {
        check([all[i]], ceil == 1, include == 1, (divisor == 1).then_some(3));
    }
    for [i, j, k, ceil, include, divisor] in combinations([all.len(), all.len(), all.len(), 2, 2, 2], 15_000)
    {
        check([all[i], all[j], all[k]], ceil == 1, include == 1, (divisor == 1).then_some(3));
    }
    for [i, j, ceil] in combinations([all.len(), all.len(), 2], 5_000) {
        let axes = [all[i], all[j]];
        if volume(&axes, |a| a.windows(ceil == 1)) > 0 {
            let out = 2 * volume(&axes, |a| a.windows(ceil == 1));
            norms(axes, ceil == 1, &tensor([1, 2, axes[0].n, axes[1].n], i), &values(out, 3));
        }
    }
}

/// The definition of pooling by the 2-norm, where windows have neither padding nor dilation.
fn norms<const R: usize>(axes: [Axis; R], ceil: bool, x: &Tensor<f64>, dy: &[f64]) {
    if axes.iter().any(|a| a.dilation > 1 || a.before + a.after > 0) {
        return;
    }
    let layer =
        LpPool::<R, f64>::new(2.0, axes.map(|a| a.kernel)).stride(axes.map(|a| a.stride)).ceil_mode(ceil);
    let (out, plane) = (volume(&axes, |a| a.windows(ceil)), volume(&axes, |a| a.n));
    let share = |o: usize| -> f64 {
        let o = digits(o, &axes, |a| a.windows(ceil));
        axes.iter().zip(o).map(|(&a, o)| a.kernel as f64 / along(a, o, true) as f64).product()
    };
    let (mut want_y, mut want_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    for p in 0..x.len() / plane {
        let reads = reads(&axes, ceil);
        reads.iter().for_each(|&(o, _, i)| want_y[p * out + o] += share(o) * x.data()[p * plane + i].powi(2));
        want_y[p * out..][..out].iter_mut().for_each(|y| *y = y.sqrt());
        for (o, _, i) in reads {
            let y: f64 = want_y[p * out + o];
            if y > 0.0 {
                want_dx[p * plane + i] += share(o) * x.data()[p * plane + i] / y * dy[p * out + o];
            }
        }
    }
    let [y, dx, _] = pass(&layer, x, &mut Default::default()).unwrap();
    assert_same(&y, &want_y, || format!("norms of {axes:?} {ceil}"));
    assert_same(&dx, &want_dx, || format!("gradient of the norms of {axes:?} {ceil}"));
}

#[test]
fn adaptive_pools_of_any_rank_are_their_definitions_over_all_small_sizes() {
    fn check<const R: usize>(size: [usize; R], parts: [usize; R]) {
        let what = || format!("{size:?} to {parts:?}");
        let (x, out) = (batch::<f64, R>([2, 2], size, size[0]), parts.iter().product::<usize>());
        let (plane, dy) = (size.iter().product::<usize>(), values::<f64>(4 * out, 3));
        let span = |o: usize, n: usize, parts: usize| o * n / parts..((o + 1) * n).div_ceil(parts);
        let axis = |n| Axis { n, kernel: 1, stride: 1, before: 0, after: 0, dilation: 1 };
        let (from, to) = (size.map(axis), parts.map(axis));
        let [mut means, mut dmeans, mut maxima, mut dmaxima] =
            [4 * out, x.len(), 4 * out, x.len()].map(|n| vec![0.0; n]);
        for i in 0..4 * out {
            let (p, o) = (i / out, digits(i % out, &to, |a| a.n));
            let inside: Vec<usize> = (0..plane)
                .filter(|&i| {
                    let at = digits(i, &from, |a| a.n);
                    (0..R).all(|axis| span(o[axis], size[axis], parts[axis]).contains(&at[axis]))
                })
                .map(|i| p * plane + i)
                .collect();
            let m = inside.len() as f64;
            means[i] = inside.iter().map(|&j| x.data()[j]).sum::<f64>() / m;
            inside.iter().for_each(|&j| dmeans[j] += dy[i] / m);
            let first = |a: usize, b: usize| if x.data()[b] > x.data()[a] { b } else { a };
            let winner = inside.into_iter().reduce(first).unwrap();
            maxima[i] = x.data()[winner];
            dmaxima[winner] += dy[i];
        }
        let same = |[y, dx, _]: [Vec<f64>; 3], of: [&[f64]; 2]| {
            assert_same(&y, of[0], || format!("y of {}", what()));
            assert_same(&dx, of[1], || format!("dx of {}", what()));
        };
        same(
            pass(&AdaptiveAvgPool::<R, f64>::new(parts), &x, &mut Default::default()).unwrap(),
            [&means, &dmeans],
        );
        same(
            pass(&AdaptiveMaxPool::<R, f64>::new(parts), &x, &mut Default::default()).unwrap(),
            [&maxima, &dmaxima],
        );
        if out == 1 {
            same(
                pass(&GlobalAvgPool::<R, f64>::new(), &x, &mut Default::default()).unwrap(),
                [&means, &dmeans],
            );
            same(
                pass(&GlobalMaxPool::<R, f64>::new(), &x, &mut Default::default()).unwrap(),
                [&maxima, &dmaxima],
            );
        }
    }
    for [n, o] in combinations([9, 9], usize::MAX) {
        check([n + 1], [o + 1]);
    }
    for [h, w, i, j] in combinations([5, 5, 5, 5], usize::MAX) {
        check([h + 1, w + 1], [i + 1, j + 1]);
    }
    for [d, h, w, i, j, k] in combinations([4; 6], 2_000) {
        check([d + 1, h + 1, w + 1], [i + 1, j + 1, k + 1]);
    }
}

/// In inference the places of the windows are those for u = ½.
#[test]
fn fractional_pools_are_their_definitions_over_all_small_sizes() {
    fn check<const R: usize>(kernel: [usize; R], out: [usize; R], extra: [usize; R]) {
        let size: [usize; R] = std::array::from_fn(|axis| kernel[axis] + out[axis] - 1 + extra[axis]);
        let what = || format!("{size:?} to {out:?} by {kernel:?}");
        let (layer, x) =
            (FractionalMaxPool::<R, f64>::new(kernel, out), batch::<f64, R>([1, 2], size, out[0]));
        let axis = |n| Axis { n, kernel: 1, stride: 1, before: 0, after: 0, dilation: 1 };
        let begins = |axis: usize, o: usize| {
            let last = size[axis] - kernel[axis];
            let step = last as f64 / (out[axis].max(2) - 1) as f64;
            if o + 1 == out[axis] { last } else { ((o as f64 + 0.5) * step) as usize - (0.5 * step) as usize }
        };
        let (plane, outputs) = (size.iter().product::<usize>(), out.iter().product::<usize>());
        let (dy, from, to) = (values::<f64>(2 * outputs, 3), size.map(axis), out.map(axis));
        let (mut want_y, mut want_dx) = (vec![0.0; 2 * outputs], vec![0.0; x.len()]);
        for i in 0..2 * outputs {
            let o = digits(i % outputs, &to, |a| a.n);
            let inside = (0..plane).filter(|&i| {
                let at = digits(i, &from, |a| a.n);
                (0..R).all(|axis| {
                    (begins(axis, o[axis])..begins(axis, o[axis]) + kernel[axis]).contains(&at[axis])
                })
            });
            let first = |a: usize, b: usize| if x.data()[b] > x.data()[a] { b } else { a };
            let winner = inside.map(|at| i / outputs * plane + at).reduce(first).unwrap();
            want_y[i] = x.data()[winner];
            want_dx[winner] += dy[i];
        }
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), Default::default());
        layer.forward(&x, &mut y, &mut cache, Context::frozen()).unwrap();
        let dy = Tensor::from_vec(*y.shape(), dy).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_same(y.data(), &want_y, || format!("y of {}", what()));
        assert_same(dx.data(), &want_dx, || format!("dx of {}", what()));
    }
    for [k, l, o, p, e, f] in combinations([3, 3, 4, 4, 4, 4], 3_000) {
        check([k + 1, l + 1], [o + 1, p + 1], [e, f]);
        check([k + 1, 2, l + 1], [o + 1, p + 1, 2], [e, f, e]);
    }
}

#[test]
fn unpooling_is_its_definition_over_all_small_windows() {
    fn check<const R: usize>(axes: [usize; R], kernel: [usize; R], stride: [usize; R], padding: [usize; R]) {
        let layer = MaxUnpool::<R, f64>::new(kernel).stride(stride).padding(padding);
        let size: [Option<usize>; R] = std::array::from_fn(|axis| {
            ((axes[axis] - 1) * stride[axis] + kernel[axis]).checked_sub(2 * padding[axis]).filter(|n| *n > 0)
        });
        let (x, plane) =
            (batch::<f64, R>([1, 2], axes, 1), size.iter().map(|n| n.unwrap_or(0)).product::<usize>());
        let what = || format!("{axes:?} {kernel:?} {stride:?} {padding:?}");
        if plane == 0 {
            assert!(layer.output_shapes(&[*x.shape(); 2]).is_err(), "{}", what());
            return;
        }
        let each = x.len() / 2;
        let indices = Tensor::from_fn(*x.shape(), |i| (i * 7919 % 31 % plane) as f64);
        let dy = batch::<f64, R>([1, 2], size.map(Option::unwrap), 3);
        let (mut want_y, mut want_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        for i in 0..x.len() {
            let at = |i: usize| i / each * plane + indices.data()[i] as usize;
            want_y[at(i)] = x.data()[i];
            let last = (i + 1..(i / each + 1) * each).all(|j| at(j) != at(i));
            want_dx[i] = if last { dy.data()[at(i)] } else { 0.0 };
        }
        let (mut ys, mut dx, mut state) = ([Tensor::default()], Tensor::default(), Default::default());
        let (xs, dys, mut grads) = ([&x, &indices], [Some(&dy)], Grads::new(&layer));
        layer.apply(&xs, &mut ys, &mut state, Context::train(0)).unwrap();
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut state, &mut grads, &mut [Some(&mut dx), None]).unwrap();
        assert_same(ys[0].data(), &want_y, || format!("y of {}", what()));
        assert_same(dx.data(), &want_dx, || format!("dx of {}", what()));
    }
    for [n, k, s, p] in combinations([4, 4, 3, 3], usize::MAX) {
        let p = p.min(k.div_ceil(2));
        check([n + 1], [k + 1], [s + 1], [p]);
        check([n + 1, 2], [k + 1, 3], [s + 1, 1], [p, 1]);
        check([2, n + 1, 1], [2, k + 1, 3], [1, s + 1, 2], [0, p, 1]);
    }
}

#[test]
fn unfolding_and_folding_are_their_definitions_over_all_small_windows() {
    let all = axes(4, 3, |_| 3);
    for [i, j] in combinations([all.len(), all.len()], 30_000) {
        let [a, b] = [all[i], all[j]];
        let axes = [a, b];
        let unfold = Unfold::<f64>::new([a.kernel, b.kernel])
            .stride([a.stride, b.stride])
            .padding([a.before, b.before])
            .dilation([a.dilation, b.dilation]);
        let x = tensor::<f64, 4>([1, 2, a.n, b.n], i + j);
        let [out, plane, taps] = [volume(&axes, |a| a.windows(false)), a.n * b.n, a.kernel * b.kernel];
        if out == 0 {
            assert!(unfold.output_shape(x.shape()).is_err(), "{axes:?}");
            continue;
        }
        let (columns, dy) = (values::<f64>(2 * taps * out, 3), values::<f64>(2 * plane, 3));
        let [mut want_y, mut want_dx] = [2 * taps * out, 2 * plane].map(|n| vec![0.0; n]);
        let [mut folded, mut dcolumns] = [2 * plane, 2 * taps * out].map(|n| vec![0.0; n]);
        for c in 0..2 {
            for (o, t, i) in reads(&axes, false) {
                let (pixel, column) = (c * plane + i, (c * taps + t) * out + o);
                want_y[column] = x.data()[pixel];
                want_dx[pixel] += columns[column];
                folded[pixel] += columns[column];
                dcolumns[column] = dy[pixel];
            }
        }
        let [y, dx, _] = pass(&unfold, &x, &mut ()).unwrap();
        assert_same(&y, &want_y, || format!("y of {axes:?}"));
        assert_same(&dx, &want_dx, || format!("dx of {axes:?}"));
        let fold = Fold::<f64>::new([a.n, b.n], [a.kernel, b.kernel])
            .stride([a.stride, b.stride])
            .padding([a.before, b.before])
            .dilation([a.dilation, b.dilation]);
        let columns = Tensor::from_vec([1, 2 * taps, out], columns).unwrap();
        let [y, dx, _] = pass(&fold, &columns, &mut ()).unwrap();
        assert_same(&y, &folded, || format!("sums of {axes:?}"));
        assert_same(&dx, &dcolumns, || format!("gradient of the sums of {axes:?}"));
    }
}

#[test]
fn kernels_over_one_and_three_axes_are_their_definitions() {
    fn check<const R: usize>(axes: [Axis; R], ceil: bool) {
        let of = |f: fn(Axis) -> usize| axes.map(f);
        let window = Window {
            input: of(|a| a.n),
            kernel: of(|a| a.kernel),
            stride: of(|a| a.stride),
            dilation: of(|a| a.dilation),
            padding: axes.map(|a| [a.before, a.after]),
            ceil,
        };
        let [plane, out] = [volume(&axes, |a| a.n), volume(&axes, |a| a.windows(ceil))];
        assert_eq!(window.output().iter().product::<usize>(), out, "{window:?}");
        if out == 0 {
            return;
        }
        let (x, dy) = (values::<f64>(2 * plane, 1), values(2 * out, 3));
        let (mut y, mut winners, mut dx) = (vec![0.0; 2 * out], vec![0; 2 * out], vec![0.0; x.len()]);
        max_pool(&x, &mut y, Some(&mut winners), &window);
        max_pool_gradient(&dy, &winners, &mut dx, plane);
        let [want_y, want_dx] = maxima(&axes, ceil, &x, &dy);
        assert_same(&y, &want_y, || format!("y of {window:?}"));
        assert_same(&dx, &want_dx, || format!("dx of {window:?}"));
        if ceil {
            return;
        }
        let Window { input, kernel, stride, dilation, padding, .. } = window;
        let (channels, filters, groups) = (2, 4, 2);
        let g = Geometry { images: 1, channels, filters, groups, input, kernel, stride, dilation, padding };
        let (w, b, mut work) = (values::<f64>(g.w_len(), 7), values::<f64>(filters, 8), Workspace::default());
        let dy = values(g.y_len(), 3);
        let [want_y, want_dx, want_dw, _] = sums(&axes, [1, channels, filters, groups], (&x, &w, &b), &dy);
        let (mut y, mut dw) = (vec![f64::NAN; g.y_len()], vec![0.0; w.len()]);
        conv(&g, &x, Filters::new(&w), Some(&b), &mut y, &mut work);
        conv_input_gradient(&g, &w, &dy, &mut dx, &mut work);
        conv_weight_gradient(&g, &x, &dy, &mut dw, &mut work);
        for (got, want) in [(y, want_y), (dx, want_dx), (dw, want_dw)] {
            assert_same(&got, &want, || format!("{g:?}"));
        }
    }
    let all = axes(4, 3, |kernel| kernel);
    for [i, ceil] in combinations([all.len(), 2], usize::MAX) {
        check([all[i]], ceil == 1);
    }
    let all = axes(3, 2, |kernel| kernel.min(2));
    for [i, j, k, ceil] in combinations([all.len(), all.len(), all.len(), 2], 6000) {
        check([all[i], all[j], all[k]], ceil == 1);
    }
}

/// Runs both passes, of which each takes the work and the memory of what windows see of the image.
fn quick<L: Layer>(what: &str, layer: L, input: [usize; 4]) -> [Vec<f64>; 3]
where
    L::Cache: Default,
{
    let start = Instant::now();
    let all =
        pass(&layer, &tensor(input, 1), &mut Default::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    // Milliseconds; hours where zeros are counted through.
    assert!(start.elapsed() < Duration::from_secs(5), "{what} takes {:?}", start.elapsed());
    all
}

#[test]
fn huge_pools_of_small_images_take_the_work_of_the_image() {
    let input = [1, 1, 3, 3];
    let x = tensor::<f64, 4>(input, 1);
    let largest = x.data().iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = x.data().iter().sum();
    for kernel in [100_000, 100_001, (1 << 31) - 2] {
        let max = MaxPool2d::<f64>::new(kernel).padding(kernel / 2);
        let mean = AvgPool2d::<f64>::new(kernel).padding(kernel / 2);
        for stride in [1, 2, 100_000, (1 << 31) - 1] {
            let what = &format!("a kernel of {kernel} at stride {stride}");
            let [y, ..] = quick(what, max.stride(stride), input);
            // Each window begins before the image and ends in it or behind it.
            assert!(y.len() <= 16 && y.contains(&largest), "{what}: {y:?}");
            let [y, ..] = quick(what, mean.stride(stride), input);
            let most =
                y.iter().map(|v| (v * (kernel as f64).powi(2) - total).abs()).fold(f64::INFINITY, f64::min);
            assert!(y.len() <= 16 && most < 1e-6, "{what}: {y:?}");
            quick(what, max.stride(stride).ceil_mode(true), input);
            quick(what, mean.stride(stride).count_include_pad(false), input);
        }
    }
    // Taps far apart, of which one lies on the image.
    let dilated = MaxPool2d::<f64>::new(3).padding(1).stride(1);
    quick("a dilation of 2", dilated.dilation(2), input);
    let whole = MaxPool2d::<f64>::new(2).dilation(2999).stride(7);
    assert_eq!(quick("a dilation of 2999", whole, [1, 1, 3000, 3000])[0].len(), 1);
    quick("a stride of 2³⁰", MaxPool2d::<f64>::new(2).stride(1 << 30), input);
    quick("a mean at a stride of 2³⁰", AvgPool2d::<f64>::new(2).stride(1 << 30), input);
}

#[test]
fn huge_convolutions_of_small_images_take_the_work_of_the_image() {
    let conv = |kernel: [usize; 2]| Conv2d::<f32>::new(1, 1, kernel);
    let far = 1 << 30;
    for mode in MODES.into_iter().filter(|mode| matches!(mode, PaddingMode::Zeros | PaddingMode::Replicate)) {
        // Nine outputs each.
        for (what, layer) in [
            ("a dilation", conv([3, 3]).dilation(1 << 20).padding(1 << 20)),
            ("a stride", conv([1, 3]).stride([1 << 20, 1]).padding([[1 << 20; 2], [1; 2]])),
            ("a stride and a dilation", conv([3, 3]).stride(1 << 20).dilation(1 << 20).padding(2 << 20)),
            ("a kernel", conv([1, 1 << 16]).padding([[0; 2], [1 << 15, (1 << 15) - 1]])),
        ] {
            let layer = layer.padding_mode(mode).init(0).unwrap();
            let what = format!("{what} with {mode:?}");
            let [y, dx, _] = quick(&what, layer, [1, 1, 3, 3]);
            assert_eq!((y.len(), dx.len()), (9, 9), "{what}");
        }
    }
    // Values and gradients, with zeros around the image.
    let mut cache = Default::default();
    let axis =
        |kernel, stride, dilation, before, after| Axis { n: 3, kernel, stride, before, after, dilation };
    let far_apart = [
        axis(3, 1, 1 << 20, 1 << 20, 1 << 20),
        axis(3, 1 << 20, 1, 1 << 20, 1 << 20),
        axis(3, 1 << 20, 1 << 20, 2 << 20, 2 << 20),
        axis(2, 1 << 30, (1 << 20) + 1, 1 << 20, 1),
        axis(300, 1, 1, 298, 299),
        axis(1, 1 << 19, 1, 1 << 20, 3),
        axis(3, 1, 1, 1, 1),
    ];
    for a in far_apart {
        for b in far_apart {
            for [channels, filters, groups] in CHANNELS {
                convolution::<f32, 2>([a, b], PaddingMode::Zeros, [2, channels, filters, groups], &mut cache);
            }
        }
    }
    // Sizes near the largest that a layer takes.
    for (what, layer) in [
        ("a dilation of 2³⁰", conv([3, 3]).dilation(far).padding(far)),
        ("a stride of 2³⁰", conv([3, 3]).stride(far).padding(far)),
        ("a stride of 2³⁰ without padding", conv([3, 3]).stride(far)),
        ("a stride of 2³⁰ of many filters", Conv2d::new(1, 40, 3).stride(far)),
        ("\"same\" padding of 2³⁰", conv([3, 3]).dilation(far).padding(Padding::Same)),
    ] {
        let [y, ..] = quick(what, layer.init(0).unwrap(), [1, 1, 3, 3]);
        assert!(!y.is_empty(), "{what}");
    }
    // Taps at the corners of a large image, and many filters.
    quick(
        "taps at the corners",
        Conv2d::<f32>::new(1, 512, 2).dilation(255).init(0).unwrap(),
        [1, 1, 256, 256],
    );
    let reason = |layer: Conv2d<f32>| layer.output_shape(&[1, 1, 3, 3]).unwrap_err().to_string();
    assert!(reason(conv([5, 5])).contains("holds a window of [5, 5]"));
    assert!(reason(conv([3, 3]).padding(far)).contains("fits in memory"));
    assert!(reason(conv([3, 3]).dilation(1 << 31)).contains("dilation from 1 to 2³¹ − 1"));
}
