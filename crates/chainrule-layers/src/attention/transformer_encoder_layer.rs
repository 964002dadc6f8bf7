//! A layer of a transformer's encoder.
//!
//! ```text
//! norm last:   z = n₁(x + d(a(x)))   y = n₂(z + d(f(z)))
//! norm first:  z = x + d(a(n₁(x)))   y = z + d(f(n₂(z)))
//! ```
//!
//! with a self-attention, f two maps with an activation between, d dropout. The gradient is the chain rule over the parts:
//! ∂E/∂z from the second, ∂E/∂x from the first, each by its own file.
//!
//! Keeps what the parts keep, and z. Derivation: docs/layers/attention/transformer_encoder_layer.md.

use super::{
    AttentionCache, FeedForwardActivation, MaskKind, MultiheadAttention,
    feed_forward::{FeedForward, FeedForwardCache},
    settings::{Settings, settings},
    sublayer::{Sublayer, SublayerCache, all_zeros, not_recorded, route, route_gradients},
};
use crate::LayerNorm;
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Memory, Module, ModuleCall, Parameters, Params,
    ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};

const KIND: &str = "TransformerEncoderLayer";

/// Self-attention and two maps, each with dropout, a way around it and a layer norm. Vaswani et al., 2017; norms first: Xiong et al.,
/// 2020.
///
/// Options add inputs, in this order: [`TransformerEncoderLayer::src_mask`] and [`TransformerEncoderLayer::src_key_padding_mask`].
///
/// # Shapes
/// src and y (N, T, d_model), or (T, N, d_model) with `batch_first(false)`; masks (T, T) or (N H, T, T), and (N, T). Parameters have
/// PyTorch's names: `self_attn.in_proj_weight`, …, `linear1.weight`, `linear2.weight`, `norm1.weight`, `norm2.weight`, ….
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::TransformerEncoderLayer;
/// let layer = TransformerEncoderLayer::new(8, 2).dim_feedforward(32).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([4, 10, 8]))?;
/// assert_eq!(y.shape()[..], [4, 10, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct TransformerEncoderLayer<T = f32> {
    settings: Settings,
    causal: bool,
    separate: bool,
    src_mask: Option<MaskKind>,
    src_key_padding_mask: Option<MaskKind>,
    self_attn: MultiheadAttention<T>,
    feed: FeedForward<T>,
    norm1: LayerNorm<T>,
    norm2: LayerNorm<T>,
}

/// What [`TransformerEncoderLayer`] keeps, and its scratch memory.
pub struct EncoderLayerCache<T: Scalar> {
    recorded: bool,
    attention: SublayerCache<T, AttentionCache<T>>,
    feed: SublayerCache<T, FeedForwardCache<T>>,
    z: Tensor<T>,
    dz: Tensor<T>,
}

impl<T: Scalar> Default for EncoderLayerCache<T> {
    fn default() -> Self {
        Self {
            recorded: false,
            attention: SublayerCache::default(),
            feed: SublayerCache::default(),
            z: Tensor::default(),
            dz: Tensor::default(),
        }
    }
}

impl<T: Scalar> std::fmt::Debug for EncoderLayerCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderLayerCache").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

impl<T: Scalar> TransformerEncoderLayer<T> {
    /// A layer over vectors of `d_model` elements with `nhead` heads.
    pub fn new(d_model: usize, nhead: usize) -> Self {
        Self::of(Settings::new(d_model, nhead))
    }

    pub(super) fn of(settings: Settings) -> Self {
        Self {
            settings,
            causal: false,
            separate: false,
            src_mask: None,
            src_key_padding_mask: None,
            self_attn: settings.attention(),
            feed: settings.feed_forward(),
            norm1: settings.norm(),
            norm2: settings.norm(),
        }
    }

