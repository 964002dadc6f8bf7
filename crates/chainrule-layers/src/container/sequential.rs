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
//! Keeps every yᵢ in training, two in inference. Where fᵢ can work in place and nobody reads yᵢ₋₁ again, as an activation
//! after a product, yᵢ takes its place, and Gᵢ₋₁ that of Gᵢ. Derivation: docs/layers/container/sequential.md.

use super::{check_name, check_output, first_error, keep};
use chainrule_core::{
    AnyCache, BoxLayer, Call, Context, Error, Grads, Layer, Params, ParamsMut, Result, Scalar, Shape,
    Summary, Tensor,
};

/// Layers one after another; children are named by index, or as given to [`Sequential::named`].
///
/// # Shapes
/// Those of its children: y of one is x of the next.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::{Linear, Sequential};
/// let model: Sequential = Sequential::new().add(Linear::new(4, 8)).named("head", Linear::new(8, 2)).build(&[1, 4])?.init(1)?;
/// println!("{}", model.summary(&[1, 4])?);
/// assert_eq!(model.infer(&Tensor::zeros([5, 4]))?.shape()[..], [5, 2]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Sequential<T: Scalar = f32> {
    children: Vec<Child<T>>,
    wrong: Option<String>,
}

#[derive(Clone)]
struct Child<T: Scalar> {
    name: String,
    layer: BoxLayer<T>,
    /// Whether it overwrites the output of the layer before, which nobody reads again.
    in_place: bool,
}

impl<T: Scalar> Child<T> {
    fn forward_in_place(&self, y: &mut Tensor<T>) -> Result<()> {
        self.layer.in_place().map_or(Ok(()), |layer| layer.forward_in_place(y))
    }

    fn backward_in_place(&self, y: &Tensor<T>, dy: &mut Tensor<T>) {
        if let Some(layer) = self.layer.in_place() {
            layer.backward_in_place(y, dy);
        }
    }
}

impl<T: Scalar> Sequential<T> {
    /// No layer yet: y = x.
    pub fn new() -> Self {
        Self { children: Vec::new(), wrong: None }
    }

