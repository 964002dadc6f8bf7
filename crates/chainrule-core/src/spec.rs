//! What a layer, a loss, an optimizer or a schedule is, as data.

use crate::Reduction;
use chainrule_tensor::{Fan, Init, Scalar, Shape, Tensor};
use std::fmt;

/// A kind and its attributes, from which the thing can be built again. Prints as an indented tree in PyTorch's manner.
///
/// ```
/// use chainrule_core::Spec;
/// let spec = Spec::new("Sequential")
///     .child("0", Spec::new("Linear").with("in_features", 2).with("out_features", 8).with("bias", true))
///     .child("1", Spec::new("Tanh"));
/// assert_eq!(
///     spec.to_string(),
///     "Sequential(\n  (0): Linear(in_features=2, out_features=8, bias=true)\n  (1): Tanh()\n)"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    kind: String,
    attributes: Vec<(String, Value)>,
    children: Vec<(String, Spec)>,
    opaque: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An option that is off.
    None,
    /// A switch.
    Bool(bool),
    /// A size, an axis, a count.
    Int(i64),
    /// A real hyper-parameter.
    Float(f64),
    /// A choice by name.
    Text(String),
    /// Several values.
    List(Vec<Value>),
    /// Another thing, such as an initialiser.
    Spec(Spec),
}

impl Spec {
    /// A kind without attributes.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), attributes: Vec::new(), children: Vec::new(), opaque: false }
    }

    /// The name of a type that says no more of itself, without its path and parameters: it cannot be built again.
    pub fn opaque<M: ?Sized>() -> Self {
        let full = std::any::type_name::<M>();
        let plain = full.split('<').next().unwrap_or(full);
        Self { opaque: true, ..Self::new(plain.rsplit("::").next().unwrap_or(plain)) }
    }

    /// Whether this is the name of a type alone; see [`Spec::opaque`].
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// With one more attribute. Names and order are those of PyTorch's constructor.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// With one more attribute, if it differs from the default.
    #[must_use]
    pub fn with_unless<V: PartialEq + Into<Value>>(self, default: V, name: &str, value: V) -> Self {
        if value == default { self } else { self.with(name, value) }
    }

    /// With one more child.
    #[must_use]
    pub fn child(mut self, name: impl Into<String>, spec: Spec) -> Self {
        self.children.push((name.into(), spec));
        self
    }

    /// The kind: the name of the type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The attributes, in order.
    pub fn attributes(&self) -> &[(String, Value)] {
        &self.attributes
    }

    /// The children of a container, in order.
    pub fn children(&self) -> &[(String, Spec)] {
        &self.children
    }

    /// An attribute by name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{}(", self.kind)?;
        for (i, (name, value)) in self.attributes.iter().enumerate() {
            write!(f, "{}{name}={value}", if i > 0 { ", " } else { "" })?;
        }
        for (i, (name, child)) in self.children.iter().enumerate() {
            let comma = if i == 0 && !self.attributes.is_empty() { "," } else { "" };
            write!(f, "{comma}\n{:1$}({name}): ", "", 2 * (depth + 1))?;
            child.write(f, depth + 1)?;
        }
        if !self.children.is_empty() {
            write!(f, "\n{:1$}", "", 2 * depth)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v:?}"),
            Self::Text(v) => f.write_str(v),
            Self::Spec(v) => write!(f, "{v}"),
            Self::List(values) => {
                f.write_str("(")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Self::Float(v)
    }
}

macro_rules! from_int {
    ($($t:ty)*) => {$(
        impl From<$t> for Value {
            /// What i64 cannot hold becomes its largest value: a size that every constructor refuses.
            fn from(v: $t) -> Self {
                Self::Int(i64::try_from(v).unwrap_or(i64::MAX))
            }
        }
    )*};
}
from_int!(usize isize i32 i64 u64);

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}

