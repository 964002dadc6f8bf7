//! One step of long short-term memory (Hochreiter and Schmidhuber, 1997).
//!
//! ```text
//! (i f g o) = W x + U h + b_ih + b_hh,   i, f, o ← σ,   g ← tanh
//! c′ = f c + i g        h′ = o tanh c′
//! ```
//!
//! The equations, and what backward does with them, are those of `Lstm`. Derivation: docs/layers/recurrent/lstm.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// One step of [`Lstm`](crate::Lstm), for loops over time of one's own.
///
/// # Shapes
/// Inputs x (N, I), h (N, H) and c (N, H), outputs h′ and c′, (N, H) each. `weight_ih` (4H, I), `weight_hh` (4H, H), `bias_ih` and `bias_hh`
/// (4H). All start uniform in ±1/√H, as PyTorch's do.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::LstmCell;
/// let cell = LstmCell::new(8, 16).init(1)?;
/// let (x, h) = (Tensor::<f32>::zeros([4, 8]), Tensor::zeros([4, 16]));
/// assert_eq!(cell.infer_all([&x, &h, &h])?[0].shape()[..], [4, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LstmCell<T = f32> {
    stack: Stack<T>,
}

recurrent!(cell LstmCell);

impl<T: Scalar> LstmCell<T> {
    /// A cell of `hidden_size` states over `input_size` features.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("LstmCell", Cell::Lstm, true, input_size, hidden_size) }
    }

    fn settings(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("input_size", self.stack.inputs)
            .with("hidden_size", self.stack.hidden)
            .with_unless(true, "bias", self.stack.bias)
    }
}

impl<T: Scalar> FromSpec<T> for LstmCell<T> {
    const FACTS: Facts = Facts::new("LstmCell")
        .family("recurrent")
        .formula("o tanh c′, c′ = f c + i g")
        .page("layers/recurrent/lstm.md")
        .torch("LSTMCell");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("input_size")?, args.get("hidden_size")?).bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3, 4).to_spec(), [[2, 3], [2, 4], [2, 4]]),
            Example::new(Self::new(3, 4).bias(false).to_spec(), [[2, 3], [2, 4], [2, 4]]),
            Example::bench(Self::new(128, 128).to_spec(), [[32, 128], [32, 128], [32, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recurrent::tests::{close, pass, set};
    use chainrule_core::{Parameters, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, inputs in 1..5usize, hidden in 1..5usize, bias in any::<bool>(),) {
            layer: LstmCell::new(inputs, hidden).bias(bias),
            inputs: [[rows, inputs], [rows, hidden], [rows, hidden]],
            wrong_inputs: [[rows, inputs + 1], [rows, hidden], [rows, hidden]],
            wrong_inputs: [[rows, inputs], [rows, hidden], [rows + 1, hidden]],
        }
    }

    /// x = 0, U = 0, b = 0, W = (1 2 3 4), h = 3, c = 2: i = f = o = ½, g = 0, c′ = 1. For δc′ = 2 alone: δa = (0, 2·2·¼, 2·½, 0),
    /// δc = 1, ∂x = 2 + 3 = 5, ∂U = 3 δa, ∂b = δa.
    #[test]
    pub fn by_hand() {
        let mut cell = LstmCell::<f64>::new(1, 1).init(0).unwrap();
        set(&mut cell, "weight_ih", &[1.0, 2.0, 3.0, 4.0]);
        for path in ["weight_hh", "bias_ih", "bias_hh"] {
            set(&mut cell, path, &[0.0; 4]);
        }
        let (x, h, c) = (Tensor::from([[0.0]]), Tensor::from([[3.0]]), Tensor::from([[2.0]]));
        let dc = Tensor::from([[2.0]]);
        let (ys, dxs, grads) = pass(&cell, &[&x, &h, &c], &[None, Some(&dc)]);
        close(&[ys[0].data()[0], ys[1].data()[0]], &[1f64.tanh() / 2.0, 1.0]);
        close(&[dxs[0].data()[0], dxs[1].data()[0], dxs[2].data()[0]], &[5.0, 0.0, 1.0]);
        let da = [0.0, 1.0, 1.0, 0.0];
        close(&grads, &[&[0.0; 4][..], &da.map(|d| 3.0 * d), &da, &da].concat());
    }
}
