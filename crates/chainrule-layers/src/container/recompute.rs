//! Layers one after another whose caches are made again in backward (Chen, Xu, Zhang and Guestrin, 2016).
//!
//! ```text
//! y = fₙ(… f₁(f₀(x)))
//! ```
//!
//! The gradients are those of [`Sequential`](super::Sequential), Gᵢ₋₁ = (∂fᵢ/∂yᵢ₋₁)ᵀ Gᵢ, to the bit. Before each step fᵢ is computed
//! again from yᵢ₋₁, with the same noise.
//!
//! Keeps every yᵢ, and the cache of one child instead of all. Derivation: docs/layers/container/recompute.md.

use super::{
    bytes, check_output,
    children::{Children, Mark},
    not_recorded, only,
};
use crate::{Gelu, LayerNorm, Linear, Residual, Sequential};
use chainrule_core::{
    AnyState, Args, BoxModule, Call, Context, Example, Facts, FromSpec, Grads, Layer, Learning, Memory, Mode,
    Module, Parameters, Params, ParamsMut, Parts, Result, Scalar, Shape, Spec, Summary, Tensor, Value,
};
use std::{mem, sync::atomic::Ordering::Relaxed};

/// Children one after another, as in a [`Sequential`](super::Sequential), that share one cache: forward keeps what stands between them
/// alone, and backward computes each child again before it is differentiated. PyTorch calls it `torch.utils.checkpoint`,
/// Keras `RematScope`; here a checkpoint is a file.
///
/// A step takes the time of one more forward pass, and the memory of n children becomes that of one and n inputs. It is worth it where
/// children keep much more than their input: layers of a transformer, blocks of a residual network. The gradients have the same
/// bits: a child draws the same noise again, and running statistics move once. Children of one kind share a cache; a child with
/// running statistics or with an embedding of limited norms keeps its own, from which they are taken after the step.
///
/// # Shapes
/// Those of its children: y of one is x of the next.
///
/// # Examples
/// ```
/// use chainrule_core::Module;
/// use chainrule_layers::{Gelu, LayerNorm, Linear, Recompute, Residual, Sequential};
/// let inner = Sequential::<f32>::of().add(LayerNorm::new(64)).add(Linear::new(64, 256)).add(Gelu::new());
/// let block = Residual::new(inner.add(Linear::new(256, 64)));
/// let (whole, again) = (Sequential::of().repeat(12, block.clone()), Recompute::of().repeat(12, block));
/// assert!(2 * again.summary([4096, 64])?.training_bytes() < whole.summary([4096, 64])?.training_bytes());
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Recompute<T: Scalar = f32> {
    children: Children<T>,
    /// Which of the shared caches a child uses, unless it has its own.
    places: Vec<Option<usize>>,
    /// The kinds of children that share a cache.
    kinds: Vec<String>,
}

impl Recompute {
    /// No layer yet: y = x. [`Recompute::of`] is the start for another element type.
    pub fn new() -> Self {
        Self::of()
    }
}

/// Whether something in a module is taken from its cache after a step.
fn folds<T: Scalar>(module: &BoxModule<T>) -> bool {
    fn limits(spec: &Spec) -> bool {
        spec.get("max_norm").is_some_and(|norm| *norm != Value::None)
            || spec.children().iter().any(|(_, child)| limits(child))
    }
    let mut buffers = false;
    module.visit(&mut |_, p| buffers |= p.is_buffer());
    buffers || limits(&module.to_spec())
}

impl<T: Scalar> Recompute<T> {
    /// No layer yet, of any element type: `Recompute::<f64>::of()`.
    pub fn of() -> Self {
        Self { children: Children::new(), places: Vec::new(), kinds: Vec::new() }
    }

