//! A layer of a transformer's decoder.
//!
//! ```text
//! norm last:   z = n₁(x + d(a(x)))   w = n₂(z + d(c(z, m)))   y = n₃(w + d(f(w)))
//! norm first:  z = x + d(a(n₁(x)))   w = z + d(c(n₂(z), m))   y = w + d(f(n₃(w)))
//! ```
//!
//! with a self-attention, c attention over a memory m, f two maps with an activation between, d dropout. The gradient is the chain
//! rule over the parts, from the last to the first; ∂E/∂m comes from c alone.
//!
//! Keeps what the parts keep, z and w. Derivation: docs/layers/attention/transformer_decoder_layer.md.

use super::{
    AttentionCache, FeedForwardActivation, MaskKind, MultiheadAttention,
    feed_forward::{FeedForward, FeedForwardCache},
    settings::{Settings, settings},
    sublayer::{MOST, Sublayer, SublayerCache, all_zeros, not_recorded, route, route_gradients},
};
use crate::LayerNorm;
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Memory, Module, ModuleCall, Parameters, Params,
    ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};

const KIND: &str = "TransformerDecoderLayer";

/// Self-attention, attention over a memory, and two maps, each with dropout, a way around it and a layer norm. Vaswani et al., 2017.
///
/// Inputs are tgt and memory, and in this order, if they are asked for, [`TransformerDecoderLayer::tgt_mask`],
/// [`TransformerDecoderLayer::memory_mask`], [`TransformerDecoderLayer::tgt_key_padding_mask`] and
/// [`TransformerDecoderLayer::memory_key_padding_mask`]. Under [`Context::stream`], a causal layer takes tgt in pieces, and all of the
/// memory with each.
///
/// # Shapes
/// tgt and y (N, T, d_model), memory (N, S, d_model), or (T, N, d_model) and (S, N, d_model) with `batch_first(false)`; masks (T, T)
/// or (N H, T, T), (T, S) or (N H, T, S), (N, T), and (N, S). Parameters have PyTorch's names: `self_attn.in_proj_weight`,
/// `multihead_attn.in_proj_weight`, …, `linear1.weight`, `linear2.weight`, `norm1.weight`, `norm2.weight`, `norm3.weight`, ….
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::TransformerDecoderLayer;
/// let layer = TransformerDecoderLayer::new(8, 2).dim_feedforward(32).causal(true).init(1)?;
/// let y = layer.infer([&Tensor::<f32>::zeros([4, 10, 8]), &Tensor::zeros([4, 6, 8])])?;
/// assert_eq!(y.shape()[..], [4, 10, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct TransformerDecoderLayer<T = f32> {
    settings: Settings,
    causal: bool,
    /// Of tgt, of memory, and of the positions of both.
    masks: [Option<MaskKind>; 4],
    self_attn: MultiheadAttention<T>,
    multihead_attn: MultiheadAttention<T>,
    feed: FeedForward<T>,
    norms: [LayerNorm<T>; 3],
}

/// What [`TransformerDecoderLayer`] keeps, and its scratch memory.
pub struct DecoderLayerCache<T: Scalar> {
    recorded: bool,
    attention: SublayerCache<T, AttentionCache<T>>,
    cross: SublayerCache<T, AttentionCache<T>>,
    feed: SublayerCache<T, FeedForwardCache<T>>,
    z: Tensor<T>,
    w: Tensor<T>,
    dz: Tensor<T>,
    dw: Tensor<T>,
}

impl<T: Scalar> Default for DecoderLayerCache<T> {
    fn default() -> Self {
        Self {
            recorded: false,
            attention: SublayerCache::default(),
            cross: SublayerCache::default(),
            feed: SublayerCache::default(),
            z: Tensor::default(),
            w: Tensor::default(),
            dz: Tensor::default(),
            dw: Tensor::default(),
        }
    }
}

impl<T: Scalar> std::fmt::Debug for DecoderLayerCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderLayerCache").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

/// Inputs of a part among those of the layer, and how many there are.
type Order = ([usize; 4], usize);

impl<T: Scalar> TransformerDecoderLayer<T> {
    /// A layer over vectors of `d_model` elements with `nhead` heads.
    pub fn new(d_model: usize, nhead: usize) -> Self {
        Self::of(Settings::new(d_model, nhead))
    }

    pub(super) fn of(settings: Settings) -> Self {
        Self {
            settings,
            causal: false,
            masks: [None; 4],
            self_attn: settings.attention(),
            multihead_attn: settings.attention().memory(true),
            feed: settings.feed_forward(),
            norms: std::array::from_fn(|_| settings.norm()),
        }
    }

