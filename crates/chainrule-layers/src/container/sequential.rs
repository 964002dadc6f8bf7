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
//! Keeps every yᵢ in training, two in inference. Derivation: docs/layers/container/sequential.md.

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
    children: Vec<(String, BoxLayer<T>)>,
    wrong: Option<String>,
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
        keep(&mut self.wrong, check_name(&name, self.children.iter().map(|(n, _)| n.as_str())));
        self.children.push((name, BoxLayer::new(layer)));
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
        self.children.iter().map(|(name, layer)| (name.as_str(), layer))
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
    /// The outputs between the layers, y₀ … yₙ₋₁; in inference two, used in turn.
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
        self.children.iter().try_for_each(|(name, layer)| layer.check().map_err(|e| e.in_layer(name)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        first_error(&self.wrong)?;
        self.children.iter().try_fold(Shape::new(input)?, |shape, (name, layer)| {
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
        let last = match self.children.len() {
            0 => {
                y.copy_from(x);
                cache.recorded = cx.recording();
                return Ok(());
            }
            n => n - 1,
        };
        let kept = if cx.recording() { last } else { last.min(2) };
        cache.recorded = false;
        cache.caches.resize_with(last + 1, AnyCache::default);
        if cache.ys.len() < kept {
            cache.ys.resize_with(kept, Tensor::default);
        }
        for (i, ((name, layer), memory)) in self.children.iter().zip(&mut cache.caches).enumerate() {
            let at = |i: usize| if cx.recording() { i } else { i % 2 };
            let (input, output) = match i {
                _ if last == 0 => (x, &mut *y),
                0 => (x, &mut cache.ys[0]),
                _ if i == last => (&cache.ys[at(i - 1)], &mut *y),
                _ => {
                    let [input, output] =
                        cache.ys.get_disjoint_mut([at(i - 1), at(i)]).expect("places apart");
                    (&*input, output)
                }
            };
            let result = layer.forward(input, output, memory, &mut cx.child(i));
            let result = result.and_then(|()| check_output(output, cx));
            result.map_err(|e| e.in_layer(name))?;
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
        let mut dx = dx;
        for (i, (name, layer)) in self.children.iter().enumerate().rev() {
            let inner = Call {
                x: if i == 0 { call.x } else { &ys[i - 1] },
                y: if i == n - 1 { call.y } else { &ys[i] },
                dy: if i == n - 1 { call.dy } else { &*dy },
            };
            let wanted = if i == 0 { dx.take() } else { Some(&mut *dx_inner) };
            layer.backward(inner, &mut caches[i], grads, wanted).map_err(|e| e.in_layer(name))?; // Gᵢ₋₁ from Gᵢ
            std::mem::swap(dy, dx_inner);
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.children.iter().for_each(|(name, layer)| layer.params(&mut out.child(name)));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.children.iter_mut().for_each(|(name, layer)| layer.params_mut(&mut out.child(name)));
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        self.children.iter_mut().zip(&cache.caches).for_each(|((_, layer), cache)| layer.absorb(cache));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(mut shape) = Shape::new(input) else { return 0 };
        let mut sum = 0;
        for (_, layer) in &self.children {
            sum += layer.multiply_adds(&shape);
            match layer.output_shape(&shape) {
                Ok(next) => shape = next,
                Err(_) => break,
            }
        }
        sum
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.children.iter().try_fold(Shape::new(input)?, |shape, (name, layer)| {
            out.child(name, |out| layer.describe(&shape, out)).map_err(|e| e.in_layer(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm1d, Dropout, Gelu, Linear, LogSoftmax};
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
