//! The laws of layers, in order.

use super::{Broken, Case, Law, Outcome, Values, Violation, hold, passes, shapes};
use crate::{
    check::Check,
    report::{Report, coordinate},
    subject::{Pass, Subject, weights},
};
use chainrule_core::{Context, MultiLayer, Parameters, Result, Rng, Tensor};

/// How far f32 may be from f64, as a share of the largest number of a tensor (of 1, if all are smaller); of a gradient, of the
/// largest number of all gradients of the pass: one that is the sum of numbers that cancel is as exact as those.
const SINGLE: f64 = 1e-4;

/// One layer with numbers in all its parameters, its inputs and a ∂E/∂y.
pub(super) struct Bench<'c, L> {
    pub(super) case: &'c Case,
    pub(super) subject: Subject<L>,
    pub(super) xs: Vec<Tensor<f64>>,
    pub(super) dy: Tensor<f64>,
}

/// Training, with some noise, and the inference function.
pub(super) fn contexts(case: &Case) -> [(&'static str, Context); 2] {
    [("in training", Context::train(case.seed).step(3)), ("frozen", Context::frozen())]
}

/// A layer with numbers: as its initialisers have it, and then moved, so that no factor is 1 and no summand 0.
fn filled<L: MultiLayer<f64>>(layer: L, seed: u64) -> Result<Subject<L>> {
    let mut subject = Subject(layer);
    subject.0.check()?;
    subject.visit_mut(&mut |path, p| {
        let mut rng = Rng::keyed(seed, path);
        p.fill(&mut rng);
        let (counter, buffer) = (p.is_counter(), p.is_buffer());
        // It has just been filled.
        for v in p.value_mut().into_iter().flatten().filter(|_| !counter) {
            // Buffers may be variances, which stay positive.
            let by = if buffer { rng.uniform() } else { 0.5 * rng.normal() };
            *v = f64::from((*v + by) as f32);
        }
    });
    Ok(subject)
}

impl<'c, L: MultiLayer<f64>> Bench<'c, L> {
    fn new(case: &'c Case, layer: L) -> Result<Self> {
        let subject = filled(layer, case.seed)?;
        let xs: Vec<Tensor<f64>> = case.tensors(&case.inputs, "x")?;
        let (y, _) = subject.forward(&xs, Context::train(case.seed))?;
        let dy = passes::single(&weights(*y.shape(), &mut case.rng("dy")));
        Ok(Self { case, subject, xs, dy })
    }

    pub(super) fn pass(&self, cx: Context) -> Result<Pass<f64>> {
        self.subject.pass(&self.xs, &self.dy, cx)
    }
}

/// Tests the laws for a layer and its twin in f32, both as their constructors leave them, and returns what was broken.
///
/// This is what [`crate::laws!`] runs for each case. A layer of one input is wrapped in [`super::One`].
pub fn layer_laws<L, S>(case: &Case, build: impl Fn() -> L, single: impl Fn() -> S) -> Vec<Violation>
where
    L: MultiLayer<f64> + Clone,
    S: MultiLayer<f32>,
{
    let mut out = Vec::new();
    let bench = match Bench::new(case, build()) {
        Ok(bench) => bench,
        Err(error) => {
            let what = format!("the layer refuses the case {:?}: {error}", case.inputs);
            return vec![Violation { law: Law::Shapes, what }];
        }
    };
    let both = |test: &dyn Fn(Context) -> Outcome| {
        contexts(case)
            .into_iter()
            .try_for_each(|(mode, cx)| test(cx).map_err(|Broken(what)| Broken(format!("{mode}: {what}"))))
    };
    hold(Law::Shapes, &mut out, || shapes::shapes(&bench));
    hold(Law::InputGradient, &mut out, || both(&|cx| agrees(&differences(&bench, cx)?.0)));
    hold(Law::ParameterGradients, &mut out, || both(&|cx| agrees(&differences(&bench, cx)?.1)));
    hold(Law::Inference, &mut out, || passes::inference(&bench));
    hold(Law::SameBits, &mut out, || both(&|cx| passes::same_bits(&bench, cx)));
    hold(Law::TwoBackwards, &mut out, || both(&|cx| passes::two_backwards(&bench, cx)));
    hold(Law::WithoutInputGradient, &mut out, || both(&|cx| passes::without_dx(&bench, cx)));
    hold(Law::Linearity, &mut out, || both(&|cx| passes::linear(&bench, cx)));
    hold(Law::ReusedCache, &mut out, || both(&|cx| passes::reused_cache(&bench, cx)));
    hold(Law::Freezing, &mut out, || both(&|cx| freezing(&bench, cx)));
    hold(Law::SavedAndLoaded, &mut out, || saved_and_loaded(&bench, &build));
    hold(Law::SinglePrecision, &mut out, || both(&|cx| single_precision(&bench, single(), cx)));
    if case.rng("threads").below(4) == 0 {
        hold(Law::Threads, &mut out, || both(&|cx| threads(&bench, cx)));
    }
    out
}

fn differences<L: MultiLayer<f64> + Clone>(bench: &Bench<'_, L>, cx: Context) -> Result<(Report, Report)> {
    let mut subject = Subject(bench.subject.0.clone());
    passes::copy(&bench.subject, &mut subject).map_err(chainrule_core::Error::value)?;
    let check = Check::new().seed(bench.case.seed).context(cx);
    let indices = matches!(bench.case.values, Values::Indices(_));
    if indices { check.indices() } else { check }.split(subject, bench.xs.clone())
}

/// Nothing to compare is no failure here: a layer may have no parameters.
fn agrees(report: &Report) -> Outcome {
    if report.checked() + report.skipped() == 0 || report.passed() {
        return Ok(());
    }
    Err(Broken(report.to_string()))
}

/// Law 10.
fn freezing<L: MultiLayer<f64> + Clone>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let want = bench.pass(cx)?;
    let mut names = Vec::new();
    bench.subject.visit(&mut |path, p| {
        if !p.is_buffer() {
            names.push(path.to_string());
        }
    });
    for frozen in names {
        let mut subject = Subject(bench.subject.0.clone());
        subject.set_frozen(true, &|name| name == frozen);
        let got = subject.pass(&bench.xs, &bench.dy, cx)?;
        passes::equal(&format!("y with `{frozen}` frozen"), &got.y, &want.y)?;
        passes::all_equal(&format!("dx with `{frozen}` frozen"), &got.dxs, &want.dxs)?;
        let wanted = passes::named(&bench.subject, &want.grads);
        for ((name, got), (_, want)) in passes::named(&subject, &got.grads).into_iter().zip(wanted) {
            let zeros = Tensor::zeros(*got.shape());
            let want = if name == frozen { &zeros } else { &want };
            passes::equal(&format!("gradient of `{name}` with `{frozen}` frozen"), &got, want)?;
        }
    }
    Ok(())
}

