//! A module of two inputs, one without a derivative, and three outputs.

use chainrule_core::{
    Context, Error, Grads, Init, Module, ModuleCall, Param, Parameters, Params, ParamsMut, Result, Scalar,
    Shape, Tensor,
};
use chainrule_gradcheck::laws::{BoxModule, Case, Values, Violation, layer_laws};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    AbsentIsOnes,
    DxLeft,
    NeedsAll,
    CallUnchecked,
}

/// y₀ = x ⊙ m, y₁ = s x, y₂ = Σ_d x², of x (N, D) and a mask m (N, D), with one learned factor s.
#[derive(Clone)]
pub struct Scaled<T> {
    fault: Fault,
    scale: Param<T>,
}

pub fn scaled<T: Scalar>(fault: Fault) -> Scaled<T> {
    Scaled { fault, scale: Param::new("scale", [1], Init::ONES) }
}

pub fn broken(fault: Fault) -> Vec<Violation> {
    let run = |seed| {
        let case = Case::new(seed)
            .inputs([[3, 4], [3, 4]])
            .values_of(1, Values::Mask)
            .wrong_inputs([[3, 4], [3, 5]])
            .large_inputs([[40, 4]; 2]);
        layer_laws(&case, &|| BoxModule::new(scaled(fault)), &|| BoxModule::new(scaled(fault)))
    };
    (0..6).flat_map(run).collect()
}

impl<T: Scalar> Parameters for Scaled<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.scale);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.scale);
    }
}

impl<T: Scalar> Module for Scaled<T> {
    type State = ();

    fn inputs(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        3
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input == 0
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        match inputs {
            [x, m] if x == m && x.len() == 2 => Ok(vec![*x, *x, Shape::from([x[0]])]),
            _ => Err(Error::shape(format!("Scaled: expected two inputs (N, D), got {inputs:?}"))),
        }
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        let shapes = self.output_shapes(&xs.iter().map(|x| *x.shape()).collect::<Vec<_>>())?;
        let ([x, m], [y0, y1, y2], s) = (xs, ys, self.scale.value()?[0]) else {
            return Err(Error::shape("Scaled: expected three outputs"));
        };
        let pairs = x.data().iter().zip(m.data());
        y0.reset(shapes[0]).iter_mut().zip(pairs).for_each(|(y, (&x, &m))| *y = x * m);
        y1.reset(shapes[1]).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = s * x);
        let rows = x.data().chunks(shapes[0][1].max(1));
        let y2 = y2.reset(shapes[2]);
        y2.fill(T::ZERO);
        y2.iter_mut().zip(rows).for_each(|(y, row)| *y = row.iter().map(|&x| x * x).sum());
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let shapes = self.output_shapes(&call.xs.iter().map(|x| *x.shape()).collect::<Vec<_>>());
        if self.fault != Fault::CallUnchecked {
            let got: Vec<Shape> = call.ys.iter().map(|y| *y.shape()).collect();
            if shapes? != got {
                return Err(Error::shape(format!(
                    "Scaled: expected outputs of the inputs' shape, got {got:?}"
                )));
            }
        }
        let ([x, m], dys) = (call.xs, call.dys) else {
            return Err(Error::shape("Scaled: expected two inputs"));
        };
        let absent = if self.fault == Fault::AbsentIsOnes { T::ONE } else { T::ZERO };
        let dy =
            |j: usize, i: usize| dys[j].map_or(absent, |dy| dy.data().get(i).copied().unwrap_or(T::ZERO));
        let all = dys.iter().all(Option::is_some);
        if let Some(ds) = grads.of(&self.scale).filter(|_| all || self.fault != Fault::NeedsAll) {
            ds[0] += (0..x.len()).map(|i| dy(1, i) * x.data()[i]).sum(); // ds += Σ dy₁ x
        }
        let none = dys.iter().all(Option::is_none);
        let (s, width) = (self.scale.value()?[0], x.shape().last().copied().unwrap_or(1));
        if let Some(dx) = dxs[0].as_mut().filter(|_| !none || self.fault != Fault::DxLeft) {
            for (i, dx) in dx.reset(*x.shape()).iter_mut().enumerate() {
                // dx = dy₀ ⊙ m + s dy₁ + 2 x dy₂
                let x = x.data()[i];
                *dx = dy(0, i) * m.data().get(i).copied().unwrap_or(T::ONE)
                    + s * dy(1, i)
                    + (x + x) * dy(2, i / width);
            }
        }
        Ok(())
    }
}
