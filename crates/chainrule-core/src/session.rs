//! Inference that reuses its memory.

use crate::{Context, Error, Inputs, Module, Parameters, Result, StreamState, memory, module::apply};
use chainrule_tensor::Tensor;
use std::{fmt, ops::Deref};

/// Runs a model again and again; after the first call of a size nothing is allocated. Each thread has its own.
///
/// It holds a reference, or shares or owns the model: `Session::new(&model)`, `Session::new(Arc::clone(&model))`,
/// `Session::new(Box::new(model))`.
///
/// ```
/// # use chainrule_core::{Module, Session};
/// # fn classify<M: Module<T = f32>>(model: &M, x: &chainrule_tensor::Tensor) -> chainrule_core::Result<usize> {
/// let mut session = Session::new(model);
/// let y = session.run(x)?;
/// # Ok(y.argmax_rows()[0])
/// # }
/// ```
pub struct Session<P: Deref<Target: Module>> {
    model: P,
    state: <P::Target as Module>::State,
    ys: Vec<Tensor<<P::Target as Parameters>::T>>,
    /// The rows of one tensor while they are reordered.
    rows: Vec<<P::Target as Parameters>::T>,
}

/// The element type of a session's model.
type Element<P> = <<P as Deref>::Target as Parameters>::T;

impl<P: Deref<Target: Module>> Session<P> {
    /// A session of a model.
    pub fn new(model: P) -> Self {
        let ys = (0..model.outputs()).map(|_| Tensor::default()).collect();
        Self { model, state: Default::default(), ys, rows: Vec::new() }
    }

    /// y = f(x), of a model with one output; it stays until the next call.
    ///
    /// # Errors
    /// As [`Module::apply`], and if there are several outputs.
    pub fn run(&mut self, inputs: impl Inputs<Element<P>>) -> Result<&Tensor<Element<P>>> {
        self.pass(inputs, Context::infer())?;
        self.only()
    }

    /// All outputs; they stay until the next call.
    ///
    /// # Errors
    /// As [`Module::apply`].
    pub fn run_all(&mut self, inputs: impl Inputs<Element<P>>) -> Result<&[Tensor<Element<P>>]> {
        self.pass(inputs, Context::infer())?;
        Ok(&self.ys)
    }

    /// The output for the next piece of a sequence, see [`Context::stream`]; [`Session::reset`] begins another sequence.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn stream(&mut self, inputs: impl Inputs<Element<P>>) -> Result<&Tensor<Element<P>>> {
        self.pass(inputs, Context::stream())?;
        self.only()
    }

    /// All outputs for the next piece of a sequence.
    ///
    /// # Errors
    /// As [`Module::apply`].
    pub fn stream_all(&mut self, inputs: impl Inputs<Element<P>>) -> Result<&[Tensor<Element<P>>]> {
        self.pass(inputs, Context::stream())?;
        Ok(&self.ys)
    }

    /// Forgets the sequence so far.
    pub fn reset(&mut self) {
        self.state = Default::default();
    }

    /// A copy of what the stream remembers of the sequence so far. With [`Session::restore_stream`] the stream goes on from here as
    /// often as wanted, with the same bits; `stream_to_bytes` in `chainrule-io` writes it for another process.
    ///
    /// # Errors
    /// A layer lists two parts under one name.
    pub fn stream_state(&mut self) -> Result<StreamState<Element<P>>> {
        let Self { model, state, .. } = self;
        StreamState::of(|out| model.remember(state, out))
    }

    /// Goes on from where [`Session::stream_state`] was called, in this session or in one of a model of the same sizes and weights.
    /// After an error nothing has changed.
    ///
    /// # Errors
    /// A part is missing, unexpected or of another shape.
    pub fn restore_stream(&mut self, from: &StreamState<Element<P>>) -> Result<()> {
        let mut state = Default::default();
        from.restore(|out| self.model.remember(&mut state, out))?;
        self.state = state;
        Ok(())
    }

    /// Row i of the batch goes on as row `rows[i]` of the stream so far; rows may be repeated and left out, so that the batch
    /// grows or shrinks. A search by beams keeps those sequences that it goes on with by this. After an error nothing has changed.
    ///
    /// # Errors
    /// A row that there is not.
    pub fn reorder(&mut self, rows: &[usize]) -> Result<()> {
        let Self { model, state, rows: scratch, .. } = self;
        memory::reorder(rows, scratch, |out| model.remember(state, out))
    }

    /// The model.
    pub fn model(&self) -> &P::Target {
        &self.model
    }

    fn pass(&mut self, inputs: impl Inputs<Element<P>>, cx: Context) -> Result<()> {
        let Self { model, state, ys, .. } = self;
        inputs.with(|xs| apply(&**model, xs, ys, state, cx))
    }

    fn only(&self) -> Result<&Tensor<Element<P>>> {
        match &self.ys[..] {
            [y] => Ok(y),
            ys => Err(Error::value(format!(
                "expected a model of one output, got {}: use `run_all` or `stream_all`",
                ys.len()
            ))),
        }
    }
}

impl<P: Deref<Target: Module>> fmt::Debug for Session<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("model", &self.model.to_spec()).finish_non_exhaustive()
    }
}