    /// Whether a position of tgt sees no later one.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        Self { causal, ..self }.built()
    }

    fn with_mask(mut self, which: usize, kind: Option<MaskKind>) -> Self {
        self.masks[which] = kind;
        self.built()
    }

    /// With a mask of pairs of positions of tgt as an input.
    #[must_use]
    pub fn tgt_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(0, kind.into())
    }

    /// With a mask of pairs of a position of tgt and one of memory as an input.
    #[must_use]
    pub fn memory_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(1, kind.into())
    }

    /// With a mask of positions of tgt as an input.
    #[must_use]
    pub fn tgt_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(2, kind.into())
    }

    /// With a mask of positions of memory as an input.
    #[must_use]
    pub fn memory_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(3, kind.into())
    }

    /// Makes the parts that the settings ask for.
    fn built(self) -> Self {
        let Self { settings, causal, masks, .. } = self;
        let [tgt, memory, tgt_keys, memory_keys] = masks;
        let self_attn = settings.attention().causal(causal).attn_mask(tgt).key_padding_mask(tgt_keys);
        let multihead_attn =
            settings.attention().memory(true).attn_mask(memory).key_padding_mask(memory_keys);
        Self { causal, masks, self_attn, multihead_attn, ..Self::of(settings) }
    }

    /// The inputs of the self-attention and of that over the memory, whose first is z, and how many the layer has.
    fn orders(&self) -> (Order, Order, usize) {
        let mut inputs = 2;
        let at = self.masks.map(|mask| {
            mask.map(|_| {
                inputs += 1;
                inputs - 1
            })
        });
        let order = |first: &[usize], masks: [Option<usize>; 2]| {
            let (mut order, mut count) = ([0; 4], 0);
            for &from in first.iter().chain(masks.iter().flatten()) {
                order[count] = from;
                count += 1;
            }
            (order, count)
        };
        (order(&[0], [at[2], at[0]]), order(&[0, 1], [at[3], at[1]]), inputs)
    }

    fn sublayer<'m, M>(&'m self, inner: &'m M, norm: usize) -> Sublayer<'m, T, M> {
        let Settings { norm_first, dropout, .. } = self.settings;
        Sublayer { kind: KIND, inner, norm: &self.norms[norm], norm_first, dropout }
    }
}

settings!(TransformerDecoderLayer);

impl<T: Scalar> Parameters for TransformerDecoderLayer<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.self_attn.list(&mut out.child("self_attn"));
        self.multihead_attn.list(&mut out.child("multihead_attn"));
        self.feed.list(out);
        for (norm, name) in self.norms.iter().zip(["norm1", "norm2", "norm3"]) {
            norm.list(&mut out.child(name));
        }
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.self_attn.list_mut(&mut out.child("self_attn"));
        self.multihead_attn.list_mut(&mut out.child("multihead_attn"));
        self.feed.list_mut(out);
        for (norm, name) in self.norms.iter_mut().zip(["norm1", "norm2", "norm3"]) {
            norm.list_mut(&mut out.child(name));
        }
    }

    fn validate(&self) -> Result<()> {
        self.settings.validate(KIND, &self.self_attn)?;
        self.multihead_attn.validate().map_err(|e| e.in_layer("multihead_attn"))
    }
}

/// The shapes of a part's inputs.
fn shapes_of(inputs: &[Shape], (order, _): Order) -> [Shape; 4] {
    order.map(|from| inputs.get(from).copied().unwrap_or_default())
}

impl<T: Scalar> Module for TransformerDecoderLayer<T> {
    type State = DecoderLayerCache<T>;

    fn inputs(&self) -> usize {
        self.orders().2
    }

