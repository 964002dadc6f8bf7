//! A layer whose weight is computed from other parameters.
//!
//! ```text
//! y = f(x; W, …),   W = W(V, θ)
//! ```
//!
//! V is the inner layer's own parameter, which the rule lists under its own name for it, and θ what the rule adds. Given
//! ∂E/∂W, which the inner layer's backward pass gives, the rule gives ∂E/∂V and ∂E/∂θ.
//!
//! Keeps a twin of the inner layer that has W in place of V, and its gradients. Design: docs/design.md.

use super::rule::WeightRule;
use crate::container::bounded;
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Error, Grads, Memory, Mode, Module, ModuleCall, Noise, Param,
    ParamId, Parameters, Params, ParamsMut, Parts, Result, Rng, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;
use std::{
    cell::RefCell,
    fmt,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// An inner layer (or any other module) with one of its parameters computed by a [`WeightRule`]: [`super::WeightNorm`],
/// [`super::SpectralNorm`], [`super::Lora`] and [`super::Pruned`].
///
/// It is transparent: all other parameters of the inner layer keep their names. W is computed anew where V, θ or the
/// noise have changed: in training once a step, and in a [`Session`](chainrule_core::Session) once.
#[derive(Clone)]
pub struct Parametrized<R, T: Scalar = f32> {
    pub(super) inner: BoxModule<T>,
    pub(super) rule: R,
    /// The path of V in the inner module, and its place in the list there.
    name: String,
    at: usize,
    mistake: Option<Error>,
    /// Of the inner module, if it was set for one that is itself the outermost.
    mode: Mode,
    id: Identity,
}

/// What a cache belongs to: another one in a clone.
#[derive(PartialEq)]
struct Identity(u64);

impl Identity {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::fresh()
    }
}

/// The parameter V unless another is named.
const WEIGHT: &str = "weight";
/// The name of the inner module in a spec; paths of parameters leave it out.
const INNER: &str = "inner";

/// A parameter by its place in the list.
fn find<T: Scalar>(module: &BoxModule<T>, at: usize) -> Option<&Param<T>> {
    let (mut i, mut found) = (0, None);
    module.list(&mut Params::new(&mut |_, p| {
        if i == at {
            found = Some(p);
        }
        i += 1;
    }));
    found
}

/// A parameter by its place in the list, to be changed.
fn find_mut<T: Scalar>(module: &mut BoxModule<T>, at: usize) -> Option<&mut Param<T>> {
    let (mut i, mut found) = (0, None);
    module.list_mut(&mut ParamsMut::new(&mut |_, p| {
        if i == at {
            found = Some(p);
        }
        i += 1;
    }));
    found
}

/// Takes the values of another parameter of the same shape.
fn copy<T: Scalar>(from: &Param<T>, to: &mut Param<T>) -> Result<()> {
    match (from.tensor(), to.tensor()) {
        (None, _) => Ok(()), // whoever needs it says so
        (Some(values), Some(_)) => {
            to.value_mut()?.copy_from_slice(values.data());
            Ok(())
        }
        (Some(values), None) => to.set(values.clone()),
    }
}

impl<R: WeightRule<T>, T: Scalar> Parametrized<R, T> {
    /// A rule around a module: its parameter `weight`, unless [`Parametrized::on`] names another.
    pub fn with_rule(rule: R, inner: impl Module<T = T> + Clone + 'static) -> Self {
        Self::around(rule, BoxModule::new(inner))
    }

    pub(super) fn around(rule: R, inner: BoxModule<T>) -> Self {
        let (inner, bound) = bounded(inner);
        let (mode, id) = (Mode::Training, Identity::fresh());
        let new = Self { inner, rule, name: WEIGHT.into(), at: usize::MAX, mistake: bound.err(), mode, id };
        new.attached()
    }

