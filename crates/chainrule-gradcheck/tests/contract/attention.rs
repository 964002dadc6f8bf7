//! Causal self-attention of several heads (Vaswani et al., 2017), with a mask of keys, the weights as a second output, and
//! a cache of keys and values for streams.
//!
//! ```text
//! (q k v) = W x        p = softmax(q kᵀ/√d + mask)        y = Wₒ p v        second output: mean of p over heads
//! ```
//!
//! Given g = ∂E/∂y and r = ∂E/∂(mean p), with o = p v:
//!
//! ```text
//! ∂Wₒ += g oᵀ   δo = Wₒᵀ g   δv = pᵀ δo   δp = δo vᵀ + r/heads
//! δs = p ⊙ (δp − Σ δp ⊙ p)   δq = δs k/√d   δk = δsᵀ q/√d   ∂W += (δq δk δv) xᵀ   δx = Wᵀ (δq δk δv)
//! ```

use super::streamed;
use chainrule_core::{
    Context, Error, Grads, Init, Memory, Module, ModuleCall, Param, Parameters, Params, ParamsMut, Result,
    Scalar, Shape, Tensor,
};
use chainrule_gradcheck::laws;

/// x (N, T, E), mask (N, T) of keys that may be attended to (1) or not (0) → y (N, T, E), weights (N, T, S). S is T, and
/// under streaming the length of the sequence so far.
#[derive(Clone)]
struct Attention<T> {
    width: usize,
    heads: usize,
    in_proj: Param<T>,
    out_proj: Param<T>,
}

impl<T: Scalar> Attention<T> {
    fn new(width: usize, heads: usize) -> Self {
        Self {
            width,
            heads,
            in_proj: Param::new("in_proj_weight", [3 * width, width], Init::xavier_uniform()),
            out_proj: Param::new("out_proj_weight", [width, width], Init::xavier_uniform()),
        }
    }

    fn check(&self, shapes: &[&[usize]]) -> Result<(usize, usize)> {
        match shapes {
            [[n, t, e], mask] if *e == self.width && **mask == [*n, *t] => Ok((*n, *t)),
            _ => Err(Error::shape(format!(
                "Attention: expected inputs (N, T, {}) and (N, T), got {shapes:?}",
                self.width
            ))),
        }
    }
}

/// What a pass keeps, row by row of the batch.
#[derive(Default)]
struct Kept<T> {
    rows: Vec<Row<T>>,
    /// N and T of the recorded pass.
    recorded: Option<(usize, usize)>,
}

#[derive(Clone, Default)]
struct Row<T> {
    /// q, k and v of each position, (S, 3E): the cache of a stream.
    qkv: Vec<T>,
    /// Whether each key may be attended to, S.
    mask: Vec<T>,
    /// p of the last T positions, (heads, T, S).
    p: Vec<T>,
    /// p v of the last T positions, (T, E).
    o: Vec<T>,
}

/// y = W x, W of `y.len()` rows.
fn product<T: Scalar>(w: &[T], x: &[T]) -> impl Iterator<Item = T> {
    w.chunks(x.len()).map(move |w| w.iter().zip(x).fold(T::ZERO, |sum, (&w, &x)| sum + w * x))
}

impl<T: Scalar> Parameters for Attention<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        [&self.in_proj, &self.out_proj].into_iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        [&mut self.in_proj, &mut self.out_proj].into_iter().for_each(|p| out.add(p));
    }
    fn validate(&self) -> Result<()> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(Error::value(format!(
                "Attention: expected heads that divide {}, got {}",
                self.width, self.heads
            )));
        }
        Ok(())
    }
}

impl<T: Scalar> Module for Attention<T> {
    type State = Kept<T>;

