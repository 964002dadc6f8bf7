//! The gated recurrent unit (Cho and others, 2014), with the reset gate behind the product, as in cuDNN and PyTorch.
//!
//! ```text
//! (aᵣ a_z aₙ) = W xₜ + b_ih        (uᵣ u_z q) = U hₜ₋₁ + b_hh
//! r = σ(aᵣ + uᵣ)        z = σ(a_z + u_z)        n = tanh(aₙ + r q)        hₜ = (1 − z) n + z hₜ₋₁
//! ```
//!
//! Given δh, what comes from yₜ and from step t + 1:
//!
//! ```text
//! δaₙ = δh (1 − z)(1 − n²)        δq = δaₙ r        δaᵣ = δaₙ q r(1 − r)        δa_z = δh (hₜ₋₁ − n) z(1 − z)
//! δa = (δaᵣ δa_z δaₙ)        δu = (δaᵣ δa_z δq)        ∂E/∂xₜ = Wᵀ δa        δhₜ₋₁ = δh z + Uᵀ δu
//! ∂E/∂W = Σₜ δa xₜᵀ        ∂E/∂U = Σₜ δu hₜ₋₁ᵀ        ∂E/∂b_ih = Σₜ δa        ∂E/∂b_hh = Σₜ δu
//! ```
//!
//! Keeps the gates, q and h of every step. Derivation: docs/layers/recurrent/gru.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// hₜ = (1 − z) n + z hₜ₋₁, with gates r, z = σ(W xₜ + U hₜ₋₁ + b) and n = tanh(W xₜ + b + r (U hₜ₋₁ + b)). Cho and
/// others, *Learning phrase representations using RNN encoder–decoder for statistical machine translation*, 2014.
///
/// # Shapes
/// x (N, T, I), or (T, N, I) with `.batch_first(false)`; y the same with D · H in place of I, D being 1 or 2
/// directions. With `.states(true)` further inputs h₀ (D · layers, N, H), outputs the last h. `weight_ih_l0` (3H, I),
/// of layers above (3H, D · H), `weight_hh_l0` (3H, H), `bias_ih_l0` and `bias_hh_l0` (3H); `_reverse` behind them for
/// the second direction. All start uniform in ±1/√H, as PyTorch's do.
///
/// With `.lengths(true)` the second input holds the lengths of the sequences, (N): as of PyTorch's packed sequences,
/// outputs behind the end are 0, the last states are those of the last real step, and the second direction starts
/// there. In a stream they are those of the whole sequences, given with each piece.
///
/// # Errors
/// Sizes of 0, a dropout outside 0 to 1: when built. A length that is no whole number from 1 to T, and in a stream
/// another batch size or two directions: in a pass.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Gru;
/// let layer = Gru::new(8, 16).lengths(true).last(true).init(1)?;
/// let (x, lengths) = (Tensor::<f32>::zeros([3, 10, 8]), Tensor::from([10.0, 4.0, 7.0]));
/// assert_eq!(layer.infer([&x, &lengths])?.shape()[..], [3, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Gru<T = f32> {
    stack: Stack<T>,
}

recurrent!(Gru);

impl<T: Scalar> Gru<T> {
    /// A layer of `hidden_size` states over `input_size` features.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("Gru", Cell::Gru, false, input_size, hidden_size) }
    }

    fn settings(&self) -> Spec {
        self.common(Spec::new(Self::FACTS.kind))
    }
}

impl<T: Scalar> FromSpec<T> for Gru<T> {
    const FACTS: Facts = Facts::new("Gru")
        .family("recurrent")
        .formula("(1 − z) n + z hₜ₋₁")
        .page("layers/recurrent/gru.md")
        .torch("GRU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::from_common(args)
    }

    fn examples() -> Vec<Example> {
        let all = Self::new(3, 4)
            .num_layers(2)
            .bias(false)
            .batch_first(false)
            .dropout(0.25)
            .bidirectional(true)
            .states(true)
            .last(true);
        vec![
            Example::new(Self::new(3, 4).to_spec(), [[2, 5, 3]]),
            Example::new(all.to_spec(), [[5, 2, 3], [4, 2, 4]]),
            Example::new(Self::new(3, 4).final_states(true).to_spec(), [[2, 5, 3]]),
            Example::bench(Self::new(128, 128).to_spec(), [[32, 64, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recurrent::tests::{close, pass, set, shapes};
    use chainrule_core::{Parameters, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 16]
        obeys_the_laws(
            (rows, time) in (1..4usize, prop_oneof![Just(1usize), Just(3), Just(7)]),
            (inputs, hidden, layers) in (1..4usize, 1..4usize, 1..4usize),
            (bias, batch_first, both, states) in any::<[bool; 4]>().prop_map(|[a, b, c, d]| (a, b, c, d)),
            (lengths, last, finals) in any::<[bool; 3]>().prop_map(|[a, b, c]| (a, b, c)),
            dropout in prop_oneof![Just(0.0), Just(0.4)],
        ) {
            layer: Gru::new(inputs, hidden).num_layers(layers).bias(bias).batch_first(batch_first).bidirectional(both)
                .states(states).lengths(lengths).last(last).final_states(finals).dropout(dropout),
            inputs: shapes::<1>([rows, time, inputs], layers * (1 + usize::from(both)), [hidden], [batch_first, lengths, states]),
            wrong_inputs: shapes::<1>([rows, time, inputs + 1], layers * (1 + usize::from(both)), [hidden], [batch_first, lengths, states]),
            batch_axis_of(0): usize::from(!batch_first),
            batch_axis_of(1 + usize::from(lengths)): 1,
            batch_axis_of(2 + usize::from(lengths)): 1,
            values_of(1): if lengths { Values::Lengths(time) } else { Values::Normal },
            sequence: usize::from(batch_first),
            refuses_streams: both,
        }
    }

    /// x = 0, U = 0, b = 0, W = (1 2 4), h = 2: r = z = ½, q = n = 0, h′ = 1. For δh′ = 1: δaₙ = ½, δq = ¼, δaᵣ = 0,
    /// δa_z = 2·¼ = ½, δh = ½, ∂x = 2·½ + 4·½ = 3, ∂W = 0, ∂U = 2 (0, ½, ¼), ∂b_ih = (0, ½, ½), ∂b_hh = (0, ½, ¼).
    #[test]
    pub fn by_hand() {
        let mut layer = Gru::<f64>::new(1, 1).states(true).init(0).unwrap();
        set(&mut layer, "weight_ih_l0", &[1.0, 2.0, 4.0]);
        for path in ["weight_hh_l0", "bias_ih_l0", "bias_hh_l0"] {
            set(&mut layer, path, &[0.0; 3]);
        }
        let (x, h, one) = (Tensor::from([[[0.0]]]), Tensor::from([[[2.0]]]), Tensor::from([[[1.0]]]));
        let (ys, dxs, grads) = pass(&layer, &[&x, &h], &[None, Some(&one)]);
        close(&[ys[0].data()[0], ys[1].data()[0]], &[1.0, 1.0]);
        close(&[dxs[0].data()[0], dxs[1].data()[0]], &[3.0, 0.5]);
        close(&grads, &[0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.5, 0.5, 0.0, 0.5, 0.25]);
    }
}
