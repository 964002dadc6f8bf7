//! Layers one after another.
//!
//! ```text
//! y = fₙ(… f₁(f₀(x)))
//! ```
//!
//! The chain rule, walked backwards: with y₋₁ = x and Gₙ = ∂E/∂y,
//!
//! ```text
//! Gᵢ₋₁ = (∂fᵢ/∂yᵢ₋₁)ᵀ Gᵢ
//! ```
//!
//! Keeps every yᵢ in training, two in inference. Where fᵢ can work in place and yᵢ₋₁ is not read again, as an activation
//! after a product, yᵢ takes its place, and Gᵢ₋₁ that of Gᵢ. Derivation: docs/layers/container/sequential.md.

use super::{
    bytes, check_output,
    children::{Children, Mark},
    not_recorded, only,
};
use crate::{Linear, Tanh};
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Error, Example, Facts, FromSpec, Grads, InPlace, Layer,
    Learning, Memory, Mode, Module, Params, ParamsMut, Parts, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use std::{mem, ops::Range, slice, sync::atomic::Ordering::Relaxed};

/// Layers one after another; children are named by index, or as given to [`Sequential::named`]. A module of one input and
/// one output, such as a graph, is a child too.
///
/// # Shapes
/// Those of its children: y of one is x of the next.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, Sequential};
/// let model = Sequential::new().add(Linear::new(4, 8)).named("head", Linear::new(8, 2)).build(&[1, 4])?.init(1)?;
/// println!("{}", model.summary([1, 4])?);
/// assert_eq!(model.infer(&Tensor::zeros([5, 4]))?.shape()[..], [5, 2]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Sequential<T: Scalar = f32> {
    children: Children<T>,
    plan: Plan,
}

/// Where each output lives: one for each step. In training all are kept; in inference two memories take turns. That of the
/// last step is the caller's.
#[derive(Clone, Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    /// The last step whose child has no derivative with respect to its input: no gradient reaches the steps before.
    cut: Option<usize>,
}

/// A child with an output of its own, and the children after it that overwrite this output, which is not read again.
#[derive(Clone, Debug)]
struct Step {
    child: usize,
    in_place: Range<usize>,
}

impl Plan {
    /// Plans the newest child, number `at`, after `before`.
    fn push<T: Scalar>(&mut self, at: usize, child: &BoxModule<T>, before: Option<&BoxModule<T>>) {
        let free = before.is_some_and(|before| !before.reads_outputs());
        match self.steps.last_mut().filter(|_| free && child.as_in_place().is_some()) {
            Some(step) => step.in_place.end = at + 1,
            None => self.steps.push(Step { child: at, in_place: at + 1..at + 1 }),
        }
        if !child.differentiable_input(0) {
            self.cut = Some(self.steps.len() - 1);
        }
    }
}

/// The input and the output of step k of `n`.
#[inline]
fn places<'a, T>(
    (k, n): (usize, usize),
    kept: bool,
    x: &'a Tensor<T>,
    ys: &'a mut [Tensor<T>],
    y: &'a mut Tensor<T>,
) -> (&'a Tensor<T>, &'a mut Tensor<T>) {
    let (before, rest) = ys.split_at_mut(if kept { k } else { 1 });
    let (input, output) = match kept || k % 2 == 1 {
        true => (before.last(), rest.first_mut()),
        false => (rest.first(), before.last_mut()),
    };
    (input.filter(|_| k > 0).unwrap_or(x), output.filter(|_| k + 1 < n).unwrap_or(y))
}

impl Sequential {
    /// No layer yet: y = x. [`Sequential::of`] is the start for another element type.
    pub fn new() -> Self {
        Self::of()
    }
}

impl<T: Scalar> Sequential<T> {
    /// No layer yet, of any element type: `Sequential::<f64>::of()`.
    pub fn of() -> Self {
        Self { children: Children::new(), plan: Plan::default() }
    }