    /// Another parameter of the inner module than `weight`, by its path there: `weight_hh`, or `0.weight` in a container.
    #[must_use]
    pub fn on(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }.attached()
    }

    /// With another setting of the rule, on which the shape of θ depends.
    pub(super) fn set(mut self, change: impl FnOnce(&mut R)) -> Self {
        change(&mut self.rule);
        self.attached()
    }

    /// With θ made anew.
    fn attached(mut self) -> Self {
        let (mut i, mut at) = (0, None);
        self.inner.visit(&mut |path, p| {
            if at.is_none() && !p.is_buffer() && path.to_string() == self.name {
                at = Some(i);
            }
            i += 1;
        });
        self.at = at.unwrap_or(usize::MAX);
        if let Some(v) = find(&self.inner, self.at) {
            self.rule.attach(v);
        }
        self
    }

    /// The inner module, with V.
    pub fn inner(&self) -> &BoxModule<T> {
        &self.inner
    }

    /// The path of V in the inner module.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// V.
    pub(super) fn v(&self) -> Result<&Param<T>> {
        find(&self.inner, self.at).ok_or_else(|| self.lacking())
    }

    #[cold]
    fn lacking(&self) -> Error {
        let mut names = Vec::new();
        self.inner.visit(&mut |path, p| {
            if !p.is_buffer() && names.len() < 8 {
                names.push(format!("`{path}`"));
            }
        });
        let (name, spec) = (self.name.escape_debug(), self.inner.to_spec());
        let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Error::value(format!("{}: expected a parameter `{name}` of {}, got {others}", R::KIND, spec.kind()))
    }

    #[inline]
    fn verdict(&self) -> Result<()> {
        self.mistake.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn checked(&self) -> Result<&Param<T>> {
        self.verdict()?;
        let v = self.v()?;
        self.rule.check(v.shape())?;
        Ok(v)
    }

    /// Fills θ alone, where V has its values already: a rule around a layer that is trained. What starts at random
    /// does so by the seed.
    ///
    /// # Errors
    /// A setting makes no sense, or V is not initialised.
    pub fn start(mut self, seed: u64) -> Result<Self> {
        self.validate()?;
        let v = self.v()?;
        v.value()?;
        let (mut own, id): (Vec<ParamId>, _) = (Vec::new(), v.id());
        self.rule.list(v, &mut Params::new(&mut |_, p| own.push(p.id())));
        self.visit_mut(&mut |path, p| {
            if p.id() != id && own.contains(&p.id()) {
                p.fill(&mut Rng::keyed(seed, path));
            }
        });
        self.visit_mut(&mut |_, _| {});
        Ok(self)
    }

    /// The inner module as it stands alone, with W in place of V: the same function, without the rule.
    ///
    /// # Errors
    /// A setting makes no sense, or a parameter is not initialised.
    pub fn plain(&self) -> Result<BoxModule<T>> {
        let v = self.checked()?;
        let mut w = Tensor::zeros(*v.shape());
        self.rule.weight(v, w.data_mut(), &mut R::Cache::default(), None)?;
        let mut plain = self.inner.clone();
        find_mut(&mut plain, self.at).ok_or_else(|| self.lacking())?.set(w)?;
        Ok(plain)
    }

    /// The state's twin of the inner module, with W and with all other parameters as they are.
    fn refresh(&self, state: &mut ParametrizedState<R, T>, cx: Context) -> Result<()> {
        let v = self.v()?;
        if state.id != self.id.0 {
            *state = ParametrizedState { id: self.id.0, ..Default::default() };
            *state.twin.get_mut() = Some(self.inner.clone());
            self.inner.list(&mut Params::new(&mut |_, p| state.seen.push(Seen::of(p))));
        }
        let ParametrizedState { twin, seen, versions, noise, rule, .. } = state;
        let Some(twin) = twin.get_mut() else { return Err(not_recorded(R::KIND)) };
        // V and θ: W, and whether ∂E/∂W is needed.
        let (mut i, mut stale, mut learns) = (0, false, false);
        self.rule.list(
            v,
            &mut Params::new(&mut |_, p| {
                match versions.get_mut(i) {
                    Some(version) if *version == p.version() => {}
                    Some(version) => (*version, stale) = (p.version(), true),
                    None => {
                        versions.push(p.version());
                        stale = true;
                    }
                }
                learns |= p.trainable();
                i += 1;
            }),
        );
        let drawn = self.rule.noise(cx);
        let w = find_mut(twin, self.at).ok_or_else(|| self.lacking())?;
        if cx.recording() {
            w.set_frozen(!learns);
        }
        if stale || *noise != drawn {
            let computed = self.rule.check(v.shape()).and_then(|()| {
                if w.tensor().is_none() {
                    w.set(Tensor::zeros(*v.shape()))?;
                }
                self.rule.weight(v, w.value_mut()?, rule, drawn) // W = W(V, θ)
            });
            *noise = drawn;
            if computed.is_err() {
                versions.clear(); // W is unspecified
            }
            computed?;
        }
        // All others.
        let (mut i, mut copied) = (0, Ok(()));
        self.inner.list(&mut Params::new(&mut |_, p| {
            let now = Seen::of(p);
            if i != self.at && seen.get(i) != Some(&now) && copied.is_ok() {
                copied = match (find_mut(twin, i), seen.get_mut(i)) {
                    (Some(to), Some(seen)) => {
                        to.set_frozen(now.frozen);
                        *seen = now;
                        copy(p, to)
                    }
                    _ => Err(not_recorded(R::KIND)),
                };
            }
            i += 1;
        }));
        copied
    }

    fn pass(
        &self,
        state: &mut ParametrizedState<R, T>,
        shapes: impl Iterator<Item = Shape>,
        cx: Context,
        apply: impl FnOnce(&BoxModule<T>, &mut AnyState, Context) -> Result<()>,
    ) -> Result<()> {
        self.verdict()?;
        (state.recorded, state.trained) = (false, false);
        let cx = cx.narrow(self.mode);
        self.refresh(state, cx)?;
        let Some(twin) = state.twin.get_mut() else { return Err(not_recorded(R::KIND)) };
        apply(twin, &mut state.inner, cx.child(0))?; // y = f(x; W, …)
        state.shapes.clear();
        state.shapes.extend(shapes);
        (state.recorded, state.trained) = (cx.recording(), cx.training());
        Ok(())
    }

    fn pull_back(
        &self,
        state: &mut ParametrizedState<R, T>,
        shapes: impl ExactSizeIterator<Item = Shape>,
        grads: &mut Grads<T>,
        pull: impl FnOnce(&BoxModule<T>, &mut AnyState, &mut Grads<T>) -> Result<()>,
    ) -> Result<()> {
        let ParametrizedState { id, recorded, twin, inner, places, rule, noise, grads: inner_grads, .. } =
            state;
        let same = state.shapes.len() == shapes.len() && shapes.zip(&state.shapes).all(|(x, of)| x == *of);
        let (true, Some(twin)) = (*recorded && *id == self.id.0 && same, twin.get_mut()) else {
            return Err(not_recorded(R::KIND));
        };
        let inner_grads = inner_grads.get_or_insert_with(|| {
            let grads = Grads::new(twin);
            twin.list(&mut Params::new(&mut |_, p| {
                // A parameter that is listed twice has one gradient.
                let place = grads.range(p).filter(|place| !places.contains(&Some(place.clone())));
                places.push(place);
            }));
            grads
        });
        inner_grads.zero();
        pull(twin, inner, inner_grads)?; // dx, ∂E/∂W and the gradients of all others
        let mut i = 0;
        self.inner.list(&mut Params::new(&mut |_, p| {
            if let Some(Some(place)) = places.get(i).filter(|_| i != self.at)
                && let Some(g) = grads.of(p)
            {
                add_assign(g, &inner_grads.values()[place.clone()]);
            }
            i += 1;
        }));
        match places.get(self.at) {
            Some(Some(place)) => {
                self.rule.backward(self.v()?, &inner_grads.values()[place.clone()], rule, *noise, grads)
            }
            _ => Ok(()),
        }
    }
}

