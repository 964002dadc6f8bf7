//! PyTorch's losses as ours, from their arguments alone.

use crate::{Step, Stop, args::Args, case::Array};
use chainrule_core::{Loss, Reduction, Scalar, Tensor};
use chainrule_losses as ours;

/// PyTorch's way to say that no class is to be ignored, unless the target has it.
const NO_CLASS: isize = -100;

/// The loss of a module; `None` if the library does not have it.
pub fn build<T: Scalar>(module: &str, a: &Args, target: Option<&Array>) -> Step<Option<Box<dyn Loss<T>>>> {
    Ok(Some(match module {
        "MSELoss" => Box::new(ours::Mse::new().reduction(reduction(a)?)),
        "L1Loss" => Box::new(ours::Mae::new().reduction(reduction(a)?)),
        "HuberLoss" => Box::new(ours::Huber::new().delta(a.f64("delta")?).reduction(reduction(a)?)),
        "CrossEntropyLoss" => {
            let mut loss =
                ours::CrossEntropy::new().reduction(reduction(a)?).label_smoothing(a.f64("label_smoothing")?);
            let ignored = a.isize("ignore_index")?;
            let seen = || target.is_some_and(|t| t.values.data().contains(&(ignored as f64)));
            if ignored != NO_CLASS || seen() {
                loss = loss.ignore_index(ignored as usize); // as `Array::classes` reads a negative class
            }
            if let Some(weights) = tensor::<T>(a, "weight")? {
                loss = loss.weights(weights.into_vec());
            }
            Box::new(loss)
        }
        "BCEWithLogitsLoss" => {
            let mut loss = ours::BceWithLogits::new().reduction(reduction(a)?);
            if let Some(weight) = tensor(a, "weight")? {
                loss = loss.weight(weight);
            }
            if let Some(weight) = tensor(a, "pos_weight")? {
                loss = loss.pos_weight(weight);
            }
            Box::new(loss)
        }
        _ => return Ok(None),
    }))
}

fn tensor<T: Scalar>(a: &Args, name: &str) -> Step<Option<Tensor<T>>> {
    Ok(a.tensor(name)?.map(Array::cast))
}

fn reduction(a: &Args) -> Step<Reduction> {
    match a.str("reduction")? {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => Err(Stop::Skip(format!("argument reduction = {other}"))),
    }
}
