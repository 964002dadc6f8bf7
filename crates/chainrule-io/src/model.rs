//! Models with their architecture: files that load without the code that built them.

use crate::{Save, TensorFile, header::ARCHITECTURE, json, load::strictly};
use chainrule_core::{BoxModule, Error, Module, Registry, Result, Scalar};
use std::path::Path;

/// Saves a model, its architecture and its weights, in one safetensors file. [`load_model`] needs no more to build it again;
/// [`load`](crate::load()) and PyTorch read the weights alone.
///
/// # Errors
/// A part of the model does not say what it is ([`Layer::spec`](chainrule_core::Layer::spec)), or as [`save`](crate::save()).
pub fn save_model(model: &(impl Module + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    Save::new().save_model(model, path)
}

/// The contents of the file that [`save_model`] writes.
///
/// # Errors
/// As [`save_model`], the operating system aside.
pub fn model_to_bytes(model: &(impl Module + ?Sized)) -> Result<Vec<u8>> {
    Save::new().model_to_bytes(model)
}

/// Loads a model that [`save_model`] saved, in either scalar type. The registry knows its kinds of layers, those from
/// outside the catalogue included: `registry.module::<MyLayer<f32>>()`.
///
/// # Errors
/// The file has no architecture, one of another version, or a kind that the registry does not have; or as
/// [`load`](crate::load()).
pub fn load_model<T: Scalar>(registry: &Registry<T>, path: impl AsRef<Path>) -> Result<BoxModule<T>> {
    build(registry, TensorFile::open(path)?)
}

/// [`load_model`] from the contents of a file.
///
/// # Errors
/// As [`load_model`].
pub fn model_from_bytes<T: Scalar>(registry: &Registry<T>, bytes: &[u8]) -> Result<BoxModule<T>> {
    build(registry, TensorFile::from_bytes(bytes)?)
}

fn build<T: Scalar>(registry: &Registry<T>, mut file: TensorFile<'_>) -> Result<BoxModule<T>> {
    let entry = file.architecture();
    let name = file.name().to_owned();
    let wrong = |text: String| Error::format(format!("{name}: {text}"));
    let text = entry.ok_or_else(|| {
        wrong(format!(
            "expected an entry `{ARCHITECTURE}` in the metadata, got none: the file holds weights alone, which `load` reads"
        ))
    })?;
    let spec = json::parse(&text).map_err(|e| wrong(e.to_string()))?;
    drop(text);
    let mut model = registry.build_module(&spec).map_err(|e| wrong(format!("architecture: {e}")))?;
    strictly(&mut model, &mut file)?;
    Ok(model)
}
