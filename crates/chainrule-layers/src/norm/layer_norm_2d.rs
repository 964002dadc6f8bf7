//! Layer normalisation of each pixel over its channels.
//!
//! ```text
//! y[n, c, p] = γ[c] x̂[n, c, p] + β[c],   x̂ = (x − μ) ρ with the mean μ and ρ = 1/√(σ² + ε) over c
//! ```
//!
//! With P the permutation that makes the channels the last axis, y = P⁻¹ LayerNorm(P x), so ∂E/∂x = P⁻¹ LayerNorm'(P ∂E/∂y).
//! Keeps P x and what [`LayerNorm`] keeps. Derivation: docs/layers/norm/layer_norm.md.

use super::layer_norm::{LayerNorm, LayerNormCache};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Params, ParamsMut, Result, Scalar,
    Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::permute::permute;

/// [`LayerNorm`] over the channels of images, as ConvNeXt has it (Liu et al., 2022).
///
/// # Shapes
/// x and y (N, C, H, W); `weight`, `bias` (C).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::LayerNorm2d;
/// let y = LayerNorm2d::new(2).init(1)?.infer(&Tensor::<f32>::from_vec([1, 2, 1, 2], vec![0.0, 5.0, 2.0, 9.0])?)?;
/// assert!(y.data().iter().zip([-1.0, -1.0, 1.0, 1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LayerNorm2d<T = f32> {
    norm: LayerNorm<T>,
}

/// What forward keeps for backward, with the channels as the last axis.
#[derive(Debug, Default)]
pub struct LayerNorm2dCache<T> {
    x: Tensor<T>,
    y: Tensor<T>,
    dy: Tensor<T>,
    dx: Tensor<T>,
    norm: LayerNormCache<T>,
}

/// N, H, W, C of N, C, H, W, and the way back.
const LAST: [usize; 4] = [0, 2, 3, 1];
const FIRST: [usize; 4] = [0, 3, 1, 2];

/// `to` = `from` with its axes in another order.
fn reorder<T: Scalar>(from: &Tensor<T>, to: &mut Tensor<T>, order: [usize; 4]) {
    let shape = order.map(|axis| from.shape()[axis]);
    permute(from.data(), to.reset(shape), from.shape(), &order);
}

impl<T: Scalar> LayerNorm2d<T> {
    /// A normalisation over so many channels.
    pub fn new(channels: usize) -> Self {
        Self { norm: LayerNorm::new(channels) }
    }

    fn channels(&self) -> usize {
        self.norm.affine.shape()[0]
    }

    /// The summand of the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { norm: self.norm.eps(eps) }
    }
}

impl<T: Scalar> Layer for LayerNorm2d<T> {
    type T = T;
    type Cache = LayerNorm2dCache<T>;

    fn check(&self) -> Result<()> {
        self.norm.affine.check("LayerNorm2d", self.norm.eps)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match *input {
            [_, channels, _, _] if channels == self.channels() => Shape::new(input),
            _ => {
                let channels = self.channels();
                Err(Error::shape(format!("LayerNorm2d: expected input (N, {channels}, H, W), got {input:?}")))
            }
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        self.output_shape(x.shape())?;
        reorder(x, &mut cache.x, LAST);
        self.norm.forward(&cache.x, &mut cache.y, &mut cache.norm, cx)?;
        reorder(&cache.y, y, FIRST);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let LayerNorm2dCache { x, y, dy, dx: last, norm } = cache;
        if call.x.shape().len() != 4 || x.shape()[..] != LAST.map(|axis| call.x.shape()[axis]) {
            return Err(Error::not_recorded(
                "LayerNorm2d: expected the cache of a recorded forward of this input",
            ));
        }
        reorder(call.dy, dy, LAST);
        self.norm.backward(Call::recorded(x, y, dy)?, norm, grads, dx.is_some().then_some(&mut *last))?;
        if let Some(dx) = dx {
            reorder(last, dx, FIRST);
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.norm.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.norm.params_mut(out);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        self.norm.multiply_adds(input)
    }

    fn cache_bytes(&self, input: &[usize], requested: bool) -> usize {
        let volume = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        let copies = if requested { 4 } else { 3 };
        volume.saturating_mul(copies * size_of::<T>()).saturating_add(self.norm.cache_bytes(input, requested))
    }

    fn spec(&self) -> Spec {
        Spec::new("LayerNorm2d").with("channels", self.channels()).with("eps", self.norm.eps)
    }
}

impl<T: Scalar> FromSpec<T> for LayerNorm2d<T> {
    const FACTS: Facts = Facts::new("LayerNorm2d")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over the channels of a pixel")
        .page("layers/norm/layer_norm.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("channels")?).eps(args.or("eps", 1e-5)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3).spec(), [[2, 3, 2, 2]]),
            Example::new(Self::new(2).eps(1e-3).spec(), [[1, 2, 1, 3]]),
            Example::bench(Self::new(64).spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Parameters;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            n in 1..3usize, channels in 1..5usize, h in 1..4usize, w in 1..4usize,
            eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: LayerNorm2d::new(channels).eps(eps),
            input: [n, channels, h, w],
            wrong: [n, channels + 1, h, w],
            wrong: [n, channels, h],
        }
    }

    /// Two pixels of two channels, (1, 3) and (1, 3), with ε = 3: μ = 2, σ² = 1, ρ = ½, x̂ = (−½, ½) = y with γ = 1, β = 0.
    /// For g = (1, 0) at the first pixel and 0 at the second: mean(g) = ½, mean(g x̂) = −¼,
    /// ∂x = ½ (1 − ½ − ½·¼, 0 − ½ + ½·¼) = (3/16, −3/16), ∂γ = (−½, 0), ∂β = (1, 0).
    #[test]
    pub fn by_hand() {
        let layer = LayerNorm2d::<f64>::new(2).eps(3.0).init(1).unwrap();
        let tensor = |values: [f64; 4]| Tensor::from_vec([1, 2, 1, 2], values.to_vec()).unwrap();
        let x = tensor([1., 1., 3., 3.]);
        let (mut y, mut cache) = (Tensor::default(), LayerNorm2dCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, tensor([-0.5, -0.5, 0.5, 0.5]));
        let (mut grads, mut dx, dy) = (Grads::new(&layer), Tensor::default(), tensor([1., 0., 0., 0.]));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, tensor([0.1875, 0., -0.1875, 0.]));
        assert_eq!(grads.values(), [-0.5, 0., 1., 0.]);
    }
}
