//! Long short-term memory over images (Shi and others, 2015): the products are convolutions.
//!
//! ```text
//! (i f g o) = W ⋆ (xₜ, hₜ₋₁) + b,   i, f, o ← σ,   g ← tanh
//! cₜ = f cₜ₋₁ + i g        hₜ = o tanh cₜ
//! ```
//!
//! Given δhₜ and δcₜ, what comes from y and from step t + 1:
//!
//! ```text
//! δcₜ += δhₜ o (1 − tanh² cₜ)        δcₜ₋₁ = δcₜ f
//! δa = (δcₜ g i(1 − i),  δcₜ cₜ₋₁ f(1 − f),  δcₜ i (1 − g²),  δhₜ tanh(cₜ) o(1 − o))
//! (∂E/∂xₜ, δhₜ₋₁) = Wᵀ ⋆ δa        ∂E/∂W = Σₜ δa ⋆ (xₜ, hₜ₋₁)        ∂E/∂b = Σ δa
//! ```
//!
//! Keeps the gates, c and the input of the convolution of every step. Derivation: docs/layers/recurrent/conv_lstm2d.md.

use crate::{
    Sizes,
    conv::{Conv2d, ConvCache, Padding},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Memory, Module, ModuleCall,
    Parameters, Params, ParamsMut, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::layers::recurrent::{Rows, lstm_step, lstm_step_gradient},
};

/// A sequence of images through long short-term memory whose weights are one convolution of the input and the state
/// together, at stride 1, padded so that images keep their size. Shi, Chen, Wang, Yeung, Wong and Woo, *Convolutional
/// LSTM network*, 2015, without its peepholes.
///
/// # Shapes
/// x (N, T, C, H, W), y (N, T, K, H, W); with `.last(true)` (N, K, H, W), after the last step. With `.states(true)`
/// further inputs h₀ and c₀ and further outputs, the last h and c, (N, K, H, W) each. `conv.weight` (4K, C + K, kernel
/// height, kernel width), `conv.bias` (4K), in the order i, f, g, o; both start uniform in ±1/√fan-in.
///
/// # Errors
/// Sizes of 0: when built. Another batch or size of images in a stream: in a pass.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::ConvLstm2d;
/// let layer = ConvLstm2d::new(1, 8, 3).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([2, 5, 1, 12, 12]))?.shape()[..], [2, 5, 8, 12, 12]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConvLstm2d<T = f32> {
    inputs: usize,
    hidden: usize,
    kernel: [usize; 2],
    bias: bool,
    states: bool,
    last: bool,
    conv: Conv2d<T>,
}

/// What a pass keeps for backward, and between the pieces of a stream.
#[derive(Debug)]
pub struct ConvLstmCache<T: Scalar> {
    recorded: Option<[usize; 6]>,
    /// The shape of the states of a stream, which are in `h` and `c`.
    stream: Option<Shape>,
    conv: ConvCache<2, T>,
    /// xₜ and hₜ₋₁ of each step, (N, C + K, H, W); one where nothing is recorded.
    joined: Vec<Tensor<T>>,
    /// (N, 4K, H, W), after their functions.
    gates: Vec<Tensor<T>>,
    /// c before each step, and after the last: (N, K, H, W).
    cells: Vec<Tensor<T>>,
    /// The last states.
    h: Tensor<T>,
    c: Tensor<T>,
    /// In backward: ∂E/∂ of yₜ, h, c, the gates and `joined`.
    dy: Tensor<T>,
    dh: Tensor<T>,
    dc: Tensor<T>,
    da: Tensor<T>,
    djoined: Tensor<T>,
}

impl<T: Scalar> Default for ConvLstmCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            stream: None,
            conv: ConvCache::default(),
            joined: Vec::new(),
            gates: Vec::new(),
            cells: Vec::new(),
            h: Tensor::default(),
            c: Tensor::default(),
            dy: Tensor::default(),
            dh: Tensor::default(),
            dc: Tensor::default(),
            da: Tensor::default(),
            djoined: Tensor::default(),
        }
    }
}

