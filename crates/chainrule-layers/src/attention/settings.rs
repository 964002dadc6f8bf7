//! The settings that all layers of transformers have.

use super::{FeedForwardActivation, MultiheadAttention, feed_forward::FeedForward};
use crate::{
    LayerNorm,
    rank::{check_shape, check_sizes},
};
use chainrule_core::{Args, Error, Parameters, Result, Scalar, Shape, Spec};

/// What the constructors of PyTorch's layers take, with their defaults, but the batch first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub d_model: usize,
    pub nhead: usize,
    pub dim_feedforward: usize,
    pub dropout: f64,
    pub activation: FeedForwardActivation,
    pub layer_norm_eps: f64,
    pub batch_first: bool,
    pub norm_first: bool,
    pub bias: bool,
}

impl Settings {
    pub(super) fn new(d_model: usize, nhead: usize) -> Self {
        Self {
            d_model,
            nhead,
            dim_feedforward: 2048,
            dropout: 0.1,
            activation: FeedForwardActivation::Relu,
            layer_norm_eps: 1e-5,
            batch_first: true,
            norm_first: false,
            bias: true,
        }
    }

    pub(super) fn attention<T: Scalar>(&self) -> MultiheadAttention<T> {
        MultiheadAttention::new(self.d_model, self.nhead)
            .dropout(self.dropout)
            .bias(self.bias)
            .batch_first(self.batch_first)
    }

    pub(super) fn feed_forward<T: Scalar>(&self) -> FeedForward<T> {
        FeedForward::new([self.d_model, self.dim_feedforward], self.bias, self.activation, self.dropout)
    }

    pub(super) fn norm<T: Scalar>(&self) -> LayerNorm<T> {
        LayerNorm::new(self.d_model).eps(self.layer_norm_eps).bias(self.bias)
    }

    pub(super) fn validate<T: Scalar>(&self, kind: &str, attention: &MultiheadAttention<T>) -> Result<()> {
        let sizes = [self.d_model, self.nhead, self.dim_feedforward];
        check_sizes(kind, "d_model, nhead and dim_feedforward", 1, sizes)?;
        if !(0.0..=1.0).contains(&self.dropout) {
            return Err(Error::value(format!(
                "{kind}: expected a probability in [0, 1], got {}",
                self.dropout
            )));
        }
        let (d_model, nhead, eps) = (self.d_model, self.nhead, self.layer_norm_eps);
        if !d_model.is_multiple_of(nhead) {
            return Err(Error::value(format!(
                "{kind}: expected nhead that divides d_model {d_model}, got {nhead}"
            )));
        }
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::value(format!("{kind}: expected layer_norm_eps ≥ 0, got {eps}")));
        }
        check_shape(kind, Shape::new(&[self.d_model, self.dim_feedforward]))?;
        attention.validate().map_err(|e| e.in_layer("self_attn"))?;
        self.norm::<T>().validate().map_err(|e| e.in_layer("norm1"))
    }

    pub(super) fn spec(&self, kind: &str) -> Spec {
        self.describe(Spec::new(kind).with("d_model", self.d_model).with("nhead", self.nhead))
    }

    pub(super) fn describe(&self, spec: Spec) -> Spec {
        spec.with("dim_feedforward", self.dim_feedforward)
            .with("dropout", self.dropout)
            .with("activation", self.activation)
            .with("layer_norm_eps", self.layer_norm_eps)
            .with("batch_first", self.batch_first)
            .with("norm_first", self.norm_first)
            .with("bias", self.bias)
    }

    pub(super) fn from_args<T: Scalar>(args: &Args<'_, T>) -> Result<Self> {
        let new = Self::new(args.get("d_model")?, args.get("nhead")?);
        Ok(Self {
            dim_feedforward: args.or("dim_feedforward", new.dim_feedforward)?,
            dropout: args.or("dropout", new.dropout)?,
            activation: args.or("activation", new.activation)?,
            layer_norm_eps: args.or("layer_norm_eps", new.layer_norm_eps)?,
            batch_first: args.or("batch_first", new.batch_first)?,
            norm_first: args.or("norm_first", new.norm_first)?,
            bias: args.or("bias", new.bias)?,
            ..new
        })
    }
}

/// The builder methods of [`Settings`] for a layer that is made anew by `built`.
macro_rules! settings {
    ($layer:ident) => {
        impl<T: chainrule_core::Scalar> $layer<T> {
            /// Elements between the two maps, 2048 by default.
            #[must_use]
            pub fn dim_feedforward(mut self, dim: usize) -> Self {
                self.settings.dim_feedforward = dim;
                self.built()
            }

            /// The probability of dropout, 0.1 by default: of the weights, behind the activation, and of each part.
            #[must_use]
            pub fn dropout(mut self, p: f64) -> Self {
                self.settings.dropout = p;
                self.built()
            }

            /// The activation between the two maps, ReLU by default.
            #[must_use]
            pub fn activation(mut self, activation: $crate::attention::FeedForwardActivation) -> Self {
                self.settings.activation = activation;
                self.built()
            }

            /// The summand of the variance in norms, 1e-5 by default.
            #[must_use]
            pub fn layer_norm_eps(mut self, eps: f64) -> Self {
                self.settings.layer_norm_eps = eps;
                self.built()
            }

            /// Whether the batch is the first axis, as by default, or the second.
            #[must_use]
            pub fn batch_first(mut self, first: bool) -> Self {
                self.settings.batch_first = first;
                self.built()
            }

            /// Whether norms come before their parts, or behind the sum, as by default.
            #[must_use]
            pub fn norm_first(mut self, first: bool) -> Self {
                self.settings.norm_first = first;
                self.built()
            }

            /// With or without biases, those of norms included.
            #[must_use]
            pub fn bias(mut self, bias: bool) -> Self {
                self.settings.bias = bias;
                self.built()
            }
        }
    };
}
pub(super) use settings;
