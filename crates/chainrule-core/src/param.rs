//! Parameters, their paths, and the visitors that list them.

use chainrule_tensor::{Error, Init, Result, Rng, Scalar, Shape, Tensor};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// The identity of a parameter: fresh on [`Param::new`] and on `clone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(u64);

impl ParamId {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How often any parameter of the program was frozen or thawed.
static FREEZES: AtomicU64 = AtomicU64::new(1);

/// A number above 0 that grows whenever any parameter of the program is frozen or thawed. As long as it stays the same, so
/// does what a container knows of its children's parameters: no step has to walk over them.
#[inline]
pub fn freezes() -> u64 {
    FREEZES.load(Ordering::Relaxed)
}

/// A parameter or a buffer: a name, a shape and an initialiser, and values once it was filled or loaded.
///
/// A buffer (a running mean) is saved and loaded with the parameters but has no gradient.
#[derive(Debug)]
pub struct Param<T> {
    id: ParamId,
    name: &'static str,
    shape: Shape,
    init: Init,
    value: Option<Tensor<T>>,
    changes: u64,
    fresh: bool,
    role: Role,
    frozen: bool,
    zero_row: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Learned,
    Buffer,
    Counter,
}

/// What there is to learn in a layer or a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Learning {
    /// It has no parameters.
    #[default]
    Nothing,
    /// All its parameters are frozen.
    Frozen,
    /// A parameter is trainable.
    Active,
}

impl<T: Scalar> Param<T> {
    /// A parameter that is not initialised. A shape that no tensor can have stands as that of a scalar until the layer's
    /// [`check`](crate::Layer::check) refuses it by [`Shape::new`].
    pub fn new(name: &'static str, shape: impl Into<Shape>, init: Init) -> Self {
        Self {
            id: ParamId::fresh(),
            name,
            shape: Shape::new(&shape.into()).unwrap_or_default(),
            init,
            value: None,
            changes: 0,
            fresh: false,
            role: Role::Learned,
            frozen: false,
            zero_row: None,
        }
    }

    /// A buffer: no gradient, not counted as a parameter.
    pub fn buffer(name: &'static str, shape: impl Into<Shape>, init: Init) -> Self {
        Self { role: Role::Buffer, ..Self::new(name, shape, init) }
    }

    /// A buffer of one whole number that starts at 0, saved as an integer: `num_batches_tracked`.
    pub fn counter(name: &'static str) -> Self {
        Self { role: Role::Counter, ..Self::new(name, [], Init::ZEROS) }
    }

    /// Its identity.
    #[inline]
    pub fn id(&self) -> ParamId {
        self.id
    }

    /// The version of its values: another one whenever they may have changed. What a layer derived from the values (a
    /// packed weight) is valid as long as this stays the same.
    #[inline]
    pub fn version(&self) -> [u64; 2] {
        [self.id.0, self.changes]
    }

    /// Its own name, the last part of its path: `weight`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The number of elements.
    pub fn volume(&self) -> usize {
        self.shape.volume()
    }

    /// The initialiser.
    pub fn initializer(&self) -> Init {
        self.init
    }

    /// Sets another initialiser, for the next `init`.
    pub fn set_initializer(&mut self, init: Init) {
        self.init = init;
    }

    /// The values, row-major.
    ///
    /// # Errors
    /// It was neither initialised nor loaded.
    #[inline]
    pub fn value(&self) -> Result<&[T]> {
        match &self.value {
            Some(value) => Ok(value.data()),
            None => Err(self.empty()),
        }
    }

    /// The values, to be changed.
    ///
    /// # Errors
    /// It was neither initialised nor loaded.
    #[inline]
    pub fn value_mut(&mut self) -> Result<&mut [T]> {
        if self.value.is_none() {
            return Err(self.empty());
        }
        self.changes += 1;
        self.fresh = false;
        Ok(self.value.as_mut().expect("just looked").data_mut())
    }

    #[cold]
    fn empty(&self) -> Error {
        Error::state(format!(
            "parameter `{}` is not initialised: call init(seed) on the outermost model, or load weights",
            self.name
        ))
    }

    /// The values with their shape, if it is initialised.
    pub fn tensor(&self) -> Option<&Tensor<T>> {
        self.value.as_ref()
    }

