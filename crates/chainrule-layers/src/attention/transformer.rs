//! Encoder and decoder.
//!
//! ```text
//! m = encoder(src)   y = decoder(tgt, m)
//! ∂E/∂tgt and ∂E/∂m by the decoder   ∂E/∂src = encoderᵀ ∂E/∂m
//! ```
//!
//! Keeps what both keep, and m. Derivation: docs/layers/attention/transformer.md.

use super::{
    DecoderCache, EncoderCache, FeedForwardActivation, MaskKind, TransformerDecoder, TransformerDecoderLayer,
    TransformerEncoder, TransformerEncoderLayer,
    settings::{Settings, settings},
    sublayer::{MOST, all_zeros, not_recorded, route, route_gradients},
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Init, Memory, Module, ModuleCall, Parameters,
    Params, ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};

const KIND: &str = "Transformer";

/// An encoder of src whose output is the memory of a decoder of tgt, each with a norm at its end. Vaswani et al., 2017.
///
/// Inputs are src and tgt, and in this order, if they are asked for, [`Transformer::src_mask`], [`Transformer::tgt_mask`],
/// [`Transformer::memory_mask`], [`Transformer::src_key_padding_mask`], [`Transformer::tgt_key_padding_mask`] and
/// [`Transformer::memory_key_padding_mask`].
///
/// # Shapes
/// src (N, S, d_model), tgt and y (N, T, d_model), or (S, N, d_model) and (T, N, d_model) with `batch_first(false)`; masks as those of
/// the layers. Parameters have PyTorch's names: `encoder.layers.0.…`, `encoder.norm.…`, `decoder.layers.0.…`, `decoder.norm.…`; weights
/// start uniform by Xavier's rule.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Transformer;
/// let model = Transformer::new(8, 2).num_encoder_layers(1).num_decoder_layers(1).dim_feedforward(16).causal(true).init(1)?;
/// let y = model.infer([&Tensor::<f32>::zeros([4, 6, 8]), &Tensor::zeros([4, 10, 8])])?;
/// assert_eq!(y.shape()[..], [4, 10, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Transformer<T = f32> {
    settings: Settings,
    layers: [usize; 2],
    causal: bool,
    /// Of src, tgt and memory, and of the positions of the three.
    masks: [Option<MaskKind>; 6],
    encoder: TransformerEncoder<T>,
    decoder: TransformerDecoder<T>,
}

/// What [`Transformer`] keeps.
pub struct TransformerCache<T: Scalar> {
    recorded: bool,
    encoder: EncoderCache<T>,
    decoder: DecoderCache<T>,
    memory: [Tensor<T>; 1],
    dm: Tensor<T>,
}

impl<T: Scalar> Default for TransformerCache<T> {
    fn default() -> Self {
        Self {
            recorded: false,
            encoder: EncoderCache::default(),
            decoder: DecoderCache::default(),
            memory: [Tensor::default()],
            dm: Tensor::default(),
        }
    }
}

impl<T: Scalar> std::fmt::Debug for TransformerCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransformerCache").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

/// Inputs of a part among those of the whole, and how many there are.
type Order = ([usize; MOST], usize);

const NAMES: [&str; 6] = [
    "src_mask",
    "tgt_mask",
    "memory_mask",
    "src_key_padding_mask",
    "tgt_key_padding_mask",
    "memory_key_padding_mask",
];

impl<T: Scalar> Transformer<T> {
    /// Six layers each of an encoder and a decoder over vectors of `d_model` elements with `nhead` heads.
    pub fn new(d_model: usize, nhead: usize) -> Self {
        Self::of(Settings::new(d_model, nhead), [6, 6], false, [None; 6])
    }

    fn of(settings: Settings, layers: [usize; 2], causal: bool, masks: [Option<MaskKind>; 6]) -> Self {
        let [src, tgt, memory, src_keys, tgt_keys, memory_keys] = masks;
        let encoder = TransformerEncoderLayer::of(settings).src_mask(src).src_key_padding_mask(src_keys);
        let decoder = TransformerDecoderLayer::of(settings)
            .causal(causal)
            .tgt_mask(tgt)
            .memory_mask(memory)
            .tgt_key_padding_mask(tgt_keys)
            .memory_key_padding_mask(memory_keys);
        let encoder = TransformerEncoder::new(encoder, layers[0]).norm(settings.norm());
        let decoder = TransformerDecoder::new(decoder, layers[1]).norm(settings.norm());
        let mut model = Self { settings, layers, causal, masks, encoder, decoder };
        model.visit_mut(&mut |_, p| {
            if p.shape().len() > 1 {
                p.set_initializer(Init::xavier_uniform());
            }
        });
        model
    }

