//! What norms share: γ, β and ε.

use crate::rank::check_shape;
use chainrule_core::{Error, Grads, Init, Param, Params, ParamsMut, Result, Scalar, Shape};

/// γ and β, as far as a layer has them.
#[derive(Clone, Debug)]
pub(super) struct Affine<T> {
    shape: Shape,
    /// Whether β comes with γ, also while there is neither.
    with_bias: bool,
    pub(super) weight: Option<Param<T>>,
    pub(super) bias: Option<Param<T>>,
}

impl<T: Scalar> Affine<T> {
    /// γ = 1 if `affine`, and β = 0 if `with_bias` too.
    pub(super) fn new(shape: Shape, affine: bool, with_bias: bool) -> Self {
        let weight = affine.then(|| Param::new("weight", shape, Init::ONES));
        let bias = (affine && with_bias).then(|| Param::new("bias", shape, Init::ZEROS));
        Self { shape, with_bias, weight, bias }
    }

    /// Made anew, with or without γ and β.
    pub(super) fn affine(&self, affine: bool) -> Self {
        Self::new(self.shape, affine, self.with_bias)
    }

    /// Made anew, with or without β where there is γ.
    pub(super) fn bias(&self, with_bias: bool) -> Self {
        Self::new(self.shape, self.is_affine(), with_bias)
    }

    /// The shape of γ and β.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn is_affine(&self) -> bool {
        self.weight.is_some()
    }

    pub(super) fn with_bias(&self) -> bool {
        self.with_bias
    }

    /// Whether γ can exist, and ε is a summand of a variance.
    pub(super) fn check(&self, layer: &str, eps: f64) -> Result<()> {
        if self.shape.is_empty() || self.shape.contains(&0) {
            let shape = self.shape;
            return Err(Error::value(format!("{layer}: expected sizes of at least 1, got {shape}")));
        }
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::value(format!("{layer}: expected eps ≥ 0, got {eps}")));
        }
        check_shape(layer, Shape::new(&self.shape))
    }

    /// The values of γ and β.
    pub(super) fn values(&self) -> Result<[Option<&[T]>; 2]> {
        let [weight, bias] = [&self.weight, &self.bias].map(|p| p.as_ref().map(Param::value).transpose());
        Ok([weight?, bias?])
    }

    /// Adds ∂E/∂γ and ∂E/∂β to the gradients.
    pub(super) fn accumulate(&self, grads: &mut Grads<T>, sums: [&[T]; 2]) {
        for (param, sums) in [&self.weight, &self.bias].into_iter().zip(sums) {
            if let Some(grad) = param.as_ref().and_then(|p| grads.of(p)) {
                grad.iter_mut().zip(sums).for_each(|(g, &s)| *g += s);
            }
        }
    }

    pub(super) fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.weight.iter().chain(&self.bias).for_each(|p| out.add(p));
    }

    pub(super) fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|p| out.add(p));
    }
}
