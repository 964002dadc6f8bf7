//! Sums of millions of addends in f32: each is within 1e-6 of Σ |addends|, in value and gradient.

use chainrule::{
    core::{BoxModule, Example, ModuleCall, Registry},
    prelude::*,
    tensor::kernels::reduce,
};

/// What a sum of f32 may be off by, as a share of Σ |addends|.
const SHARE: f64 = 1e-6;

/// Values between 0.2 and 1 that are the same for every row of `period` elements, in no simple ratio to one another.
fn periodic<T: Scalar>(shape: Shape, period: usize) -> Tensor<T> {
    Tensor::from_fn(shape, |i| {
        let v = 0.2 + 0.8 * ((i % period) as f64 * 0.618_033_988_749).fract();
        T::from_f64(f64::from(v as f32))
    })
}

/// The outputs, ∂E/∂x and ∂E/∂θ of a module.
fn pass<T: Scalar>(module: &BoxModule<T>, xs: &[Tensor<T>], rows: usize) -> Vec<Vec<f64>> {
    let xs: Vec<&Tensor<T>> = xs.iter().collect();
    let mut ys = vec![Tensor::default(); module.outputs()];
    let (mut state, mut grads) = (Default::default(), Grads::new(module));
    module.apply(&xs, &mut ys, &mut state, Context::train(0)).unwrap();
    let dys: Vec<Tensor<T>> = ys.iter().map(|y| periodic(*y.shape(), (y.len() / rows).max(1))).collect();
    let dys: Vec<Option<&Tensor<T>>> = dys.iter().map(Some).collect();
    let mut dxs = vec![Tensor::default(); xs.len()];
    let mut requested: Vec<_> =
        dxs.iter_mut().enumerate().map(|(i, dx)| module.differentiable_input(i).then_some(dx)).collect();
    module
        .pull(ModuleCall::new(module, &xs, &ys, &dys).unwrap(), &mut state, &mut grads, &mut requested)
        .unwrap();
    let all = ys.iter().chain(&dxs).map(Tensor::data).chain([grads.values()]);
    all.map(|values| values.iter().map(|v| v.to_f64()).collect()).collect()
}

/// A module in f32 and in f64 with the same weights.
fn twins(example: &Example) -> (BoxModule<f32>, BoxModule<f64>) {
    let single = chainrule_parity::registry::<f32>().build_module(&example.spec).unwrap().init(7).unwrap();
    let mut double =
        chainrule_parity::registry::<f64>().build_module(&example.spec).unwrap().init(7).unwrap();
    let mut values = Vec::new();
    single.visit(&mut |_, p| values.push(p.value().unwrap().to_vec()));
    let mut values = values.into_iter();
    double.visit_mut(&mut |_, p| {
        let single = values.next().unwrap();
        p.value_mut().unwrap().iter_mut().zip(single).for_each(|(v, s)| *v = f64::from(s));
    });
    (single, double)
}

/// A batch of 2²⁰ elements of equal rows through every layer: what it sums over the batch is that of f64. ∂E/∂θ is compared as a share
/// of its largest element, which is about Σ |addends| since inputs and ∂E/∂y are positive; y and ∂E/∂x, whose own rounding is larger,
/// as one of values of order 1.
#[test]
fn every_layer_sums_a_long_batch_as_f64_does() {
    let registry: Registry<f32> = chainrule_parity::registry();
    let mut walked = 0;
    for entry in registry.modules().filter(|entry| entry.facts.family != "noise") {
        for example in (entry.examples)().into_iter().filter(|example| !example.bench) {
            if example.inputs.iter().any(|shape| shape.len() < 2 && example.ids.is_none()) {
                continue; // no batch
            }
            let rows = (1 << 20) / example.inputs.iter().map(Shape::volume).max().unwrap().max(1);
            let inputs: Vec<Shape> = example
                .inputs
                .iter()
                .map(|shape| {
                    let axes: Vec<usize> =
                        [rows * shape[0]].into_iter().chain(shape[1..].iter().copied()).collect();
                    Shape::new(&axes).unwrap()
                })
                .collect();
            let (single, double) = twins(&example);
            if single.output_shapes(&inputs).is_err() && entry.facts.family == "recurrent" {
                continue; // states, whose first axis is no batch
            }
            let xs: Vec<Tensor<f64>> = inputs
                .iter()
                .map(|shape| match example.ids {
                    Some(ids) => Tensor::from_fn(*shape, |i| (i % ids) as f64),
                    None => periodic(*shape, shape.volume() / rows),
                })
                .collect();
            let singles: Vec<Tensor<f32>> =
                xs.iter().map(|x| Tensor::from_fn(*x.shape(), |i| x.data()[i] as f32)).collect();
            let (got, want) = (pass(&single, &singles, rows), pass(&double, &xs, rows));
            let got_parts = got.len();
            for (part, (got, want)) in got.iter().zip(&want).enumerate() {
                let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let gradient = part == got_parts - 1;
                let allowed = if gradient { 2.0 * SHARE * largest } else { 1e-5 * (1.0 + largest) };
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    let off = (g - w).abs();
                    assert!(off <= allowed, "{} {part} {i}: {g} for {w}", example.spec);
                }
            }
            walked += 1;
        }
    }
    assert!(walked > 30, "{walked}");
}

