//! BERT for classification (Devlin et al., 2019).

use crate::renamed::{Names, Renamed};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Init, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_layers::{
    Add, Embedding, FeedForwardActivation, Flatten, Graph, LayerNorm, LearnedPosition, Linear, MaskKind,
    Narrow, Tanh, TransformerEncoderLayer,
};
use std::marker::PhantomData;

/// Word, position and token type embeddings, layers with their norms last, and a classifier of the first token. Parameters have the
/// names of Hugging Face's `BertForSequenceClassification`.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::Bert;
/// let model = Bert { layers: 2, ..Bert::new(60, 20, 32, 4, 3) }.build().init(1)?;
/// let (tokens, types) = (Tensor::<f32>::full([2, 10], 5.0), Tensor::zeros([2, 10]));
/// let outputs = model.infer_all([&tokens, &types, &Tensor::full([2, 10], 1.0)])?; // logits, hidden
/// assert_eq!((&outputs[0].shape()[..], &outputs[1].shape()[..]), (&[2, 3][..], &[2, 10, 32][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bert {
    /// Words that there are; the row of word 0 is that of padding.
    pub vocab: usize,
    /// The most positions.
    pub context: usize,
    /// Elements of a vector.
    pub embed: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Elements between the two maps of a layer.
    pub feed_forward: usize,
    /// Layers.
    pub layers: usize,
    /// Classes.
    pub classes: usize,
    /// The summand of the variance in norms.
    pub eps: f64,
    /// The activation between the two maps.
    pub activation: FeedForwardActivation,
    /// The probability of dropout.
    pub dropout: f64,
}

/// Where Hugging Face has what.
pub(crate) const NAMES: Names = Names {
    of: "bert",
    list: &[
        ("self_attn.q_proj_weight", &["attention", "self", "query", "weight"]),
        ("self_attn.k_proj_weight", &["attention", "self", "key", "weight"]),
        ("self_attn.v_proj_weight", &["attention", "self", "value", "weight"]),
        ("self_attn.q_proj_bias", &["attention", "self", "query", "bias"]),
        ("self_attn.k_proj_bias", &["attention", "self", "key", "bias"]),
        ("self_attn.v_proj_bias", &["attention", "self", "value", "bias"]),
        ("self_attn.out_proj.weight", &["attention", "output", "dense", "weight"]),
        ("self_attn.out_proj.bias", &["attention", "output", "dense", "bias"]),
        ("norm1.weight", &["attention", "output", "LayerNorm", "weight"]),
        ("norm1.bias", &["attention", "output", "LayerNorm", "bias"]),
        ("linear1.weight", &["intermediate", "dense", "weight"]),
        ("linear1.bias", &["intermediate", "dense", "bias"]),
        ("linear2.weight", &["output", "dense", "weight"]),
        ("linear2.bias", &["output", "dense", "bias"]),
        ("norm2.weight", &["output", "LayerNorm", "weight"]),
        ("norm2.bias", &["output", "LayerNorm", "bias"]),
    ],
};

/// y = 1 − x: what a mask of BERT's shows is what a mask of ours does not hide.
#[derive(Clone)]
pub(crate) struct Hidden<T>(PhantomData<T>);

impl<T: Scalar> Layer for Hidden<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let shown = x.data().iter();
        y.reset(*x.shape()).iter_mut().zip(shown).for_each(|(y, &x)| *y = T::ONE - x);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.reset(*call.x.shape()).fill(T::ZERO));
        Ok(())
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
    }
}

impl<T: Scalar> FromSpec<T> for Hidden<T> {
    const FACTS: Facts = Facts::new("OneMinus").family("models").formula("1 − x");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self(PhantomData))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Spec::new(Self::FACTS.kind), [[2, 3]])]
    }
}

impl Bert {
    /// Twelve layers with GELU and dropout of 0.1.
    #[must_use]
    pub fn new(vocab: usize, context: usize, embed: usize, heads: usize, classes: usize) -> Self {
        Self {
            vocab,
            context,
            embed,
            heads,
            feed_forward: embed.saturating_mul(4),
            layers: 12,
            classes,
            eps: 1e-12,
            activation: FeedForwardActivation::Gelu,
            dropout: 0.1,
        }
    }

    /// Tokens, types and mask of shown tokens, each (N, T) → `logits` (N, classes), `hidden` (N, T, embed).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Graph<T> {
        let e = self.embed;
        let init = Init::Normal { mean: 0.0, std: 0.02 };
        let mut graph = Graph::of();
        let (tokens, types, mask) = (graph.input("tokens"), graph.input("types"), graph.input("mask"));
        let words = Embedding::new(self.vocab, e).padding_idx(0).weight_init(init);
        let words = graph.add("bert.embeddings.word_embeddings", words, tokens);
        let positions = LearnedPosition::new(self.context, e);
        let placed = graph.add("bert.embeddings.position_embeddings", positions, words);
        let types_of = Embedding::new(2, e).weight_init(init);
        let types = graph.add("bert.embeddings.token_type_embeddings", types_of, types);
        let sum = graph.add("sum", Add::new(), [placed, types]);
        let mut x = graph.add("bert.embeddings.LayerNorm", LayerNorm::new(e).eps(self.eps), sum);
        let hidden = graph.add("hidden_tokens", Hidden(PhantomData), mask);
        for i in 0..self.layers {
            let layer = TransformerEncoderLayer::new(e, self.heads)
                .dim_feedforward(self.feed_forward)
                .dropout(self.dropout)
                .activation(self.activation)
                .layer_norm_eps(self.eps)
                .separate(true)
                .src_key_padding_mask(MaskKind::Boolean);
            let layer = Renamed { inner: layer, names: &NAMES };
            x = graph.add(format!("bert.encoder.layer.{i}"), layer, [x, hidden]);
        }
        let first = graph.add("first", Narrow::new(1, 0, 1), x);
        let first = graph.add("flat", Flatten::new(), first);
        let pooled = graph.add("bert.pooler.dense", Linear::new(e, e), first);
        let pooled = graph.add("pooled", Tanh::new(), pooled);
        let logits = graph.add("classifier", Linear::new(e, self.classes), pooled);
        graph.output("logits", logits);
        graph.output("hidden", x);
        graph
    }
}