    /// Appends a layer, named by its index.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, layer: impl Module<T = T> + Clone + 'static) -> Self {
        let name = self.children.len().to_string();
        self.named(name, layer)
    }

    /// Appends a layer under a name. A mistake (a name that is taken, a module of several inputs or outputs) is kept, and
    /// returned by `check`, `init`, [`Sequential::build`] and `output_shape`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, layer: impl Module<T = T> + Clone + 'static) -> Self {
        self.push(name.into(), BoxModule::new(layer));
        self
    }

    /// Appends so many copies of a layer, named by index, each with parameters of its own that start from other values.
    #[must_use]
    pub fn repeat(self, count: usize, layer: impl Module<T = T> + Clone + 'static) -> Self {
        (0..count).fold(self, |model, _| model.add(layer.clone()))
    }

    fn push(&mut self, name: String, layer: BoxModule<T>) {
        let at = self.children.len();
        let before = at.checked_sub(1).map(|before| self.children.get(before).1);
        self.plan.push(at, &layer, before);
        self.children.push_one(name, layer);
    }

    /// Checks every layer against the shapes that reach it, before data flows.
    ///
    /// # Errors
    /// A mistake in the composition, or the first layer that does not fit, named by its path.
    pub fn build(self, input: &[usize]) -> Result<Self> {
        self.output_shape(input)?;
        Ok(self)
    }

    /// The layers with their names, in order.
    pub fn children(&self) -> impl Iterator<Item = (&str, &BoxModule<T>)> {
        self.children.iter()
    }

    /// What `f` makes of each layer, under the same names: adapters put around all that are `Linear`, for instance, or merged.
    /// Modes are not kept.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn map(&self, mut f: impl FnMut(&str, &BoxModule<T>) -> Result<BoxModule<T>>) -> Result<Self> {
        self.children().try_fold(Self::of(), |new, (name, layer)| Ok(new.named(name, f(name, layer)?)))
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The step at which backward ends: the first, or the first whose child has something to learn; the number of steps if
    /// there is none.
    #[inline]
    fn start(&self, requested: bool) -> usize {
        let Plan { steps, cut } = &self.plan;
        if requested && cut.is_none() {
            return 0;
        }
        let active = self.children.active();
        let learns = |step: &Step| active[step.child].load(Relaxed);
        steps.iter().position(learns).unwrap_or(steps.len()).max(cut.unwrap_or(0))
    }

    /// Bytes of the outputs of all steps but the last, in training and in inference, and of the gradients between steps, for
    /// the shapes before and after each step.
    fn held(&self, shapes: &[[Shape; 2]], requested: bool) -> [usize; 3] {
        let (n, start) = (shapes.len(), self.start(requested));
        let (mut kept, mut turns, mut gradients) = (0usize, [0; 2], [0; 2]);
        for (k, [_, y]) in shapes[..n.saturating_sub(1)].iter().enumerate() {
            kept = kept.saturating_add(bytes::<T>(y));
            turns[k % 2] = bytes::<T>(y).max(turns[k % 2]);
        }
        // As backward goes: dy is ours from the first copy or the first ∂E/∂x on.
        let (mut dy, mut ours) = (0, false);
        for (k, step) in self.plan.steps.iter().enumerate().skip(start).rev() {
            if !step.in_place.is_empty() && !ours {
                gradients[dy] = bytes::<T>(&shapes[k][1]).max(gradients[dy]);
            }
            (dy, ours) = (1 - dy, true);
            if k > start {
                gradients[dy] = bytes::<T>(&shapes[k][0]).max(gradients[dy]);
            }
        }
        let sum = |[a, b]: [usize; 2]| a.saturating_add(b);
        [kept, sum(turns), sum(gradients)]
    }

    /// The in-place twin of a child that the plan lets overwrite.
    #[inline]
    fn in_place(&self, at: usize) -> Result<&dyn InPlace<T>> {
        self.children
            .get(at)
            .1
            .as_in_place()
            .ok_or_else(|| Error::value("expected a layer that works in place"))
    }
}

impl<T: Scalar> Default for Sequential<T> {
    fn default() -> Self {
        Self::of()
    }
}

/// What [`Sequential`] keeps.
#[derive(Debug)]
pub struct SequentialCache<T> {
    states: Vec<AnyState>,
    /// The outputs of the steps but for the last; in inference two of them in turn.
    ys: Vec<Tensor<T>>,
    /// ∂E/∂yᵢ and ∂E/∂yᵢ₋₁, in turn.
    dys: [Tensor<T>; 2],
    /// Whose pass over which shape was recorded, if it was.
    recorded: Option<Mark>,
}

