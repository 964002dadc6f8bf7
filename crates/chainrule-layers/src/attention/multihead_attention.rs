//! Attention of several heads.
//!
//! ```text
//! q = x_q W_qᵀ + b_q   k = x_k W_kᵀ + b_k   v = x_v W_vᵀ + b_v, each cut into heads
//! s = q kᵀ/√D + masks   p = softmax(s)   o = p v   y = o W_oᵀ + b_o
//! ```
//!
//! Given g = ∂E/∂y and r = ∂E/∂p of the weights as an output:
//!
//! ```text
//! ∂E/∂W_o = gᵀ o        ∂E/∂o = g W_o         ∂E/∂v = pᵀ ∂E/∂o           ∂E/∂p = ∂E/∂o vᵀ + r
//! ∂E/∂s = p ⊙ (∂E/∂p − Σ ∂E/∂p ⊙ p)           ∂E/∂q = ∂E/∂s k/√D         ∂E/∂k = ∂E/∂sᵀ q/√D
//! ∂E/∂W_q = ∂E/∂qᵀ x_q  ∂E/∂x_q = ∂E/∂q W_q, and so for k and v
//! ```
//!
//! Keeps q, k, v, o and two numbers a query and head; p is made again, a tile at a time.
//! Derivation: docs/layers/attention/multihead_attention.md.

use super::{
    MaskKind, Pairing,
    dense::{Dense, Packed, project_gradient},
    heads::{Heads, Masks, Rules},
    masks::{pairs_by_head, zeros},
    rope::{RopeTable, check_rope},
    stream::{KeyValues, fill_added},
};
use crate::rank::{check_shape, check_sizes};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Init, Memory, Module, ModuleCall, Noise, Param,
    Parameters, Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::{
    layers::{
        attention::{Rows, Sizes},
        permute::permute,
    },
    reduce::add_rows_to,
};

const KIND: &str = "MultiheadAttention";

/// Where queries, keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sources {
    /// All from x.
    Own,
    /// Queries from x, keys and values from a memory.
    Memory,
    /// Each from an input of its own.
    Apart,
}

/// y = softmax(q kᵀ/√D + masks) v W_oᵀ + b_o over several heads, where q, k and v are affine in the inputs. Vaswani et al., 2017.
///
/// By default it is self-attention: one input x, one output. Options add inputs, in this order: [`MultiheadAttention::cross`] key and
/// value, [`MultiheadAttention::key_padding_mask`] and [`MultiheadAttention::attn_mask`] a mask each;
/// [`MultiheadAttention::need_weights`] adds the weights as a second output.
///
/// Under [`Context::stream`], causal self-attention keeps keys and values, and gives piece by piece the bits of the whole.
///
/// # Shapes
/// x (N, T, E), key (N, S, kdim), value (N, S, vdim), key padding mask (N, S), attention mask (T, S) or (N H, T, S); y (N, T, E),
/// weights (N, T, S), or (N, H, T, S) for each head. With `batch_first(false)`, (T, N, E) and (S, N, E). Unlike PyTorch's, the
/// default is batch first, as everywhere in this library.
///
/// `in_proj_weight` (3E, E), or `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim) where those differ,
/// `in_proj_bias` (3E), `bias_k` and `bias_v` (1, 1, E), `out_proj.weight` (E, E), `out_proj.bias` (E).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::MultiheadAttention;
/// let layer = MultiheadAttention::new(8, 2).causal(true).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([4, 10, 8]))?;
/// assert_eq!(y.shape()[..], [4, 10, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MultiheadAttention<T = f32> {
    embed_dim: usize,
    num_heads: usize,
    num_kv_heads: Option<usize>,
    kdim: Option<usize>,
    vdim: Option<usize>,
    bias: bool,
    add_bias_kv: bool,
    add_zero_attn: bool,
    separate: bool,
    batch_first: bool,
    cross: bool,
    memory: bool,
    rules: Rules,
    alibi: bool,
    rope: Option<(f64, Pairing)>,
    key_padding_mask: Option<MaskKind>,
    attn_mask: Option<MaskKind>,
    need_weights: bool,
    average: bool,
    /// −slope of each head, if there are any.
    slopes: Vec<T>,
    /// One weight for q, k and v, or one each.
    weights: Vec<Param<T>>,
    /// One bias for q, k and v, one each, or none.
    biases: Vec<Param<T>>,
    bias_kv: Option<[Param<T>; 2]>,
    out: Dense<T>,
}

impl<T: Scalar> MultiheadAttention<T> {
    /// Self-attention over vectors of `embed_dim` elements, cut into `num_heads` heads.
    pub fn new(embed_dim: usize, num_heads: usize) -> Self {
        Self {
            embed_dim,
            num_heads,
            num_kv_heads: None,
            kdim: None,
            vdim: None,
            bias: true,
            add_bias_kv: false,
            add_zero_attn: false,
            separate: false,
            batch_first: true,
            cross: false,
            memory: false,
            rules: Rules::default(),
            alibi: false,
            rope: None,
            key_padding_mask: None,
            attn_mask: None,
            need_weights: false,
            average: true,
            slopes: Vec::new(),
            weights: Vec::new(),
            biases: Vec::new(),
            bias_kv: None,
            out: Dense::new([0, 0], None),
        }
        .built()
    }

    /// Heads of keys and values, each for as many heads of queries (Ainslie et al., 2023); `num_heads` by default.
    #[must_use]
    pub fn num_kv_heads(self, heads: usize) -> Self {
        Self { num_kv_heads: Some(heads), ..self }.built()
    }

    /// The probability at which a weight becomes 0 in training, 0 by default.
    #[must_use]
    pub fn dropout(mut self, p: f64) -> Self {
        self.rules.dropout = p;
        self
    }

