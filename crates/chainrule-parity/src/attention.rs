//! Attention and transformers: their inputs by name, and the options that the inputs of a case ask for.

use crate::{
    Step, Stop,
    case::{Array, Case, Input},
};
use chainrule_core::{Scalar, Shape, Spec, Tensor};

/// The tensors among the arguments of a class's forward, in its order, which is that of our inputs: how many are no masks, and all
/// names. Masks end in `mask`.
const FORWARD: &[(&str, usize, &[&str])] = &[
    (
        "MultiheadAttention",
        3,
        &[
            "query",
            "key",
            "value",
            "key_padding_mask",
            "need_weights",
            "attn_mask",
            "average_attn_weights",
            "is_causal",
        ],
    ),
    ("TransformerEncoderLayer", 1, &["src", "src_mask", "src_key_padding_mask", "is_causal"]),
    (
        "TransformerDecoderLayer",
        2,
        &[
            "tgt",
            "memory",
            "tgt_mask",
            "memory_mask",
            "tgt_key_padding_mask",
            "memory_key_padding_mask",
            "tgt_is_causal",
            "memory_is_causal",
        ],
    ),
    (
        "Transformer",
        2,
        &[
            "src",
            "tgt",
            "src_mask",
            "tgt_mask",
            "memory_mask",
            "src_key_padding_mask",
            "tgt_key_padding_mask",
            "memory_key_padding_mask",
            "src_is_causal",
            "tgt_is_causal",
            "memory_is_causal",
        ],
    ),
];

/// The inputs of a case in our order, with their names.
pub struct Inputs<'c> {
    named: Vec<(&'static str, &'c Array)>,
    values: usize,
    /// Whether there is a batch axis.
    batched: bool,
}

impl<'c> Inputs<'c> {
    /// Those of a class of attention; `None` of another class.
    pub fn of(case: &'c Case) -> Step<Option<Self>> {
        let Some((_, values, names)) = FORWARD.iter().find(|(class, ..)| *class == case.module) else {
            return Ok(None);
        };
        let mut found = vec![None; names.len()];
        for (i, (name, input)) in case.inputs.iter().enumerate() {
            let at = match name {
                Some(name) => names.iter().position(|n| n == name),
                None => (i < names.len()).then_some(i),
            };
            let at = at.ok_or_else(|| Stop::Fail(format!("unexpected argument {name:?} of forward")))?;
            // Switches follow from the outputs, and `is_causal` says again what the mask does.
            if let Input::Array(array) = input {
                found[at] = Some(array);
            }
        }
        let named: Vec<_> = names.iter().zip(found).filter_map(|(name, x)| Some((*name, x?))).collect();
        if named.len() < *values || named[..*values].iter().any(|(name, _)| name.ends_with("mask")) {
            return Err(Stop::Fail(format!("expected {values} inputs that are no masks")));
        }
        let batched = named[0].1.values.shape().len() > 2;
        Ok(Some(Self { named, values: *values, batched }))
    }

    pub fn arrays(&self) -> Vec<&'c Array> {
        self.named.iter().map(|(_, array)| *array).collect()
    }

    /// The spec with what the inputs and outputs of the case ask for.
    pub fn extended(&self, mut spec: Spec, case: &Case) -> Spec {
        for (name, mask) in &self.named[self.values..] {
            spec = spec.with(*name, if mask.float { "additive" } else { "boolean" });
        }
        if case.module != "MultiheadAttention" {
            return spec;
        }
        spec = spec.with("cross", true).with("need_weights", case.outputs.len() > 1);
        match &case.outputs[..] {
            [y, weights] => {
                let mean = weights.values.shape().len() == y.values.shape().len();
                spec.with("average_attn_weights", mean)
            }
            _ => spec,
        }
    }

    /// The tensors, with a batch axis where there is none.
    pub fn tensors<T: Scalar>(&self, case: &Case) -> Step<Vec<Tensor<T>>> {
        let second = usize::from(!case.args.is_on("batch_first"));
        let each = |(name, array): &(&str, &Array)| {
            let (mut x, mask) = (array.cast::<T>(), name.ends_with("mask"));
            let axis = if mask { 0 } else { second };
            let pairs = mask && !name.ends_with("key_padding_mask");
            if !self.batched && !pairs {
                let mut shape = x.shape().to_vec();
                shape.insert(axis.min(shape.len()), 1);
                x.reshape(Shape::new(&shape)?)?;
            }
            Ok(x)
        };
        self.named.iter().map(each).collect()
    }
}
