//! Learning rates over sixty steps.

use crate::{Report, Step, Stop, args::Args, case::text, compare, outcome};
use chainrule_core::{Error, Result};
use chainrule_optim::{self as ours, Schedule};
use serde_json::Value;

/// Runs every schedule of a file. Rates are f64 whatever the parameters are.
pub fn run(bytes: &[u8], wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let cases: Vec<Value> =
        serde_json::from_slice(bytes).map_err(|e| Error::format(format!("not a list of schedules: {e}")))?;
    for case in &cases {
        let (name, id) = (text(case, "schedule")?, text(case, "id")?);
        if wanted(name) {
            report.add(name, id, outcome(|| rates(name, case)));
        }
    }
    Ok(())
}

fn rates(name: &str, case: &Value) -> Step<()> {
    let malformed = |what: &str| Stop::Fail(format!("the case has no {what}"));
    let base = case["base_lr"].as_f64().ok_or_else(|| malformed("number `base_lr`"))?;
    let want = case["lrs"].as_array().filter(|l| !l.is_empty()).ok_or_else(|| malformed("list `lrs`"))?;
    let schedule = build(name, base, &case["args"])?;
    for (step, want) in want.iter().enumerate() {
        let want = want.as_f64().ok_or_else(|| malformed("numbers in `lrs`"))?;
        let got = base * schedule.factor(step as u64);
        if !compare::close(got, want, 1e-9) {
            return Err(Stop::Fail(format!("rate[{step}]: expected {want:e}, got {got:e}")));
        }
    }
    Ok(())
}

fn build(name: &str, base: f64, args: &Value) -> Step<Box<dyn Schedule>> {
    let a = Args::plain(args);
    let schedule: Box<dyn Schedule> = match name {
        "ConstantLR" => {
            Box::new(ours::Constant::new().at_first(a.f64("factor")?, a.usize("total_iters")? as u64))
        }
        "StepLR" => Box::new(ours::Step::new(a.usize("step_size")? as u64).gamma(a.f64("gamma")?)),
        "LinearLR" => Box::new(warmup(&a)?),
        "CosineAnnealingLR" => Box::new(cosine(base, &a)?),
        // SequentialLR of the two.
        "WarmupCosine" => {
            let (first, second) = (Args::plain(a.value("warmup")?), Args::plain(a.value("cosine")?));
            let [milestone] = a.list("milestones")?[..] else {
                return Err(Stop::Fail("argument milestones: expected one".into()));
            };
            let sequence = warmup(&first)?.then(milestone as u64, cosine(base, &second)?);
            first.finish()?;
            second.finish()?;
            Box::new(sequence)
        }
        _ => return Err(Stop::Skip("schedule".into())),
    };
    a.finish()?;
    Ok(schedule)
}

fn warmup(a: &Args) -> Step<ours::LinearWarmup> {
    let steps = a.usize("total_iters")? as u64;
    Ok(ours::LinearWarmup::new(steps).from(a.f64("start_factor")?).to(a.f64("end_factor")?))
}

fn cosine(base: f64, a: &Args) -> Step<ours::Cosine> {
    Ok(ours::Cosine::new(a.usize("T_max")? as u64).minimum(a.f64("eta_min")? / base))
}