    /// Appends a layer, named by its index.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, layer: impl Module<T = T> + Clone + 'static) -> Self {
        let name = self.children.len().to_string();
        self.named(name, layer)
    }

    /// Appends a layer under a name. A mistake is kept, as in [`Sequential::named`](super::Sequential::named).
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
        let place = (!folds(&layer)).then(|| {
            let kind = layer.to_spec().kind().to_owned();
            self.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                self.kinds.push(kind);
                self.kinds.len() - 1
            })
        });
        self.places.push(place);
        self.children.push_one(name, layer);
    }

    /// The layers with their names, in order.
    pub fn children(&self) -> impl Iterator<Item = (&str, &BoxModule<T>)> {
        self.children.iter()
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last child without a derivative with respect to its input: no gradient reaches the children before.
    fn cut(&self) -> Option<usize> {
        self.children.iter().rposition(|(_, child)| !child.differentiable_input(0))
    }

    /// The child at which backward ends: the first, or the first that has something to learn; their number if there is none.
    fn start(&self, requested: bool) -> usize {
        let cut = self.cut();
        if requested && cut.is_none() {
            return 0;
        }
        let active = self.children.active();
        let first = active.iter().position(|active| active.load(Relaxed)).unwrap_or(self.len());
        first.max(cut.unwrap_or(0))
    }
}

impl<T: Scalar> Default for Recompute<T> {
    fn default() -> Self {
        Self::of()
    }
}

/// What [`Recompute`] keeps.
#[derive(Debug)]
pub struct RecomputeCache<T> {
    /// Of the children that have their own, and, in a stream, of all.
    own: Vec<AnyState>,
    shared: Vec<Shared>,
    /// The outputs of the children but for the last; in inference two of them in turn.
    ys: Vec<Tensor<T>>,
    /// An output that is computed again.
    again: Tensor<T>,
    /// ∂E/∂yᵢ and ∂E/∂yᵢ₋₁, in turn.
    dys: [Tensor<T>; 2],
    /// Whose pass over which shape was recorded, if it was, and how.
    recorded: Option<(Mark, Context)>,
}

/// A cache, and the child whose recorded pass it holds.
#[derive(Debug, Default)]
struct Shared {
    state: AnyState,
    of: Option<usize>,
}

impl<T: Scalar> Default for RecomputeCache<T> {
    fn default() -> Self {
        Self {
            own: Vec::new(),
            shared: Vec::new(),
            ys: Vec::new(),
            again: Tensor::default(),
            dys: Default::default(),
            recorded: None,
        }
    }
}