    fn built(self) -> Self {
        Self::of(self.settings, self.layers, self.causal, self.masks)
    }

    /// Layers of the encoder, 6 by default.
    #[must_use]
    pub fn num_encoder_layers(mut self, layers: usize) -> Self {
        self.layers[0] = layers;
        self.built()
    }

    /// Layers of the decoder, 6 by default.
    #[must_use]
    pub fn num_decoder_layers(mut self, layers: usize) -> Self {
        self.layers[1] = layers;
        self.built()
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

    /// With a mask of pairs of positions of src as an input.
    #[must_use]
    pub fn src_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(0, kind.into())
    }

    /// With a mask of pairs of positions of tgt as an input.
    #[must_use]
    pub fn tgt_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(1, kind.into())
    }

    /// With a mask of pairs of a position of tgt and one of the memory as an input.
    #[must_use]
    pub fn memory_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(2, kind.into())
    }

    /// With a mask of positions of src as an input.
    #[must_use]
    pub fn src_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(3, kind.into())
    }

    /// With a mask of positions of tgt as an input.
    #[must_use]
    pub fn tgt_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(4, kind.into())
    }

    /// With a mask of positions of the memory as an input.
    #[must_use]
    pub fn memory_key_padding_mask(self, kind: impl Into<Option<MaskKind>>) -> Self {
        self.with_mask(5, kind.into())
    }

    /// The inputs of the encoder, those of the decoder, of which the memory is not one (it stands as src), and how many there are.
    fn orders(&self) -> (Order, Order, usize) {
        let mut inputs = 2;
        let at = self.masks.map(|mask| {
            mask.map(|_| {
                inputs += 1;
                inputs - 1
            })
        });
        let order = |first: &[usize], masks: &[Option<usize>]| {
            let (mut order, mut count) = ([0; MOST], 0);
            for &from in first.iter().chain(masks.iter().flatten()) {
                order[count] = from;
                count += 1;
            }
            (order, count)
        };
        (order(&[0], &[at[0], at[3]]), order(&[1, 0], &[at[1], at[2], at[4], at[5]]), inputs)
    }
}

settings!(Transformer);

impl<T: Scalar> Parameters for Transformer<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.encoder.list(&mut out.child("encoder"));
        self.decoder.list(&mut out.child("decoder"));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.encoder.list_mut(&mut out.child("encoder"));
        self.decoder.list_mut(&mut out.child("decoder"));
    }

    fn validate(&self) -> Result<()> {
        self.encoder.validate().map_err(|e| e.in_layer("encoder"))?;
        self.decoder.validate().map_err(|e| e.in_layer("decoder"))
    }
}

impl<T: Scalar> Module for Transformer<T> {
    type State = TransformerCache<T>;

    fn inputs(&self) -> usize {
        self.orders().2
    }

