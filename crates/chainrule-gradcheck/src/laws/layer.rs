//! The laws of layers and of all other modules.

use super::{Broken, Case, Law, Outcome, Violation, calls, hold, passes, shapes, stream};
use crate::{
    check::Check,
    evaluate::{self, Pass, forward, pass, present, weights},
    report::{Report, coordinate},
};
use chainrule_core::{Context, Module, Result, Rng, Tensor};

/// How far f32 may be from f64, as a share of the largest value of a tensor (of 1, if all are smaller); of a gradient, of
/// the largest value of all gradients of the pass: one that is a sum of terms that cancel is as exact as those.
const SINGLE: f64 = 1e-4;

/// A module that is initialised, its inputs and a ∂E/∂y for each output.
pub(super) struct Subject<'c, M> {
    pub(super) case: &'c Case,
    pub(super) module: M,
    pub(super) xs: Vec<Tensor<f64>>,
    pub(super) dys: Vec<Tensor<f64>>,
}

/// Training, with some noise, and the inference function.
pub(super) fn contexts(case: &Case) -> [(&'static str, Context); 2] {
    [("in training", Context::train(case.seed).step(3)), ("frozen", Context::frozen())]
}

/// A test in training and frozen.
pub(super) fn both(case: &Case, test: impl Fn(Context) -> Outcome) -> Outcome {
    contexts(case)
        .into_iter()
        .try_for_each(|(mode, cx)| test(cx).map_err(|Broken(what)| Broken(format!("{mode}: {what}"))))
}

/// Initialises a module, and then moves every value, so that no factor is 1 and no summand 0.
pub(super) fn filled<M: Module<T = f64>>(mut module: M, seed: u64) -> Result<M> {
    module.validate()?;
    module.visit_mut(&mut |path, p| {
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
    Ok(module)
}

impl<'c, M: Module<T = f64>> Subject<'c, M> {
    fn new(case: &'c Case, module: M) -> Result<Self> {
        let module = filled(module, case.seed)?;
        let xs: Vec<Tensor<f64>> = case.tensors(&case.inputs, "x")?;
        let (ys, _) = forward(&module, &xs, Context::train(case.seed))?;
        let mut rng = case.rng("dy");
        let dys = ys.iter().map(|y| passes::single(&weights(*y.shape(), &mut rng))).collect();
        Ok(Self { case, module, xs, dys })
    }

    pub(super) fn pass(&self, cx: Context) -> Result<Pass<f64>> {
        pass(&self.module, &self.xs, &present(&self.dys), cx)
    }
}

/// Tests the laws for a layer or another module and its twin in f32, both as their constructors leave them, and returns
/// what was broken. This is what [`crate::laws!`] runs for each case, with boxed modules: the laws are then compiled once a
/// crate, not once a layer, and not at all where they are not used.
pub fn layer_laws<M, S>(case: &Case, build: &dyn Fn() -> M, single: &dyn Fn() -> S) -> Vec<Violation>
where
    M: Module<T = f64> + Clone,
    S: Module<T = f32>,
{
    let mut module = build();
    if let Err(error) = module.same_lists() {
        return vec![Violation { law: Law::SavedAndLoaded, what: error.to_string() }];
    }
    let subject = match Subject::new(case, module) {
        Ok(subject) => subject,
        Err(error) => {
            let what = format!("the layer refuses the case {:?}: {error}", case.inputs);
            return vec![Violation { law: Law::Shapes, what }];
        }
    };
    let (s, mut out) = (&subject, Vec::new());
    let mut reports = Vec::new();
    hold(Law::Shapes, &mut out, || shapes::shapes(s));
    hold(Law::InputGradient, &mut out, || {
        for (mode, cx) in contexts(case) {
            reports.push((mode, differences(s, cx)?));
        }
        reports.iter().try_for_each(|(mode, [inputs, _])| agrees(mode, inputs))
    });
    hold(Law::ParameterGradients, &mut out, || {
        reports.iter().try_for_each(|(mode, [_, parameters])| agrees(mode, parameters))
    });
    hold(Law::Inference, &mut out, || passes::inference(s));
    hold(Law::SameBits, &mut out, || both(case, |cx| passes::same_bits(s, cx)));
    hold(Law::UnreadOutputs, &mut out, || both(case, |cx| passes::unread_outputs(s, cx)));
    hold(Law::TwoBackwards, &mut out, || both(case, |cx| passes::two_backwards(s, cx)));
    hold(Law::WithoutInputGradient, &mut out, || both(case, |cx| passes::without_dx(s, cx)));
    hold(Law::Linearity, &mut out, || both(case, |cx| passes::linear(s, cx)));
    hold(Law::ReusedCache, &mut out, || both(case, |cx| passes::reused_cache(s, cx)));
    hold(Law::ForeignCache, &mut out, || both(case, |cx| calls::foreign_cache(s, &build, cx)));
    hold(Law::WrongCalls, &mut out, || both(case, |cx| calls::wrong_calls(s, cx)));
    hold(Law::AbsentGradients, &mut out, || both(case, |cx| calls::absent_gradients(s, cx)));
    hold(Law::InPlace, &mut out, || {
        both(case, |cx| passes::in_place(&s.module, &s.xs, &s.dys, cx))?;
        passes::in_place(&single(), &s.xs, &s.dys, Context::frozen())
    });
    hold(Law::Streaming, &mut out, || stream::streaming(s));
    hold(Law::Cost, &mut out, || shapes::cost(s));
    hold(Law::Freezing, &mut out, || both(case, |cx| freezing(s, cx)));
    hold(Law::SavedAndLoaded, &mut out, || saved_and_loaded(s, &build));
    hold(Law::SinglePrecision, &mut out, || both(case, |cx| single_precision(s, single(), cx)));
    if case.rng("threads").below(4) == 0 {
        hold(Law::Threads, &mut out, || both(case, |cx| threads(s, cx)));
    }
    out
}

/// Tests the laws about calls that do not fit alone, [`Law::WrongCalls`] and [`Law::ForeignCache`], and returns what was
/// broken: for a table of all layers, where the others would take too long.
pub fn call_laws<M: Module<T = f64> + Clone>(case: &Case, build: &dyn Fn() -> M) -> Vec<Violation> {
    let subject = match Subject::new(case, build()) {
        Ok(subject) => subject,
        Err(error) => {
            let what = format!("the layer refuses the case {:?}: {error}", case.inputs);
            return vec![Violation { law: Law::Shapes, what }];
        }
    };
    let mut out = Vec::new();
    hold(Law::ForeignCache, &mut out, || both(case, |cx| calls::foreign_cache(&subject, &build, cx)));
    hold(Law::WrongCalls, &mut out, || both(case, |cx| calls::wrong_calls(&subject, cx)));
    out
}

fn differences<M: Module<T = f64> + Clone>(subject: &Subject<'_, M>, cx: Context) -> Result<[Report; 2]> {
    let check = Check::new().seed(subject.case.seed).context(cx);
    check.inputs_and_parameters(subject.module.clone(), subject.xs.clone())
}

/// Nothing to compare is no failure here: a layer may have no parameters.
fn agrees(mode: &str, report: &Report) -> Outcome {
    if report.checked() + report.skipped() == 0 || report.passed() {
        return Ok(());
    }
    Err(Broken(format!("{mode}: {report}")))
}

fn freezing<M: Module<T = f64> + Clone>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let want = subject.pass(cx)?;
    let mut names = Vec::new();
    subject.module.visit(&mut |path, p| {
        if !p.is_buffer() {
            names.push(path.to_string());
        }
    });
    for frozen in names {
        let mut module = subject.module.clone();
        module.set_frozen(true, &|name| name == frozen);
        let got = pass(&module, &subject.xs, &present(&subject.dys), cx)?;
        passes::all_equal(&format!("y with `{frozen}` frozen"), &got.ys, &want.ys)?;
        passes::all_equal(&format!("dx with `{frozen}` frozen"), &got.dxs, &want.dxs)?;
        let expected = passes::named(&subject.module, &want.grads);
        for ((name, got), (_, want)) in passes::named(&module, &got.grads).into_iter().zip(expected) {
            let zeros = Tensor::zeros(*got.shape());
            let want = if name == frozen { &zeros } else { &want };
            passes::equal(&format!("gradient of `{name}` with `{frozen}` frozen"), &got, want)?;
        }
    }
    Ok(())
}

fn saved_and_loaded<M: Module<T = f64> + Clone>(subject: &Subject<'_, M>, build: &impl Fn() -> M) -> Outcome {
    let mut module = subject.module.clone();
    let mut names = Vec::new();
    module.visit(&mut |path, _| names.push(path.to_string()));
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Broken(format!("two parameters are named `{name}`")));
        }
    }
    // Statistics that training gathers are saved too.
    let (_, state) = forward(&module, &subject.xs, Context::train(subject.case.seed))?;
    module.fold(&state);
    let mut fresh = build();
    passes::copy(&module, &mut fresh)?;
    for (mode, cx) in contexts(subject.case) {
        let [got, want] = [&fresh, &module].map(|m| pass(m, &subject.xs, &present(&subject.dys), cx));
        passes::equal_passes(&format!(" after loading, {mode}"), &got?, &want?)?;
    }
    Ok(())
}

