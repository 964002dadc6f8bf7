//! The plainest optimizer, and layers that do odd things: what is tested here is the trainer.
#![allow(dead_code, reason = "no test file needs all of it")]

use chainrule_core::{
    Call, Context, Grads, Layer, Optimizer, Param, Parameters, Params, ParamsMut, Result, Scalar, Shape,
    Tensor,
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

impl<T: Scalar> Layer for Counting<T> {
    type T = T;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
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

impl Layer for Broken {
    type T = f32;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> {
        y.copy_from(x);
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, f32>,
        _: &mut (),
        _: &mut Grads<f32>,
        dx: Option<&mut Tensor>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.reset(*call.x.shape()).fill(f32::NAN));
        Ok(())
    }
}

/// θ ← θ − η g
pub struct Sgd(pub f64);

impl<T: Scalar> Optimizer<T> for Sgd {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
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
    Sequential::of().add(Linear::new(a, b)).add(Tanh::new()).add(Linear::new(b, c)).init(seed).unwrap()
}

/// All values of a model, in order.
pub fn values<T: Scalar>(model: &dyn Parameters<T = T>) -> Vec<f64> {
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