    /// Whether a position sees no later one.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        Self { causal, ..self }.built()
    }

    /// Whether the attention's maps have weights of their own, see [`MultiheadAttention::separate`].
    #[must_use]
    pub fn separate(self, separate: bool) -> Self {
        Self { separate, ..self }.built()
    }

    /// With a mask of pairs of positions as an input.
    #[must_use]
    pub fn src_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        Self { src_mask: kind.into(), ..self }.built()
    }

    /// With a mask of positions as an input.
    #[must_use]
    pub fn src_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        Self { src_key_padding_mask: kind.into(), ..self }.built()
    }

    /// Makes the parts that the settings ask for.
    fn built(self) -> Self {
        let Self { settings, causal, separate, src_mask, src_key_padding_mask, .. } = self;
        let attention = settings.attention().separate(separate).causal(causal).attn_mask(src_mask);
        let self_attn = attention.key_padding_mask(src_key_padding_mask);
        Self { causal, separate, src_mask, src_key_padding_mask, self_attn, ..Self::of(settings) }
    }

    /// The inputs of the attention among those of the layer.
    fn order(&self) -> ([usize; 3], usize) {
        let pairs = usize::from(self.src_mask.is_some());
        match (self.src_key_padding_mask.is_some(), self.src_mask.is_some()) {
            (true, true) => ([0, 2, 1], 3),
            _ => ([0, 1, 1], 1 + pairs + usize::from(self.src_key_padding_mask.is_some())),
        }
    }

    fn attention(&self) -> Sublayer<'_, T, MultiheadAttention<T>> {
        let Self { settings, self_attn: inner, norm1: norm, .. } = self;
        Sublayer { kind: KIND, inner, norm, norm_first: settings.norm_first, dropout: settings.dropout }
    }

    fn feed(&self) -> Sublayer<'_, T, FeedForward<T>> {
        let Self { settings, feed: inner, norm2: norm, .. } = self;
        Sublayer { kind: KIND, inner, norm, norm_first: settings.norm_first, dropout: settings.dropout }
    }
}

settings!(TransformerEncoderLayer);

impl<T: Scalar> Parameters for TransformerEncoderLayer<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.self_attn.list(&mut out.child("self_attn"));
        self.feed.list(out);
        self.norm1.list(&mut out.child("norm1"));
        self.norm2.list(&mut out.child("norm2"));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.self_attn.list_mut(&mut out.child("self_attn"));
        self.feed.list_mut(out);
        self.norm1.list_mut(&mut out.child("norm1"));
        self.norm2.list_mut(&mut out.child("norm2"));
    }

    fn validate(&self) -> Result<()> {
        self.settings.validate(KIND, &self.self_attn)
    }
}

impl<T: Scalar> Module for TransformerEncoderLayer<T> {
    type State = EncoderLayerCache<T>;

    fn inputs(&self) -> usize {
        self.order().1
    }

    fn differentiable_input(&self, input: usize) -> bool {
        let (order, inputs) = self.order();
        order[..inputs]
            .iter()
            .position(|&from| from == input)
            .is_none_or(|at| self.self_attn.differentiable_input(at))
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        let (order, count) = self.order();
        if inputs.len() != count {
            return Err(Error::shape(format!("{KIND}: expected {count} inputs, got {}", inputs.len())));
        }
        let routed: [Shape; 3] = order.map(|from| inputs.get(from).copied().unwrap_or_default());
        self.self_attn.output_shapes(&routed[..count]).map_err(|e| e.in_layer("self_attn"))?;
        Shape::new(&[inputs[0][..2].to_vec(), vec![self.settings.dim_feedforward]].concat())?;
        Ok(vec![inputs[0]])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut EncoderLayerCache<T>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = false;
        let (order, inputs) = self.order();
        let ([y], true) = (ys, xs.len() == inputs) else {
            return Err(Error::shape(format!(
                "{KIND}: expected {inputs} inputs and one output, got {}",
                xs.len()
            )));
        };
        self.validate()?;
        let EncoderLayerCache { attention, feed, z, .. } = cache;
        let routed = route(xs, &order[..inputs]);
        self.attention()
            .forward(&routed[..inputs], z, attention, cx.child(0))
            .map_err(|e| e.in_layer("self_attn"))?;
        self.feed().forward(&[z], y, feed, cx.child(1))?;
        cache.recorded = cx.recording();
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut EncoderLayerCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let (order, inputs) = self.order();
        let ([y], [dy], true) = (call.ys, call.dys, call.xs.len() == inputs && dxs.len() == inputs) else {
            return Err(Error::shape(format!("{KIND}: expected {inputs} inputs and one output")));
        };
        if !cache.recorded || cache.z.shape() != call.xs[0].shape() {
            return Err(not_recorded(KIND));
        }
        let Some(dy) = dy else {
            all_zeros(call.xs, dxs);
            return Ok(());
        };
        let EncoderLayerCache { attention, feed, z, dz, .. } = cache;
        self.feed().backward(&[z], (y, dy), feed, grads, &mut [Some(dz)])?; // dz
        let xs = route(call.xs, &order[..inputs]);
        let mut dxs = route_gradients(dxs, &order[..inputs]);
        self.attention().backward(&xs[..inputs], (z, dz), attention, grads, &mut dxs[..inputs])
    }

