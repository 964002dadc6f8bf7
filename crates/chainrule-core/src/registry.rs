//! The catalogue: every kind that can be built from its spec, open to kinds from outside.

use crate::{
    BoxModule, Error, Init, Module, Objective, Optimizer, Reduction, Result, Schedule, Shape, Spec, Targets,
    Tensor, Value,
};
use chainrule_tensor::{Fan, Scalar, text};
use std::{cell::RefCell, collections::BTreeMap, fmt};

/// What the catalogue says of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The kind of its [`Spec`]: the name of the type.
    pub kind: &'static str,
    /// The folder of its file and of its page.
    pub family: &'static str,
    /// What it computes, as one line of a table.
    pub formula: &'static str,
    /// Its derivation, a file under `docs/`.
    pub page: &'static str,
    /// The name that PyTorch gives it, where it has one.
    pub torch: Option<&'static str>,
}

impl Facts {
    /// A kind of which nothing else is said.
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, family: "", formula: "", page: "", torch: None }
    }

    /// Its family.
    #[must_use]
    pub const fn family(self, family: &'static str) -> Self {
        Self { family, ..self }
    }

    /// Its formula.
    #[must_use]
    pub const fn formula(self, formula: &'static str) -> Self {
        Self { formula, ..self }
    }

    /// Its page.
    #[must_use]
    pub const fn page(self, page: &'static str) -> Self {
        Self { page, ..self }
    }

    /// Its name in PyTorch.
    #[must_use]
    pub const fn torch(self, name: &'static str) -> Self {
        Self { torch: Some(name), ..self }
    }
}

/// Something that can be built again from its spec.
pub trait FromSpec<T: Scalar>: Sized {
    /// What the catalogue says of it.
    const FACTS: Facts;

    /// Builds it from the attributes of its spec: the inverse of `spec`.
    ///
    /// # Errors
    /// An attribute is missing or of another type, or makes no sense.
    fn from_spec(args: &Args<'_, T>) -> Result<Self>;

    /// Cases on which tests and benches try it.
    fn examples() -> Vec<Example> {
        Vec::new()
    }
}

/// One case of a kind: a spec, the shapes of its inputs, and what they hold.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Example {
    /// What is built.
    pub spec: Spec,
    /// The shapes of its inputs, or of a loss's predictions; of the parameters of an optimizer.
    pub inputs: Vec<Shape>,
    /// Inputs are ids below this bound, and not normal values.
    pub ids: Option<usize>,
    /// Whether it is large enough for a bench; a small one is for the tests.
    pub bench: bool,
    /// Inputs are uniform from this range, and not normal values.
    pub range: Option<[f64; 2]>,
    /// The targets of a loss that does not take one for each prediction, values of its shape or classes below `ids`.
    pub targets: Option<Vec<Targets<f64>>>,
}

impl Example {
    /// A small case, for the tests.
    pub fn new(spec: Spec, inputs: impl IntoIterator<Item = impl Into<Shape>>) -> Self {
        let inputs = inputs.into_iter().map(Into::into).collect();
        Self { spec, inputs, ids: None, bench: false, range: None, targets: None }
    }

    /// A case of a size that is met in practice, for the benches.
    pub fn bench(spec: Spec, inputs: impl IntoIterator<Item = impl Into<Shape>>) -> Self {
        Self { bench: true, ..Self::new(spec, inputs) }
    }

    /// Whose inputs are ids below `bound`.
    #[must_use]
    pub fn ids(self, bound: usize) -> Self {
        Self { ids: Some(bound), ..self }
    }

    /// Whose inputs are uniform from a range.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: Some([low, high]), ..self }
    }

    /// A loss with these targets.
    #[must_use]
    pub fn targets(self, targets: impl Into<Vec<Targets<f64>>>) -> Self {
        Self { targets: Some(targets.into()), ..self }
    }

    /// The targets of a loss: those that were given, or one for each prediction (N, C, ..): classes below `ids` in turn, of its
    /// shape without C, or values in [0, 1) of its shape.
    pub fn loss_targets<T: Scalar>(&self) -> Vec<Targets<T>> {
        let one = |shape: &Shape| match self.ids {
            Some(bound) => {
                let axes: Vec<usize> =
                    shape.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, &n)| n).collect();
                let shape = Shape::new(&axes).unwrap_or_default();
                Targets::Classes { indices: (0..shape.volume()).map(|i| i % bound).collect(), shape }
            }
            None => Targets::Values(Tensor::from_fn(*shape, |i| T::from_f64((i % 7) as f64 / 7.0))),
        };
        let cast = |given: &Targets<f64>| match given {
            Targets::Values(values) => Targets::Values(values.cast()),
            Targets::Classes { indices, shape } => {
                Targets::Classes { indices: indices.clone(), shape: *shape }
            }
            Targets::Sequences { indices, lengths } => {
                Targets::Sequences { indices: indices.clone(), lengths: lengths.clone() }
            }
        };
        match &self.targets {
            Some(given) => given.iter().map(cast).collect(),
            None => self.inputs.iter().map(one).collect(),
        }
    }
}

