//! Attention of given queries, keys and values.
//!
//! ```text
//! s = scale q kᵀ + mask   p = softmax(s)   y = d(p) v, d dropout
//! ```
//!
//! Given g = ∂E/∂y:
//!
//! ```text
//! ∂E/∂v = d(p)ᵀ g   ∂E/∂p = dᵀ(g vᵀ)   ∂E/∂s = p ⊙ (∂E/∂p − Σ ∂E/∂p ⊙ p)
//! ∂E/∂q = scale ∂E/∂s k   ∂E/∂k = scale ∂E/∂sᵀ q   ∂E/∂mask = ∂E/∂s
//! ```
//!
//! Reads y; keeps two numbers a query and makes p again, a tile at a time. Derivation:
//! docs/layers/attention/scaled_dot_product_attention.md.

use super::{
    MaskKind,
    heads::{Heads, Masks, Rules},
    masks::zeros,
    stream::KeyValues,
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Memory, Module, ModuleCall, Noise, Parameters,
    Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::{
    elementwise::copy,
    layers::attention::{Rows, Sizes},
};
use std::marker::PhantomData;

const KIND: &str = "ScaledDotProductAttention";

/// y = softmax(scale q kᵀ + mask) v, with scale 1/√D unless another is given. Vaswani et al., 2017. It holds no matrix of weights.
///
/// Inputs are query, key and value, and, if it is asked for, [`ScaledDotProductAttention::attn_mask`]. What is 1 in a boolean mask is
/// hidden, as in [`crate::MultiheadAttention`]; in PyTorch's function of this name it is what is seen.
///
/// Under [`Context::stream`], a causal one keeps keys and values, and gives piece by piece the bits of the whole; another one takes
/// queries in pieces and all keys and values with each.
///
/// # Shapes
/// query (N, …, T, D), key (N, …, S, D), value (N, …, S, Dv), mask (T, S) or (N, …, T, S); y (N, …, T, Dv).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::ScaledDotProductAttention;
/// let (q, k, v) = (Tensor::<f32>::zeros([2, 3, 5, 8]), Tensor::zeros([2, 3, 7, 8]), Tensor::full([2, 3, 7, 4], 1.0));
/// let y = ScaledDotProductAttention::new().infer([&q, &k, &v])?;
/// assert!(y.shape()[..] == [2, 3, 5, 4] && y.data().iter().all(|v| (v - 1.0).abs() < 1e-6));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ScaledDotProductAttention<T = f32> {
    rules: Rules,
    attn_mask: Option<MaskKind>,
    of: PhantomData<T>,
}

/// What [`ScaledDotProductAttention`] keeps, and its scratch memory.
#[derive(Debug)]
pub struct ScaledDotProductCache<T> {
    /// Sizes, whether the mask has one for each sample, and the key of the noise of the recorded pass.
    recorded: Option<(Sizes, bool, Option<Noise>)>,
    heads: Heads<T>,
    stream: KeyValues<T>,
    /// The samples of a stream to a row of axis 0.
    heads_of_one: usize,
}

impl<T> Default for ScaledDotProductCache<T> {
    fn default() -> Self {
        Self { recorded: None, heads: Heads::default(), stream: KeyValues::default(), heads_of_one: 1 }
    }
}

impl<T: Scalar> Default for ScaledDotProductAttention<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> ScaledDotProductAttention<T> {
    /// Attention without a mask.
    pub fn new() -> Self {
        Self { rules: Rules::default(), attn_mask: None, of: PhantomData }
    }