    fn remember(&self, cache: &mut EncoderLayerCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        self.self_attn.remember(&mut cache.attention.inner, &mut out.child("self_attn"))
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let (order, count) = self.order();
        if inputs.len() != count {
            return 0;
        }
        let routed: [Shape; 3] = order.map(|from| inputs.get(from).copied().unwrap_or_default());
        self.self_attn.cost(&routed[..count]).saturating_add(self.feed.cost(&inputs[..1]))
    }

    fn to_spec(&self) -> Spec {
        self.settings
            .spec(KIND)
            .with_unless(false, "causal", self.causal)
            .with_unless(false, "separate", self.separate)
            .with_unless(None, "src_mask", self.src_mask)
            .with_unless(None, "src_key_padding_mask", self.src_key_padding_mask)
    }
}

impl<T: Scalar> FromSpec<T> for TransformerEncoderLayer<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("n₂(z + f(z)), z = n₁(x + attention(x))")
        .page("layers/attention/transformer_encoder_layer.md")
        .torch("TransformerEncoderLayer");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layer = Self {
            causal: args.or("causal", false)?,
            separate: args.or("separate", false)?,
            src_mask: args.optional("src_mask")?,
            src_key_padding_mask: args.optional("src_key_padding_mask")?,
            ..Self::of(Settings::from_args(args)?)
        };
        Ok(layer.built())
    }

    fn examples() -> Vec<Example> {
        let masked = Self::new(6, 3)
            .dim_feedforward(5)
            .dropout(0.0)
            .activation(FeedForwardActivation::Gelu)
            .norm_first(true)
            .bias(false)
            .src_mask(MaskKind::Additive)
            .src_key_padding_mask(MaskKind::Additive);
        let plain = Self::new(4, 2).dim_feedforward(8);
        let bench = Self::new(256, 4).dim_feedforward(1024).causal(true);
        vec![
            Example::new(masked.to_spec(), [Shape::from([2, 3, 6]), [6, 3, 3].into(), [2, 3].into()]),
            Example::new(plain.to_spec(), [[2, 3, 4]]),
            Example::bench(bench.to_spec(), [[8, 128, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Call;
    use chainrule_gradcheck::laws;
    use chainrule_gradcheck::laws::Values::{Hidden, Normal};

    laws! {
        #![cases = 16]
        obeys_the_laws(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], heads in 1..3usize, hidden in 1..5usize,
            (norm_first, bias, first) in any::<(bool, bool, bool)>(), act in 0..3usize, p in prop_oneof![Just(0.0), 0.0..0.5f64],
        ) {
            layer: TransformerEncoderLayer::new(heads * 2, heads).dim_feedforward(hidden).norm_first(norm_first).bias(bias)
                .batch_first(first).dropout(p).layer_norm_eps(0.1)
                .activation([FeedForwardActivation::Relu, FeedForwardActivation::Gelu, FeedForwardActivation::GeluTanh][act]),
            input: if first { [rows, time, heads * 2] } else { [time, rows, heads * 2] },
            batch_axis_of(0): usize::from(!first),
            refuses_streams: true,
            wrong: [rows, time, heads * 2 + 1],
            wrong: [time, heads * 2],
        }
        obeys_the_laws_with_masks(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], heads in 1..3usize, norm_first in any::<bool>(),
            boolean in any::<[bool; 2]>(),
        ) {
            layer: TransformerEncoderLayer::new(heads * 2, heads).dim_feedforward(3).norm_first(norm_first).layer_norm_eps(0.1)
                .src_mask([MaskKind::Additive, MaskKind::Boolean][usize::from(boolean[0])])
                .src_key_padding_mask([MaskKind::Additive, MaskKind::Boolean][usize::from(boolean[1])]),
            inputs: [vec![rows, time, heads * 2], vec![time, time], vec![rows, time]],
            values_of(1): if boolean[0] { Hidden } else { Normal },
            values_of(2): if boolean[1] { Hidden } else { Normal },
            batch_axis_of(1): None,
            refuses_streams: true,
        }
        obeys_the_laws_causal(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], heads in 1..3usize, norm_first in any::<bool>(),
        ) {
            layer: TransformerEncoderLayer::new(heads * 2, heads).dim_feedforward(3).norm_first(norm_first).causal(true)
                .layer_norm_eps(0.1).src_key_padding_mask(MaskKind::Boolean),
            inputs: [vec![rows, time, heads * 2], vec![rows, time]],
            values_of(1): Hidden,
            sequence: 1,
            sequence_of(1): 1,
        }
    }

    /// d_model = 2 and one position: the only weight is 1, so that a(x) = W_o W_v x. With W_v = W_o = 1 (the identity), W₁ = (1 0),
    /// W₂ = (1; 0), no biases, norms first, ε = 0 and no affine change: n(x) = ±(1, −1) for x₁ ≷ x₂.
    /// x = (3, 1): n = (1, −1), z = (4, 0), n = (1, −1), f = (relu(1), 0) = (1, 0), y = (5, 0).
    /// The derivative of n is 0 for two elements: ∂x = g. Of W₂, ∂ = g relu(1)ᵀ; for g = (2, 3): (2; 3).
    #[test]
    pub fn by_hand() {
        let mut layer =
            TransformerEncoderLayer::<f64>::new(2, 1).dim_feedforward(1).norm_first(true).bias(false);
        layer = layer.layer_norm_eps(0.0);
        layer.visit_mut(&mut |path, p| {
            let values: &[f64] = match path.to_string().as_str() {
                "self_attn.in_proj_weight" => &[0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 1.],
                "self_attn.out_proj.weight" => &[1., 0., 0., 1.],
                "linear1.weight" | "linear2.weight" => &[1., 0.],
                "norm1.weight" | "norm2.weight" => &[1., 1.],
                other => panic!("no parameter `{other}`"),
            };
            p.set(Tensor::from_vec(*p.shape(), values.to_vec()).unwrap()).unwrap();
        });
        let x = Tensor::from_vec([1, 1, 2], vec![3., 1.]).unwrap();
        let (mut cache, mut y) = (EncoderLayerCache::default(), Tensor::default());
        layer.apply_one(&x, &mut y, &mut cache, Context::frozen()).unwrap();
        assert_eq!(y.data(), [5., 0.]);
        let dy = Tensor::from_vec([1, 1, 2], vec![2., 3.]).unwrap();
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        layer.pull_one(Call::recorded(&x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert!(dx.data().iter().zip([2., 3.]).all(|(g, w)| (g - w).abs() < 1e-12), "{dx:?}");
        layer.visit(&mut |path, p| {
            if path.to_string() == "linear2.weight" {
                assert_eq!(grads.get(p).unwrap(), [2., 3.]);
            }
        });
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        type Layer = TransformerEncoderLayer<f32>;
        let wrong = [
            Layer::new(4, 3),
            Layer::new(0, 1),
            Layer::new(4, 2).dim_feedforward(0),
            Layer::new(4, 2).dim_feedforward(usize::MAX),
            Layer::new(4, 2).dropout(1.5),
            Layer::new(4, 2).layer_norm_eps(f64::NAN),
        ];
        for layer in wrong {
            assert!(layer.init(0).is_err());
        }
    }
}
