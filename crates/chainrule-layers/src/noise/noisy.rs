//! Layers of noise, each written as what its key does to x and to ∂E/∂y.

use chainrule_core::{Call, Context, Error, Noise, Result, Scalar, Shape, Spec, Tensor};
use chainrule_tensor::kernels::elementwise::copy;

/// What forward keeps for backward: the noise, if the pass was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoiseCache(Option<Recorded>);

#[derive(Clone, Copy, Debug)]
struct Recorded {
    /// The shape of x: noise belongs to it.
    shape: Shape,
    /// None outside training.
    noise: Option<Noise>,
}

impl NoiseCache {
    /// The noise, if there is to be any. It is kept if the pass is recorded.
    pub(crate) fn record(&mut self, shape: &Shape, cx: Context) -> Option<Noise> {
        let noise = cx.noise();
        self.0 = cx.recording().then_some(Recorded { shape: *shape, noise });
        noise
    }

    /// The noise of the recorded forward of an input of this shape.
    pub(crate) fn recorded(&self, layer: &str, shape: &Shape) -> Result<Option<Noise>> {
        match self.0.filter(|recorded| recorded.shape == *shape) {
            Some(Recorded { noise, .. }) => Ok(noise),
            None => Err(Error::not_recorded(format!(
                "{layer}: expected the cache of a recorded forward of this input"
            ))),
        }
    }
}

/// A layer of noise that is y = x outside training.
pub(super) trait Noisy<T: Scalar>: Sized {
    /// Whether the hyper-parameters are valid.
    fn check_settings(&self) -> Result<()>;

    /// Whether x may have this shape.
    fn check_shape(&self, _shape: &Shape) -> Result<()> {
        Ok(())
    }

    /// Whether there is no noise in training either.
    fn is_off(&self) -> bool;

    /// The same layer with its probability or deviation multiplied by a factor in [0, 1].
    #[must_use]
    fn scaled(&self, by: f64) -> Self;

    /// y for x of a shape, by the noise of a key.
    fn noise(&self, shape: &Shape, x: &[T], y: &mut [T], key: u64);

    /// ∂E/∂x for ∂E/∂y, by the same noise; [`Noisy::noise`] itself where that is linear.
    fn noise_gradient(&self, shape: &Shape, dy: &[T], dx: &mut [T], key: u64) {
        self.noise(shape, dy, dx, key);
    }

    /// Kind and attributes.
    fn settings(&self) -> Spec;
}

/// The layer as strong as the noise of a pass is, and its key; none if there is no noise.
fn active<T: Scalar, L: Noisy<T>>(layer: &L, noise: Option<Noise>) -> Option<(L, u64)> {
    noise.map(|noise| (layer.scaled(noise.scale), noise.key)).filter(|(layer, _)| !layer.is_off())
}

/// y = x with the noise of a pass.
pub(super) fn forward<T: Scalar>(
    layer: &impl Noisy<T>,
    x: &Tensor<T>,
    y: &mut Tensor<T>,
    noise: Option<Noise>,
) {
    let y = y.reset(*x.shape());
    match active(layer, noise) {
        Some((layer, key)) => layer.noise(x.shape(), x.data(), y, key),
        None => copy(x.data(), y),
    }
}

/// ∂E/∂x by the noise of a pass.
pub(super) fn backward<T: Scalar>(
    layer: &impl Noisy<T>,
    call: Call<'_, T>,
    dx: &mut Tensor<T>,
    noise: Option<Noise>,
) {
    let dx = dx.reset(*call.x.shape());
    match active(layer, noise) {
        Some((layer, key)) => layer.noise_gradient(call.x.shape(), call.dy.data(), dx, key),
        None => copy(call.dy.data(), dx),
    }
}

/// Whether p is a probability.
pub(super) fn check_probability(layer: &str, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::value(format!("{layer}: expected a probability in [0, 1], got {p}")))
}

/// Implements `Layer` by [`Noisy`].
macro_rules! noisy {
    ($layer:ident $(<const $r:ident: usize>)?) => {
        impl<$(const $r: usize,)? T: chainrule_core::Scalar> chainrule_core::Layer for $layer<$($r,)? T> {
            type T = T;
            type Cache = $crate::noise::NoiseCache;

            fn check(&self) -> chainrule_core::Result<()> {
                $crate::noise::noisy::Noisy::check_settings(self)
            }

            fn output_shape(&self, input: &[usize]) -> chainrule_core::Result<chainrule_core::Shape> {
                chainrule_core::Layer::check(self)?;
                let shape = chainrule_core::Shape::new(input)?;
                $crate::noise::noisy::Noisy::check_shape(self, &shape)?;
                Ok(shape)
            }

            fn forward(
                &self,
                x: &chainrule_core::Tensor<T>,
                y: &mut chainrule_core::Tensor<T>,
                cache: &mut Self::Cache,
                cx: chainrule_core::Context,
            ) -> chainrule_core::Result<()> {
                let shape = chainrule_core::Layer::output_shape(self, x.shape())?;
                $crate::noise::noisy::forward(self, x, y, cache.record(&shape, cx));
                Ok(())
            }

            fn backward(
                &self,
                call: chainrule_core::Call<'_, T>,
                cache: &mut Self::Cache,
                _: &mut chainrule_core::Grads<T>,
                dx: Option<&mut chainrule_core::Tensor<T>>,
            ) -> chainrule_core::Result<()> {
                let name = <Self as chainrule_core::FromSpec<T>>::FACTS.kind;
                let noise = cache.recorded(name, call.x.shape())?;
                if let Some(dx) = dx {
                    $crate::noise::noisy::backward(self, call, dx, noise);
                }
                Ok(())
            }

            fn reads_output(&self) -> bool {
                false
            }

            fn spec(&self) -> chainrule_core::Spec {
                $crate::noise::noisy::Noisy::settings(self)
            }
        }
    };
}
pub(super) use noisy;

#[cfg(test)]
pub(crate) mod tests {
    use super::NoiseCache;
    use chainrule_core::{Call, Context, Grads, Layer, Shape, Tensor};

    /// y of x = `value` everywhere, and ∂E/∂x for ∂E/∂y = 2 everywhere.
    pub fn pass<L: Layer<T = f64, Cache = NoiseCache>>(
        layer: L,
        shape: impl Into<Shape>,
        value: f64,
        cx: Context,
    ) -> (Vec<f64>, Vec<f64>) {
        let x = Tensor::full(shape.into(), value);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), NoiseCache::default());
        layer.forward(&x, &mut y, &mut cache, cx).unwrap();
        let dy = Tensor::full(*y.shape(), 2.0);
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        (y.into_vec(), dx.into_vec())
    }

    /// Outside training y = x and ∂E/∂x = ∂E/∂y; in training another step draws other noise, and the same step the same.
    pub fn assert_drawn_in_training_alone<L: Layer<T = f64, Cache = NoiseCache>>(
        layer: impl Fn() -> L,
        shape: impl Into<Shape>,
    ) {
        let shape = shape.into();
        let n = shape.volume();
        assert_eq!(pass(layer(), shape, 3.0, Context::frozen()), (vec![3.0; n], vec![2.0; n]));
        let at = |step| pass(layer(), shape, 3.0, Context::train(3).step(step));
        assert!(at(1) == at(1) && at(1).0 != at(2).0);
    }
}