impl<T: Scalar> Layer for Recompute<T> {
    type T = T;
    type Cache = RecomputeCache<T>;

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
        let (n, kept) = (self.len(), cx.recording());
        let RecomputeCache { own, shared, ys, recorded, .. } = cache;
        *recorded = None;
        own.resize_with(n, AnyState::default);
        shared.resize_with(self.kinds.len(), Shared::default);
        shared.iter_mut().for_each(|shared| shared.of = None);
        let between = if kept { n.saturating_sub(1) } else { 2 };
        if ys.len() < between {
            ys.resize_with(between, Tensor::default);
        }
        if n == 0 {
            y.copy_from(x);
        }
        for k in 0..n {
            let (name, child) = self.children.get(k);
            let (before, rest) = ys.split_at_mut(if kept { k } else { 1 });
            let (input, output) = match kept || k % 2 == 1 {
                true => (before.last(), rest.first_mut()),
                false => (rest.first(), before.last_mut()),
            };
            let input = input.filter(|_| k > 0).unwrap_or(x);
            let output = output.filter(|_| k + 1 < n).unwrap_or(y);
            let state = match self.places[k].filter(|_| !cx.streaming()) {
                Some(place) => {
                    own[k] = AnyState::default(); // a stream ends here
                    shared[place].of = kept.then_some(k);
                    &mut shared[place].state
                }
                None => &mut own[k],
            };
            let made = child.apply_one(input, output, state, self.children.context(k, cx.child(k)));
            made.and_then(|()| check_output(output, cx)).map_err(|e| e.in_layer(name))?;
        }
        *recorded = kept.then(|| (self.children.known.mark(x.shape()), cx));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let RecomputeCache { own, shared, ys, again, dys: [dy, dx_inner], recorded } = cache;
        let cx = match recorded {
            Some((mark, cx)) if mark.is_of_pass(&self.children.known, call.x.shape()) => *cx,
            _ => return Err(not_recorded("Recompute")),
        };
        let (n, cut) = (self.len(), self.cut());
        if own.len() != n || shared.len() != self.kinds.len() || ys.len() + 1 < n {
            return Err(not_recorded("Recompute"));
        }
        match &mut dx {
            Some(dx) if n == 0 => dx.copy_from(call.dy), // dx = dy
            Some(dx) if cut.is_some() => dx.reset(*call.x.shape()).fill(T::ZERO),
            _ => {}
        }
        let start = self.start(dx.is_some());
        let (mut dy, mut dx_inner) = (dy, dx_inner);
        for k in (start..n).rev() {
            let (name, child) = self.children.get(k);
            let x = if k == 0 { call.x } else { &ys[k - 1] };
            let (y, g) = if k + 1 == n { (call.y, call.dy) } else { (&ys[k], &*dy) };
            let state = match self.places[k] {
                Some(place) => {
                    let Shared { state, of } = &mut shared[place];
                    if *of != Some(k) {
                        *of = None;
                        let cx = self.children.context(k, cx.child(k));
                        child.apply_one(x, again, state, cx).map_err(|e| e.in_layer(name))?; // yᵢ = fᵢ(yᵢ₋₁) again
                        *of = Some(k);
                    }
                    state
                }
                None => &mut own[k],
            };
            let requested = match k {
                0 if cut.is_none() => dx.take(),
                _ if k == start => None,
                _ => Some(&mut *dx_inner),
            };
            let call = Call::recorded(x, y, g)?;
            child.pull_one(call, state, grads, requested).map_err(|e| e.in_layer(name))?; // Gᵢ₋₁ from Gᵢ
            mem::swap(&mut dy, &mut dx_inner);
        }
        Ok(())
    }

    fn differentiable(&self) -> bool {
        self.cut().is_none()
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
        self.children.set_mode("Recompute", path, mode)
    }

    fn depth(&self) -> usize {
        self.children.depth()
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        if !cache.recorded.is_some_and(|(mark, _)| mark.is_of(&self.children.known)) {
            return;
        }
        let own = self.children.iter_mut().zip(&cache.own).zip(&self.places);
        own.filter(|(_, place)| place.is_none()).for_each(|((child, state), _)| child.fold(state));
    }

    fn memory(&self, cache: &mut Self::Cache, out: &mut Memory<'_, T>) -> Result<()> {
        self.children.memory(&mut cache.own, out)
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(mut shape) = Shape::new(input) else { return 0 };
        let mut sum = 0u64;
        for (_, child) in self.children.iter() {
            sum = sum.saturating_add(child.cost(&[shape]));
            match child.output_shapes(&[shape]).and_then(only) {
                Ok(next) => shape = next,
                Err(_) => break,
            }
        }
        sum
    }

    fn spec(&self) -> Spec {
        self.children.describe(Spec::new("Recompute"))
    }

    /// The caches of children that share one count once, the largest of them.
    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.children.verdict()?;
        let (n, requested) = (self.len(), out.requests(0));
        let start = self.start(requested);
        let mut shape = Shape::new(input)?;
        let mut shared = vec![[0usize; 2]; self.kinds.len()];
        let (mut kept, mut turns, mut gradients, mut again) = (0usize, [0; 2], [0; 2], 0);
        for (k, (name, child)) in self.children.iter().enumerate() {
            let wanted = if k == 0 { requested && self.cut().is_none() } else { k > start };
            let (made, held) = out.apart(|out| {
                out.requesting(&[wanted], |out| out.child(name, |out| child.summarize(&[shape], out)))
            });
            let before = shape;
            shape = made.and_then(only).map_err(|e| e.in_layer(name))?;
            match self.places[k] {
                Some(place) => {
                    shared[place] = [0, 1].map(|i| shared[place][i].max(held[i]));
                    if k + 1 < n && k >= start {
                        again = bytes::<T>(&shape).max(again);
                    }
                }
                None => {
                    out.hold_in_training(held[0]);
                    out.hold_in_inference(held[1]);
                }
            }
            if k + 1 < n {
                kept = kept.saturating_add(bytes::<T>(&shape));
                turns[k % 2] = bytes::<T>(&shape).max(turns[k % 2]);
            }
            if k > start {
                let turn = (n - k) % 2;
                gradients[turn] = bytes::<T>(&before).max(gradients[turn]);
            }
        }
        let sum = |[a, b]: [usize; 2]| a.saturating_add(b);
        let caches = shared.iter().fold([0usize; 2], |sum, of| [0, 1].map(|i| sum[i].saturating_add(of[i])));
        out.hold_in_training(
            [kept, again, sum(gradients), caches[0]].iter().fold(0, |a, &b| b.saturating_add(a)),
        );
        out.hold_in_inference(sum(turns).saturating_add(caches[1]));
        Ok(shape)
    }
}

