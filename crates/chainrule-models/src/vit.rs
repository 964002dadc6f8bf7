//! The vision transformer (Dosovitskiy et al., 2021).

use crate::renamed::{Names, Renamed};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_layers::{
    Conv2d, FeedForwardActivation, Flatten, LayerNorm, Linear, Mean, Narrow, Sequential,
    TransformerEncoderLayer, Transpose,
};

/// Patches of an image as tokens of an encoder with its norms first, and a classifier of a token of its own or of the mean. Parameters
/// have the names of timm's `VisionTransformer`.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::VisionTransformer;
/// let model = VisionTransformer { layers: 2, ..VisionTransformer::new(3, [16, 16], 4, 24, 3, 8) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 16, 16]))?.shape()[..], [2, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct VisionTransformer {
    /// Channels of an image.
    pub channels: usize,
    /// Its height and width.
    pub size: [usize; 2],
    /// The side of a patch.
    pub patch: usize,
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
    /// Whether a token of its own is classified, or the mean of all.
    pub class_token: bool,
    /// The activation between the two maps.
    pub activation: FeedForwardActivation,
}

/// Where timm has what.
pub(crate) const NAMES: Names = Names {
    of: "timm",
    list: &[
        ("self_attn.in_proj_weight", &["attn", "qkv", "weight"]),
        ("self_attn.in_proj_bias", &["attn", "qkv", "bias"]),
        ("self_attn.out_proj.weight", &["attn", "proj", "weight"]),
        ("self_attn.out_proj.bias", &["attn", "proj", "bias"]),
        ("norm1.weight", &["norm1", "weight"]),
        ("norm1.bias", &["norm1", "bias"]),
        ("linear1.weight", &["mlp", "fc1", "weight"]),
        ("linear1.bias", &["mlp", "fc1", "bias"]),
        ("linear2.weight", &["mlp", "fc2", "weight"]),
        ("linear2.bias", &["mlp", "fc2", "bias"]),
        ("norm2.weight", &["norm2", "weight"]),
        ("norm2.bias", &["norm2", "bias"]),
    ],
};

const INIT: Init = Init::Normal { mean: 0.0, std: 0.02 };

/// A learned token before those of each sample, or learned vectors that are added to them: the parameter has the layer's name.
#[derive(Clone)]
pub(crate) struct Tokens<T> {
    /// (1, L, E): L tokens are put in front, or added.
    value: Param<T>,
    /// L and E.
    size: [usize; 2],
    add: bool,
}

impl<T: Scalar> Tokens<T> {
    fn new(rows: usize, width: usize, add: bool) -> Self {
        Self { value: Param::new("", [1, rows, width], INIT), size: [rows, width], add }
    }
}

impl<T: Scalar> Layer for Tokens<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        if self.size.iter().all(|&n| (1..1 << 31).contains(&n)) {
            return Shape::new(&[1, self.size[0], self.size[1]]).map(drop);
        }
        Err(Error::value(format!(
            "LearnedTokens: expected from 1 to 2³¹ − 1 tokens and elements, got {:?}",
            self.size
        )))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match (input, &self.value.shape()[..]) {
            (&[n, t, e], &[_, l, width]) if e == width && (!self.add || t == l) => {
                Shape::new(&[n, if self.add { t } else { t + l }, e])
            }
            _ => Err(Error::shape(format!(
                "VisionTransformer: expected tokens (N, T, E) for vectors {}, got {input:?}",
                self.value.shape()
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let (value, of_x) = (self.value.value()?, x.shape()[1] * x.shape()[2]);
        let (y, of_y) = (y.reset(shape), shape[1] * shape[2]);
        for (y, x) in y.chunks_exact_mut(of_y.max(1)).zip(x.data().chunks_exact(of_x.max(1))) {
            if self.add {
                y.iter_mut().zip(x).zip(value).for_each(|((y, &x), &v)| *y = x + v);
            } else {
                y[..of_y - of_x].copy_from_slice(value);
                y[of_y - of_x..].copy_from_slice(x);
            }
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (of_x, of_y) = (call.x.shape()[1] * call.x.shape()[2], call.y.shape()[1] * call.y.shape()[2]);
        let samples = || call.dy.data().chunks_exact(of_y.max(1));
        if let Some(dv) = grads.of(&self.value) {
            for (i, dv) in dv.iter_mut().enumerate() {
                *dv += T::from_f64(samples().map(|dy| dy[i].to_f64()).sum()); // dv += Σₙ dy
            }
        }
        if let Some(dx) = dx {
            let dx = dx.reset(*call.x.shape());
            for (dx, dy) in dx.chunks_exact_mut(of_x.max(1)).zip(samples()) {
                dx.copy_from_slice(&dy[of_y - of_x..]); // dx = dy of the tokens that x has
            }
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.value);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.value);
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("count", self.size[0])
            .with("dim", self.size[1])
            .with_unless(false, "add", self.add)
    }
}

impl<T: Scalar> FromSpec<T> for Tokens<T> {
    const FACTS: Facts =
        Facts::new("LearnedTokens").family("models").formula("(v, x) along the tokens, or x + v");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("count")?, args.get("dim")?, args.or("add", false)?))
    }

    fn examples() -> Vec<Example> {
        [false, true].map(|add| Example::new(Self::new(2, 3, add).spec(), [[2, 2, 3]])).to_vec()
    }
}

impl VisionTransformer {
    /// Twelve layers with GELU over square patches, and a class token.
    #[must_use]
    pub fn new(
        channels: usize,
        size: [usize; 2],
        patch: usize,
        embed: usize,
        heads: usize,
        classes: usize,
    ) -> Self {
        Self {
            channels,
            size,
            patch,
            embed,
            heads,
            feed_forward: embed.saturating_mul(4),
            layers: 12,
            classes,
            class_token: true,
            activation: FeedForwardActivation::Gelu,
        }
    }

    /// Images (N, channels, height, width) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let (e, p) = (self.embed, self.patch);
        let patches = (self.size[0] / p.max(1)).saturating_mul(self.size[1] / p.max(1));
        let mut model = Sequential::of()
            .named("patch_embed.proj", Conv2d::new(self.channels, e, p).stride(p))
            .named("flatten", Flatten::new().start_dim(2))
            .named("transpose", Transpose::new(1, 2));
        if self.class_token {
            model = model.named("cls_token", Tokens::new(1, e, false));
        }
        model = model.named("pos_embed", Tokens::new(patches + usize::from(self.class_token), e, true));
        for i in 0..self.layers {
            let layer = TransformerEncoderLayer::new(e, self.heads)
                .dim_feedforward(self.feed_forward)
                .dropout(0.0)
                .activation(self.activation)
                .layer_norm_eps(1e-6)
                .norm_first(true);
            model = model.named(format!("blocks.{i}"), Renamed { inner: layer, names: &NAMES });
        }
        model = model.named("norm", LayerNorm::new(e).eps(1e-6));
        model = if self.class_token {
            model.named("first", Narrow::new(1, 0, 1)).named("flat", Flatten::new())
        } else {
            model.named("mean", Mean::new([1]))
        };
        model.named("head", Linear::new(e, self.classes))
    }
}
