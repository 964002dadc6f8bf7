//! From a model to a file.

use crate::{
    dtype::{self, BF16, F16, Half},
    file::{LONGEST_HEADER, check_finite},
    header::{ARCHITECTURE, METADATA},
    json, write_atomically,
};
use chainrule_core::{Error, Module, Param, ParamId, Parameters, Result, Scalar, text::quote};
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::BTreeMap, fmt, path::Path};

/// Saves every parameter and buffer of a model as safetensors, under its path and in its own scalar type; counters as I64.
/// A parameter that is used twice is saved under each of its names.
///
/// # Errors
/// A parameter is not initialised or has a value that is not finite, two parameters have the same path, or the operating
/// system refuses. The file is written atomically: after an error the old one is as it was.
pub fn save(model: &(impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    Save::new().save(model, path)
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
    Save::new().only(which).save(model, path)
}

/// The contents of the file that [`save_part`] writes.
///
/// # Errors
/// As [`save_part`], the operating system aside.
pub fn part_to_bytes(model: &(impl Parameters + ?Sized), which: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
    Save::new().only(which).to_bytes(model)
}

/// The contents of the file that [`save`] writes.
///
/// # Errors
/// As [`save`], the operating system aside.
pub fn to_bytes(model: &(impl Parameters + ?Sized)) -> Result<Vec<u8>> {
    Save::new().to_bytes(model)
}

/// Saving in 16 bits, or a part.
///
/// In 16 bits each value becomes the nearest one, of two as near the one with an even last bit; what is too large for any is an
/// error. Counters stay I64. [`load`](crate::load()) gives the model the rounded values.
///
/// ```
/// # use chainrule_core::*;
/// # #[derive(Clone)]
/// # struct Gain(Param<f32>);
/// # impl Layer for Gain {
/// #     type T = f32;
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
/// #     fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> { y.copy_from(x); Ok(()) }
/// #     fn backward(&self, _: Call<'_, f32>, _: &mut (), _: &mut Grads<f32>, _: Option<&mut Tensor>) -> Result<()> { Ok(()) }
/// #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, f32>) { out.add(&self.0) }
/// #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) { out.add(&mut self.0) }
/// # }
/// use chainrule_io::Save;
/// let mut model = Gain(Param::new("gain", [2], Init::Constant(0.1))).init(0)?;
/// let bytes = Save::new().f16().to_bytes(&model)?;
/// chainrule_io::from_bytes(&mut model, &bytes)?;
/// assert_eq!(model.0.value()?, [0.099_975_586; 2]); // 1638 · 2⁻¹⁴
/// # Ok::<(), Error>(())
/// ```
#[must_use]
#[derive(Default)]
pub struct Save<'a> {
    half: Option<(Half, Dtype)>,
    allow_overflow: bool,
    which: Option<Box<dyn Fn(&str) -> bool + 'a>>,
}

impl<'a> Save<'a> {
    /// Everything, in the model's own type.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes values as F16: 11 significant bits, up to 65 504.
    pub fn f16(self) -> Self {
        Self { half: Some((F16, Dtype::F16)), ..self }
    }

    /// Writes values as BF16: 8 significant bits, up to 3.39 · 10³⁸.
    pub fn bf16(self) -> Self {
        Self { half: Some((BF16, Dtype::BF16)), ..self }
    }

    /// Writes values that are too large for 16 bits as infinities, which
    /// [`Load::allow_not_finite`](crate::Load::allow_not_finite) takes.
    pub fn allow_overflow(self) -> Self {
        Self { allow_overflow: true, ..self }
    }

    /// Writes the parameters and buffers whose path satisfies `which`. The last call holds.
    pub fn only(self, which: impl Fn(&str) -> bool + 'a) -> Self {
        Self { which: Some(Box::new(which)), ..self }
    }

    /// Saves the weights.
    ///
    /// # Errors
    /// As [`save`]; a value is too large for 16 bits; nothing is to be saved.
    pub fn save(&self, model: &(impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, &self.to_bytes(model)?)
    }

    /// The contents of the file that [`Save::save`] writes.
    ///
    /// # Errors
    /// As [`Save::save`], the operating system aside.
    pub fn to_bytes(&self, model: &(impl Parameters + ?Sized)) -> Result<Vec<u8>> {
        if let Some(which) = &self.which {
            let mut any = false;
            model.visit(&mut |path, _| any |= which(&path.to_string()));
            if !any {
                return Err(Error::value("expected a parameter that is to be saved, got none"));
            }
        }
        self.with_metadata(model, [])
    }

    /// Saves architecture and weights, as [`save_model`](crate::save_model) does.
    ///
    /// # Errors
    /// As [`save_model`](crate::save_model) and [`Save::save`].
    pub fn save_model(&self, model: &(impl Module + ?Sized), path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, &self.model_to_bytes(model)?)
    }

    /// The contents of the file that [`Save::save_model`] writes.
    ///
    /// # Errors
    /// As [`Save::save_model`], the operating system aside.
    pub fn model_to_bytes(&self, model: &(impl Module + ?Sized)) -> Result<Vec<u8>> {
        if self.which.is_some() {
            return Err(Error::value("expected a whole model to save with its architecture, got a part"));
        }
        self.with_metadata(model, [(ARCHITECTURE.to_owned(), json::write(&model.to_spec())?)])
    }

    /// With more entries in the metadata.
    fn with_metadata<const N: usize>(
        &self,
        model: &(impl Parameters + ?Sized),
        entries: [(String, String); N],
    ) -> Result<Vec<u8>> {
        let mut tensors: BTreeMap<String, (ParamId, Entry)> = BTreeMap::new();
        model.try_visit(&mut |path, param| {
            let name = path.to_string();
            if self.which.as_ref().is_some_and(|which| !which(&name)) {
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
            let entry = self.entry(param, &name)?;
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
}

impl fmt::Debug for Save<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Save")
            .field("dtype", &self.half.map(|(_, dtype)| dtype))
            .field("allow_overflow", &self.allow_overflow)
            .finish_non_exhaustive()
    }
}

/// The same file with its header's keys in order: those of the metadata come from a hash map, in another order each time.
pub(crate) fn ordered(mut file: Vec<u8>) -> Result<Vec<u8>> {
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

impl Save<'_> {
    fn entry<T: Scalar>(&self, param: &Param<T>, name: &str) -> Result<Entry> {
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
            return Ok(Entry { dtype: Dtype::I64, shape, bytes: count.to_le_bytes().to_vec() });
        }
        check_finite(values).map_err(|e| of(e.to_string()))?;
        if let Some((half, dtype)) = self.half {
            let rounded: Vec<u16> = values.iter().map(|v| half.round(v.to_f64())).collect();
            let infinite = |bits: u16| !half.widen(bits).is_finite();
            return match rounded.iter().position(|&bits| infinite(bits)) {
                Some(i) if !self.allow_overflow => {
                    Err(of(format!("expected values that {dtype} holds, got {} at position {i}", values[i])))
                }
                _ => Ok(Entry {
                    dtype,
                    shape,
                    bytes: rounded.into_iter().flat_map(u16::to_le_bytes).collect(),
                }),
            };
        }
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.write_le(&mut bytes));
        Ok(Entry { dtype: dtype::of::<T>(), shape, bytes })
    }
}

fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::format(format!("safetensors: {error}"))
}
