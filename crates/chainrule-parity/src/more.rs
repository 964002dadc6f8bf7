//! Trajectories of optimizers that PyTorch lacks, under the argument names of the packages that computed them.

use crate::{
    Report, Step, Stop,
    case::File,
    compare::{Kind, values},
    each_case,
    optimizers::{Bag, list, steps, tensors},
};
use chainrule_core::{
    Optimizer, OptimizerState, Parameters, Registry, Result, Scalar, Spec, StateValue, Tensor,
};
use chainrule_optim::{ScheduleFreeAdamW, ScheduleFreeSgd};
use serde_json::Value;

/// Runs every trajectory of a file.
pub fn run<T: Scalar>(
    bytes: &[u8],
    registry: &Registry<T>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let file = File::parse(bytes)?;
    each_case(&file, "optimizer", wanted, report, &|name, case| trajectory(registry, &file, name, case))
}

fn trajectory<T: Scalar>(registry: &Registry<T>, file: &File<'_>, name: &str, case: &Value) -> Step<()> {
    let args = &case["args"];
    if let Some(name) = name.strip_prefix("ScheduleFree") {
        return schedule_free::<T>(file, name, case);
    }
    let spec = match name {
        "Lookahead" => plain("Lookahead", args, &["sync_period", "slow_step_size", "reset_state"])?
            .child("fast", inner(args, "fast")?),
        // Its state of the base is never reset here: the base steps at every second call only.
        "SAM" => plain("Sam", args, &["rho"])?.child("base", inner(args, "base")?),
        "Adafactor" => adafactor(args)?,
        _ => flat(name, args)?,
    };
    let mut optimizer = registry.build_optimizer(&spec)?;
    steps(file, case, &mut optimizer, |step, optimizer, bag| series(file, case, "slow", step, optimizer, bag))
}

/// The kinds of the names, and the arguments that have the same name in both.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("Lion", "Lion", &["weight_decay"]),
    ("LAMB", "Lamb", &["weight_decay", "eps", "eps_root"]),
    ("LARS", "Lars", &["weight_decay", "trust_coefficient", "eps", "momentum", "nesterov"]),
    ("AdaBelief", "AdaBelief", &["eps", "eps_root", "nesterov"]),
    ("Adan", "Adan", &["eps", "eps_root", "weight_decay"]),
    ("NovoGrad", "NovoGrad", &["eps", "eps_root", "weight_decay"]),
    ("Yogi", "Yogi", &["eps"]),
    ("AdEMAMix", "AdEMAMix", &["alpha", "eps", "eps_root", "weight_decay"]),
];

fn flat(name: &str, args: &Value) -> Step<Spec> {
    let Some((_, kind, same)) = KINDS.iter().find(|(theirs, ..)| *theirs == name) else {
        return Err(Stop::Skip("optimizer".into()));
    };
    let spec = plain(kind, args, same)?.with("lr", number(args, "learning_rate")?);
    let betas: Vec<f64> = ["b1", "b2", "b3"].iter().filter_map(|beta| args[beta].as_f64()).collect();
    Ok(if betas.is_empty() { spec } else { spec.with("betas", betas) })
}

fn plain(kind: &str, args: &Value, same: &[&str]) -> Step<Spec> {
    same.iter().try_fold(Spec::new(kind), |spec, name| {
        Ok(match &args[name] {
            Value::Bool(on) => spec.with(*name, *on),
            Value::Number(n) if n.is_u64() => spec.with(*name, n.as_u64().unwrap_or(0)),
            _ => spec.with(*name, number(args, name)?),
        })
    })
}

/// optax's Adafactor. A rate that is not given leaves updates as they are.
fn adafactor(args: &Value) -> Step<Spec> {
    let same = ["min_dim_size_to_factor", "decay_rate", "multiply_by_parameter_scale", "eps", "factored"];
    let spec = plain("OptaxAdafactor", args, &same)?
        .with("clipping_threshold", args["clipping_threshold"].as_f64())
        .with("momentum", args["momentum"].as_f64())
        .with("lr", args["learning_rate"].as_f64().unwrap_or(1.0));
    if args["decay_offset"].as_f64().is_some_and(|offset| offset != 0.0) {
        return Err(Stop::Skip("decay_offset".into()));
    }
    Ok(spec.with("weight_decay_rate", args["weight_decay_rate"].as_f64().unwrap_or(0.0)))
}

/// The optimizer inside another one, whose arguments begin with a prefix.
fn inner(args: &Value, prefix: &str) -> Step<Spec> {
    let of = |name: &str| number(args, &format!("{prefix}_{name}"));
    let rate = of("learning_rate")?;
    match args[prefix].as_str() {
        Some("SGD") => Ok(Spec::new("Sgd").with("lr", rate).with("momentum", of("momentum")?)),
        Some("Adam") => Ok(Spec::new("Adam")
            .with("lr", rate)
            .with("betas", [of("b1")?, of("b2")?])
            .with("eps", of("eps")?)),
        other => Err(Stop::Skip(format!("{prefix} = {other:?}"))),
    }
}

