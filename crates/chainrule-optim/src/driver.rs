//! What every optimizer does around its rule: find each parameter's gradient, state and settings, and check them.

use crate::{
    Group, Rule, Settings, StateTensor, Terms, Update,
    check::{not_negative, representable},
};
use chainrule_core::{
    Args, Error, Grads, Optimizer, OptimizerState, Param, ParamId, Parameters, Path, Result, Scalar, Spec,
    StateValue, StateVisitor, Tensor, text, unknown_setting,
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// The name under which the count of steps is saved.
const STEP: &str = "step";

/// An optimizer: a [`Rule`] for one tensor, driven over the parameters of a model.
///
/// A parameter that is listed twice (tied) is stepped once: its exclusive borrow is handed out once. A frozen parameter keeps its state and has none before it is first
/// trained. Settings may be given in any order, and changed between steps.
#[derive(Clone, Debug)]
pub struct Driver<R, T> {
    rule: R,
    settings: Settings,
    groups: Vec<Group>,
    /// Sorted by id.
    entries: Vec<Entry<T>>,
    /// The layout of the gradients for which the entries were found under the present settings.
    laid_out: Option<u64>,
    /// The learning rate that was checked with the other settings; NaN if any of them changed since.
    checked: f64,
    /// d = s g + λ w of one tensor, for rules that are not fused.
    direction: Tensor<T>,
}

/// One parameter.
#[derive(Clone, Debug)]
struct Entry<T> {
    id: ParamId,
    group: Option<usize>,
    /// How often it was updated.
    steps: u64,
    /// `None` before it is first trained.
    state: Option<State<T>>,
}

/// The state of one parameter.
#[derive(Clone, Debug)]
struct State<T> {
    names: Vec<&'static str>,
    tensors: Vec<Tensor<T>>,
}

impl<T: Scalar> State<T> {
    /// State before the first step. What `old` has by name and shape is kept.
    fn new(wanted: &[StateTensor], old: Option<Self>) -> Self {
        let mut old = old.map_or_else(Vec::new, |old| old.names.into_iter().zip(old.tensors).collect());
        let mut one = |want: &StateTensor| {
            let at = old.iter().position(|(name, t)| *name == want.name && *t.shape() == want.shape);
            at.map_or_else(|| want.build(), |at| old.swap_remove(at).1)
        };
        Self {
            tensors: wanted.iter().map(&mut one).collect(),
            names: wanted.iter().map(|w| w.name).collect(),
        }
    }
}

impl<T> Entry<T> {
    fn new(id: ParamId) -> Self {
        Self { id, group: None, steps: 0, state: None }
    }
}

impl<R, T: Scalar> Driver<R, T> {
    /// The factor λ of weight decay.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.settings.weight_decay = weight_decay;
        self.checked = f64::NAN;
        self
    }

    /// Whether weight decay shrinks the weights, w ← (1 − η λ) w, and stays out of the gradient.
    #[must_use]
    pub fn decoupled_weight_decay(mut self, decoupled: bool) -> Self {
        self.settings.decoupled = decoupled;
        self.checked = f64::NAN;
        self
    }

    /// Maximises the objective instead.
    #[must_use]
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.settings.maximize = maximize;
        self
    }

    /// Gives some parameters settings of their own. A parameter belongs to the first group that matches it; a group that
    /// matches none is an error of the first step.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.groups.push(group);
        self.laid_out = None;
        self.checked = f64::NAN;
        self
    }

    /// The rule.
    pub fn rule(&self) -> &R {
        &self.rule
    }

    /// Changes settings of the rule; state that they no longer use is dropped at the next step.
    #[must_use]
    pub(crate) fn set(mut self, change: impl FnOnce(&mut R)) -> Self {
        change(&mut self.rule);
        self.laid_out = None;
        self.checked = f64::NAN;
        self
    }
}

impl<R: Rule<T>, T: Scalar> Driver<R, T> {
    /// A rule at a learning rate η, without weight decay.
    pub fn from_rule(rule: R, learning_rate: f64) -> Self {
        Self {
            rule,
            settings: Settings::new(learning_rate, R::DECOUPLED),
            groups: Vec::new(),
            entries: Vec::new(),
            laid_out: None,
            checked: f64::NAN,
            direction: Tensor::default(),
        }
    }

