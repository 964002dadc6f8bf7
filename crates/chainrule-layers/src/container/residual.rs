//! A layer with a way around it (He, Zhang, Ren and Sun, 2016).
//!
//! ```text
//! y = x + f(x)
//! ```
//!
//! Given g = ∂E/∂y:
//!
//! ```text
//! ∂E/∂x = g + (∂f/∂x)ᵀ g
//! ```
//!
//! Keeps f(x). Derivation: docs/layers/container/residual.md.

use chainrule_core::{
    Call, Context, Error, Grads, Layer, Params, ParamsMut, Result, Scalar, Shape, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::{add_assign, map2};

/// y = x + f(x). It is transparent: the parameters of f keep their names.
///
/// # Shapes
/// f must keep the shape of x.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::{Linear, Residual};
/// let block = Residual::new(Linear::new(8, 8)).init(1)?;
/// assert_eq!(block.infer(&Tensor::<f32>::zeros([2, 8]))?.shape()[..], [2, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Residual<L>(L);

impl<L> Residual<L> {
    /// A way around `layer`.
    pub fn new(layer: L) -> Self {
        Self(layer)
    }
}

/// What [`Residual`] keeps.
#[derive(Debug)]
pub struct ResidualCache<T, C> {
    inner: C,
    /// f(x), of y's shape.
    fx: Tensor<T>,
    recorded: bool,
}

impl<T: Scalar, C: Default> Default for ResidualCache<T, C> {
    fn default() -> Self {
        Self { inner: C::default(), fx: Tensor::default(), recorded: false }
    }
}

impl<T: Scalar, L: Layer<T>> Layer<T> for Residual<L> {
    type Cache = ResidualCache<T, L::Cache>;

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let output = self.0.output_shape(input)?;
        if output[..] != *input {
            return Err(Error::shape(format!(
                "Residual: expected the inner layer to keep the shape {input:?}, got {output}"
            )));
        }
        Ok(output)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.recorded = false;
        if cx.recording() {
            self.0.forward(x, &mut cache.fx, &mut cache.inner, cx)?;
            map2(x.data(), cache.fx.data(), y.reset(shape), |(x, fx)| x + fx); // y = x + f(x)
        } else {
            self.0.forward(x, y, &mut cache.inner, cx)?;
            add_assign(y.data_mut(), x.data()); // y = f(x) + x, the same bits
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
        if !cache.recorded || cache.fx.shape() != call.y.shape() {
            return Err(Error::not_recorded("Residual: backward without a recorded forward in this cache"));
        }
        let inner = Call { y: &cache.fx, ..call };
        self.0.backward(inner, &mut cache.inner, grads, dx.as_deref_mut())?; // dx = (∂f/∂x)ᵀ dy
        if let Some(dx) = dx {
            add_assign(dx.data_mut(), call.dy.data()); // dx += dy
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.params_mut(out);
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        self.0.absorb(&cache.inner);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        self.0.multiply_adds(input)
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        self.0.describe(input, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNorm1d, Dropout, Linear, Sequential, Sigmoid, Tanh};
    use chainrule_core::Init;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(rows in 1..5usize, width in 1..7usize) {
            layer: Residual::new(Linear::new(width, width)),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
        obeys_the_laws_around_a_layer_that_reads_its_output(shape in collection::vec(1..5usize, 1..4)) {
            layer: Residual::new(Sigmoid::new()),
            input: shape,
        }
        obeys_the_laws_around_several_layers(rows in 4..8usize, width in 1..7usize, p in 0.0..0.9) {
            layer: Residual::new(
                Sequential::<T>::new()
                    .add(Linear::new(width, 5))
                    .add(BatchNorm1d::new(5))
                    .add(Tanh::new())
                    .add(Dropout::new(p))
                    .add(Linear::new(5, width)),
            ),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
    }

    /// f(x) = 3x at x = 5: y = 5 + 15 = 20. For g = 2: ∂x = 2 + 3·2 = 8, ∂w = g x = 10.
    #[test]
    fn by_hand() {
        let inner = Linear::<f64>::new(1, 1).bias(false).weight_init(Init::Constant(3.0));
        let layer = Residual::new(inner).init(0).unwrap();
        let (x, dy) = (Tensor::from([[5.0]]), Tensor::from([[2.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ResidualCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        let mut grads = Grads::new(&layer);
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[20.0][..], &[8.0][..], &[10.0][..]));
    }
}
