//! A layer of one's own, y = x σ(βx) with a learned β (Swish: Ramachandran, Zoph and Le, 2017), and the proof of its gradient.
//!
//! `cargo run --release --example custom_layer`

use chainrule::{gradcheck::check, prelude::*};

#[derive(Clone)]
struct Swish<T>(Param<T>);

/// σ(βx)
fn s<T: Scalar>(beta: T, x: T) -> T {
    T::ONE / (T::ONE + (-beta * x).exp())
}

impl<T: Scalar> Layer for Swish<T> {
    type T = T;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let b = self.0.value()?[0];
        y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = x * s(b, x)); // y = x s
        Ok(())
    }
    fn backward(
        &self,
        call: Call<T>,
        _: &mut (),
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (b, x, y, dy) = (self.0.value()?[0], call.x.data(), call.y.data(), call.dy.data());
        if let Some(db) = grads.of(&self.0) {
            // dβ += Σ dy x² s (1 − s)
            db[0] += (0..x.len()).map(|i| dy[i] * x[i] * y[i] * (T::ONE - s(b, x[i]))).sum();
        }
        if let Some(dx) = dx {
            let slope = |i: usize| s(b, x[i]) + b * y[i] * (T::ONE - s(b, x[i])); // ∂y/∂x = s + β x s (1 − s)
            dx.reset(*call.x.shape()).iter_mut().enumerate().for_each(|(i, dx)| *dx = dy[i] * slope(i));
        }
        Ok(())
    }
    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.0);
    }
    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.0);
    }
}

fn main() -> Result<()> {
    let swish = Swish(Param::new("beta", [1], Init::Constant(1.5))).init(1)?;
    let mut x = Tensor::<f64>::zeros([4, 6]);
    Rng::new(2).fill_normal(x.data_mut());
    println!("{}", check(&swish, &x)?);
    Ok(())
}