fn number(args: &Value, name: &str) -> Step<f64> {
    args[name]
        .as_f64()
        .ok_or_else(|| Stop::Fail(format!("argument {name}: expected a number, got {}", args[name])))
}

/// optax's `SGD` and `AdamW`, and those of the package schedulefree, which end in `.torch`.
fn schedule_free<T: Scalar>(file: &File<'_>, name: &str, case: &Value) -> Step<()> {
    let (args, theirs) = (&case["args"], name.ends_with(".torch"));
    let rate = number(args, if theirs { "lr" } else { "learning_rate" })?;
    let warmup = args["warmup_steps"].as_u64().unwrap_or(0);
    let power = number(args, "weight_lr_power")?;
    let r = if theirs { number(args, "r")? } else { 0.0 };
    let decay = args["weight_decay"].as_f64().unwrap_or(0.0);
    match name.trim_end_matches(".torch") {
        "SGD" => {
            let beta = number(args, if theirs { "momentum" } else { "b1" })?;
            let sgd = ScheduleFreeSgd::<T>::new(rate).momentum(beta).warmup_steps(warmup).r(r);
            let mut sgd = sgd.weight_lr_power(power).from_zero(!theirs).weight_decay(decay);
            steps(file, case, &mut sgd, |step, sgd, bag| {
                series(file, case, "z", step, sgd, bag)?;
                average(file, case, step, bag, |bag| sgd.to_average(bag), |bag| sgd.to_training(bag))
            })
        }
        "AdamW" => {
            let [beta1, beta2] = match theirs {
                true => [0, 1].map(|i| args["betas"][i].as_f64().unwrap_or(f64::NAN)),
                false => [number(args, "b1")?, number(args, "b2")?],
            };
            let adamw = ScheduleFreeAdamW::<T>::new(rate).betas(beta1, beta2).eps(number(args, "eps")?).r(r);
            let adamw = adamw.warmup_steps(warmup).weight_lr_power(power).from_zero(!theirs);
            steps(file, case, &mut adamw.weight_decay(decay), |step, adamw, bag| {
                series(file, case, "z", step, adamw, bag)?;
                average(file, case, step, bag, |bag| adamw.to_average(bag), |bag| adamw.to_training(bag))
            })
        }
        _ => Err(Stop::Skip("optimizer".into())),
    }
}

/// Compares a series of the case with the state of that name; one that the case does not have is fine.
fn series<T: Scalar>(
    file: &File<'_>,
    case: &Value,
    name: &str,
    step: usize,
    optimizer: &impl Optimizer<T>,
    bag: &Bag<T>,
) -> Step<()> {
    let Some(want) = case.get(name) else { return Ok(()) };
    let state = OptimizerState::of(optimizer, bag)?;
    let mut paths = Vec::new();
    bag.visit(&mut |path, _| paths.push(path.to_string()));
    for (path, want) in paths.iter().zip(tensors(file, &list(want)?[step])?) {
        match state.get(path, name) {
            Some(StateValue::Values(got)) => {
                values(&format!("{name} of {path} after step {step}"), Kind::Value, got.data(), &want)?;
            }
            other => return Err(Stop::Fail(format!("{name} of {path} is {other:?}"))),
        }
    }
    Ok(())
}

/// Compares `eval`, and goes back to the very weights that are trained.
fn average<T: Scalar>(
    file: &File<'_>,
    case: &Value,
    step: usize,
    bag: &mut Bag<T>,
    to_average: impl Fn(&mut Bag<T>) -> Result<()>,
    to_training: impl Fn(&mut Bag<T>) -> Result<()>,
) -> Step<()> {
    let trained: Vec<Tensor<T>> = bag.0.iter().filter_map(|p| p.tensor().cloned()).collect();
    to_average(bag)?;
    let want = tensors(file, &list(&case["eval"])?[step])?;
    for (i, (p, want)) in bag.0.iter().zip(&want).enumerate() {
        values(&format!("average {i} after step {step}"), Kind::Value, p.value()?, want)?;
    }
    to_training(bag)?;
    let want = tensors(file, &list(&case["after"])?[step])?;
    for (i, (p, want)) in bag.0.iter().zip(&want).enumerate() {
        values(
            &format!("parameter {i} back from the average of step {step}"),
            Kind::Value,
            p.value()?,
            want,
        )?;
    }
    bag.0.iter_mut().zip(trained).try_for_each(|(p, trained)| p.set(trained))?;
    Ok(())
}