    fn differentiable_input(&self, input: usize) -> bool {
        input < 2 || self.masks.iter().flatten().nth(input - 2) != Some(&MaskKind::Boolean)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let (encoder, decoder, count) = self.orders();
        if inputs.len() != count {
            return Err(Error::shape(format!("{KIND}: expected {count} inputs, got {}", inputs.len())));
        }
        let shapes_of = |(order, _): Order| order.map(|from| inputs.get(from).copied().unwrap_or_default());
        self.encoder.output_shapes(&shapes_of(encoder)[..encoder.1]).map_err(|e| e.in_layer("encoder"))?;
        self.decoder.output_shapes(&shapes_of(decoder)[..decoder.1]).map_err(|e| e.in_layer("decoder"))
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut TransformerCache<T>,
        cx: Context,
    ) -> Result<()> {
        cache.recorded = false;
        let (encoder, decoder, inputs) = self.orders();
        if xs.len() != inputs {
            return Err(Error::shape(format!("{KIND}: expected {inputs} inputs, got {}", xs.len())));
        }
        let TransformerCache { encoder: first, decoder: second, memory, .. } = cache;
        // The encoder sees src as a whole.
        let whole = if cx.streaming() { Context::infer() } else { cx };
        self.encoder
            .apply(&route(xs, &encoder.0[..encoder.1])[..encoder.1], memory, first, whole.child(0))
            .map_err(|e| e.in_layer("encoder"))?;
        let mut routed = route(xs, &decoder.0[..decoder.1]);
        routed[1] = &memory[0];
        self.decoder
            .apply(&routed[..decoder.1], ys, second, cx.child(1))
            .map_err(|e| e.in_layer("decoder"))?;
        cache.recorded = cx.recording();
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut TransformerCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let (encoder, decoder, inputs) = self.orders();
        if call.xs.len() != inputs || dxs.len() != inputs || call.dys.len() != 1 {
            return Err(Error::shape(format!("{KIND}: expected {inputs} inputs and one output")));
        }
        let TransformerCache { recorded, encoder: first, decoder: second, memory, dm } = cache;
        if !*recorded || memory[0].shape() != call.xs[0].shape() {
            return Err(not_recorded(KIND));
        }
        if call.dys[0].is_none() {
            all_zeros(call.xs, dxs);
            return Ok(());
        }
        let mut xs = route(call.xs, &decoder.0[..decoder.1]);
        xs[1] = &memory[0];
        {
            let mut dxs = route_gradients(dxs, &decoder.0[..decoder.1]);
            dxs[1] = Some(dm);
            let call = ModuleCall::recorded(&xs[..decoder.1], call.ys, call.dys)?;
            self.decoder.pull(call, second, grads, &mut dxs[..decoder.1])?; // dtgt, dm
        }
        let xs = route(call.xs, &encoder.0[..encoder.1]);
        let mut dxs = route_gradients(dxs, &encoder.0[..encoder.1]);
        let dms = [Some(&*dm)];
        let call = ModuleCall::recorded(&xs[..encoder.1], memory, &dms)?;
        self.encoder.pull(call, first, grads, &mut dxs[..encoder.1]) // dsrc
    }

    fn remember(&self, cache: &mut TransformerCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        self.decoder.remember(&mut cache.decoder, &mut out.child("decoder"))
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let (encoder, decoder, count) = self.orders();
        if inputs.len() != count {
            return 0;
        }
        let shapes_of = |(order, _): Order| order.map(|from| inputs.get(from).copied().unwrap_or_default());
        let first = self.encoder.cost(&shapes_of(encoder)[..encoder.1]);
        first.saturating_add(self.decoder.cost(&shapes_of(decoder)[..decoder.1]))
    }

    fn to_spec(&self) -> Spec {
        let spec = Spec::new(KIND)
            .with("d_model", self.settings.d_model)
            .with("nhead", self.settings.nhead)
            .with("num_encoder_layers", self.layers[0])
            .with("num_decoder_layers", self.layers[1]);
        let spec = self.settings.describe(spec).with_unless(false, "causal", self.causal);
        NAMES.iter().zip(self.masks).fold(spec, |spec, (name, mask)| spec.with_unless(None, name, mask))
    }
}

