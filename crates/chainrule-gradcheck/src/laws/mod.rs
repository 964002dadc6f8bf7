//! The laws, and the macros that test them over random shapes and hyper-parameters.
//!
//! ```
//! use chainrule_gradcheck::laws;
//! # use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
//! # #[derive(Clone)]
//! # struct Scale<T> {
//! #     by: T,
//! # }
//! # impl<T: Scalar> Layer for Scale<T> {
//! #     type T = T;
//! #     type Cache = ();
//! #     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
//! #         Shape::new(input)
//! #     }
//! #     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
//! #         let s = self.by;
//! #         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = s * x);
//! #         Ok(())
//! #     }
//! #     fn backward(&self, call: Call<'_, T>, _: &mut (), _: &mut Grads<T>, dx: Option<&mut Tensor<T>>) -> Result<()> {
//! #         let Some(dx) = dx else { return Ok(()) };
//! #         let s = self.by;
//! #         dx.reset(*call.x.shape()).iter_mut().zip(call.dy.data()).for_each(|(dx, &dy)| *dx = s * dy);
//! #         Ok(())
//! #     }
//! # }
//!
//! laws! {
//!     scale_obeys_the_laws(by in -2.0..2.0, rows in 1..4usize, width in 1..6usize) {
//!         layer: Scale { by: by as T },
//!         input: [rows, width],
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! # Writing a block
//! - The macros need `proptest` among the caller's dev-dependencies.
//! - The name becomes a `#[test]`; the list after it is proptest's: names in strategies. `proptest::prelude`,
//!   `collection` and `option` are in scope.
//! - `layer:` is an expression that is built once for `f64` and once for `f32`: a layer or any other
//!   [`Module`](chainrule_core::Module). Where the type has to be said, it is `T`: `Graph::<T>::new()`. Values that are not
//!   `Copy` are cloned in it.
//! - `input:` is the shape of x, an array or a `Vec`. A module of several inputs has `inputs: [[..], [..]]` instead.
//! - Then options, each a method of [`Case`]: `wrong: [..]` a shape that must be refused (repeat it for more),
//!   `values: Values::Indices(0..n)` what the inputs hold (`values_of(1): Values::Mask` for one of several), `sequence: 1`
//!   the time axis of a layer with memory, `refuses_streams: true` of one that needs the whole sequence, `large: [..]` another shape for [`Law::Threads`].
//! - `#![cases = 8]` as the first line changes the number of cases, 24 by default. Several tests may stand in one block.
//!
//! The cases are the same ones in every run. `PROPTEST_RNG_SEED=7` draws others, `PROPTEST_CASES=1000` more.

mod calls;
mod case;
mod layer;
mod loss;
mod macros;
mod objective;
mod passes;
#[doc(hidden)]
pub mod run;
mod shapes;
mod stream;

pub use case::{Case, TargetKind, Values};
pub use chainrule_core::BoxModule;
pub use layer::{call_laws, layer_laws};
pub use loss::{LossCase, loss_laws};
pub use objective::objective_laws;

use std::fmt;

/// The laws of layers and of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// `output_shape` is what forward makes, and wrong shapes are errors.
    Shapes,
    /// ∂E/∂x (of a loss, ∂E/∂y) agrees with central differences.
    InputGradient,
    /// Every ∂E/∂θ agrees with central differences.
    ParameterGradients,
    /// Infer is forward under `frozen()`, and records nothing.
    Inference,
    /// The same context gives the same bits, whatever stood in the buffers.
    SameBits,
    /// Where `reads_output` is false, y may be overwritten before backward.
    UnreadOutputs,
    /// Two backwards double ∂θ and leave dx.
    TwoBackwards,
    /// Without dx, ∂θ is the same.
    WithoutInputGradient,
    /// Backward is linear in dy, and zero at zero.
    Linearity,
    /// A cache used for another batch size and back gives the same bits.
    ReusedCache,
    /// A cache that is fresh or of other inputs is refused, or does not matter.
    ForeignCache,
    /// Backward refuses shapes that do not fit the recorded pass.
    WrongCalls,
    /// An absent ∂E/∂y means zeros.
    AbsentGradients,
    /// The in-place twin gives the bits of forward and backward.
    InPlace,
    /// A stream gives the bits of inference: of each batch, or of the whole sequence where there is memory over time.
    Streaming,
    /// Multiply-adds are proportional to the batch, and defined for every shape that is accepted.
    Cost,
    /// Freezing one parameter leaves the others' gradients.
    Freezing,
    /// Names are unique, and save then load gives the same bits.
    SavedAndLoaded,
    /// f32 agrees with f64.
    SinglePrecision,
    /// Any number of threads gives the same bits.
    Threads,
    /// Of a loss: ∂E/∂t agrees with central differences, and classes have none.
    TargetGradient,
    /// Of a loss: the value and the gradient in one pass are those of forward and backward.
    OnePass,
    /// Of a loss: the sum is the sum of the single losses, and the mean is in proportion to it, slopes included.
    Reductions,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shapes => "output_shape is what forward makes, and wrong shapes are errors",
            Self::InputGradient => "the gradient of the input agrees with central differences",
            Self::ParameterGradients => "the gradients of parameters agree with central differences",
            Self::Inference => "infer is forward under frozen, and records nothing",
            Self::SameBits => "the same context gives the same bits",
            Self::UnreadOutputs => "where backward does not read y, y may be overwritten",
            Self::TwoBackwards => "two backwards double the parameters' gradients and leave dx",
            Self::WithoutInputGradient => "without dx the parameters' gradients are the same",
            Self::Linearity => "backward is linear in dy, and zero at zero",
            Self::ReusedCache => "a cache used for another batch size and back gives the same bits",
            Self::ForeignCache => "a cache that is fresh or of other inputs is refused, or does not matter",
            Self::WrongCalls => "backward refuses shapes that do not fit the recorded pass",
            Self::AbsentGradients => "an absent gradient of an output means zeros",
            Self::InPlace => "the in-place twin gives the bits of forward and backward",
            Self::Streaming => "a stream gives the bits of inference",
            Self::Cost => "multiply-adds are proportional to the batch",
            Self::Freezing => "freezing one parameter leaves the others' gradients",
            Self::SavedAndLoaded => "names are unique, and save then load gives the same bits",
            Self::SinglePrecision => "f32 agrees with f64",
            Self::Threads => "any number of threads gives the same bits",
            Self::TargetGradient => "the gradient of the target agrees with central differences",
            Self::OnePass => "value and gradient in one pass are those of forward and backward",
            Self::Reductions => "sum and mean are made of the single losses",
        })
    }
}

/// A law that was broken, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// Which law.
    pub law: Law,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken law: {}\n  {}", self.law, self.what.replace('\n', "\n  "))
    }
}

/// Why a law does not hold.
pub(crate) struct Broken(pub(crate) String);

impl From<chainrule_core::Error> for Broken {
    fn from(error: chainrule_core::Error) -> Self {
        Self(format!("an error where none was expected: {error}"))
    }
}

impl From<String> for Broken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

pub(crate) type Outcome = Result<(), Broken>;

/// Adds a violation if a law's test fails or panics.
pub(crate) fn hold(law: Law, out: &mut Vec<Violation>, test: impl FnOnce() -> Outcome) {
    let what = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)) {
        Ok(Ok(())) => return,
        Ok(Err(Broken(what))) => what,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            format!("panicked: {}", text.unwrap_or("without a text"))
        }
    };
    out.push(Violation { law, what });
}