    fn inputs(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        2
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input == 0
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|s| &s[..]).collect();
        let (n, t) = self.check(&shapes)?;
        Ok(vec![inputs[0], Shape::new(&[n, t, t])?])
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
        let (e, d) = (self.width, self.width / self.heads);
        let scale = T::ONE / T::from_usize(d).sqrt();
        if cx.streaming() && !memory.rows.is_empty() && memory.rows.len() != n {
            return Err(Error::shape("Attention: expected the batch size of the sequence so far"));
        }
        if !cx.streaming() {
            memory.rows.clear();
        }
        memory.recorded = None;
        memory.rows.resize_with(n, Row::default);
        let past = memory.rows.first().map_or(0, |row| row.mask.len());
        let s = past + t;
        let [y, weights] = ys else { return Err(Error::shape("Attention: expected two outputs")) };
        y.reset([n, t, e]);
        weights.reset([n, t, s]).fill(T::ZERO);
        for (b, row) in memory.rows.iter_mut().enumerate() {
            row.mask.extend_from_slice(&xs[1].data()[b * t..][..t]);
            for x in xs[0].data()[b * t * e..][..t * e].chunks(e) {
                row.qkv.extend(product(self.in_proj.value()?, x)); // (q k v) = W x
            }
            row.p = vec![T::ZERO; self.heads * t * s];
            row.o = vec![T::ZERO; t * e];
            for head in 0..self.heads {
                for i in 0..t {
                    let q = &row.qkv[(past + i) * 3 * e + head * d..][..d];
                    // Keys up to this position that the mask leaves.
                    let seen = |j: &usize| *j <= past + i && row.mask[*j] != T::ZERO;
                    let score = |j: usize| {
                        let k = &row.qkv[j * 3 * e + e + head * d..][..d];
                        q.iter().zip(k).fold(T::ZERO, |sum, (&q, &k)| sum + q * k) * scale
                    };
                    let largest = (0..s).filter(seen).map(score).fold(T::NEG_INFINITY, T::max);
                    let sum: T = (0..s).filter(seen).map(|j| (score(j) - largest).exp()).sum();
                    for j in (0..s).filter(seen) {
                        let p = (score(j) - largest).exp() / sum;
                        row.p[(head * t + i) * s + j] = p;
                        weights.data_mut()[(b * t + i) * s + j] += p / T::from_usize(self.heads);
                        for c in 0..d {
                            row.o[i * e + head * d + c] += p * row.qkv[j * 3 * e + 2 * e + head * d + c]; // o = p v
                        }
                    }
                }
            }
            for (y, o) in y.data_mut()[b * t * e..][..t * e].chunks_mut(e).zip(row.o.chunks(e)) {
                y.iter_mut().zip(product(self.out_proj.value()?, o)).for_each(|(y, v)| *y = v); // y = Wₒ o
            }
        }
        if cx.recording() {
            memory.recorded = Some((n, t));
        }
        Ok(())
    }

    fn remember(&self, memory: &mut Kept<T>, out: &mut Memory<'_, T>) -> Result<()> {
        let (mut n, mut keys) = (memory.rows.len(), memory.rows.first().map_or(0, |row| row.mask.len()));
        out.batch("batch", &mut n)?;
        out.count("keys", &mut keys)?;
        let joined = |of: &dyn Fn(&Row<T>) -> Vec<T>| memory.rows.iter().flat_map(of).collect::<Vec<T>>();
        let (mut qkv, mut mask) = (joined(&|row| row.qkv.clone()), joined(&|row| row.mask.clone()));
        out.rows("qkv", &mut qkv, [1, n, keys * 3 * self.width])?;
        out.rows("mask", &mut mask, [1, n, keys])?;
        memory.rows.resize_with(n, Row::default);
        for (i, row) in memory.rows.iter_mut().enumerate() {
            row.qkv = qkv[i * keys * 3 * self.width..][..keys * 3 * self.width].to_vec();
            row.mask = mask[i * keys..][..keys].to_vec();
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
            return Err(Error::not_recorded("Attention: expected a recorded forward of this batch"));
        }
        let (e, d) = (self.width, self.width / self.heads);
        let (w, w_out) = (self.in_proj.value()?, self.out_proj.value()?);
        let scale = T::ONE / T::from_usize(d).sqrt();
        let (mut dw, mut dw_out) = (vec![T::ZERO; w.len()], vec![T::ZERO; w_out.len()]);
        let mut dx = vec![T::ZERO; n * t * e];
        for (b, row) in memory.rows.iter().enumerate() {
            let mut dqkv = vec![T::ZERO; t * 3 * e];
            let mut d_o = vec![T::ZERO; t * e];
            if let Some(dy) = call.dys[0] {
                for i in 0..t {
                    for (k, &g) in dy.data()[(b * t + i) * e..][..e].iter().enumerate() {
                        for c in 0..e {
                            dw_out[k * e + c] += g * row.o[i * e + c]; // dWₒ += g oᵀ
                            d_o[i * e + c] += w_out[k * e + c] * g; // δo = Wₒᵀ g
                        }
                    }
                }
            }
            for head in 0..self.heads {
                for i in 0..t {
                    let p = &row.p[(head * t + i) * t..][..t];
                    let d_o = &d_o[i * e + head * d..][..d];
                    let dp: Vec<T> = (0..t)
                        .map(|j| {
                            let v = &row.qkv[j * 3 * e + 2 * e + head * d..][..d];
                            let r = call.dys[1].map_or(T::ZERO, |r| r.data()[(b * t + i) * t + j]);
                            // δp = δo vᵀ + r/heads
                            d_o.iter().zip(v).fold(r / T::from_usize(self.heads), |sum, (&g, &v)| sum + g * v)
                        })
                        .collect();
                    let mean = dp.iter().zip(p).fold(T::ZERO, |sum, (&dp, &p)| sum + dp * p);
                    for j in 0..t {
                        let ds = p[j] * (dp[j] - mean) * scale; // δs = p ⊙ (δp − Σ δp ⊙ p)
                        for c in 0..d {
                            let (q, k, v) = (head * d + c, e + head * d + c, 2 * e + head * d + c);
                            dqkv[i * 3 * e + q] += ds * row.qkv[j * 3 * e + k]; // δq = δs k/√d
                            dqkv[j * 3 * e + k] += ds * row.qkv[i * 3 * e + q]; // δk = δsᵀ q/√d
                            dqkv[j * 3 * e + v] += p[j] * d_o[c]; // δv = pᵀ δo
                        }
                    }
                }
            }
            for i in 0..t {
                let x = &call.xs[0].data()[(b * t + i) * e..][..e];
                for (k, &g) in dqkv[i * 3 * e..][..3 * e].iter().enumerate() {
                    for c in 0..e {
                        dw[k * e + c] += g * x[c]; // dW += (δq δk δv) xᵀ
                        dx[(b * t + i) * e + c] += w[k * e + c] * g; // δx = Wᵀ (δq δk δv)
                    }
                }
            }
        }
        for (param, values) in [(&self.in_proj, &dw), (&self.out_proj, &dw_out)] {
            if let Some(grad) = grads.of(param) {
                grad.iter_mut().zip(values).for_each(|(g, &v)| *g += v);
            }
        }
        if let Some(out) = dxs.first_mut().and_then(Option::as_deref_mut) {
            out.reset(*call.xs[0].shape()).copy_from_slice(&dx);
        }
        Ok(())
    }
}

