//! A small causal model: y = W m + b, m the mean over the embeddings of all tokens so far.

use chainrule_core::{Call, Context, Error, Grads, Layer, Memory, Parameters, Result, Scalar, Shape, Tensor};
use chainrule_layers::{Embedding, Linear, Sequential};

/// y_t = 1/(t + 1) Σ_{s ≤ t} x_s, of x (N, T, D).
#[derive(Clone, Default)]
struct CumulativeMean<T>(std::marker::PhantomData<T>);

/// The sum so far, (N, D), and of how many.
#[derive(Default)]
struct Sum<T> {
    sum: Vec<T>,
    count: usize,
    n: usize,
    width: usize,
}

impl<T: Scalar> Layer for CumulativeMean<T> {
    type T = T;
    type Cache = Sum<T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        if input.len() != 3 {
            return Err(Error::shape(format!("CumulativeMean: expected (N, T, D), got {input:?}")));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Sum<T>, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let [n, t, d] = shape[..] else { return Ok(()) };
        if !cx.streaming() || cache.count == 0 {
            (cache.count, cache.sum) = (0, vec![T::ZERO; n * d]);
        }
        if cache.sum.len() != n * d {
            return Err(Error::shape("CumulativeMean: expected the batch of the sequence so far"));
        }
        (cache.n, cache.width) = (n, d);
        let y = y.reset(shape);
        for s in 0..t {
            for row in 0..n {
                for i in 0..d {
                    let sum = &mut cache.sum[row * d + i];
                    *sum += x.data()[(row * t + s) * d + i];
                    y[(row * t + s) * d + i] = *sum / T::from_usize(cache.count + s + 1);
                }
            }
        }
        cache.count += t;
        Ok(())
    }

    fn memory(&self, cache: &mut Sum<T>, out: &mut Memory<'_, T>) -> Result<()> {
        out.count("count", &mut cache.count)?;
        if cache.count > 0 {
            out.count("width", &mut cache.width)?;
            out.batch("batch", &mut cache.n)?;
            out.rows("sum", &mut cache.sum, [1, cache.n, cache.width])?;
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut Sum<T>,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let [n, t, d] = call.x.shape()[..] else { return Ok(()) };
        let dx = dx.reset(*call.x.shape());
        for row in 0..n {
            for i in 0..d {
                let mut sum = T::ZERO;
                for s in (0..t).rev() {
                    sum += call.dy.data()[(row * t + s) * d + i] / T::from_usize(s + 1);
                    dx[(row * t + s) * d + i] = sum; // dx_s = Σ_{t ≥ s} dy_t/(t + 1)
                }
            }
        }
        Ok(())
    }
}

/// A causal model with memory, of v tokens and the width d, whose weights are large enough that tokens differ in probability.
pub(super) fn causal<T: Scalar>(v: usize, d: usize, seed: u64) -> Sequential<T> {
    let model =
        Sequential::<T>::of().add(Embedding::new(v, d)).add(CumulativeMean::default()).add(Linear::new(d, v));
    let mut model = model.init(seed).unwrap();
    model.visit_mut(&mut |_, p| p.value_mut().unwrap().iter_mut().for_each(|w| *w *= T::from_f64(3.0)));
    model
}

/// A model without memory, of which the distribution after a token is known.
pub(super) fn bigram(logits: &[&[f32]]) -> Sequential<f32> {
    let v = logits.len();
    let mut model = Sequential::new().add(Embedding::new(v, v)).init(0).unwrap();
    model.visit_mut(&mut |_, p| p.value_mut().unwrap().copy_from_slice(&logits.concat()));
    model
}
