//! An activation with an in-place twin.

use chainrule_core::{Call, Context, Grads, InPlace, Layer, Result, Scalar, Shape, Tensor};
use chainrule_gradcheck::laws::{BoxModule, Case, Violation, layer_laws};
use std::marker::PhantomData;

/// What is wrong with the twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    Forward,
    Backward,
    SinglePrecision,
}

/// y = eˣ, whose derivative is y.
#[derive(Clone)]
pub struct Exponential<T>(Fault, PhantomData<T>);

pub fn broken(fault: Fault) -> Vec<Violation> {
    let run = |seed| {
        let case = Case::new(seed).input([3, 4]).large([40, 4]);
        layer_laws(&case, &|| BoxModule::new(Exponential(fault, PhantomData)), &|| {
            BoxModule::new(Exponential(fault, PhantomData))
        })
    };
    (0..4).flat_map(run).collect()
}

impl<T: Scalar> Layer for Exponential<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, x)| *y = x.exp());
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let pairs = call.y.data().iter().zip(call.dy.data());
        dx.reset(*call.x.shape()).iter_mut().zip(pairs).for_each(|(dx, (&y, &dy))| *dx = dy * y); // dx = dy y
        Ok(())
    }

    fn in_place(&self) -> Option<&dyn InPlace<T>> {
        Some(self)
    }
}

impl<T: Scalar> InPlace<T> for Exponential<T> {
    fn forward_in_place(&self, x: &mut Tensor<T>) -> Result<()> {
        let coarse = self.0 == Fault::SinglePrecision && T::EPSILON.to_f64() > 1e-10;
        let factor = if self.0 == Fault::Forward || coarse { T::ONE + T::EPSILON } else { T::ONE };
        x.data_mut().iter_mut().for_each(|x| *x = x.exp() * factor);
        Ok(())
    }

    fn backward_in_place(&self, y: &Tensor<T>, dy: &mut Tensor<T>) {
        let factor = if self.0 == Fault::Backward { T::ONE + T::EPSILON } else { T::ONE };
        dy.data_mut().iter_mut().zip(y.data()).for_each(|(dy, &y)| *dy = *dy * y * factor); // dx = dy y
    }
}
