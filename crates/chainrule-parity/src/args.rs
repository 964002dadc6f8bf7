//! A constructor's arguments as the spec of one of our kinds.

use crate::{Step, Stop, case::Array};
use chainrule_core::{Entry, Scalar, Spec, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// The arguments of one case.
#[derive(Debug)]
pub struct Args {
    values: Json,
    tensors: BTreeMap<String, Array>,
}

/// Arguments that say how PyTorch runs or stores, not what it computes. What `return_indices` adds is compared by itself,
/// the values of `_weight` come with the parameters, and `norm_type` has a meaning only with `max_norm`.
const WITHOUT_EFFECT: &[&str] = &[
    "inplace",
    "device",
    "dtype",
    "sparse",
    "return_indices",
    "_weight",
    "_freeze",
    "norm_type",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
];

/// Arguments of one class that are without effect.
const WITHOUT_EFFECT_IN: &[(&str, &[&str])] = &[
    ("Identity", &["args", "kwargs"]),
    ("AdamW", &["decoupled_weight_decay"]),
    // It is "zeros" in every transposed convolution.
    ("ConvTranspose1d", &["padding_mode"]),
    ("ConvTranspose2d", &["padding_mode"]),
    ("ConvTranspose3d", &["padding_mode"]),
];

/// Classes that are another one with arguments of its own.
const ALIASES: &[(&str, &str, &[(&str, i64)])] = &[("Softmax2d", "Softmax", &[("dim", -3)])];

impl Args {
    pub fn new(values: Json, tensors: BTreeMap<String, Array>) -> Self {
        Self { values, tensors }
    }

    /// Arguments without tensors.
    pub fn plain(values: &Json) -> Self {
        Self::new(values.clone(), BTreeMap::new())
    }

    /// Sets an argument, if the case does not have it.
    pub fn set_default(&mut self, name: &str, value: Json) {
        if let Some(values) = self.values.as_object_mut() {
            values.entry(name).or_insert(value);
        }
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.values.get(name) == Some(&Json::Bool(true))
    }

    /// The spec of the kind that has PyTorch's name for its own; `None` if there is no such kind. A kind knows the
    /// attributes that stand in the specs of its examples; an argument beyond them is skipped with its name, unless it is off.
    pub fn spec<'r, T: Scalar, V: 'r>(
        &self,
        mut entries: impl Iterator<Item = &'r Entry<T, V>>,
        class: &str,
    ) -> Step<Option<Spec>> {
        let alias = ALIASES.iter().find(|(alias, ..)| *alias == class);
        let (torch, fixed) = alias.map_or((class, &[][..]), |(_, torch, fixed)| (torch, fixed));
        let Some(entry) = entries.find(|entry| entry.facts.torch == Some(torch)) else { return Ok(None) };
        let known: BTreeSet<String> = (entry.examples)()
            .iter()
            .flat_map(|example| example.spec.attributes())
            .map(|(name, _)| name.clone())
            .collect();
        let mut spec = Spec::new(entry.facts.kind);
        for &(name, value) in fixed {
            spec = spec.with(name, value);
        }
        let here = WITHOUT_EFFECT_IN.iter().filter(|(of, _)| *of == class).flat_map(|(_, names)| *names);
        let without_effect: Vec<&str> = WITHOUT_EFFECT.iter().chain(here).copied().collect();
        for (name, value) in self.values.as_object().into_iter().flatten() {
            if known.contains(name) {
                spec = spec.with(name, self.value(name, value)?);
            } else if !matches!(value, Json::Null | Json::Bool(false))
                && !without_effect.contains(&name.as_str())
            {
                return Err(Stop::Skip(format!("argument {name} = {value}")));
            }
        }
        Ok(Some(spec))
    }

    fn value(&self, name: &str, value: &Json) -> Step<Value> {
        let each = |values: &[Json]| values.iter().map(|v| self.value(name, v)).collect::<Step<_>>();
        Ok(match value {
            Json::Null => Value::None,
            Json::Bool(v) => Value::Bool(*v),
            Json::Number(v) => match (v.as_i64(), v.as_f64()) {
                (Some(v), _) => Value::Int(v),
                (None, Some(v)) if !value.is_u64() => Value::Float(v),
                _ => return Err(Stop::Skip(format!("argument {name} = {value}, beyond 63 bits"))),
            },
            Json::String(v) => Value::Text(v.clone()),
            Json::Array(values) => Value::List(each(values)?),
            Json::Object(_) => {
                let tensor = self.tensors.get(name);
                let tensor =
                    tensor.ok_or_else(|| Stop::Fail(format!("argument {name}: expected a tensor")))?;
                nested(tensor.values.data(), tensor.values.shape())
            }
        })
    }
}

/// The values of a tensor as lists of lists, the outermost axis first.
fn nested(values: &[f64], shape: &[usize]) -> Value {
    match shape {
        [] => Value::Float(values[0]),
        [_] => Value::List(values.iter().map(|&v| Value::Float(v)).collect()),
        [_, inner @ ..] => {
            let size = inner.iter().product::<usize>().max(1);
            Value::List(values.chunks(size).map(|part| nested(part, inner)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use chainrule_core::Tensor;
    use serde_json::json;

    fn spec(class: &str, args: Json) -> String {
        match Args::plain(&args).spec(registry::<f64>().modules(), class) {
            Ok(None) => "no such class".into(),
            Ok(Some(spec)) => spec.to_string(),
            Err(Stop::Skip(why)) => format!("skipped: {why}"),
            Err(Stop::Fail(why)) => format!("failed: {why}"),
        }
    }

    #[test]
    fn an_argument_that_the_kind_does_not_know_is_skipped_unless_it_is_off_or_without_effect() {
        assert_eq!(spec("Warp", json!({})), "no such class");
        assert_eq!(spec("Softmax", json!({"dim": 1, "warp": null, "weft": false})), "Softmax(dim=1)");
        assert_eq!(spec("Softmax", json!({"dim": 1, "p": 2})), "skipped: argument p = 2");
        assert_eq!(spec("ReLU", json!({"inplace": true})), "Relu()");
        assert_eq!(spec("Identity", json!({"args": [54]})), "Identity()");
        assert_eq!(spec("ReLU", json!({"args": [54]})), "skipped: argument args = [54]");
        assert_eq!(spec("EmbeddingBag", json!({"max_norm": 1.0})), "EmbeddingBag(max_norm=1.0)");
    }

    #[test]
    fn an_alias_brings_its_arguments() {
        assert_eq!(spec("Softmax2d", json!({})), "Softmax(dim=-3)");
    }

    #[test]
    fn values_keep_their_types() {
        let all = json!({"in_features": 3, "out_features": [1, [2.0]], "bias": "x"});
        assert_eq!(spec("Linear", all), "Linear(bias=x, in_features=3, out_features=(1, (2.0)))");
        let large = json!({"in_features": 18446744073709551615u64});
        assert!(spec("Linear", large).starts_with("skipped: argument in_features = 18446744073709551615"));
        let lost = json!({"in_features": {"tensor": "lost"}});
        assert_eq!(spec("Linear", lost), "failed: argument in_features: expected a tensor");
        let matrix = Tensor::from([[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!(nested(matrix.data(), matrix.shape()).to_string(), "((1.0, 2.0), (3.0, 4.0))");
    }
}
