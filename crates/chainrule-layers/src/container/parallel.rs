//! Branches over one input, joined.
//!
//! ```text
//! y = Σᵢ fᵢ(x)    or    y = [f₀(x) | f₁(x) | …]
//! ```
//!
//! With gᵢ = ∂E/∂y for a sum, and the part of ∂E/∂y that came from branch i for a concatenation:
//!
//! ```text
//! ∂E/∂x = Σᵢ (∂fᵢ/∂x)ᵀ gᵢ
//! ```
//!
//! Keeps the output of every branch. Derivation: docs/layers/container/parallel.md.

use super::{
    along::{Parts, joined},
    bytes, check_output,
    children::{Children, Mark},
    not_recorded, only,
};
use crate::{Linear, Tanh};
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Learning,
    Memory, Mode, Module, Params, ParamsMut, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::{add_assign, copy};
use std::sync::atomic::Ordering::Relaxed;

/// Branches over one input, joined by a sum or side by side.
///
/// # Shapes
/// Every branch takes x. For a sum their outputs have one shape, which is y's; for a concatenation they may differ in
/// the axis along which they are joined.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Linear, Parallel};
/// let layer = Parallel::concat(1).add(Linear::new(4, 2)).named("wide", Linear::new(4, 6)).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([3, 4]))?.shape()[..], [3, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Parallel<T: Scalar = f32> {
    branches: Children<T>,
    /// The axis of a concatenation; `None` for a sum.
    concat: Option<isize>,
}

impl<T: Scalar> Parallel<T> {
    /// Branches that are added.
    pub fn sum() -> Self {
        Self { branches: Children::new(), concat: None }
    }

    /// Branches that are put side by side along the axis `dim`, counted from the back when negative; 1 is the axis of
    /// channels or features.
    pub fn concat(dim: isize) -> Self {
        Self { concat: Some(dim), ..Self::sum() }
    }

    /// Adds a branch, named by its index.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, layer: impl Module<T = T> + Clone + 'static) -> Self {
        let name = self.branches.len().to_string();
        self.named(name, layer)
    }

    /// Adds a branch under a name. A mistake (a name that is taken, a module of several inputs or outputs) is kept, and
    /// returned by `check`, `init` and `output_shape`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, layer: impl Module<T = T> + Clone + 'static) -> Self {
        self.branches.push_one(name.into(), BoxModule::new(layer));
        self
    }

    /// The shape of y for those of the branches' outputs.
    fn join(&self, shapes: impl IntoIterator<Item = Shape>) -> Result<Shape> {
        if let Some(dim) = self.concat {
            return joined("Parallel", dim, shapes);
        }
        let mut shapes = shapes.into_iter();
        let first =
            shapes.next().ok_or_else(|| Error::value("Parallel: expected at least one branch, got none"))?;
        match shapes.find(|shape| *shape != first) {
            None => Ok(first),
            Some(other) => Err(Error::shape(format!(
                "Parallel: expected branches that fit together in a sum, got {first} and {other}"
            ))),
        }
    }

    /// [`Parallel::join`] of what `shape` gives for every branch.
    fn joined(&self, mut shape: impl FnMut(&str, &BoxModule<T>) -> Result<Vec<Shape>>) -> Result<Shape> {
        self.branches.verdict()?;
        let shapes = self
            .branches
            .iter()
            .map(|(name, branch)| shape(name, branch).and_then(only).map_err(|e| e.in_layer(name)));
        self.join(shapes.collect::<Result<Vec<_>>>()?)
    }
}

/// What [`Parallel`] keeps.
#[derive(Debug)]
pub struct ParallelCache<T> {
    states: Vec<AnyState>,
    /// fᵢ(x), of each branch's output shape.
    ys: Vec<Tensor<T>>,
    /// The part of ∂E/∂y of one branch.
    part: Tensor<T>,
    /// ∂E/∂x of one branch, of x's shape.
    dx: Tensor<T>,
    /// Whose pass over which shape was recorded, if it was.
    recorded: Option<Mark>,
}

impl<T: Scalar> Default for ParallelCache<T> {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            ys: Vec::new(),
            part: Tensor::default(),
            dx: Tensor::default(),
            recorded: None,
        }
    }
}

impl<T: Scalar> Layer for Parallel<T> {
    type T = T;
    type Cache = ParallelCache<T>;

