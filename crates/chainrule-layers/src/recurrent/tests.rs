//! Tests that every kind runs through.

use super::{Gru, Lstm, LstmCell, Rnn};
use chainrule_core::{
    BoxModule, Context, FromSpec, Grads, Module, ModuleCall, Parameters, Registry, Scalar, Session, Tensor,
};
use chainrule_tensor::par;

/// Sets a parameter by its path.
pub fn set(layer: &mut impl Parameters<T = f64>, path: &str, values: &[f64]) {
    let mut found = 0;
    layer.visit_mut(&mut |at, p| {
        if at.to_string() == path {
            let shape = *p.shape();
            p.set(Tensor::from_vec(shape, values.to_vec()).unwrap()).unwrap();
            found += 1;
        }
    });
    assert_eq!(found, 1, "{path}");
}

/// The shapes of the inputs of (N, T, I) for so many states of one or two sizes: x, lengths, states.
pub fn shapes<const S: usize>(
    [rows, time, inputs]: [usize; 3],
    all: usize,
    sizes: [usize; S],
    [batch_first, lengths, states]: [bool; 3],
) -> Vec<Vec<usize>> {
    let x = if batch_first { vec![rows, time, inputs] } else { vec![time, rows, inputs] };
    let states = if states { sizes.map(|size| vec![all, rows, size]).to_vec() } else { Vec::new() };
    [vec![x], if lengths { vec![vec![rows]] } else { Vec::new() }, states].concat()
}

/// Forward and backward: outputs, ∂E/∂x of inputs that have one, ∂E/∂θ in the order of the parameters.
pub fn pass<M: Module<T = f64>>(
    layer: &M,
    xs: &[&Tensor<f64>],
    dys: &[Option<&Tensor<f64>>],
) -> (Vec<Tensor<f64>>, Vec<Tensor<f64>>, Vec<f64>) {
    let (mut ys, mut state) = (vec![Tensor::default(); layer.outputs()], M::State::default());
    layer.apply(xs, &mut ys, &mut state, Context::train(0)).unwrap();
    let (mut grads, mut dxs) = (Grads::new(layer), vec![Tensor::default(); xs.len()]);
    let mut requested: Vec<_> =
        dxs.iter_mut().enumerate().map(|(k, dx)| layer.differentiable_input(k).then_some(dx)).collect();
    let call = ModuleCall::new(layer, xs, &ys, dys).unwrap();
    layer.pull(call, &mut state, &mut grads, &mut requested).unwrap();
    (ys, dxs, grads.values().to_vec())
}

pub fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-12 * want.abs().max(1.0), "{got:?} for {want:?}");
    }
}

fn filled<T: Scalar>(shape: &[usize], seed: usize) -> Tensor<T> {
    Tensor::from_fn(shape, |i| T::from_f64(((i * 7919 + seed * 104_729) as f64 * 0.37).sin()))
}

/// Some steps of x (N, T, I).
fn steps<T: Scalar>(x: &Tensor<T>, range: std::ops::Range<usize>) -> Tensor<T> {
    let [n, t, i] = x.shape()[..] else { panic!() };
    let all = (0..n).flat_map(|row| &x.data()[(row * t + range.start) * i..(row * t + range.end) * i]);
    Tensor::from_vec([n, range.len(), i], all.copied().collect()).unwrap()
}

/// Each kind with two layers.
fn kinds<T: Scalar>(inputs: usize, hidden: usize) -> Vec<BoxModule<T>> {
    vec![
        BoxModule::new(Rnn::new(inputs, hidden).num_layers(2).init(1).unwrap()),
        BoxModule::new(Rnn::new(inputs, hidden).num_layers(2).nonlinearity("relu").init(2).unwrap()),
        BoxModule::new(Lstm::new(inputs, hidden).num_layers(2).init(3).unwrap()),
        BoxModule::new(
            Lstm::new(inputs, hidden).proj_size(hidden.div_ceil(2) - 1).num_layers(2).init(4).unwrap(),
        ),
        BoxModule::new(Gru::new(inputs, hidden).num_layers(2).init(5).unwrap()),
    ]
}

