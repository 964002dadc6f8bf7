//! What a pass is for, and where its noise comes from.

use chainrule_tensor::noise_key;

/// An argument of every forward pass: training, inference, or the inference function with a recording for backward.
///
/// Noise (dropout) is counter-based. Its key is made of the seed, the step and the place in the model, and a position in
/// the tensor picks the number: it depends on neither threads nor order.
///
/// ```
/// use chainrule_core::Context;
/// let cx = Context::train(7).step(120);
/// assert!(cx.training() && cx.recording());
/// assert_ne!(cx.child(0).noise_key(), cx.child(1).noise_key());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    mode: Mode,
    key: u64,
    check_finite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Train,
    Infer,
    Frozen,
}

impl Context {
    /// Training: noise and batch statistics, remembered for backward.
    #[inline]
    pub fn train(seed: u64) -> Self {
        Self { mode: Mode::Train, key: noise_key(0, seed), check_finite: false }
    }

    /// Inference: nothing is random, nothing is remembered.
    #[inline]
    pub fn infer() -> Self {
        Self { mode: Mode::Infer, key: 0, check_finite: false }
    }

    /// The inference function, remembered for backward: gradients through a network that is not being trained.
    #[inline]
    pub fn frozen() -> Self {
        Self { mode: Mode::Frozen, key: 0, check_finite: false }
    }

    /// The context of a step: another step draws other noise.
    #[must_use]
    #[inline]
    pub fn step(self, step: u64) -> Self {
        Self { key: noise_key(self.key, step), ..self }
    }

    /// The context of a container's child: another place draws other noise.
    #[must_use]
    #[inline]
    pub fn child(&self, index: usize) -> Self {
        Self { key: noise_key(self.key, index as u64), ..*self }
    }

    /// The same context, under which containers fail at the first child whose output is infinite or NaN.
    #[must_use]
    pub fn check_finite(self) -> Self {
        Self { check_finite: true, ..self }
    }

    /// Whether containers check their children's outputs.
    #[inline]
    pub fn checks_finite(&self) -> bool {
        self.check_finite
    }

    /// Whether noise and batch statistics are on.
    #[inline]
    pub fn training(&self) -> bool {
        self.mode == Mode::Train
    }

    /// Whether backward may follow.
    #[inline]
    pub fn recording(&self) -> bool {
        self.mode != Mode::Infer
    }

    /// The key of the noise drawn here; [`chainrule_tensor::noise`] turns it and a position into bits.
    #[inline]
    pub fn noise_key(&self) -> u64 {
        self.key
    }
}