    /// Takes its values from a tensor.
    ///
    /// # Errors
    /// The tensor has another shape.
    pub fn set(&mut self, value: Tensor<T>) -> Result<()> {
        if *value.shape() != self.shape {
            return Err(Error::shape(format!(
                "parameter `{}`: expected shape {}, got {}",
                self.name,
                self.shape,
                value.shape()
            )));
        }
        self.changes += 1;
        self.fresh = false;
        self.value = Some(value);
        Ok(())
    }

    /// Sets a row that starts as zeros whatever the initialiser: the padding row of a table.
    pub fn set_zero_row(&mut self, row: Option<usize>) {
        self.zero_row = row;
    }

    /// Fills it by its initialiser.
    pub fn fill(&mut self, rng: &mut Rng) {
        self.changes += 1;
        self.fresh = true;
        let value = self.value.get_or_insert_default();
        value.reset(self.shape);
        self.init.fill(value, rng);
        if let (Some(row), Some(&rows)) = (self.zero_row, self.shape.first()) {
            let width = self.shape.volume() / rows.max(1);
            value.data_mut().chunks_mut(width.max(1)).skip(row).take(1).for_each(|row| row.fill(T::ZERO));
        }
    }

    /// Whether its values are those of its initialiser: it was filled, and not changed since. A parameter that starts from
    /// the values of another is filled with something else first; its layer finds it so at the beginning of
    /// [`Layer::params_mut`](crate::Layer::params_mut), which [`Parameters::init`](crate::Parameters::init) calls once more for it.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether it learns: it is no buffer and not frozen.
    #[inline]
    pub fn trainable(&self) -> bool {
        self.role == Role::Learned && !self.frozen
    }

    /// What there is to learn.
    pub(crate) fn learning(&self) -> Learning {
        match self.role {
            Role::Learned if self.frozen => Learning::Frozen,
            Role::Learned => Learning::Active,
            Role::Buffer | Role::Counter => Learning::Nothing,
        }
    }

    /// Whether it is a buffer.
    pub fn is_buffer(&self) -> bool {
        self.role != Role::Learned
    }

    /// Whether it is a buffer that counts, and is saved as an integer.
    pub fn is_counter(&self) -> bool {
        self.role == Role::Counter
    }

    /// Stops (or resumes) its learning.
    pub fn set_frozen(&mut self, frozen: bool) {
        if self.frozen != frozen {
            self.frozen = frozen;
            FREEZES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<T: Clone> Clone for Param<T> {
    fn clone(&self) -> Self {
        Self { id: ParamId::fresh(), value: self.value.clone(), ..*self }
    }
}

/// Where something stands in a model, outermost name first: `encoder.0.weight`. Lives on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'p str,
}

impl<'p> Path<'p> {
    pub(crate) fn root() -> Self {
        Self { parent: None, name: "" }
    }

    /// The path of what stands under this one.
    pub(crate) fn join(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), name }
    }
}

impl Path<'_> {
    /// The last name.
    pub fn name(&self) -> &str {
        self.name
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent {
            Some(parent) if self.name.is_empty() => parent.fmt(f), // a parameter that has its layer's path
            Some(parent) if parent.parent.is_some() || !parent.name.is_empty() => {
                write!(f, "{parent}.{}", self.name)
            }
            _ => f.write_str(self.name),
        }
    }
}

macro_rules! visitor {
    ($(#[$doc:meta])* $name:ident, $reference:ty) => {
        $(#[$doc])*
        pub struct $name<'v, 'a, T> {
            path: Path<'v>,
            visit: &'v mut (dyn FnMut(&Path<'_>, $reference) + 'v),
        }

        impl<'v, 'a, T> $name<'v, 'a, T> {
            /// A visitor that calls `visit` with every parameter and its path.
            pub fn new(visit: &'v mut (dyn FnMut(&Path<'_>, $reference) + 'v)) -> Self {
                Self { path: Path { parent: None, name: "" }, visit }
            }

            /// Lists one parameter.
            pub fn add(&mut self, param: $reference) {
                (self.visit)(&Path { parent: Some(&self.path), name: param.name }, param);
            }

            /// Lists one parameter under another name than its own.
            pub fn add_as(&mut self, name: &str, param: $reference) {
                (self.visit)(&Path { parent: Some(&self.path), name }, param);
            }

            /// Lists what `f` makes of each parameter that `list` lists: it is called with the parameter and a visitor at its
            /// place, whose paths begin as that of the parameter does.
            pub fn each(
                &mut self,
                f: &mut dyn FnMut(&mut $name<'_, 'a, T>, $reference),
                list: impl FnOnce(&mut $name<'_, 'a, T>),
            ) {
                let visit = &mut *self.visit;
                let mut at_its_place = |path: &Path<'_>, param: $reference| {
                    let path = path.parent.copied().unwrap_or(*path);
                    f(&mut $name { path, visit: &mut *visit }, param);
                };
                list(&mut $name { path: self.path, visit: &mut at_its_place });
            }

            /// The visitor for a child: its parameters' paths begin with `name`.
            pub fn child<'c>(&'c mut self, name: &'c str) -> $name<'c, 'a, T> {
                $name { path: Path { parent: Some(&self.path), name }, visit: &mut *self.visit }
            }
        }
    };
}