fn single_precision<M, S>(subject: &Subject<'_, M>, mut single: S, cx: Context) -> Outcome
where
    M: Module<T = f64>,
    S: Module<T = f32>,
{
    single.validate()?;
    passes::copy(&subject.module, &mut single)?;
    let [xs, dys] = [&subject.xs, &subject.dys].map(|t| t.iter().map(Tensor::cast).collect::<Vec<_>>());
    let got = pass(&single, &xs, &present(&dys), cx)?;
    let want = subject.pass(cx)?;
    for (j, (got, want)) in got.ys.iter().zip(&want.ys).enumerate() {
        close(&format!("y{j}"), &got.cast(), want, 1.0)?;
    }
    let gradients = Tensor::from_fn([want.grads.values().len()], |i| want.grads.values()[i]);
    let largest = want.dxs.iter().map(passes::size).fold(passes::size(&gradients), f64::max);
    for (i, (got, want)) in got.dxs.iter().zip(&want.dxs).enumerate() {
        close(&format!("dx{i}"), &got.cast(), want, largest)?;
    }
    let expected = passes::named(&subject.module, &want.grads);
    for ((name, got), (_, want)) in passes::named(&single, &got.grads).into_iter().zip(expected) {
        close(&format!("gradient of {name}"), &got.cast(), &want, largest)?;
    }
    Ok(())
}

pub(super) fn close(what: &str, got: &Tensor<f64>, want: &Tensor<f64>, at_least: f64) -> Outcome {
    passes::near(what, got, want, SINGLE * passes::size(want).max(at_least), |shape, at, got, want| {
        format!("{}: {got} in f32, {want} in f64", coordinate(what, shape, at))
    })
}

fn threads<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { case, module, .. } = subject;
    let xs: Vec<Tensor<f64>> = case.tensors(&case.large_shapes(), "large")?;
    let mut rng = case.rng("large dy");
    let shapes = module.output_shapes(&evaluate::shapes(&xs))?;
    let dys: Vec<_> = shapes.into_iter().map(|shape| weights(shape, &mut rng)).collect();
    let with = |n| chainrule_tensor::par::with_threads(n, || pass(module, &xs, &present(&dys), cx));
    let want = with(1)?;
    for n in [2, 3] {
        passes::equal_passes(&format!(" with {n} threads"), &with(n)?, &want)?;
    }
    Ok(())
}