/// Sizes at which products go other ways: few and many rows, inputs deeper than a block of the sum, whole and broken vectors.
fn pieces_give_the_whole<T: Scalar>() {
    for (n, t, inputs, hidden) in
        [(1, 64, 5, 7), (3, 20, 70, 33), (20, 9, 3, 64), (40, 5, 900, 16), (1, 3, 1, 3)]
    {
        for model in kinds::<T>(inputs, hidden) {
            let x = filled::<T>(&[n, t, inputs], n);
            let whole = model.infer(&x).unwrap();
            let cuts: [Vec<usize>; 4] =
                [vec![0, t], (0..=t).collect(), vec![0, 1, t], vec![0, t / 2, t / 2, t - 1, t]];
            for cuts in cuts {
                let mut session = Session::new(&model);
                for (from, to) in cuts.iter().zip(&cuts[1..]) {
                    let got = session.stream(&steps(&x, *from..*to)).unwrap();
                    let want = steps(&whole, *from..*to);
                    let same = got
                        .data()
                        .iter()
                        .zip(want.data())
                        .all(|(a, b)| a.to_f64().to_bits() == b.to_f64().to_bits());
                    assert!(same, "{model:?} {n} {t} {cuts:?}");
                }
            }
        }
    }
}

#[test]
fn pieces_of_a_sequence_give_the_bits_of_the_whole_at_any_size() {
    pieces_give_the_whole::<f32>();
    pieces_give_the_whole::<f64>();
}

#[test]
fn last_states_as_first_states_continue_a_sequence() {
    let model = Lstm::<f32>::new(3, 5).num_layers(2).states(true).init(2).unwrap();
    let x = filled(&[2, 5, 3], 1);
    let zeros = Tensor::zeros([2, 2, 5]);
    let whole = model.infer_all([&x, &zeros, &zeros]).unwrap();
    let first = model.infer_all([&steps(&x, 0..2), &zeros, &zeros]).unwrap();
    let second = model.infer_all([&steps(&x, 2..5), &first[1], &first[2]]).unwrap();
    assert_eq!(second[0], steps(&whole[0], 2..5));
    assert!(second[1] == whole[1] && second[2] == whole[2]);
    // Without the inputs they are zeros.
    let plain = Lstm::<f32>::new(3, 5).num_layers(2).init(2).unwrap();
    assert_eq!(plain.infer(&x).unwrap(), whole[0]);
}

/// A batch of sequences of several lengths is as good as each by itself, whatever stands behind the ends.
#[test]
fn sequences_of_different_lengths_are_those_of_their_own() {
    for both in [false, true] {
        let build = |lengths| {
            let gru = Gru::<f64>::new(2, 3).num_layers(2).bidirectional(both).lengths(lengths);
            gru.states(true).init(3).unwrap()
        };
        let (packed, plain) = (build(true), build(false));
        let d = if both { 2 } else { 1 };
        let of_rows = [4usize, 1, 6];
        let lengths = Tensor::from(of_rows.map(|n| n as f64));
        let (mut x, h) = (filled::<f64>(&[3, 6, 2], 4), filled::<f64>(&[2 * d, 3, 3], 5));
        for (row, &length) in of_rows.iter().enumerate() {
            x.data_mut()[(row * 6 + length) * 2..(row + 1) * 12].fill(f64::NAN);
        }
        let (dy, dh) = (filled::<f64>(&[3, 6, 3 * d], 6), filled::<f64>(&[2 * d, 3, 3], 7));
        let (ys, dxs, grads) = pass(&packed, &[&x, &lengths, &h], &[Some(&dy), Some(&dh)]);
        let mut sums = vec![0.0; grads.len()];
        for (row, &length) in of_rows.iter().enumerate() {
            let state =
                |t: &Tensor<f64>| Tensor::from_fn([2 * d, 1, 3], |i| t.data()[(i / 3 * 3 + row) * 3 + i % 3]);
            let one = |t: &Tensor<f64>| steps(&t.rows(row, row + 1), 0..length);
            let (x, dy) = (one(&x), one(&dy));
            let (own, own_dxs, own_grads) = pass(&plain, &[&x, &state(&h)], &[Some(&dy), Some(&state(&dh))]);
            close(one(&ys[0]).data(), own[0].data());
            close(state(&ys[1]).data(), own[1].data());
            assert!(ys[0].row(row)[length * 3 * d..].iter().all(|&y| y == 0.0));
            close(one(&dxs[0]).data(), own_dxs[0].data());
            close(state(&dxs[2]).data(), own_dxs[1].data());
            assert!(dxs[0].row(row)[length * 2..].iter().all(|&dx| dx == 0.0));
            sums.iter_mut().zip(own_grads).for_each(|(sum, g)| *sum += g);
        }
        close(&grads, &sums);
    }
}

