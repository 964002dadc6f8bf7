//! A transformer's encoder: layers one behind another.
//!
//! ```text
//! xᵢ₊₁ = lᵢ(xᵢ, masks)   y = n(x_L)        ∂E/∂xᵢ = lᵢᵀ ∂E/∂xᵢ₊₁   ∂E/∂mask = Σᵢ of each layer's
//! ```
//!
//! Keeps what the layers keep, and their inputs. Derivation: docs/layers/attention/transformer_encoder.md.

use super::{
    TransformerEncoderLayer,
    stack::{Layers, LayersCache},
};
use crate::LayerNorm;
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Memory, Module, ModuleCall, Parameters, Params,
    ParamsMut, Result, Scalar, Shape, Spec, Tensor,
};

const KIND: &str = "TransformerEncoder";

/// Layers of an encoder one behind another, with a norm at the end or without. Vaswani et al., 2017.
///
/// The layers are copies of the given one with the names `layers.0`, `layers.1`, …; each starts from values of its own, unlike
/// PyTorch's, which begin as the same. The norm, if there is one, is `norm`.
///
/// # Shapes
/// As [`TransformerEncoderLayer`].
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{TransformerEncoder, TransformerEncoderLayer};
/// let layer = TransformerEncoderLayer::new(8, 2).dim_feedforward(16);
/// let model = TransformerEncoder::new(layer, 3).init(1)?;
/// let y = model.infer(&Tensor::<f32>::zeros([4, 10, 8]))?;
/// assert_eq!(y.shape()[..], [4, 10, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct TransformerEncoder<T = f32> {
    layer: TransformerEncoderLayer<T>,
    pub(super) stack: Layers<TransformerEncoderLayer<T>, T>,
}

/// What [`TransformerEncoder`] keeps.
pub struct EncoderCache<T: Scalar>(LayersCache<T, <TransformerEncoderLayer<T> as Module>::State>);

impl<T: Scalar> Default for EncoderCache<T> {
    fn default() -> Self {
        Self(LayersCache::default())
    }
}

impl<T: Scalar> std::fmt::Debug for EncoderCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncoderCache")
    }
}

impl<T: Scalar> TransformerEncoder<T> {
    /// So many layers as the given one, without a norm behind them.
    pub fn new(layer: TransformerEncoderLayer<T>, num_layers: usize) -> Self {
        let stack = Layers::new(&layer, num_layers, None);
        Self { layer, stack }
    }

    /// With a norm behind the layers, or without.
    #[must_use]
    pub fn norm(mut self, norm: impl Into<Option<LayerNorm<T>>>) -> Self {
        self.stack.norm = norm.into();
        self
    }
}

impl<T: Scalar> Parameters for TransformerEncoder<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.stack.list(out);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.stack.list_mut(out);
    }

    fn validate(&self) -> Result<()> {
        self.stack.validate(KIND)
    }
}

impl<T: Scalar> Module for TransformerEncoder<T> {
    type State = EncoderCache<T>;

    fn inputs(&self) -> usize {
        self.layer.inputs()
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.layer.differentiable_input(input)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.stack.output_shapes(KIND, inputs)
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut EncoderCache<T>,
        cx: Context,
    ) -> Result<()> {
        self.stack.apply(KIND, xs, ys, &mut cache.0, cx)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut EncoderCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.stack.pull(KIND, call, &mut cache.0, grads, dxs)
    }

    fn remember(&self, cache: &mut EncoderCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        self.stack.memory(&mut cache.0, out)
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        self.stack.cost(inputs)
    }

    fn to_spec(&self) -> Spec {
        let spec = Spec::new(KIND).with("num_layers", self.stack.count).child("layer", self.layer.to_spec());
        match &self.stack.norm {
            Some(norm) => spec.child("norm", norm.to_spec()),
            None => spec,
        }
    }
}

