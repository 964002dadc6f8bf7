//! Where the first value is that is infinite or NaN.

use chainrule_core::{Error, Grads, Param, Parameters, Path, Scalar, Tensor};
use chainrule_tensor::{kernels::reduce::all_finite, position};
use std::fmt;

/// The sample of an input or a target that is not finite.
pub(crate) fn sample<T: Scalar>(what: impl fmt::Display, t: &Tensor<T>) -> Option<Error> {
    if all_finite(t.data()) {
        return None;
    }
    let flat = t.data().iter().position(|v| !v.is_finite())?;
    let at = position(t.shape(), flat);
    let (sample, position) = at.split_first().map_or((0, &[][..]), |(s, rest)| (*s, rest));
    Some(Error::value(format!(
        "{what}: expected finite values, got {} in sample {sample} of the batch, position {position:?}",
        t.data()[flat]
    )))
}

/// A parameter or buffer that is not finite.
pub(crate) fn parameter<T: Scalar>(path: &Path<'_>, param: &Param<T>) -> Option<Error> {
    param.value().ok().and_then(|values| value(path, "", values, param.shape()))
}

/// The first parameter or buffer of a model that is not finite.
pub(crate) fn model<T: Scalar>(model: &dyn Parameters<T = T>) -> Option<Error> {
    let mut found = None;
    model.visit(&mut |path, param| {
        if found.is_none() {
            found = parameter(path, param);
        }
    });
    found
}

/// The gradient that is not finite.
pub(crate) fn gradient<T: Scalar>(model: &dyn Parameters<T = T>, grads: &Grads<T>) -> Option<Error> {
    if all_finite(grads.values()) {
        return None;
    }
    let mut found = None;
    model.visit(&mut |path, param| {
        if let (None, Some(values)) = (&found, grads.get(param)) {
            found = value(path, "the gradient of ", values, param.shape());
        }
    });
    found
}

/// An error in the layer that owns the parameter of this path.
fn value<T: Scalar>(path: &impl fmt::Display, what: &str, values: &[T], shape: &[usize]) -> Option<Error> {
    if all_finite(values) {
        return None;
    }
    let path = path.to_string();
    let flat = values.iter().position(|v| !v.is_finite())?;
    let (layer, name) = path.rsplit_once('.').unwrap_or(("", &path));
    let error = Error::value(format!(
        "expected {what}`{name}` to be finite, got {} at {:?}",
        values[flat],
        position(shape, flat)
    ));
    Some(if layer.is_empty() { error } else { error.in_layer(layer) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_told_by_its_coordinates() {
        assert_eq!(position(&[2, 3, 4], 23), [1, 2, 3]);
        let mut t = Tensor::<f32>::zeros([2, 3]);
        assert!(sample("input", &t).is_none());
        t.data_mut()[4] = f32::NAN;
        let text = sample("input", &t).unwrap().to_string();
        assert_eq!(text, "input: expected finite values, got NaN in sample 1 of the batch, position [1]");
        let text = value(&"encoder.0.weight", "", t.data(), t.shape()).unwrap().to_string();
        assert_eq!(text, "in layer `encoder.0`: expected `weight` to be finite, got NaN at [1, 1]");
    }
}
