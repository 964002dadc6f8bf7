//! An average of the weights over the steps of a fit.

use crate::{Callback, History};
use chainrule_core::{Parameters, Result, Scalar};
use chainrule_io::Archive;
use chainrule_optim::Average;
use std::ops::ControlFlow;

/// Updates an [`Average`] after every step, and gives the model its weights at the end of the fit. Buffers stay the model's:
/// running statistics belong to the weights that were trained, and may have to be estimated anew.
///
/// ```
/// # use chainrule_train::Trainer;
/// # use chainrule_layers::Linear;
/// # use chainrule_losses::Mse;
/// # use chainrule_core::Parameters;
/// # use chainrule_optim::Adam;
/// use chainrule_optim::Average;
/// use chainrule_train::Averaging;
/// # let model = Linear::<f32>::new(2, 1).init(0)?;
/// let trainer = Trainer::new(model, Mse::new(), Adam::new(1e-3)).callback(Averaging::new(Average::exponential(0.999)?));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Averaging<T = f32> {
    average: Average<T>,
}

impl<T: Scalar> Averaging<T> {
    /// An average that has seen no weights yet.
    pub fn new(average: Average<T>) -> Self {
        Self { average }
    }
}

impl<M: Parameters> Callback<M> for Averaging<M::T> {
    fn on_step_end(&mut self, _: u64, _: f64, model: &mut M) -> Result<ControlFlow<()>> {
        self.average.update(model)?;
        Ok(ControlFlow::Continue(()))
    }

    fn on_fit_end(&mut self, _: &History, model: &mut M) -> Result<()> {
        if self.average.updates() == 0 { Ok(()) } else { self.average.write_to(model) }
    }

    fn save(&self, archive: &mut Archive<M::T>, prefix: &str) -> Result<()> {
        archive.set(format!("{prefix}updates"), self.average.updates());
        self.average
            .iter()
            .try_for_each(|(path, mean)| archive.insert(format!("{prefix}{path}"), mean.clone()))
    }

    fn restore(&mut self, archive: &mut Archive<M::T>, prefix: &str, model: &M) -> Result<()> {
        match archive.number(&format!("{prefix}updates"))? {
            0 => Ok(()),
            updates => {
                self.average.restore(model, updates, |path| archive.take(&format!("{prefix}{path}")).ok())
            }
        }
    }
}
