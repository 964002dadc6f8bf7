//! The named children of a container.

use super::Sequential;
use chainrule_core::{
    AnyState, BoxModule, Context, Error, Learning, Memory, Mode, Module, Parameters, Params, ParamsMut,
    Parts, Result, Scalar, Shape, Spec, freezes,
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Modules by name, and the first mistake that was made while they were put together. Builder methods do not fail: the
/// mistake is kept, with its kind, and returned when the container is checked.
#[derive(Clone)]
pub(super) struct Children<T: Scalar> {
    list: Vec<Child<T>>,
    places: HashMap<String, usize>,
    /// What stands before a dot in a name: no name of its own.
    stems: HashSet<String>,
    mistake: Option<Error>,
    /// The most containers inside each other in one of them.
    depth: usize,
    pub(super) known: Known,
}

/// The most containers inside each other: every level takes some hundred bytes of a thread's stack in each pass.
const DEEPEST: usize = 1024;

/// A module that a container may hold: another one in its place, and the mistake, where there would be too many containers
/// inside each other. What is never held is not dropped level by level.
pub(crate) fn bounded<T: Scalar>(module: BoxModule<T>) -> (BoxModule<T>, Result<()>) {
    if module.nesting() < DEEPEST {
        return (module, Ok(()));
    }
    let error = format!("expected at most {DEEPEST} containers inside each other, got more");
    (BoxModule::new(Sequential::of()), Err(Error::value(error)))
}

#[derive(Clone)]
struct Child<T: Scalar> {
    name: String,
    module: BoxModule<T>,
    mode: Mode,
}

/// Which children have something to learn: found when a backward pass asks, and kept until a parameter of the program is
/// frozen or thawed. What was skipped as frozen is looked at again whenever the parameters were lent mutably.
pub(super) struct Known {
    /// The identity of the container, another one in a clone: a cache belongs to the container that recorded it.
    id: u64,
    /// The count of [`freezes`] at which it was found; 0 if it is not known.
    at: AtomicU64,
    /// Whether a child has parameters, all of them frozen.
    frozen: AtomicBool,
    /// Of each child.
    active: Vec<AtomicBool>,
}

impl Default for Known {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        Self { id, at: AtomicU64::new(0), frozen: AtomicBool::new(false), active: Vec::new() }
    }
}

impl Known {
    /// What a cache keeps of a recorded pass over x: whose it is, and the shape.
    #[inline]
    pub(super) fn mark(&self, x: &Shape) -> Mark {
        Mark { id: self.id, shape: *x }
    }

    /// One more child.
    pub(super) fn push(&mut self) {
        self.active.push(AtomicBool::new(false));
        *self.at.get_mut() = 0;
    }

    /// The children's parameters are lent mutably, and others may be put in their places.
    #[inline]
    pub(super) fn lend(&mut self) {
        if *self.frozen.get_mut() {
            *self.at.get_mut() = 0;
        }
    }

    /// Whether each of the children has something trainable.
    #[inline]
    pub(super) fn active<'a, T: Scalar, I: Iterator<Item = &'a BoxModule<T>>>(
        &self,
        children: impl FnOnce() -> I,
    ) -> &[AtomicBool] {
        if self.at.load(Acquire) != freezes() {
            self.find(children());
        }
        &self.active
    }

    /// Threads that share the children find the same.
    #[cold]
    fn find<'a, T: Scalar>(&self, children: impl Iterator<Item = &'a BoxModule<T>>) {
        let at = freezes();
        let mut frozen = false;
        for (child, active) in children.zip(&self.active) {
            let learning = child.learns();
            active.store(learning == Learning::Active, Relaxed);
            frozen |= learning == Learning::Frozen;
        }
        self.frozen.store(frozen, Relaxed);
        self.at.store(at, Release);
    }

    /// What there is to learn in all of the children.
    pub(super) fn learning<'a, T: Scalar, I: Iterator<Item = &'a BoxModule<T>>>(
        &self,
        children: impl FnOnce() -> I,
    ) -> Learning {
        match self.active(children) {
            active if active.iter().any(|a| a.load(Relaxed)) => Learning::Active,
            _ if self.frozen.load(Relaxed) => Learning::Frozen,
            _ => Learning::Nothing,
        }
    }
}

/// Whose recorded pass a cache holds, and the shape of its x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    id: u64,
    shape: Shape,
}

impl Mark {
    /// Whether it is of the container.
    #[inline]
    pub(super) fn is_of(&self, known: &Known) -> bool {
        self.id == known.id
    }

    /// Whether it is of a pass of the container over an x of this shape. By reference: a shape that is copied to be compared goes
    /// through memory.
    #[inline]
    pub(super) fn is_of_pass(&self, known: &Known, x: &Shape) -> bool {
        self.is_of(known) && self.shape == *x
    }
}

impl Clone for Known {
    /// Not known, of as many children.
    fn clone(&self) -> Self {
        Self { active: self.active.iter().map(|_| AtomicBool::default()).collect(), ..Self::default() }
    }
}