laws! {
    attention_with_a_mask_obeys_the_laws(rows in 1..3usize, time in 1..5usize, depth in 1..3usize, heads in 1..3usize) {
        layer: Attention::<T>::new(depth * heads, heads),
        inputs: [vec![rows, time, depth * heads], vec![rows, time]],
        values_of(1): Values::Mask,
        sequence: 1,
        sequence_of(1): 1,
        wrong_inputs: [vec![rows, time, depth * heads + 1], vec![rows, time]],
        wrong_inputs: [vec![rows, time, depth * heads], vec![rows, time + 1]],
        large_inputs: [vec![8, 20, depth * heads], vec![8, 20]],
    }
}

#[test]
fn a_cache_of_keys_and_values_gives_the_bits_of_the_whole() {
    let model = Attention::<f32>::new(6, 2).init(1).unwrap();
    let xs = [
        Tensor::from_fn([2, 7, 6], |i| (i as f32 * 0.3).sin()),
        Tensor::from_fn([2, 7], |i| if i == 2 || i == 9 { 0.0 } else { 1.0 }),
    ];
    let whole = model.infer_all([&xs[0], &xs[1]]).unwrap();
    for lengths in [&[7][..], &[1; 7], &[3, 4], &[5, 1, 1]] {
        assert_eq!(streamed(&model, &xs, &[true, true], lengths).unwrap(), whole[0].data(), "{lengths:?}");
    }
}
