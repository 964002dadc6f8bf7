//! L-BFGS (Nocedal, 1980) as an optimizer of a closure: it evaluates the loss several times a step, and looks at all
//! parameters together.

use chainrule_core::{
    Closure, Error, Evaluation, Grads, Init, Optimizer, OptimizerState, Param, Parameters, Params, ParamsMut,
    Result, StateValue, StateVisitor, Tensor,
};

/// The trainable parameters of a model as one vector, and their gradients.
fn read(model: &dyn Parameters<T = f64>, grads: &Grads<f64>) -> Result<[Vec<f64>; 2]> {
    let (mut w, mut g) = (Vec::new(), Vec::new());
    model.try_visit(&mut |path, p| {
        if p.trainable() {
            w.extend_from_slice(p.value()?);
            let of_p = grads.get(p).ok_or_else(|| Error::state("gradients of another model"));
            g.extend_from_slice(of_p.map_err(|e| e.in_layer(path.to_string()))?);
        }
        Ok(())
    })?;
    Ok([w, g])
}

fn write(model: &mut dyn Parameters<T = f64>, w: &[f64]) -> Result<()> {
    let mut rest = w;
    model.try_visit_mut(&mut |_, p| {
        if p.trainable() {
            let (first, others) = rest.split_at(p.volume());
            p.value_mut()?.copy_from_slice(first);
            rest = others;
        }
        Ok(())
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// w ← w − η H g with H from the last steps s and changes y of the gradient, and a line search that halves η until the
/// loss falls enough (Armijo, 1966).
struct Lbfgs {
    rate: f64,
    memory: usize,
    /// (s, y), oldest first.
    pairs: Vec<[Vec<f64>; 2]>,
}

impl Lbfgs {
    fn new(rate: f64) -> Self {
        Self { rate, memory: 10, pairs: Vec::new() }
    }

    /// −H g by the two loops.
    fn direction(&self, g: &[f64]) -> Vec<f64> {
        let (mut q, mut alphas) = (g.to_vec(), Vec::new());
        for [s, y] in self.pairs.iter().rev() {
            let alpha = dot(s, &q) / dot(s, y);
            q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
            alphas.push(alpha);
        }
        let scale = self.pairs.last().map_or(1.0 / dot(g, g).sqrt().max(1.0), |[s, y]| dot(s, y) / dot(y, y));
        q.iter_mut().for_each(|q| *q *= scale);
        for ([s, y], alpha) in self.pairs.iter().zip(alphas.into_iter().rev()) {
            let beta = dot(y, &q) / dot(s, y);
            q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
        }
        q.iter_mut().for_each(|q| *q = -*q);
        q
    }
}

impl Optimizer<f64> for Lbfgs {
    fn step(&mut self, _: &mut dyn Parameters<T = f64>, _: &Grads<f64>) -> Result<()> {
        Err(Error::value("Lbfgs: expected a closure, got one gradient: call step_with"))
    }

    fn step_with(&mut self, closure: &mut dyn Closure<f64>) -> Result<f64> {
        let first = closure.evaluate()?;
        let (model, grads) = closure.parts();
        let [w, g] = read(model, grads)?;
        let d = self.direction(&g);
        let slope = dot(&d, &g);
        let mut rate = self.rate;
        for _ in 0..40 {
            let next: Vec<f64> = w.iter().zip(&d).map(|(w, d)| w + rate * d).collect();
            write(closure.parts().0, &next)?;
            let loss = closure.evaluate()?;
            if loss <= first + 1e-4 * rate * slope {
                let (model, grads) = closure.parts();
                let [w_next, g_next] = read(model, grads)?;
                let change = |next: &[f64], last: &[f64]| next.iter().zip(last).map(|(a, b)| a - b).collect();
                let pair: [Vec<f64>; 2] = [change(&w_next, &w), change(&g_next, &g)];
                if dot(&pair[0], &pair[1]) > 0.0 {
                    self.pairs.push(pair);
                    self.pairs.drain(..self.pairs.len().saturating_sub(self.memory));
                }
                return Ok(first);
            }
            rate *= 0.5;
        }
        write(closure.parts().0, &w)?; // no step lowers the loss: a minimum, up to rounding
        Ok(first)
    }

    fn learning_rate(&self) -> f64 {
        self.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    fn reset(&mut self) {
        self.pairs.clear();
    }

    fn visit_state(&self, _: &dyn Parameters<T = f64>, visit: &mut StateVisitor<'_, f64>) -> Result<()> {
        for (i, [s, y]) in self.pairs.iter().enumerate() {
            for (name, values) in [("steps", s), ("changes", y)] {
                let values = Tensor::from_vec([values.len()], values.clone())?;
                visit("", &format!("{name}.{i}"), StateValue::Values(&values));
            }
        }
        Ok(())
    }

    fn restore_state(&mut self, _: &dyn Parameters<T = f64>, mut state: OptimizerState<f64>) -> Result<()> {
        let mut pairs = Vec::new();
        while let Some(StateValue::Values(s)) = state.remove("", &format!("steps.{}", pairs.len())) {
            match state.remove("", &format!("changes.{}", pairs.len())) {
                Some(StateValue::Values(y)) => pairs.push([s.into_vec(), y.into_vec()]),
                _ => return Err(Error::state("Lbfgs: expected a change beside each step")),
            }
        }
        if !state.is_empty() {
            return Err(Error::state("Lbfgs: unexpected optimizer state"));
        }
        self.pairs = pairs;
        Ok(())
    }
}

/// Two tensors whose elements are the coordinates of one quadratic.
struct Point([Param<f64>; 2]);

impl Point {
    fn new() -> Self {
        Self([("a", 2), ("b", 3)].map(|(name, n)| {
            let mut p = Param::new(name, [n], Init::ONES);
            p.set(Tensor::full([n], 1.0)).unwrap();
            p
        }))
    }
}

impl Parameters for Point {
    type T = f64;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
        self.0.iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
        self.0.iter_mut().for_each(|p| out.add(p));
    }
}

/// E = ½ Σ λᵢ (wᵢ − i)² + ¼ (Σ wᵢ − 10)², of condition 10⁶ and more.
fn quadratic(point: &Point, grads: &mut Grads<f64>) -> Result<f64> {
    let w = [point.0[0].value()?, point.0[1].value()?].concat();
    let excess = w.iter().sum::<f64>() - 10.0;
    let (mut e, g) = (0.25 * excess * excess, grads.values_mut());
    for (i, &w) in w.iter().enumerate() {
        let (lambda, d) = (1e-2 * 10f64.powf(1.5 * i as f64), w - i as f64);
        e += 0.5 * lambda * d * d;
        g[i] = lambda * d + 0.5 * excess;
    }
    Ok(e)
}

#[test]
fn a_badly_conditioned_quadratic_is_solved_in_a_few_dozen_steps() {
    let (mut point, mut lbfgs) = (Point::new(), Lbfgs::new(1.0));
    let mut grads = Grads::new(&point);
    for step in 0..60 {
        lbfgs.step_with(&mut Evaluation::new(&mut point, &mut grads, quadratic)).unwrap();
        if step == 9 {
            // Saved and restored half-way, into another optimizer.
            let state = OptimizerState::of(&lbfgs, &point).unwrap();
            lbfgs = Lbfgs::new(1.0);
            lbfgs.restore_state(&point, state).unwrap();
        }
    }
    let mut grads = Grads::new(&point);
    // Σ i = 10, so that the minimum is wᵢ = i with E = 0.
    let e = quadratic(&point, &mut grads).unwrap();
    assert!(e < 1e-14, "{e}");
    assert!(point.0[1].value().unwrap().iter().zip([2.0, 3.0, 4.0]).all(|(w, want)| (w - want).abs() < 1e-5));
}

#[test]
fn frozen_parameters_do_not_move_and_one_gradient_is_refused() {
    let (mut point, mut lbfgs) = (Point::new(), Lbfgs::new(1.0));
    point.set_frozen(true, &|path| path == "a");
    let mut grads = Grads::new(&point);
    for _ in 0..5 {
        lbfgs.step_with(&mut Evaluation::new(&mut point, &mut grads, quadratic)).unwrap();
    }
    assert_eq!(point.0[0].value().unwrap(), [1.0, 1.0]);
    assert!(lbfgs.step(&mut point, &grads).is_err());
}