impl<T: Scalar> Default for SequentialCache<T> {
    fn default() -> Self {
        Self { states: Vec::new(), ys: Vec::new(), dys: Default::default(), recorded: None }
    }
}

impl<T: Scalar> Layer for Sequential<T> {
    type T = T;
    type Cache = SequentialCache<T>;

    fn check(&self) -> Result<()> {
        self.children.validate()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.children.verdict()?;
        self.children.iter().try_fold(Shape::new(input)?, |shape, (name, child)| {
            child.output_shapes(&[shape]).and_then(only).map_err(|e| e.in_layer(name))
        })
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        self.children.verdict()?;
        let (steps, kept) = (&self.plan.steps[..], cx.recording());
        let SequentialCache { states, ys, recorded, .. } = cache;
        *recorded = None;
        states.resize_with(self.len(), AnyState::default);
        let between = if kept { steps.len().saturating_sub(1) } else { 2 };
        if ys.len() < between {
            ys.resize_with(between, Tensor::default);
        }
        if steps.is_empty() {
            y.copy_from(x);
        }
        for (k, step) in steps.iter().enumerate() {
            let (input, output) = places((k, steps.len()), kept, x, &mut ys[..between], y);
            let (name, child) = self.children.get(step.child);
            let inner = self.children.context(step.child, cx.child(step.child));
            let made = child.apply_one(input, output, &mut states[step.child], inner);
            made.and_then(|()| check_output(output, cx)).map_err(|e| e.in_layer(name))?;
            for i in step.in_place.clone() {
                let made = self.in_place(i).and_then(|layer| layer.forward_in_place(output));
                made.and_then(|()| check_output(output, cx))
                    .map_err(|e| e.in_layer(self.children.get(i).0))?;
            }
        }
        *recorded = kept.then(|| self.children.known.mark(x.shape()));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let SequentialCache { states, ys, dys: [dy, dx_inner], recorded } = cache;
        let recorded = recorded.as_ref();
        if !recorded.is_some_and(|mark| mark.is_of_pass(&self.children.known, call.x.shape()))
            || states.len() != self.len()
        {
            return Err(not_recorded("Sequential"));
        }
        let Plan { steps, cut } = &self.plan;
        match &mut dx {
            Some(dx) if steps.is_empty() => dx.copy_from(call.dy), // dx = dy
            Some(dx) if cut.is_some() => dx.reset(*call.x.shape()).fill(T::ZERO),
            _ => {}
        }
        let start = self.start(dx.is_some());
        // Gᵢ is the caller's until there is one of ours. Each memory has the same task in every pass.
        let (mut dy, mut dx_inner, mut ours) = (dy, dx_inner, false);
        for (k, step) in steps.iter().enumerate().skip(start).rev() {
            let y = if k + 1 == steps.len() { call.y } else { &ys[k] };
            for i in step.in_place.clone().rev() {
                if !mem::replace(&mut ours, true) {
                    dy.copy_from(call.dy);
                }
                self.in_place(i)?.backward_in_place(y, dy); // Gᵢ₋₁ in the place of Gᵢ
            }
            let inner = Call::recorded(
                if k == 0 { call.x } else { &ys[k - 1] },
                y,
                if ours { &*dy } else { call.dy },
            )?;
            let requested = match k {
                0 if cut.is_none() => dx.take(),
                _ if k == start => None,
                _ => Some(&mut *dx_inner),
            };
            let (name, child) = self.children.get(step.child);
            child
                .pull_one(inner, &mut states[step.child], grads, requested) // Gᵢ₋₁ from Gᵢ
                .map_err(|e| e.in_layer(name))?;
            mem::swap(&mut dy, &mut dx_inner);
            ours = true;
        }
        Ok(())
    }

    fn differentiable(&self) -> bool {
        self.plan.cut.is_none()
    }