    /// With a mask of pairs of a query and a key as an input.
    #[must_use]
    pub fn attn_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        Self { attn_mask: kind.into(), ..self }
    }

    /// The probability at which a weight becomes 0 in training, 0 by default.
    #[must_use]
    pub fn dropout_p(mut self, p: f64) -> Self {
        self.rules.dropout = p;
        self
    }

    /// Whether a query sees no later key.
    #[must_use]
    pub fn causal(mut self, causal: bool) -> Self {
        self.rules.causal = causal;
        self
    }

    /// A query sees no key as far away as `window` or farther.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<usize>>) -> Self {
        self.rules.window = window.into();
        self
    }

    /// The factor of q·k, 1/√D by default.
    #[must_use]
    pub fn scale(mut self, scale: impl Into<Option<f64>>) -> Self {
        self.rules.scale = scale.into();
        self
    }

    /// The lengths of a call behind `past` other keys, and whether its mask has one for each sample.
    fn sizes(&self, shapes: &[Shape], past: usize) -> Result<(Sizes, bool)> {
        self.validate()?;
        let inputs = Module::inputs(self);
        if shapes.len() != inputs {
            return Err(Error::shape(format!("{KIND}: expected {inputs} inputs, got {}", shapes.len())));
        }
        let wrong = || {
            Err(Error::shape(format!(
                "{KIND}: expected query (N, .., T, D), key (N, .., S, D) and value (N, .., S, Dv), got {}, {} and {}",
                shapes[0], shapes[1], shapes[2]
            )))
        };
        let ([outer @ .., t, d], [of_k @ .., s, dk], [of_v @ .., sv, dv]) =
            (&shapes[0][..], &shapes[1][..], &shapes[2][..])
        else {
            return wrong();
        };
        if outer.is_empty() || of_k != outer || of_v != outer || dk != d || sv != s || *d == 0 || *dv == 0 {
            return wrong();
        }
        let (&t, &s) = (t, s);
        if s == 0 && t > 0 {
            return Err(Error::shape(format!("{KIND}: expected at least one key, got none")));
        }
        let n = outer.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
        let Some(n) = n.filter(|&n| (n as u64) < 1 << 40) else { return wrong() };
        let s = past + s;
        let by_sample = match shapes.get(3) {
            None => false,
            Some(mask) if mask[..] == [t, s] => false,
            Some(mask) if mask.strip_prefix(outer) == Some(&[t, s]) => true,
            Some(mask) => {
                return Err(Error::shape(format!("{KIND}: expected attn_mask (.., {t}, {s}), got {mask}")));
            }
        };
        Ok((Sizes { n, t, s, heads: 1, kv_heads: 1, d: *d, dv: *dv }, by_sample))
    }

    fn masks<'a>(&self, xs: &[&'a Tensor<T>], by_sample: bool) -> Masks<'a, T> {
        let pairs = xs.get(3).zip(self.attn_mask).map(|(mask, kind)| (mask.data(), kind, by_sample));
        Masks { keys: None, pairs }
    }
}

impl<T: Scalar> Parameters for ScaledDotProductAttention<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        let Rules { window, dropout, scale, .. } = self.rules;
        let value = |text: String| Err(Error::value(format!("{KIND}: expected {text}")));
        if !(0.0..=1.0).contains(&dropout) {
            return value(format!("a probability in [0, 1], got {dropout}"));
        }
        if window == Some(0) {
            return value("a window of at least one key, got 0".into());
        }
        match scale.filter(|&scale| !T::from_f64(scale).is_finite()) {
            Some(scale) => value(format!("a finite scale, got {scale}")),
            None => Ok(()),
        }
    }
}

/// Rows of one head.
fn rows<T: Scalar>(x: &Tensor<T>, count: usize, width: usize) -> Rows<'_, T> {
    Rows::joined(x.data(), count, 1, width)
}

impl<T: Scalar> Module for ScaledDotProductAttention<T> {
    type State = ScaledDotProductCache<T>;