    /// With or without biases.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }.built()
    }

    /// Whether q, k and v have a weight and a bias each, `q_proj_weight`, `q_proj_bias`, …, also where one weight would do: other
    /// files' names and initialisers then fit.
    #[must_use]
    pub fn separate(self, separate: bool) -> Self {
        Self { separate, ..self }.built()
    }

    /// With a learned key and value that every query sees.
    #[must_use]
    pub fn add_bias_kv(self, add: bool) -> Self {
        Self { add_bias_kv: add, ..self }.built()
    }

    /// With a key and a value of zeros that every query sees.
    #[must_use]
    pub fn add_zero_attn(self, add: bool) -> Self {
        Self { add_zero_attn: add, ..self }
    }

    /// Elements of a key, `embed_dim` by default.
    #[must_use]
    pub fn kdim(self, kdim: usize) -> Self {
        Self { kdim: Some(kdim), ..self }.built()
    }

    /// Elements of a value, `embed_dim` by default.
    #[must_use]
    pub fn vdim(self, vdim: usize) -> Self {
        Self { vdim: Some(vdim), ..self }.built()
    }

    /// Whether the batch is the first axis, as by default, or the second.
    #[must_use]
    pub fn batch_first(self, first: bool) -> Self {
        Self { batch_first: first, ..self }
    }

    /// Whether the inputs are query, key and value, or one x for all.
    #[must_use]
    pub fn cross(self, cross: bool) -> Self {
        Self { cross, ..self }
    }

    /// Whether the inputs are query and a memory, which is key and value, or one x for all.
    #[must_use]
    pub fn memory(self, memory: bool) -> Self {
        Self { memory, ..self }
    }

    /// With a mask of keys as an input.
    #[must_use]
    pub fn key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        Self { key_padding_mask: kind.into(), ..self }
    }

    /// With a mask of pairs of a query and a key as an input.
    #[must_use]
    pub fn attn_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        Self { attn_mask: kind.into(), ..self }
    }

    /// Whether a query sees no later key.
    #[must_use]
    pub fn causal(mut self, causal: bool) -> Self {
        self.rules.causal = causal;
        self
    }

    /// A query sees no key as far away as `window` or farther (Beltagy, Peters and Cohan, 2020): a causal one sees itself and
    /// `window − 1` before it.
    #[must_use]
    pub fn window(mut self, window: impl Into<Option<usize>>) -> Self {
        self.rules.window = window.into();
        self
    }

    /// Whether each head's scores fall linearly with the distance, by slopes 2^(−8/H), 2^(−16/H), … (Press, Smith and Lewis, 2022).
    #[must_use]
    pub fn alibi(self, alibi: bool) -> Self {
        Self { alibi, ..self }.built()
    }

    /// Queries and keys are rotated by their position, see [`crate::Rope`]; the usual base is 10000.
    #[must_use]
    pub fn rope(self, base: f64, pairing: Pairing) -> Self {
        Self { rope: Some((base, pairing)), ..self }
    }

    /// Whether the weights are a second output.
    #[must_use]
    pub fn need_weights(self, need: bool) -> Self {
        Self { need_weights: need, ..self }
    }

    /// Whether the weights as an output are their mean over heads, as by default, or those of each head.
    #[must_use]
    pub fn average_attn_weights(self, average: bool) -> Self {
        Self { average, ..self }
    }

    fn sources(&self) -> Sources {
        match (self.cross, self.memory) {
            (true, _) => Sources::Apart,
            (false, true) => Sources::Memory,
            (false, false) => Sources::Own,
        }
    }

    /// Makes the parameters that the settings ask for.
    fn built(mut self) -> Self {
        let (e, kv) = (self.embed_dim, self.kv_dim());
        let xavier = Init::xavier_uniform();
        let shape = |rows: usize, cols: usize| [rows, cols];
        let all = kv.saturating_mul(2).saturating_add(e);
        self.weights = if self.joint() && !self.separate {
            vec![Param::new("in_proj_weight", shape(all, e), xavier)]
        } else {
            vec![
                Param::new("q_proj_weight", shape(e, e), xavier),
                Param::new("k_proj_weight", shape(kv, self.kdim.unwrap_or(e)), xavier),
                Param::new("v_proj_weight", shape(kv, self.vdim.unwrap_or(e)), xavier),
            ]
        };
        let bias = |name, rows: usize| Param::new(name, [rows], Init::ZEROS);
        self.biases = match (self.bias, self.separate) {
            (false, _) => Vec::new(),
            (true, false) => vec![bias("in_proj_bias", all)],
            (true, true) => vec![bias("q_proj_bias", e), bias("k_proj_bias", kv), bias("v_proj_bias", kv)],
        };
        let extra = |name| Param::new(name, [1, 1, kv], Init::xavier_normal());
        self.bias_kv = self.add_bias_kv.then(|| [extra("bias_k"), extra("bias_v")]);
        self.out = Dense::new([e, e], self.bias.then_some(Init::ZEROS));
        self.slopes = if self.alibi { slopes(self.num_heads) } else { Vec::new() };
        self
    }

    /// Whether keys and values are as wide as queries: then one weight maps them all.
    fn joint(&self) -> bool {
        let same = |dim: Option<usize>| dim.is_none_or(|dim| dim == self.embed_dim);
        same(self.kdim) && same(self.vdim)
    }

    fn kv_heads(&self) -> usize {
        self.num_kv_heads.unwrap_or(self.num_heads)
    }

    /// Elements of all heads of a key.
    fn kv_dim(&self) -> usize {
        (self.embed_dim / self.num_heads.max(1)).saturating_mul(self.kv_heads())
    }

    /// D
    fn depth(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Whether it matters where a query stands.
    fn placed(&self) -> bool {
        self.rules.causal || self.rules.window.is_some() || self.alibi || self.rope.is_some()
    }

    /// Keys that are added.
    fn extra(&self) -> usize {
        usize::from(self.add_bias_kv) + usize::from(self.add_zero_attn)
    }

    /// The inputs that are no masks.
    fn values(&self) -> usize {
        match self.sources() {
            Sources::Own => 1,
            Sources::Memory => 2,
            Sources::Apart => 3,
        }
    }

    /// Where the masks stand among the inputs.
    fn mask_inputs(&self) -> [Option<usize>; 2] {
        let first = self.values();
        let keys = self.key_padding_mask.map(|_| first);
        [keys, self.attn_mask.map(|_| first + usize::from(keys.is_some()))]
    }

    /// The widths of the sources of q, k and v, and of the three.
    fn widths(&self) -> [[usize; 2]; 3] {
        let (e, kv) = (self.embed_dim, self.kv_dim());
        [[e, e], [self.kdim.unwrap_or(e), kv], [self.vdim.unwrap_or(e), kv]]
    }

    /// The input that q, k or v is made of.
    fn source(&self, part: usize) -> usize {
        match self.sources() {
            Sources::Own => 0,
            Sources::Memory => part.min(1),
            Sources::Apart => part,
        }
    }

    /// Where the rows of q, k or v stand in the weight that they have, and that weight.
    fn weight(&self, part: usize) -> (&Param<T>, std::ops::Range<usize>) {
        let [width, out] = self.widths()[part];
        if self.weights.len() == 1 {
            let from = [0, self.embed_dim, self.embed_dim + self.kv_dim()][part];
            (&self.weights[0], from * width..(from + out) * width)
        } else {
            (&self.weights[part], 0..out * width)
        }
    }

    /// The bias that q, k or v has, if there is one, and where.
    fn bias_of(&self, part: usize) -> Option<(&Param<T>, std::ops::Range<usize>)> {
        let out = self.widths()[part][1];
        match &self.biases[..] {
            [] => None,
            [all] => {
                let from = [0, self.embed_dim, self.embed_dim + self.kv_dim()][part];
                Some((all, from..from + out))
            }
            each => Some((&each[part], 0..out)),
        }
    }

    /// N, T, S without added keys, and whether the mask of pairs has one for each head, for inputs behind `past` others.
    fn lengths(&self, shapes: &[Shape], past: usize) -> Result<Lengths> {
        self.validate()?;
        let inputs = Module::inputs(self);
        if shapes.len() != inputs {
            return Err(Error::shape(format!("{KIND}: expected {inputs} inputs, got {}", shapes.len())));
        }
        let (order, [q, k, v]) = (self.batch_first, self.widths().map(|[width, _]| width));
        let rows = |input: usize, width: usize, name: &str| match shapes[input][..] {
            [a, b, e] if e == width => Ok(if order { [a, b] } else { [b, a] }),
            _ => {
                let axes = if order { "N, T" } else { "T, N" };
                let got = shapes[input];
                Err(Error::shape(format!("{KIND}: expected {name} ({axes}, {width}), got {got}")))
            }
        };
        let [n, t] = rows(0, q, if self.sources() == Sources::Own { "input" } else { "query" })?;
        let [of_keys, s] = match self.sources() {
            Sources::Own => [n, past + t],
            Sources::Memory => rows(1, k, "memory")?,
            Sources::Apart => {
                let [keys, values] = [rows(1, k, "key")?, rows(2, v, "value")?];
                if keys != values {
                    return Err(Error::shape(format!(
                        "{KIND}: expected as many values as keys, got {} and {}",
                        shapes[1], shapes[2]
                    )));
                }
                keys
            }
        };
        if of_keys != n {
            return Err(Error::shape(format!("{KIND}: expected keys of {n} samples, got {of_keys}")));
        }
        if s + self.extra() == 0 && t > 0 {
            return Err(Error::shape(format!("{KIND}: expected at least one key, got none")));
        }
        let [keys, pairs] = self.mask_inputs();
        if let Some(mask) = keys.map(|i| &shapes[i]) {
            // That of a stream is of the keys of this piece.
            let expected = [n, if self.sources() == Sources::Own { t } else { s }];
            if mask[..] != expected {
                return Err(Error::shape(format!(
                    "{KIND}: expected key_padding_mask {expected:?}, got {mask}"
                )));
            }
        }
        let by_head = match pairs {
            Some(i) => pairs_by_head(KIND, &shapes[i], [n, self.num_heads, t, s])?,
            None => false,
        };
        Ok(Lengths { n, t, s, by_head })
    }

    fn sizes(&self, of: Lengths) -> Sizes {
        Sizes {
            n: of.n,
            t: of.t,
            s: of.s + self.extra(),
            heads: self.num_heads,
            kv_heads: self.kv_heads(),
            d: self.depth(),
            dv: self.depth(),
        }
    }

    /// The masks of a pass; that of the keys of a stream is what was gathered.
    fn masks<'a>(
        &self,
        xs: &[&'a Tensor<T>],
        of: Lengths,
        gathered: Option<(&'a [T], usize)>,
    ) -> Masks<'a, T> {
        let [keys, pairs] = self.mask_inputs();
        Masks {
            keys: keys.zip(self.key_padding_mask).map(|(i, kind)| {
                let (mask, stride) = gathered.unwrap_or((xs[i].data(), of.s));
                (mask, kind, stride)
            }),
            pairs: pairs.zip(self.attn_mask).map(|(i, kind)| (xs[i].data(), kind, of.by_head)),
        }
    }
}

