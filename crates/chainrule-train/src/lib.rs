//! Trainer, metrics, callbacks, progress and pictures.
//!
//! ```
//! use chainrule_core::Parameters;
//! use chainrule_data::iris;
//! use chainrule_layers::Linear;
//! use chainrule_losses::CrossEntropy;
//! use chainrule_optim::Adam;
//! use chainrule_train::{Progress, Trainer};
//!
//! let (train, test) = iris::<f32>().split_stratified(0.2, 1)?;
//! let model = Linear::new(4, 3).init(1)?;
//! let mut trainer =
//!     Trainer::new(model, CrossEntropy::new(), Adam::new(0.05)).epochs(40).progress(Progress::Silent);
//! let history = trainer.fit(&train)?;
//! assert!(history.last().is_some_and(|epoch| epoch.train.loss < 0.5));
//! println!("{}", trainer.evaluate(&test)?); // loss, accuracy, confusion matrix
//! # Ok::<(), chainrule_core::Error>(())
//! ```
//!
//! The guide is docs/training.md.

pub mod attribution;
mod averaging;
mod best;
mod callback;
mod checkpoint;
mod clock;
mod confusion;
mod early_stopping;
mod evaluate;
mod explain;
mod finite;
mod fit;
mod history;
mod metric;
mod monitor;
pub mod pictures;
mod progress;
mod range_test;
mod save_weights;
mod settings;
mod snapshot;
mod statistics;
mod step;
mod trainer;

pub use averaging::Averaging;
pub use callback::Callback;
pub use chainrule_core as core;
pub use chainrule_core::{Error, Result};
pub use checkpoint::Checkpoint;
pub use confusion::Confusion;
pub use early_stopping::EarlyStopping;
pub use evaluate::Report;
pub use explain::{Culprit, Explanation, Finding, Leap, Sample};
pub use history::{Ended, Epoch, History, Score, Scores};
pub use metric::{
    Accuracy, BinaryAccuracy, BitsPerCharacter, MeanAbsoluteError, Metric, Perplexity, RSquared,
};
pub use monitor::{Health, LayerStatistics, Monitor, ParameterStatistics, Trouble, Warning};
pub use progress::Progress;
pub use range_test::{RangeTest, RangeTested};
pub use save_weights::SaveWeights;
pub use settings::Settings;
pub use statistics::Statistics;
pub use trainer::Trainer;

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