impl<T: Scalar> FromSpec<T> for Recompute<T> {
    const FACTS: Facts = Facts::new("Recompute")
        .family("container")
        .formula("fₙ(… f₁(f₀(x))), computed again in backward")
        .page("layers/container/recompute.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut model = Self::of();
        args.children()?.into_iter().for_each(|(name, layer)| model.push(name, layer));
        model.children.verdict()?;
        Ok(model)
    }

    fn examples() -> Vec<Example> {
        let blocks = |count: usize, width: usize| {
            let block = || {
                let inner =
                    Sequential::<T>::of().add(LayerNorm::new(width)).add(Linear::new(width, 2 * width));
                Residual::new(inner.add(Gelu::new()).add(Linear::new(2 * width, width)))
            };
            (0..count).fold(Self::of(), |model, _| model.add(block())).spec()
        };
        vec![
            Example::new(Self::of().spec(), [[3, 2]]),
            Example::new(blocks(3, 4), [[5, 4]]),
            Example::bench(blocks(4, 256), [[64, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BatchNorm1d, Dropout, Embedding, Gru, SpectralNorm, Tanh};
    use chainrule_core::{Init, Kind, Session};
    use chainrule_gradcheck::laws;

    /// Layers with caches, noise, statistics, weights that are computed, and an activation that reads its output.
    fn layers<T: Scalar>(width: usize, p: f64, add: &mut dyn FnMut(BoxModule<T>)) {
        add(BoxModule::new(Linear::new(width, width)));
        add(BoxModule::new(
            Sequential::of().add(Linear::new(width, 4)).add(Gelu::new()).add(Linear::new(4, width)),
        ));
        add(BoxModule::new(Dropout::new(p)));
        add(BoxModule::new(
            Sequential::of().add(LayerNorm::new(width)).add(Dropout::new(p)).add(Tanh::new()),
        ));
        add(BoxModule::new(BatchNorm1d::new(width)));
        add(BoxModule::new(SpectralNorm::new(Linear::new(width, width))));
        add(BoxModule::new(Dropout::new(p)));
    }

    fn pair<T: Scalar>(width: usize, p: f64) -> (Sequential<T>, Recompute<T>) {
        let (mut whole, mut again) = (Sequential::of(), Recompute::of());
        layers(width, p, &mut |layer| {
            whole = mem::take(&mut whole).add(layer.clone());
            again = mem::take(&mut again).add(layer);
        });
        (whole, again)
    }

    laws! {
        #![cases = 12]
        obeys_the_laws(rows in 4..7usize, width in 2..5usize, p in 0.0..0.9) {
            layer: pair::<T>(width, p).1,
            input: [rows, width],
            wrong: [rows, width + 1],
        }
        obeys_the_laws_with_few_layers(rows in 1..6usize, inputs in 1..6usize, count in 0..4usize) {
            layer: (0..count).fold(Recompute::<T>::of(), |model, _| model.add(Linear::new(inputs, inputs))),
            input: [rows, inputs],
        }
        obeys_the_laws_of_streams(rows in 1..4usize, time in 1..7usize, width in 1..4usize) {
            layer: (0..3).fold(Recompute::<T>::of(), |model, _| model.add(Gru::new(width, width))),
            input: [rows, time, width],
            sequence: 1,
        }
    }

    /// f₀(x) = 2x, f₁(x) = 3x at x = 5: y = 30, ∂x = 3·2·g = 6g, ∂w₁ = g·y₀ = 10g, ∂w₀ = 3g·x = 15g.
    #[test]
    pub fn by_hand() {
        let gain = |g| Linear::new(1, 1).bias(false).weight_init(Init::Constant(g));
        let model = Recompute::<f64>::of().add(gain(2.0)).add(gain(3.0)).init(0).unwrap();
        let (x, dy) = (Tensor::from([[5.0f64]]), Tensor::from([[1.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), RecomputeCache::default());
        model.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let mut grads = Grads::new(&model);
        model
            .backward(Call::new(&model, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[30.0][..], &[6.0][..], &[15.0, 10.0][..]));
    }

    /// Noise, statistics and the vectors of the spectral norm are those of a Sequential after every step.
    #[test]
    fn training_has_the_bits_of_a_sequential() {
        let (whole, again) = pair::<f32>(5, 0.4);
        let (mut whole, mut again) = (whole.init(3).unwrap(), again.init(3).unwrap());
        let x = Tensor::from_fn([6, 5], |i| (i * i % 13) as f32 / 7.0 - 0.8);
        fn step<L: Layer<T = f32>>(
            model: &mut L,
            cache: &mut L::Cache,
            x: &Tensor,
            step: u64,
        ) -> Vec<Vec<f32>> {
            let (mut y, mut dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(&*model));
            model.forward(x, &mut y, cache, Context::train(7).step(step)).unwrap();
            let dy = Tensor::from_fn(*y.shape(), |i| (i % 5) as f32 - 1.5);
            let call = Call::new(&*model, x, &y, &dy).unwrap();
            model.backward(call, cache, &mut grads, Some(&mut dx)).unwrap();
            model.absorb(cache);
            let mut all = vec![y.data().to_vec(), dx.data().to_vec(), grads.values().to_vec()];
            model.visit(&mut |_, p| all.push(p.value().unwrap().to_vec()));
            all
        }
        let (mut kept, mut shared) = (Default::default(), Default::default());
        for k in 0..3 {
            assert_eq!(step(&mut whole, &mut kept, &x, k), step(&mut again, &mut shared, &x, k), "step {k}");
        }
    }

    #[test]
    fn children_of_one_kind_share_a_cache_unless_something_is_taken_from_it() {
        let (_, model) = pair::<f32>(3, 0.1);
        assert_eq!(model.places, [Some(0), Some(1), Some(2), Some(1), None, None, Some(2)]);
        let limited = Sequential::<f32>::of().add(Embedding::new(4, 2).max_norm(1.0));
        assert_eq!(Recompute::of().add(limited).places, [None]);
    }

    /// Streams are not mixed where caches are shared.
    #[test]
    fn a_stream_after_training_begins_anew() {
        let model =
            (0..2).fold(Recompute::<f32>::of(), |model, _| model.add(Gru::new(2, 2))).init(1).unwrap();
        let x = Tensor::from_fn([1, 4, 2], |i| i as f32 / 4.0 - 1.0);
        let mut session = Session::new(&model);
        let whole = session.run(&x).unwrap().clone();
        for _ in 0..2 {
            for t in 0..4 {
                let piece = Tensor::from_vec([1, 1, 2], x.data()[2 * t..2 * t + 2].to_vec()).unwrap();
                assert_eq!(session.stream(&piece).unwrap().data(), &whole.data()[2 * t..2 * t + 2]);
            }
            session.run(&x).unwrap();
        }
    }

    #[test]
    fn mistakes_are_kept_and_backward_needs_a_recorded_pass() {
        let model = Recompute::<f32>::new().named("a", Tanh::new()).named("a", Tanh::new());
        assert!(model.check().unwrap_err().to_string().contains("two children are named `a`"));
        let model = Recompute::<f64>::of().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
        let (x, mut y, mut cache) = (Tensor::zeros([1, 2]), Tensor::default(), RecomputeCache::default());
        model.forward(&x, &mut y, &mut cache, Context::infer()).unwrap();
        let call = Call::new(&model, &x, &y, &y).unwrap();
        let error = model.backward(call, &mut cache, &mut Grads::new(&model), None).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotRecorded(_)), "{error}");
    }

    /// Between four children stand three outputs; of the caches that of the largest child alone counts.
    #[test]
    fn the_summary_counts_a_shared_cache_once() {
        let child =
            || Sequential::<f32>::of().add(Linear::new(4, 32)).add(Gelu::new()).add(Linear::new(32, 4));
        let (whole, again) = (0..4).fold((Sequential::of(), Recompute::of()), |(whole, again), _| {
            (whole.add(child()), again.add(child()))
        });
        let [whole, again, one] =
            [whole.summary([8, 4]), again.summary([8, 4]), child().summary([8, 4])].map(|s| s.unwrap());
        let of_one = one.training_bytes() - 4 * (2 * one.parameters() + 3 * 32);
        assert!(of_one > 4 * 2 * 8 * 32);
        // One more output of a child, which is computed again.
        assert!(whole.training_bytes() - again.training_bytes() >= 3 * of_one - 4 * 32);
        assert_eq!(whole.parameters(), again.parameters());
    }
}