    fn check(&self) -> Result<()> {
        self.branches.validate()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let input = Shape::new(input)?;
        self.joined(|_, branch| branch.output_shapes(&[input]))
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        self.branches.verdict()?;
        let ParallelCache { states, ys, recorded, .. } = cache;
        *recorded = None;
        states.resize_with(self.branches.len(), AnyState::default);
        ys.resize_with(self.branches.len(), Tensor::default);
        for (i, ((name, branch), out)) in self.branches.iter().zip(&mut *ys).enumerate() {
            let inner = self.branches.context(i, cx.child(i));
            let made = branch.apply_one(x, out, &mut states[i], inner);
            made.and_then(|()| check_output(out, cx)).map_err(|e| e.in_layer(name))?;
        }
        let shape = self.join(ys.iter().map(|y| *y.shape()))?;
        y.reset(shape);
        match self.concat {
            Some(dim) => {
                let mut parts = Parts::new("Parallel", dim, &shape)?;
                ys.iter().for_each(|out| parts.put(out, y)); // y[its part] = fᵢ(x)
            }
            None => {
                copy(ys[0].data(), y.data_mut()); // y = f₀(x)
                ys[1..].iter().for_each(|out| add_assign(y.data_mut(), out.data())); // y += fᵢ(x)
            }
        }
        *recorded = cx.recording().then(|| self.branches.known.mark(x.shape()));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let ParallelCache { states, ys, part, dx: own, recorded } = cache;
        let recorded = recorded.as_ref();
        if !recorded.is_some_and(|mark| mark.is_of_pass(&self.branches.known, call.x.shape()))
            || states.len() != self.branches.len()
        {
            return Err(not_recorded("Parallel"));
        }
        let mut parts = self.concat.map(|dim| Parts::new("Parallel", dim, call.dy.shape())).transpose()?;
        let (mut reached, active) = (false, self.branches.active());
        for (i, ((name, branch), y)) in self.branches.iter().zip(&*ys).enumerate() {
            let wanted = dx.is_some() && branch.differentiable_input(0);
            if !wanted && !active[i].load(Relaxed) {
                parts.iter_mut().for_each(|parts| parts.skip(y.shape()));
                continue;
            }
            let dy = match &mut parts {
                None => call.dy,
                Some(parts) => {
                    parts.take(call.dy, *y.shape(), part); // gᵢ = dy[its part]
                    &*part
                }
            };
            let requested = match &mut dx {
                Some(dx) if wanted => Some(if reached { &mut *own } else { &mut **dx }),
                _ => None,
            };
            let inner = Call::recorded(call.x, y, dy)?;
            branch.pull_one(inner, &mut states[i], grads, requested).map_err(|e| e.in_layer(name))?;
            if let Some(dx) = dx.as_deref_mut().filter(|_| wanted && reached) {
                add_assign(dx.data_mut(), own.data()); // dx += (∂fᵢ/∂x)ᵀ gᵢ
            }
            reached |= wanted;
        }
        if let Some(dx) = dx.filter(|_| !reached) {
            dx.reset(*call.x.shape()).fill(T::ZERO);
        }
        Ok(())
    }

    fn differentiable(&self) -> bool {
        self.branches.iter().any(|(_, branch)| branch.differentiable_input(0))
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.branches.list(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.branches.list_mut(out);
    }

    fn learning(&self) -> Learning {
        self.branches.learning()
    }

    fn parts(&mut self, out: &mut chainrule_core::Parts<'_, T>) {
        self.branches.lend(out);
    }

    fn switch(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.branches.set_mode("Parallel", path, mode)
    }

    fn depth(&self) -> usize {
        self.branches.depth()
    }

    fn memory(&self, cache: &mut Self::Cache, out: &mut Memory<'_, T>) -> Result<()> {
        self.branches.memory(&mut cache.states, out)
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        if !cache.recorded.is_some_and(|mark| mark.is_of(&self.branches.known)) {
            return;
        }
        self.branches.iter_mut().zip(&cache.states).for_each(|(branch, state)| branch.fold(state));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(input) = Shape::new(input) else { return 0 };
        self.branches.iter().fold(0, |sum, (_, branch)| sum.saturating_add(branch.cost(&[input])))
    }

    fn spec(&self) -> Spec {
        self.branches.describe(Spec::new("Parallel").with("concat", self.concat))
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        let (input, active) = (Shape::new(input)?, self.branches.active());
        let (mut parts, mut part, mut terms, mut i) = (0usize, 0, 0, 0);
        let requested = out.requests(0);
        let output = self.joined(|name, branch| {
            let wanted = requested && branch.differentiable_input(0);
            let made =
                out.requesting(&[wanted], |out| out.child(name, |out| branch.summarize(&[input], out)))?;
            let size = made.iter().fold(0usize, |sum, y| sum.saturating_add(bytes::<T>(y)));
            parts = parts.saturating_add(size);
            if self.concat.is_some() && (wanted || active[i].load(Relaxed)) {
                part = size.max(part);
            }
            terms += usize::from(wanted);
            i += 1;
            Ok(made)
        })?;
        out.hold_in_training(parts.saturating_add(part)); // fᵢ(x) and gᵢ
        if terms > 1 {
            out.hold_in_training(bytes::<T>(&input)); // the terms of dx after the first
        }
        out.hold_in_inference(parts);
        Ok(output)
    }
}

impl<T: Scalar> FromSpec<T> for Parallel<T> {
    const FACTS: Facts = Facts::new("Parallel")
        .family("container")
        .formula("Σᵢ fᵢ(x), or side by side")
        .page("layers/container/parallel.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut layer = Self { concat: args.optional("concat")?, ..Self::sum() };
        args.children()?.into_iter().for_each(|(name, branch)| layer.branches.push_one(name, branch));
        layer.branches.verdict()?;
        Ok(layer)
    }

