//! What every dataset is checked for, once, when it is made.

use chainrule_tensor::{Error, Result, Scalar, Tensor};

pub(crate) fn check_features<T: Scalar>(x: &Tensor<T>, targets: usize) -> Result<()> {
    let Some(&n) = x.shape().first() else {
        return Err(Error::shape("features: expected (samples, ..), got a scalar"));
    };
    if n != targets {
        return Err(Error::shape(format!(
            "dataset: expected a target for each of {n} samples, got {targets}"
        )));
    }
    if x.is_empty() {
        return Err(Error::value(format!(
            "dataset: expected at least one sample and one feature, got features {}",
            x.shape()
        )));
    }
    check_finite("features", x)
}

pub(crate) fn check_labels(labels: &[usize], classes: usize) -> Result<()> {
    match labels.iter().enumerate().find(|&(_, &c)| c >= classes) {
        Some((i, c)) => {
            Err(Error::index(format!("labels: expected classes below {classes}, got {c} at sample {i}")))
        }
        None => Ok(()),
    }
}

pub(crate) fn check_finite<T: Scalar>(what: &str, t: &Tensor<T>) -> Result<()> {
    let Some(flat) = t.data().iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let width = t.len() / t.shape()[0];
    let mut rest = flat % width;
    let mut position = vec![0; t.shape().len() - 1];
    for (p, &axis) in position.iter_mut().zip(&t.shape()[1..]).rev() {
        (*p, rest) = (rest % axis, rest / axis);
    }
    Err(Error::value(format!(
        "{what}: expected finite numbers, got {} at sample {}, position {position:?}",
        t.data()[flat],
        flat / width
    )))
}