impl<T: Scalar> FromSpec<T> for Transformer<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("decoder(tgt, encoder(src))")
        .page("layers/attention/transformer.md")
        .torch("Transformer");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layers = [args.or("num_encoder_layers", 6)?, args.or("num_decoder_layers", 6)?];
        let mut masks = [None; 6];
        for (mask, name) in masks.iter_mut().zip(NAMES) {
            *mask = args.optional(name)?;
        }
        Ok(Self::of(Settings::from_args(args)?, layers, args.or("causal", false)?, masks))
    }

    fn examples() -> Vec<Example> {
        let small = |d, h| {
            Self::new(d, h).num_encoder_layers(1).num_decoder_layers(2).dim_feedforward(5).dropout(0.0)
        };
        let masked = small(6, 3)
            .activation(FeedForwardActivation::Gelu)
            .norm_first(true)
            .causal(true)
            .src_mask(MaskKind::Additive)
            .memory_key_padding_mask(MaskKind::Additive);
        let bench = Self::new(128, 4).num_encoder_layers(2).num_decoder_layers(2).dim_feedforward(512);
        vec![
            Example::new(small(4, 2).to_spec(), [[2, 3, 4], [2, 5, 4]]),
            Example::new(
                masked.to_spec(),
                [Shape::from([2, 3, 6]), [2, 4, 6].into(), [6, 3, 3].into(), [2, 3].into()],
            ),
            Example::bench(bench.causal(true).to_spec(), [[4, 64, 128], [4, 64, 128]]),
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
        #![cases = 8]
        obeys_the_laws(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], keys in 1..4usize,
            (norm_first, first, bias) in any::<(bool, bool, bool)>(), p in prop_oneof![Just(0.0), 0.0..0.4f64],
        ) {
            layer: Transformer::new(4, 2).num_encoder_layers(1).num_decoder_layers(2).dim_feedforward(3).dropout(p).bias(bias)
                .norm_first(norm_first).batch_first(first).layer_norm_eps(0.3),
            inputs: if first { [[rows, keys, 4], [rows, time, 4]] } else { [[keys, rows, 4], [time, rows, 4]] },
            batch_axis_of(0): usize::from(!first),
            batch_axis_of(1): usize::from(!first),
            refuses_streams: true,
        }
        obeys_the_laws_with_masks(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3usize)], keys in 1..4usize, boolean in any::<[bool; 6]>(),
        ) {
            layer: Transformer::new(4, 2).num_encoder_layers(2).num_decoder_layers(1).dim_feedforward(3).layer_norm_eps(0.3)
                .src_mask(KINDS[usize::from(boolean[0])]).tgt_mask(KINDS[usize::from(boolean[1])])
                .memory_mask(KINDS[usize::from(boolean[2])]).src_key_padding_mask(KINDS[usize::from(boolean[3])])
                .tgt_key_padding_mask(KINDS[usize::from(boolean[4])]).memory_key_padding_mask(KINDS[usize::from(boolean[5])]),
            inputs: [
                vec![rows, keys, 4], vec![rows, time, 4], vec![keys, keys], vec![time, time], vec![time, keys],
                vec![rows, keys], vec![rows, time], vec![rows, keys],
            ],
            values_of(2): if boolean[0] { Hidden } else { Normal },
            values_of(3): if boolean[1] { Hidden } else { Normal },
            values_of(4): if boolean[2] { Hidden } else { Normal },
            values_of(5): if boolean[3] { Hidden } else { Normal },
            values_of(6): if boolean[4] { Hidden } else { Normal },
            values_of(7): if boolean[5] { Hidden } else { Normal },
            batch_axis_of(2): None,
            batch_axis_of(3): None,
            batch_axis_of(4): None,
            refuses_streams: true,
        }
        obeys_the_laws_causal(rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], keys in 1..4usize) {
            layer: Transformer::new(4, 2).num_encoder_layers(1).num_decoder_layers(1).dim_feedforward(3).causal(true)
                .layer_norm_eps(0.3),
            inputs: [[rows, keys, 4], [rows, time, 4]],
            sequence_of(1): 1,
        }
    }

    /// One layer each, norms first, ε = 0, weights as in the examples of the layers but that the attention over the memory has W_v = 1.
    /// src = (5, 1): n = (1, −1), and the maps add (1, 0): (7, 0), normed m = (1, −1). tgt = (3, 1): the self-attention gives (4, 0),
    /// that over the memory adds m: (5, −1), the maps (6, −1), normed y = (1, −1).
    #[test]
    pub fn by_hand() {
        let mut model =
            Transformer::<f64>::new(2, 1).num_encoder_layers(1).num_decoder_layers(1).dim_feedforward(1);
        model = model.norm_first(true).bias(false).layer_norm_eps(0.0);
        model.visit_mut(&mut |path, p| {
            let path = path.to_string();
            let values: &[f64] = if path.ends_with("in_proj_weight") {
                &[0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 1.]
            } else if path.ends_with("out_proj.weight") {
                &[1., 0., 0., 1.]
            } else if path.contains("linear") {
                &[1., 0.]
            } else {
                &[1., 1.]
            };
            p.set(Tensor::from_vec(*p.shape(), values.to_vec()).unwrap()).unwrap();
        });
        let of = |values: [f64; 2]| Tensor::from_vec([1, 1, 2], values.to_vec()).unwrap();
        let mut cache = TransformerCache::default();
        let (src, tgt, mut ys) = (of([5., 1.]), of([3., 1.]), [Tensor::default()]);
        model.apply(&[&src, &tgt], &mut ys, &mut cache, Context::infer()).unwrap();
        assert_eq!(cache.memory[0].data(), [1., -1.]);
        assert_eq!(ys[0].data(), [1., -1.]);
    }
}