#[test]
fn the_last_output_is_that_of_the_last_real_step() {
    let build = |last| Rnn::<f64>::new(2, 3).bidirectional(true).lengths(true).last(last).init(4).unwrap();
    let (x, lengths) = (filled(&[2, 5, 2], 1), Tensor::from([3.0, 5.0]));
    let (last, all) =
        (build(true).infer([&x, &lengths]).unwrap(), build(false).infer([&x, &lengths]).unwrap());
    for (row, end) in [(0, 3), (1, 5)] {
        let all = all.row(row);
        assert_eq!(last.row(row)[..3], all[(end - 1) * 6..][..3]);
        assert_eq!(last.row(row)[3..], all[3..6]); // the other direction ends at the first step
    }
}

#[test]
fn wrong_use_is_an_error_that_names_the_place() {
    let text = |result: chainrule_core::Result<Vec<Tensor<f32>>>| result.unwrap_err().to_string();
    let packed = Lstm::<f32>::new(2, 3).lengths(true).init(0).unwrap();
    let x = Tensor::zeros([3, 4, 2]);
    for wrong in [0.0, 5.0, 2.5, -1.0, f32::NAN] {
        let lengths = Tensor::from([4.0, 1.0, wrong]);
        let text = text(packed.infer_all([&x, &lengths]));
        assert!(
            text.starts_with("Lstm: expected a whole number from 1 to 4 as the length of row 2, got"),
            "{text}"
        );
    }
    assert_eq!(
        text(packed.infer_all([&x, &Tensor::zeros([2])])),
        "Lstm: expected inputs (N, T, 2), (N), got [3, 4, 2], [2]"
    );
    let states = Lstm::<f32>::new(2, 3).num_layers(2).proj_size(1).states(true).init(0).unwrap();
    let text_of_states = text(states.infer_all([&x, &Tensor::zeros([2, 4, 1]), &Tensor::zeros([2, 3, 3])]));
    assert_eq!(
        text_of_states,
        "Lstm: expected inputs (N, T, 2), (2, N, 1), (2, N, 3), got [3, 4, 2], [2, 4, 1], [2, 3, 3]"
    );
    let plain = Gru::<f32>::new(2, 3).init(0).unwrap();
    let mut session = Session::new(&plain);
    session.stream(&x).unwrap();
    let text = session.stream(&Tensor::zeros([2, 4, 2])).unwrap_err().to_string();
    assert_eq!(text, "Gru: expected the batch of 3 of the stream so far, got 2");
    session.reset();
    session.stream(&Tensor::zeros([2, 4, 2])).unwrap();
    let both = Gru::<f32>::new(2, 3).bidirectional(true).init(0).unwrap();
    assert!(Session::new(&both).stream(&x).unwrap_err().to_string().contains("bidirectional"));
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    for layer in [
        Lstm::<f32>::new(0, 3),
        Lstm::new(3, 0),
        Lstm::new(1 << 31, 3),
        Lstm::new(usize::MAX, usize::MAX),
        Lstm::new(1 << 30, 1 << 30).bidirectional(true),
        Lstm::new(3, 4).num_layers(0),
        Lstm::new(3, 4).num_layers(usize::MAX),
        Lstm::new(3, 4).proj_size(4),
        Lstm::new(3, 4).dropout(1.5),
        Lstm::new(3, 4).dropout(f64::NAN),
        Lstm::new(3, 4).dropout(-0.1),
    ] {
        assert!(layer.output_shapes(&[[1, 1, 3].into()]).is_err());
        assert!(layer.init(0).is_err());
    }
    assert!(LstmCell::<f32>::new(0, 1).init(0).is_err());
}