/// One kind of a [`Registry`].
pub struct Entry<T: Scalar, V> {
    /// What the catalogue says of it.
    pub facts: Facts,
    /// Its cases.
    pub examples: fn() -> Vec<Example>,
    build: fn(&Args<'_, T>) -> Result<V>,
}

impl<T: Scalar, V> fmt::Debug for Entry<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.fmt(f)
    }
}

type Kinds<T, V> = BTreeMap<&'static str, Entry<T, V>>;

/// All kinds of modules, losses, optimizers and schedules that can be built from a spec.
///
/// `chainrule_layers::registry()` has the layers, and so on; the facade's has them all. A kind from outside is one more
/// line:
///
/// ```
/// # use chainrule_core::{Args, BoxModule, Call, Context, Facts, FromSpec, Grads, Layer, Module, Registry, Result, Shape, Spec, Tensor};
/// #[derive(Clone)]
/// struct Double;
/// # impl Layer for Double {
/// #     type T = f32;
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
/// #     fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> {
/// #         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, x)| *y = 2.0 * x);
/// #         Ok(())
/// #     }
/// #     fn backward(&self, _: Call<'_, f32>, _: &mut (), _: &mut Grads<f32>, _: Option<&mut Tensor>) -> Result<()> { Ok(()) }
/// #     fn spec(&self) -> Spec { Spec::new("Double") }
/// # }
/// impl FromSpec<f32> for Double {
///     const FACTS: Facts = Facts::new("Double");
///     fn from_spec(_: &Args<'_, f32>) -> Result<Self> {
///         Ok(Self)
///     }
/// }
/// let registry = Registry::new().module::<Double>();
/// let again = registry.build_module(&Double.spec())?;
/// assert_eq!(again.infer(&Tensor::from([1.5]))?.data(), [3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Registry<T: Scalar> {
    modules: Kinds<T, BoxModule<T>>,
    losses: Kinds<T, Box<dyn Objective<T = T>>>,
    optimizers: Kinds<T, Box<dyn Optimizer<T>>>,
    schedules: Kinds<T, Box<dyn Schedule>>,
}

impl<T: Scalar> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Registry<T> {
    /// No kind yet.
    pub fn new() -> Self {
        Self {
            modules: Kinds::new(),
            losses: Kinds::new(),
            optimizers: Kinds::new(),
            schedules: Kinds::new(),
        }
    }

