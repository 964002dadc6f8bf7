//! Learning rates over sixty steps.

use crate::{Report, Step, Stop, args::Args, case::text, compare, outcome};
use chainrule_core::{Error, Registry, Result, Scalar, Schedule, Spec};
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
    let schedule = build(registry, name, base, &case["args"])?;
    for (step, want) in want.iter().enumerate() {
        let want = want.as_f64().ok_or_else(|| malformed("numbers in `lrs`"))?;
        let got = base * schedule.factor(step as u64);
        if !compare::close(got, want, 1e-9) {
            return Err(Stop::Fail(format!("rate[{step}]: expected {want:e}, got {got:e}")));
        }
    }
    Ok(())
}

/// Rates of PyTorch that are factors of the base rate here.
const RATES: &[&str] = &["eta_min"];

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
