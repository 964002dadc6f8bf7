//! Long short-term memory (Hochreiter and Schmidhuber, 1997), with initial and final states as inputs and outputs.
//!
//! ```text
//! (i f g o) = W x + U h + b,   i, f, o ← σ,   g ← tanh
//! c' = f c + i g        h' = o tanh c'
//! ```
//!
//! Given δh' and δc' of a step (what comes from y, and from the step after):
//!
//! ```text
//! δo = δh' tanh c'     δc' += δh' o (1 − tanh² c')
//! δi = δc' g    δf = δc' c    δg = δc' i    δc = δc' f
//! δa = (δi i(1−i), δf f(1−f), δg (1−g²), δo o(1−o))
//! ∂W += δa xᵀ   ∂U += δa hᵀ   ∂b += δa   δx = Wᵀ δa   δh = Uᵀ δa
//! ```

use super::streamed;
use chainrule_core::{
    Context, Error, Grads, Init, Memory, Module, ModuleCall, Param, Parameters, Params, ParamsMut, Result,
    Scalar, Shape, Tensor,
};
use chainrule_gradcheck::laws;

/// x (N, T, I), h₀ (N, H), c₀ (N, H) → y (N, T, H), hₜ (N, H), cₜ (N, H).
#[derive(Clone)]
struct Lstm<T> {
    inputs: usize,
    hidden: usize,
    weight_ih: Param<T>,
    weight_hh: Param<T>,
    bias: Param<T>,
}

impl<T: Scalar> Lstm<T> {
    fn new(inputs: usize, hidden: usize) -> Self {
        let init = Init::torch_default(hidden);
        Self {
            inputs,
            hidden,
            weight_ih: Param::new("weight_ih_l0", [4 * hidden, inputs], init),
            weight_hh: Param::new("weight_hh_l0", [4 * hidden, hidden], init),
            bias: Param::new("bias_l0", [4 * hidden], init),
        }
    }

    fn check(&self, shapes: &[&[usize]]) -> Result<(usize, usize)> {
        match shapes {
            [[n, t, i], h, c] if *i == self.inputs && **h == [*n, self.hidden] && c == h => Ok((*n, *t)),
            _ => Err(Error::shape(format!(
                "Lstm: expected inputs (N, T, {}), (N, {}) and as much, got {shapes:?}",
                self.inputs, self.hidden
            ))),
        }
    }
}

/// What a pass keeps.
#[derive(Default)]
struct Kept<T> {
    /// i, f, g, o after their functions, (N, T, 4H).
    gates: Vec<T>,
    /// h and c before each step, (N, T, H) each.
    before: [Vec<T>; 2],
    /// N and T of the recorded pass.
    recorded: Option<(usize, usize)>,
    /// Under streaming: h and c after the last piece, (N, H) each.
    stream: Option<[Tensor<T>; 2]>,
}

fn sigmoid<T: Scalar>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

impl<T: Scalar> Parameters for Lstm<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        [&self.weight_ih, &self.weight_hh, &self.bias].into_iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        [&mut self.weight_ih, &mut self.weight_hh, &mut self.bias].into_iter().for_each(|p| out.add(p));
    }
}

impl<T: Scalar> Module for Lstm<T> {
    type State = Kept<T>;

    fn inputs(&self) -> usize {
        3
    }

