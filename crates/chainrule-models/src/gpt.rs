//! A GPT-like decoder (Radford et al., 2019).

use crate::renamed::{Names, Renamed};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Memory, Module, ModuleCall,
    Param, Parameters, Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
    tensor::kernels::gemm::{Epilogue, Mat, MatMut, PackedB, matmul, matmul_steady},
};
use chainrule_layers::{
    Dropout, Embedding, FeedForwardActivation, LayerNorm, LearnedPosition, TransformerEncoderLayer,
};
use std::fmt;

/// Token and position embeddings, causal layers with their norms first, and logits of the next token, by the table of tokens itself
/// if it is tied. Parameters have the names of nanoGPT; a tied table stands under `transformer.wte.weight` alone.
///
/// ```
/// use chainrule_core::{Module, Parameters, Session, Tensor};
/// use chainrule_models::Gpt;
/// let model = Gpt { layers: 2, ..Gpt::new(50, 16, 32, 4) }.build().init(1)?;
/// let tokens = Tensor::<f32>::from([[3.0, 1.0, 4.0]]);
/// let whole = model.infer(&tokens)?;
/// assert_eq!(whole.shape()[..], [1, 3, 50]);
///
/// // Token by token, with a cache of keys and values: the same bits.
/// let mut session = Session::new(&model);
/// for t in 0..3 {
///     let y = session.stream(&Tensor::from([[tokens.data()[t]]]))?;
///     assert_eq!(y.data(), &whole.data()[t * 50..(t + 1) * 50]);
/// }
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gpt {
    /// Tokens that there are.
    pub vocab: usize,
    /// The most positions.
    pub context: usize,
    /// Elements of a vector.
    pub embed: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Whether maps and norms have biases.
    pub bias: bool,
    /// Whether the logits are made by the table of tokens.
    pub tied: bool,
    /// The activation between the two maps of a layer.
    pub activation: FeedForwardActivation,
    /// The probability of dropout.
    pub dropout: f64,
    /// Whether backward computes each layer again instead of keeping its cache: less memory for the time of one more forward pass, and
    /// the same bits. See [`Recompute`](chainrule_layers::Recompute).
    pub recompute: bool,
}

/// Where nanoGPT has what.
pub(crate) const NAMES: Names = Names {
    of: "nanogpt",
    list: &[
        ("self_attn.in_proj_weight", &["attn", "c_attn", "weight"]),
        ("self_attn.in_proj_bias", &["attn", "c_attn", "bias"]),
        ("self_attn.out_proj.weight", &["attn", "c_proj", "weight"]),
        ("self_attn.out_proj.bias", &["attn", "c_proj", "bias"]),
        ("norm1.weight", &["ln_1", "weight"]),
        ("norm1.bias", &["ln_1", "bias"]),
        ("linear1.weight", &["mlp", "c_fc", "weight"]),
        ("linear1.bias", &["mlp", "c_fc", "bias"]),
        ("linear2.weight", &["mlp", "c_proj", "weight"]),
        ("linear2.bias", &["mlp", "c_proj", "bias"]),
        ("norm2.weight", &["ln_2", "weight"]),
        ("norm2.bias", &["ln_2", "bias"]),
    ],
};

impl Gpt {
    /// Twelve layers with the approximated GELU, biases, a tied table and no dropout.
    #[must_use]
    pub fn new(vocab: usize, context: usize, embed: usize, heads: usize) -> Self {
        Self {
            vocab,
            context,
            embed,
            heads,
            layers: 12,
            bias: true,
            tied: true,
            activation: FeedForwardActivation::GeluTanh,
            dropout: 0.0,
            recompute: false,
        }
    }