    fn inputs(&self) -> usize {
        3 + usize::from(self.attn_mask.is_some())
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input < 3 || self.attn_mask == Some(MaskKind::Additive)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let (sizes, _) = self.sizes(inputs, 0)?;
        let q = inputs[0];
        Ok(vec![Shape::new(&q.with(q.len() - 1, sizes.dv))?])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = None;
        let few: [Shape; 4] = std::array::from_fn(|i| xs.get(i).map_or_else(Shape::default, |x| *x.shape()));
        let ([y], true) = (ys, xs.len() <= few.len()) else {
            return Err(Error::shape(format!(
                "{KIND}: expected one output and {} inputs",
                Module::inputs(self)
            )));
        };
        let keeps = cx.streaming() && self.rules.causal;
        if !cx.streaming() {
            cache.stream.clear();
        }
        let past = cache.stream.queries();
        let (sizes, by_sample) = self.sizes(&few[..xs.len()], if keeps { past } else { 0 })?;
        cache.stream.check(KIND, sizes.n, [sizes.d, sizes.dv])?;
        if keeps && sizes.s != past + sizes.t {
            return Err(Error::shape(format!(
                "{KIND}: expected as many keys as queries in a piece of a causal stream, got {} and {}",
                sizes.s - past,
                sizes.t
            )));
        }
        cache.heads_of_one = sizes.n.checked_div(few[0][0]).unwrap_or(1).max(1);
        let ScaledDotProductCache { heads, stream, .. } = cache;
        let q = rows(xs[0], sizes.t, sizes.d);
        let [k, v] = if keeps {
            if stream.is_empty() {
                stream.start(sizes.n, [sizes.d, sizes.dv], 0, [None; 2]);
            }
            stream.push([xs[1].data(), xs[2].data()], None, sizes.t);
            stream.rows(0)
        } else {
            if cx.streaming() && self.rules.window.is_some() {
                stream.count(sizes.n, sizes.t);
            }
            [rows(xs[1], sizes.s, sizes.d), rows(xs[2], sizes.s, sizes.dv)]
        };
        let noise = cx.noise();
        let masks = self.masks(xs, by_sample);
        let scores = self.rules.scores(sizes.d, [past, 0], &[], &masks, noise);
        let y = y.reset(Shape::new(&few[0].with(few[0].len() - 1, sizes.dv))?);
        heads.forward(KIND, sizes, [q, k, v], &scores, y, None)?; // y = p v
        cache.recorded = cx.recording().then_some((sizes, by_sample, noise));
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut Self::State,
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let few: [Shape; 4] =
            std::array::from_fn(|i| call.xs.get(i).map_or_else(Shape::default, |x| *x.shape()));
        let ([y], [dy], true) = (call.ys, call.dys, call.xs.len() <= few.len() && dxs.len() == call.xs.len())
        else {
            return Err(Error::shape(format!(
                "{KIND}: expected one output and {} inputs",
                Module::inputs(self)
            )));
        };
        let (sizes, by_sample) = self.sizes(&few[..call.xs.len()], 0)?;
        let noise = match cache.recorded {
            Some((recorded, by, noise)) if (recorded, by) == (sizes, by_sample) => noise,
            _ => {
                return Err(Error::not_recorded(format!(
                    "{KIND}: expected the cache of a recorded forward of these inputs"
                )));
            }
        };
        if y.len() != sizes.n * sizes.t * sizes.dv {
            return Err(Error::shape(format!("{KIND}: expected the y of these inputs, got {}", y.shape())));
        }
        if !self.differentiable_input(3) {
            dxs.iter_mut().skip(3).for_each(|dx| zeros(dx.take(), &few[3]));
        }
        let Some(dy) = dy else {
            dxs.iter_mut().zip(&few).for_each(|(dx, shape)| zeros(dx.as_deref_mut(), shape));
            return Ok(());
        };
        let [q, k, v] = [call.xs[0], call.xs[1], call.xs[2]];
        let of = [rows(q, sizes.t, sizes.d), rows(k, sizes.s, sizes.d), rows(v, sizes.s, sizes.dv)];
        let masks = self.masks(call.xs, by_sample);
        let scores = self.rules.scores(sizes.d, [0, 0], &[], &masks, noise);
        let pairs = dxs.get_mut(3).and_then(Option::as_deref_mut).map(|dx| dx.reset(few[3]));
        cache.heads.backward(sizes, of, &scores, (y.data(), dy.data()), None, [None, pairs]);
        for ((dx, gradient), shape) in dxs.iter_mut().zip(&cache.heads.gradients).zip(&few) {
            if let Some(dx) = dx {
                copy(gradient, dx.reset(*shape)); // dq, dk, dv
            }
        }
        Ok(())
    }

