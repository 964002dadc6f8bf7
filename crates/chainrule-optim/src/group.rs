//! Groups of parameters with settings of their own.

use std::{fmt, sync::Arc};

/// Parameters with a learning rate or a weight decay of their own, chosen by name or shape. A parameter belongs to the first
/// group that wants it.
///
/// ```
/// use chainrule_optim::{AdamW, Group};
/// let adam: AdamW = AdamW::new(1e-3)
///     .group(Group::matching(|path| path.starts_with("head.")).learning_rate_scale(10.0))
///     .group(Group::biases_and_norms().weight_decay(0.0));
/// ```
#[derive(Clone)]
pub struct Group {
    wants: Arc<dyn Fn(&str, &[usize]) -> bool + Send + Sync>,
    pub(crate) rate_scale: f64,
    pub(crate) weight_decay: Option<f64>,
}

impl Group {
    /// The parameters whose path (`encoder.0.weight`) satisfies `wants`.
    pub fn matching(wants: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { wants: Arc::new(move |path, _| wants(path)), rate_scale: 1.0, weight_decay: None }
    }

    /// The parameters of at most one axis: biases, and the gains and shifts of norms.
    pub fn biases_and_norms() -> Self {
        Self { wants: Arc::new(|_, shape| shape.len() <= 1), rate_scale: 1.0, weight_decay: None }
    }

    /// The group's learning rate as a multiple of the optimizer's, so that schedules reach it too.
    #[must_use]
    pub fn learning_rate_scale(mut self, scale: f64) -> Self {
        self.rate_scale = scale;
        self
    }

    /// The group's weight decay instead of the optimizer's.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    pub(crate) fn wants(&self, path: &str, shape: &[usize]) -> bool {
        (self.wants)(path, shape)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_scale, weight_decay, .. } = self;
        write!(f, "Group {{ learning_rate_scale: {rate_scale}, weight_decay: {weight_decay:?} }}")
    }
}
