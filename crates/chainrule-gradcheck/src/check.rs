//! The public checker.

use crate::{
    differences::{Differences, Function},
    report::Report,
    subject::{One, Subject, refs, weights},
};
use chainrule_core::{
    Context, Error, Grads, Layer, Loss, MultiLayer, Parameters, Result, Rng, Shape, Target, Tensor,
};

/// Compares what a backward pass says with central differences of E = Σ R ⊙ Y, for a fixed random R.
///
/// Every coordinate of the input and of every trainable parameter is moved by h = 1e-6·max(1, |v|) both ways; slices of more
/// than 2,000 numbers are moved at 100 random coordinates and along 100 random directions. Where the slopes from both sides
/// differ the function has a kink and the derivative is skipped; a check with more than 5 % of these fails. What rounding can
/// do to the differences is estimated from the size of Y and allowed for.
///
/// ```
/// use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
/// use chainrule_gradcheck::Check;
///
/// /// y = x², with a backward pass that forgets the factor 2.
/// #[derive(Clone)]
/// struct Square;
/// impl<T: Scalar> Layer<T> for Square {
///     type Cache = ();
///     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
///         Shape::new(input)
///     }
///     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
///         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = x * x);
///         Ok(())
///     }
///     fn backward(&self, call: Call<'_, T>, _: &mut (), _: &mut Grads<T>, dx: Option<&mut Tensor<T>>) -> Result<()> {
///         let Some(dx) = dx else { return Ok(()) };
///         let pairs = call.x.data().iter().zip(call.dy.data());
///         dx.reset(*call.x.shape()).iter_mut().zip(pairs).for_each(|(dx, (&x, &dy))| *dx = x * dy);
///         Ok(())
///     }
/// }
///
/// let report = Check::new().layer(&Square, &Tensor::from([[0.5, 2.0]]))?;
/// assert!(!report.passed());
/// assert_eq!(report.disagreements()[1].name, "x[0, 1]");
/// assert!((report.disagreements()[1].numeric / report.disagreements()[1].analytic - 2.0).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Check {
    seed: u64,
    context: Context,
    tolerance: f64,
    indices: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// A check in training mode.
    pub fn new() -> Self {
        Self { seed: 1, context: Context::train(1), tolerance: 1e-7, indices: false }
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

    /// The inputs are row numbers, which cannot be moved a little: their gradient must be 0.
    #[must_use]
    pub fn indices(self) -> Self {
        Self { indices: true, ..self }
    }

    /// Compares ∂E/∂x and every ∂E/∂θ of a layer whose parameters have numbers.
    ///
    /// # Errors
    /// The layer's own. Derivatives that disagree are in the report.
    pub fn layer<L: Layer<f64> + Clone>(&self, layer: &L, x: &Tensor<f64>) -> Result<Report> {
        self.multi(&One(layer.clone()), &[x])
    }

    /// [`Check::layer`] for a layer of several inputs, named `x0`, `x1`, ….
    ///
    /// # Errors
    /// As [`Check::layer`].
    pub fn multi<L: MultiLayer<f64> + Clone>(&self, layer: &L, xs: &[&Tensor<f64>]) -> Result<Report> {
        let xs = xs.iter().map(|&x| x.clone()).collect();
        let (mut report, parameters) = self.split(Subject(layer.clone()), xs)?;
        report.merge(parameters);
        Ok(report)
    }

    /// The reports of the inputs and of the parameters.
    pub(crate) fn split<L: MultiLayer<f64>>(
        &self,
        subject: Subject<L>,
        xs: Vec<Tensor<f64>>,
    ) -> Result<(Report, Report)> {
        let mut rng = Rng::new(self.seed);
        let (y, mut cache) = subject.forward(&xs, self.context)?;
        let r = weights(*y.shape(), &mut rng);
        let (mut grads, mut dxs) = (Grads::new(&subject), vec![Tensor::default(); xs.len()]);
        subject.backward((&xs, &y, &r), &mut cache, &mut grads, &mut dxs, |_| true)?;
        let mut gradients: Vec<Vec<f64>> = dxs.into_iter().map(Tensor::into_vec).collect();
        let inputs = xs.len();
        subject.visit(&mut |_, p| {
            if p.trainable() {
                gradients.push(grads.get(p).unwrap_or_default().to_vec());
            }
        });
        let mut f = LayerFunction { subject, xs, cx: self.context, cache };
        let (mut reports, slices) = ([Report::default(), Report::default()], f.slices());
        let mut differences = Differences::new(&mut f, &r, self.tolerance, rng)?;
        for (k, ((name, shape), gradient)) in slices.iter().zip(&gradients).enumerate() {
            if gradient.len() != shape.volume() {
                return Err(Error::shape(format!(
                    "expected a gradient of {} numbers for `{name}`, got {}",
                    shape.volume(),
                    gradient.len()
                )));
            }
            let report = if k < inputs && self.indices {
                zeros(name, shape, gradient)
            } else {
                differences.compare(k, (name, *shape), gradient)?
            };
            reports[usize::from(k >= inputs)].merge(report);
        }
        let [of_inputs, of_parameters] = reports;
        Ok((of_inputs, of_parameters))
    }

    /// Compares ∂E/∂y of a loss and, for a target of numbers, ∂E/∂t. With a reduction that leaves several numbers, E is their
    /// sum weighted by R.
    ///
    /// # Errors
    /// The loss's own. Derivatives that disagree are in the report.
    pub fn loss<'t>(
        &self,
        loss: &impl Loss<f64>,
        y: &Tensor<f64>,
        target: impl Into<Target<'t, f64>>,
    ) -> Result<Report> {
        let (mut report, of_target) = self.loss_split(loss, y, target.into())?;
        report.merge(of_target);
        Ok(report)
    }

    /// The reports of the prediction and of the target.
    pub(crate) fn loss_split(
        &self,
        loss: &impl Loss<f64>,
        y: &Tensor<f64>,
        target: Target<'_, f64>,
    ) -> Result<(Report, Report)> {
        let mut rng = Rng::new(self.seed);
        let shape = loss.output_shape(y.shape(), target)?;
        let r = weights(shape, &mut rng);
        let (mut dy, mut dt) = (Tensor::default(), Tensor::default());
        let numbers = matches!(target, Target::Values(_));
        loss.backward(y, target, &r, Some(&mut dy), numbers.then_some(&mut dt))?;
        let mut f = LossFunction { loss, y: y.clone(), target, t: target.values().ok().cloned() };
        let mut differences = Differences::new(&mut f, &r, self.tolerance, rng)?;
        let of_prediction = differences.compare(0, ("y", *y.shape()), dy.data())?;
        let of_target = match target {
            Target::Values(t) => differences.compare(1, ("t", *t.shape()), dt.data())?,
            Target::Classes(_) => Report::default(),
        };
        Ok((of_prediction, of_target))
    }
}