    /// The settings of a spec that every optimizer has.
    pub(crate) fn with_args(mut self, args: &Args<'_, T>) -> Result<Self> {
        let settings = &mut self.settings;
        settings.rate = args.or("lr", settings.rate)?;
        settings.weight_decay = args.or("weight_decay", settings.weight_decay)?;
        settings.maximize = args.or("maximize", settings.maximize)?;
        settings.decoupled = args.or("decoupled_weight_decay", settings.decoupled)?;
        for spec in args.or("groups", Vec::<Spec>::new())? {
            self.groups.push(Group::from_spec(&spec)?);
        }
        Ok(self)
    }

    /// Calls `start` with the values and the state of every trainable parameter that has not been stepped.
    pub(crate) fn prepare(
        &mut self,
        model: &dyn Parameters<T = T>,
        grads: &Grads<T>,
        start: &mut dyn FnMut(&[T], &mut [Tensor<T>]),
    ) -> Result<()> {
        grads.check()?;
        if self.laid_out != Some(grads.layout()) {
            self.lay_out(model, grads)?;
        }
        let Self { rule, entries, .. } = self;
        model.try_visit(&mut |_, p| {
            if !p.trainable() {
                return Ok(());
            }
            let Ok(at) = entries.binary_search_by_key(&p.id(), |e| e.id) else {
                return Err(foreign("the parameter was not there at the first step"));
            };
            let (entry, shape) = (&mut entries[at], *p.shape());
            if entry.steps == 0 {
                let state = entry.state.get_or_insert_with(|| State::new(&rule.state(&shape), None));
                start(p.value()?, &mut state.tensors);
            }
            Ok(())
        })
    }

    /// Calls `f` with the values and the state of every parameter that was stepped.
    pub(crate) fn each_stepped(
        &self,
        model: &mut dyn Parameters<T = T>,
        f: &mut dyn FnMut(&mut [T], &[Tensor<T>]),
    ) -> Result<()> {
        model.try_visit_mut(&mut |path, p| {
            if p.is_buffer() {
                return Ok(());
            }
            let at = self.entries.binary_search_by_key(&p.id(), |e| e.id).map_err(|_| {
                foreign("the optimizer has the state of another model").in_layer(path.to_string())
            })?;
            if let Entry { steps: 1.., state: Some(state), .. } = &self.entries[at] {
                f(p.value_mut()?, &state.tensors);
            }
            Ok(())
        })
    }

    fn slot(&mut self, name: &str) -> Option<&mut f64>
    where
        R: Rule<T>,
    {
        match name {
            "lr" => Some(&mut self.settings.rate),
            "weight_decay" => Some(&mut self.settings.weight_decay),
            _ => self.rule.setting(name),
        }
    }

    /// The rule, to be changed without a change of its state.
    pub(crate) fn rule_mut(&mut self) -> &mut R {
        &mut self.rule
    }

    fn entry(&self, p: &Param<T>) -> Option<&Entry<T>> {
        let at = self.entries.binary_search_by_key(&p.id(), |e| e.id).ok()?;
        Some(&self.entries[at])
    }

    /// Enters every parameter, puts it into its group, and gives it the state that the settings use.
    fn lay_out(&mut self, model: &dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        let (mut found, mut matched) = (Vec::new(), vec![false; self.groups.len()]);
        each(model, &mut |path, p| {
            let at = path.to_string();
            if grads.range(p).is_none() {
                return Err(foreign("they were made for another model").in_layer(at));
            }
            if p.trainable() {
                p.value().map_err(|e| e.in_layer(&at))?;
            }
            let mut group = None;
            for (i, candidate) in self.groups.iter().enumerate() {
                if candidate.matches(&at, p.shape()) {
                    group = group.or(Some(i));
                    matched[i] = true;
                }
            }
            let trained = p.trainable() || self.entry(p).is_some_and(|e| e.state.is_some());
            found.push((p.id(), group, trained.then(|| self.rule.state(p.shape()))));
            Ok(())
        })?;
        if let Some(group) = matched.iter().position(|m| !m) {
            return Err(Error::value(format!(
                "{}: expected a group to match a parameter, got none for {:?}",
                R::KIND,
                self.groups[group]
            )));
        }
        found.sort_unstable_by_key(|(id, ..)| *id);
        if self.entries.iter().any(|e| found.binary_search_by_key(&e.id, |(id, ..)| *id).is_err()) {
            return Err(foreign("the optimizer has the state of another model"));
        }
        let mut old = std::mem::take(&mut self.entries).into_iter().peekable();
        for (id, group, wanted) in found {
            let mut entry = old.next_if(|e| e.id == id).unwrap_or_else(|| Entry::new(id));
            entry.group = group;
            entry.state = wanted.map(|wanted| State::new(&wanted, entry.state));
            self.entries.push(entry);
        }
        self.laid_out = Some(grads.layout());
        Ok(())
    }
}

