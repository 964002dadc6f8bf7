//! The simple recurrent layer (Elman, 1990).
//!
//! ```text
//! aₜ = W xₜ + U hₜ₋₁ + b_ih + b_hh        hₜ = tanh aₜ, or max(aₜ, 0)
//! ```
//!
//! Given δhₜ = ∂E/∂yₜ + what step t + 1 gives:
//!
//! ```text
//! δaₜ = δhₜ ⊙ f′(aₜ)        ∂E/∂xₜ = Wᵀ δaₜ        δhₜ₋₁ = Uᵀ δaₜ
//! ∂E/∂W = Σₜ δaₜ xₜᵀ        ∂E/∂U = Σₜ δaₜ hₜ₋₁ᵀ        ∂E/∂b = Σₜ δaₜ
//! ```
//!
//! Keeps h of every step. Derivation: docs/layers/recurrent/rnn.md.

use super::{
    recurrent,
    stack::{Cell, Stack},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Module, Result, Scalar, Spec};

/// hₜ = tanh(W xₜ + U hₜ₋₁ + b), or with ReLU in place of tanh. Elman, *Finding structure in time*, 1990.
///
/// # Shapes
/// x (N, T, I), or (T, N, I) with `.batch_first(false)`; y the same with D · H in place of I, D being 1 or 2
/// directions. With `.states(true)` further inputs h₀ (D · layers, N, H), outputs the last h. `weight_ih_l0` (H, I), of
/// layers above (H, D · H), `weight_hh_l0` (H, H), `bias_ih_l0` and `bias_hh_l0` (H); `_reverse` behind them for the
/// second direction. All start uniform in ±1/√H, as PyTorch's do.
///
/// With `.lengths(true)` the second input holds the lengths of the sequences, (N): as of PyTorch's packed sequences,
/// outputs behind the end are 0, the last states are those of the last real step, and the second direction starts
/// there. In a stream they are those of the whole sequences, given with each piece.
///
/// # Errors
/// Sizes of 0, a nonlinearity that is neither "tanh" nor "relu", a dropout outside 0 to 1: when built. A length that is
/// no whole number from 1 to T, and in a stream another batch size or two directions: in a pass.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Rnn;
/// let layer = Rnn::new(8, 16).nonlinearity("relu").init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([4, 10, 8]))?.shape()[..], [4, 10, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Rnn<T = f32> {
    stack: Stack<T>,
}

recurrent!(Rnn);

impl<T: Scalar> Rnn<T> {
    /// A layer of `hidden_size` states over `input_size` features, with tanh.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { stack: Stack::new("Rnn", Cell::Tanh, false, input_size, hidden_size) }
    }

    /// The function of a step, `"tanh"` (the default) or `"relu"`.
    #[must_use]
    pub fn nonlinearity(self, nonlinearity: impl AsRef<str>) -> Self {
        let mut stack = self.stack;
        stack.set_nonlinearity(nonlinearity.as_ref());
        Self { stack }
    }

    fn settings(&self) -> Spec {
        self.common(Spec::new(Self::FACTS.kind)).with_unless(
            "tanh",
            "nonlinearity",
            self.stack.nonlinearity(),
        )
    }
}

impl<T: Scalar> FromSpec<T> for Rnn<T> {
    const FACTS: Facts = Facts::new("Rnn")
        .family("recurrent")
        .formula("tanh(W xₜ + U hₜ₋₁ + b)")
        .page("layers/recurrent/rnn.md")
        .torch("RNN");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let nonlinearity: String = args.or("nonlinearity", "tanh".to_owned())?;
        Ok(Self::from_common(args)?.nonlinearity(nonlinearity))
    }

    fn examples() -> Vec<Example> {
        let all = Self::new(3, 4)
            .num_layers(2)
            .bias(false)
            .batch_first(false)
            .dropout(0.25)
            .bidirectional(true)
            .nonlinearity("relu")
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
            relu in any::<bool>(),
        ) {
            layer: Rnn::new(inputs, hidden).num_layers(layers).bias(bias).batch_first(batch_first).bidirectional(both)
                .states(states).lengths(lengths).last(last).final_states(finals).dropout(dropout).nonlinearity(if relu { "relu" } else { "tanh" }),
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

    /// ReLU, w = 2, u = 3, b = 1, x = (1, −1): h₁ = 2 + 1 = 3, h₂ = −2 + 9 + 1 = 8. For ∂E/∂y = (0, 1): δa₂ = 1, δh₁ = 3 = δa₁.
    /// ∂w = 1·(−1) + 3·1 = 2, ∂u = 1·3 + 3·0 = 3, ∂b = 4, ∂x = (6, 2).
    #[test]
    pub fn by_hand() {
        let mut layer = Rnn::<f64>::new(1, 1).nonlinearity("relu").init(0).unwrap();
        for (path, value) in
            [("weight_ih_l0", 2.0), ("weight_hh_l0", 3.0), ("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)]
        {
            set(&mut layer, path, &[value]);
        }
        let (x, dy) = (Tensor::from([[[1.0], [-1.0]]]), Tensor::from([[[0.0], [1.0]]]));
        let (ys, dxs, grads) = pass(&layer, &[&x], &[Some(&dy)]);
        close(ys[0].data(), &[3.0, 8.0]);
        close(dxs[0].data(), &[6.0, 2.0]);
        close(&grads, &[2.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn a_function_that_there_is_not_is_an_error() {
        assert!(Rnn::<f32>::new(1, 1).nonlinearity("sine").init(0).unwrap_err().to_string().contains("sine"));
    }
}
