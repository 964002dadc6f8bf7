//! From a model to a file.

use crate::{number, write_atomically};
use chainrule_core::{Error, Param, ParamId, Parameters, Result, Scalar};
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::BTreeMap, path::Path};

/// Saves every parameter and buffer of a model as safetensors, under its path and in its own number type; counters as I64.
/// A parameter that is used twice is saved under each of its names.
///
/// # Errors
/// A parameter has no numbers or one that is not finite, two parameters have the same path, or the operating system
/// refuses. The file is written atomically: after an error the old one is as it was.
pub fn save<T: Scalar>(model: &(impl Parameters<T> + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    write_atomically(path, &to_bytes(model)?)
}

/// The contents of the file that [`save`] writes.
///
/// # Errors
/// As [`save`], the operating system aside.
pub fn to_bytes<T: Scalar>(model: &(impl Parameters<T> + ?Sized)) -> Result<Vec<u8>> {
    let mut tensors: BTreeMap<String, (ParamId, Entry)> = BTreeMap::new();
    let mut failed = None;
    model.visit(&mut |path, param| {
        let name = path.to_string();
        let entry = match tensors.get(&name) {
            Some((id, _)) if *id == param.id() => return,
            Some(_) => {
                Err(Error::state(format!("expected one parameter for each name, got two named `{name}`")))
            }
            None => Entry::new(param, &name),
        };
        match entry {
            Ok(entry) => _ = tensors.insert(name, (param.id(), entry)),
            Err(error) => _ = failed.get_or_insert(error),
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let views = tensors
        .iter()
        .map(|(name, (_, entry))| {
            Ok((name, TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes).map_err(broken)?))
        })
        .collect::<Result<Vec<_>>>()?;
    // The mark that PyTorch's own tools look for.
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(broken)
}

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Little-endian, row-major.
    bytes: Vec<u8>,
}

impl Entry {
    fn new<T: Scalar>(param: &Param<T>, name: &str) -> Result<Self> {
        let values = param.value().map_err(|_| {
            Error::state(format!(
                "parameter `{name}` has no numbers yet: call init(seed) on the outermost model, or load weights"
            ))
        })?;
        let of = |text: String| Error::value(format!("parameter `{name}`: {text}"));
        let shape = param.shape().to_vec();
        if param.is_counter() {
            let count = values[0].to_index().ok_or_else(|| {
                of(format!("expected a whole number that is not negative, got {}", values[0]))
            })?;
            return Ok(Self { dtype: Dtype::I64, shape, bytes: (count as i64).to_le_bytes().to_vec() });
        }
        check_finite(values).map_err(|e| of(e.to_string()))?;
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.write_le(&mut bytes));
        Ok(Self { dtype: number::dtype::<T>(), shape, bytes })
    }
}

/// The first number of a slice that is not finite, as an error.
pub(crate) fn check_finite<T: Scalar>(values: &[T]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::value(format!("expected finite numbers, got {} at position {i}", values[i]))),
    }
}

fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::format(format!("safetensors: {error}"))
}