impl<T: Scalar> FromSpec<T> for TransformerEncoder<T> {
    const FACTS: Facts = Facts::new(KIND)
        .family("attention")
        .formula("n(l_L(… l₁(x)))")
        .page("layers/attention/transformer_encoder.md")
        .torch("TransformerEncoder");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let count = args.get("num_layers")?;
        let (mut layer, mut norm) = (None, None);
        for (name, child) in args.children()? {
            let known = match name.as_str() {
                "layer" => {
                    layer = child.downcast_ref::<TransformerEncoderLayer<T>>().cloned();
                    layer.is_some()
                }
                "norm" => {
                    norm = child.downcast_ref::<LayerNorm<T>>().cloned();
                    norm.is_some()
                }
                _ => false,
            };
            if !known {
                return Err(Error::value(format!(
                    "{KIND}: expected a child `layer` that is a TransformerEncoderLayer and perhaps `norm`, a LayerNorm, got another"
                )));
            }
        }
        let layer =
            layer.ok_or_else(|| Error::value(format!("{KIND}: expected a child `layer`, got none")))?;
        Ok(Self::new(layer, count).norm(norm))
    }

    fn examples() -> Vec<Example> {
        let layer = TransformerEncoderLayer::new(4, 2).dim_feedforward(3).dropout(0.0);
        let masked = layer.clone().src_key_padding_mask(crate::MaskKind::Additive);
        let bench = TransformerEncoderLayer::new(128, 4).dim_feedforward(512);
        vec![
            Example::new(Self::new(layer, 2).to_spec(), [[2, 3, 4]]),
            Example::new(
                Self::new(masked, 3).norm(LayerNorm::new(4)).to_spec(),
                [Shape::from([2, 3, 4]), [2, 3].into()],
            ),
            Example::bench(Self::new(bench, 4).to_spec(), [[4, 128, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::MaskKind;
    use chainrule_gradcheck::laws;

    laws! {
        #![cases = 10]
        obeys_the_laws(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], layers in 1..4usize, norm in any::<bool>(),
            norm_first in any::<bool>(), p in prop_oneof![Just(0.0), 0.0..0.4f64],
        ) {
            layer: TransformerEncoder::new(
                TransformerEncoderLayer::new(4, 2).dim_feedforward(3).dropout(p).norm_first(norm_first).layer_norm_eps(0.3)
                    .src_mask(MaskKind::Additive),
                layers,
            ).norm(norm.then(|| LayerNorm::new(4).eps(0.3))),
            inputs: [vec![rows, time, 4], vec![time, time]],
            batch_axis_of(1): None,
            refuses_streams: true,
        }
        obeys_the_laws_causal(
            rows in 1..3usize, time in prop_oneof![Just(1), Just(3), Just(7usize)], layers in 1..4usize, norm in any::<bool>(),
        ) {
            layer: TransformerEncoder::new(
                TransformerEncoderLayer::new(4, 2).dim_feedforward(3).norm_first(true).causal(true).layer_norm_eps(0.3), layers,
            ).norm(norm.then(|| LayerNorm::new(4).eps(0.3))),
            input: [rows, time, 4],
            sequence: 1,
        }
    }

    /// Two layers with the weights of the layer's own example, as far as they go: of each part, what is added to x = (x₁, x₂) with
    /// x₁ > x₂ is n = (1, −1) of the self-attention and (1, 0) of the two maps. So a layer adds (2, −1), and two layers twice that.
    #[test]
    pub fn by_hand() {
        let layer = TransformerEncoderLayer::<f64>::new(2, 1)
            .dim_feedforward(1)
            .norm_first(true)
            .bias(false)
            .layer_norm_eps(0.0);
        let mut model = TransformerEncoder::new(layer, 2);
        model.visit_mut(&mut |path, p| {
            let path = path.to_string();
            let values: &[f64] = match path.rsplit_once("layers.").map_or("", |(_, name)| &name[2..]) {
                "self_attn.in_proj_weight" => &[0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 1.],
                "multihead_attn.in_proj_weight" => &[0.; 12],
                "self_attn.out_proj.weight" | "multihead_attn.out_proj.weight" => &[1., 0., 0., 1.],
                "linear1.weight" | "linear2.weight" => &[1., 0.],
                _ => &[1., 1.],
            };
            p.set(Tensor::from_vec(*p.shape(), values.to_vec()).unwrap()).unwrap();
        });
        let x = Tensor::from_vec([1, 1, 2], vec![3., 1.]).unwrap();
        let y = model.infer(&x).unwrap();
        assert_eq!(y.data(), [7., -1.]);
    }

    #[test]
    fn another_number_of_layers_or_another_child_is_an_error() {
        let layer = || TransformerEncoderLayer::<f32>::new(4, 2).dim_feedforward(3);
        for count in [0, usize::MAX] {
            assert!(TransformerEncoder::new(layer(), count).init(0).is_err());
        }
        let registry = crate::registry::<f32>();
        let spec = Spec::new(KIND).with("num_layers", 1);
        assert!(registry.build_module(&spec).is_err());
        assert!(registry.build_module(&spec.child("layer", Spec::new("Tanh"))).is_err());
    }
}
