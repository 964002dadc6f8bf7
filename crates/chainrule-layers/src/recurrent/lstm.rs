//! Long short-term memory (Hochreiter and Schmidhuber, 1997).
//!
//! ```text
//! (i f g o) = W xₜ + U hₜ₋₁ + b_ih + b_hh,   i, f, o ← σ,   g ← tanh
//! cₜ = f cₜ₋₁ + i g        hₜ = o tanh cₜ,   or R (o tanh cₜ) with a projection R
//! ```
//!
//! Given δhₜ and δcₜ, what comes from y and from step t + 1 (of a projection, δm = Rᵀ δh in place of δh):
//!
//! ```text
//! δcₜ += δhₜ o (1 − tanh² cₜ)        δcₜ₋₁ = δcₜ f
//! δa = (δcₜ g i(1 − i),  δcₜ cₜ₋₁ f(1 − f),  δcₜ i (1 − g²),  δhₜ tanh(cₜ) o(1 − o))
//! ∂E/∂xₜ = Wᵀ δaₜ        δhₜ₋₁ = Uᵀ δaₜ
//! ∂E/∂W = Σₜ δaₜ xₜᵀ        ∂E/∂U = Σₜ δaₜ hₜ₋₁ᵀ        ∂E/∂b = Σₜ δaₜ        ∂E/∂R = Σₜ δhₜ (o tanh cₜ)ᵀ
//! ```
//!
//! Keeps the gates, h and c of every step. Derivation: docs/layers/recurrent/lstm.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// cₜ = f cₜ₋₁ + i g and hₜ = o tanh cₜ, with gates i, f, o = σ(W xₜ + U hₜ₋₁ + b) and g = tanh(…). Hochreiter and
/// Schmidhuber, *Long short-term memory*, 1997; the projection is that of Sak, Senior and Beaufays, 2014.
///
/// # Shapes
/// x (N, T, I), or (T, N, I) with `.batch_first(false)`; y the same with D · P in place of I, D being 1 or 2
/// directions. With `.states(true)` further inputs h₀ (D · layers, N, P) and c₀ (D · layers, N, H), outputs the last h
/// and c. `weight_ih_l0` (4H, I), of layers above (4H, D · P), `weight_hh_l0` (4H, P), `bias_ih_l0` and `bias_hh_l0`
/// (4H), with a projection `weight_hr_l0` (P, H); without one P is H; `_reverse` behind them for the second direction.
/// All start uniform in ±1/√H, as PyTorch's do.
///
/// With `.lengths(true)` the second input holds the lengths of the sequences, (N): as of PyTorch's packed sequences,
/// outputs behind the end are 0, the last states are those of the last real step, and the second direction starts
/// there. In a stream they are those of the whole sequences, given with each piece.
///
/// # Errors
/// Sizes of 0, a projection not smaller than the hidden size, a dropout outside 0 to 1: when built. A length that is no
/// whole number from 1 to T, and in a stream another batch size or two directions: in a pass.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Lstm;
/// let layer = Lstm::new(8, 16).num_layers(2).states(true).init(1)?;
/// let (x, h, c) = (Tensor::<f32>::zeros([4, 10, 8]), Tensor::zeros([2, 4, 16]), Tensor::zeros([2, 4, 16]));
/// let ys = layer.infer_all([&x, &h, &c])?; // y, and the states that the next sequence goes on from
/// assert_eq!((ys[0].shape()[..].to_vec(), ys[2].shape()[..].to_vec()), (vec![4, 10, 16], vec![2, 4, 16]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Lstm<T = f32> {
    stack: Stack<T>,
}

recurrent!(Lstm);

impl<T: Scalar> Lstm<T> {
    /// A layer of `hidden_size` states over `input_size` features.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("Lstm", Cell::Lstm, false, input_size, hidden_size) }
    }

    /// The size P to which a linear map without bias brings h, 0 for no such map.
    #[must_use]
    pub fn proj_size(mut self, proj_size: usize) -> Self {
        self.stack.projection = proj_size;
        Self { stack: self.stack.rebuilt() }
    }

    fn settings(&self) -> Spec {
        self.common(Spec::new(Self::FACTS.kind)).with_unless(0, "proj_size", self.stack.projection)
    }
}