impl<R: Rule<T>, T: Scalar> Optimizer<T> for Driver<R, T> {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        if self.checked != self.settings.rate {
            self.check()?;
            self.checked = self.settings.rate;
        }
        grads.check()?;
        if self.laid_out != Some(grads.layout()) {
            self.lay_out(model, grads)?;
        }
        let Self { rule, settings, groups, entries, direction, .. } = self;
        let mut result = Ok(());
        model.visit_mut(&mut |path, p| {
            if result.is_err() || !p.trainable() {
                return;
            }
            let mut one = || {
                let Ok(at) = entries.binary_search_by_key(&p.id(), |e| e.id) else {
                    return Err(foreign("the parameter was not there at the first step"));
                };
                let entry = &mut entries[at];
                let g = grads.get(p).ok_or_else(|| foreign("they were made for another model"))?;
                let shape = *p.shape();
                let w = p.value_mut()?;
                let state = entry.state.get_or_insert_with(|| State::new(&rule.state(&shape), None));
                let group = entry.group.map(|g| &groups[g]);
                let rate = settings.rate * group.map_or(1.0, |g| g.rate_scale);
                let decay = group.and_then(|g| g.weight_decay).unwrap_or(settings.weight_decay);
                let mut terms = settings.terms(rate, decay);
                let mut d = g;
                if !R::FUSED {
                    d = apply(terms, w, g, direction);
                    terms = Terms::NEUTRAL;
                }
                entry.steps = entry.steps.saturating_add(1); // from a file it may be any
                let (t, state) = (entry.steps, &mut state.tensors[..]);
                rule.update(Update { path, shape: &shape, w, g: d, state, t, rate, terms });
                Ok(())
            };
            result = one().map_err(|e: Error| e.in_layer(path.to_string()));
        });
        result
    }

    fn learning_rate(&self) -> f64 {
        self.settings.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.settings.rate = rate;
    }

    fn setting(&mut self, name: &str) -> Option<f64> {
        self.slot(name).copied()
    }

    fn set_setting(&mut self, name: &str, value: f64) -> Result<()> {
        let slot = self.slot(name).ok_or_else(|| unknown_setting(name))?;
        let old = std::mem::replace(slot, value);
        if old != value {
            self.checked = f64::NAN;
        }
        if (old == 0.0) != (value == 0.0) {
            self.laid_out = None; // state may come or go
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let Settings { rate, weight_decay, .. } = self.settings;
        not_negative::<T>(R::KIND, "learning rate", rate)?;
        not_negative::<T>(R::KIND, "weight decay", weight_decay)?;
        for group in &self.groups {
            not_negative::<T>(R::KIND, "learning rate scale of a group", group.rate_scale)?;
            not_negative::<T>(R::KIND, "learning rate of a group", group.rate_scale * rate)?;
            not_negative::<T>(R::KIND, "weight decay of a group", group.weight_decay.unwrap_or(0.0))?;
        }
        representable::<T>(R::KIND, "product of learning rate and weight decay", rate * weight_decay)?;
        self.rule.check()
    }

    fn reset(&mut self) {
        self.entries.clear();
        self.laid_out = None;
    }

    fn visit_state(&self, model: &dyn Parameters<T = T>, visit: &mut StateVisitor<'_, T>) -> Result<()> {
        each(model, &mut |path, p| {
            let entry = self.entry(p);
            if entry.is_none() && !self.entries.is_empty() {
                return Err(
                    foreign("the optimizer has the state of another model").in_layer(path.to_string())
                );
            }
            let (state, steps) = (entry.and_then(|e| e.state.as_ref()), entry.map_or(0, |e| e.steps));
            let fresh =
                (state.is_none() && p.trainable()).then(|| State::new(&self.rule.state(p.shape()), None));
            let Some(state) = state.or(fresh.as_ref()).filter(|s| !s.names.is_empty()) else { return Ok(()) };
            let path = path.to_string();
            visit(&path, STEP, StateValue::Count(steps));
            for (name, tensor) in state.names.iter().zip(&state.tensors) {
                visit(&path, name, StateValue::Values(tensor));
            }
            Ok(())
        })
    }

    fn restore_state(&mut self, model: &dyn Parameters<T = T>, mut state: OptimizerState<T>) -> Result<()> {
        let (mut entries, mut wrong) = (Vec::new(), Vec::new());
        each(model, &mut |path, p| {
            let (path, wanted) = (path.to_string(), self.rule.state(p.shape()));
            let mut entry = Entry::new(p.id());
            let mut names = wanted.iter().map(|w| w.name).chain([STEP]);
            // A frozen parameter may have none.
            let saved = p.trainable() || names.any(|name| state.get(&path, name).is_some());
            if !wanted.is_empty() && saved {
                match state.remove(&path, STEP).as_ref().map(count) {
                    Some(Some(steps)) => entry.steps = steps,
                    Some(None) => wrong.push(format!("expected a count as {STEP} of `{path}`")),
                    None => wrong.push(format!("missing {STEP} of `{path}`")),
                }
                let mut fresh = State::new(&wanted, None);
                for (want, tensor) in wanted.iter().zip(&mut fresh.tensors) {
                    let of = format!("{} of `{path}`", want.name);
                    match state.remove(&path, want.name) {
                        Some(StateValue::Values(v)) if *v.shape() == want.shape => *tensor = v,
                        Some(StateValue::Values(v)) => {
                            wrong.push(format!("expected {of} of shape {}, got {}", want.shape, v.shape()))
                        }
                        Some(StateValue::Count(_)) => {
                            wrong.push(format!("expected values as {of}, got a count"))
                        }
                        None => wrong.push(format!("missing {of}")),
                    }
                }
                entry.state = Some(fresh);
            }
            entries.push(entry);
            Ok(())
        })?;
        let unexpected = |(path, name, _): (&str, &str, _)| {
            format!("unexpected {} of {}", text::name(name), text::quote(path))
        };
        wrong.extend(state.iter().map(unexpected));
        if !wrong.is_empty() {
            return Err(Error::state(format!("{}: optimizer state: {}", R::KIND, wrong.join("; "))));
        }
        entries.sort_unstable_by_key(|e| e.id);
        self.entries = entries;
        self.laid_out = None; // its groups are found at the next step
        Ok(())
    }

    fn adopt(&mut self, from: &dyn Parameters<T = T>, to: &dyn Parameters<T = T>) -> Result<()> {
        let pairs = heirs(from, to)?;
        if self.entries.iter().any(|e| !pairs.contains_key(&e.id)) {
            return Err(foreign("the optimizer has the state of another model"));
        }
        self.entries.iter_mut().for_each(|e| e.id = pairs[&e.id]);
        self.entries.sort_unstable_by_key(|e| e.id);
        Ok(())
    }

    fn spec(&self) -> Spec {
        let mut spec = self.rule.spec(&self.settings);
        spec = spec.with_unless(R::DECOUPLED, "decoupled_weight_decay", self.settings.decoupled);
        if !self.groups.is_empty() {
            spec = spec.with("groups", self.groups.iter().map(Group::spec).collect::<Vec<_>>());
        }
        spec
    }
}