impl<T: Scalar> ConvLstm2d<T> {
    /// A layer of `hidden_channels` states over images of `in_channels`, with windows of a size (`3`, `[3, 5]`).
    pub fn new(in_channels: usize, hidden_channels: usize, kernel_size: impl Into<Sizes<2>>) -> Self {
        let Sizes(kernel) = kernel_size.into();
        let (inputs, hidden) = (in_channels, hidden_channels);
        // Sizes that do not fit are those of a convolution that is an error.
        let [all, gates] =
            [inputs.checked_add(hidden), hidden.checked_mul(4)].map(|channels| channels.unwrap_or(0));
        let all = if inputs == 0 || hidden == 0 { 0 } else { all };
        let conv = Conv2d::new(all, gates, kernel).padding(Padding::Same);
        Self { inputs, hidden, kernel, bias: true, states: false, last: false, conv }
    }

    /// With or without a bias.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, conv: self.conv.bias(bias), ..self }
    }

    /// Whether the first states are further inputs and the last ones further outputs.
    #[must_use]
    pub fn states(self, states: bool) -> Self {
        Self { states, ..self }
    }

    /// Whether y is h after the last step alone.
    #[must_use]
    pub fn last(self, last: bool) -> Self {
        Self { last, ..self }
    }

    /// N, T, C, H, W of x and the shape of a state.
    fn sizes<'s>(&self, count: usize, shape: impl Fn(usize) -> &'s Shape) -> Result<([usize; 5], Shape)> {
        self.validate()?;
        if count == self.inputs()
            && let [n, t, c, h, w] = shape(0)[..]
            && c == self.inputs
        {
            let state = Shape::new(&[n, self.hidden, h, w])?;
            if (1..count).all(|k| *shape(k) == state) {
                self.conv.output_shape(&[n, c + self.hidden, h, w])?;
                return Ok(([n, t, c, h, w], state));
            }
        }
        let (c, k) = (self.inputs, self.hidden);
        let states = if self.states { format!(", (N, {k}, H, W) and as much") } else { String::new() };
        let got: Vec<String> = (0..count).map(|k| shape(k).to_string()).collect();
        Err(Error::shape(format!(
            "ConvLstm2d: expected inputs (N, T, {c}, H, W){states}, got {}",
            if got.is_empty() { "none".into() } else { got.join(", ") }
        )))
    }

    fn y_shape(&self, [n, t, _, h, w]: [usize; 5], state: Shape) -> Result<Shape> {
        if self.last { Ok(state) } else { Shape::new(&[n, t, self.hidden, h, w]) }
    }

    fn signature(&self, [n, t, c, h, w]: [usize; 5]) -> [usize; 6] {
        [n, t, c, h, w, self.hidden]
    }
}

/// The tensor number k of a list, which grows.
fn at<T: Scalar>(list: &mut Vec<Tensor<T>>, k: usize) -> &mut Tensor<T> {
    if list.len() <= k {
        list.resize_with(k + 1, Tensor::default);
    }
    &mut list[k]
}

compiled! {
    /// `to[n, offset ..][.. part] = from[n, from_offset ..][.. part]`, the distances of rows being those of `strides`.
    fn copy_parts[T](from: &[T], to: &mut [T], part: usize, offsets: [usize; 2], strides: [usize; 2]) {
        let rows = to.chunks_exact_mut(strides[1].max(1)).zip(from.chunks_exact(strides[0].max(1)));
        for (to, from) in rows {
            to[offsets[1]..][..part].copy_from_slice(&from[offsets[0]..][..part]);
        }
    }
}

compiled! {
    /// to += from
    fn add[T](from: &[T], to: &mut [T]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
    }
}

impl<T: Scalar> Parameters for ConvLstm2d<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.conv.params(&mut out.child("conv"));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.conv.params_mut(&mut out.child("conv"));
    }

    fn validate(&self) -> Result<()> {
        let too_many = |n: usize| n == 0 || n >= 1 << 29;
        if too_many(self.inputs) || too_many(self.hidden) {
            return Err(Error::value(format!(
                "ConvLstm2d: expected from 1 to 2²⁹ − 1 channels of the input and the state, got {} and {}",
                self.inputs, self.hidden
            )));
        }
        if self.kernel.iter().any(|&k| k == 0 || k >= 1 << 31) {
            return Err(Error::value(format!(
                "ConvLstm2d: expected kernel_size from 1 to 2³¹ − 1, got {:?}",
                self.kernel
            )));
        }
        self.conv.check()
    }
}

impl<T: Scalar> Module for ConvLstm2d<T> {
    type State = ConvLstmCache<T>;

    fn inputs(&self) -> usize {
        if self.states { 3 } else { 1 }
    }

