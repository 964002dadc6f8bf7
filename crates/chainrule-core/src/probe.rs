//! Captured activations and gradients.

use crate::{
    Module, Result,
    watch::{Event, Observer, Seen, unwatch, watch},
};
use chainrule_tensor::{Error, Scalar, Tensor, text::quote};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Keeps the outputs of parts of a model and ∂E/∂y of them, by path, from whatever pass goes through it.
///
/// What the paths are, and which parts a model has, [`watch`] says. A model without a probe pays nothing for it; a watched part
/// pays a copy of what is kept. ∂E/∂θ needs no probe: [`crate::Grads::at`].
///
/// ```
/// # use chainrule_core::{Context, Module, Parameters, Pass, Probe, Result, Tensor};
/// # fn f<M: Module<T = f32>>(mut model: M, x: &Tensor) -> Result<()> {
/// let probe = Probe::attach(&mut model, ["encoder.0", "head"])?;
/// let mut pass = Pass::new(&model);
/// pass.forward(&model, x, Context::frozen())?;
/// let features = probe.activation("encoder.0")?;
/// # let features: Tensor = features;
/// probe.detach(&mut model);
/// # Ok(())
/// # }
/// ```
pub struct Probe<T: Scalar = f32> {
    paths: Vec<String>,
    kept: Arc<Kept<T>>,
    observer: Arc<dyn Observer<T>>,
}

/// What a [`Probe`] kept of one call of a part.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Captured<T> {
    /// The outputs of its forward pass.
    pub ys: Vec<Tensor<T>>,
    /// ∂E/∂yⱼ of its backward pass, `None` of an output that was not used; empty if there was none.
    pub dys: Vec<Option<Tensor<T>>>,
}

/// The calls that were seen, the newest last.
struct Kept<T>(Mutex<Vec<Record<T>>>);

struct Record<T> {
    path: Box<str>,
    /// The call, as long as the pass that it belongs to keeps its state.
    call: Option<Weak<()>>,
    captured: Captured<T>,
}

impl<T> Record<T> {
    fn is_of(&self, path: &str, call: Option<&Arc<()>>) -> bool {
        *self.path == *path && self.call.as_ref().map(Weak::as_ptr) == call.map(Arc::as_ptr)
    }
}

impl<T: Scalar> Observer<T> for Kept<T> {
    fn see(&self, seen: Seen<'_, T>) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = records.iter().position(|r| r.is_of(seen.path, seen.call));
        match (seen.event, at) {
            (Event::Forward(ys), at) => {
                let mut record = match at {
                    Some(at) => records.remove(at),
                    None => {
                        // Calls of a pass that is gone make room.
                        records.retain(|r| r.call.as_ref().is_none_or(|call| call.strong_count() > 0));
                        Record {
                            path: seen.path.into(),
                            call: seen.call.map(Arc::downgrade),
                            captured: Captured { ys: Vec::new(), dys: Vec::new() },
                        }
                    }
                };
                let kept = &mut record.captured.ys;
                kept.resize_with(ys.len(), Tensor::default);
                kept.iter_mut().zip(ys).for_each(|(kept, y)| kept.copy_from(y));
                record.captured.dys.clear();
                records.push(record);
            }
            (Event::Backward { dys, .. }, Some(at)) => {
                records[at].captured.dys = dys.iter().map(|dy| dy.cloned()).collect();
            }
            (Event::Backward { .. }, None) => {} // its forward pass was cleared
        }
    }
}

impl<T: Scalar> Probe<T> {
    /// Watches parts of a model; `*` in a path stands for any characters.
    ///
    /// # Errors
    /// As [`watch`].
    pub fn attach(
        model: &mut (impl Module<T = T> + ?Sized),
        paths: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self> {
        let kept = Arc::new(Kept(Mutex::default()));
        let observer: Arc<dyn Observer<T>> = kept.clone();
        Ok(Self { paths: watch(model, paths, &observer)?, kept, observer })
    }

    /// Leaves the model as it was before. A probe that is dropped keeps nothing either.
    pub fn detach(self, model: &mut (impl Module<T = T> + ?Sized)) {
        unwatch(model, &self.observer);
    }

    /// The paths of the parts that are watched, in the model's order.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The (first) output of a part in the last pass.
    ///
    /// # Errors
    /// The part is not watched, or there was no pass.
    pub fn activation(&self, path: &str) -> Result<Tensor<T>> {
        self.last(path, |captured| captured.ys.first().cloned(), "forward")
    }

    /// ∂E/∂y of the (first) output of a part in the last pass.
    ///
    /// # Errors
    /// The part is not watched, there was no backward pass, or it did not come by: nothing before the part learns or is
    /// requested, or the loss does not depend on it.
    pub fn gradient(&self, path: &str) -> Result<Tensor<T>> {
        self.last(path, |captured| captured.dys.first()?.clone(), "backward")
    }

    /// All calls of a part, in the order of their forward passes: several where it stands at several places of a graph, or where
    /// several passes go on at once.
    ///
    /// # Errors
    /// The part is not watched.
    pub fn calls(&self, path: &str) -> Result<Vec<Captured<T>>> {
        self.known(path)?;
        let records = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.iter().filter(|r| *r.path == *path).map(|r| r.captured.clone()).collect())
    }

    /// Forgets what was kept.
    pub fn clear(&self) {
        self.kept.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn last(
        &self,
        path: &str,
        of: impl Fn(&Captured<T>) -> Option<Tensor<T>>,
        what: &str,
    ) -> Result<Tensor<T>> {
        self.known(path)?;
        let records = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = records.iter().rev().find(|r| *r.path == *path).and_then(|r| of(&r.captured));
        last.ok_or_else(|| {
            Error::state(format!("probe: expected a {what} pass through {} before, got none", quote(path)))
        })
    }

    fn known(&self, path: &str) -> Result<()> {
        if self.paths.iter().any(|known| known == path) {
            return Ok(());
        }
        let known: Vec<String> = self.paths.iter().map(|path| quote(path).to_string()).collect();
        Err(Error::value(format!("probe: expected one of {}, got {}", known.join(", "), quote(path))))
    }
}

impl<T: Scalar> fmt::Debug for Probe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("paths", &self.paths).finish_non_exhaustive()
    }
}