/// The cache of another layer is refused, though it was recorded for a batch of the same size.
#[test]
fn the_cache_of_another_layer_is_refused() {
    let (small, large) = (Lstm::<f32>::new(2, 3).init(0).unwrap(), Lstm::<f32>::new(2, 30).init(0).unwrap());
    let x = Tensor::zeros([2, 4, 2]);
    let (mut ys, mut state) = (vec![Tensor::default()], Default::default());
    small.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
    let (ys, dy) = (large.infer_all(&x).unwrap(), Tensor::zeros([2, 4, 30]));
    let (xs, dys) = ([&x], [Some(&dy)]);
    let call = ModuleCall::new(&large, &xs, &ys, &dys).unwrap();
    assert!(large.pull(call, &mut state, &mut Grads::new(&large), &mut [None]).is_err());
}

/// What comes back of a spec is the layer, with its lengths.
#[test]
fn every_setting_stands_in_the_spec() {
    let layer = Lstm::<f32>::new(2, 5).num_layers(3).bias(false).dropout(0.5).bidirectional(true);
    let spec = layer
        .proj_size(2)
        .states(true)
        .final_states(true)
        .lengths(true)
        .last(true)
        .batch_first(false)
        .to_spec();
    let registry = Registry::new().module::<Lstm<f32>>();
    assert_eq!(registry.build_module(&spec).unwrap().to_spec(), spec);
    assert_eq!(spec.attributes().len(), 12);
    assert_eq!(Lstm::<f32>::FACTS.kind, spec.kind());
}

/// Blocks of rows by threads, and a sum over so many rows that it is taken in f64.
#[test]
fn threads_and_long_sums_give_what_few_rows_give() {
    let model = Gru::<f32>::new(3, 4).init(6).unwrap();
    for (n, t) in [(50, 40), (13_200, 5)] {
        let x = Tensor::from_fn([n, t, 3], |i| ((i % (t * 3)) as f32).sin());
        let dy = Tensor::full([n, t, 4], 1.0);
        let run = |threads: usize| {
            par::with_threads(threads, || {
                let (mut ys, mut state) = (vec![Tensor::default()], Default::default());
                model.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
                let (mut grads, mut dx) = (Grads::new(&model), Tensor::default());
                let (xs, dys) = ([&x], [Some(&dy)]);
                let call = ModuleCall::new(&model, &xs, &ys, &dys).unwrap();
                model.pull(call, &mut state, &mut grads, &mut [Some(&mut dx)]).unwrap();
                (ys, dx, grads.values().to_vec())
            })
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
        // All rows are the same: the gradient is n times that of one.
        let (mut ys, mut state) = (vec![Tensor::default()], Default::default());
        let (mut double, x) = (Gru::<f64>::new(3, 4).init(6).unwrap(), x.rows(0, 1).cast::<f64>());
        let mut values = Vec::new();
        model.visit(&mut |_, p| values.push(p.tensor().unwrap().cast::<f64>()));
        let mut values = values.into_iter();
        double.visit_mut(&mut |_, p| p.set(values.next().unwrap()).unwrap());
        double.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
        let (mut grads, dy) = (Grads::new(&double), Tensor::full([1, t, 4], 1.0));
        let (xs, dys) = ([&x], [Some(&dy)]);
        let call = ModuleCall::new(&double, &xs, &ys, &dys).unwrap();
        double.pull(call, &mut state, &mut grads, &mut [None]).unwrap();
        let largest = grads.values().iter().fold(0f64, |m, g| m.max(g.abs()));
        for (got, want) in one.2.iter().zip(grads.values()) {
            assert!((f64::from(*got) / n as f64 - want).abs() < 2e-6 * largest, "{n}: {got} {want}");
        }
    }
}