/// [`Check::layer`] with everything as usual.
///
/// ```
/// use chainrule_gradcheck::check_layer;
/// # use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
/// # #[derive(Clone)]
/// # struct Negate;
/// # impl<T: Scalar> Layer<T> for Negate {
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
/// #         Shape::new(input)
/// #     }
/// #     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
/// #         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = -x);
/// #         Ok(())
/// #     }
/// #     fn backward(&self, call: Call<'_, T>, _: &mut (), _: &mut Grads<T>, dx: Option<&mut Tensor<T>>) -> Result<()> {
/// #         let Some(dx) = dx else { return Ok(()) };
/// #         dx.reset(*call.x.shape()).iter_mut().zip(call.dy.data()).for_each(|(dx, &dy)| *dx = -dy);
/// #         Ok(())
/// #     }
/// # }
/// let report = check_layer(&Negate, &Tensor::from([[1.0, 2.0]]))?;
/// assert_eq!(report.checked(), 2);
/// println!("{report}"); // 2 derivatives agree with central differences, largest error 1.1e-10
/// # Ok::<(), chainrule_core::Error>(())
/// ```
///
/// # Errors
/// The layer's own, or the report's text if a derivative disagrees.
pub fn check_layer<L: Layer<f64> + Clone>(layer: &L, x: &Tensor<f64>) -> Result<Report> {
    Check::new().layer(layer, x)?.into_result()
}

