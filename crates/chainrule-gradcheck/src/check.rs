//! The public checker.

use crate::{
    differences::{Differences, Function},
    evaluate::{backward, buffers, forward, present, refs, weights},
    report::Report,
};
use chainrule_core::{
    Context, Error, Grads, Inputs, Kind, Loss, Module, Objective, Parameters, Result, Rng, Target,
    TargetList, Tensor,
};

/// Compares a backward pass with central differences of E = Σ R ⊙ Y, for a fixed random R.
///
/// Every coordinate of the inputs and of the trainable parameters is moved by h = 1e-6·max(1, |v|) both ways; tensors of
/// more than 2,000 elements are moved at 100 random coordinates and along 100 random directions. Where the slopes from
/// both sides differ the function has a kink and the derivative is skipped; a check with more than 5 % of these fails.
/// What rounding can do to the differences is estimated from the size of Y and allowed for. Inputs without a derivative
/// ([`Module::differentiable_input`]) are left out.
///
/// ```
/// use chainrule_core::{Call, Context, Grads, Layer, Result, Shape, Tensor};
/// use chainrule_gradcheck::Check;
///
/// /// y = x², with a backward pass that forgets the factor 2.
/// #[derive(Clone)]
/// struct Square;
/// impl Layer for Square {
///     type T = f64;
///     type Cache = ();
///     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
///         Shape::new(input)
///     }
///     fn forward(&self, x: &Tensor<f64>, y: &mut Tensor<f64>, _: &mut (), _: Context) -> Result<()> {
///         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = x * x);
///         Ok(())
///     }
///     fn backward(
///         &self,
///         call: Call<'_, f64>,
///         _: &mut (),
///         _: &mut Grads<f64>,
///         dx: Option<&mut Tensor<f64>>,
///     ) -> Result<()> {
///         let Some(dx) = dx else { return Ok(()) };
///         let pairs = call.x.data().iter().zip(call.dy.data());
///         dx.reset(*call.x.shape()).iter_mut().zip(pairs).for_each(|(dx, (&x, &dy))| *dx = x * dy);
///         Ok(())
///     }
/// }
///
/// let report = Check::new().module(&Square, &Tensor::from([[0.5, 2.0]]))?;
/// assert!(!report.passed());
/// assert_eq!(report.tensors()[0].to_string(), "x: 2 of 2 wrong, numeric = 2 × analytic");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Check {
    seed: u64,
    context: Context,
    tolerance: f64,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// A check in training mode.
    pub fn new() -> Self {
        Self { seed: 1, context: Context::train(1), tolerance: 1e-7 }
    }

    /// Another seed for R, and for the directions.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Another context: [`Context::frozen`] for the inference function, or another seed of the noise. It is the same for
    /// every pass, and so is the noise.
    #[must_use]
    pub fn context(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// The largest |analytic − numeric|/max(1, |analytic|, |numeric|), 1e-7 by default.
    #[must_use]
    pub fn tolerance(self, tolerance: f64) -> Self {
        Self { tolerance, ..self }
    }

    /// Compares ∂E/∂x of every input and every ∂E/∂θ of a layer or another module that is initialised. Several inputs are
    /// named `x0`, `x1`, ….
    ///
    /// # Errors
    /// The module's own, and if its two lists of parameters differ. Derivatives that disagree are in the report.
    pub fn module<M: Module<T = f64> + Clone>(&self, module: &M, inputs: impl Inputs<f64>) -> Result<Report> {
        let xs = inputs.with(|xs| xs.iter().map(|&x| x.clone()).collect());
        let [mut report, parameters] = self.inputs_and_parameters(module.clone(), xs)?;
        report.merge(parameters);
        Ok(report)
    }

    /// The reports of the inputs and of the parameters.
    pub(crate) fn inputs_and_parameters<M: Module<T = f64>>(
        &self,
        mut module: M,
        xs: Vec<Tensor<f64>>,
    ) -> Result<[Report; 2]> {
        module.same_lists()?;
        let mut rng = Rng::new(self.seed);
        let (ys, mut state) = forward(&module, &xs, self.context).map_err(|e| unlisted(&module, e))?;
        let rs: Vec<_> = ys.iter().map(|y| weights(*y.shape(), &mut rng)).collect();
        let (mut grads, mut dxs) = (Grads::new(&module), buffers(xs.len()));
        backward(&module, (&xs, &ys, &present(&rs)), &mut state, &mut grads, &mut dxs, |_| true)?;

        // The tensors in the order of `ModuleFunction::change`: inputs, then trainable parameters.
        let mut tensors = Vec::new();
        for (i, (x, dx)) in xs.iter().zip(dxs).enumerate() {
            let name = if xs.len() == 1 { "x".to_owned() } else { format!("x{i}") };
            tensors.push((name, *x.shape(), dx.into_vec()));
        }
        module.visit(&mut |path, p| {
            if p.trainable() {
                tensors.push((path.to_string(), *p.shape(), grads.get(p).unwrap_or_default().to_vec()));
            }
        });
        let skipped: Vec<bool> = (0..xs.len()).map(|i| !module.differentiable_input(i)).collect();
        let mut f = ModuleFunction { module, xs, cx: self.context, state };
        let mut differences = Differences::new(&mut f, &rs, self.tolerance, rng)?;
        let mut reports = [Report::default(), Report::default()];
        for (k, (name, shape, gradient)) in tensors.iter().enumerate() {
            if skipped.get(k) == Some(&true) {
                continue;
            }
            if gradient.len() != shape.volume() {
                return Err(Error::shape(format!(
                    "expected a gradient of {} elements for `{name}`, got {}",
                    shape.volume(),
                    gradient.len()
                )));
            }
            let comparison = differences.compare(k, (name, *shape), gradient)?;
            reports[usize::from(k >= skipped.len())].push(comparison);
        }
        Ok(reports)
    }

    /// Compares ∂E/∂y of a loss and, for a target of values, ∂E/∂t. With a reduction that leaves several elements, E is
    /// their sum weighted by R.
    ///
    /// # Errors
    /// The loss's own. Derivatives that disagree are in the report.
    pub fn loss<'t>(
        &self,
        loss: &impl Loss<T = f64>,
        y: &Tensor<f64>,
        target: impl Into<Target<'t, f64>>,
    ) -> Result<Report> {
        let [mut report, of_target] = self.prediction_and_target(loss, y, target.into())?;
        report.merge(of_target);
        Ok(report)
    }

    /// The reports of the prediction and of the target.
    pub(crate) fn prediction_and_target(
        &self,
        loss: &impl Loss<T = f64>,
        y: &Tensor<f64>,
        target: Target<'_, f64>,
    ) -> Result<[Report; 2]> {
        let mut rng = Rng::new(self.seed);
        let r = weights(loss.output_shape(y.shape(), target)?, &mut rng);
        let (mut dy, mut dt) = (Tensor::default(), Tensor::default());
        let t = if let Target::Values(t) = target { Some(t) } else { None };
        loss.backward(y, target, &r, Some(&mut dy), t.map(|_| &mut dt))?;
        let mut f = LossFunction { loss, y: y.clone(), target, t: t.cloned() };
        let rs = [r];
        let mut differences = Differences::new(&mut f, &rs, self.tolerance, rng)?;
        let mut reports = [Report::default(), Report::default()];
        reports[0].push(differences.compare(0, ("y", *y.shape()), dy.data())?);
        if let Some(t) = t {
            reports[1].push(differences.compare(1, ("t", *t.shape()), dt.data())?);
        }
        Ok(reports)
    }

    /// Compares ∂E/∂yᵢ of an objective of several predictions and targets, named `y0`, `y1`, ….
    ///
    /// # Errors
    /// The objective's own. Derivatives that disagree are in the report.
    pub fn objective(
        &self,
        objective: &impl Objective<T = f64>,
        predictions: impl Inputs<f64>,
        targets: impl TargetList<f64>,
    ) -> Result<Report> {
        let ys: Vec<Tensor<f64>> = predictions.with(|ys| ys.iter().map(|&y| y.clone()).collect());
        targets.with(|targets| {
            let (mut rng, mut loss) = (Rng::new(self.seed), Tensor::default());
            objective.evaluate(&refs(&ys), targets, &mut loss)?;
            let r = weights(*loss.shape(), &mut rng);
            let mut dys = buffers(ys.len());
            let mut requested: Vec<_> = dys.iter_mut().map(Some).collect();
            objective.differentiate(&refs(&ys), targets, &r, &mut requested)?;
            let shapes: Vec<_> = ys.iter().map(|y| *y.shape()).collect();
            let mut f = ObjectiveFunction { objective, ys, targets };
            let rs = [r];
            let mut differences = Differences::new(&mut f, &rs, self.tolerance, rng)?;
            let mut report = Report::default();
            for (i, (shape, dy)) in shapes.iter().zip(&dys).enumerate() {
                if dy.shape() != shape {
                    return Err(Error::shape(format!(
                        "expected ∂E/∂y{i} of shape {shape}, got {}",
                        dy.shape()
                    )));
                }
                let name = if shapes.len() == 1 { "y".to_owned() } else { format!("y{i}") };
                report.push(differences.compare(i, (&name, *shape), dy.data())?);
            }
            Ok(report)
        })
    }
}