/// What [`Parametrized`] keeps.
pub struct ParametrizedState<R: WeightRule<T>, T: Scalar> {
    /// Whose it is.
    id: u64,
    /// The inner module with W in place of V. Folding statistics changes it: they are its own.
    twin: RefCell<Option<BoxModule<T>>>,
    inner: AnyState,
    rule: R::Cache,
    /// Of V and θ, when W was computed.
    versions: Vec<[u64; 2]>,
    noise: Option<Noise>,
    /// Of the inner module's parameters, when they were copied.
    seen: Vec<Seen>,
    /// The twin's.
    grads: Option<Grads<T>>,
    /// Where the gradient of each of its parameters stands.
    places: Vec<Option<Range<usize>>>,
    /// The shapes of the inputs of the last pass, whether it was recorded, and whether it trained.
    shapes: Vec<Shape>,
    recorded: bool,
    trained: bool,
}

#[derive(PartialEq)]
struct Seen {
    version: [u64; 2],
    frozen: bool,
}

impl Seen {
    fn of<T: Scalar>(p: &Param<T>) -> Self {
        Self { version: p.version(), frozen: !p.is_buffer() && !p.trainable() }
    }
}

impl<R: WeightRule<T>, T: Scalar> Default for ParametrizedState<R, T> {
    fn default() -> Self {
        Self {
            id: 0,
            twin: RefCell::default(),
            inner: AnyState::default(),
            rule: R::Cache::default(),
            versions: Vec::new(),
            noise: None,
            seen: Vec::new(),
            grads: None,
            places: Vec::new(),
            shapes: Vec::new(),
            recorded: false,
            trained: false,
        }
    }
}

