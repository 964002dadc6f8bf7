//! Neural networks in pure Rust, on the CPU, layer by layer.
//!
//! Every layer is a forward pass and a backward pass derived by hand: given ∂E/∂Y it returns ∂E/∂X and adds to ∂E/∂θ.
//! That is all the chain rule needs, so any composition trains, without an autograd tape.
//!
//! ```
//! use chainrule::prelude::*;
//!
//! let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
//! let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);
//!
//! let mut model = Sequential::new().add(Linear::new(2, 8)).add(Tanh::new()).add(Linear::new(8, 1)).init(1)?;
//! let (loss, mut optimizer, mut pass) = (Mse::new(), Adam::new(0.05), Pass::new(&model));
//!
//! for step in 0..500 {
//!     pass.forward(&model, &x, Context::train(1).step(step))?; // y
//!     pass.loss(&loss, &t)?; // E and ∂E/∂y
//!     pass.backward(&model, &x)?; // ∂E/∂θ
//!     pass.update(&mut model, &mut optimizer)?; // θ
//! }
//!
//! let answers = model.infer(&x)?;
//! assert!(answers.data().iter().zip(t.data()).all(|(y, t)| (y - t).abs() < 0.5));
//! # Ok::<(), Error>(())
//! ```
//!
//! The crates behind it can be used one by one; this one re-exports them:
//! [`tensor`], [`core`], [`layers`], [`models`], [`losses`], [`optim`], [`gradcheck`], [`data`], [`text`], [`io`], [`train`].

pub use chainrule_core as core;
pub use chainrule_core::parameters;
pub use chainrule_data as data;
pub use chainrule_gradcheck as gradcheck;
pub use chainrule_io as io;
pub use chainrule_layers as layers;
pub use chainrule_layers::sequence;
pub use chainrule_losses as losses;
pub use chainrule_models as models;
pub use chainrule_optim as optim;
pub use chainrule_tensor as tensor;
pub use chainrule_text as text;
pub use chainrule_train as train;

pub mod teach;

/// Everything in the workspace that can be built from a spec: layers, ready models, losses, optimizers and schedules. A kind from
/// outside is one more line: `registry().module::<Mine>()`.
///
/// ```
/// use chainrule::{core::Module, layers::Sequential, prelude::*, registry};
/// let model = Sequential::new().add(Linear::new(4, 8)).add(Relu::new());
/// let again = registry::<f32>().build_module(&model.to_spec())?;
/// assert_eq!(again.to_spec(), model.to_spec());
/// # Ok::<(), Error>(())
/// ```
pub fn registry<T: tensor::Scalar>() -> core::Registry<T> {
    layers::registry().merge(models::registry()).merge(losses::registry()).merge(optim::registry())
}

/// What most programs need: `use chainrule::prelude::*;`.
///
/// Schedules stand in [`optim::schedule`], metrics and pictures in [`train`], what an
/// author of a catalogue entry needs (`FromSpec`, `Facts`, …) in [`core`].
pub mod prelude {
    pub use chainrule_core::{
        Call, Context, Error, Grads, Init, Layer, Loss, Mode, Module, ModuleCall, Objective, Optimizer,
        Param, Parameters, Params, ParamsMut, Pass, Probe, Reduction, Result, Rng, Scalar, Schedule, Session,
        Shape, Spec, Target, Targets, Tensor, parameters,
    };
    pub use chainrule_data::{Dataset, Loader, Scaler, Source, cifar10, diabetes, digits, iris, mnist};
    pub use chainrule_layers::{
        activation::*,
        attention::*,
        container::*,
        conv::*,
        linear::*,
        noise::*,
        norm::*,
        pool::*,
        recurrent::*,
        sequence,
        shape::*,
        weight::{Lora, Pruned, SpectralNorm, WeightNorm},
    };
    pub use chainrule_losses::{
        ActivityPenalty, Bce, BceWithLogits, BinaryFocal, Contrastive, CosineEmbedding, CrossEntropy, Ctc,
        Dice, FnLoss, Focal, GaussianNll, Hinge, HingeEmbedding, Huber, InfoNce, KlDiv, LogCosh, Mae, Mape,
        MarginRanking, Mse, Msle, MultiLabelMargin, MultiLabelSoftMargin, MultiMargin, Nll, PoissonNll,
        Quantile, SmoothL1, SoftMargin, SquaredHinge, TripletMargin, Tversky, WeightedSum,
    };
    pub use chainrule_optim::{Adam, AdamW, Group, Sgd};
    pub use chainrule_train::{
        Callback, Checkpoint, EarlyStopping, Ended, History, Progress, SaveWeights, Trainer,
    };
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
