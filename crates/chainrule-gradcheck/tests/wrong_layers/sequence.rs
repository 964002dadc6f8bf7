//! A layer with memory over time.

use chainrule_core::{
    Call, Context, Error, Grads, Init, Layer, Memory, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_gradcheck::laws::{BoxModule, Case, Violation, layer_laws};

/// What is wrong with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    Forgets,
    KeepsTheFirst,
    ListsNothing,
    ListsAFreshBatch,
}

/// y_t = a y_{t−1} + x_t over the time axis of x (N, T), with one learned decay a.
#[derive(Clone)]
pub struct Decay<T> {
    fault: Fault,
    decay: Param<T>,
}

#[derive(Default)]
pub struct DecayCache<T> {
    /// y of the last step of a stream (N).
    last: Option<Vec<T>>,
}

pub fn decay<T: Scalar>(fault: Fault) -> Decay<T> {
    Decay { fault, decay: Param::new("decay", [1], Init::Constant(0.5)) }
}

pub fn broken(fault: Fault) -> Vec<Violation> {
    let run = |seed| {
        let case = Case::new(seed).input([2, 5]).sequence(1).wrong([2, 5, 1]).large([40, 4]);
        layer_laws(&case, &|| BoxModule::new(decay(fault)), &|| BoxModule::new(decay(fault)))
    };
    (0..6).flat_map(run).collect()
}

impl<T: Scalar> Layer for Decay<T> {
    type T = T;
    type Cache = DecayCache<T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        match input {
            [_, _] => Shape::new(input),
            _ => Err(Error::shape(format!("Decay: expected input (N, T), got {input:?}"))),
        }
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut DecayCache<T>,
        cx: Context,
    ) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let (a, n, time) = (self.decay.value()?[0], shape[0], shape[1].max(1));
        let before = cache.last.take().filter(|last| cx.streaming() && last.len() == n);
        let mut last = before.clone().unwrap_or_else(|| vec![T::ZERO; n]);
        let rows = y.reset(shape).chunks_mut(time).zip(x.data().chunks(time));
        for (last, (y, x)) in last.iter_mut().zip(rows) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = a * *last + x; // y_t = a y_{t−1} + x_t
                *last = *y;
            }
        }
        cache.last = match self.fault {
            Fault::Nothing | Fault::ListsNothing | Fault::ListsAFreshBatch => Some(last),
            Fault::Forgets => None,
            Fault::KeepsTheFirst => before.or(Some(last)),
        }
        .filter(|_| cx.streaming());
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut DecayCache<T>,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (a, time) = (self.decay.value()?[0], call.x.shape()[1]);
        let (mut da, mut next) = (T::ZERO, T::ZERO);
        if let Some(dx) = &mut dx {
            dx.reset(*call.x.shape());
        }
        for i in (0..call.x.len()).rev() {
            let (first, last) = (i % time == 0, (i + 1) % time == 0);
            // g_t = dy_t + a g_{t+1}
            next = call.dy.data()[i] + if last { T::ZERO } else { a * next };
            if !first {
                da += next * call.y.data()[i - 1]; // da += Σ g_t y_{t−1}
            }
            if let Some(dx) = &mut dx {
                dx.data_mut()[i] = next; // dx_t = g_t
            }
        }
        if let Some(g) = grads.of(&self.decay) {
            g[0] += da;
        }
        Ok(())
    }

    fn memory(&self, cache: &mut DecayCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        if self.fault == Fault::ListsNothing {
            return Ok(());
        }
        let mut started = cache.last.is_some();
        out.flag("started", &mut started)?;
        if started {
            let last = cache.last.get_or_insert_default();
            let mut n = last.len();
            out.batch("batch", &mut n)?;
            out.rows("last", last, [1, n, 1])?;
            if self.fault == Fault::ListsAFreshBatch {
                last.fill(T::ZERO);
            }
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.decay);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.decay);
    }
}
