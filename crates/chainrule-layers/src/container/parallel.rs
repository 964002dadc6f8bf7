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

use super::{Concat, check_name, check_output, first_error, keep};
use chainrule_core::{
    AnyCache, BoxLayer, Call, Context, Error, Grads, Layer, Params, ParamsMut, Result, Scalar, Shape,
    Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;

/// Branches over one input, joined by a sum or side by side.
///
/// # Shapes
/// Every branch takes x. For a sum their outputs have one shape, which is y's; for a concatenation they may differ in
/// the axis along which they are joined.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::{Linear, Parallel};
/// let layer: Parallel = Parallel::concat(1).add(Linear::new(4, 2)).named("wide", Linear::new(4, 6)).init(1)?;
/// assert_eq!(layer.infer(&Tensor::zeros([3, 4]))?.shape()[..], [3, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Parallel<T: Scalar = f32> {
    branches: Vec<(String, BoxLayer<T>)>,
    /// The axis of a concatenation; `None` for a sum.
    concat: Option<Concat>,
    wrong: Option<String>,
}

impl<T: Scalar> Parallel<T> {
    /// Branches that are added.
    pub fn sum() -> Self {
        Self { branches: Vec::new(), concat: None, wrong: None }
    }

    /// Branches that are put side by side along `axis`; 1 is the axis of channels or features.
    pub fn concat(axis: usize) -> Self {
        Self { concat: Some(Concat::new(axis)), ..Self::sum() }
    }

    /// Adds a branch, named by its index.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, layer: impl Layer<T> + Clone + 'static) -> Self {
        let name = self.branches.len().to_string();
        self.named(name, layer)
    }

    /// Adds a branch under a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, layer: impl Layer<T> + Clone + 'static) -> Self {
        let name = name.into();
        keep(&mut self.wrong, check_name(&name, self.branches.iter().map(|(n, _)| n.as_str())));
        self.branches.push((name, BoxLayer::new(layer)));
        self
    }

    /// Folds the branches' output shapes into that of y.
    fn join(&self, mut shapes: impl Iterator<Item = Result<Shape>>) -> Result<Shape> {
        let mut joined = shapes
            .next()
            .unwrap_or_else(|| Err(Error::value("Parallel: expected at least one branch, got none")))?;
        for shape in shapes {
            let shape = shape?;
            let fits = match &self.concat {
                None => shape == joined,
                Some(concat) => concat.fits(&joined, &shape),
            };
            if !fits {
                let how = if self.concat.is_some() { "a concatenation" } else { "a sum" };
                return Err(Error::shape(format!(
                    "Parallel: expected branches that fit together in {how}, got {joined} and {shape}"
                )));
            }
            if let Some(concat) = &self.concat {
                joined = concat.joined(&joined, &shape)?;
            }
        }
        Ok(joined)
    }
}

/// What [`Parallel`] keeps.
#[derive(Debug)]
pub struct ParallelCache<T> {
    caches: Vec<AnyCache>,
    /// fᵢ(x), of each branch's output shape.
    ys: Vec<Tensor<T>>,
    /// The part of ∂E/∂y of one branch.
    part: Tensor<T>,
    /// ∂E/∂x of one branch, of x's shape.
    dx: Tensor<T>,
    recorded: bool,
}

impl<T: Scalar> Default for ParallelCache<T> {
    fn default() -> Self {
        Self {
            caches: Vec::new(),
            ys: Vec::new(),
            part: Tensor::default(),
            dx: Tensor::default(),
            recorded: false,
        }
    }
}

impl<T: Scalar> Layer<T> for Parallel<T> {
    type Cache = ParallelCache<T>;