fn close(got: f64, want: f64, addends: f64) {
    assert!((got - want).abs() <= SHARE * addends, "{got} for {want}");
}

const ROWS: usize = 1 << 23;

#[test]
fn losses_of_millions_of_rows() {
    let ln2 = 2f64.ln();
    let (y, t) = (Tensor::<f32>::zeros([ROWS]), Tensor::from_fn([ROWS], |_| 1.0));
    let bce = BceWithLogits::new();
    let mut dy = Tensor::default();
    close(f64::from(bce.value(&y, &t).unwrap().data()[0]), ln2, ln2);
    close(f64::from(bce.gradient(&y, &t, &mut dy).unwrap()), ln2, ln2);
    close(reduce::sum(dy.data()), -0.5, 0.5);

    let third = Tensor::from_fn([ROWS], |_| 1.0f32 / 3.0);
    let (a, b) = (f64::from(1.0f32 / 3.0), Mae::<f32>::new().gradient(&y, &third, &mut dy).unwrap());
    close(f64::from(b), a, a);
    close(f64::from(Mse::<f32>::new().value(&y, &third).unwrap().data()[0]), a * a, a * a);
    let smooth = SmoothL1::<f32>::new().gradient(&y, &third, &mut dy).unwrap();
    close(f64::from(smooth), 0.5 * a * a, 0.5 * a * a);
    close(f64::from(SoftMargin::<f32>::new().gradient(&y, &t, &mut dy).unwrap()), ln2, ln2);
    close(f64::from(PoissonNll::<f32>::new().gradient(&y, &t, &mut dy).unwrap()), 1.0, 1.0);
    // 2 · ⅓ n/(⅓ n + n) = ½, and n ∂y = n (½ · ½ − 1)/D with D = ⅔ n
    close(f64::from(Dice::<f32>::new().smooth(0.0).gradient(&third, &t, &mut dy).unwrap()), 0.5, 1.0);
    close(reduce::sum(dy.data()), -1.125, 1.125);
    let (mut e, whole) = (Tensor::default(), Reduction::Mean);
    let pairs = [&third, &y];
    MarginRanking::new().margin(1.0).reduction(whole).evaluate(&pairs, &[(&t).into()], &mut e).unwrap();
    close(f64::from(e.data()[0]), 1.0 - a, 1.0);
    ActivityPenalty::new().l1(1.0).evaluate(&pairs[..1], &[], &mut e).unwrap();
    close(f64::from(e.data()[0]), a, a);

    let rows = ROWS / 2;
    let (y, classes) = (Tensor::<f32>::zeros([rows, 2]), vec![1; rows]);
    let weighted = CrossEntropy::new().weights([0.5, 0.7f32]);
    for loss in [
        CrossEntropy::new(),
        weighted,
        CrossEntropy::new().label_smoothing(0.1),
        CrossEntropy::new().ignore_index(0),
    ] {
        close(f64::from(loss.value(&y, &classes).unwrap().data()[0]), ln2, ln2);
        close(f64::from(loss.gradient(&y, &classes, &mut dy).unwrap()), ln2, ln2);
    }
    let half = Tensor::full([rows, 2], -std::f32::consts::LN_2);
    let want = f64::from(std::f32::consts::LN_2);
    close(
        f64::from(Nll::new().weights([0.5, 0.7f32]).gradient(&half, &classes, &mut dy).unwrap()),
        want,
        want,
    );
    close(f64::from(Focal::new().gradient(&y, &classes, &mut dy).unwrap()), 0.25 * ln2, ln2);
    // (1, 2, rows): the classes are not the last axis.
    let y = Tensor::<f32>::zeros([1, 2, rows]);
    let dense = chainrule::core::Classes::new(&classes, [1, rows]).unwrap();
    close(f64::from(CrossEntropy::new().gradient(&y, dense, &mut dy).unwrap()), ln2, ln2);
}

/// Σ w = 2²⁴ + 2 is no f32 when it is counted up by ones.
#[test]
fn the_divisor_of_a_weighted_mean_counts_beyond_f32() {
    let rows = (1 << 24) + 2;
    let (y, classes) = (Tensor::<f32>::zeros([rows, 1]), vec![0; rows]);
    let mut dy = Tensor::default();
    let loss = CrossEntropy::new().weights([1.0]).label_smoothing(0.0);
    assert_eq!(loss.gradient(&y, &classes, &mut dy).unwrap(), 0.0);
    let twice = Tensor::from_fn([rows, 2], |_| 0.0f32);
    CrossEntropy::new().weights([1.0, 1.0]).gradient(&twice, &classes, &mut dy).unwrap();
    let want = -0.5 / rows as f64;
    assert!((f64::from(dy.data()[0]) - want).abs() < 1e-6 * want.abs(), "{} for {want}", dy.data()[0]);
}