    /// Tokens (N, T) → logits (N, T, vocab).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> GptModel<T> {
        let e = self.embed;
        let normal = |std| Init::Normal { mean: 0.0, std };
        let layers = self.layers.min(MOST);
        let layer = || {
            let mut layer = TransformerEncoderLayer::new(e, self.heads)
                .dim_feedforward(e.saturating_mul(4))
                .dropout(self.dropout)
                .activation(self.activation)
                .norm_first(true)
                .bias(self.bias)
                .causal(true);
            // Of the maps that add to the residual, smaller with the depth, as GPT-2's.
            let residual = 0.02 / (2.0 * self.layers.max(1) as f64).sqrt();
            layer.visit_mut(&mut |path, p| {
                if p.shape().len() == 2 {
                    let path = path.to_string();
                    let last = path.contains("out_proj") || path.contains("linear2");
                    p.set_initializer(normal(if last { residual } else { 0.02 }));
                } else if path.name() == "bias" || path.name() == "in_proj_bias" {
                    p.set_initializer(Init::ZEROS);
                }
            });
            Renamed { inner: layer, names: &NAMES }
        };
        GptModel {
            of: self.clone(),
            wte: Embedding::new(self.vocab, e).weight_init(normal(0.02)),
            wpe: LearnedPosition::new(self.context, e),
            drop: Dropout::new(self.dropout),
            layers: (0..layers).map(|_| layer()).collect(),
            names: (0..layers).map(|i| i.to_string()).collect(),
            ln_f: LayerNorm::new(e).bias(self.bias),
            head: (!self.tied).then(|| Param::new("weight", [self.vocab, e], normal(0.02))),
        }
    }
}

/// The most layers.
const MOST: usize = 1 << 12;
const KIND: &str = "Gpt";

/// What [`Gpt::build`] makes.
#[derive(Clone)]
pub struct GptModel<T: Scalar = f32> {
    of: Gpt,
    wte: Embedding<T>,
    wpe: LearnedPosition<T>,
    drop: Dropout<T>,
    layers: Vec<Renamed<TransformerEncoderLayer<T>>>,
    names: Vec<String>,
    ln_f: LayerNorm<T>,
    /// The weight of the logits, if it is not the table.
    head: Option<Param<T>>,
}

impl<T: Scalar> fmt::Debug for GptModel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As a tree of its layers; its spec has the settings alone.
impl<T: Scalar> fmt::Display for GptModel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut spec = self.spec();
        for (name, layer) in [
            ("transformer.wte", self.wte.to_spec()),
            ("transformer.wpe", self.wpe.to_spec()),
            ("transformer.drop", self.drop.to_spec()),
        ] {
            spec = spec.child(name, layer);
        }
        for (layer, name) in self.layers.iter().zip(&self.names) {
            spec = spec.child(format!("transformer.h.{name}"), layer.inner.to_spec());
        }
        spec.child("transformer.ln_f", self.ln_f.to_spec()).fmt(f)
    }
}

/// What a [`GptModel`] keeps.
pub struct GptCache<T: Scalar> {
    recorded: Option<Shape>,
    wte: <Embedding<T> as Layer>::Cache,
    wpe: usize,
    drop: <Dropout<T> as Layer>::Cache,
    /// Of the layers; one that all share, if they are computed again.
    states: Vec<<TransformerEncoderLayer<T> as Module>::State>,
    /// The context of the recorded pass, and the layer whose pass a shared state holds.
    cx: Context,
    holds: usize,
    ln_f: <LayerNorm<T> as Layer>::Cache,
    embedded: Tensor<T>,
    placed: Tensor<T>,
    /// The inputs of the layers, and that of the last norm.
    xs: Vec<Tensor<T>>,
    h: Tensor<T>,
    /// An output that is computed again.
    again: [Tensor<T>; 1],
    panels: PackedB<T>,
    packed: Option<[u64; 2]>,
    between: [Tensor<T>; 2],
}

impl<T: Scalar> Default for GptCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            wte: Default::default(),
            wpe: 0,
            drop: Default::default(),
            states: Vec::new(),
            cx: Context::infer(),
            holds: 0,
            ln_f: Default::default(),
            embedded: Tensor::default(),
            placed: Tensor::default(),
            xs: Vec::new(),
            h: Tensor::default(),
            again: [Tensor::default()],
            panels: PackedB::new(),
            packed: None,
            between: [Tensor::default(), Tensor::default()],
        }
    }
}

impl<T: Scalar> GptModel<T> {
    /// The weight of the logits.
    fn weight(&self) -> &Param<T> {
        let mut table = None;
        self.wte.list(&mut Params::new(&mut |_, p| table = Some(p)));
        self.head.as_ref().or(table).expect("an embedding has a table")
    }

    /// Whether the layers share a state: in a stream each remembers its own sequence.
    fn shares(&self, cx: Context) -> bool {
        self.of.recompute && !cx.streaming()
    }

    /// The shape of the logits; layers check theirs by themselves.
    fn logits_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let &[_, _] = input else {
            return Err(Error::shape(format!("{KIND}: expected tokens (N, T), got {input:?}")));
        };
        self.wpe.output_shape(&self.wte.output_shape(input)?)?;
        Shape::new(input)?.push(self.of.vocab)
    }
}

