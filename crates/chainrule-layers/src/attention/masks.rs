//! Masks as inputs, and what they add to or hide of the scores.

use chainrule_core::{Error, FromValue, Result, Scalar, Shape, Tensor, Value};
use chainrule_tensor::kernels::layers::attention::Mask;

/// What a mask holds that is an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskKind {
    /// What is not 0 may **not** be attended to, as where PyTorch's masks are True. It has no derivative.
    Boolean,
    /// Added to the scores before softmax: 0 leaves them, −∞ hides. It has a derivative.
    Additive,
}

impl FromValue for MaskKind {
    const WHAT: &'static str = "`boolean` or `additive`";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) if text == "boolean" => Some(Self::Boolean),
            Value::Text(text) if text == "additive" => Some(Self::Additive),
            _ => None,
        }
    }
}

impl From<MaskKind> for Value {
    fn from(kind: MaskKind) -> Self {
        match kind {
            MaskKind::Boolean => "boolean",
            MaskKind::Additive => "additive",
        }
        .into()
    }
}

impl MaskKind {
    /// A mask of this kind for the kernels.
    pub(super) fn of<T>(self, mask: &[T]) -> Mask<'_, T> {
        match self {
            Self::Boolean => Mask::Boolean(mask),
            Self::Additive => Mask::Additive(mask),
        }
    }
}

/// The mask of pairs among the inputs, (T, S), or (N H, T, S): whether it has one for each head.
pub(super) fn pairs_by_head(layer: &str, mask: &Shape, [n, heads, t, s]: [usize; 4]) -> Result<bool> {
    match mask[..] {
        [rows, keys] if [rows, keys] == [t, s] => Ok(false),
        [all, rows, keys] if Some(all) == n.checked_mul(heads) && [rows, keys] == [t, s] => Ok(true),
        _ => Err(Error::shape(format!(
            "{layer}: expected attn_mask ({t}, {s}) or ({}, {t}, {s}), got {mask}",
            n.saturating_mul(heads)
        ))),
    }
}

/// An error that names a query that sees no key.
#[cold]
pub(super) fn blind(layer: &str, at: usize, t: usize, heads: usize) -> Error {
    Error::value(format!(
        "{layer}: expected masks that leave every query a key, got none for query {} of sample {} in head {}",
        at / heads % t,
        at / heads / t,
        at % heads
    ))
}

/// Overwrites a requested gradient with zeros.
pub(super) fn zeros<T: Scalar>(dx: Option<&mut Tensor<T>>, shape: &Shape) {
    if let Some(dx) = dx {
        dx.reset(*shape).fill(T::ZERO);
    }
}
