//! Continuations of a prompt.

mod beam;
mod generator;
mod run;
mod sampler;
#[cfg(test)]
mod testing;
mod text;

pub use beam::{Beam, Hypothesis};
pub use generator::{Generator, Tokens};
pub use run::{Ended, Generated};
pub use sampler::Sampler;
pub use text::Text;

use chainrule_core::{Error, Module, Result, Scalar, Tensor};

/// An error unless a model has one input and one output.
fn check_model<M: Module + ?Sized>(kind: &str, model: &M) -> Result<()> {
    match (model.inputs(), model.outputs()) {
        (1, 1) => Ok(()),
        (inputs, outputs) => Err(Error::value(format!(
            "{kind}: expected a model of one input and one output, got {inputs} and {outputs}"
        ))),
    }
}

/// V of logits (N, T, V).
fn vocabulary_of<T: Scalar>(kind: &str, logits: &Tensor<T>, n: usize, t: usize) -> Result<usize> {
    match logits.shape()[..] {
        [rows, steps, v] if rows == n && steps == t && v > 0 => Ok(v),
        _ => Err(Error::shape(format!(
            "{kind}: expected logits (N, T, V) = ({n}, {t}, V) of the model, got {}",
            logits.shape()
        ))),
    }
}

/// An error unless there is a greatest finite logit.
fn check_logits<T: Scalar>(logits: &[T]) -> Result<()> {
    let wrong = |v: &T| v.is_nan() || *v == T::INFINITY;
    if let Some(token) = logits.iter().position(wrong) {
        return Err(Error::value(format!(
            "expected logits that are finite or -inf, got {} of token {token}",
            logits[token]
        )));
    }
    if !logits.iter().any(|v| v.is_finite()) {
        return Err(Error::value("expected a finite logit, got -inf of all tokens"));
    }
    Ok(())
}