    fn reads_output(&self) -> bool {
        self.children.iter().next_back().is_some_and(|(_, child)| child.reads_outputs())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.children.list(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.children.list_mut(out);
    }

    fn learning(&self) -> Learning {
        self.children.learning()
    }

    fn parts(&mut self, out: &mut Parts<'_, T>) {
        self.children.lend(out);
    }

    fn switch(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.children.set_mode("Sequential", path, mode)
    }

    fn depth(&self) -> usize {
        self.children.depth()
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        if !cache.recorded.is_some_and(|mark| mark.is_of(&self.children.known)) {
            return;
        }
        self.children.iter_mut().zip(&cache.states).for_each(|(child, state)| child.fold(state));
    }

    fn memory(&self, cache: &mut Self::Cache, out: &mut Memory<'_, T>) -> Result<()> {
        self.children.memory(&mut cache.states, out)
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(mut shape) = Shape::new(input) else { return 0 };
        let mut sum = 0u64;
        for (_, child) in self.children.iter() {
            sum = sum.saturating_add(child.cost(slice::from_ref(&shape)));
            match child.output_shapes(slice::from_ref(&shape)).and_then(only) {
                Ok(next) => shape = next,
                Err(_) => break,
            }
        }
        sum
    }

    fn spec(&self) -> Spec {
        self.children.describe(Spec::new("Sequential"))
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.children.verdict()?;
        let (mut shape, mut shapes) = (Shape::new(input)?, Vec::new());
        let (requested, start) = (out.requests(0), self.start(out.requests(0)));
        for (k, step) in self.plan.steps.iter().enumerate() {
            let before = shape;
            let wanted = if k == 0 { requested && self.plan.cut.is_none() } else { k > start };
            for i in step.child..step.in_place.end {
                let (name, child) = self.children.get(i);
                let made =
                    out.requesting(&[wanted], |out| out.child(name, |out| child.summarize(&[shape], out)));
                shape = made.and_then(only).map_err(|e| e.in_layer(name))?;
            }
            shapes.push([before, shape]);
        }
        let [kept, turns, gradients] = self.held(&shapes, requested);
        out.hold_in_training(kept.saturating_add(gradients));
        out.hold_in_inference(turns);
        Ok(shape)
    }
}

impl<T: Scalar> FromSpec<T> for Sequential<T> {
    const FACTS: Facts = Facts::new("Sequential")
        .family("container")
        .formula("fₙ(… f₁(f₀(x)))")
        .page("layers/container/sequential.md")
        .torch("Sequential");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut model = Self::of();
        args.children()?.into_iter().for_each(|(name, layer)| model.push(name, layer));
        model.children.verdict()?;
        Ok(model)
    }