/// A parameter that forward misses although all that are listed are initialised is not listed.
fn unlisted(module: &impl Parameters, error: Error) -> Error {
    let mut all = true;
    module.visit(&mut |_, p| all &= p.tensor().is_some());
    match error.kind() {
        Kind::State(text) if all => Error::state(format!(
            "{text}; every parameter that params and params_mut list is initialised: does one of them miss this one?"
        )),
        _ => error,
    }
}

/// Checks a layer or another module with the default options; the error names each wrong tensor.
///
/// ```
/// use chainrule_gradcheck::check;
/// # use chainrule_core::{Call, Context, Grads, Layer, Result, Shape, Tensor};
/// # #[derive(Clone)]
/// # struct Negate;
/// # impl Layer for Negate {
/// #     type T = f64;
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
/// #         Shape::new(input)
/// #     }
/// #     fn forward(&self, x: &Tensor<f64>, y: &mut Tensor<f64>, _: &mut (), _: Context) -> Result<()> {
/// #         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = -x);
/// #         Ok(())
/// #     }
/// #     fn backward(&self, call: Call<'_, f64>, _: &mut (), _: &mut Grads<f64>, dx: Option<&mut Tensor<f64>>) -> Result<()> {
/// #         let Some(dx) = dx else { return Ok(()) };
/// #         dx.reset(*call.x.shape()).iter_mut().zip(call.dy.data()).for_each(|(dx, &dy)| *dx = -dy);
/// #         Ok(())
/// #     }
/// # }
/// let report = check(&Negate, &Tensor::from([[1.0, 2.0]]))?;
/// assert_eq!(report.checked(), 2);
/// println!("{report}"); // 2 derivatives agree with central differences, largest error 1.1e-10
/// # Ok::<(), chainrule_core::Error>(())
/// ```
///
/// # Errors
/// As [`Check::module`], or the report's text if a derivative disagrees.
pub fn check<M: Module<T = f64> + Clone>(module: &M, inputs: impl Inputs<f64>) -> Result<Report> {
    Check::new().module(module, inputs)?.into_result()
}