    fn outputs(&self) -> usize {
        if self.states { 3 } else { 1 }
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let (sizes, state) = self.sizes(inputs.len(), |k| &inputs[k])?;
        let y = self.y_shape(sizes, state)?;
        Ok(if self.states { vec![y, state, state] } else { vec![y] })
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        let (sizes, state) = self.sizes(xs.len(), |k| xs[k].shape())?;
        let [n, t, c, height, width] = sizes;
        if ys.len() != self.outputs() {
            return Err(Error::shape(format!(
                "ConvLstm2d: expected {} outputs, got {}",
                self.outputs(),
                ys.len()
            )));
        }
        cache.recorded = None;
        match cache.stream.filter(|_| cx.streaming()) {
            Some(before) if before != state => {
                return Err(Error::shape(format!(
                    "ConvLstm2d: expected states {before} of the stream so far, got {state}"
                )));
            }
            Some(_) => {}
            None if self.states => {
                cache.h.copy_from(xs[1]);
                cache.c.copy_from(xs[2]);
            }
            None => {
                cache.h.reset(state).fill(T::ZERO);
                cache.c.reset(state).fill(T::ZERO);
            }
        }
        cache.stream = None;
        ys[0].reset(self.y_shape(sizes, state)?);
        let plane = height * width;
        let (of_x, of_h) = (c * plane, self.hidden * plane);
        let ConvLstmCache { conv, joined, gates, cells, h, c: cell, .. } = cache;
        at(cells, 0).copy_from(cell);
        for step in 0..t {
            let k = if cx.recording() { step } else { 0 };
            let input = at(joined, k);
            let all = of_x + of_h;
            let to = input.reset([n, c + self.hidden, height, width]);
            copy_parts(xs[0].data(), to, of_x, [step * of_x, 0], [t * of_x, all]);
            copy_parts(h.data(), to, of_h, [0, of_x], [of_h, all]);
            let gates = at(gates, k);
            self.conv.forward(input, gates, conv, cx)?; // a = W ⋆ (x, h) + b
            at(cells, k + 1).reset(state);
            let (before, after) = cells.split_at_mut(k + 1);
            let rows = Rows { n, h: of_h, stride: of_h, t: step, lengths: &[] };
            lstm_step(rows, gates.data_mut(), before[k].data(), after[0].data_mut(), h.data_mut());
            if !self.last {
                copy_parts(h.data(), ys[0].data_mut(), of_h, [0, step * of_h], [of_h, t * of_h]);
            }
            if !cx.recording() {
                cells.swap(0, 1);
            }
        }
        cell.copy_from(&cells[if cx.recording() { t } else { 0 }]);
        if self.last {
            ys[0].copy_from(h);
        }
        if let [_, of_h, of_c] = ys {
            of_h.copy_from(h);
            of_c.copy_from(cell);
        }
        cache.stream = cx.streaming().then_some(state);
        cache.recorded = cx.recording().then(|| self.signature(sizes));
        Ok(())
    }

