//! L-BFGS (Liu and Nocedal, 1989), as PyTorch has it.
//!
//! ```text
//! d = −H g                       H from the last pairs s = w′ − w, y = g′ − g, by two loops
//! w ← w + t d                    t = η, or by a search for the strong conditions of Wolfe
//! ```
//!
//! Derivation: docs/optimizers/lbfgs.md.

use crate::{
    check::{count_of, not_negative, representable},
    driver::{each, foreign, heirs},
    wolfe::{Point, strong_wolfe},
};
use chainrule_core::{
    Args, Closure, Error, Example, Facts, FromSpec, Grads, Optimizer, OptimizerState, ParamId, Parameters,
    Result, Scalar, Spec, StateValue, StateVisitor, Tensor, Value,
};
use chainrule_tensor::kernels::{
    elementwise::{add_scaled, scale},
    reduce::dot,
};

/// Quasi-Newton steps for a loss without noise: several evaluations a step, by [`Optimizer::step_with`].
///
/// [`Optimizer::step`], which has one gradient and no loss, takes one iteration of length η; with a line search it is an error.
///
/// Defaults: η = 1, 20 iterations and 25 evaluations a step, tolerances 1e-7 of the gradient and 1e-9 of changes, a history of 100,
/// no line search.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Lbfgs;
/// let lbfgs: Lbfgs = Lbfgs::new(1.0).history_size(10).strong_wolfe(true);
/// assert!(lbfgs.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Lbfgs<T: Scalar = f32> {
    rate: f64,
    max_iter: u64,
    max_eval: Option<u64>,
    tolerance_grad: f64,
    tolerance_change: f64,
    history_size: usize,
    strong_wolfe: bool,
    /// The trainable parameters of the first step, in order; empty before it.
    ids: Vec<ParamId>,
    func_evals: u64,
    n_iter: u64,
    t: f64,
    d: Vec<T>,
    prev_flat_grad: Vec<T>,
    flat_grad: Vec<T>,
    /// Oldest first.
    pairs: Vec<Pair<T>>,
}

/// A step s, the change y of the gradient along it, and 1/(y · s).
#[derive(Clone, Debug)]
struct Pair<T> {
    y: Vec<T>,
    s: Vec<T>,
    rho: f64,
    /// α of the two loops.
    alpha: f64,
}

impl<T: Scalar> Pair<T> {
    fn new(y: Vec<T>, s: Vec<T>) -> Self {
        let rho = 1.0 / dot(&y, &s);
        Self { y, s, rho, alpha: 0.0 }
    }
}