#[test]
fn linear_over_ten_million_rows() {
    let rows = 10_000_000;
    let layer = Linear::<f32>::new(1, 1).init(1).unwrap();
    let (x, t) = (Tensor::from_fn([rows, 1], |_| 0.1f32), Tensor::<f32>::zeros([rows, 1]));
    let mut pass = Pass::new(&layer);
    let y = f64::from(pass.forward(&layer, &x, Context::train(0)).unwrap().data()[0]);
    pass.loss(&Mse::new().reduction(Reduction::Sum), &t).unwrap(); // ∂E/∂y = 2 y
    pass.backward(&layer, &x).unwrap();
    let (db, dw) = (2.0 * y * rows as f64, 2.0 * y * f64::from(0.1f32) * rows as f64);
    close(f64::from(pass.grads().values()[0]), dw, dw.abs());
    close(f64::from(pass.grads().values()[1]), db, db.abs());
}

#[test]
fn a_sum_over_millions_of_inputs() {
    let n = 1 << 22;
    let mut layer = Linear::<f32>::new(n, 1).bias(false).init(1).unwrap();
    layer.visit_mut(&mut |_, p| p.value_mut().unwrap().fill(0.3));
    let x = Tensor::from_fn([2, n], |_| 0.1f32);
    let want = n as f64 * f64::from(0.1f32) * f64::from(0.3f32);
    layer.infer(&x).unwrap().data().iter().for_each(|&y| close(f64::from(y), want, want));
}

#[test]
fn softmax_along_millions_of_rows() {
    for shape in [[5_000_000, 1], [1_000_000, 3], [1, 5_000_000]] {
        let x = Tensor::from_fn(shape, |i| (i % 7) as f32 * 0.1);
        let dim = isize::from(shape[0] == 1);
        let y = Softmax::new(dim).infer(&x).unwrap();
        let columns = if dim == 0 { shape[1] } else { 1 };
        for column in 0..columns {
            let sum: f64 = y.data().iter().skip(column).step_by(columns).map(|&v| f64::from(v)).sum();
            close(sum, 1.0, 1.0);
        }
        let z = LogSoftmax::new(dim).infer(&x).unwrap();
        let sum: f64 = z.data().iter().step_by(columns).map(|&v| f64::from(v).exp()).sum();
        close(sum, 1.0, 20.0); // ln p = −15 has a rounding of its own
    }
}

#[test]
fn means_over_a_plane_of_four_million() {
    let x = Tensor::from_fn([1, 1, 2048, 2048], |_| 0.1f32);
    let want = f64::from(0.1f32);
    for y in [
        GlobalAvgPool2d::new().infer(&x).unwrap(),
        AvgPool2d::new(2048).infer(&x).unwrap(),
        AvgPool2d::new([2048, 2047]).stride(1).infer(&x).unwrap(),
        AdaptiveAvgPool2d::new(1).infer(&x).unwrap(),
    ] {
        y.data().iter().for_each(|&y| close(f64::from(y), want, want));
    }
}

/// Values of f32 about 10⁴ with a deviation of 0.01: the statistics are those of f64, and x̂ is as exact as x.
#[test]
fn norms_of_values_far_from_zero() {
    let x = |shape: Shape| Tensor::from_fn(shape, |i| 1e4 + ((i * 7919) % 101) as f32 * 4e-4 - 0.02);
    let standard = |values: &[f32], y: &[f32], eps: f64| {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        for (&x, &y) in values.iter().zip(y) {
            let want = (f64::from(x) - mean) / (var + eps).sqrt();
            assert!((f64::from(y) - want).abs() < 1e-4, "{y} for {want}");
        }
        var
    };
    let plane = x([1, 1, 2048, 2048].into());
    let mut layer = BatchNorm2d::new(1).momentum(1.0).init(0).unwrap();
    let mut pass = Pass::new(&layer);
    let y = pass.forward(&layer, &plane, Context::train(0)).unwrap().clone();
    let var = standard(plane.data(), y.data(), 1e-5);
    pass.loss(&Mse::new(), &y).unwrap();
    pass.backward(&layer, &plane).unwrap();
    pass.update(&mut layer, &mut Sgd::new(0.0)).unwrap();
    layer.visit(&mut |path, p| {
        if path.to_string().ends_with("running_var") {
            let got = f64::from(p.value().unwrap()[0]);
            assert!((got - var).abs() < 1e-4 * var, "{got} for {var}");
        }
    });
    for d in [16, 100, 1_000_000] {
        let row = x([1, d].into());
        let y = LayerNorm::new(d).init(0).unwrap().infer(&row).unwrap();
        standard(row.data(), y.data(), 1e-5);
    }
}

#[test]
fn row_offsets_cost_no_digits() {
    for offset in [0.0, 1e4, -1e30] {
        let x = Tensor::from([[offset; 3]]);
        let y = LogSoftmax::new(1).infer(&x).unwrap();
        let e = CrossEntropy::new().gradient(&x, &[1], &mut Tensor::default()).unwrap();
        let smoothed = CrossEntropy::new().label_smoothing(0.1).value(&x, &[1]).unwrap().data()[0];
        for v in [-y.data()[0], e, smoothed] {
            assert!((v - 3f32.ln()).abs() < 1e-6, "{v} at {offset}");
        }
    }
}