impl From<Spec> for Value {
    fn from(v: Spec) -> Self {
        Self::Spec(v)
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(v: Option<V>) -> Self {
        v.map_or(Self::None, Into::into)
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(v: Vec<V>) -> Self {
        Self::List(v.into_iter().map(Into::into).collect())
    }
}

impl<V: Into<Value>, const N: usize> From<[V; N]> for Value {
    fn from(v: [V; N]) -> Self {
        Self::List(v.into_iter().map(Into::into).collect())
    }
}

impl<A: Into<Value>, B: Into<Value>> From<(A, B)> for Value {
    fn from((a, b): (A, B)) -> Self {
        Self::List(vec![a.into(), b.into()])
    }
}

impl From<Shape> for Value {
    fn from(v: Shape) -> Self {
        Self::List(v.iter().map(|&n| n.into()).collect())
    }
}

impl From<Reduction> for Value {
    fn from(v: Reduction) -> Self {
        match v {
            Reduction::Mean => "mean",
            Reduction::Sum => "sum",
            Reduction::None => "none",
        }
        .into()
    }
}

impl<T: Scalar> From<&Tensor<T>> for Value {
    /// A number, or a list of lists for each axis.
    fn from(v: &Tensor<T>) -> Self {
        fn nested<T: Scalar>(axes: &[usize], data: &[T]) -> Value {
            match axes {
                [] => Value::Float(data[0].to_f64()),
                [n, rest @ ..] => {
                    let size = rest.iter().product::<usize>();
                    Value::List((0..*n).map(|i| nested(rest, &data[i * size..][..size])).collect())
                }
            }
        }
        nested(v.shape(), v.data())
    }
}

impl From<Init> for Value {
    fn from(init: Init) -> Self {
        let fan = |fan| match fan {
            Fan::In => "fan_in",
            Fan::Out => "fan_out",
            Fan::Average => "fan_avg",
        };
        Self::Spec(match init {
            Init::Constant(value) => Spec::new("Constant").with("value", value),
            Init::Uniform { low, high } => Spec::new("Uniform").with("low", low).with("high", high),
            Init::Normal { mean, std } => Spec::new("Normal").with("mean", mean).with("std", std),
            Init::TruncatedNormal { mean, std } => {
                Spec::new("TruncatedNormal").with("mean", mean).with("std", std)
            }
            Init::ScaledUniform { fan: f, gain } => {
                Spec::new("ScaledUniform").with("fan", fan(f)).with("gain", gain)
            }
            Init::ScaledNormal { fan: f, gain } => {
                Spec::new("ScaledNormal").with("fan", fan(f)).with("gain", gain)
            }
            Init::Orthogonal { gain } => Spec::new("Orthogonal").with("gain", gain),
            Init::TruncatedWithin { mean, std, low, high } => Spec::new("TruncatedWithin")
                .with("mean", mean)
                .with("std", std)
                .with("low", low)
                .with("high", high),
            Init::ScaledTruncatedNormal { fan: f, gain } => {
                Spec::new("ScaledTruncatedNormal").with("fan", fan(f)).with("gain", gain)
            }
            Init::Identity => Spec::new("Identity"),
            Init::Dirac { groups } => Spec::new("Dirac").with("groups", groups),
            Init::Sparse { sparsity, std } => Spec::new("Sparse").with("sparsity", sparsity).with("std", std),
            Init::Icnr { factor, gain } => Spec::new("Icnr").with("factor", factor).with("gain", gain),
            // Every initialiser is named above; one that is added and forgotten here cannot be built again.
            other => Spec { opaque: true, ..Spec::new(format!("{other:?}")) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_without_path_and_parameters() {
        let spec = Spec::opaque::<Option<Vec<f32>>>();
        assert_eq!(spec.to_string(), "Option()");
        assert!(spec.is_opaque() && !Spec::new("Option").is_opaque());
    }

    #[test]
    fn attributes_come_before_children() {
        let spec = Spec::new("Parallel").with("axis", 1).child("left", Spec::new("A").with("p", 0.5));
        assert_eq!(spec.to_string(), "Parallel(axis=1,\n  (left): A(p=0.5)\n)");
        assert_eq!(spec.get("axis"), Some(&Value::Int(1)));
    }
}
