//! What a pass is for, and where its noise comes from.

use chainrule_tensor::noise_key;

/// An argument of every forward pass: training, inference, streaming, or the inference function with a recording for
/// backward. `Copy`, so it goes by value.
///
/// Noise (dropout) is counter-based. Its key is made of the seed, the step and the place in the model, and a position in
/// the tensor picks the bits: they depend on neither threads nor order.
///
/// ```
/// use chainrule_core::Context;
/// let cx = Context::train(7).step(120);
/// assert!(cx.training() && cx.recording());
/// assert_ne!(cx.child(0).noise_key(), cx.child(1).noise_key());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    purpose: Purpose,
    key: u64,
    check_finite: bool,
    noise_scale: Scale,
}

/// The noise of a layer in a training pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Noise {
    /// [`Context::noise_key`].
    pub key: u64,
    /// The factor in [0, 1] of its probability or deviation; see [`Context::scale_noise`].
    pub scale: f64,
}

/// A factor in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale(f32);

// Never NaN.
impl Eq for Scale {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Train,
    Infer,
    Frozen,
    Stream,
}

/// How a part of a model takes part in training; see [`Module::set_mode`](crate::Module::set_mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As the pass says.
    #[default]
    Training,
    /// The inference function, also in training: running statistics, which stay as they are, and no noise. Gradients go
    /// through it.
    Inference,
}

impl Context {
    #[inline]
    fn new(purpose: Purpose, key: u64) -> Self {
        Self { purpose, key, check_finite: false, noise_scale: Scale(1.0) }
    }

    /// Training: noise and batch statistics, recorded for backward.
    #[inline]
    pub fn train(seed: u64) -> Self {
        Self::new(Purpose::Train, noise_key(0, seed))
    }

    /// Inference: deterministic, nothing is recorded.
    #[inline]
    pub fn infer() -> Self {
        Self::new(Purpose::Infer, 0)
    }

    /// The inference function, recorded for backward: gradients through a network that is not being trained.
    #[inline]
    pub fn frozen() -> Self {
        Self::new(Purpose::Frozen, 0)
    }

    /// Inference on the next piece of a sequence. A layer with memory over time (recurrent, causal attention) keeps its
    /// state in the cache, and gives piece by piece the bits that it gives for the whole; every other layer does what it
    /// does under [`Context::infer`]. A default cache is the start of a sequence.
    #[inline]
    pub fn stream() -> Self {
        Self::new(Purpose::Stream, 0)
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
    pub fn child(self, index: usize) -> Self {
        Self { key: noise_key(self.key, index as u64), ..self }
    }

    /// The context of a part in a mode: under [`Mode::Inference`], training becomes [`Context::frozen`].
    #[must_use]
    #[inline]
    pub fn narrow(self, mode: Mode) -> Self {
        match mode {
            Mode::Inference if self.training() => Self { purpose: Purpose::Frozen, ..self },
            _ => self,
        }
    }

    /// The same context with finite checks on: containers fail at the first child whose output is infinite or NaN.
    #[must_use]
    pub fn check_finite(self) -> Self {
        Self { check_finite: true, ..self }
    }

    /// The same context with weaker noise: the probability of every dropout of the pass, and the deviation of every other noise, is
    /// multiplied by a factor in [0, 1]; what lies outside counts as the nearer end, NaN as 1. A schedule of dropout is this factor of each step.
    #[must_use]
    pub fn scale_noise(self, by: f64) -> Self {
        let by = if by.is_nan() { 1.0 } else { by.clamp(0.0, 1.0) };
        Self { noise_scale: Scale(by as f32), ..self }
    }

    /// The noise to be drawn here: none outside training.
    #[inline]
    pub fn noise(self) -> Option<Noise> {
        self.training().then(|| Noise { key: self.key, scale: f64::from(self.noise_scale.0) })
    }

    /// Whether finite checks are on.
    #[inline]
    pub fn checks_finite(self) -> bool {
        self.check_finite
    }

    /// Whether noise and batch statistics are on.
    #[inline]
    pub fn training(self) -> bool {
        self.purpose == Purpose::Train
    }

    /// Whether backward may follow.
    #[inline]
    pub fn recording(self) -> bool {
        matches!(self.purpose, Purpose::Train | Purpose::Frozen)
    }

    /// Whether the input continues the sequence that the cache remembers.
    #[inline]
    pub fn streaming(self) -> bool {
        self.purpose == Purpose::Stream
    }

    /// The key of the noise drawn here; [`chainrule_tensor::noise`] turns it and a position into bits.
    #[inline]
    pub fn noise_key(self) -> u64 {
        self.key
    }
}
