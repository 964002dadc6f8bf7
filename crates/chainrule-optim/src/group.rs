//! Groups of parameters with settings of their own.

use chainrule_core::{Error, FromValue, Result, Spec, Value};
use std::{fmt, sync::Arc};

/// Parameters with a learning rate or a weight decay of their own, chosen by path or shape. A parameter belongs to the
/// first group that matches it.
///
/// ```
/// use chainrule_optim::{AdamW, Group};
/// let adam: AdamW = AdamW::new(1e-3)
///     .group(Group::prefix("head.").learning_rate_scale(10.0))
///     .group(Group::biases_and_norms().weight_decay(0.0));
/// ```
#[derive(Clone)]
pub struct Group {
    which: Which,
    pub(crate) rate_scale: f64,
    pub(crate) weight_decay: Option<f64>,
}

#[derive(Clone)]
enum Which {
    Prefix(String),
    BiasesAndNorms,
    Matching(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl Group {
    /// The parameters whose path begins with `prefix`: `encoder.`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::of(Which::Prefix(prefix.into()))
    }

    /// The parameters of at most one axis: biases, and the gains and shifts of norms.
    pub fn biases_and_norms() -> Self {
        Self::of(Which::BiasesAndNorms)
    }

    /// The parameters whose path (`encoder.0.weight`) satisfies a predicate. Such a group cannot be built from a spec.
    pub fn matching(predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Which::Matching(Arc::new(predicate)))
    }

    fn of(which: Which) -> Self {
        Self { which, rate_scale: 1.0, weight_decay: None }
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

    pub(crate) fn matches(&self, path: &str, shape: &[usize]) -> bool {
        match &self.which {
            Which::Prefix(prefix) => path.starts_with(prefix),
            Which::BiasesAndNorms => shape.len() <= 1,
            Which::Matching(predicate) => predicate(path),
        }
    }

    pub(crate) fn spec(&self) -> Spec {
        let spec = match &self.which {
            Which::Prefix(prefix) => Spec::new("Prefix").with("prefix", prefix.as_str()),
            Which::BiasesAndNorms => Spec::new("BiasesAndNorms"),
            Which::Matching(_) => Spec::new("Matching"),
        };
        let spec = spec.with_unless(1.0, "learning_rate_scale", self.rate_scale);
        match self.weight_decay {
            Some(decay) => spec.with("weight_decay", decay),
            None => spec,
        }
    }

    pub(crate) fn from_spec(spec: &Spec) -> Result<Self> {
        let wrong = |what: &str| Error::value(format!("group: expected {what}, got {spec}"));
        let mut group = match spec.kind() {
            "Prefix" => {
                let prefix = spec.get("prefix").and_then(String::from_value);
                Self::prefix(prefix.ok_or_else(|| wrong("a prefix"))?)
            }
            "BiasesAndNorms" => Self::biases_and_norms(),
            _ => return Err(wrong("a group by prefix or of biases and norms (a predicate is not saved)")),
        };
        for (name, value) in spec.attributes() {
            let number = |value: &Value| f64::from_value(value).ok_or_else(|| wrong("numbers"));
            match name.as_str() {
                "prefix" if spec.kind() == "Prefix" => {}
                "learning_rate_scale" => group = group.learning_rate_scale(number(value)?),
                "weight_decay" => group = group.weight_decay(number(value)?),
                _ => return Err(wrong("a prefix, a learning_rate_scale and a weight_decay")),
            }
        }
        Ok(group)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())
    }
}
