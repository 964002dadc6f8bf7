//! From a model to a file.

use crate::{
    dtype,
    header::METADATA,
    source::{LONGEST_HEADER, check_finite},
    write_atomically,
};
use chainrule_core::{Error, Param, ParamId, Parameters, Result, Scalar, text::quote};
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::BTreeMap, path::Path};

/// Saves every parameter and buffer of a model as safetensors, under its path and in its own scalar type; counters as I64.
/// A parameter that is used twice is saved under each of its names.
///
/// # Errors
/// A parameter is not initialised or has a value that is not finite, two parameters have the same path, or the operating
/// system refuses. The file is written atomically: after an error the old one is as it was.
pub fn save(model: &(impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    write_atomically(path, &to_bytes(model)?)
}

/// [`save`] of the parameters and buffers whose path satisfies `which`: of an adapter without the model that it adapts.
/// [`Load::allow_missing`](crate::Load::allow_missing) loads it.
///
/// # Errors
/// As [`save`], and if there are none.
pub fn save_part(
    model: &(impl Parameters + ?Sized),
    which: impl Fn(&str) -> bool,
    path: impl AsRef<Path>,
) -> Result<()> {
    write_atomically(path, &part_to_bytes(model, which)?)
}

/// The contents of the file that [`save_part`] writes.
///
/// # Errors
/// As [`save_part`], the operating system aside.
pub fn part_to_bytes(model: &(impl Parameters + ?Sized), which: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
    let mut any = false;
    model.visit(&mut |path, _| any |= which(&path.to_string()));
    if !any {
        return Err(Error::value("expected a parameter that is to be saved, got none"));
    }
    with_metadata(model, which, [])
}

/// The contents of the file that [`save`] writes.
///
/// # Errors
/// As [`save`], the operating system aside.
pub fn to_bytes(model: &(impl Parameters + ?Sized)) -> Result<Vec<u8>> {
    with_metadata(model, |_| true, [])
}

/// [`to_bytes`] of a part, with more entries in the metadata.
pub(crate) fn with_metadata<const N: usize>(
    model: &(impl Parameters + ?Sized),
    which: impl Fn(&str) -> bool,
    entries: [(String, String); N],
) -> Result<Vec<u8>> {
    let mut tensors: BTreeMap<String, (ParamId, Entry)> = BTreeMap::new();
    model.try_visit(&mut |path, param| {
        let name = path.to_string();
        if !which(&name) {
            return Ok(());
        }
        match tensors.get(&name) {
            Some((id, _)) if *id == param.id() => return Ok(()),
            Some(_) => {
                return Err(Error::state(format!(
                    "expected one parameter for each name, got two named {}",
                    quote(&name)
                )));
            }
            None if name == METADATA => {
                return Err(Error::state(format!("expected a name of a parameter, got `{METADATA}`")));
            }
            None => {}
        }
        let entry = Entry::new(param, &name)?;
        tensors.insert(name, (param.id(), entry));
        Ok(())
    })?;
    let views = tensors
        .iter()
        .map(|(name, (_, entry))| {
            Ok((name, TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes).map_err(broken)?))
        })
        .collect::<Result<Vec<_>>>()?;
    // The mark that PyTorch's own tools look for.
    let mark = ("format".to_owned(), "pt".to_owned());
    let metadata = [mark].into_iter().chain(entries).collect();
    let bytes = ordered(safetensors::serialize(views, Some(metadata)).map_err(broken)?)?;
    // What is saved can be loaded: the limits are the same.
    match bytes.first_chunk().map(|&n| u64::from_le_bytes(n)) {
        Some(n) if n > LONGEST_HEADER => Err(Error::state(format!(
            "expected names and architecture of at most {LONGEST_HEADER} bytes, got {n}"
        ))),
        _ => Ok(bytes),
    }
}

/// The same file with its header's keys in order: those of the metadata come from a hash map, in another order each time.
fn ordered(mut file: Vec<u8>) -> Result<Vec<u8>> {
    let unreadable = || Error::format("safetensors: unreadable header of its own");
    let n = file.first_chunk().map(|&n| u64::from_le_bytes(n) as usize).ok_or_else(unreadable)?;
    let header = file.get(8..8 + n).ok_or_else(unreadable)?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|_| unreadable())?;
    let mut text = serde_json::to_string(&header).map_err(|_| unreadable())?;
    // The data begin at a multiple of eight, as the format recommends.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let length = (text.len() as u64).to_le_bytes();
    file.splice(..8 + n, length.into_iter().chain(text.into_bytes()));
    Ok(file)
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
                "parameter {} is not initialised: call init(seed) on the outermost model, or load weights",
                quote(name)
            ))
        })?;
        let of = |text: String| Error::value(format!("parameter {}: {text}", quote(name)));
        let shape = param.shape().to_vec();
        if param.is_counter() {
            let count = values[0].to_index().and_then(|n| i64::try_from(n).ok());
            let count = count.ok_or_else(|| of(format!("expected a count from 0, got {}", values[0])))?;
            return Ok(Self { dtype: Dtype::I64, shape, bytes: count.to_le_bytes().to_vec() });
        }
        check_finite(values).map_err(|e| of(e.to_string()))?;
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.write_le(&mut bytes));
        Ok(Self { dtype: dtype::of::<T>(), shape, bytes })
    }
}

fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::format(format!("safetensors: {error}"))
}
