//! Trainer, metrics, callbacks, progress and pictures.

mod callback;
mod clip;
mod confusion;
mod early_stopping;
mod evaluate;
mod finite;
mod fit;
mod history;
mod metric;
pub mod pictures;
mod progress;
mod step;
mod trainer;

pub use callback::{Callback, Checkpoint};
pub use confusion::Confusion;
pub use early_stopping::EarlyStopping;
pub use evaluate::Report;
pub use history::{Ended, Epoch, History, Scores};
pub use metric::{Accuracy, BinaryAccuracy, MeanAbsoluteError, Metric, RSquared};
pub use progress::Progress;
pub use trainer::Trainer;