impl<T: Scalar> Children<T> {
    pub(super) fn new() -> Self {
        Self {
            list: Vec::new(),
            places: HashMap::new(),
            stems: HashSet::new(),
            mistake: None,
            depth: 0,
            known: Known::default(),
        }
    }

    /// Appends a module; its name must be new. It may have dots, as the children of a list have that is not a module itself
    /// (`blocks.0`, `blocks.1`), but then nothing else may be named like what stands before one of them.
    pub(super) fn push(&mut self, name: String, module: BoxModule<T>) {
        self.keep(check_name(&name));
        if self.places.insert(name.clone(), self.list.len()).is_some() {
            self.keep(Err(Error::value(format!("two children are named `{}`", name.escape_debug()))));
        }
        let stems: Vec<&str> = name.match_indices('.').map(|(at, _)| &name[..at]).collect();
        let shared = stems.iter().find(|stem| self.places.contains_key(**stem)).copied();
        if let Some(stem) = shared.or_else(|| self.stems.get(&name).map(String::as_str)) {
            let (name, stem) = (name.escape_debug(), stem.escape_debug());
            let error = format!(
                "expected a name that stands for one child, got `{name}` beside children under `{stem}`"
            );
            self.keep(Err(Error::value(error)));
        }
        self.stems.extend(stems.into_iter().map(String::from));
        let (module, bound) = bounded(module);
        self.keep(bound.map_err(|e| e.in_layer(&name)));
        self.depth = self.depth.max(module.nesting());
        self.list.push(Child { name, module, mode: Mode::Training });
        self.known.push();
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
        self.iter().try_for_each(|(name, child)| child.validate().map_err(|e| e.in_layer(name)))
    }

    /// The number of containers inside each other, the one that has these children included.
    pub(super) fn depth(&self) -> usize {
        self.depth + 1
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> (&str, &BoxModule<T>) {
        let Child { name, module, .. } = &self.list[at];
        (name, module)
    }

    /// The context of a child.
    #[inline]
    pub(super) fn context(&self, at: usize, cx: Context) -> Context {
        cx.narrow(self.list[at].mode)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut BoxModule<T> {
        &mut self.list[at].module
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &BoxModule<T>)> + ExactSizeIterator {
        self.list.iter().map(|child| (child.name.as_str(), &child.module))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut BoxModule<T>> {
        self.list.iter_mut().map(|child| &mut child.module)
    }

    pub(super) fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.iter().for_each(|(name, child)| child.list(&mut out.child(name)));
    }

    pub(super) fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.known.lend();
        self.list.iter_mut().for_each(|child| child.module.list_mut(&mut out.child(&child.name)));
    }

    pub(super) fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.list.iter_mut().for_each(|child| out.part(&child.name, &mut child.module));
    }

    /// What a stream remembers of each, in states of which there are as many afterwards.
    pub(super) fn memory(&self, states: &mut Vec<AnyState>, out: &mut Memory<'_, T>) -> Result<()> {
        states.resize_with(self.len(), AnyState::default);
        self.iter()
            .zip(states)
            .try_for_each(|((name, child), state)| child.remember(state, &mut out.child(name)))
    }

    /// Whether each child has something trainable.
    #[inline]
    pub(super) fn active(&self) -> &[AtomicBool] {
        self.known.active(|| self.list.iter().map(|child| &child.module))
    }

    /// What there is to learn in all of them.
    pub(super) fn learning(&self) -> Learning {
        self.known.learning(|| self.list.iter().map(|child| &child.module))
    }

    /// Sets the mode of the part at a path, or of all children.
    pub(super) fn set_mode(&mut self, kind: &str, path: &str, mode: Mode) -> Result<()> {
        if path.is_empty() {
            return self.list.iter_mut().try_for_each(|child| child.set_mode(mode));
        }
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        let child = |end: usize| Some((*self.places.get(&path[..end])?, end));
        let Some((at, end)) = ends.into_iter().find_map(child) else {
            let name = path.split('.').next().unwrap_or_default().escape_debug();
            return Err(Error::value(format!("{kind}: expected the name of a part, got `{name}`")));
        };
        let (name, rest) = (&path[..end], path.get(end + 1..).unwrap_or_default());
        match rest {
            "" => self.list[at].set_mode(mode),
            rest => self.list[at].module.set_mode(rest, mode).map_err(|e| e.in_layer(name)),
        }
    }

    /// A spec with those of the children.
    pub(super) fn describe(&self, spec: Spec) -> Spec {
        self.iter().fold(spec, |spec, (name, child)| spec.child(name, child.to_spec()))
    }
}

impl<T: Scalar> Child<T> {
    /// Its parts follow it.
    fn set_mode(&mut self, mode: Mode) -> Result<()> {
        self.mode = mode;
        self.module.set_mode("", Mode::Training).map_err(|e| e.in_layer(&self.name))
    }
}

/// Dots separate the names of a path.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.split('.').any(str::is_empty) {
        return Err(Error::value(format!(
            "expected a name, or names with dots between, got `{}`",
            name.escape_debug()
        )));
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
