//! Dropout.
//!
//! ```text
//! y = x ⊙ m/(1 − p),   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ m/(1 − p)
//! ```
//!
//! In inference y = x. Keeps the key of its noise, one number: drawing the mask again costs no more than reading it back.
//! Derivation: docs/layers/noise/dropout.md.

use chainrule_core::{Call, Context, Error, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::{elementwise::copy, noise::dropout};

/// In training, each element becomes 0 with probability p and is divided by 1 − p otherwise, so that the mean stays.
///
/// The mask is drawn from [`Context::noise_key`] and the position in the tensor: it depends on seed, step and place in the
/// model, not on threads. Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014.
///
/// # Shapes
/// x and y any one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Dropout;
/// let x = Tensor::from([1.0f32, 2.0, 3.0]);
/// assert_eq!(Dropout::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    p: f64,
}

/// What forward keeps for backward.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropoutCache(Recorded);

#[derive(Clone, Copy, Debug, Default)]
enum Recorded {
    #[default]
    Nothing,
    /// y = x.
    Identity,
    /// The key of the mask.
    Mask(u64),
}

impl Dropout {
    /// Drops each element with probability `p`.
    pub fn new(p: f64) -> Self {
        Self { p }
    }

    fn apply<T: Scalar>(&self, x: &[T], y: &mut [T], key: Option<u64>) {
        match key {
            Some(key) if self.p > 0.0 => dropout(x, y, key, self.p),
            _ => copy(x, y),
        }
    }
}

impl<T: Scalar> Layer<T> for Dropout {
    type Cache = DropoutCache;

    fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.p) {
            return Ok(());
        }
        Err(Error::value(format!("Dropout: expected a probability in [0, 1], got {}", self.p)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Layer::<T>::check(self)?;
        Shape::new(input)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut DropoutCache,
        cx: &mut Context,
    ) -> Result<()> {
        let y = y.reset(Layer::<T>::output_shape(self, x.shape())?);
        let key = cx.training().then(|| cx.noise_key());
        self.apply(x.data(), y, key); // y = x ⊙ m/(1 − p)
        cache.0 = match key {
            _ if !cx.recording() => Recorded::Nothing,
            Some(key) => Recorded::Mask(key),
            None => Recorded::Identity,
        };
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut DropoutCache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let key = match cache.0 {
            Recorded::Nothing => {
                return Err(Error::not_recorded("Dropout: expected the cache of a recorded forward"));
            }
            Recorded::Identity => None,
            Recorded::Mask(key) => Some(key),
        };
        if let Some(dx) = dx {
            self.apply(call.dy.data(), dx.reset(*call.x.shape()), key); // dx = dy ⊙ m/(1 − p)
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in collection::vec(1..6usize, 1..4),
        ) {
            layer: Dropout::new(p),
            input: shape,
        }
    }

    fn pass(p: f64, cx: &mut Context) -> (Vec<f64>, Vec<f64>) {
        let (x, mut y, mut dx) = (Tensor::from([3.0; 40]), Tensor::default(), Tensor::default());
        let (layer, mut cache) = (Dropout::new(p), DropoutCache::default());
        layer.forward(&x, &mut y, &mut cache, cx).unwrap();
        let dy = Tensor::from([2.0; 40]);
        let call = Call { x: &x, y: &y, dy: &dy };
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        (y.into_vec(), dx.into_vec())
    }

    /// p = ¼: what stays is divided by ¾. x = 3 gives 0 or 4, g = 2 gives 0 or 8/3, at the same places.
    #[test]
    fn by_hand() {
        let (y, dx) = pass(0.25, &mut Context::train(3));
        assert!(y.contains(&0.0) && y.iter().any(|&v| v != 0.0));
        for (y, dx) in y.into_iter().zip(dx) {
            assert!((y == 0.0 && dx == 0.0) || ((y - 4.0).abs() < 1e-12 && (dx - 8.0 / 3.0).abs() < 1e-12));
        }
    }

    #[test]
    fn another_step_draws_another_mask_and_the_same_step_the_same() {
        let at = |step| pass(0.5, &mut Context::train(3).step(step));
        assert!(at(1) == at(1) && at(1) != at(2));
    }

    #[test]
    fn nothing_or_everything_can_be_dropped() {
        assert_eq!(pass(0.0, &mut Context::train(0)), (vec![3.0; 40], vec![2.0; 40]));
        assert_eq!(pass(1.0, &mut Context::train(0)), (vec![0.0; 40], vec![0.0; 40]));
        assert_eq!(pass(0.5, &mut Context::frozen()), (vec![3.0; 40], vec![2.0; 40]));
    }

    #[test]
    fn a_probability_outside_0_to_1_is_an_error() {
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(Dropout::new(p).infer(&Tensor::<f32>::zeros([1])).is_err());
            assert!(Layer::<f32>::check(&Dropout::new(p)).is_err());
        }
    }
}
