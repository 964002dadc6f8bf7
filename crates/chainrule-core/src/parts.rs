//! The parts of a model that stand in boxes, by path.

use crate::{BoxModule, Path};
use chainrule_tensor::Scalar;

/// Lends the boxes of a model: a container calls [`Parts::part`] for each of its children, in order. What is lent can be
/// watched ([`crate::watch`]), and not replaced by another module.
pub struct Parts<'v, T: Scalar> {
    path: Path<'v>,
    /// How many boxes that paths leave out stand around the module.
    around: usize,
    visit: &'v mut (dyn FnMut(&Path<'_>, &mut BoxModule<T>) + 'v),
}

/// What a box is called that paths leave out.
const INNER: &str = "inner";

impl<'v, T: Scalar> Parts<'v, T> {
    pub(crate) fn new(visit: &'v mut (dyn FnMut(&Path<'_>, &mut BoxModule<T>) + 'v)) -> Self {
        Self { path: Path::ROOT, around: 0, visit }
    }

    /// Lends the child of this name, and then its own parts.
    pub fn part(&mut self, name: &str, module: &mut BoxModule<T>) {
        let path = self.path.child(name);
        (self.visit)(&path, module);
        module.0.lend(&mut Parts { path, around: 0, visit: self.visit });
    }

    /// Lends a child that paths of parameters leave out, as f of x + f(x): it is called `inner`, and its own parts stand at the
    /// place of the module that has it.
    pub fn inner(&mut self, module: &mut BoxModule<T>) {
        let around = self.around + 1;
        (self.visit)(&self.path.child(&[INNER].repeat(around).join(".")), module);
        module.0.lend(&mut Parts { path: self.path, around, visit: self.visit });
    }

    /// For a child that is in no box: the paths of its parts begin with `name`.
    pub fn child<'c>(&'c mut self, name: &'c str) -> Parts<'c, T> {
        Parts { path: self.path.child(name), around: 0, visit: &mut *self.visit }
    }
}