impl<T: Scalar> Lbfgs<T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            rate: learning_rate,
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            history_size: 100,
            strong_wolfe: false,
            ids: Vec::new(),
            func_evals: 0,
            n_iter: 0,
            t: 0.0,
            d: Vec::new(),
            prev_flat_grad: Vec::new(),
            flat_grad: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// The most iterations of a step, at least one.
    #[must_use]
    pub fn max_iter(mut self, iterations: u64) -> Self {
        self.max_iter = iterations;
        self
    }

    /// The most evaluations of a step, after which no iteration begins; 5/4 of the iterations unless set.
    #[must_use]
    pub fn max_eval(mut self, evaluations: u64) -> Self {
        self.max_eval = Some(evaluations);
        self
    }

    /// Ends when no element of the gradient is larger.
    #[must_use]
    pub fn tolerance_grad(mut self, tolerance: f64) -> Self {
        self.tolerance_grad = tolerance;
        self
    }

    /// Ends when neither the loss nor an element changes by more.
    #[must_use]
    pub fn tolerance_change(mut self, tolerance: f64) -> Self {
        self.tolerance_change = tolerance;
        self
    }

    /// How many pairs are kept, at least one.
    #[must_use]
    pub fn history_size(mut self, pairs: usize) -> Self {
        self.history_size = pairs;
        self
    }

    /// Searches along d for a point that fulfils the strong conditions of Wolfe.
    #[must_use]
    pub fn strong_wolfe(mut self, search: bool) -> Self {
        self.strong_wolfe = search;
        self
    }

    /// How many iterations there were, and how many evaluations.
    pub fn counts(&self) -> [u64; 2] {
        [self.n_iter, self.func_evals]
    }

    /// The trainable parameters must be those of the first step.
    fn enter(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.check()?;
        grads.check()?;
        let (mut at, known) = (0, !self.ids.is_empty());
        let ids = &mut self.ids;
        let entered = model.try_visit_mut(&mut |path, p| {
            if !p.trainable() {
                return Ok(());
            }
            let result = match (grads.range(p), known) {
                (None, _) => Err(foreign("they were made for another model")),
                (_, false) => p.value().map(|_| ids.push(p.id())),
                (_, true) if ids.get(at) == Some(&p.id()) => Ok(()),
                _ => Err(Error::state(
                    "Lbfgs: expected the trainable parameters of the first step, got others",
                )),
            };
            at += 1;
            result.map_err(|e| e.in_layer(path.to_string()))
        });
        if entered.is_err() && !known {
            self.ids.clear();
        }
        entered?;
        if at != self.ids.len() {
            return Err(Error::state(format!(
                "Lbfgs: expected the {} trainable parameters of the first step, got {at}",
                self.ids.len()
            )));
        }
        Ok(())
    }

    /// g, in the order of the parameters.
    fn gather(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        gather(model, grads, &mut self.flat_grad)
    }

    /// d = −H g, and the history with what the last step has shown.
    fn direct(&mut self) {
        let Self { d, flat_grad: g, prev_flat_grad: before, pairs, .. } = self;
        self.n_iter = self.n_iter.saturating_add(1);
        if self.n_iter == 1 || d.len() != g.len() || before.len() != g.len() {
            pairs.clear();
            d.clear();
            d.extend(g.iter().map(|&g| -g));
        } else {
            // y = g − g before and s = t d, in the places of the latter.
            before.iter_mut().zip(g.iter()).for_each(|(before, &now)| *before = now - *before);
            scale(d, T::from_f64(self.t));
            if dot(before, d) > 1e-10 {
                let full = pairs.len() >= self.history_size;
                let mut pair = if full { pairs.remove(0) } else { Pair::new(Vec::new(), Vec::new()) };
                pair.y.clone_from(before);
                pair.s.clone_from(d);
                pair.rho = 1.0 / dot(before, d);
                pairs.push(pair);
            }
            d.clear();
            d.extend(g.iter().map(|&g| -g));
            for Pair { y, s, rho, alpha } in pairs.iter_mut().rev() {
                *alpha = dot(s, d) * *rho;
                add_scaled(d, T::from_f64(-*alpha), y); // q −= α y
            }
            if let Some(Pair { y, rho, .. }) = pairs.last() {
                scale(d, T::from_f64(1.0 / (rho * dot(y, y)))); // by (y · s)/(y · y)
            }
            for Pair { y, s, rho, alpha } in pairs.iter() {
                let beta = dot(y, d) * rho;
                add_scaled(d, T::from_f64(alpha - beta), s); // r += (α − β) s
            }
        }
        before.clone_from(g);
    }

    /// The length of the step before any search.
    fn first_length(&self) -> f64 {
        let sum: f64 = self.flat_grad.iter().map(|g| g.to_f64().abs()).sum();
        if self.n_iter == 1 { (1.0 / sum).min(1.0) * self.rate } else { self.rate }
    }

    fn minimal(&self) -> bool {
        largest(&self.flat_grad) <= self.tolerance_grad
    }

    /// d is a direction in which the loss falls.
    fn falls(&self) -> bool {
        dot(&self.flat_grad, &self.d) <= -self.tolerance_change
    }
}

fn gather<T: Scalar>(model: &mut dyn Parameters<T = T>, grads: &Grads<T>, flat: &mut Vec<T>) -> Result<()> {
    flat.clear();
    flat.reserve_exact(grads.values().len());
    model.try_visit_mut(&mut |_, p| {
        if p.trainable() {
            let g = grads.get(p).ok_or_else(|| foreign("they were made for another model"))?;
            flat.extend_from_slice(g);
        }
        Ok(())
    })
}

/// w ← x + t d, from the weights themselves without an x.
fn advance<T: Scalar>(model: &mut dyn Parameters<T = T>, x: Option<&[T]>, t: f64, d: &[T]) -> Result<()> {
    let (mut at, t) = (0, T::from_f64(t));
    model.try_visit_mut(&mut |_, p| {
        if p.trainable() {
            let part = at..at + p.volume();
            let w = p.value_mut()?;
            if let Some(x) = x {
                w.copy_from_slice(&x[part.clone()]);
            }
            at = part.end;
            add_scaled(w, t, &d[part]);
        }
        Ok(())
    })
}

fn largest<T: Scalar>(v: &[T]) -> f64 {
    v.iter().fold(0.0, |most, v| v.to_f64().abs().max(most))
}

