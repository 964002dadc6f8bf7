//! What a computed weight is made of: the contract of a rule.

use chainrule_core::{Context, Grads, Noise, Param, Params, ParamsMut, Result, Scalar, Shape, Spec};

/// How a weight W comes from the inner layer's parameter V and the rule's own θ.
pub trait WeightRule<T: Scalar>: Clone + Send + Sync + 'static {
    /// What `weight` keeps for `backward`, and scratch space.
    type Cache: Default + Send + 'static;

    /// The kind of its spec.
    const KIND: &'static str;

    /// Makes θ for a V: its name and shape are known, its values not yet.
    fn attach(&mut self, v: &Param<T>);

    /// Whether the settings make sense for a V of this shape.
    ///
    /// # Errors
    /// A value error that says which is wrong and why.
    fn check(&self, shape: &Shape) -> Result<()>;

    /// Lists V and θ.
    fn list<'a>(&'a self, v: &'a Param<T>, out: &mut Params<'_, 'a, T>);

    /// Lists V and θ in the same order, to be changed.
    fn list_mut<'a>(&'a mut self, v: &'a mut Param<T>, out: &mut ParamsMut<'_, 'a, T>);

    /// Sets what of θ starts from the values of V, if it is fresh; see [`Param::is_fresh`].
    fn start(&mut self, _v: &Param<T>) {}

    /// The noise of a pass, if W has noise in this context.
    fn noise(&self, _cx: Context) -> Option<Noise> {
        None
    }

    /// Overwrites w with W.
    ///
    /// # Errors
    /// A parameter is not initialised.
    fn weight(&self, v: &Param<T>, w: &mut [T], cache: &mut Self::Cache, noise: Option<Noise>) -> Result<()>;

    /// Given ∂E/∂W, adds ∂E/∂V and ∂E/∂θ to `grads`. The cache is that of the last `weight`.
    ///
    /// # Errors
    /// A parameter is not initialised.
    fn backward(
        &self,
        v: &Param<T>,
        dw: &[T],
        cache: &mut Self::Cache,
        noise: Option<Noise>,
        grads: &mut Grads<T>,
    ) -> Result<()>;

    /// Moves its buffers after a step of training.
    fn advance(&mut self, _v: &Param<T>) {}

    /// Bytes of its cache for a V of this shape, for the summary.
    fn cache_bytes(&self, _shape: &Shape) -> usize {
        0
    }

    /// Its kind and settings.
    fn spec(&self) -> Spec {
        Spec::new(Self::KIND)
    }
}