/// The slopes of ALiBi: of a power of two heads, 2^(−8/H), 2^(−16/H), …; of others, those of the next lower power, and then every
/// second one of the next higher.
fn slopes<T: Scalar>(heads: usize) -> Vec<T> {
    let heads = heads.min(1 << 20);
    let of = |h: usize, all: usize| T::from_f64((-8.0 * h as f64 / all as f64).exp2());
    let power = if heads == 0 { 1 } else { 1 << heads.ilog2() };
    (0..heads)
        .map(|h| if h < power { of(h + 1, power) } else { of(2 * (h - power) + 1, 2 * power) })
        .collect()
}

/// N, T and S of a pass, and whether its mask of pairs has one for each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lengths {
    n: usize,
    t: usize,
    s: usize,
    by_head: bool,
}

/// What [`MultiheadAttention`] keeps, and its scratch memory.
pub struct AttentionCache<T> {
    /// Of the recorded pass: its lengths, and the key of its noise.
    recorded: Option<(Lengths, Option<Noise>)>,
    packed: [Packed<T>; 4],
    /// The inputs with the batch first, where it is not.
    inputs: [Vec<T>; 3],
    /// q (N, T, E), k and v (N, S, Hk D), with added keys before the others.
    parts: [Vec<T>; 3],
    /// (N, T, E)
    o: Vec<T>,
    d_o: Vec<T>,
    heads: Heads<T>,
    /// Gradients by rows, and y or its gradient with the batch first.
    rows: Vec<T>,
    outputs: Vec<T>,
    rope: RopeTable<T>,
    stream: KeyValues<T>,
}

impl<T: Scalar> Default for AttentionCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            packed: std::array::from_fn(|_| Packed::default()),
            inputs: [const { Vec::new() }; 3],
            parts: [const { Vec::new() }; 3],
            o: Vec::new(),
            d_o: Vec::new(),
            heads: Heads::default(),
            rows: Vec::new(),
            outputs: Vec::new(),
            rope: RopeTable::default(),
            stream: KeyValues::default(),
        }
    }
}