impl<T: Scalar> Optimizer<T> for Lbfgs<T> {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        if self.strong_wolfe {
            return Err(Error::value("Lbfgs: expected a closure for its line search, got one gradient"));
        }
        self.enter(model, grads)?;
        self.gather(model, grads)?;
        self.func_evals = self.func_evals.saturating_add(1);
        if self.minimal() {
            return Ok(());
        }
        self.direct();
        self.t = T::from_f64(self.first_length()).to_f64();
        if !self.falls() {
            return Ok(());
        }
        advance(model, None, self.t, &self.d)
    }

    fn step_with(&mut self, closure: &mut dyn Closure<T>) -> Result<T> {
        let (model, grads) = closure.parts();
        self.enter(model, grads)?;
        let first = closure.evaluate()?;
        let (mut loss, mut evaluations) = (first.to_f64(), 1);
        let (model, grads) = closure.parts();
        self.gather(model, grads)?;
        self.func_evals = self.func_evals.saturating_add(1);
        if self.minimal() {
            return Ok(first);
        }
        let most = self.max_eval.unwrap_or(self.max_iter.saturating_mul(5) / 4);
        for iteration in 1..=self.max_iter {
            self.direct();
            let before = loss;
            self.t = self.first_length();
            if !self.falls() {
                break;
            }
            let mut spent = 0;
            if self.strong_wolfe {
                let mut x = Vec::new();
                closure.parts().0.try_visit_mut(&mut |_, p| {
                    if p.trainable() {
                        x.extend_from_slice(p.value()?);
                    }
                    Ok(())
                })?;
                let start = Point::new(0.0, loss, self.flat_grad.clone(), &self.d);
                let (found, searched) = strong_wolfe(start, self.t, largest(&self.d), &mut |t| {
                    advance(closure.parts().0, Some(&x), t, &self.d)?;
                    let loss = closure.evaluate()?.to_f64();
                    let (model, grads) = closure.parts();
                    let mut g = Vec::with_capacity(x.len());
                    gather(model, grads, &mut g)?;
                    Ok(Point::new(t, loss, g, &self.d))
                })?;
                (loss, spent, self.t) = (found.f, searched, found.t);
                self.flat_grad = found.g;
                advance(closure.parts().0, Some(&x), self.t, &self.d)?;
            } else {
                advance(closure.parts().0, None, self.t, &self.d)?;
                if iteration != self.max_iter {
                    loss = closure.evaluate()?.to_f64();
                    let (model, grads) = closure.parts();
                    self.gather(model, grads)?;
                    spent = 1;
                }
            }
            self.t = T::from_f64(self.t).to_f64();
            evaluations += spent;
            self.func_evals = self.func_evals.saturating_add(spent);
            let still = largest(&self.d) * self.t.abs() <= self.tolerance_change;
            if evaluations >= most || self.minimal() || still || (loss - before).abs() < self.tolerance_change
            {
                break;
            }
        }
        Ok(first)
    }

    fn learning_rate(&self) -> f64 {
        self.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    fn check(&self) -> Result<()> {
        not_negative::<T>("Lbfgs", "learning rate", self.rate)?;
        not_negative::<T>("Lbfgs", "tolerance of the gradient", self.tolerance_grad)?;
        not_negative::<T>("Lbfgs", "tolerance of changes", self.tolerance_change)?;
        representable::<T>("Lbfgs", "learning rate", self.rate)?;
        if self.max_iter == 0 || self.history_size == 0 {
            return Err(Error::value(format!(
                "Lbfgs: expected iterations and a history from 1, got {} and {}",
                self.max_iter, self.history_size
            )));
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.ids.clear();
        (self.func_evals, self.n_iter, self.t) = (0, 0, 0.0);
        self.pairs.clear();
        for of_all in [&mut self.d, &mut self.prev_flat_grad, &mut self.flat_grad] {
            of_all.clear();
        }
    }

    fn visit_state(&self, model: &dyn Parameters<T = T>, visit: &mut StateVisitor<'_, T>) -> Result<()> {
        if !self.ids.is_empty() {
            let mut found = Vec::new();
            each(model, &mut |_, p| {
                found.push(p.id());
                Ok(())
            })?;
            if self.ids.iter().any(|id| !found.contains(id)) {
                return Err(foreign("the optimizer has the state of another model"));
            }
        }
        visit("", "func_evals", StateValue::Count(self.func_evals));
        visit("", "n_iter", StateValue::Count(self.n_iter));
        visit("", "t", StateValue::Values(&Tensor::full([], T::from_f64(self.t))));
        let mut values = |name: &str, of: &[T]| -> Result<()> {
            visit("", name, StateValue::Values(&Tensor::from_vec([of.len()], of.to_vec())?));
            Ok(())
        };
        values("d", &self.d)?;
        values("prev_flat_grad", &self.prev_flat_grad)?;
        for (i, Pair { y, s, .. }) in self.pairs.iter().enumerate() {
            values(&format!("old_dirs.{i}"), y)?;
            values(&format!("old_stps.{i}"), s)?;
        }
        Ok(())
    }

    fn restore_state(&mut self, model: &dyn Parameters<T = T>, mut state: OptimizerState<T>) -> Result<()> {
        let func_evals = count_of(state.remove("", "func_evals"), "Lbfgs", "func_evals")?;
        let n_iter = count_of(state.remove("", "n_iter"), "Lbfgs", "n_iter")?;
        let (mut ids, mut length) = (Vec::new(), 0);
        each(model, &mut |_, p| {
            if p.trainable() {
                ids.push(p.id());
                length += p.volume();
            }
            Ok(())
        })?;
        let expected = if n_iter == 0 { 0 } else { length };
        let mut values = |name: &str, length: usize| match state.remove("", name) {
            Some(StateValue::Values(v)) if v.len() == length => Ok(Some(v.into_vec())),
            Some(StateValue::Values(v)) => Err(Error::state(format!(
                "Lbfgs: optimizer state: expected {name} of {length} elements, got {}",
                v.len()
            ))),
            Some(StateValue::Count(_)) => {
                Err(Error::state(format!("Lbfgs: optimizer state: expected values as {name}, got a count")))
            }
            None => Ok(None),
        };
        let missing = |name: &str| Error::state(format!("Lbfgs: optimizer state: missing {name}"));
        let t = values("t", 1)?.ok_or_else(|| missing("t"))?[0].to_f64();
        let d = values("d", expected)?.ok_or_else(|| missing("d"))?;
        let before = values("prev_flat_grad", expected)?.ok_or_else(|| missing("prev_flat_grad"))?;
        let mut pairs = Vec::new();
        while let Some(y) = values(&format!("old_dirs.{}", pairs.len()), length)? {
            let name = format!("old_stps.{}", pairs.len());
            let s = values(&name, length)?.ok_or_else(|| missing(&name))?;
            pairs.push(Pair::new(y, s));
        }
        if let Some((path, name, _)) = state.iter().next() {
            let (name, path) = (chainrule_core::text::name(name), chainrule_core::text::quote(path));
            return Err(Error::state(format!("Lbfgs: optimizer state: unexpected {name} of {path}")));
        }
        if n_iter == 0 {
            ids.clear();
        }
        (self.func_evals, self.n_iter, self.t, self.ids) = (func_evals, n_iter, t, ids);
        (self.d, self.prev_flat_grad, self.pairs) = (d, before, pairs);
        Ok(())
    }

    fn adopt(&mut self, from: &dyn Parameters<T = T>, to: &dyn Parameters<T = T>) -> Result<()> {
        let pairs = heirs(from, to)?;
        let ids: Option<Vec<ParamId>> = self.ids.iter().map(|id| pairs.get(id).copied()).collect();
        self.ids = ids.ok_or_else(|| foreign("the optimizer has the state of another model"))?;
        Ok(())
    }

    fn spec(&self) -> Spec {
        let search = if self.strong_wolfe { Value::from("strong_wolfe") } else { Value::None };
        Spec::new("Lbfgs")
            .with("lr", self.rate)
            .with("max_iter", self.max_iter)
            .with("max_eval", self.max_eval.map_or(Value::None, Value::from))
            .with("tolerance_grad", self.tolerance_grad)
            .with("tolerance_change", self.tolerance_change)
            .with("history_size", self.history_size)
            .with("line_search_fn", search)
    }
}

impl<T: Scalar> FromSpec<T> for Lbfgs<T> {
    const FACTS: Facts = Facts::new("Lbfgs")
        .family("optimizer")
        .formula("w ← w − t H g, H from the last pairs of steps and changes of g")
        .page("optimizers/lbfgs.md")
        .torch("LBFGS");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let search = match args.optional::<String>("line_search_fn")?.as_deref() {
            None => false,
            Some("strong_wolfe") => true,
            Some(other) => {
                let other = chainrule_core::text::quote(other);
                return Err(Error::value(format!(
                    "Lbfgs: expected line_search_fn strong_wolfe, got {other}"
                )));
            }
        };
        let mut lbfgs = Self::new(args.or("lr", 1.0)?)
            .max_iter(args.or("max_iter", 20)?)
            .tolerance_grad(args.or("tolerance_grad", 1e-7)?)
            .tolerance_change(args.or("tolerance_change", 1e-9)?)
            .history_size(args.or("history_size", 100)?)
            .strong_wolfe(search);
        lbfgs.max_eval = args.optional("max_eval")?;
        Ok(lbfgs)
    }

    /// Without a line search, which one gradient has nothing for.
    fn examples() -> Vec<Example> {
        let lbfgs = || Spec::new("Lbfgs").with("lr", 0.1).with("line_search_fn", Value::None);
        let other = lbfgs().with("max_iter", 5).with("max_eval", 6).with("tolerance_grad", 1e-5);
        vec![
            Example::new(lbfgs().with("history_size", 3), [[3, 2], [2, 5]]),
            Example::new(other.with("tolerance_change", 1e-7), [[7]]),
            Example::bench(lbfgs().with("history_size", 10), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::Bag;
    use chainrule_core::Evaluation;

    /// ½ Σ λᵢ (wᵢ − i)²
    fn quadratic(lambda: &'static [f64]) -> impl FnMut(&Bag, &mut Grads<f64>) -> Result<f64> {
        move |bag, grads| {
            let (w, g) = (bag.0[0].value()?, grads.values_mut());
            let parts = (0..w.len()).map(|i| {
                g[i] = lambda[i] * (w[i] - i as f64);
                0.5 * g[i] * (w[i] - i as f64)
            });
            Ok(parts.sum())
        }
    }

    /// E = w², w = 2: g = 4, d = −4, t = η/4: w = 1. Then s = −1, y = −2, H = ½, d = −½ · 2 = −1: w = 0.
    #[test]
    pub fn by_hand() {
        let (mut bag, mut lbfgs) = (Bag::<f64>::new(&[2.0]), Lbfgs::new(1.0).max_iter(1));
        let mut grads = Grads::new(&bag);
        for want in [1.0, 0.0] {
            lbfgs.step_with(&mut Evaluation::new(&mut bag, &mut grads, quadratic(&[2.0]))).unwrap();
            assert!((bag.0[0].value().unwrap()[0] - want).abs() < 1e-15);
        }
        // The same with gradients alone.
        let (mut bag, mut lbfgs) = (Bag::<f64>::new(&[2.0]), Lbfgs::new(1.0));
        let mut grads = Grads::new(&bag);
        for want in [1.0, 0.0] {
            grads.values_mut()[0] = 2.0 * bag.0[0].value().unwrap()[0];
            lbfgs.step(&mut bag, &grads).unwrap();
            assert!((bag.0[0].value().unwrap()[0] - want).abs() < 1e-15);
        }
        assert!(lbfgs.strong_wolfe(true).step(&mut bag, &grads).is_err());
    }

    /// The minimum, where every gradient is 0, of quadratics of condition 10⁴.
    #[test]
    pub fn agrees_with_reference() {
        for search in [false, true] {
            let mut bag = Bag::<f64>::new(&[1.0, -2.0, 0.5, 3.0]);
            let (mut grads, mut lbfgs) =
                (Grads::new(&bag), Lbfgs::new(1.0).strong_wolfe(search).history_size(5));
            lbfgs = lbfgs.tolerance_grad(1e-9).tolerance_change(0.0);
            for _ in 0..10 {
                let loss = quadratic(&[0.1, 1.0, 30.0, 1000.0]);
                lbfgs.step_with(&mut Evaluation::new(&mut bag, &mut grads, loss)).unwrap();
            }
            for (i, w) in bag.0[0].value().unwrap().iter().enumerate() {
                assert!((w - i as f64).abs() < 1e-5, "{search}: {w} for {i}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Lbfgs::<f32>::new(f64::NAN).check().is_err());
        assert!(Lbfgs::<f32>::new(1.0).max_iter(0).check().is_err());
        assert!(Lbfgs::<f32>::new(1.0).history_size(0).check().is_err());
        assert!(Lbfgs::<f32>::new(1.0).tolerance_grad(-1.0).check().is_err());
    }
}