impl<T: Scalar> Layer for GptModel<T> {
    type T = T;
    type Cache = GptCache<T>;

    fn check(&self) -> Result<()> {
        if !(1..=MOST).contains(&self.of.layers) {
            return Err(Error::value(format!("{KIND}: expected 1 to {MOST} layers, got {}", self.of.layers)));
        }
        self.wte.validate().map_err(|e| e.in_layer("transformer.wte"))?;
        self.wpe.validate().map_err(|e| e.in_layer("transformer.wpe"))?;
        self.drop.validate().map_err(|e| e.in_layer("transformer.drop"))?;
        self.layers[0].validate().map_err(|e| e.in_layer("transformer.h.0"))?;
        self.ln_f.validate().map_err(|e| e.in_layer("transformer.ln_f"))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let shape = self.logits_shape(input)?;
        self.layers[0].output_shapes(&[self.wte.output_shape(input)?])?;
        Ok(shape)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut GptCache<T>, cx: Context) -> Result<()> {
        cache.recorded = None;
        let shape = self.logits_shape(x.shape())?;
        let GptCache { wte, wpe, drop, states, ln_f, embedded, placed, xs, h, panels, packed, .. } = cache;
        self.wte.forward(x, embedded, wte, cx.child(0))?;
        self.wpe.forward(embedded, placed, wpe, cx.child(1))?;
        let n = self.layers.len();
        xs.resize_with(n + 1, Tensor::default);
        states.resize_with(if self.shares(cx) { 1 } else { n }, Default::default);
        self.drop.forward(placed, &mut xs[0], drop, cx.child(2))?;
        let last = states.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            let (x, y) = xs.split_at_mut(i + 1);
            layer
                .apply(&[&x[i]], &mut y[..1], &mut states[i.min(last)], cx.child(3 + i))
                .map_err(|e| e.in_layer(format!("transformer.h.{i}")))?;
        }
        self.ln_f.forward(&xs[n], h, ln_f, cx.child(3 + n))?;
        let weight = self.weight();
        let (vocab, e) = (self.of.vocab, weight.shape()[1]);
        if *packed != Some(weight.version()) {
            *packed = None;
            panels.pack(Mat::new(weight.value()?, vocab, e).t());
            *packed = Some(weight.version());
        }
        let rows = x.len();
        let y = MatMut::new(y.reset(shape), rows, vocab);
        let h = Mat::new(h.data(), rows, e);
        matmul_steady(T::ONE, h, &*panels, T::ZERO, y, Epilogue::default()); // Y = H Wᵀ
        (cache.cx, cache.holds) = (cx, n - 1);
        cache.recorded = cx.recording().then_some(*x.shape());
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut GptCache<T>,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if cache.recorded != Some(*call.x.shape()) {
            return Err(Error::not_recorded(format!(
                "{KIND}: expected the cache of a recorded forward of these tokens"
            )));
        }
        let GptCache {
            wte,
            wpe,
            drop,
            states,
            cx,
            holds,
            ln_f,
            embedded,
            placed,
            xs,
            h,
            again,
            between: [d, next],
            ..
        } = cache;
        let weight = self.weight();
        let (rows, vocab, e, n) = (call.x.len(), self.of.vocab, weight.shape()[1], self.layers.len());
        let dy = Mat::new(call.dy.data(), rows, vocab);
        if let Some(dw) = grads.of(weight) {
            matmul(T::ONE, dy.t(), Mat::new(h.data(), rows, e), T::ONE, MatMut::new(dw, vocab, e)); // dW += dYᵀ H
        }
        let dh = next.reset(*h.shape());
        matmul(T::ONE, dy, Mat::new(weight.value()?, vocab, e), T::ZERO, MatMut::new(dh, rows, e)); // dH = dY W
        self.ln_f.backward(Call::recorded(&xs[n], h, next)?, ln_f, grads, Some(d))?;
        for i in (0..n).rev() {
            let (dys, inputs) = ([Some(&*d)], [&xs[i]]);
            let shared = self.shares(*cx);
            if shared && *holds != i {
                *holds = n; // none, should it fail
                self.layers[i].apply(&inputs, again, &mut states[0], cx.child(3 + i))?;
                *holds = i;
            }
            let call = ModuleCall::recorded(&inputs, &xs[i + 1..i + 2], &dys)?;
            self.layers[i].pull(call, &mut states[if shared { 0 } else { i }], grads, &mut [Some(next)])?;
            std::mem::swap(d, next);
        }
        self.drop.backward(Call::recorded(placed, &xs[0], d)?, drop, grads, Some(next))?;
        self.wpe.backward(Call::recorded(embedded, placed, next)?, wpe, grads, Some(d))?;
        self.wte.backward(Call::recorded(call.x, embedded, d)?, wte, grads, None)?;
        dx.into_iter().for_each(|dx| dx.reset(*call.x.shape()).fill(T::ZERO));
        Ok(())
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        {
            let mut out = out.child("transformer");
            self.wte.list(&mut out.child("wte"));
            self.wpe.list(&mut out.child("wpe"));
            let mut layers = out.child("h");
            for (layer, name) in self.layers.iter().zip(&self.names) {
                layer.list(&mut layers.child(name));
            }
            self.ln_f.list(&mut out.child("ln_f"));
        }
        self.head.iter().for_each(|head| out.child("lm_head").add(head));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        {
            let mut out = out.child("transformer");
            self.wte.list_mut(&mut out.child("wte"));
            self.wpe.list_mut(&mut out.child("wpe"));
            let mut layers = out.child("h");
            for (layer, name) in self.layers.iter_mut().zip(&self.names) {
                layer.list_mut(&mut layers.child(name));
            }
            self.ln_f.list_mut(&mut out.child("ln_f"));
        }
        self.head.iter_mut().for_each(|head| out.child("lm_head").add(head));
    }

    fn memory(&self, cache: &mut GptCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        cache.states.resize_with(self.layers.len(), Default::default);
        let mut out = out.child("transformer");
        self.wpe.memory(&mut cache.wpe, &mut out.child("wpe"))?;
        let mut out = out.child("h");
        for ((layer, name), state) in self.layers.iter().zip(&self.names).zip(&mut cache.states) {
            layer.remember(state, &mut out.child(name))?;
        }
        Ok(())
    }

    fn spec(&self) -> Spec {
        let Gpt { vocab, context, embed, heads, layers, bias, tied, activation, dropout, recompute } =
            self.of;
        Spec::new(KIND)
            .with("vocab", vocab)
            .with("context", context)
            .with("embed", embed)
            .with("heads", heads)
            .with("layers", layers)
            .with_unless(true, "bias", bias)
            .with_unless(true, "tied", tied)
            .with_unless(FeedForwardActivation::GeluTanh, "activation", activation)
            .with_unless(0.0, "dropout", dropout)
            .with_unless(false, "recompute", recompute)
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(embedded) = self.wte.output_shape(input) else { return 0 };
        let layers = self.layers.iter().fold(0u64, |n, layer| n.saturating_add(layer.cost(&[embedded])));
        let head = embedded.iter().fold(self.of.vocab as u64, |n, &axis| n.saturating_mul(axis as u64));
        layers.saturating_add(head)
    }
}