    fn examples() -> Vec<Example> {
        let model = |inputs, hidden, outputs| {
            let model = Self::of().add(Linear::new(inputs, hidden)).add(Tanh::new());
            model.named("head", Linear::new(hidden, outputs)).spec()
        };
        vec![
            Example::new(Self::of().spec(), [[3, 2]]),
            Example::new(model(4, 3, 2), [[5, 4]]),
            Example::bench(model(256, 256, 256), [[64, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Add, BatchNorm1d, Dropout, Embedding, Flatten, Gelu, Identity, LayerNorm, LogSoftmax, Parallel, Relu,
        Residual, Sigmoid,
    };
    use chainrule_core::{Init, Kind, Parameters, Session};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 4..8usize, inputs in 1..6usize, hidden in 1..6usize, outputs in 1..6usize, p in 0.0..0.9,
        ) {
            layer: Sequential::<T>::of()
                .add(Linear::new(inputs, hidden))
                .add(BatchNorm1d::new(hidden))
                .add(Gelu::new())
                .add(Dropout::new(p))
                .named("head", Linear::new(hidden, outputs))
                .add(LogSoftmax::new(-1)),
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
        obeys_the_laws_where_activations_overwrite(
            rows in 1..6usize, inputs in 1..6usize, hidden in 1..6usize, last in any::<bool>(),
        ) {
            layer: {
                let model = Sequential::<T>::of()
                    .add(Linear::new(inputs, hidden))
                    .add(Tanh::new())
                    .add(Sigmoid::new())
                    .add(Linear::new(hidden, hidden))
                    .add(LayerNorm::new(hidden))
                    .add(Sigmoid::new())
                    .add(Linear::new(hidden, hidden));
                if last { model.add(Tanh::new()) } else { model }
            },
            input: [rows, inputs],
        }
        obeys_the_laws_with_few_layers(rows in 1..6usize, inputs in 1..6usize, count in 0..4usize) {
            layer: (0..count).fold(Sequential::<T>::of(), |model, _| model.add(Linear::new(inputs, inputs))),
            input: [rows, inputs],
        }
    }

    /// f₀(x) = 2x, f₁(x) = 3x at x = 5: y = 30, ∂x = 3·2·g = 6g, ∂w₁ = g·y₀ = 10g, ∂w₀ = 3g·x = 15g.
    #[test]
    pub fn by_hand() {
        let gain = |g| Linear::new(1, 1).bias(false).weight_init(Init::Constant(g));
        let model = Sequential::<f64>::of().add(gain(2.0)).add(gain(3.0)).init(0).unwrap();
        let (x, dy) = (Tensor::from([[5.0f64]]), Tensor::from([[1.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), SequentialCache::default());
        model.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&model);
        model
            .backward(Call::new(&model, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[30.0][..], &[6.0][..], &[15.0, 10.0][..]));
    }

    /// One output is kept for Linear and ReLU together: 2·(4·3 + 3) parameters and gradients, 8·4 inputs, 8·3 outputs and
    /// their gradients. ReLU overwrites a copy of the gradients.
    #[test]
    fn an_activation_that_overwrites_takes_no_memory() {
        let model = |second: bool| {
            let model = Sequential::<f64>::of().add(Linear::new(4, 3));
            if second { model.add(Relu::new()) } else { model }
        };
        let [one, two] = [false, true].map(|second| model(second).summary([8, 4]).unwrap());
        assert_eq!(one.training_bytes(), 8 * (2 * 15 + 32 + 24 + 24));
        assert_eq!(two.training_bytes(), 8 * (2 * 15 + 32 + 24 + 24 + 24));
        assert_eq!([one.inference_bytes(), two.inference_bytes()], [8 * (15 + 32 + 24); 2]);
        let model = model(true).add(Linear::new(3, 2)).init(1).unwrap();
        let (mut y, mut cache) = (Tensor::default(), SequentialCache::default());
        model.forward(&Tensor::zeros([8, 4]), &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(cache.ys.len(), 1);
    }

    #[test]
    fn backward_after_inference_is_not_recorded() {
        let model = Sequential::new().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
        let (x, mut y, mut cache) = (Tensor::zeros([1, 2]), Tensor::default(), SequentialCache::default());
        let mut grads = Grads::new(&model);
        model.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        model.forward(&x, &mut y, &mut cache, Context::infer()).unwrap();
        let call = Call::new(&model, &x, &y, &y).unwrap();
        assert!(model.backward(call, &mut cache, &mut grads, None).is_err());
    }

    #[test]
    fn a_layer_added_changes_no_other_layers_start() {
        let short = Sequential::new().add(Linear::new(2, 2)).init(1).unwrap();
        let long = Sequential::new().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
        let first = |m: &Sequential| {
            let mut v = Vec::new();
            m.visit(&mut |path, p| {
                if path.to_string() == "0.weight" {
                    v = p.value().unwrap().to_vec()
                }
            });
            v
        };
        assert_eq!(first(&short), first(&long));
        assert!(!first(&short).is_empty());
    }

    #[test]
    fn copies_of_a_layer_have_parameters_of_their_own() {
        let block = Residual::new(Sequential::<f64>::of().add(Linear::new(3, 3)).add(Gelu::new()));
        let model = Sequential::of().named("first", Linear::new(3, 3)).repeat(3, block).init(1).unwrap();
        let (mut paths, mut weights) = (Vec::new(), Vec::new());
        model.visit(&mut |path, p| {
            paths.push(path.to_string());
            weights.push(p.value().unwrap().to_vec());
        });
        assert_eq!(
            paths[2..],
            ["1.0.weight", "1.0.bias", "2.0.weight", "2.0.bias", "3.0.weight", "3.0.bias"]
        );
        assert!(weights[2] != weights[4] && weights[4] != weights[6]);
        assert_eq!(model.parameter_count(), 4 * 12);
    }

    #[test]
    fn an_output_that_is_not_finite_names_its_layer() {
        let mut model =
            Sequential::new().add(Linear::new(2, 2)).named("head", Linear::new(2, 2)).init(1).unwrap();
        model.visit_mut(&mut |path, p| {
            if path.to_string() == "head.weight" {
                p.value_mut().unwrap().fill(f32::INFINITY);
            }
        });
        let (mut y, mut cache) = (Tensor::default(), SequentialCache::default());
        let cx = Context::train(0).check_finite();
        let text = model.forward(&Tensor::full([1, 2], 1.0), &mut y, &mut cache, cx).unwrap_err().to_string();
        assert!(text.starts_with("in layer `head`: expected a finite output"), "{text}");
    }

    /// Linear, Sigmoid (overwrites), Linear, Residual(…), ReLU (overwrites).
    #[test]
    fn an_activation_overwrites_what_a_container_does_not_read_again() {
        let inner = Sequential::<f64>::of().add(Linear::new(3, 3)).add(Sigmoid::new());
        let model = Sequential::of()
            .add(Linear::new(3, 3))
            .add(Sigmoid::new())
            .add(Sequential::of().add(Linear::new(3, 3)))
            .add(Relu::new())
            .add(Residual::new(inner.clone()))
            .add(Relu::new())
            .add(Parallel::sum().add(inner.clone()))
            .add(Relu::new())
            .add(inner)
            .add(Relu::new());
        let overwritten: Vec<_> = model.plan.steps.iter().map(|step| step.in_place.clone()).collect();
        assert_eq!(overwritten, [1..2, 3..4, 5..6, 7..8, 9..9, 10..10]);
    }

    #[test]
    fn the_first_mistake_is_kept_with_its_kind_and_place() {
        let model = Sequential::new().add(Relu::new()).named("join", Add::new()).named("join", Relu::new());
        let text = "in layer `join`: expected a module of one input and one output, got 2 and 1";
        let x = Tensor::zeros([1, 1]);
        for error in [
            model.check().unwrap_err(),
            model.output_shape(&[1, 1]).unwrap_err(),
            model.summary([1, 1]).unwrap_err(),
            model.infer(&x).unwrap_err(),
            model.clone().build(&[1, 1]).unwrap_err(),
            model.init(0).unwrap_err(),
        ] {
            assert!(matches!(error.kind(), Kind::Value(_)));
            assert_eq!(error.to_string(), text);
        }
        for (name, text) in [
            ("a..b", "names with dots between"),
            ("", "names with dots between"),
            ("0", "two children are named `0`"),
            ("0.b", "got `0.b` beside children under `0`"),
        ] {
            let model = Sequential::new().add(Relu::new()).named(name, Relu::new());
            assert!(model.check().unwrap_err().to_string().contains(text), "{name}");
        }
        let model = Sequential::new().named("0.a.b", Relu::new()).add(Relu::new()).named("0.a", Relu::new());
        assert!(model.check().unwrap_err().to_string().contains("got `0.a` beside children under `0.a`"));
    }

    #[test]
    fn a_name_with_dots_is_one_of_a_list() {
        let list =
            Sequential::<f64>::of().named("blocks.0", Linear::new(2, 2)).named("blocks.1", Linear::new(2, 2));
        let mut model = Sequential::of().named("body", list).init(1).unwrap();
        let mut paths = Vec::new();
        model.visit(&mut |path, _| paths.push(path.to_string()));
        assert_eq!(paths[2..], ["body.blocks.1.weight", "body.blocks.1.bias"]);
        assert!(model.set_mode("body.blocks.1", Mode::Inference).is_ok());
        let error = model.set_mode("body.blocks", Mode::Inference).unwrap_err().to_string();
        assert!(error.contains("expected the name of a part, got `blocks`"), "{error}");
    }

    #[test]
    fn layers_before_one_without_a_derivative_get_no_gradient() {
        let gain = |n| Linear::new(n, n).weight_init(Init::Constant(1.0));
        let model =
            Sequential::<f64>::of().add(Identity::new()).add(Embedding::new(4, 2)).add(Flatten::new());
        let model = model.add(gain(2)).init(0).unwrap();
        assert!(!model.differentiable());
        let (x, dy) = (Tensor::from([3.0]), Tensor::from([[1.0, 2.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::from([9.0]), SequentialCache::default());
        model.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&model);
        let call = Call::new(&model, &x, &y, &dy).unwrap();
        model.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(
            (dx.data(), &grads.values()[..8]),
            (&[0.0][..], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 3.0][..])
        );
    }

    #[test]
    fn a_cache_of_another_batch_is_not_recorded() {
        let model = Sequential::<f64>::of().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
        let (mut y, mut cache) = (Tensor::default(), SequentialCache::default());
        model.forward(&Tensor::zeros([3, 2]), &mut y, &mut cache, Context::train(0)).unwrap();
        let (x, y) = (Tensor::zeros([4, 2]), Tensor::zeros([4, 2]));
        let call = Call::new(&model, &x, &y, &y).unwrap();
        let error = model.backward(call, &mut cache, &mut Grads::new(&model), None).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotRecorded(_)), "{error}");
    }

    /// A layer that counts the pieces of a stream in its cache.
    #[derive(Clone)]
    struct Count;

    impl Layer for Count {
        type T = f32;
        type Cache = u32;

        fn output_shape(&self, input: &[usize]) -> Result<Shape> {
            Shape::new(input)
        }

        fn forward(&self, x: &Tensor, y: &mut Tensor, count: &mut u32, cx: Context) -> Result<()> {
            *count = if cx.streaming() { *count + 1 } else { 0 };
            let n = *count as f32;
            y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = x + n);
            Ok(())
        }

        fn memory(&self, count: &mut u32, out: &mut Memory<'_, f32>) -> Result<()> {
            let mut pieces = *count as usize;
            out.count("pieces", &mut pieces)?;
            *count = pieces as u32;
            Ok(())
        }

        fn backward(
            &self,
            call: Call<'_, f32>,
            _: &mut u32,
            _: &mut Grads<f32>,
            dx: Option<&mut Tensor>,
        ) -> Result<()> {
            dx.into_iter().for_each(|dx| dx.copy_from(call.dy));
            Ok(())
        }
    }

    #[test]
    fn a_stream_keeps_the_caches_of_all_children() {
        let mut graph = crate::Graph::new();
        let x = graph.input("x");
        graph.add("count", Count, x);
        let twice = Parallel::sum().add(Count).add(graph);
        let model = Sequential::new().add(Count).add(Residual::new(Sequential::new().add(twice)));
        let mut session = Session::new(&model);
        // y₀ = x + n, y = y₀ + 2 (y₀ + n)
        let runs: Vec<f32> =
            (0..3).map(|_| session.stream(&Tensor::from([1.0])).unwrap().data()[0]).collect();
        assert_eq!(runs, [8.0, 13.0, 18.0]);
        let saved = session.stream_state().unwrap();
        let paths: Vec<&str> = saved.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["0.pieces", "1.0.0.pieces", "1.0.1.count.pieces"]);
        let mut other = Session::new(&model);
        other.restore_stream(&saved).unwrap();
        for session in [&mut other, &mut session] {
            assert_eq!(session.stream(&Tensor::from([1.0])).unwrap().data(), [23.0]);
        }
        session.reset();
        assert_eq!(session.stream(&Tensor::from([1.0])).unwrap().data(), [8.0]);
    }

    #[test]
    fn many_layers_and_deep_nests_are_built_and_run_in_linear_time() {
        let wide = (0..100_000).fold(Sequential::new(), |model, _| model.add(Linear::new(1, 1)));
        let wide = wide.init(1).unwrap();
        assert_eq!(Grads::new(&wide).values().len(), 200_000);
        let deep = (0..200).fold(Sequential::new().add(Relu::new()), |inner, i| {
            let outer = Sequential::new().add(Relu::new());
            match i % 3 {
                0 => outer.add(inner),
                1 => outer.add(Residual::new(inner)),
                _ => outer.add(Parallel::concat(1).add(inner)),
            }
        });
        assert_eq!(deep.infer(&Tensor::full([1, 1], -1.0)).unwrap().data(), [0.0]);
    }

    #[test]
    fn a_model_prints_as_a_tree() {
        let inner = Sequential::new().add(Flatten::new()).named("head", Linear::new(2, 1));
        let text = Sequential::new().add(inner).add(Relu::new()).to_string();
        let lines = [
            "Sequential(",
            "  (0): Sequential(",
            "    (0): Flatten(start_dim=1, end_dim=-1)",
            "    (head): Linear(in_features=2, out_features=1, bias=true)",
            "  )",
            "  (1): Relu()",
            ")",
        ];
        assert_eq!(text, lines.join("\n"));
    }
}