    /// With a kind of layer or of another module. One of the same name is replaced.
    #[must_use]
    pub fn module<M: FromSpec<T> + Module<T = T> + Clone + 'static>(mut self) -> Self {
        enter::<T, M, _>(&mut self.modules, |args| Ok(BoxModule::new(M::from_spec(args)?)));
        self
    }

    /// With a kind of loss.
    #[must_use]
    pub fn loss<L: FromSpec<T> + Objective<T = T> + 'static>(mut self) -> Self {
        enter::<T, L, _>(&mut self.losses, |args| Ok(Box::new(L::from_spec(args)?)));
        self
    }

    /// With a kind of optimizer.
    #[must_use]
    pub fn optimizer<O: FromSpec<T> + Optimizer<T> + 'static>(mut self) -> Self {
        enter::<T, O, _>(&mut self.optimizers, |args| Ok(Box::new(O::from_spec(args)?)));
        self
    }

    /// With a kind of schedule.
    #[must_use]
    pub fn schedule<S: FromSpec<T> + Schedule + 'static>(mut self) -> Self {
        enter::<T, S, _>(&mut self.schedules, |args| Ok(Box::new(S::from_spec(args)?)));
        self
    }

    /// With all kinds of another registry.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.modules.extend(other.modules);
        self.losses.extend(other.losses);
        self.optimizers.extend(other.optimizers);
        self.schedules.extend(other.schedules);
        self
    }

    /// The kinds of modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = &Entry<T, BoxModule<T>>> {
        self.modules.values()
    }

    /// The kinds of losses, by name.
    pub fn losses(&self) -> impl Iterator<Item = &Entry<T, Box<dyn Objective<T = T>>>> {
        self.losses.values()
    }

    /// The kinds of optimizers, by name.
    pub fn optimizers(&self) -> impl Iterator<Item = &Entry<T, Box<dyn Optimizer<T>>>> {
        self.optimizers.values()
    }

    /// The kinds of schedules, by name.
    pub fn schedules(&self) -> impl Iterator<Item = &Entry<T, Box<dyn Schedule>>> {
        self.schedules.values()
    }

    /// Builds a module from its spec, its children included. Parameters are not initialised.
    ///
    /// # Errors
    /// An unknown kind or attribute, or hyper-parameters that make no sense.
    pub fn build_module(&self, spec: &Spec) -> Result<BoxModule<T>> {
        let module = self.build("module", &self.modules, spec)?;
        crate::Parameters::validate(&module)?;
        Ok(module)
    }

    /// Builds a loss from its spec.
    ///
    /// # Errors
    /// As [`Registry::build_module`].
    pub fn build_loss(&self, spec: &Spec) -> Result<Box<dyn Objective<T = T>>> {
        let loss = self.build("loss", &self.losses, spec)?;
        loss.verify()?;
        Ok(loss)
    }

    /// Builds an optimizer from its spec.
    ///
    /// # Errors
    /// As [`Registry::build_module`].
    pub fn build_optimizer(&self, spec: &Spec) -> Result<Box<dyn Optimizer<T>>> {
        let optimizer = self.build("optimizer", &self.optimizers, spec)?;
        optimizer.check()?;
        Ok(optimizer)
    }

    /// Builds a schedule from its spec.
    ///
    /// # Errors
    /// As [`Registry::build_module`].
    pub fn build_schedule(&self, spec: &Spec) -> Result<Box<dyn Schedule>> {
        let schedule = self.build("schedule", &self.schedules, spec)?;
        schedule.check()?;
        Ok(schedule)
    }

    fn build<V>(&self, what: &str, kinds: &Kinds<T, V>, spec: &Spec) -> Result<V> {
        let entry = kinds.get(spec.kind()).ok_or_else(|| {
            Error::value(format!("expected a registered kind of {what}, got {}", text::quote(spec.kind())))
        })?;
        let args = Args { spec, registry: self, read: RefCell::new(vec![false; spec.attributes().len()]) };
        let built = (entry.build)(&args)?;
        args.finish()?;
        Ok(built)
    }
}

fn enter<T: Scalar, K: FromSpec<T>, V>(kinds: &mut Kinds<T, V>, build: fn(&Args<'_, T>) -> Result<V>) {
    kinds.insert(K::FACTS.kind, Entry { facts: K::FACTS, examples: K::examples, build });
}

/// The attributes of a spec, read by name. An attribute that is never read is an error: it would be ignored.
#[derive(Debug)]
pub struct Args<'a, T: Scalar> {
    spec: &'a Spec,
    registry: &'a Registry<T>,
    read: RefCell<Vec<bool>>,
}

impl<'a, T: Scalar> Args<'a, T> {
    /// A required attribute.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub fn get<V: FromValue>(&self, name: &str) -> Result<V> {
        let value = self.value(name).ok_or_else(|| self.wrong(name, "a value", "none"))?;
        V::from_value(value).ok_or_else(|| self.wrong(name, V::WHAT, &value.to_string()))
    }

    /// An attribute with a default.
    ///
    /// # Errors
    /// It is of another type.
    pub fn or<V: FromValue>(&self, name: &str, default: V) -> Result<V> {
        match self.value(name) {
            None => Ok(default),
            Some(_) => self.get(name),
        }
    }

    /// An attribute that may be missing or off.
    ///
    /// # Errors
    /// It is of another type.
    pub fn optional<V: FromValue>(&self, name: &str) -> Result<Option<V>> {
        match self.value(name) {
            None | Some(Value::None) => Ok(None),
            Some(_) => self.get(name).map(Some),
        }
    }

    /// An attribute of which one value is supported, which may be missing.
    ///
    /// # Errors
    /// It has another value.
    pub fn only(&self, name: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        match self.value(name) {
            Some(value) if *value != supported => {
                Err(self.wrong(name, &supported.to_string(), &value.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// An attribute as it stands.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        let at = self.spec.attributes().iter().position(|(n, _)| n == name)?;
        self.read.borrow_mut()[at] = true;
        Some(&self.spec.attributes()[at].1)
    }

    /// The children with their names, built.
    ///
    /// # Errors
    /// That of the first child that cannot be built, with its name in the path.
    pub fn children(&self) -> Result<Vec<(String, BoxModule<T>)>> {
        let build = |(name, spec): &(String, Spec)| {
            let child = self.registry.build("module", &self.registry.modules, spec);
            Ok((name.clone(), child.map_err(|e| e.in_layer(name))?))
        };
        self.spec.children().iter().map(build).collect()
    }

    /// The spec itself.
    pub fn spec(&self) -> &'a Spec {
        self.spec
    }

    /// The registry that builds it, for parts that are specs.
    pub fn registry(&self) -> &'a Registry<T> {
        self.registry
    }

    fn wrong(&self, name: &str, expected: &str, got: &str) -> Error {
        let got = text::name(got);
        Error::value(format!("{}: attribute `{name}`: expected {expected}, got {got}", self.spec.kind()))
    }

    fn finish(self) -> Result<()> {
        match self.read.borrow().iter().position(|read| !read) {
            None => Ok(()),
            Some(at) => Err(Error::value(format!(
                "{}: unknown attribute {}",
                self.spec.kind(),
                text::quote(&self.spec.attributes()[at].0)
            ))),
        }
    }
}

/// A type that an attribute can be read as.
pub trait FromValue: Sized {
    /// What is expected, for the error.
    const WHAT: &'static str;

    /// The value, if it is of this type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($t:ty, $what:literal: $pattern:pat => $value:expr;)*) => {$(
        impl FromValue for $t {
            const WHAT: &'static str = $what;
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        }
    )*};
}