impl<T: Scalar> FromSpec<T> for GptModel<T> {
    const FACTS: Facts = Facts::new(KIND).family("models").formula("logits of the next token");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let sizes =
            Gpt::new(args.get("vocab")?, args.get("context")?, args.get("embed")?, args.get("heads")?);
        let gpt = Gpt {
            layers: args.or("layers", 12)?,
            bias: args.or("bias", true)?,
            tied: args.or("tied", true)?,
            activation: args.or("activation", FeedForwardActivation::GeluTanh)?,
            dropout: args.or("dropout", 0.0)?,
            recompute: args.or("recompute", false)?,
            ..sizes
        };
        Ok(gpt.build())
    }

    fn examples() -> Vec<Example> {
        let small = Gpt { layers: 2, ..Gpt::new(6, 8, 4, 2) };
        let other = Gpt {
            bias: false,
            tied: false,
            activation: FeedForwardActivation::Relu,
            dropout: 0.1,
            recompute: true,
            ..small.clone()
        };
        [small, other].map(|gpt| Example::new(gpt.build::<T>().spec(), [[2, 5]]).ids(6)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 6]
        obeys_the_laws(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], tied in any::<bool>(), bias in any::<bool>(),
            recompute in any::<bool>(), dropout in prop_oneof![Just(0.0), 0.0..0.5f64],
        ) {
            layer: Gpt { layers: 2, tied, bias, recompute, dropout, ..Gpt::new(6, 8, 4, 2) }.build::<T>(),
            input: [rows, time],
            values: Values::Indices(0..6),
            sequence: 1,
            wrong: [rows, 9],
        }
    }
}