/// Checks a loss with the default options.
///
/// # Errors
/// As [`Check::loss`], or the report's text if a derivative disagrees.
pub fn check_loss<'t>(
    loss: &impl Loss<T = f64>,
    y: &Tensor<f64>,
    target: impl Into<Target<'t, f64>>,
) -> Result<Report> {
    Check::new().loss(loss, y, target)?.into_result()
}

/// The outputs of the inputs and of the trainable parameters.
struct ModuleFunction<M: Module<T = f64>> {
    module: M,
    xs: Vec<Tensor<f64>>,
    cx: Context,
    state: M::State,
}

impl<M: Module<T = f64>> Function for ModuleFunction<M> {
    fn change(&mut self, tensor: usize, f: &mut dyn FnMut(&mut [f64])) {
        if let Some(x) = self.xs.get_mut(tensor) {
            return f(x.data_mut());
        }
        let mut at = self.xs.len();
        self.module.visit_mut(&mut |_, p| {
            if p.trainable() {
                if at == tensor {
                    // A parameter that is not initialised has failed in forward already.
                    p.value_mut().into_iter().for_each(&mut *f);
                }
                at += 1;
            }
        });
    }

    fn value(&mut self, ys: &mut Vec<Tensor<f64>>) -> Result<()> {
        ys.resize_with(self.module.outputs(), Tensor::default);
        self.module.apply(&refs(&self.xs), ys, &mut self.state, self.cx)
    }
}

/// The loss of the prediction and of a target of values.
struct LossFunction<'a, L> {
    loss: &'a L,
    y: Tensor<f64>,
    target: Target<'a, f64>,
    /// The target's values, if it is made of values.
    t: Option<Tensor<f64>>,
}

impl<L: Loss<T = f64>> Function for LossFunction<'_, L> {
    fn change(&mut self, tensor: usize, f: &mut dyn FnMut(&mut [f64])) {
        match (tensor, &mut self.t) {
            (1, Some(t)) => f(t.data_mut()),
            _ => f(self.y.data_mut()),
        }
    }

    fn value(&mut self, ys: &mut Vec<Tensor<f64>>) -> Result<()> {
        ys.resize_with(1, Tensor::default);
        let target = self.t.as_ref().map_or(self.target, Target::Values);
        self.loss.forward(&self.y, target, &mut ys[0])
    }
}

/// The loss of several predictions.
struct ObjectiveFunction<'a, O> {
    objective: &'a O,
    ys: Vec<Tensor<f64>>,
    targets: &'a [Target<'a, f64>],
}

impl<O: Objective<T = f64>> Function for ObjectiveFunction<'_, O> {
    fn change(&mut self, tensor: usize, f: &mut dyn FnMut(&mut [f64])) {
        f(self.ys[tensor].data_mut());
    }

    fn value(&mut self, ys: &mut Vec<Tensor<f64>>) -> Result<()> {
        ys.resize_with(1, Tensor::default);
        self.objective.evaluate(&refs(&self.ys), self.targets, &mut ys[0])
    }
}