impl<R: WeightRule<T>, T: Scalar> fmt::Debug for ParametrizedState<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParametrizedState").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

#[cold]
fn not_recorded(kind: &str) -> Error {
    Error::not_recorded(format!(
        "{kind}: expected the cache of a recorded forward of this input by this layer"
    ))
}

impl<R: WeightRule<T>, T: Scalar> Parameters for Parametrized<R, T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        let mut i = 0;
        let mut replaced = |out: &mut Params<'_, 'a, T>, p: &'a Param<T>| {
            if i == self.at {
                self.rule.list(p, out)
            } else {
                out.add(p)
            }
            i += 1;
        };
        out.each(&mut replaced, |out| self.inner.list(out));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        let Self { inner, rule, at, .. } = self;
        if let Some(v) = find(inner, *at) {
            rule.start(v);
        }
        let (mut i, mut rule) = (0, Some(rule));
        let mut replaced = |out: &mut ParamsMut<'_, 'a, T>, p: &'a mut Param<T>| {
            match rule.take_if(|_| i == *at) {
                Some(rule) => rule.list_mut(p, out),
                None => out.add(p),
            }
            i += 1;
        };
        out.each(&mut replaced, |out| inner.list_mut(out));
    }

    fn validate(&self) -> Result<()> {
        self.verdict()?;
        self.inner.validate()?;
        self.checked().map(drop)
    }
}

impl<R: WeightRule<T>, T: Scalar> Module for Parametrized<R, T> {
    type State = ParametrizedState<R, T>;

    fn inputs(&self) -> usize {
        self.inner.inputs()
    }

    fn outputs(&self) -> usize {
        self.inner.outputs()
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.inner.differentiable_input(input)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.checked()?;
        self.inner.output_shapes(inputs)
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        let shapes = xs.iter().map(|x| *x.shape());
        self.pass(state, shapes, cx, |twin, inner, cx| twin.apply(xs, ys, inner, cx))
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let shapes = call.xs.iter().map(|x| *x.shape());
        self.pull_back(state, shapes, grads, |twin, inner, grads| twin.pull(call, inner, grads, dxs))
    }

