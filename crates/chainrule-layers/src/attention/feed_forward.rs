//! The two maps of a transformer's layer.
//!
//! ```text
//! y = W₂ d(φ(W₁ x + b₁)) + b₂, φ of ReLU or GELU, d dropout
//! ```

use super::{
    dense::{Dense, Packed},
    sublayer::not_recorded,
};
use crate::{Gelu, Relu};
use chainrule_core::{
    Call, Context, Error, FromValue, Grads, Init, Layer, Noise, Params, ParamsMut, Result, Scalar, Shape,
    Tensor, Value,
};
use chainrule_tensor::kernels::layers::noise::dropout;

/// The activation of a transformer's layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedForwardActivation {
    /// max(0, x)
    #[default]
    Relu,
    /// x Φ(x)
    Gelu,
    /// GELU by its approximation with tanh.
    GeluTanh,
}

impl FromValue for FeedForwardActivation {
    const WHAT: &'static str = "`relu`, `gelu` or `gelu_tanh`";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) if text == "relu" => Some(Self::Relu),
            Value::Text(text) if text == "gelu" => Some(Self::Gelu),
            Value::Text(text) if text == "gelu_tanh" => Some(Self::GeluTanh),
            _ => None,
        }
    }
}

impl From<FeedForwardActivation> for Value {
    fn from(activation: FeedForwardActivation) -> Self {
        match activation {
            FeedForwardActivation::Relu => "relu",
            FeedForwardActivation::Gelu => "gelu",
            FeedForwardActivation::GeluTanh => "gelu_tanh",
        }
        .into()
    }
}

#[derive(Clone)]
pub(super) struct FeedForward<T> {
    linear1: Dense<T>,
    linear2: Dense<T>,
    activation: FeedForwardActivation,
    dropout: f64,
}

pub(super) struct FeedForwardCache<T> {
    recorded: Option<(Shape, Option<Noise>)>,
    packed: [Packed<T>; 2],
    /// W₁ x + b₁, φ of it, and d of that.
    a: Tensor<T>,
    u: Tensor<T>,
    noisy: Tensor<T>,
    du: Tensor<T>,
    da: Tensor<T>,
}

impl<T: Scalar> Default for FeedForwardCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            packed: std::array::from_fn(|_| Packed::default()),
            a: Tensor::default(),
            u: Tensor::default(),
            noisy: Tensor::default(),
            du: Tensor::default(),
            da: Tensor::default(),
        }
    }
}

impl<T: Scalar> FeedForward<T> {
    pub(super) fn new(
        [width, hidden]: [usize; 2],
        bias: bool,
        activation: FeedForwardActivation,
        dropout: f64,
    ) -> Self {
        let dense = |sizes: [usize; 2]| Dense::new(sizes, bias.then_some(Init::torch_default(sizes[0])));
        Self { linear1: dense([width, hidden]), linear2: dense([hidden, width]), activation, dropout }
    }

    fn activate(&self, a: &Tensor<T>, u: &mut Tensor<T>, cx: Context) -> Result<()> {
        match self.activation {
            FeedForwardActivation::Relu => Relu::new().forward(a, u, &mut (), cx),
            FeedForwardActivation::Gelu => Gelu::new().forward(a, u, &mut (), cx),
            FeedForwardActivation::GeluTanh => Gelu::new().approximate_tanh().forward(a, u, &mut (), cx),
        }
    }

    fn activation_gradient(&self, call: Call<'_, T>, grads: &mut Grads<T>, da: &mut Tensor<T>) -> Result<()> {
        match self.activation {
            FeedForwardActivation::Relu => Relu::new().backward(call, &mut (), grads, Some(da)),
            FeedForwardActivation::Gelu => Gelu::new().backward(call, &mut (), grads, Some(da)),
            FeedForwardActivation::GeluTanh => {
                Gelu::new().approximate_tanh().backward(call, &mut (), grads, Some(da))
            }
        }
    }
}

const KIND: &str = "FeedForward";

impl<T: Scalar> Layer for FeedForward<T> {
    type T = T;
    type Cache = FeedForwardCache<T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        match input.last() {
            Some(&width) if width == self.linear1.sizes[0] => Shape::new(input),
            _ => Err(Error::shape(format!(
                "{KIND}: expected input (.., {}), got {input:?}",
                self.linear1.sizes[0]
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        cache.recorded = None;
        let shape = self.output_shape(x.shape())?;
        let [width, hidden] = self.linear1.sizes;
        let n = x.len() / width;
        let FeedForwardCache { packed: [first, second], a, u, noisy, .. } = cache;
        let of_hidden = shape.with(shape.len() - 1, hidden);
        self.linear1.forward(x.data(), n, a.reset(Shape::new(&of_hidden)?), first)?; // a = W₁ x + b₁
        self.activate(a, u, cx)?; // u = φ(a)
        let noise = cx.noise().filter(|noise| self.dropout * noise.scale > 0.0);
        let u = match noise {
            Some(noise) => {
                dropout(u.data(), noisy.reset(*u.shape()), noise.key, self.dropout * noise.scale);
                &*noisy
            }
            None => &*u,
        };
        self.linear2.forward(u.data(), n, y.reset(shape), second)?; // y = W₂ d(u) + b₂
        cache.recorded = cx.recording().then_some((shape, noise));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let noise = match cache.recorded {
            Some((shape, noise)) if shape == *call.x.shape() => noise,
            _ => return Err(not_recorded(KIND)),
        };
        let n = call.x.len() / self.linear1.sizes[0];
        let FeedForwardCache { a, u, noisy, du, da, .. } = cache;
        let of = if noise.is_some() { &*noisy } else { &*u };
        self.linear2.backward((of.data(), call.dy.data(), n), grads, Some(du.reset(*u.shape())))?;
        if let Some(noise) = noise {
            dropout(du.data(), da.reset(*u.shape()), noise.key, self.dropout * noise.scale); // du = dᵀ du
            std::mem::swap(du, da);
        }
        self.activation_gradient(Call::recorded(a, u, du)?, grads, da)?; // da = φ′(a) du
        let dx = dx.map(|dx| dx.reset(*call.x.shape()));
        self.linear1.backward((call.x.data(), da.data(), n), grads, dx)
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.linear1.list(&mut out.child("linear1"));
        self.linear2.list(&mut out.child("linear2"));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.linear1.list_mut(&mut out.child("linear1"));
        self.linear2.list_mut(&mut out.child("linear2"));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let sizes = input.iter().chain([&2, &self.linear1.sizes[1]]);
        sizes.fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }
}
