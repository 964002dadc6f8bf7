//! Learning rates over sixty steps.

use crate::{Report, Step, Stop, args::Args, case::text, compare, outcome};
use chainrule_core::{Error, Registry, Result, Scalar, Schedule, Spec};
use chainrule_optim::schedule::{Goal, Plateau, Threshold};
use serde_json::{Value, json};

/// Runs every schedule of a file. Rates are f64 whatever the parameters are.
pub fn run<T: Scalar>(
    bytes: &[u8],
    registry: &Registry<T>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let cases: Vec<Value> =
        serde_json::from_slice(bytes).map_err(|e| Error::format(format!("not a list of schedules: {e}")))?;
    for case in &cases {
        let (name, id) = (text(case, "schedule")?, text(case, "id")?);
        if wanted(name) {
            report.add(name, id, outcome(|| rates(registry, name, case)));
        }
    }
    Ok(())
}

fn rates<T: Scalar>(registry: &Registry<T>, name: &str, case: &Value) -> Step<()> {
    let malformed = |what: &str| Stop::Fail(format!("the case has no {what}"));
    let base = case["base_lr"].as_f64().ok_or_else(|| malformed("number `base_lr`"))?;
    let want = case["lrs"].as_array().filter(|l| !l.is_empty()).ok_or_else(|| malformed("list `lrs`"))?;
    let mut factor: Box<dyn FnMut(usize) -> Step<f64>> = if name == "ReduceLROnPlateau" {
        let (mut plateau, metrics) = (plateau(base, &case["args"])?, case["metrics"].clone());
        Box::new(move |step| match step.checked_sub(1).map(|before| &metrics[before]) {
            None => Ok(plateau.factor()),
            Some(metric) => {
                let metric =
                    metric.as_f64().ok_or_else(|| Stop::Fail("the case has too few metrics".into()))?;
                Ok(plateau.observe(metric))
            }
        })
    } else {
        let schedule = build(registry, name, base, &case["args"])?;
        Box::new(move |step| Ok(schedule.factor(step as u64)))
    };
    for (step, want) in want.iter().enumerate() {
        let want = want.as_f64().ok_or_else(|| malformed("numbers in `lrs`"))?;
        let got = base * factor(step)?;
        if !compare::close(got, want, 1e-9) {
            return Err(Stop::Fail(format!("rate[{step}]: expected {want:e}, got {got:e}")));
        }
    }
    Ok(())
}

/// The schedule that is no function of the step, and so not in the registry.
fn plateau(base: f64, args: &Value) -> Step<Plateau> {
    let number = |name: &str, default: f64| match &args[name] {
        Value::Null => Ok(default),
        value => value
            .as_f64()
            .ok_or_else(|| Stop::Fail(format!("argument {name}: expected a number, got {value}"))),
    };
    let count = |name: &str, default: u64| args[name].as_u64().unwrap_or(default);
    let goal = if args["mode"] == "max" { Goal::Larger } else { Goal::Smaller };
    let threshold = number("threshold", 1e-4)?;
    let threshold = match args["threshold_mode"] == "abs" {
        true => Threshold::Absolute(threshold),
        false => Threshold::Relative(threshold),
    };
    let (least, eps) = (number("min_lr", 0.0)? / base, number("eps", 1e-8)? / base);
    let plateau = Plateau::new().goal(goal).patience(count("patience", 10)).cooldown(count("cooldown", 0));
    Ok(plateau.by(number("factor", 0.1)?)?.threshold(threshold)?.minimum(least, eps)?)
}

/// Rates of PyTorch that are factors of the base rate here.
const RATES: &[&str] = &["eta_min", "max_lr", "base_lr"];

fn build<T: Scalar>(registry: &Registry<T>, name: &str, base: f64, args: &Value) -> Step<Box<dyn Schedule>> {
    let part = |name: &str, args: &Value| -> Step<Spec> {
        let mut args = args.clone();
        for rate in RATES {
            if let Some(value) = args.get_mut(rate) {
                *value = value.as_f64().map(|rate| rate / base).into();
            }
        }
        let spec = Args::plain(&args).spec(registry.schedules(), name)?;
        spec.ok_or_else(|| Stop::Skip("schedule".into()))
    };
    // SequentialLR of two, whose arguments stand side by side.
    let spec = match (args.get("warmup"), args.get("cosine"), args.get("milestones")) {
        (Some(warmup), Some(cosine), Some(milestones)) => {
            part("SequentialLR", &json!({"milestones": milestones}))?
                .child("0", part("LinearLR", warmup)?)
                .child("1", part("CosineAnnealingLR", cosine)?)
        }
        _ => part(name, args)?,
    };
    Ok(registry.build_schedule(&spec)?)
}