    fn differentiable_input(&self, input: usize) -> bool {
        let (own, cross, _) = self.orders();
        let of = |(order, count): Order, part: &MultiheadAttention<T>| {
            let at = order[..count].iter().position(|&from| from == input);
            at.is_none_or(|at| part.differentiable_input(at))
        };
        of(own, &self.self_attn) && of(cross, &self.multihead_attn)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        let (own, cross, count) = self.orders();
        if inputs.len() != count {
            return Err(Error::shape(format!("{KIND}: expected {count} inputs, got {}", inputs.len())));
        }
        let of_own = shapes_of(inputs, own);
        self.self_attn.output_shapes(&of_own[..own.1]).map_err(|e| e.in_layer("self_attn"))?;
        let of_cross = shapes_of(inputs, cross);
        self.multihead_attn.output_shapes(&of_cross[..cross.1]).map_err(|e| e.in_layer("multihead_attn"))?;
        Shape::new(&[inputs[0][..2].to_vec(), vec![self.settings.dim_feedforward]].concat())?;
        Ok(vec![inputs[0]])
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut DecoderLayerCache<T>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = false;
        let (own, cross, inputs) = self.orders();
        let ([y], true) = (ys, xs.len() == inputs) else {
            return Err(Error::shape(format!(
                "{KIND}: expected {inputs} inputs and one output, got {}",
                xs.len()
            )));
        };
        self.validate()?;
        let DecoderLayerCache { attention, cross: of_cross, feed, z, w, .. } = cache;
        self.sublayer(&self.self_attn, 0)
            .forward(&route(xs, &own.0[..own.1])[..own.1], z, attention, cx.child(0))
            .map_err(|e| e.in_layer("self_attn"))?;
        let mut routed = route(xs, &cross.0[..cross.1]);
        routed[0] = z;
        self.sublayer(&self.multihead_attn, 1)
            .forward(&routed[..cross.1], w, of_cross, cx.child(1))
            .map_err(|e| e.in_layer("multihead_attn"))?;
        self.sublayer(&self.feed, 2).forward(&[w], y, feed, cx.child(2))?;
        cache.recorded = cx.recording();
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut DecoderLayerCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let (own, cross, inputs) = self.orders();
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
        let DecoderLayerCache { attention, cross: of_cross, feed, z, w, dz, dw, .. } = cache;
        self.sublayer(&self.feed, 2).backward(&[w], (y, dy), feed, grads, &mut [Some(dw)])?; // dw
        let mut xs: [&Tensor<T>; MOST] = route(call.xs, &cross.0[..cross.1]);
        xs[0] = z;
        {
            let mut dxs = route_gradients(dxs, &cross.0[..cross.1]);
            dxs[0] = Some(dz);
            let part = self.sublayer(&self.multihead_attn, 1);
            part.backward(&xs[..cross.1], (w, dw), of_cross, grads, &mut dxs[..cross.1])?; // dz, dm
        }
        let xs = route(call.xs, &own.0[..own.1]);
        let mut dxs = route_gradients(dxs, &own.0[..own.1]);
        let part = self.sublayer(&self.self_attn, 0);
        part.backward(&xs[..own.1], (z, dz), attention, grads, &mut dxs[..own.1]) // dx
    }

    fn remember(&self, cache: &mut DecoderLayerCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        self.self_attn.remember(&mut cache.attention.inner, &mut out.child("self_attn"))?;
        self.multihead_attn.remember(&mut cache.cross.inner, &mut out.child("multihead_attn"))
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let (own, cross, count) = self.orders();
        if inputs.len() != count {
            return 0;
        }
        let (of_own, of_cross) = (shapes_of(inputs, own), shapes_of(inputs, cross));
        let parts = [
            self.self_attn.cost(&of_own[..own.1]),
            self.multihead_attn.cost(&of_cross[..cross.1]),
            self.feed.cost(&inputs[..1]),
        ];
        parts.iter().fold(0, |sum, &part| sum.saturating_add(part))
    }

    fn to_spec(&self) -> Spec {
        let spec = self.settings.spec(KIND).with_unless(false, "causal", self.causal);
        NAMES.iter().zip(self.masks).fold(spec, |spec, (name, mask)| spec.with_unless(None, name, mask))
    }
}

const NAMES: [&str; 4] = ["tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask"];