from_value! {
    bool, "true or false": Value::Bool(v) => Some(*v);
    usize, "a size": Value::Int(v) => usize::try_from(*v).ok();
    isize, "a whole number": Value::Int(v) => isize::try_from(*v).ok();
    i64, "a whole number": Value::Int(v) => Some(*v);
    u64, "a whole number from 0": Value::Int(v) => u64::try_from(*v).ok();
    String, "a text": Value::Text(v) => Some(v.clone());
    Spec, "a spec": Value::Spec(v) => Some(v.clone());
}

impl FromValue for f64 {
    const WHAT: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Float(v) => Some(*v),
            Value::Int(v) => Some(*v as f64),
            _ => None,
        }
    }
}

impl<V: FromValue> FromValue for Option<V> {
    const WHAT: &'static str = V::WHAT;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::None => Some(None),
            some => V::from_value(some).map(Some),
        }
    }
}

impl<V: FromValue> FromValue for Vec<V> {
    const WHAT: &'static str = "a list";

    /// A single value is a list of one.
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::List(values) => values.iter().map(V::from_value).collect(),
            one => Some(vec![V::from_value(one)?]),
        }
    }
}

impl<V: FromValue + Clone, const N: usize> FromValue for [V; N] {
    const WHAT: &'static str = "one value, or one for each axis";

    /// A single value is meant for every axis.
    fn from_value(value: &Value) -> Option<Self> {
        let values = Vec::<V>::from_value(value)?;
        match values.len() {
            1 => Some(std::array::from_fn(|_| values[0].clone())),
            _ => values.try_into().ok(),
        }
    }
}

impl FromValue for Shape {
    const WHAT: &'static str = "a shape";

    fn from_value(value: &Value) -> Option<Self> {
        Shape::new(&Vec::<usize>::from_value(value)?).ok()
    }
}

impl FromValue for Reduction {
    const WHAT: &'static str = "mean, sum or none";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(name) if name == "mean" => Some(Self::Mean),
            Value::Text(name) if name == "sum" => Some(Self::Sum),
            Value::Text(name) if name == "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl<T: Scalar> FromValue for Tensor<T> {
    const WHAT: &'static str = "a number, or lists of numbers of one length";

    fn from_value(value: &Value) -> Option<Self> {
        let (mut axes, mut first) = (Vec::new(), value);
        while let Value::List(values) = first {
            axes.push(values.len());
            // More axes than a shape has end here, before anything is read.
            first = match values.first() {
                Some(value) if axes.len() <= Shape::MAX_RANK => value,
                _ => break,
            };
        }
        fn flatten<T: Scalar>(value: &Value, axes: &[usize], data: &mut Vec<T>) -> Option<()> {
            match (value, axes) {
                (Value::List(values), [n, rest @ ..]) if values.len() == *n => {
                    values.iter().try_for_each(|value| flatten(value, rest, data))
                }
                (Value::List(_), _) | (_, [_, ..]) => None,
                (number, []) => {
                    data.push(T::from_f64(f64::from_value(number)?));
                    Some(())
                }
            }
        }
        let (shape, mut data) = (Shape::new(&axes).ok()?, Vec::new());
        flatten(value, &axes, &mut data)?;
        Self::from_vec(shape, data).ok()
    }
}