    fn check(&self) -> Result<()> {
        first_error(&self.wrong)?;
        self.branches.iter().try_for_each(|(name, layer)| layer.check().map_err(|e| e.in_layer(name)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        first_error(&self.wrong)?;
        self.join(
            self.branches.iter().map(|(name, layer)| layer.output_shape(input).map_err(|e| e.in_layer(name))),
        )
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        y.reset(self.output_shape(x.shape())?);
        cache.recorded = false;
        cache.caches.resize_with(self.branches.len(), AnyCache::default);
        cache.ys.resize_with(self.branches.len(), Tensor::default);
        let mut before = 0;
        for (i, (name, layer)) in self.branches.iter().enumerate() {
            let out = &mut cache.ys[i];
            layer
                .forward(x, out, &mut cache.caches[i], &mut cx.child(i))
                .and_then(|()| check_output(out, cx))
                .map_err(|e| e.in_layer(name))?;
            match &self.concat {
                None if i == 0 => y.copy_from(out),
                None => add_assign(y.data_mut(), out.data()), // y += fᵢ(x)
                Some(concat) => {
                    concat.put(out, before, y);
                    before += concat.width(out.shape());
                }
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
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if !cache.recorded || cache.caches.len() != self.branches.len() {
            return Err(Error::not_recorded("Parallel: backward without a recorded forward in this cache"));
        }
        let ParallelCache { caches, ys, part, dx: own, .. } = cache;
        let mut before = 0;
        for (i, (name, layer)) in self.branches.iter().enumerate() {
            let dy = match &self.concat {
                None => call.dy,
                Some(concat) => {
                    concat.take(call.dy, before, *ys[i].shape(), part); // gᵢ = dy[its part]
                    before += concat.width(ys[i].shape());
                    &*part
                }
            };
            let inner = Call { x: call.x, y: &ys[i], dy };
            let wanted = match &mut dx {
                Some(dx) if i == 0 => Some(&mut **dx),
                Some(_) => Some(&mut *own),
                None => None,
            };
            layer.backward(inner, &mut caches[i], grads, wanted).map_err(|e| e.in_layer(name))?;
            if let Some(dx) = dx.as_deref_mut().filter(|_| i > 0) {
                add_assign(dx.data_mut(), own.data()); // dx += (∂fᵢ/∂x)ᵀ gᵢ
            }
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.branches.iter().for_each(|(name, layer)| layer.params(&mut out.child(name)));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.branches.iter_mut().for_each(|(name, layer)| layer.params_mut(&mut out.child(name)));
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        self.branches.iter_mut().zip(&cache.caches).for_each(|((_, layer), cache)| layer.absorb(cache));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        self.branches.iter().map(|(_, layer)| layer.multiply_adds(input)).sum()
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.join(self.branches.iter().map(|(name, layer)| {
            out.child(name, |out| layer.describe(input, out)).map_err(|e| e.in_layer(name))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dropout, Linear, Residual, Sequential, Tanh};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..5usize, inputs in 1..6usize, widths in collection::vec(1..5usize, 1..4), sum in any::<bool>(),
            p in 0.0..0.9,
        ) {
            layer: {
                let start = if sum { Parallel::<T>::sum() } else { Parallel::<T>::concat(1) };
                let width = |w: usize| if sum { 3 } else { w };
                widths.iter().fold(start, |layer, &w| {
                    let branch = Sequential::new().add(Linear::new(inputs, width(w))).add(Dropout::new(p));
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
    fn by_hand() {
        let x = Tensor::from([[5.0f64]]);
        for (layer, want_y, dy, want_dx) in [
            (Parallel::sum(), vec![25.0], Tensor::from([[1.0]]), 5.0),
            (Parallel::concat(1), vec![10.0, 15.0], Tensor::from([[1.0, 10.0]]), 32.0),
        ] {
            let gain = |g| Linear::new(1, 1).bias(false).weight_init(chainrule_core::Init::Constant(g));
            let layer = layer.add(gain(2.0)).add(gain(3.0)).init(0).unwrap();
            let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ParallelCache::default());
            layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
            let mut grads = Grads::new(&layer);
            layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
            assert_eq!((y.data(), dx.data()), (&want_y[..], &[want_dx][..]));
        }
    }

    #[test]
    fn errors_name_the_path_and_duplicate_names_are_found() {
        let inner: Sequential = Sequential::new().add(Linear::new(4, 4)).add(Linear::new(5, 5));
        let model: Sequential = Sequential::new().named("body", Parallel::sum().named("left", inner));
        let text = model.build(&[2, 4]).err().unwrap().to_string();
        assert_eq!(text, "in layer `body.left.1`: Linear: expected input (.., 5), got [2, 4]");

        let twice: Parallel = Parallel::sum().named("a", Linear::new(1, 1)).named("a", Linear::new(1, 1));
        assert!(twice.init(0).err().unwrap().to_string().contains("two children are named `a`"));
        let bad: Sequential = Sequential::new().add(Residual::new(Linear::new(3, 4)));
        assert!(bad.build(&[1, 3]).err().unwrap().to_string().contains("keep the shape"));
        assert!(Parallel::<f32>::sum().output_shape(&[1]).is_err());
    }
}