/// Law 11.
fn saved_and_loaded<L: MultiLayer<f64> + Clone>(bench: &Bench<'_, L>, build: &impl Fn() -> L) -> Outcome {
    let mut subject = Subject(bench.subject.0.clone());
    let (mut names, mut again) = (Vec::new(), Vec::new());
    subject.visit(&mut |path, p| names.push((path.to_string(), p.id())));
    subject.visit_mut(&mut |path, p| again.push((path.to_string(), p.id())));
    if names != again {
        return Err(Broken(format!("params shows {names:?}, params_mut {again:?}")));
    }
    for (i, (name, _)) in names.iter().enumerate() {
        if names[..i].iter().any(|(other, _)| other == name) {
            return Err(Broken(format!("two parameters are named `{name}`")));
        }
    }
    // Statistics that training gathers are saved too.
    let (_, cache) = subject.forward(&bench.xs, Context::train(bench.case.seed))?;
    subject.0.absorb(&cache);
    let mut fresh = Subject(build());
    passes::copy(&subject, &mut fresh)?;
    for (mode, cx) in contexts(bench.case) {
        let [got, want] = [&fresh, &subject].map(|s| s.pass(&bench.xs, &bench.dy, cx));
        let what = |what: &str| format!("{what} after loading, {mode}");
        let (got, want) = (got?, want?);
        passes::equal(&what("y"), &got.y, &want.y)?;
        passes::all_equal(&what("dx"), &got.dxs, &want.dxs)?;
        passes::equal_grads(&what("gradients"), &got.grads, &want.grads)?;
    }
    Ok(())
}

/// Law 12.
fn single_precision<L, S>(bench: &Bench<'_, L>, single: S, cx: Context) -> Outcome
where
    L: MultiLayer<f64>,
    S: MultiLayer<f32>,
{
    let mut subject = Subject(single);
    subject.0.check()?;
    passes::copy(&bench.subject, &mut subject)?;
    let xs: Vec<Tensor<f32>> = bench.xs.iter().map(Tensor::cast).collect();
    let got = subject.pass(&xs, &bench.dy.cast(), cx)?;
    let want = bench.pass(cx)?;
    close("y", &got.y.cast(), &want.y, 1.0)?;
    let gradients = Tensor::from_fn([want.grads.values().len()], |i| want.grads.values()[i]);
    let largest = want.dxs.iter().map(passes::size).fold(passes::size(&gradients), f64::max);
    for (i, (got, want)) in got.dxs.iter().zip(&want.dxs).enumerate() {
        close(&format!("dx{i}"), &got.cast(), want, largest)?;
    }
    let wanted = passes::named(&bench.subject, &want.grads);
    for ((name, got), (_, want)) in passes::named(&subject, &got.grads).into_iter().zip(wanted) {
        close(&format!("gradient of {name}"), &got.cast(), &want, largest)?;
    }
    Ok(())
}

pub(super) fn close(what: &str, got: &Tensor<f64>, want: &Tensor<f64>, at_least: f64) -> Outcome {
    passes::near(what, got, want, SINGLE * passes::size(want).max(at_least), |shape, at, got, want| {
        format!("{}: {got} in f32, {want} in f64", coordinate(what, shape, at))
    })
}

/// Law 13.
fn threads<L: MultiLayer<f64>>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let xs: Vec<Tensor<f64>> = bench.case.tensors(&bench.case.large_shapes(), "large")?;
    let dy = weights(bench.subject.shape(&xs)?, &mut bench.case.rng("large dy"));
    let with = |n| chainrule_tensor::par::with_threads(n, || bench.subject.pass(&xs, &dy, cx));
    let want = with(1)?;
    for n in [2, 3] {
        let got = with(n)?;
        let what = |what: &str| format!("{what} with {n} threads");
        passes::equal(&what("y"), &got.y, &want.y)?;
        passes::all_equal(&what("dx"), &got.dxs, &want.dxs)?;
        passes::equal_grads(&what("gradients"), &got.grads, &want.grads)?;
    }
    Ok(())
}