    fn outputs(&self) -> usize {
        3
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|s| &s[..]).collect();
        let (n, t) = self.check(&shapes)?;
        let state = Shape::new(&[n, self.hidden])?;
        Ok(vec![Shape::new(&[n, t, self.hidden])?, state, state])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        memory: &mut Kept<T>,
        cx: Context,
    ) -> Result<()> {
        let shapes: Vec<&[usize]> = xs.iter().map(|x| &x.shape()[..]).collect();
        let (n, t) = self.check(&shapes)?;
        let (i, h) = (self.inputs, self.hidden);
        let (w, u, b) = (self.weight_ih.value()?, self.weight_hh.value()?, self.bias.value()?);
        memory.recorded = None;
        memory.gates.clear();
        memory.before.iter_mut().for_each(Vec::clear);
        let [y, hn, cn] = ys else { return Err(Error::shape("Lstm: expected three outputs")) };
        match memory.stream.take() {
            // The sequence goes on; h₀ and c₀ began it.
            Some([hidden, cell]) if cx.streaming() && hidden.shape() == xs[1].shape() => {
                hn.copy_from(&hidden);
                cn.copy_from(&cell);
            }
            Some(_) if cx.streaming() => {
                return Err(Error::shape("Lstm: expected the batch size of the sequence so far"));
            }
            _ => {
                hn.copy_from(xs[1]);
                cn.copy_from(xs[2]);
            }
        }
        y.reset([n, t, h]);
        for row in 0..n {
            let (hidden, cell) = (&mut hn.data_mut()[row * h..][..h], &mut cn.data_mut()[row * h..][..h]);
            for step in 0..t {
                let x = &xs[0].data()[(row * t + step) * i..][..i];
                let a: Vec<T> = (0..4 * h)
                    .map(|k| {
                        let wx = (0..i).fold(T::ZERO, |sum, j| sum + w[k * i + j] * x[j]);
                        let uh = (0..h).fold(T::ZERO, |sum, j| sum + u[k * h + j] * hidden[j]);
                        let a = wx + uh + b[k]; // a = W x + U h + b
                        if k / h == 2 { a.tanh() } else { sigmoid(a) }
                    })
                    .collect();
                if cx.recording() {
                    memory.gates.extend_from_slice(&a);
                    memory.before[0].extend_from_slice(hidden);
                    memory.before[1].extend_from_slice(cell);
                }
                for k in 0..h {
                    cell[k] = a[h + k] * cell[k] + a[k] * a[2 * h + k]; // c' = f c + i g
                    hidden[k] = a[3 * h + k] * cell[k].tanh(); // h' = o tanh c'
                }
                y.data_mut()[(row * t + step) * h..][..h].copy_from_slice(hidden);
            }
        }
        if cx.recording() {
            memory.recorded = Some((n, t));
        }
        if cx.streaming() {
            memory.stream = Some([hn.clone(), cn.clone()]);
        }
        Ok(())
    }

    fn remember(&self, memory: &mut Kept<T>, out: &mut Memory<'_, T>) -> Result<()> {
        let mut started = memory.stream.is_some();
        out.flag("started", &mut started)?;
        if !started {
            return Ok(());
        }
        let states = memory.stream.get_or_insert_default();
        let mut n = states[0].shape().first().copied().unwrap_or(0);
        out.batch("batch", &mut n)?;
        for (name, state) in ["h", "c"].into_iter().zip(states) {
            let mut values = std::mem::take(state).into_vec();
            out.rows(name, &mut values, [1, n, self.hidden])?;
            *state = Tensor::from_vec([n, self.hidden], values)?;
        }
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        memory: &mut Kept<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let shapes: Vec<&[usize]> = call.xs.iter().map(|x| &x.shape()[..]).collect();
        let (n, t) = self.check(&shapes)?;
        if memory.recorded != Some((n, t)) {
            return Err(Error::not_recorded("Lstm: expected a recorded forward of this batch"));
        }
        let (i, h) = (self.inputs, self.hidden);
        let (w, u) = (self.weight_ih.value()?, self.weight_hh.value()?);
        let (mut dw, mut du, mut db) = (vec![T::ZERO; w.len()], vec![T::ZERO; u.len()], vec![T::ZERO; 4 * h]);
        let (mut dx, mut dh0, mut dc0) =
            (vec![T::ZERO; n * t * i], vec![T::ZERO; n * h], vec![T::ZERO; n * h]);
        let of = |output: usize, at: usize| call.dys[output].map_or(T::ZERO, |dy| dy.data()[at]);
        for row in 0..n {
            let (dh, dc) = (&mut dh0[row * h..][..h], &mut dc0[row * h..][..h]);
            for k in 0..h {
                (dh[k], dc[k]) = (of(1, row * h + k), of(2, row * h + k));
            }
            for step in (0..t).rev() {
                let at = row * t + step;
                let a = &memory.gates[at * 4 * h..][..4 * h];
                let (hidden, cell) = (&memory.before[0][at * h..][..h], &memory.before[1][at * h..][..h]);
                let x = &call.xs[0].data()[at * i..][..i];
                let mut da = vec![T::ZERO; 4 * h];
                for k in 0..h {
                    let [i, f, g, o] = [a[k], a[h + k], a[2 * h + k], a[3 * h + k]];
                    let bent = (f * cell[k] + i * g).tanh();
                    let dhk = dh[k] + of(0, at * h + k);
                    let dck = dc[k] + dhk * o * (T::ONE - bent * bent); // δc' += δh' o (1 − tanh² c')
                    da[k] = dck * g * i * (T::ONE - i);
                    da[h + k] = dck * cell[k] * f * (T::ONE - f);
                    da[2 * h + k] = dck * i * (T::ONE - g * g);
                    da[3 * h + k] = dhk * bent * o * (T::ONE - o);
                    dc[k] = dck * f; // δc = δc' f
                }
                dh.fill(T::ZERO);
                for (k, &da) in da.iter().enumerate() {
                    db[k] += da; // db += δa
                    for j in 0..i {
                        dw[k * i + j] += da * x[j]; // dW += δa xᵀ
                        dx[at * i + j] += w[k * i + j] * da; // dx = Wᵀ δa
                    }
                    for j in 0..h {
                        du[k * h + j] += da * hidden[j]; // dU += δa hᵀ
                        dh[j] += u[k * h + j] * da; // δh = Uᵀ δa
                    }
                }
            }
        }
        for (param, values) in [(&self.weight_ih, &dw), (&self.weight_hh, &du), (&self.bias, &db)] {
            if let Some(grad) = grads.of(param) {
                grad.iter_mut().zip(values).for_each(|(g, &v)| *g += v);
            }
        }
        for (k, values) in [dx, dh0, dc0].into_iter().enumerate() {
            if let Some(dx) = dxs.get_mut(k).and_then(Option::as_deref_mut) {
                dx.reset(*call.xs[k].shape()).copy_from_slice(&values);
            }
        }
        Ok(())
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let steps: u64 = inputs.first().map_or(0, |x| x.iter().take(2).map(|&n| n as u64).product());
        steps.saturating_mul(4 * self.hidden as u64 * (self.inputs + self.hidden) as u64)
    }
}

