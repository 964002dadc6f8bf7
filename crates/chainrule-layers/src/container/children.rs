//! The named children of a container.

use chainrule_core::{BoxModule, Error, Module, Parameters, Params, ParamsMut, Result, Scalar, Spec};
use std::collections::HashMap;

/// Modules by name, and the first mistake that was made while they were put together. Builder methods do not fail: the
/// mistake is kept, with its kind, and returned when the container is checked.
#[derive(Clone)]
pub(super) struct Children<T: Scalar> {
    list: Vec<(String, BoxModule<T>)>,
    places: HashMap<String, usize>,
    mistake: Option<Error>,
}

impl<T: Scalar> Children<T> {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), places: HashMap::new(), mistake: None }
    }

    /// Appends a module; its name must be new and without dots.
    pub(super) fn push(&mut self, name: String, module: BoxModule<T>) {
        self.keep(check_name(&name));
        if self.places.insert(name.clone(), self.list.len()).is_some() {
            self.keep(Err(Error::value(format!("two children are named `{}`", name.escape_debug()))));
        }
        self.list.push((name, module));
    }

    /// As [`Children::push`], of a module that must have one input and one output.
    pub(super) fn push_one(&mut self, name: String, module: BoxModule<T>) {
        self.keep(one_to_one(&module).map_err(|e| e.in_layer(&name)));
        self.push(name, module);
    }

    /// Keeps an error if it is the first.
    pub(super) fn keep(&mut self, result: Result<()>) {
        if let (Err(error), None) = (result, &self.mistake) {
            self.mistake = Some(error);
        }
    }

    /// The mistake that was kept.
    #[inline]
    pub(super) fn verdict(&self) -> Result<()> {
        self.mistake.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// [`Children::verdict`], and the checks of every child.
    pub(super) fn validate(&self) -> Result<()> {
        self.verdict()?;
        self.list.iter().try_for_each(|(name, child)| child.validate().map_err(|e| e.in_layer(name)))
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> (&str, &BoxModule<T>) {
        let (name, child) = &self.list[at];
        (name, child)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut BoxModule<T> {
        &mut self.list[at].1
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &BoxModule<T>)> + ExactSizeIterator {
        self.list.iter().map(|(name, child)| (name.as_str(), child))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut BoxModule<T>> {
        self.list.iter_mut().map(|(_, child)| child)
    }

    pub(super) fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.list.iter().for_each(|(name, child)| child.list(&mut out.child(name)));
    }

    pub(super) fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.list.iter_mut().for_each(|(name, child)| child.list_mut(&mut out.child(name)));
    }

    /// A spec with those of the children.
    pub(super) fn describe(&self, spec: Spec) -> Spec {
        self.iter().fold(spec, |spec, (name, child)| spec.child(name, child.to_spec()))
    }
}

/// Dots separate the names of a path.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('.') {
        return Err(Error::value(format!("expected a name without dots, got `{}`", name.escape_debug())));
    }
    Ok(())
}

/// An error unless the module has one input and one output.
pub(super) fn one_to_one<M: Module>(module: &M) -> Result<()> {
    match (module.inputs(), module.outputs()) {
        (1, 1) => Ok(()),
        (inputs, outputs) => Err(Error::value(format!(
            "expected a module of one input and one output, got {inputs} and {outputs}"
        ))),
    }
}
