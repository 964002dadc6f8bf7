//! The plainest losses and optimizer: what is tested here is the trainer.
#![allow(dead_code, reason = "no test file needs all of it")]

use chainrule_core::{
    Call, Context, Error, Grads, Layer, Loss, Optimizer, Param, Parameters, Params, ParamsMut, Reduction,
    Result, Scalar, Shape, Target, Tensor,
};
use chainrule_data::Dataset;
use chainrule_layers::{Linear, Sequential, Tanh};

/// y = x, and a buffer that counts the training passes folded in.
#[derive(Clone)]
pub struct Counting<T>(pub Param<T>);

impl<T: Scalar> Counting<T> {
    pub fn new() -> Self {
        Self(Param::counter("passes"))
    }
}

impl<T: Scalar> Layer<T> for Counting<T> {
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        y.copy_from(x);
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.copy_from(call.dy));
        Ok(())
    }
    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.0);
    }
    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.0);
    }
    fn absorb(&mut self, _: &()) {
        self.0.value_mut().unwrap()[0] += T::ONE;
    }
}

/// y = x, with a gradient that is NaN.
#[derive(Clone)]
pub struct Broken;

impl<T: Scalar> Layer<T> for Broken {
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        y.copy_from(x);
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.reset(*call.x.shape()).fill(T::from_f64(f64::NAN)));
        Ok(())
    }
}

/// The mean of (y − t)², or their sum.
pub struct Mse(pub Reduction);

impl Mse {
    fn count(&self, n: usize) -> f64 {
        if self.0 == Reduction::Mean { n as f64 } else { 1.0 }
    }
}

impl<T: Scalar> Loss<T> for Mse {
    fn reduction(&self) -> Reduction {
        self.0
    }
    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        if target.values()?.shape()[..] != *y {
            return Err(Error::shape(format!(
                "Mse: expected a target {y:?}, got {}",
                target.values()?.shape()
            )));
        }
        Ok(Shape::default())
    }
    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        self.output_shape(y.shape(), target)?;
        let sum: T = y.data().iter().zip(target.values()?.data()).map(|(&y, &t)| (y - t) * (y - t)).sum();
        loss.reset([])[0] = sum / T::from_f64(self.count(y.len()));
        Ok(())
    }
    fn backward(
        &self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        _: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let scale = dloss.data()[0] * T::from_f64(2.0 / self.count(y.len()));
        if let Some(dy) = dy {
            let pairs = y.data().iter().zip(target.values()?.data());
            dy.reset(*y.shape()).iter_mut().zip(pairs).for_each(|(dy, (&y, &t))| *dy = scale * (y - t));
        }
        Ok(())
    }
}

/// Cross-entropy on logits, the mean over the rows.
pub struct CrossEntropy;

impl<T: Scalar> Loss<T> for CrossEntropy {
    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        match target {
            Target::Classes(c) if y.len() == 2 && c.len() == y[0] => match c.iter().find(|&&c| c >= y[1]) {
                Some(c) => Err(Error::index(format!("expected classes below {}, got {c}", y[1]))),
                None => Ok(Shape::default()),
            },
            _ => Err(Error::shape("expected (N, C) and a class for each row")),
        }
    }
    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        let mut dy = Tensor::default();
        loss.reset([])[0] = self.value_and_gradient(y, target, &mut dy)?;
        Ok(())
    }
    fn backward(
        &self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        _: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dy) = dy {
            self.value_and_gradient(y, target, dy)?;
            dy.data_mut().iter_mut().for_each(|v| *v *= dloss.data()[0]);
        }
        Ok(())
    }
    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        self.output_shape(y.shape(), target)?;
        let Target::Classes(classes) = target else { unreachable!("the shape was checked") };
        let n = T::from_usize(classes.len());
        dy.copy_from(y);
        let mut loss = T::ZERO;
        for (row, &class) in dy.data_mut().chunks_exact_mut(y.shape()[1]).zip(classes) {
            let max = row.iter().copied().fold(T::NEG_INFINITY, T::max);
            row.iter_mut().for_each(|v| *v = (*v - max).exp());
            let sum: T = row.iter().copied().sum();
            loss += (sum.ln() - row[class].ln()) / n;
            row.iter_mut().for_each(|v| *v = *v / sum / n);
            row[class] += -T::ONE / n;
        }
        Ok(loss)
    }
}

/// θ ← θ − η g
pub struct Sgd(pub f64);

impl<T: Scalar> Optimizer<T> for Sgd {
    fn step(&mut self, model: &mut dyn Parameters<T>, grads: &Grads<T>) -> Result<()> {
        let rate = T::from_f64(self.0);
        model.visit_mut(&mut |_, param| {
            let Some(g) = grads.get(param) else { return };
            if param.trainable() {
                param.value_mut().unwrap().iter_mut().zip(g).for_each(|(p, &g)| *p += -rate * g);
            }
        });
        Ok(())
    }
    fn learning_rate(&self) -> f64 {
        self.0
    }
    fn set_learning_rate(&mut self, rate: f64) {
        self.0 = rate;
    }
}

pub fn mlp<T: Scalar>(sizes: [usize; 3], seed: u64) -> Sequential<T> {
    let [a, b, c] = sizes;
    Sequential::new().add(Linear::new(a, b)).add(Tanh::new()).add(Linear::new(b, c)).init(seed).unwrap()
}

/// All numbers of a model, in order.
pub fn numbers<T: Scalar>(model: &dyn Parameters<T>) -> Vec<f64> {
    let mut all = Vec::new();
    model.visit(&mut |_, p| all.extend(p.value().unwrap().iter().map(|v| v.to_f64())));
    all
}

/// The 150 flowers, standardised.
pub fn iris<T: Scalar>() -> Dataset<T> {
    let data = chainrule_data::samples::iris::<T>();
    let scaler = chainrule_data::Scaler::standardise(data.x()).unwrap();
    data.map_x(|x| scaler.apply(x)).unwrap()
}