/// The parameter of `to` in the place of each of `from`.
pub(crate) fn heirs<T: Scalar>(
    from: &dyn Parameters<T = T>,
    to: &dyn Parameters<T = T>,
) -> Result<BTreeMap<ParamId, ParamId>> {
    let mut known = Vec::new();
    to.visit(&mut |path, p| known.push((path.to_string(), *p.shape(), p.id())));
    let (mut heirs, mut pairs) = (known.into_iter(), BTreeMap::new());
    from.try_visit(&mut |path, p| {
        let path = path.to_string();
        match heirs.next() {
            Some((name, shape, id)) if name == path && shape == *p.shape() => {
                match *pairs.entry(p.id()).or_insert(id) == id {
                    true => Ok(()),
                    false => Err(Error::state("expected a parameter that is listed twice in both models")),
                }
            }
            Some((name, shape, _)) => Err(Error::state(format!(
                "expected models with the same parameters, got {} beside `{name}` of shape {shape}",
                p.shape()
            ))),
            None => Err(Error::state("expected models with the same parameters, got none in the second")),
        }
        .map_err(|e| e.in_layer(path))
    })?;
    if let Some((name, ..)) = heirs.next() {
        return Err(Error::state(format!("expected models with the same parameters, got `{name}` beyond")));
    }
    Ok(pairs)
}