    /// Appends a layer, named by its index.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, layer: impl Layer<T> + Clone + 'static) -> Self {
        let name = self.children.len().to_string();
        self.named(name, layer)
    }

    /// Appends a layer under a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, layer: impl Layer<T> + Clone + 'static) -> Self {
        let name = name.into();
        keep(&mut self.wrong, check_name(&name, self.children.iter().map(|child| child.name.as_str())));
        let free = self.children.last().is_some_and(|before| !before.layer.reads_output());
        let in_place = free && layer.in_place().is_some();
        self.children.push(Child { name, layer: BoxLayer::new(layer), in_place });
        self
    }

    /// Checks every layer against the shapes that reach it, before data flows.
    ///
    /// # Errors
    /// The first layer that does not fit, named by its path.
    pub fn build(self, input: &[usize]) -> Result<Self> {
        self.output_shape(input)?;
        Ok(self)
    }

    /// The layers with their names, in order.
    pub fn children(&self) -> impl Iterator<Item = (&str, &BoxLayer<T>)> {
        self.children.iter().map(|child| (child.name.as_str(), &child.layer))
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

impl<T: Scalar> Default for Sequential<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Sequential`] keeps.
#[derive(Debug)]
pub struct SequentialCache<T> {
    caches: Vec<AnyCache>,
    /// The outputs between the layers, but for those that are overwritten; in inference two, used in turn.
    ys: Vec<Tensor<T>>,
    /// ∂E/∂yᵢ and ∂E/∂yᵢ₋₁, in turn.
    dys: [Tensor<T>; 2],
    recorded: bool,
}

impl<T: Scalar> Default for SequentialCache<T> {
    fn default() -> Self {
        Self { caches: Vec::new(), ys: Vec::new(), dys: Default::default(), recorded: false }
    }
}

impl<T: Scalar> Layer<T> for Sequential<T> {
    type Cache = SequentialCache<T>;

    fn check(&self) -> Result<()> {
        first_error(&self.wrong)?;
        self.children
            .iter()
            .try_for_each(|Child { name, layer, .. }| layer.check().map_err(|e| e.in_layer(name)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        first_error(&self.wrong)?;
        self.children.iter().try_fold(Shape::new(input)?, |shape, Child { name, layer, .. }| {
            layer.output_shape(&shape).map_err(|e| e.in_layer(name))
        })
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        first_error(&self.wrong)?;
        let n = self.children.len();
        if n == 0 {
            y.copy_from(x);
            cache.recorded = cx.recording();
            return Ok(());
        }
        // The layers that have an output of their own, but for the last of them, whose output is y.
        let between = self.children.iter().filter(|child| !child.in_place).count() - 1;
        let kept = if cx.recording() { between } else { between.min(2) };
        cache.recorded = false;
        cache.caches.resize_with(n, AnyCache::default);
        if cache.ys.len() < kept {
            cache.ys.resize_with(kept, Tensor::default);
        }
        let at = |k: usize| if cx.recording() { k } else { k % 2 };
        let (mut i, mut k) = (0, 0);
        while i < n {
            let (input, output) = match (k == 0, k == between) {
                (true, true) => (x, &mut *y),
                (true, false) => (x, &mut cache.ys[0]),
                (false, true) => (&cache.ys[at(k - 1)], &mut *y),
                (false, false) => {
                    let [input, output] =
                        cache.ys.get_disjoint_mut([at(k - 1), at(k)]).expect("places apart");
                    (&*input, output)
                }
            };
            let Child { name, layer, .. } = &self.children[i];
            let result = layer.forward(input, output, &mut cache.caches[i], &mut cx.child(i));
            let result = result.and_then(|()| check_output(output, cx));
            result.map_err(|e| e.in_layer(name))?;
            (i, k) = (i + 1, k + 1);
            if let Some(child) = self.children.get(i).filter(|child| child.in_place) {
                let result = child.forward_in_place(output).and_then(|()| check_output(output, cx));
                result.map_err(|e| e.in_layer(&child.name))?;
                i += 1;
            }
        }
        cache.recorded = cx.recording();
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let n = self.children.len();
        if !cache.recorded || (n > 0 && cache.caches.len() != n) {
            return Err(Error::not_recorded("Sequential: backward without a recorded forward in this cache"));
        }
        if n == 0 {
            dx.into_iter().for_each(|dx| dx.copy_from(call.dy)); // dx = dy
            return Ok(());
        }
        let SequentialCache { caches, ys, dys: [dy, dx_inner], .. } = cache;
        let (mut dx, mut turns) = (dx, 0);
        // `dy` holds ∂E/∂y of the layer that comes next, but at first the caller does.
        let (mut i, mut k, mut ours) =
            (n, self.children.iter().filter(|child| !child.in_place).count(), false);
        while i > 0 {
            (i, k) = (i - 1, k - 1);
            let y = ys.get(k).filter(|_| i < n - 1).unwrap_or(call.y);
            if self.children[i].in_place {
                if !ours {
                    dy.copy_from(call.dy);
                    ours = true;
                }
                self.children[i].backward_in_place(y, dy); // Gᵢ₋₁ in the place of Gᵢ
                i -= 1;
            }
            let inner = Call {
                x: if i == 0 { call.x } else { &ys[k - 1] },
                y,
                dy: if ours { &*dy } else { call.dy },
            };
            let wanted = if i == 0 { dx.take() } else { Some(&mut *dx_inner) };
            let Child { name, layer, .. } = &self.children[i];
            layer.backward(inner, &mut caches[i], grads, wanted).map_err(|e| e.in_layer(name))?; // Gᵢ₋₁ from Gᵢ
            std::mem::swap(dy, dx_inner);
            (ours, turns) = (true, turns + 1);
        }
        if turns % 2 == 1 {
            // Each buffer has the same task in the next pass, for which it is large enough.
            std::mem::swap(dy, dx_inner);
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.children.iter().for_each(|child| child.layer.params(&mut out.child(&child.name)));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.children.iter_mut().for_each(|child| child.layer.params_mut(&mut out.child(&child.name)));
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        self.children.iter_mut().zip(&cache.caches).for_each(|(child, cache)| child.layer.absorb(cache));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(mut shape) = Shape::new(input) else { return 0 };
        let mut sum = 0;
        for Child { layer, .. } in &self.children {
            sum += layer.multiply_adds(&shape);
            match layer.output_shape(&shape) {
                Ok(next) => shape = next,
                Err(_) => break,
            }
        }
        sum
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.children.iter().try_fold(Shape::new(input)?, |shape, Child { name, layer, in_place }| {
            let output = out.child(name, |out| layer.describe(&shape, out)).map_err(|e| e.in_layer(name))?;
            if *in_place {
                out.share_output();
            }
            Ok(output)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm1d, Dropout, Gelu, LayerNorm, Linear, LogSoftmax, Relu, Sigmoid, Tanh};
    use chainrule_core::{Init, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 4..8usize, inputs in 1..6usize, hidden in 1..6usize, outputs in 1..6usize, p in 0.0..0.9,
        ) {
            layer: Sequential::<T>::new()
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
                let model = Sequential::<T>::new()
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
            layer: (0..count).fold(Sequential::<T>::new(), |model, _| model.add(Linear::new(inputs, inputs))),
            input: [rows, inputs],
        }
    }

    /// f₀(x) = 2x, f₁(x) = 3x at x = 5: y = 30, ∂x = 3·2·g = 6g, ∂w₁ = g·y₀ = 10g, ∂w₀ = 3g·x = 15g.
    #[test]
    fn by_hand() {
        let gain = |g| Linear::new(1, 1).bias(false).weight_init(Init::Constant(g));
        let model = Sequential::new().add(gain(2.0)).add(gain(3.0)).init(0).unwrap();
        let (x, dy) = (Tensor::from([[5.0f64]]), Tensor::from([[1.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), SequentialCache::default());
        model.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        let mut grads = Grads::new(&model);
        model.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[30.0][..], &[6.0][..], &[15.0, 10.0][..]));
    }

    /// One output is kept for Linear and ReLU together: 2·(4·3 + 3) parameters and gradients, 8·4 inputs, 8·3 outputs,
    /// and two gradients of 8·3.
    #[test]
    fn an_activation_that_overwrites_takes_no_memory() {
        let model = |second: bool| {
            let model = Sequential::<f64>::new().add(Linear::new(4, 3));
            if second { model.add(Relu::new()) } else { model }
        };
        let [one, two] = [false, true].map(|second| model(second).summary(&[8, 4]).unwrap());
        assert_eq!(one.training_bytes(), 8 * (2 * 15 + 32 + 24 + 48));
        assert_eq!(
            [one.training_bytes(), one.inference_bytes()],
            [two.training_bytes(), two.inference_bytes()]
        );
        let model = model(true).add(Linear::new(3, 2)).init(1).unwrap();
        let (mut y, mut cache) = (Tensor::default(), SequentialCache::default());
        model.forward(&Tensor::zeros([8, 4]), &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(cache.ys.len(), 1);
    }

    #[test]
    fn backward_after_inference_is_not_recorded() {
        let model: Sequential =
            Sequential::new().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
        let (x, mut y, mut cache) = (Tensor::zeros([1, 2]), Tensor::default(), SequentialCache::default());
        let mut grads = Grads::new(&model);
        model.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        model.forward(&x, &mut y, &mut cache, &mut Context::infer()).unwrap();
        let call = Call { x: &x, y: &y, dy: &y };
        assert!(model.backward(call, &mut cache, &mut grads, None).is_err());
    }

    #[test]
    fn a_layer_added_changes_no_other_layers_start() {
        let short: Sequential = Sequential::new().add(Linear::new(2, 2)).init(1).unwrap();
        let long: Sequential =
            Sequential::new().add(Linear::new(2, 2)).add(Linear::new(2, 2)).init(1).unwrap();
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
    fn an_output_that_is_not_finite_names_its_layer() {
        let bad = Linear::new(2, 2).weight_init(Init::Constant(f64::INFINITY));
        let model: Sequential = Sequential::new().add(Linear::new(2, 2)).named("head", bad).init(1).unwrap();
        let (mut y, mut cache) = (Tensor::default(), SequentialCache::default());
        let mut cx = Context::train(0).check_finite();
        let text =
            model.forward(&Tensor::full([1, 2], 1.0), &mut y, &mut cache, &mut cx).unwrap_err().to_string();
        assert!(text.starts_with("in layer `head`: expected a finite output"), "{text}");
    }
}
