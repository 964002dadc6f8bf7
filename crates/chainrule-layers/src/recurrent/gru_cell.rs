//! One step of the gated recurrent unit (Cho and others, 2014).
//!
//! ```text
//! r, z = σ(W x + b_ih + U h + b_hh)        n = tanh(W x + b_ih + r (U h + b_hh))        h′ = (1 − z) n + z h
//! ```
//!
//! The equations, and what backward does with them, are those of `Gru`. Derivation: docs/layers/recurrent/gru.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// One step of [`Gru`](crate::Gru), for loops over time of one's own.
///
/// # Shapes
/// Inputs x (N, I) and h (N, H), outputs h′ (N, H). `weight_ih` (3H, I), `weight_hh` (3H, H), `bias_ih` and `bias_hh`
/// (3H). All start uniform in ±1/√H, as PyTorch's do.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::GruCell;
/// let cell = GruCell::new(8, 16).init(1)?;
/// let (x, h) = (Tensor::<f32>::zeros([4, 8]), Tensor::zeros([4, 16]));
/// assert_eq!(cell.infer_all([&x, &h])?[0].shape()[..], [4, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct GruCell<T = f32> {
    stack: Stack<T>,
}

recurrent!(cell GruCell);

impl<T: Scalar> GruCell<T> {
    /// A cell of `hidden_size` states over `input_size` features.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("GruCell", Cell::Gru, true, input_size, hidden_size) }
    }

    fn settings(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("input_size", self.stack.inputs)
            .with("hidden_size", self.stack.hidden)
            .with_unless(true, "bias", self.stack.bias)
    }
}

impl<T: Scalar> FromSpec<T> for GruCell<T> {
    const FACTS: Facts = Facts::new("GruCell")
        .family("recurrent")
        .formula("(1 − z) n + z h")
        .page("layers/recurrent/gru.md")
        .torch("GRUCell");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("input_size")?, args.get("hidden_size")?).bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3, 4).to_spec(), [[2, 3], [2, 4]]),
            Example::new(Self::new(3, 4).bias(false).to_spec(), [[2, 3], [2, 4]]),
            Example::bench(Self::new(128, 128).to_spec(), [[32, 128], [32, 128]]),
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
            layer: GruCell::new(inputs, hidden).bias(bias),
            inputs: [[rows, inputs], [rows, hidden]],
            wrong_inputs: [[rows, inputs + 1], [rows, hidden]],
            wrong_inputs: [[rows, inputs], [rows + 1, hidden]],
        }
    }

    /// x = 0, U = 0, b = 0 but for the third of b_hh, which is 2, W = (1 2 4), h = 0: r = z = ½, q = 2, n = τ = tanh 1, h′ = τ/2. For
    /// δh′ = 1, with s = 1 − τ²: δaₙ = s/2, δq = s/4, δaᵣ = s/2·2·¼ = s/4, δa_z = −τ/4, ∂x = s/4 − τ/2 + 2 s, δh = ½.
    #[test]
    pub fn by_hand() {
        let mut cell = GruCell::<f64>::new(1, 1).init(0).unwrap();
        set(&mut cell, "weight_ih", &[1.0, 2.0, 4.0]);
        set(&mut cell, "weight_hh", &[0.0; 3]);
        set(&mut cell, "bias_ih", &[0.0; 3]);
        set(&mut cell, "bias_hh", &[0.0, 0.0, 2.0]);
        let (x, h, dy) = (Tensor::from([[0.0]]), Tensor::from([[0.0]]), Tensor::from([[1.0]]));
        let (ys, dxs, grads) = pass(&cell, &[&x, &h], &[Some(&dy)]);
        let tau = 1f64.tanh();
        let s = 1.0 - tau * tau;
        close(ys[0].data(), &[tau / 2.0]);
        close(&[dxs[0].data()[0], dxs[1].data()[0]], &[s / 4.0 - tau / 2.0 + 2.0 * s, 0.5]);
        close(&grads[6..], &[s / 4.0, -tau / 4.0, s / 2.0, s / 4.0, -tau / 4.0, s / 4.0]);
    }
}