/// Calls `f` with every parameter that is not a buffer, once.
pub(crate) fn each<T: Scalar>(
    model: &dyn Parameters<T = T>,
    f: &mut dyn FnMut(&Path<'_>, &Param<T>) -> Result<()>,
) -> Result<()> {
    let mut known = HashSet::new();
    model.try_visit(&mut |path, p| {
        if p.is_buffer() || !known.insert(p.id()) { Ok(()) } else { f(path, p) }
    })
}

impl<R: Rule<T>, T: Scalar> fmt::Display for Driver<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec().fmt(f)
    }
}

/// d = s g + λ w, after w ← c w: what a rule that is not fused is given.
fn apply<'a, T: Scalar>(terms: Terms, w: &mut [T], g: &'a [T], direction: &'a mut Tensor<T>) -> &'a [T] {
    let [sign, decay, shrink] = [terms.sign, terms.decay, terms.shrink].map(T::from_f64);
    if terms.shrink != 1.0 {
        w.iter_mut().for_each(|w| *w *= shrink); // w ← (1 − η λ) w
    }
    if terms.sign == 1.0 && terms.decay == 0.0 {
        return g;
    }
    let d = direction.reset([g.len()]);
    for ((d, &g), &w) in d.iter_mut().zip(g).zip(&*w) {
        *d = sign * g + decay * w; // d = s g + λ w
    }
    d
}

/// A count, also one that was saved as a value.
fn count<T: Scalar>(value: &StateValue<Tensor<T>>) -> Option<u64> {
    match value {
        StateValue::Count(count) => Some(*count),
        StateValue::Values(v) if v.len() == 1 => v.data()[0].to_index().map(|n| n as u64),
        StateValue::Values(_) => None,
    }
}