impl<T> std::fmt::Debug for AttentionCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttentionCache").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

/// (a, b, width) as (b, a, width).
fn swapped<T: Scalar>(x: &[T], y: &mut [T], [a, b, width]: [usize; 3]) {
    permute(x, y, &[a, b, width], &[1, 0, 2]);
}

impl<T: Scalar> Parameters for MultiheadAttention<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.weights.iter().chain(&self.biases).for_each(|p| out.add(p));
        self.bias_kv.iter().flatten().for_each(|p| out.add(p));
        self.out.list(&mut out.child("out_proj"));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.weights.iter_mut().chain(&mut self.biases).for_each(|p| out.add(p));
        self.bias_kv.iter_mut().flatten().for_each(|p| out.add(p));
        self.out.list_mut(&mut out.child("out_proj"));
    }

    fn validate(&self) -> Result<()> {
        let (e, heads, kv_heads) = (self.embed_dim, self.num_heads, self.kv_heads());
        check_sizes(
            KIND,
            "embed_dim, heads, kdim and vdim",
            1,
            [e, heads, kv_heads, self.kdim.unwrap_or(e), self.vdim.unwrap_or(e)],
        )?;
        let value = |text: String| Err(Error::value(format!("{KIND}: expected {text}")));
        if !e.is_multiple_of(heads) {
            return value(format!("heads that divide embed_dim {e}, got {heads}"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return value(format!("heads of keys that divide the {heads} heads, got {kv_heads}"));
        }
        if !(0.0..=1.0).contains(&self.rules.dropout) {
            return value(format!("a probability in [0, 1], got {}", self.rules.dropout));
        }
        if self.rules.window == Some(0) {
            return value("a window of at least one key, got 0".into());
        }
        if self.cross && self.memory {
            return value("either cross(true) or memory(true), got both".into());
        }
        let dims = [self.kdim.unwrap_or(e), self.vdim.unwrap_or(e)];
        match self.sources() {
            Sources::Own if dims != [e, e] => {
                return value(format!("kdim and vdim of self-attention {e}, got {dims:?}"));
            }
            Sources::Memory if dims[0] != dims[1] => {
                return value(format!("kdim and vdim of a memory to be the same, got {dims:?}"));
            }
            _ => {}
        }
        if let Some((base, _)) = self.rope {
            check_rope(KIND, self.depth(), base)?;
        }
        for [width, out] in self.widths() {
            check_shape(KIND, Shape::new(&[out, width]))?;
        }
        check_shape(KIND, Shape::new(&[e + 2 * self.kv_dim(), e]))
    }
}

impl<T: Scalar> Module for MultiheadAttention<T> {
    type State = AttentionCache<T>;

    fn inputs(&self) -> usize {
        self.values() + self.mask_inputs().iter().flatten().count()
    }

    fn outputs(&self) -> usize {
        1 + usize::from(self.need_weights)
    }

    fn differentiable_input(&self, input: usize) -> bool {
        let [keys, pairs] = self.mask_inputs();
        let additive = |kind: Option<MaskKind>| kind == Some(MaskKind::Additive);
        if keys == Some(input) {
            return additive(self.key_padding_mask);
        }
        pairs != Some(input) || additive(self.attn_mask)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let of = self.lengths(inputs, 0)?;
        let mut shapes = vec![inputs[0]];
        if self.need_weights {
            shapes.push(self.weights_shape(of)?);
        }
        Ok(shapes)
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut AttentionCache<T>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = None;
        let streaming = cx.streaming();
        let own = self.sources() == Sources::Own;
        if streaming && own && !self.rules.causal {
            return Err(Error::value(format!(
                "{KIND}: expected causal(true) under streaming: what is not causal needs the whole sequence, got a piece"
            )));
        }
        if !streaming {
            cache.stream.clear();
        }
        let past = cache.stream.queries();
        let few: [Shape; 5] = std::array::from_fn(|i| xs.get(i).map_or_else(Shape::default, |x| *x.shape()));
        if xs.len() > few.len() || ys.len() != Module::outputs(self) {
            let outputs = Module::outputs(self);
            return Err(Error::shape(format!(
                "{KIND}: expected {} inputs and {outputs} outputs, got {} and {}",
                Module::inputs(self),
                xs.len(),
                ys.len()
            )));
        }
        let of = self.lengths(&few[..xs.len()], past)?;
        cache.stream.check(KIND, of.n, [self.kv_dim(); 2])?;
        let noise = cx.noise();
        let (sizes, extra) = (self.sizes(of), self.extra());
        let weights_shape = if self.need_weights { Some(self.weights_shape(of)?) } else { None };
        // Rows that are new: all but those that a stream has seen.
        let new = if own { of.t } else { of.s };
        self.project(xs, cache, [of.n, of.t, new], if streaming { past } else { 0 })?;

        let AttentionCache { packed, parts, o, heads, outputs, stream, .. } = cache;
        let kv = self.kv_dim();
        if streaming && own {
            if stream.is_empty() {
                stream.start(of.n, [kv; 2], extra, self.learned()?);
            }
            let mask = self.mask_inputs()[0].map(|i| xs[i].data());
            stream.push([&parts[1], &parts[2]], mask, of.t);
        } else {
            self.add_rows(parts, of)?;
        }
        let [q, k, v] = &*parts;
        let q = Rows::joined(q, of.t, self.num_heads, self.depth());
        let joined = |x| Rows::joined(x, sizes.s, self.kv_heads(), self.depth());
        let (rows, gathered) = if streaming && own {
            let [k, v] = stream.rows(self.depth());
            ([q, k, v], stream.mask())
        } else {
            ([q, joined(k), joined(v)], None)
        };
        let masks = self.masks(xs, of, gathered);
        let scores = self.rules.scores(self.depth(), [past, extra], &self.slopes, &masks, noise);
        let (y, weights) = match ys {
            [y] => (y, None),
            [y, weights] => (y, weights_shape.map(|shape| (weights.reset(shape), self.average))),
            _ => unreachable!("counted above"),
        };
        o.resize(of.n * of.t * self.embed_dim, T::ZERO);
        heads.forward(KIND, sizes, rows, &scores, o, weights)?; // o = p v
        if streaming && !own && self.placed() {
            stream.count(of.n, of.t);
        }
        let rows = of.n * of.t;
        let y = y.reset(few[0]);
        if self.batch_first {
            self.out.forward(o, rows, y, &mut packed[3])?; // y = o W_oᵀ + b_o
        } else {
            outputs.resize(y.len(), T::ZERO);
            self.out.forward(o, rows, outputs, &mut packed[3])?;
            swapped(outputs, y, [of.n, of.t, self.embed_dim]);
        }
        cache.recorded = cx.recording().then_some((of, noise));
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut AttentionCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let few: [Shape; 5] =
            std::array::from_fn(|i| call.xs.get(i).map_or_else(Shape::default, |x| *x.shape()));
        if call.xs.len() > few.len() || dxs.len() != call.xs.len() || call.dys.len() != Module::outputs(self)
        {
            return Err(Error::shape(format!(
                "{KIND}: expected {} inputs and {} outputs",
                Module::inputs(self),
                Module::outputs(self)
            )));
        }
        let of = self.lengths(&few[..call.xs.len()], 0)?;
        let Some((recorded, noise)) = cache.recorded else { return Err(not_recorded()) };
        if recorded != of || call.ys[0].shape() != &few[0] {
            return Err(not_recorded());
        }
        let [keys, pairs] = self.mask_inputs();
        for i in 0..dxs.len() {
            if !self.differentiable_input(i) {
                zeros(dxs[i].take(), &few[i]);
            }
        }
        let dw = match call.dys {
            [_, Some(dw)] => Some((dw.data(), self.average)),
            _ => None,
        };
        if call.dys[0].is_none() && dw.is_none() {
            dxs.iter_mut().zip(&few).for_each(|(dx, shape)| zeros(dx.as_deref_mut(), shape));
            return Ok(());
        }
        let e = self.embed_dim;
        let AttentionCache { parts, o, d_o, heads, outputs, .. } = cache;
        d_o.resize(of.n * of.t * e, T::ZERO);
        match call.dys[0] {
            Some(dy) => {
                let dy = if self.batch_first {
                    dy.data()
                } else {
                    outputs.resize(dy.len(), T::ZERO);
                    swapped(dy.data(), outputs, [of.t, of.n, e]);
                    outputs
                };
                self.out.backward((o, dy, of.n * of.t), grads, Some(d_o))?; // dW_o += dyᵀ o, d_o = dy W_o
            }
            None => d_o.fill(T::ZERO),
        }
        let sizes = self.sizes(of);
        let [q, k, v] = &*parts;
        let joined = |x| Rows::joined(x, sizes.s, self.kv_heads(), self.depth());
        let rows = [Rows::joined(q, of.t, self.num_heads, self.depth()), joined(k), joined(v)];
        let masks = self.masks(call.xs, of, None);
        let scores = self.rules.scores(self.depth(), [0, self.extra()], &self.slopes, &masks, noise);
        let mut of_masks = [keys, pairs].map(|i| i.and_then(|i| dxs[i].take().map(|dx| dx.reset(few[i]))));
        let [keys, pairs] = &mut of_masks;
        heads.backward(sizes, rows, &scores, (o, d_o), dw, [keys.as_deref_mut(), pairs.as_deref_mut()]);
        self.project_back(call.xs, cache, of, grads, dxs)
    }

    fn remember(&self, cache: &mut AttentionCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        if !cache.stream.started(out)? {
            return Ok(());
        }
        let own = self.sources() == Sources::Own;
        let rows = own.then(|| ([self.kv_dim(); 2], self.extra()));
        cache.stream.memory(1, rows, own && self.key_padding_mask.is_some(), out)
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let Ok(of) = self.lengths(inputs, 0) else { return 0 };
        let product = |axes: &[usize]| axes.iter().fold(1u64, |n, &axis| n.saturating_mul(axis as u64));
        let sizes = self.sizes(of);
        let [[q, e], [k, kv], [v, _]] = self.widths();
        let per_sample = [
            product(&[of.t, q, e]),
            product(&[of.s, k, kv]),
            product(&[of.s, v, kv]),
            product(&[2, of.t, sizes.s, e]),
            product(&[of.t, e, e]),
        ];
        per_sample.iter().fold(0u64, |sum, &n| sum.saturating_add(n)).saturating_mul(of.n as u64)
    }

    fn to_spec(&self) -> Spec {
        let Rules { causal, window, dropout, .. } = self.rules;
        let mut spec = Spec::new(KIND)
            .with("embed_dim", self.embed_dim)
            .with("num_heads", self.num_heads)
            .with("dropout", dropout)
            .with("bias", self.bias)
            .with("add_bias_kv", self.add_bias_kv)
            .with("add_zero_attn", self.add_zero_attn)
            .with("kdim", self.kdim)
            .with("vdim", self.vdim)
            .with("batch_first", self.batch_first)
            .with_unless(None, "num_kv_heads", self.num_kv_heads)
            .with_unless(false, "separate", self.separate)
            .with_unless(false, "cross", self.cross)
            .with_unless(false, "memory", self.memory)
            .with_unless(None, "key_padding_mask", self.key_padding_mask)
            .with_unless(None, "attn_mask", self.attn_mask)
            .with_unless(false, "causal", causal)
            .with_unless(None, "window", window)
            .with_unless(false, "alibi", self.alibi)
            .with_unless(false, "need_weights", self.need_weights)
            .with_unless(true, "average_attn_weights", self.average);
        if let Some((base, pairing)) = self.rope {
            spec = spec.with("rope_base", base).with("rope_pairing", pairing);
        }
        spec
    }
}

#[cold]
fn not_recorded() -> Error {
    Error::not_recorded(format!("{KIND}: expected the cache of a recorded forward of these inputs"))
}

impl<T: Scalar> MultiheadAttention<T> {
    fn weights_shape(&self, of: Lengths) -> Result<Shape> {
        let (n, t, s) = (of.n, of.t, of.s + self.extra());
        if self.average { Shape::new(&[n, t, s]) } else { Shape::new(&[n, self.num_heads, t, s]) }
    }

    /// q, k and v of new rows, (N, rows, width), rotated from position `past` on.
    fn project(
        &self,
        xs: &[&Tensor<T>],
        cache: &mut AttentionCache<T>,
        [n, t, s]: [usize; 3],
        past: usize,
    ) -> Result<()> {
        let AttentionCache { packed, inputs, parts, rope, .. } = cache;
        for (part, (out, packed)) in parts.iter_mut().zip(packed).enumerate() {
            let (rows, [width, outputs]) = (if part == 0 { t } else { s }, self.widths()[part]);
            let source = self.source(part);
            let x = if self.batch_first {
                xs[source].data()
            } else {
                if part == 0 || source != self.source(part - 1) {
                    inputs[source].resize(xs[source].len(), T::ZERO);
                    swapped(xs[source].data(), &mut inputs[source], [rows, n, width]);
                }
                &inputs[source]
            };
            let (weight, range) = self.weight(part);
            let w = (&weight.value()?[range], weight.version());
            out.resize(n * rows * outputs, T::ZERO);
            let bias = match self.bias_of(part) {
                Some((bias, range)) => Some(&bias.value()?[range]),
                None => None,
            };
            packed.project((x, n * rows), w, bias, out, [width, outputs]); // q = x_q W_qᵀ + b_q
            if let (Some(settings), 0 | 1) = (self.rope, part) {
                let heads = [self.num_heads, self.kv_heads()][part];
                // Keys of another input are given whole.
                let past = if part == 0 || self.sources() == Sources::Own { past } else { 0 };
                rope.rotate(out, settings, [past, rows, heads, self.depth()], false);
            }
        }
        Ok(())
    }

    /// The learned key and value that are added first, if there are any; after them comes one of zeros.
    fn learned(&self) -> Result<[Option<&[T]>; 2]> {
        Ok(match &self.bias_kv {
            Some([k, v]) => [Some(k.value()?), Some(v.value()?)],
            None => [None, None],
        })
    }

    /// Puts the added keys and values before the others of each sample.
    fn add_rows(&self, parts: &mut [Vec<T>; 3], of: Lengths) -> Result<()> {
        let (extra, kv) = (self.extra(), self.kv_dim());
        if extra == 0 {
            return Ok(());
        }
        let learned = self.learned()?;
        let (old, new) = (of.s * kv, (of.s + extra) * kv);
        for (learned, rows) in learned.iter().zip(&mut parts[1..]) {
            rows.resize(of.n * new, T::ZERO);
            for n in (0..of.n).rev() {
                rows.copy_within(n * old..(n + 1) * old, n * new + extra * kv);
                fill_added(&mut rows[n * new..][..extra * kv], *learned);
            }
        }
        Ok(())
    }

    /// From the gradients of q, k and v to those of the parameters and inputs.
    fn project_back(
        &self,
        xs: &[&Tensor<T>],
        cache: &mut AttentionCache<T>,
        of: Lengths,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let AttentionCache { inputs, heads, rows, outputs, rope, .. } = cache;
        let extra = self.extra();
        for part in 0..3 {
            let [width, out] = self.widths()[part];
            let (count, heads_of) =
                if part == 0 { (of.t, self.num_heads) } else { (of.s + extra, self.kv_heads()) };
            let gradient = &heads.gradients[part];
            rows.resize(gradient.len(), T::ZERO);
            permute(gradient, rows, &[of.n, heads_of, count, self.depth()], &[0, 2, 1, 3]);
            if part > 0 && extra > 0 {
                self.take_added(rows, of, part, grads);
            }
            let count = if part == 0 { of.t } else { of.s };
            let dy = &mut rows[..of.n * count * out];
            if let (Some(settings), 0 | 1) = (self.rope, part) {
                rope.rotate(dy, settings, [0, count, heads_of, self.depth()], true);
            }
            let dy = &*dy;
            if let Some((bias, range)) = self.bias_of(part)
                && let Some(db) = grads.of(bias)
            {
                add_rows_to(dy, &mut db[range]); // db_q += Σₙ dq
            }
            let source = self.source(part);
            let x = if self.batch_first { xs[source].data() } else { &inputs[source] };
            let (weight, range) = self.weight(part);
            let w = &weight.value()?[range.clone()];
            let dw = grads.of(weight).map(|dw| &mut dw[range]);
            let first = part == 0 || source != self.source(part - 1);
            let beta = if first { T::ZERO } else { T::ONE };
            let requested = dxs[source].as_deref_mut();
            let dx = requested.map(|dx| {
                let dx = if first { dx.reset(*xs[source].shape()) } else { dx.data_mut() };
                if self.batch_first {
                    return (dx, beta);
                }
                outputs.resize(dx.len(), T::ZERO);
                (&mut outputs[..], beta)
            });
            project_gradient((x, dy, of.n * count), w, dw, None, dx, [width, out]); // dW_q += dqᵀ x_q, dx_q = dq W_q
            let last = part == 2 || source != self.source(part + 1);
            if let (Some(dx), true, false) = (dxs[source].as_deref_mut(), last, self.batch_first) {
                swapped(outputs, dx.data_mut(), [of.n, count, width]);
            }
        }
        Ok(())
    }

    /// Adds the gradients of the added key or value, and leaves those of the others, (N, S, width).
    fn take_added(&self, rows: &mut [T], of: Lengths, part: usize, grads: &mut Grads<T>) {
        let (extra, kv) = (self.extra(), self.kv_dim());
        let (old, new) = (of.s * kv, (of.s + extra) * kv);
        if let Some(db) = self.bias_kv.as_ref().and_then(|bias| grads.of(&bias[part - 1])) {
            for (j, db) in db.iter_mut().enumerate() {
                let sum: f64 = (0..of.n).map(|n| rows[n * new + j].to_f64()).sum();
                *db += T::from_f64(sum); // db_k += Σₙ dk of the added key
            }
        }
        for n in 0..of.n {
            rows.copy_within(n * new + extra * kv..(n + 1) * new, n * old);
        }
    }
}

impl<T: Scalar> FromSpec<T> for MultiheadAttention<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("softmax(q kᵀ/√D) v of each head, then W_o")
        .page("layers/attention/multihead_attention.md")
        .torch("MultiheadAttention");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut layer = Self::new(args.get("embed_dim")?, args.get("num_heads")?);
        layer.num_kv_heads = args.optional("num_kv_heads")?;
        layer.kdim = args.optional("kdim")?;
        layer.vdim = args.optional("vdim")?;
        layer.bias = args.or("bias", true)?;
        layer.add_bias_kv = args.or("add_bias_kv", false)?;
        layer.alibi = args.or("alibi", false)?;
        layer.separate = args.or("separate", false)?;
        if let Some(base) = args.optional("rope_base")? {
            layer.rope = Some((base, args.or("rope_pairing", Pairing::Halves)?));
        }
        Ok(layer
            .cross(args.or("cross", false)?)
            .memory(args.or("memory", false)?)
            .built()
            .add_zero_attn(args.or("add_zero_attn", false)?)
            .dropout(args.or("dropout", 0.0)?)
            .batch_first(args.or("batch_first", true)?)
            .key_padding_mask(args.optional::<MaskKind>("key_padding_mask")?)
            .attn_mask(args.optional::<MaskKind>("attn_mask")?)
            .causal(args.or("causal", false)?)
            .window(args.optional::<usize>("window")?)
            .need_weights(args.or("need_weights", false)?)
            .average_attn_weights(args.or("average_attn_weights", true)?))
    }

    fn examples() -> Vec<Example> {
        let masked = Self::new(6, 3)
            .cross(true)
            .kdim(5)
            .vdim(4)
            .add_bias_kv(true)
            .add_zero_attn(true)
            .attn_mask(MaskKind::Additive)
            .need_weights(true);
        let grouped = Self::new(8, 4)
            .num_kv_heads(2)
            .separate(true)
            .causal(true)
            .window(3)
            .alibi(true)
            .rope(1e4, Pairing::Halves)
            .need_weights(true)
            .average_attn_weights(false);
        let memory = Self::new(4, 2).memory(true).key_padding_mask(MaskKind::Additive);
        vec![
            Example::new(Self::new(4, 2).to_spec(), [[2, 3, 4]]),
            Example::new(
                masked.to_spec(),
                [Shape::from([2, 3, 6]), [2, 4, 5].into(), [2, 4, 4].into(), [6, 3, 4].into()],
            ),
            Example::new(grouped.to_spec(), [[2, 5, 8]]),
            Example::new(memory.to_spec(), [Shape::from([2, 3, 4]), [2, 5, 4].into(), [2, 5].into()]),
            Example::bench(Self::new(256, 4).causal(true).to_spec(), [[8, 256, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Call, Session};
    use chainrule_gradcheck::{
        laws,
        laws::Values::{self, Hidden, Normal},
    };

    const LENGTHS: [usize; 3] = [1, 3, 7];

    fn values(kind: MaskKind) -> Values {
        if kind == MaskKind::Boolean { Hidden } else { Normal }
    }

    fn kind(boolean: bool) -> MaskKind {
        if boolean { MaskKind::Boolean } else { MaskKind::Additive }
    }

    laws! {
        obeys_the_laws(
            rows in 1..3usize, time in 0..3usize, heads in 1..4usize, depth in 1..4usize, bias in any::<bool>(),
            weights in any::<bool>(), average in any::<bool>(), first in any::<bool>(), p in prop_oneof![Just(0.0), 0.0..0.6f64],
        ) {
            layer: MultiheadAttention::new(heads * depth, heads).bias(bias).need_weights(weights).dropout(p)
                .average_attn_weights(average).batch_first(first),
            input: if first { [rows, LENGTHS[time], heads * depth] } else { [LENGTHS[time], rows, heads * depth] },
            batch_axis_of(0): usize::from(!first),
            refuses_streams: true,
            wrong: [rows, LENGTHS[time], heads * depth + 1],
            wrong: [rows, heads * depth],
        }
        obeys_the_laws_causal(
            rows in 1..3usize, time in 0..3usize, heads in 1..4usize, depth in 1..4usize, added in 0..4usize,
            boolean in any::<bool>(), weights in any::<bool>(),
        ) {
            layer: MultiheadAttention::new(heads * depth, heads).causal(true).key_padding_mask(kind(boolean))
                .need_weights(weights && added == 0).add_bias_kv(added & 1 > 0).add_zero_attn(added & 2 > 0),
            inputs: [vec![rows, LENGTHS[time], heads * depth], vec![rows, LENGTHS[time]]],
            values_of(1): values(kind(boolean)),
            sequence: 1,
            sequence_of(1): 1,
            wrong_inputs: [vec![rows, LENGTHS[time], heads * depth], vec![rows, LENGTHS[time] + 1]],
            wrong_inputs: [vec![rows, LENGTHS[time], heads * depth]],
        }
        obeys_the_laws_across_inputs(
            (rows, time, keys) in (1..3usize, 0..3usize, 0..3usize), heads in 1..3usize, depth in 1..4usize,
            kdim in 1..5usize, vdim in 1..5usize, added in 0..4usize, boolean in any::<[bool; 2]>(), by_head in any::<bool>(),
            weights in any::<[bool; 2]>(),
        ) {
            layer: MultiheadAttention::new(heads * depth, heads).cross(true).kdim(kdim).vdim(vdim)
                .key_padding_mask(kind(boolean[0])).attn_mask(kind(boolean[1]))
                .need_weights(weights[0]).average_attn_weights(weights[1])
                .add_bias_kv(added & 1 > 0).add_zero_attn(added & 2 > 0),
            inputs: [
                vec![rows, LENGTHS[time], heads * depth], vec![rows, LENGTHS[keys], kdim], vec![rows, LENGTHS[keys], vdim],
                vec![rows, LENGTHS[keys]],
                if by_head { vec![rows * heads, LENGTHS[time], LENGTHS[keys]] } else { vec![LENGTHS[time], LENGTHS[keys]] },
            ],
            values_of(3): values(kind(boolean[0])),
            values_of(4): values(kind(boolean[1])),
            batch_axis_of(4): if by_head { Some(0) } else { None },
        }
        obeys_the_laws_with_a_memory(
            rows in 1..3usize, time in 0..3usize, keys in 0..3usize, heads in 1..3usize, first in any::<bool>(),
            kdim in option::of(1..4usize),
        ) {
            layer: {
                let layer = MultiheadAttention::new(heads * 2, heads).memory(true).batch_first(first);
                match kdim {
                    Some(kdim) => layer.kdim(kdim).vdim(kdim),
                    None => layer,
                }
            },
            inputs: if first {
                [[rows, LENGTHS[time], heads * 2], [rows, LENGTHS[keys], kdim.unwrap_or(heads * 2)]]
            } else {
                [[LENGTHS[time], rows, heads * 2], [LENGTHS[keys], rows, kdim.unwrap_or(heads * 2)]]
            },
            batch_axis_of(0): usize::from(!first),
            batch_axis_of(1): usize::from(!first),
            sequence: usize::from(first),
        }
        obeys_the_laws_grouped_and_placed(
            rows in 1..3usize, time in 0..3usize, groups in 1..3usize, kv_heads in 1..3usize, half in 1..3usize,
            window in option::of(1..9usize), alibi in any::<bool>(), rope in option::of(any::<bool>()),
            (bias, separate) in any::<(bool, bool)>(),
        ) {
            layer: {
                let heads = groups * kv_heads;
                let layer = MultiheadAttention::new(heads * 2 * half, heads).num_kv_heads(kv_heads).causal(true).window(window)
                    .alibi(alibi).bias(bias).separate(separate).need_weights(true);
                match rope {
                    Some(halves) => layer.rope(100.0, [Pairing::Neighbours, Pairing::Halves][usize::from(halves)]),
                    None => layer,
                }
            },
            input: [rows, LENGTHS[time], groups * kv_heads * 2 * half],
            sequence: 1,
        }
    }

    /// One head of one element, W_q = W_k = W_v = 1, W_o = 2, x = (0, a) with a = √ln 3: q = k = v = x.
    /// s = (0 0; 0 ln 3), p = (½ ½; ¼ ¾), o = (a/2, 3a/4), y = (a, 3a/2).
    /// For g = (1, 0): ∂W_o = a/2, ∂o = (2, 0), ∂v = (1, 1), ∂p = (0 2a; 0 0), ∂s = (−a/2 a/2; 0 0), ∂q = (a²/2, 0), ∂k = 0.
    /// ∂W_q = 0, ∂W_k = 0, ∂W_v = a, ∂x = (ln 3/2 + 1, 1).
    #[test]
    pub fn by_hand() {
        let mut layer = MultiheadAttention::<f64>::new(1, 1).bias(false);
        layer.weights[0].set(Tensor::from([[1.], [1.], [1.]])).unwrap();
        layer.out.weight.set(Tensor::from([[2.]])).unwrap();
        let a = 3f64.ln().sqrt();
        let x = Tensor::from_vec([1, 2, 1], vec![0., a]).unwrap();
        let (mut cache, mut y) = (AttentionCache::default(), Tensor::default());
        layer.apply_one(&x, &mut y, &mut cache, Context::frozen()).unwrap();
        let close = |got: &[f64], want: &[f64]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14), "{got:?} {want:?}");
        };
        close(y.data(), &[a, 1.5 * a]);
        let dy = Tensor::from_vec([1, 2, 1], vec![1., 0.]).unwrap();
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        layer.pull_one(Call::recorded(&x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx)).unwrap();
        close(grads.values(), &[0., 0., a, a / 2.]);
        close(dx.data(), &[3f64.ln() / 2. + 1., 1.]);
    }

    #[test]
    fn a_stream_gives_the_bits_of_the_whole() {
        let plain = || MultiheadAttention::<f32>::new(24, 4).causal(true);
        let layers = [
            plain(),
            plain().window(20),
            plain().num_kv_heads(2).rope(1e4, Pairing::Halves),
            plain().alibi(true).add_bias_kv(true).add_zero_attn(true),
        ];
        let x = Tensor::from_fn([2, 150, 24], |i| (i as f32 * 0.37).sin());
        for (which, layer) in layers.into_iter().enumerate() {
            let layer = layer.init(3).unwrap();
            let whole = layer.infer(&x).unwrap();
            for cuts in [&[1usize; 150][..], &[150], &[64, 1, 63, 22], &[5, 100, 45]] {
                let mut session = Session::new(&layer);
                let mut at = 0;
                for &length in cuts {
                    let piece = Tensor::from_fn([2, length, 24], |i| {
                        x.data()[(i / (length * 24) * 150 + at + i / 24 % length) * 24 + i % 24]
                    });
                    let y = session.stream(&piece).unwrap();
                    for (i, &v) in y.data().iter().enumerate() {
                        let from = (i / (length * 24) * 150 + at + i / 24 % length) * 24 + i % 24;
                        assert_eq!(v.to_bits(), whole.data()[from].to_bits(), "{which} {cuts:?} at {from}");
                    }
                    at += length;
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        type Layer = MultiheadAttention<f32>;
        let wrong: [(&str, Layer); 9] = [
            ("heads that divide embed_dim 4, got 3", Layer::new(4, 3)),
            ("from 1 to", Layer::new(0, 1)),
            ("from 1 to", Layer::new(4, 0)),
            ("from 1 to", Layer::new(usize::MAX, 1)),
            ("heads of keys that divide the 4 heads, got 3", Layer::new(4, 4).num_kv_heads(3)),
            ("a probability", Layer::new(4, 2).dropout(f64::NAN)),
            ("a window", Layer::new(4, 2).window(0)),
            ("kdim and vdim of self-attention", Layer::new(4, 2).kdim(3)),
            ("an even number", Layer::new(3, 1).rope(1e4, Pairing::Halves)),
        ];
        for (text, layer) in wrong {
            let error = layer.init(0).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let layer = Layer::new(4, 2).key_padding_mask(MaskKind::Boolean).init(0).unwrap();
        let x = Tensor::zeros([2, 3, 4]);
        let hidden = Tensor::from([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]);
        let error = layer.infer([&x, &hidden]).unwrap_err().to_string();
        assert_eq!(
            error,
            "MultiheadAttention: expected masks that leave every query a key, got none for query 0 of sample 1 in head 0"
        );
        let error = layer.infer([&x, &Tensor::zeros([2, 4])]).unwrap_err().to_string();
        assert_eq!(error, "MultiheadAttention: expected key_padding_mask [2, 3], got [2, 4]");
        let layer = Layer::new(4, 2).init(0).unwrap();
        let error = Session::new(&layer).stream(&x).unwrap_err().to_string();
        assert!(error.contains("expected causal(true) under streaming"), "{error}");
        let layer = Layer::new(4, 2).causal(true).init(0).unwrap();
        let mut session = Session::new(&layer);
        session.stream(&x).unwrap();
        assert!(session.stream(&Tensor::zeros([3, 1, 4])).is_err());
    }

    #[test]
    fn slopes_of_heads_that_are_no_power_of_two_are_filled_up() {
        assert_eq!(slopes::<f64>(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        let six = slopes::<f64>(6);
        assert_eq!(six[..4], slopes::<f64>(4));
        assert_eq!(six[4..], [0.5, 0.125]);
    }
}