visitor! {
    /// Collects parameters: a layer calls [`Params::add`] for its own and hands [`Params::child`] to its children.
    Params, &'a Param<T>
}
visitor! {
    /// Collects parameters to be changed; see [`Params`].
    ParamsMut, &'a mut Param<T>
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_from_the_outside_in() {
        let p = Param::<f32>::new("weight", [2], Init::ONES);
        let mut paths = Vec::new();
        let mut visit = |path: &Path<'_>, _: &Param<f32>| paths.push(path.to_string());
        let mut out = Params::new(&mut visit);
        out.add(&p);
        out.child("encoder").child("0").add(&p);
        assert_eq!(paths, ["weight", "encoder.0.weight"]);
    }

    #[test]
    fn parameters_are_listed_under_other_names_at_their_places() {
        let (p, q) =
            (Param::<f32>::new("weight", [2], Init::ONES), Param::<f32>::new("bias", [2], Init::ONES));
        let mut paths = Vec::new();
        let mut visit = |path: &Path<'_>, _: &Param<f32>| paths.push(path.to_string());
        let mut out = Params::new(&mut visit);
        out.child("encoder").each(&mut |out, p| out.child("new").add_as("original", p), |out| {
            out.add(&p);
            out.child("0").add(&q);
        });
        assert_eq!(paths, ["encoder.new.original", "encoder.0.new.original"]);
    }

    #[test]
    fn values_are_fresh_until_they_change() {
        let mut p = Param::<f32>::new("weight", [2], Init::ONES);
        assert!(!p.is_fresh());
        p.fill(&mut Rng::new(0));
        assert!(p.is_fresh() && p.clone().is_fresh());
        p.value_mut().unwrap();
        assert!(!p.is_fresh());
        p.fill(&mut Rng::new(0));
        p.set(Tensor::zeros([2])).unwrap();
        assert!(!p.is_fresh());
    }

    #[test]
    fn an_unfilled_parameter_names_itself_and_a_clone_is_another_one() {
        let mut p = Param::<f64>::new("weight", [2], Init::ONES);
        assert!(p.value().unwrap_err().to_string().contains("`weight`"));
        p.fill(&mut Rng::new(0));
        assert_eq!(p.value().unwrap(), [1.0, 1.0]);
        assert_ne!(p.clone().id(), p.id());
        assert!(p.set(Tensor::zeros([3])).is_err());
    }

    #[test]
    fn an_impossible_shape_does_not_panic() {
        let p = Param::<f32>::new("weight", [usize::MAX, usize::MAX], Init::ONES);
        assert_eq!((p.shape().len(), p.volume()), (0, 1));
    }

    #[test]
    fn freezing_and_thawing_are_counted() {
        let mut p = Param::<f32>::new("weight", [2], Init::ONES);
        let before = freezes();
        p.set_frozen(true);
        let frozen = freezes();
        p.set_frozen(false);
        assert!(before < frozen && frozen < freezes());
    }

    #[test]
    fn the_version_changes_with_the_values() {
        let mut p = Param::<f32>::new("weight", [2], Init::ONES);
        let mut versions = vec![p.version()];
        p.fill(&mut Rng::new(0));
        versions.push(p.version());
        assert_eq!(p.value().map(|_| p.version()).unwrap(), versions[1]);
        p.value_mut().unwrap()[0] = 2.0;
        versions.push(p.version());
        p.set(Tensor::zeros([2])).unwrap();
        versions.push(p.version());
        versions.push(p.clone().version());
        assert!(versions.iter().enumerate().all(|(i, s)| !versions[..i].contains(s)), "{versions:?}");
    }
}