    fn examples() -> Vec<Example> {
        let two = |start: Self, width| start.add(Linear::new(width, width)).named("bent", Tanh::new()).spec();
        vec![
            Example::new(two(Self::sum(), 3), [[2, 3]]),
            Example::new(two(Self::concat(-1), 3), [[2, 3]]),
            Example::bench(two(Self::sum(), 256), [[64, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Dropout, Embedding, Flatten, Residual, Sequential};
    use chainrule_core::{Init, Kind, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..5usize, inputs in 1..6usize, widths in collection::vec(1..5usize, 1..4), sum in any::<bool>(),
            p in 0.0..0.9, back in any::<bool>(),
        ) {
            layer: {
                let start = if sum { Parallel::<T>::sum() } else { Parallel::<T>::concat(if back { -1 } else { 1 }) };
                let width = |w: usize| if sum { 3 } else { w };
                widths.iter().fold(start, |layer, &w| {
                    let branch = Sequential::<T>::of().add(Linear::new(inputs, width(w))).add(Dropout::new(p));
                    layer.add(branch.add(Tanh::new()))
                })
            },
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
        }
    }

    /// f₀(x) = 2x, f₁(x) = 3x at x = 5, without biases: the sum is 25 and ∂x = 2g + 3g = 5g.
    /// Side by side: (10, 15), and for g = (1, 10): ∂x = 2·1 + 3·10 = 32.
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[5.0f64]]);
        for (layer, want_y, dy, want_dx) in [
            (Parallel::sum(), vec![25.0], Tensor::from([[1.0]]), 5.0),
            (Parallel::concat(1), vec![10.0, 15.0], Tensor::from([[1.0, 10.0]]), 32.0),
        ] {
            let gain = |g| Linear::new(1, 1).bias(false).weight_init(Init::Constant(g));
            let layer = layer.add(gain(2.0)).add(gain(3.0)).init(0).unwrap();
            let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ParallelCache::default());
            layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
            let mut grads = Grads::new(&layer);
            layer
                .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
                .unwrap();
            assert_eq!((y.data(), dx.data()), (&want_y[..], &[want_dx][..]));
        }
    }

    #[test]
    fn errors_name_the_path_and_duplicate_names_are_found() {
        let inner = Sequential::new().add(Linear::new(4, 4)).add(Linear::new(5, 5));
        let model = Sequential::new().named("body", Parallel::sum().named("left", inner));
        let text = model.build(&[2, 4]).err().unwrap().to_string();
        assert_eq!(text, "in layer `body.left.1`: Linear: expected input (.., 5), got [2, 4]");

        let twice: Parallel = Parallel::sum().named("a", Linear::new(1, 1)).named("a", Linear::new(1, 1));
        assert!(twice.init(0).err().unwrap().to_string().contains("two children are named `a`"));
        let bad = Sequential::new().add(Residual::new(Linear::new(3, 4)));
        assert!(bad.build(&[1, 3]).err().unwrap().to_string().contains("keep the shape"));
        assert!(Parallel::<f32>::sum().output_shape(&[1]).is_err());
    }

    #[test]
    fn the_first_mistake_is_kept_with_its_kind_and_place() {
        let layer = Parallel::<f64>::sum().named("a", crate::Add::new()).named("a", Linear::new(1, 1));
        for error in [layer.check().unwrap_err(), layer.output_shape(&[1, 1]).unwrap_err()] {
            assert!(matches!(error.kind(), Kind::Value(_)));
            assert_eq!(
                error.to_string(),
                "in layer `a`: expected a module of one input and one output, got 2 and 1"
            );
        }
        let (mut y, mut cache) = (Tensor::default(), ParallelCache::default());
        assert!(layer.forward(&Tensor::zeros([1, 1]), &mut y, &mut cache, Context::infer()).is_err());
    }

    /// Ids have no derivative: the other branch alone gives ∂E/∂x, whichever comes first.
    #[test]
    fn branches_without_a_derivative_are_passed_over() {
        let ids = || Sequential::<f64>::of().add(Embedding::new(4, 1)).add(Flatten::new());
        let gain = || Linear::new(2, 2).bias(false).weight_init(Init::Constant(1.0));
        let (x, dy) = (Tensor::from([[1.0, 3.0]]), Tensor::from([[5.0, 7.0]]));
        let both = [Parallel::sum().add(ids()).add(gain()), Parallel::sum().add(gain()).add(ids())];
        for (layer, want) in both
            .map(|layer| (layer, [12.0, 12.0]))
            .into_iter()
            .chain([(Parallel::sum().add(ids()), [0.0; 2])])
        {
            assert_eq!(layer.differentiable(), want[0] > 0.0);
            let layer = layer.init(0).unwrap();
            let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ParallelCache::default());
            layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
            let mut grads = Grads::new(&layer);
            let call = Call::new(&layer, &x, &y, &dy).unwrap();
            layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
            assert_eq!(dx.data(), want);
        }
    }
}
