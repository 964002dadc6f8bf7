//! What every data set is checked for, once, when it is made.

use crate::Features;
use chainrule_core::Targets;
use chainrule_tensor::{Error, Result, Scalar, Tensor, position};

/// The number of samples, if all inputs and targets have as many.
pub(crate) fn check_samples<T: Scalar>(inputs: &[Features<T>], targets: &[Targets<T>]) -> Result<usize> {
    let Some(first) = inputs.first() else {
        return Err(Error::value("dataset: expected at least one input, got none"));
    };
    let mut samples = None;
    for (i, x) in inputs.iter().enumerate() {
        let Some(&n) = x.shape().first() else {
            return Err(Error::shape(format!("{}: expected (samples, ..), got a scalar", name(i))));
        };
        let all = *samples.get_or_insert(n);
        if n != all {
            return Err(Error::shape(format!("dataset: expected {all} samples of input {i}, got {n}")));
        }
    }
    let n = samples.unwrap_or(0);
    if let Some(other) = targets.iter().map(Targets::len).find(|&other| other != n) {
        return Err(Error::shape(format!("dataset: expected a target for each of {n} samples, got {other}")));
    }
    if inputs.iter().any(|x| x.shape().contains(&0)) {
        return Err(Error::value(format!(
            "dataset: expected at least one sample and one feature, got features {}",
            first.shape()
        )));
    }
    for (i, x) in inputs.iter().enumerate() {
        match x {
            Features::Values(x) => check_finite(&name(i), x)?,
            Features::Bytes(x) => x.check_finite(&name(i))?,
        }
    }
    targets.iter().try_for_each(check_target)?;
    Ok(n)
}

fn name(input: usize) -> String {
    if input == 0 { "features".into() } else { format!("features of input {input}") }
}

fn check_target<T: Scalar>(target: &Targets<T>) -> Result<()> {
    match target {
        Targets::Values(values) => check_finite("values", values),
        Targets::Classes { indices, shape } if indices.len() != shape.volume() => Err(Error::shape(format!(
            "labels: expected {} of shape {shape}, got {}",
            shape.volume(),
            indices.len()
        ))),
        Targets::Classes { .. } => Ok(()),
        Targets::Sequences { indices, lengths } => chainrule_core::Sequences::new(indices, lengths).map(drop),
    }
}

/// `per_sample`: how many labels a sample has; `ignored`: the label that stands for no class, if it may occur.
pub(crate) fn check_labels(
    labels: &[usize],
    classes: usize,
    per_sample: usize,
    ignored: Option<usize>,
) -> Result<()> {
    match labels.iter().enumerate().find(|&(_, &c)| c >= classes && Some(c) != ignored) {
        Some((i, c)) => Err(Error::index(format!(
            "labels: expected classes below {classes}, got {c} at sample {}",
            i / per_sample.max(1)
        ))),
        None => Ok(()),
    }
}

pub(crate) fn check_finite<T: Scalar>(what: &str, t: &Tensor<T>) -> Result<()> {
    let Some(flat) = t.data().iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let width = t.len() / t.shape()[0];
    let position = position(&t.shape()[1..], flat % width);
    Err(Error::value(format!(
        "{what}: expected finite values, got {} at sample {}, position {position:?}",
        t.data()[flat],
        flat / width
    )))
}