impl<T: Scalar> FromSpec<T> for Lstm<T> {
    const FACTS: Facts = Facts::new("Lstm")
        .family("recurrent")
        .formula("o tanh cₜ, cₜ = f cₜ₋₁ + i g")
        .page("layers/recurrent/lstm.md")
        .torch("LSTM");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::from_common(args)?.proj_size(args.or("proj_size", 0)?))
    }

    fn examples() -> Vec<Example> {
        let all = Self::new(3, 4)
            .num_layers(2)
            .bias(false)
            .batch_first(false)
            .dropout(0.25)
            .bidirectional(true)
            .proj_size(2)
            .states(true)
            .last(true);
        vec![
            Example::new(Self::new(3, 4).to_spec(), [[2, 5, 3]]),
            Example::new(all.to_spec(), [[5, 2, 3], [4, 2, 2], [4, 2, 4]]),
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
            (inputs, hidden, layers) in (1..4usize, 2..5usize, 1..4usize),
            (bias, batch_first, both, states) in any::<[bool; 4]>().prop_map(|[a, b, c, d]| (a, b, c, d)),
            (lengths, last, finals) in any::<[bool; 3]>().prop_map(|[a, b, c]| (a, b, c)),
            dropout in prop_oneof![Just(0.0), Just(0.4)],
            projection in 0..2usize,
        ) {
            layer: Lstm::new(inputs, hidden).num_layers(layers).bias(bias).batch_first(batch_first).bidirectional(both)
                .states(states).lengths(lengths).last(last).final_states(finals).dropout(dropout).proj_size(projection),
            inputs: shapes::<2>([rows, time, inputs], layers * (1 + usize::from(both)), [if projection > 0 { projection } else { hidden }, hidden], [batch_first, lengths, states]),
            wrong_inputs: shapes::<2>([rows, time, inputs + 1], layers * (1 + usize::from(both)), [if projection > 0 { projection } else { hidden }, hidden], [batch_first, lengths, states]),
            batch_axis_of(0): usize::from(!batch_first),
            batch_axis_of(1 + usize::from(lengths)): 1,
            batch_axis_of(2 + usize::from(lengths)): 1,
            values_of(1): if lengths { Values::Lengths(time) } else { Values::Normal },
            sequence: usize::from(batch_first),
            refuses_streams: both,
        }
    }

    /// x = 0, U = 0, b = 0, W = (1 2 3 4), h = 3, c = 2: i = f = o = ½, g = 0, c′ = 1, h′ = τ/2 with τ = tanh 1. For δh′ = 1:
    /// δc′ = (1 − τ²)/2, δa = (0, 2 δc′/4, δc′/2, τ/4), δc = δc′/2, ∂x = 2·δc′/2 + 3·δc′/2 + 4·τ/4 = 5/2 δc′ + τ, ∂W = 0,
    /// ∂U = 3 δa, ∂b = δa, δh = 0.
    #[test]
    pub fn by_hand() {
        let mut layer = Lstm::<f64>::new(1, 1).states(true).init(0).unwrap();
        set(&mut layer, "weight_ih_l0", &[1.0, 2.0, 3.0, 4.0]);
        for path in ["weight_hh_l0", "bias_ih_l0", "bias_hh_l0"] {
            set(&mut layer, path, &[0.0; 4]);
        }
        let (x, one) = (Tensor::from([[[0.0]]]), Tensor::from([[[1.0]]]));
        let (h, c) = (Tensor::from([[[3.0]]]), Tensor::from([[[2.0]]]));
        let (ys, dxs, grads) = pass(&layer, &[&x, &h, &c], &[Some(&one), None, None]);
        let tau = 1f64.tanh();
        let dc = (1.0 - tau * tau) / 2.0;
        let da = [0.0, dc / 2.0, dc / 2.0, tau / 4.0];
        close(&[ys[0].data()[0], ys[1].data()[0], ys[2].data()[0]], &[tau / 2.0, tau / 2.0, 1.0]);
        close(&[dxs[0].data()[0], dxs[1].data()[0], dxs[2].data()[0]], &[2.5 * dc + tau, 0.0, dc / 2.0]);
        close(&grads, &[&[0.0; 4][..], &da.map(|d| 3.0 * d), &da, &da].concat());
    }
}