#[cold]
pub(crate) fn foreign(why: &str) -> Error {
    Error::state(format!("expected gradients of this model: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bag, fill};
    use crate::{Adam, AdamW, Sgd};
    use chainrule_core::{Init, Params, ParamsMut, Rng};

    const PARAMS: &[(&str, &[usize])] =
        &[("weight", &[2, 3]), ("bias", &[3]), ("head", &[3, 1]), ("frozen", &[4])];

    fn values<T: Scalar>(bag: &Bag<T>) -> Vec<Vec<T>> {
        bag.0.iter().map(|p| p.value().unwrap().to_vec()).collect()
    }

    #[test]
    fn groups_and_freezing() {
        let named = |name, shape: &[usize]| {
            let mut p = Param::new(name, chainrule_core::Shape::new(shape).unwrap(), Init::ONES);
            p.fill(&mut Rng::new(0));
            p
        };
        let mut bag = Bag(vec![
            named("weight", &[1, 1]),
            named("bias", &[1]),
            named("head", &[1, 1]),
            named("frozen", &[1, 1]),
        ]);
        bag.set_frozen(true, &|path| path == "frozen");
        let mut grads = Grads::new(&bag);
        grads.values_mut().fill(1.0);
        let mut sgd = Sgd::new(0.1)
            .weight_decay(1.0)
            .group(Group::matching(|path| path == "head").learning_rate_scale(2.0))
            .group(Group::biases_and_norms().weight_decay(0.0));
        sgd.step(&mut bag, &grads).unwrap();
        // 1 − 0.1 (1 + 1), 1 − 0.1 · 1, 1 − 0.2 (1 + 1), unmoved.
        for (got, want) in values(&bag).iter().zip([0.8, 0.9, 0.6, 1.0]) {
            assert!((got[0] - want).abs() < 1e-15, "{got:?} for {want}");
        }
    }

    #[test]
    fn a_group_that_matches_nothing_is_an_error() {
        let (mut bag, grads) = (Bag::<f64>::of(PARAMS), Grads::new(&Bag::<f64>::of(PARAMS)));
        let mut sgd = Sgd::new(0.1).group(Group::prefix("encoder."));
        assert!(sgd.step(&mut bag, &grads).is_err());
        let grads = Grads::new(&bag);
        let text = sgd.step(&mut bag, &grads).unwrap_err().to_string();
        assert_eq!(text, "Sgd: expected a group to match a parameter, got none for Prefix(prefix=encoder.)");
    }

    #[test]
    fn gradients_and_models_of_others_are_refused() {
        let mut bag = Bag::<f64>::of(PARAMS);
        let (grads, mut clone) = (Grads::new(&bag), bag.clone());
        let of_clone = Grads::new(&clone);
        let mut sgd = Sgd::new(0.1).momentum(0.9);
        assert!(sgd.step(&mut bag, &of_clone).is_err());
        sgd.step(&mut bag, &grads).unwrap();
        assert!(sgd.step(&mut bag, &of_clone).is_err());
        assert!(sgd.step(&mut clone, &grads).is_err() && sgd.step(&mut clone, &of_clone).is_err());
        assert!(OptimizerState::of(&sgd, &clone).is_err());
        // Nor does a changed setting let a stranger in.
        assert!(sgd.weight_decay(0.1).momentum(0.8).step(&mut clone, &of_clone).is_err());
        let mut empty = Bag(vec![Param::<f64>::new("weight", [1], Init::ONES)]);
        let grads = Grads::new(&empty);
        let text = Sgd::new(0.1).step(&mut empty, &grads).unwrap_err().to_string();
        assert!(text.contains("is not initialised"), "{text}");
    }

    /// A model that lists its parameter twice.
    struct Tied(Param<f64>);

    impl Parameters for Tied {
        type T = f64;
        fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
            out.child("encoder").add(&self.0);
            out.child("decoder").add(&self.0);
        }
        fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
            out.child("encoder").add(&mut self.0); // an exclusive borrow is handed out once
        }
    }

    #[test]
    fn a_tied_parameter_is_stepped_once_and_its_state_listed_once() {
        let mut tied = Tied(Bag::new(&[1.0]).0.remove(0));
        let mut grads = Grads::new(&tied);
        grads.values_mut()[0] = 1.0;
        let mut sgd = Sgd::new(0.5).momentum(0.5);
        sgd.step(&mut tied, &grads).unwrap();
        assert_eq!(tied.0.value().unwrap(), [0.5]);
        let state = OptimizerState::of(&sgd, &tied).unwrap();
        assert_eq!(state.len(), 2);
        assert_eq!(state.get("encoder.weight", "step"), Some(&StateValue::Count(1)));
        sgd.restore_state(&tied, state).unwrap();
        let heir = Tied(tied.0.clone());
        sgd.adopt(&tied, &heir).unwrap();
        assert_eq!(OptimizerState::of(&sgd, &heir).unwrap().len(), 2);
    }

    #[test]
    fn what_a_setting_does_not_use_is_not_kept() {
        let mut bag = Bag::<f32>::of(PARAMS);
        bag.set_frozen(true, &|path| path == "frozen");
        let grads = Grads::new(&bag);
        let names = |optimizer: &dyn Optimizer<f32>, bag: &Bag<f32>| -> Vec<String> {
            let state = OptimizerState::of(optimizer, bag).unwrap();
            state.iter().filter(|(path, ..)| *path == "bias").map(|(_, name, _)| name.to_owned()).collect()
        };
        let mut sgd = Sgd::new(0.1);
        sgd.step(&mut bag, &grads).unwrap();
        assert_eq!(names(&sgd, &bag), [""; 0]);
        let mut sgd = sgd.momentum(0.9);
        sgd.step(&mut bag, &grads).unwrap();
        assert_eq!(names(&sgd, &bag), ["momentum_buffer", "step"]);
        let mut adam = Adam::new(0.1);
        adam.step(&mut bag, &grads).unwrap();
        assert_eq!(names(&adam, &bag), ["exp_avg", "exp_avg_sq", "step"]);
        assert!(
            adam.entries.iter().filter(|e| e.state.is_none()).count() == 1,
            "a frozen parameter has none"
        );
        let mut adam = adam.amsgrad(true);
        adam.step(&mut bag, &grads).unwrap();
        assert_eq!(names(&adam, &bag), ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"]);
        // Thawed, it is at its own first step.
        bag.set_frozen(false, &|_| true);
        adam.step(&mut bag, &grads).unwrap();
        let state = OptimizerState::of(&adam, &bag).unwrap();
        assert_eq!(state.get("frozen", "step"), Some(&StateValue::Count(1)));
        assert_eq!(state.get("bias", "step"), Some(&StateValue::Count(3)));
    }

    /// Runs `first` for five steps, hands its state over, and compares five more with ten in a row, bit for bit.
    fn resumes(optimizer: &dyn Fn() -> Box<dyn Optimizer<f32>>) {
        let (mut whole, mut parts) = (Bag::<f32>::of(PARAMS), Bag::<f32>::of(PARAMS));
        let mut grads = [Grads::new(&whole), Grads::new(&parts)];
        let (mut uninterrupted, mut first) = (optimizer(), optimizer());
        for t in 0..5 {
            grads.iter_mut().for_each(|g| fill(g, t));
            uninterrupted.step(&mut whole, &grads[0]).unwrap();
            first.step(&mut parts, &grads[1]).unwrap();
        }
        let state = OptimizerState::of(&*first, &parts).unwrap();
        let (mut heir, mut saved, mut adopted) = (parts.clone(), optimizer(), first);
        adopted.adopt(&parts, &heir).unwrap();
        saved.restore_state(&heir, state.clone()).unwrap();
        assert_eq!(OptimizerState::of(&*saved, &heir).unwrap(), state);
        assert_eq!(OptimizerState::of(&*adopted, &heir).unwrap(), state);
        assert!(adopted.step(&mut parts, &grads[1]).is_err());
        let mut of_heir = Grads::new(&heir);
        let mut other = heir.clone();
        let mut restarted = optimizer();
        for t in 5..10 {
            fill(&mut grads[0], t);
            fill(&mut of_heir, t);
            uninterrupted.step(&mut whole, &grads[0]).unwrap();
            saved.step(&mut heir, &of_heir).unwrap();
        }
        assert_eq!(values(&heir), values(&whole));
        // A state that was handed over twice: the same again through `adopt`.
        let mut of_other = Grads::new(&other);
        saved.restore_state(&other, state).unwrap();
        for t in 5..10 {
            fill(&mut of_other, t);
            saved.step(&mut other, &of_other).unwrap();
        }
        assert_eq!(values(&other), values(&whole));
        saved.reset();
        let mut fresh = [Bag::<f32>::of(PARAMS), Bag::<f32>::of(PARAMS)];
        let mut both = fresh.each_ref().map(Grads::new);
        both.iter_mut().for_each(|g| fill(g, 1));
        saved.step(&mut fresh[0], &both[0]).unwrap();
        restarted.step(&mut fresh[1], &both[1]).unwrap();
        assert_eq!(values(&fresh[0]), values(&fresh[1]));
    }

    #[test]
    fn five_steps_restored_and_five_more_are_ten_steps_bit_for_bit() {
        let registry = crate::registry::<f32>();
        for entry in registry.optimizers() {
            for example in (entry.examples)() {
                resumes(&|| registry.build_optimizer(&example.spec).unwrap());
            }
        }
        resumes(&|| {
            let (head, norms) = (Group::prefix("head").learning_rate_scale(0.3), Group::biases_and_norms());
            Box::new(AdamW::new(0.1).group(head).group(norms.weight_decay(0.0)))
        });
    }

    #[test]
    fn everything_that_is_wrong_with_a_state_is_named_at_once() {
        let bag = Bag::<f64>::of(&PARAMS[..2]);
        let mut adam = Adam::new(0.1);
        let mut state = OptimizerState::of(&adam, &bag).unwrap();
        let whole = state.clone();
        state.remove("weight", "step");
        state.remove("weight", "exp_avg");
        state.insert("bias", "exp_avg_sq", StateValue::Values(Tensor::zeros([2])));
        state.insert("bias", "step", StateValue::Values(Tensor::from([0.5])));
        state.insert("head", "exp_avg", StateValue::Values(Tensor::zeros([2])));
        let text = adam.restore_state(&bag, state).unwrap_err().to_string();
        assert_eq!(
            text,
            "Adam: optimizer state: missing step of `weight`; missing exp_avg of `weight`; \
             expected a count as step of `bias`; expected exp_avg_sq of `bias` of shape [3], got [2]; \
             unexpected exp_avg of `head`"
        );
        assert!(adam.restore_state(&bag, whole).is_ok());
        let text = Sgd::new(0.1).restore_state(&bag, OptimizerState::of(&adam, &bag).unwrap()).unwrap_err();
        assert!(text.to_string().contains("unexpected exp_avg of `bias`"), "{text}");
    }

    #[test]
    fn state_is_not_adopted_between_models_that_differ() {
        let (mut bag, other) = (Bag::<f64>::of(PARAMS), Bag::<f64>::of(&PARAMS[..3]));
        let grads = Grads::new(&bag);
        let mut adam = Adam::new(0.1);
        adam.step(&mut bag, &grads).unwrap();
        assert!(adam.adopt(&bag, &other).is_err() && adam.adopt(&other, &bag).is_err());
        assert!(adam.adopt(&bag.clone(), &bag.clone()).is_err());
        assert!(adam.step(&mut bag, &grads).is_ok(), "nothing has changed");
    }

    #[test]
    fn the_order_of_settings_does_not_matter() {
        let spec = |adam: Adam| adam.spec();
        let one = Adam::new(0.1).amsgrad(true).betas(0.5, 0.6).weight_decay(0.1).maximize(true).eps(0.1);
        let two = Adam::new(0.1).eps(0.1).maximize(true).weight_decay(0.1).betas(0.5, 0.6).amsgrad(true);
        assert_eq!(spec(one), spec(two));
    }

    /// A rule that is not fused: plain gradient descent.
    struct Plain;

    impl<T: Scalar> Rule<T> for Plain {
        const KIND: &'static str = "Plain";
        fn update(&self, update: Update<'_, T>) {
            assert_eq!(update.terms, Terms::NEUTRAL);
            let rate = T::from_f64(update.rate);
            update.w.iter_mut().zip(update.g).for_each(|(w, &g)| *w -= rate * g);
        }
    }

    #[test]
    fn decay_and_maximisation_are_the_same_for_rules_that_know_nothing_of_them() {
        for (decay, decoupled, maximize) in
            [(0.0, false, false), (0.1, false, true), (0.1, true, false), (0.2, true, true)]
        {
            let mut bags = [Bag::<f64>::of(PARAMS), Bag::<f64>::of(PARAMS)];
            let mut grads = bags.each_ref().map(Grads::new);
            let plain = Driver::from_rule(Plain, 0.1).weight_decay(decay).maximize(maximize);
            let (mut plain, sgd) =
                (plain.decoupled_weight_decay(decoupled), Sgd::new(0.1).maximize(maximize));
            let mut sgd = sgd.decoupled_weight_decay(decoupled).weight_decay(decay);
            for t in 0..4 {
                grads.iter_mut().for_each(|g| fill(g, t));
                plain.step(&mut bags[0], &grads[0]).unwrap();
                sgd.step(&mut bags[1], &grads[1]).unwrap();
            }
            for (got, want) in values(&bags[0]).concat().iter().zip(values(&bags[1]).concat()) {
                assert!((got - want).abs() < 1e-15, "{got} for {want}");
            }
        }
    }

    #[test]
    fn a_closure_is_evaluated_once_by_an_optimizer_of_one_evaluation() {
        let mut bag = Bag::<f64>::new(&[3.0]);
        let (mut grads, mut calls) = (Grads::new(&bag), 0);
        let mut closure = chainrule_core::Evaluation::new(&mut bag, &mut grads, |bag: &Bag, grads| {
            calls += 1;
            let w = bag.0[0].value()?[0];
            grads.values_mut()[0] = w;
            Ok(0.5 * w * w)
        });
        assert_eq!(Sgd::new(0.5).step_with(&mut closure).unwrap(), 4.5);
        assert_eq!((calls, bag.0[0].value().unwrap()[0]), (1, 1.5));
    }
}