    fn apply_one(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        state: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        let shapes = [*x.shape()].into_iter();
        self.pass(state, shapes, cx, |twin, inner, cx| twin.apply_one(x, y, inner, cx))
    }

    fn pull_one(
        &self,
        call: Call<'_, T>,
        state: &mut Self::State,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let shapes = [*call.x.shape()].into_iter();
        self.pull_back(state, shapes, grads, |twin, inner, grads| twin.pull_one(call, inner, grads, dx))
    }

    fn reads_outputs(&self) -> bool {
        self.inner.reads_outputs()
    }

    fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.id = Identity::fresh(); // a twin that is watched, or no longer
        out.inner(&mut self.inner);
    }

    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.id = Identity::fresh(); // a twin in another mode
        if !path.is_empty() {
            return self.inner.set_mode(path, mode);
        }
        self.mode = mode;
        self.inner.set_mode("", Mode::Training)
    }

    fn nesting(&self) -> usize {
        self.inner.nesting() + 1
    }

    fn fold(&mut self, state: &Self::State) {
        if state.id != self.id.0 || !state.recorded {
            return;
        }
        if let Ok(mut twin) = state.twin.try_borrow_mut()
            && let Some(twin) = twin.as_mut()
        {
            twin.fold(&state.inner);
            let mut i = 0;
            self.inner.visit_mut(&mut |_, p| {
                if p.is_buffer() {
                    // Of the same shape: both were made by one constructor.
                    let _ = find(twin, i).map(|from| copy(from, p));
                }
                i += 1;
            });
        }
        if state.trained
            && let Some(v) = find(&self.inner, self.at)
        {
            self.rule.advance(v);
        }
    }

    fn remember(&self, state: &mut Self::State, out: &mut Memory<'_, T>) -> Result<()> {
        self.inner.remember(&mut state.inner, out)
    }

    /// Those of the inner module. W costs the same for every batch, and is not in it.
    fn cost(&self, inputs: &[Shape]) -> u64 {
        self.inner.cost(inputs)
    }

    fn to_spec(&self) -> Spec {
        let spec = self.rule.spec().with_unless(WEIGHT, "name", &self.name);
        spec.child(INNER, self.inner.to_spec())
    }

    /// The rows of the inner module, and one with the parameters of the rule.
    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        let v = self.checked()?;
        let outputs = self.inner.summarize(inputs, out)?;
        if let Some(&output) = outputs.first() {
            out.row(R::KIND, output, 0, &mut |p| self.list(p));
        }
        let (mut all, mut learned) = (0usize, 0usize);
        self.inner.visit(&mut |_, p| {
            all += p.volume();
            learned += if p.is_buffer() { 0 } else { p.volume() };
        });
        let bytes = |elements: usize| elements.saturating_mul(size_of::<T>());
        let cache = self.rule.cache_bytes(v.shape());
        out.hold_in_training(bytes(all + learned).saturating_add(cache)); // the twin and its gradients
        out.hold_in_inference(bytes(all).saturating_add(cache));
        Ok(outputs)
    }
}

/// The inner module of a spec, and the name of V.
pub(super) fn from_args<R: WeightRule<T>, T: Scalar>(
    rule: impl FnOnce() -> Result<R>,
    args: &Args<'_, T>,
) -> Result<Parametrized<R, T>> {
    let mut children = args.children()?.into_iter();
    match (children.next(), children.next()) {
        (Some((name, inner)), None) if name == INNER => {
            Ok(Parametrized::around(rule()?, inner).on(args.or("name", WEIGHT.to_owned())?))
        }
        _ => Err(Error::value(format!("{}: expected one child, `{INNER}`", R::KIND))),
    }
}