impl<T: Scalar> FromSpec<T> for TransformerDecoderLayer<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("n₃(w + f(w)), w = n₂(z + attention(z, m)), z = n₁(x + attention(x))")
        .page("layers/attention/transformer_decoder_layer.md")
        .torch("TransformerDecoderLayer");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut layer = Self::of(Settings::from_args(args)?);
        layer.causal = args.or("causal", false)?;
        for (mask, name) in layer.masks.iter_mut().zip(NAMES) {
            *mask = args.optional(name)?;
        }
        Ok(layer.built())
    }

    fn examples() -> Vec<Example> {
        let masked = Self::new(6, 3)
            .dim_feedforward(5)
            .dropout(0.0)
            .activation(FeedForwardActivation::Gelu)
            .norm_first(true)
            .bias(false)
            .causal(true)
            .memory_mask(MaskKind::Additive)
            .tgt_key_padding_mask(MaskKind::Additive);
        let plain = Self::new(4, 2).dim_feedforward(8);
        let bench = Self::new(256, 4).dim_feedforward(1024).causal(true);
        vec![
            Example::new(
                masked.to_spec(),
                [Shape::from([2, 3, 6]), [2, 4, 6].into(), [6, 3, 4].into(), [2, 3].into()],
            ),
            Example::new(plain.to_spec(), [[2, 3, 4], [2, 5, 4]]),
            Example::bench(bench.to_spec(), [[8, 128, 256], [8, 64, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;
    use chainrule_gradcheck::laws::Values::{Hidden, Normal};

    const KINDS: [MaskKind; 2] = [MaskKind::Additive, MaskKind::Boolean];

    laws! {
        #![cases = 16]
        obeys_the_laws(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], keys in 1..4usize, heads in 1..3usize,
            (norm_first, bias, first) in any::<(bool, bool, bool)>(), p in prop_oneof![Just(0.0), 0.0..0.5f64],
        ) {
            layer: TransformerDecoderLayer::new(heads * 2, heads).dim_feedforward(3).norm_first(norm_first).bias(bias)
                .batch_first(first).dropout(p).layer_norm_eps(0.1),
            inputs: if first {
                [[rows, time, heads * 2], [rows, keys, heads * 2]]
            } else {
                [[time, rows, heads * 2], [keys, rows, heads * 2]]
            },
            batch_axis_of(0): usize::from(!first),
            batch_axis_of(1): usize::from(!first),
            refuses_streams: true,
        }
        obeys_the_laws_with_masks(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], keys in 1..4usize, norm_first in any::<bool>(),
            boolean in any::<[bool; 4]>(),
        ) {
            layer: TransformerDecoderLayer::new(4, 2).dim_feedforward(3).norm_first(norm_first).layer_norm_eps(0.1)
                .tgt_mask(KINDS[usize::from(boolean[0])]).memory_mask(KINDS[usize::from(boolean[1])])
                .tgt_key_padding_mask(KINDS[usize::from(boolean[2])]).memory_key_padding_mask(KINDS[usize::from(boolean[3])]),
            inputs: [vec![rows, time, 4], vec![rows, keys, 4], vec![time, time], vec![time, keys], vec![rows, time], vec![rows, keys]],
            values_of(2): if boolean[0] { Hidden } else { Normal },
            values_of(3): if boolean[1] { Hidden } else { Normal },
            values_of(4): if boolean[2] { Hidden } else { Normal },
            values_of(5): if boolean[3] { Hidden } else { Normal },
            batch_axis_of(2): None,
            batch_axis_of(3): None,
            refuses_streams: true,
        }
        obeys_the_laws_causal(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], keys in 1..4usize, norm_first in any::<bool>(),
        ) {
            layer: TransformerDecoderLayer::new(4, 2).dim_feedforward(3).norm_first(norm_first).causal(true).layer_norm_eps(0.1),
            inputs: [[rows, time, 4], [rows, keys, 4]],
            sequence: 1,
        }
    }

    /// As the encoder layer's: d_model = 2, norms first, ε = 0, one position and one of the memory, so that both weights are 1. Of the
    /// self-attention W_v = W_o = 1, of the other W_v = 2 and W_o = 1; W₁ = (1 0), W₂ = (1; 0).
    /// x = (3, 1): n = (1, −1), z = (4, 0). m = (5, 7): w = z + 2 m = (14, 14 + …) = (14, 14); two equal elements have no variance, so
    /// m = (5, 6): w = (14, 12), n = (1, −1), f = (1, 0), y = (15, 12). For g = (2, 3): ∂m = 2 g = (4, 6), ∂x = g.
    #[test]
    pub fn by_hand() {
        let mut layer =
            TransformerDecoderLayer::<f64>::new(2, 1).dim_feedforward(1).norm_first(true).bias(false);
        layer = layer.layer_norm_eps(0.0);
        layer.visit_mut(&mut |path, p| {
            let values: &[f64] = match path.to_string().as_str() {
                "self_attn.in_proj_weight" => &[0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 1.],
                "multihead_attn.in_proj_weight" => &[0., 0., 0., 0., 0., 0., 0., 0., 2., 0., 0., 2.],
                "self_attn.out_proj.weight" | "multihead_attn.out_proj.weight" => &[1., 0., 0., 1.],
                "linear1.weight" | "linear2.weight" => &[1., 0.],
                _ => &[1., 1.],
            };
            p.set(Tensor::from_vec(*p.shape(), values.to_vec()).unwrap()).unwrap();
        });
        let of = |values: [f64; 2]| Tensor::from_vec([1, 1, 2], values.to_vec()).unwrap();
        let (x, m) = (of([3., 1.]), of([5., 6.]));
        let (xs, mut cache, mut ys) = ([&x, &m], DecoderLayerCache::default(), [Tensor::default()]);
        layer.apply(&xs, &mut ys, &mut cache, Context::frozen()).unwrap();
        assert_eq!(ys[0].data(), [15., 12.]);
        let dy = of([2., 3.]);
        let (mut grads, mut dx, mut dm) = (Grads::new(&layer), Tensor::default(), Tensor::default());
        let dys = [Some(&dy)];
        let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
        layer.pull(call, &mut cache, &mut grads, &mut [Some(&mut dx), Some(&mut dm)]).unwrap();
        let close = |got: &Tensor<f64>, want: [f64; 2]| {
            assert!(got.data().iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?}");
        };
        close(&dx, [2., 3.]);
        close(&dm, [4., 6.]);
    }
}
