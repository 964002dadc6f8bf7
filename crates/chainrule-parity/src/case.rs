//! Reading cases: safetensors whose metadata entry `cases` describes them.

use crate::{args::Args, recurrent};
use chainrule_core::{Error, Result, Scalar, Shape, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;

/// A tensor of a case, and the kind of its type.
#[derive(Clone, Debug)]
pub struct Array {
    pub values: Tensor<f64>,
    /// Floating-point: a gradient may reach it.
    pub float: bool,
}

impl Array {
    pub fn cast<T: Scalar>(&self) -> Tensor<T> {
        self.values.cast()
    }

    /// Whole numbers as classes. A negative one, such as PyTorch's −100, becomes a very large one.
    pub fn classes(&self) -> Vec<usize> {
        self.values.data().iter().map(|&v| v as i64 as usize).collect()
    }
}

/// An argument of forward.
#[derive(Clone, Debug)]
pub enum Input {
    Array(Array),
    /// A list of whole numbers.
    Numbers(Array),
    /// Nothing takes it yet.
    Other(&'static str),
}

/// One case of a module.
#[derive(Debug)]
pub struct Case {
    pub id: String,
    pub module: String,
    pub training: bool,
    pub args: Args,
    /// Parameters and buffers before the pass, under PyTorch's names.
    pub state: BTreeMap<String, Array>,
    /// By position, then by name.
    pub inputs: Vec<(Option<String>, Input)>,
    pub outputs: Vec<Array>,
    pub buffers_after: BTreeMap<String, Array>,
    pub cotangent: Option<Array>,
    /// Of the floating-point inputs in order; `None` where no gradient reaches one.
    pub grad_inputs: Vec<Option<Array>>,
    pub grad_params: BTreeMap<String, Option<Array>>,
}

fn bad(error: safetensors::SafeTensorError) -> Error {
    Error::format(format!("not a safetensors file: {error}"))
}

/// The tensors of a file, and the list in its metadata.
pub struct File<'b> {
    tensors: SafeTensors<'b>,
    pub cases: Vec<Value>,
}

impl<'b> File<'b> {
    /// A file whose metadata have a list `cases`, or one `case`.
    pub fn parse(bytes: &'b [u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(bad)?;
        let entry = |name: &str| header.metadata().as_ref().and_then(|m| m.get(name));
        let json = |name: &str, text: &str| {
            serde_json::from_str(text).map_err(|e| {
                Error::format(format!("metadata entry `{name}` is not a list, or one case: {e}"))
            })
        };
        let cases = match (entry("cases"), entry("case")) {
            (Some(text), _) => match json("cases", text)? {
                Value::Array(cases) => cases,
                _ => return Err(Error::format("metadata entry `cases` is not a list")),
            },
            (None, Some(text)) => vec![json("case", text)?],
            (None, None) => return Err(Error::format("expected a metadata entry `cases`, found none")),
        };
        Ok(Self { cases, ..Self::without_cases(bytes)? })
    }

    /// The tensors of a file.
    pub fn without_cases(bytes: &'b [u8]) -> Result<Self> {
        Ok(Self { tensors: SafeTensors::deserialize(bytes).map_err(bad)?, cases: Vec::new() })
    }

    pub fn array(&self, key: &str) -> Result<Array> {
        let view =
            self.tensors.tensor(key).map_err(|e| Error::format(format!("tensor `{key}` of a case: {e}")))?;
        let bytes = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
            Dtype::BOOL | Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => return Err(Error::format(format!("tensor `{key}` has dtype {other:?}"))),
        };
        let values = Tensor::from_vec(Shape::new(view.shape())?, values)?;
        Ok(Array { values, float: matches!(view.dtype(), Dtype::F64 | Dtype::F32) })
    }

    /// The tensor that `{"tensor": key}` points to.
    pub fn pointed(&self, value: &Value) -> Result<Option<Array>> {
        value.get("tensor").and_then(Value::as_str).map(|key| self.array(key)).transpose()
    }

    fn input(&self, value: &Value) -> Result<Input> {
        Ok(match (self.pointed(value)?, value) {
            (Some(array), _) => Input::Array(array),
            (None, Value::Array(list)) => match list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>() {
                Some(numbers) if list.iter().all(Value::is_i64) => Input::Numbers(Array {
                    values: Tensor::from_vec([numbers.len()], numbers)?,
                    float: false,
                }),
                _ => Input::Other("a list"),
            },
            (None, _) => Input::Other("no tensor"),
        })
    }

    /// An argument of forward: several where it is a list of tensors, such as (h, c).
    fn inputs(&self, value: &Value) -> Result<Vec<Input>> {
        let nested = value.as_array().filter(|list| list.iter().any(|v| v.get("tensor").is_some()));
        match nested {
            Some(list) => list.iter().map(|v| self.input(v)).collect(),
            None => Ok(vec![self.input(value)?]),
        }
    }

    fn map(&self, value: &Value) -> Result<BTreeMap<String, Option<Array>>> {
        let object = value.as_object().into_iter().flatten();
        object.map(|(name, v)| Ok((name.clone(), self.pointed(v)?))).collect()
    }

    fn list(&self, value: &Value) -> Result<Vec<Option<Array>>> {
        value.as_array().into_iter().flatten().map(|v| self.pointed(v)).collect()
    }
}

/// A text of a case.
pub fn text<'v>(case: &'v Value, key: &str) -> Result<&'v str> {
    case[key].as_str().ok_or_else(|| Error::format(format!("a case has no text `{key}`")))
}

/// All cases of a module's file.
pub fn read(bytes: &[u8]) -> Result<Vec<Case>> {
    let file = File::parse(bytes)?;
    file.cases.iter().map(|case| file.case(case)).collect()
}

impl File<'_> {
    fn case(&self, case: &Value) -> Result<Case> {
        let present = |m: BTreeMap<String, Option<Array>>| -> BTreeMap<String, Array> {
            m.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
        };
        let mut inputs = Vec::new();
        for value in case["inputs"].as_array().into_iter().flatten() {
            inputs.extend(self.inputs(value)?.into_iter().map(|input| (None, input)));
        }
        for (name, value) in case["named_inputs"].as_object().into_iter().flatten() {
            inputs.extend(self.inputs(value)?.into_iter().map(|input| (Some(name.clone()), input)));
        }
        let buffers = present(self.map(&case["buffers"])?);
        // An argument that became a buffer (class weights) has the buffer's values.
        let mut tensors = present(self.map(&case["args"])?);
        for (name, tensor) in &mut tensors {
            if let Some(buffer) = buffers.get(name) {
                *tensor = buffer.clone();
            }
        }
        let mut state = present(self.map(&case["params"])?);
        state.extend(buffers);
        let mut case = Case {
            id: text(case, "id")?.to_owned(),
            module: text(case, "module")?.to_owned(),
            training: case["training"]
                .as_bool()
                .ok_or_else(|| Error::format("a case has no `training`, true or false"))?,
            args: Args::new(case["args"].clone(), tensors),
            state,
            inputs,
            outputs: self.list(&case["outputs"])?.into_iter().flatten().collect(),
            buffers_after: present(self.map(&case["buffers_after"])?),
            cotangent: self.list(&case["cotangents"])?.into_iter().flatten().next(),
            grad_inputs: self.list(&case["grad_inputs"])?,
            grad_params: self.map(&case["grad_params"])?,
        };
        recurrent::prepare(&mut case)?;
        Ok(case)
    }
}