impl FromValue for Init {
    const WHAT: &'static str = "an initialiser";

    fn from_value(value: &Value) -> Option<Self> {
        let Value::Spec(spec) = value else { return None };
        let number = |name: &str| spec.get(name).and_then(f64::from_value);
        let count = |name: &str| spec.get(name).and_then(usize::from_value);
        let fan = || match spec.get("fan").and_then(String::from_value)?.as_str() {
            "fan_in" => Some(Fan::In),
            "fan_out" => Some(Fan::Out),
            "fan_avg" => Some(Fan::Average),
            _ => None,
        };
        Some(match spec.kind() {
            "Constant" => Self::Constant(number("value")?),
            "Uniform" => Self::Uniform { low: number("low")?, high: number("high")? },
            "Normal" => Self::Normal { mean: number("mean")?, std: number("std")? },
            "TruncatedNormal" => Self::TruncatedNormal { mean: number("mean")?, std: number("std")? },
            "ScaledUniform" => Self::ScaledUniform { fan: fan()?, gain: number("gain")? },
            "ScaledNormal" => Self::ScaledNormal { fan: fan()?, gain: number("gain")? },
            "Orthogonal" => Self::Orthogonal { gain: number("gain")? },
            "TruncatedWithin" => Self::TruncatedWithin {
                mean: number("mean")?,
                std: number("std")?,
                low: number("low")?,
                high: number("high")?,
            },
            "ScaledTruncatedNormal" => Self::ScaledTruncatedNormal { fan: fan()?, gain: number("gain")? },
            "Identity" => Self::Identity,
            "Dirac" => Self::Dirac { groups: count("groups")? },
            "Sparse" => Self::Sparse { sparsity: number("sparsity")?, std: number("std")? },
            "Icnr" => Self::Icnr { factor: count("factor")?, gain: number("gain")? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_initialiser_comes_back_from_its_spec() {
        let all = [
            Init::Constant(0.5),
            Init::Uniform { low: -1.0, high: 2.0 },
            Init::Normal { mean: 0.1, std: 0.2 },
            Init::TruncatedNormal { mean: 0.1, std: 0.2 },
            Init::xavier_uniform(),
            Init::kaiming_normal(),
            Init::ScaledNormal { fan: Fan::Out, gain: 1.5 },
            Init::orthogonal(),
            Init::TruncatedWithin { mean: 0.1, std: 0.2, low: -0.3, high: 0.4 },
            Init::variance_scaling(2.0, Fan::Average).truncated_normal(),
            Init::Identity,
            Init::Dirac { groups: 2 },
            Init::Sparse { sparsity: 0.5, std: 0.1 },
            Init::Icnr { factor: 2, gain: 1.0 },
        ];
        for init in all {
            assert_eq!(Init::from_value(&init.into()), Some(init));
        }
    }

    #[test]
    fn tensors_are_nested_lists() {
        for t in [Tensor::from(0.5f64), Tensor::from([1.0, 2.0]), Tensor::from_fn([2, 1, 3], |i| i as f64)] {
            assert_eq!(Tensor::from_value(&Value::from(&t)), Some(t));
        }
        let list = |values: &[Value]| Value::List(values.to_vec());
        let ragged = list(&[list(&[1.0.into()]), list(&[1.0.into(), 2.0.into()])]);
        let mixed = list(&[list(&[1.0.into()]), 1.0.into()]);
        let deep = (0..1000).fold(Value::Int(1), |value, _| list(&[value]));
        for wrong in [ragged, mixed, deep, list(&["a".into()])] {
            assert_eq!(Tensor::<f64>::from_value(&wrong), None);
        }
    }

    #[test]
    fn values_are_read_as_what_is_meant() {
        assert_eq!(<[usize; 2]>::from_value(&Value::Int(3)), Some([3, 3]));
        assert_eq!(<[usize; 2]>::from_value(&[1usize, 2].into()), Some([1, 2]));
        assert_eq!(<[usize; 2]>::from_value(&[1usize, 2, 3].into()), None);
        assert_eq!(usize::from_value(&Value::Int(-1)), None);
        assert_eq!(f64::from_value(&Value::Int(2)), Some(2.0));
        assert_eq!(Option::<usize>::from_value(&Value::None), Some(None));
        assert_eq!(Reduction::from_value(&Reduction::Sum.into()), Some(Reduction::Sum));
    }
}