laws! {
    an_lstm_with_states_obeys_the_laws(
        rows in 1..4usize, time in prop_oneof![Just(1usize), Just(3), Just(7)], inputs in 1..4usize, hidden in 1..4usize,
    ) {
        layer: Lstm::<T>::new(inputs, hidden),
        inputs: [vec![rows, time, inputs], vec![rows, hidden], vec![rows, hidden]],
        wrong_inputs: [vec![rows, time, inputs + 1], vec![rows, hidden], vec![rows, hidden]],
        wrong_inputs: [vec![rows, time, inputs], vec![rows + 1, hidden], vec![rows, hidden]],
        sequence: 1,
        large_inputs: [vec![40, 50, inputs], vec![40, hidden], vec![40, hidden]],
    }
}

#[test]
fn pieces_of_a_sequence_give_the_bits_of_the_whole() {
    let model = Lstm::<f32>::new(3, 4).init(1).unwrap();
    let xs = [
        Tensor::from_fn([2, 7, 3], |i| (i as f32 * 0.7).sin()),
        Tensor::full([2, 4], 0.1),
        Tensor::full([2, 4], -0.2),
    ];
    let whole = model.infer_all([&xs[0], &xs[1], &xs[2]]).unwrap();
    for lengths in [&[7][..], &[1; 7], &[3, 4], &[2, 0, 5]] {
        let got = streamed(&model, &xs, &[true, false, false], lengths).unwrap();
        assert_eq!(got, whole[0].data(), "{lengths:?}");
    }
}

#[test]
fn final_states_as_initial_states_continue_a_sequence() {
    let model = Lstm::<f64>::new(2, 3).init(2).unwrap();
    let x = Tensor::from_fn([1, 5, 2], |i| (i as f64).cos());
    let zeros = Tensor::zeros([1, 3]);
    let whole = model.infer_all([&x, &zeros, &zeros]).unwrap();
    let first = model.infer_all([&super::piece(&x, 0..2), &zeros, &zeros]).unwrap();
    let second = model.infer_all([&super::piece(&x, 2..5), &first[1], &first[2]]).unwrap();
    assert_eq!([first[0].data(), second[0].data()].concat(), whole[0].data());
    assert_eq!(second[2], whole[2]);
}