/// [`Check::multi`] with everything as usual.
///
/// # Errors
/// The layer's own, or the report's text if a derivative disagrees.
pub fn check_multi<L: MultiLayer<f64> + Clone>(layer: &L, xs: &[&Tensor<f64>]) -> Result<Report> {
    Check::new().multi(layer, xs)?.into_result()
}

/// [`Check::loss`] with everything as usual.
///
/// # Errors
/// The loss's own, or the report's text if a derivative disagrees.
pub fn check_loss<'t>(
    loss: &impl Loss<f64>,
    y: &Tensor<f64>,
    target: impl Into<Target<'t, f64>>,
) -> Result<Report> {
    Check::new().loss(loss, y, target)?.into_result()
}

/// A gradient that must be 0.
fn zeros(name: &str, shape: &Shape, gradient: &[f64]) -> Report {
    let wrong = |(i, &g): (usize, &f64)| {
        (g != 0.0).then(|| crate::report::Disagreement {
            name: crate::report::coordinate(name, shape, i),
            analytic: g,
            numeric: 0.0,
        })
    };
    let wrong = gradient.iter().enumerate().filter_map(wrong).collect();
    Report { checked: gradient.len(), wrong, ..Report::default() }
}

/// y of the inputs and of the trainable parameters.
struct LayerFunction<L: MultiLayer<f64>> {
    subject: Subject<L>,
    xs: Vec<Tensor<f64>>,
    cx: Context,
    cache: L::Cache,
}

impl<L: MultiLayer<f64>> Function for LayerFunction<L> {
    fn slices(&self) -> Vec<(String, Shape)> {
        let name = |i: usize| if self.xs.len() == 1 { "x".to_owned() } else { format!("x{i}") };
        let mut slices: Vec<_> = self.xs.iter().enumerate().map(|(i, x)| (name(i), *x.shape())).collect();
        self.subject.visit(&mut |path, p| {
            if p.trainable() {
                slices.push((path.to_string(), *p.shape()));
            }
        });
        slices
    }

    fn change(&mut self, slice: usize, f: &mut dyn FnMut(&mut [f64])) {
        if let Some(x) = self.xs.get_mut(slice) {
            return f(x.data_mut());
        }
        let mut at = self.xs.len();
        self.subject.visit_mut(&mut |_, p| {
            if p.trainable() {
                if at == slice {
                    // A parameter without numbers has failed in forward already.
                    p.value_mut().into_iter().for_each(&mut *f);
                }
                at += 1;
            }
        });
    }

    fn value(&mut self, y: &mut Tensor<f64>) -> Result<()> {
        self.subject.0.forward(&refs(&self.xs), y, &mut self.cache, &mut self.cx.clone())
    }
}

/// The loss of the prediction and of a target of numbers.
struct LossFunction<'a, L> {
    loss: &'a L,
    y: Tensor<f64>,
    target: Target<'a, f64>,
    /// The target's numbers, if they are numbers.
    t: Option<Tensor<f64>>,
}

impl<L: Loss<f64>> Function for LossFunction<'_, L> {
    fn slices(&self) -> Vec<(String, Shape)> {
        let y = ("y".to_owned(), *self.y.shape());
        std::iter::once(y).chain(self.t.iter().map(|t| ("t".to_owned(), *t.shape()))).collect()
    }

    fn change(&mut self, slice: usize, f: &mut dyn FnMut(&mut [f64])) {
        match (slice, &mut self.t) {
            (1, Some(t)) => f(t.data_mut()),
            _ => f(self.y.data_mut()),
        }
    }

    fn value(&mut self, y: &mut Tensor<f64>) -> Result<()> {
        let target = self.t.as_ref().map_or(self.target, Target::Values);
        self.loss.forward(&self.y, target, y)
    }
}