    fn remember(&self, cache: &mut Self::State, out: &mut Memory<'_, T>) -> Result<()> {
        let ScaledDotProductCache { stream, heads_of_one, .. } = cache;
        if !stream.started(out)? {
            return Ok(());
        }
        out.count("heads", heads_of_one)?;
        let mut rows = None;
        if self.rules.causal {
            let mut widths = stream.widths();
            let [keys, values] = &mut widths;
            out.count("key_width", keys)?;
            out.count("value_width", values)?;
            rows = Some((widths, 0));
        }
        stream.memory(*heads_of_one, rows, false, out)
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let Ok((sizes, _)) = self.sizes(inputs, 0) else { return 0 };
        let axes = [sizes.t, sizes.s, sizes.d + sizes.dv, sizes.n];
        axes.iter().fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn to_spec(&self) -> Spec {
        let Rules { causal, window, dropout, scale } = self.rules;
        Spec::new(KIND)
            .with("dropout_p", dropout)
            .with("causal", causal)
            .with("scale", scale)
            .with_unless(None, "window", window)
            .with_unless(None, "attn_mask", self.attn_mask)
    }
}

impl<T: Scalar> FromSpec<T> for ScaledDotProductAttention<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("softmax(q kᵀ/√D) v")
        .page("layers/attention/scaled_dot_product_attention.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .dropout_p(args.or("dropout_p", 0.0)?)
            .causal(args.or("causal", false)?)
            .scale(args.optional::<f64>("scale")?)
            .window(args.optional::<usize>("window")?)
            .attn_mask(args.optional::<MaskKind>("attn_mask")?))
    }

    fn examples() -> Vec<Example> {
        let other = Self::new().causal(true).scale(0.3).window(2).attn_mask(MaskKind::Additive);
        vec![
            Example::new(Self::new().to_spec(), [[2, 3, 4], [2, 5, 4], [2, 5, 3]]),
            Example::new(
                other.to_spec(),
                [Shape::from([2, 2, 3, 4]), [2, 2, 3, 4].into(), [2, 2, 3, 1].into(), [2, 2, 3, 3].into()],
            ),
            Example::bench(Self::new().causal(true).to_spec(), [[32, 256, 64]; 3]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    const LENGTHS: [usize; 3] = [1, 3, 7];

    laws! {
        obeys_the_laws(
            outer in collection::vec(1..3usize, 1..3), time in 0..3usize, keys in 0..3usize, d in 1..5usize, dv in 1..5usize,
            mask in option::of(any::<(bool, bool)>()), p in prop_oneof![Just(0.0), 0.0..0.5f64], scale in option::of(-1.0..1.0f64),
        ) {
            layer: ScaledDotProductAttention::new().dropout_p(p).scale(scale)
                .attn_mask(mask.map(|(boolean, _)| [MaskKind::Additive, MaskKind::Boolean][usize::from(boolean)])),
            inputs: {
                let of = |n: usize, width: usize| [outer.clone(), vec![n, width]].concat();
                let mut inputs = vec![of(LENGTHS[time], d), of(LENGTHS[keys], d), of(LENGTHS[keys], dv)];
                if let Some((_, all)) = mask {
                    inputs.push(if all { of(LENGTHS[time], LENGTHS[keys]) } else { vec![LENGTHS[time], LENGTHS[keys]] });
                }
                inputs
            },
            values_of(3): if mask.is_some_and(|(boolean, _)| boolean) { Values::Hidden } else { Values::Normal },
            batch_axis_of(3): mask.is_some_and(|(_, all)| all).then_some(0),
            sequence: outer.len(),
            sequence_of(if mask.is_some() { 3 } else { 0 }): if mask.is_none_or(|(_, all)| all) { outer.len() } else { 0 },
        }
        obeys_the_laws_causal(
            rows in 1..3usize, time in 0..3usize, d in 1..5usize, dv in 1..5usize, window in option::of(1..9usize),
        ) {
            layer: ScaledDotProductAttention::new().causal(true).window(window),
            inputs: [[rows, LENGTHS[time], d], [rows, LENGTHS[time], d], [rows, LENGTHS[time], dv]],
            sequence: 1,
            sequence_of(1): 1,
            sequence_of(2): 1,
        }
    }

    /// D = 1, q = 1, k = (0, ln 3), v = (4, 8): s = (0, ln 3), p = (¼, ¾), y = 7. For g = 2: ∂v = (½, 3/2), ∂p = (8, 16), of which
    /// the mean by p is 14: ∂s = (¼·(−6), ¾·2) = (−3/2, 3/2), ∂q = 3/2 ln 3, ∂k = (−3/2, 3/2).
    #[test]
    pub fn by_hand() {
        let of = |values: &[f64]| Tensor::from_vec([1, values.len(), 1], values.to_vec()).unwrap();
        let (q, k, v) = (of(&[1.]), of(&[0., 3f64.ln()]), of(&[4., 8.]));
        let layer = ScaledDotProductAttention::new();
        let (xs, mut ys, mut cache) = ([&q, &k, &v], [Tensor::default()], ScaledDotProductCache::default());
        layer.apply(&xs, &mut ys, &mut cache, Context::frozen()).unwrap();
        let close = |got: &Tensor<f64>, want: &[f64]| {
            assert!(got.data().iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14), "{got:?} {want:?}");
        };
        close(&ys[0], &[7.]);
        let (dy, mut grads) = (of(&[2.]), Grads::new(&layer));
        let mut dxs = [(); 3].map(|()| Tensor::default());
        let dys = [Some(&dy)];
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut cache, &mut grads, &mut dxs.each_mut().map(Some)).unwrap();
        close(&dxs[0], &[1.5 * 3f64.ln()]);
        close(&dxs[1], &[-1.5, 1.5]);
        close(&dxs[2], &[0.5, 1.5]);
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        type Layer = ScaledDotProductAttention<f32>;
        let wrong = [Layer::new().dropout_p(2.0), Layer::new().window(0), Layer::new().scale(f64::INFINITY)];
        for layer in wrong {
            assert!(layer.validate().is_err());
        }
    }
}