    fn remember(&self, cache: &mut Self::State, out: &mut Memory<'_, T>) -> Result<()> {
        let mut started = cache.stream.is_some();
        out.flag("started", &mut started)?;
        if !started {
            return Ok(());
        }
        let (k, mut sizes) = (self.hidden, [0; 3]);
        if let Some([n, _, height, width]) = cache.stream.as_deref() {
            sizes = [*n, *height, *width];
        }
        let [n, height, width] = &mut sizes;
        out.batch("batch", n)?;
        out.count("height", height)?;
        out.count("width", width)?;
        let state = Shape::new(&[*n, k, *height, *width])?;
        let of_one = state[1..].iter().product();
        for (name, of) in [("h", &mut cache.h), ("c", &mut cache.c)] {
            let mut values = std::mem::take(of).into_vec();
            out.rows(name, &mut values, [1, *n, of_one])?;
            *of = Tensor::from_vec(state, values)?;
        }
        cache.stream = Some(state);
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let (sizes, state) = self.sizes(call.xs.len(), |k| call.xs[k].shape())?;
        let [n, t, c, height, width] = sizes;
        if cache.recorded != Some(self.signature(sizes)) {
            return Err(Error::not_recorded("ConvLstm2d: expected a recorded forward of this batch"));
        }
        let y = self.y_shape(sizes, state)?;
        let fits = |(k, dy): (usize, &Option<&Tensor<T>>)| {
            dy.is_none_or(|dy| *dy.shape() == if k == 0 { y } else { state })
        };
        if call.dys.len() != self.outputs()
            || dxs.len() != self.inputs()
            || !call.dys.iter().enumerate().all(fits)
        {
            return Err(Error::shape(format!(
                "ConvLstm2d: expected ∂E/∂y of shape {y} and ∂E/∂ of states {state}"
            )));
        }
        let ConvLstmCache { conv, joined, gates, cells, dy, dh, dc, da, djoined, .. } = cache;
        let plane = height * width;
        let (of_x, of_h) = (c * plane, self.hidden * plane);
        let start = |to: &mut Tensor<T>, from: Option<&Tensor<T>>| match from {
            Some(from) => to.copy_from(from),
            None => to.reset(state).fill(T::ZERO),
        };
        start(dh, call.dys.get(1).copied().flatten());
        start(dc, call.dys.get(2).copied().flatten());
        let of_y = call.dys[0];
        if let Some(of_y) = of_y.filter(|_| self.last) {
            add(of_y.data(), dh.data_mut());
        }
        dy.reset(state).fill(T::ZERO);
        if let Some(dx) = dxs[0].as_deref_mut() {
            dx.reset(*call.xs[0].shape());
        }
        // Without any ∂E/∂y there is no gradient of a parameter.
        let steps = if call.dys.iter().any(Option::is_some) { t } else { 0 };
        if let (0, Some(dx)) = (steps, dxs[0].as_deref_mut()) {
            dx.fill(T::ZERO);
        }
        for step in (0..steps).rev() {
            if let Some(of_y) = of_y.filter(|_| !self.last) {
                copy_parts(of_y.data(), dy.data_mut(), of_h, [step * of_h, 0], [t * of_h, of_h]);
            }
            let rows = Rows { n, h: of_h, stride: of_h, t: step, lengths: &[] };
            let states = [cells[step].data(), cells[step + 1].data()];
            da.reset(*gates[step].shape());
            lstm_step_gradient(
                rows,
                gates[step].data(),
                states,
                dy.data(),
                dh.data_mut(),
                dc.data_mut(),
                da.data_mut(),
            );
            let call = Call::recorded(&joined[step], &gates[step], da)?;
            self.conv.backward(call, conv, grads, Some(djoined))?; // ∂W += δa ⋆ (x, h), (δx, δh) = Wᵀ ⋆ δa
            let all = of_x + of_h;
            copy_parts(djoined.data(), dh.data_mut(), of_h, [of_x, 0], [all, of_h]);
            if let Some(dx) = dxs[0].as_deref_mut() {
                copy_parts(djoined.data(), dx.data_mut(), of_x, [0, step * of_x], [all, t * of_x]);
            }
        }
        for (dx, from) in dxs.iter_mut().skip(1).zip([&*dh, dc]) {
            if let Some(dx) = dx {
                dx.copy_from(from);
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let Some([n, t, _, h, w]) = inputs.first().map(|x| &x[..]) else { return 0 };
        let image = self.conv.multiply_adds(&[1, self.inputs + self.hidden, *h, *w]);
        image.saturating_mul(*n as u64).saturating_mul(*t as u64)
    }

    fn to_spec(&self) -> Spec {
        Spec::new("ConvLstm2d")
            .with("in_channels", self.inputs)
            .with("hidden_channels", self.hidden)
            .with("kernel_size", self.kernel)
            .with_unless(true, "bias", self.bias)
            .with_unless(false, "states", self.states)
            .with_unless(false, "last", self.last)
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        let outputs = self.output_shapes(inputs)?;
        out.rows_of(self.to_spec().kind(), &outputs, self.cost(inputs), &mut |p| self.list(p));
        if let [n, t, c, h, w] = inputs[0][..] {
            let volume = |channels: usize| n.saturating_mul(channels).saturating_mul(h).saturating_mul(w);
            let (joined, state, gates) =
                (volume(c + self.hidden), volume(self.hidden), volume(4 * self.hidden));
            let step = joined.saturating_add(gates).saturating_add(state);
            let backward = state.saturating_mul(3).saturating_add(gates).saturating_add(joined);
            let bytes = |elements: usize| elements.saturating_mul(size_of::<T>());
            let states = state.saturating_mul(3);
            out.hold_in_training(bytes(
                step.saturating_mul(t).saturating_add(states).saturating_add(backward),
            ));
            out.hold_in_inference(bytes(step.saturating_add(states)));
        }
        Ok(outputs)
    }
}

impl<T: Scalar> FromSpec<T> for ConvLstm2d<T> {
    const FACTS: Facts = Facts::new("ConvLstm2d")
        .family("recurrent")
        .formula("o tanh cₜ, gates of W ⋆ (x, h) + b")
        .page("layers/recurrent/conv_lstm2d.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let kernel: [usize; 2] = args.get("kernel_size")?;
        Ok(Self::new(args.get("in_channels")?, args.get("hidden_channels")?, kernel)
            .bias(args.or("bias", true)?)
            .states(args.or("states", false)?)
            .last(args.or("last", false)?))
    }

    fn examples() -> Vec<Example> {
        let all = Self::new(2, 3, [3, 1]).bias(false).states(true).last(true);
        let (x, state) = (Shape::from([2, 2, 2, 3, 2]), Shape::from([2, 3, 3, 2]));
        vec![
            Example::new(Self::new(1, 2, 3).to_spec(), [[2, 3, 1, 4, 5]]),
            Example::new(all.to_spec(), [x, state, state]),
            Example::bench(Self::new(8, 16, 3).to_spec(), [[8, 8, 8, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recurrent::tests::{close, pass, set};
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 12]
        obeys_the_laws(
            (rows, time) in (1..3usize, prop_oneof![Just(1usize), Just(3), Just(7)]),
            (inputs, hidden) in (1..3usize, 1..3usize),
            (height, width, kernel) in (1..4usize, 1..4usize, [1..4usize, 1..4usize]),
            (bias, states, last) in any::<[bool; 3]>().prop_map(|[a, b, c]| (a, b, c)),
        ) {
            layer: ConvLstm2d::new(inputs, hidden, kernel).bias(bias).states(states).last(last),
            inputs: {
                let state = vec![rows, hidden, height, width];
                let all = [vec![rows, time, inputs, height, width], state.clone(), state];
                all[..if states { 3 } else { 1 }].to_vec()
            },
            wrong_inputs: [[rows, time, inputs + 1, height, width]],
            sequence: 1,
        }
    }

    /// An image of one pixel, x = 0, h = 3, c = 2, b = 0, the weight of h 0 and of x (1 2 3 4): i = f = o = ½, g = 0, c′ = 1,
    /// h′ = τ/2 with τ = tanh 1. For δh′ = 1: δc′ = (1 − τ²)/2, δa = (0, δc′/2, δc′/2, τ/4), ∂x = 5/2 δc′ + τ, δc = δc′/2.
    #[test]
    pub fn by_hand() {
        let mut layer = ConvLstm2d::<f64>::new(1, 1, 1).states(true).init(0).unwrap();
        set(&mut layer, "conv.weight", &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0]);
        set(&mut layer, "conv.bias", &[0.0; 4]);
        let pixel = |v: f64| Tensor::full([1, 1, 1, 1], v);
        let (x, h, c, dy) =
            (Tensor::zeros([1, 1, 1, 1, 1]), pixel(3.0), pixel(2.0), Tensor::full([1; 5], 1.0));
        let (ys, dxs, grads) = pass(&layer, &[&x, &h, &c], &[Some(&dy), None, None]);
        let tau = 1f64.tanh();
        let dc = (1.0 - tau * tau) / 2.0;
        let da = [0.0, dc / 2.0, dc / 2.0, tau / 4.0];
        close(&[ys[0].data()[0], ys[2].data()[0]], &[tau / 2.0, 1.0]);
        close(&[dxs[0].data()[0], dxs[1].data()[0], dxs[2].data()[0]], &[2.5 * dc + tau, 0.0, dc / 2.0]);
        close(
            &grads,
            &[0.0, 0.0, 0.0, 3.0 * da[1], 0.0, 3.0 * da[2], 0.0, 3.0 * da[3], 0.0, da[1], da[2], da[3]],
        );
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for (inputs, hidden, kernel) in
            [(0, 1, 3), (1, 0, 3), (1, 1, 0), (usize::MAX, 1, 3), (1, usize::MAX, 3)]
        {
            assert!(ConvLstm2d::<f32>::new(inputs, hidden, kernel).init(0).is_err());
        }
    }
}
