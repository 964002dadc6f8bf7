//! From a file to a model: the header first, all names and shapes at once, then the values, and only then the model.

use crate::{
    dtype,
    header::Entry,
    report::{Left, Reason, Report, Taken},
    rule::Rename,
    source::{self, Source},
};
use chainrule_core::{Error, ParamId, Parameters, Result, Scalar, Shape, Tensor, text::quote};
use safetensors::Dtype;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{Read, Seek},
    path::Path,
};

/// Loads every parameter and buffer of a model from a safetensors file, which PyTorch may have written. [`Load`] loads a
/// part, or under other names.
///
/// Values of type F64, F32, F16 and BF16 become the model's own, counters are read from I64. Of a parameter with several
/// names one may be missing. The file is read tensor by tensor, after its header was found to fit.
///
/// # Errors
/// One error of kind [`State`](chainrule_core::Kind::State) lists the names that are missing, unexpected, of another shape
/// or of a type that cannot be read. A file that is cut or lies about its contents, values that are not finite, counts that
/// the model's scalar does not hold exactly and what the operating system reports are errors too. The model is as it was
/// after any of them.
pub fn load(model: &mut (impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    Load::strict().run(model, source::open(path.as_ref())?).map(drop)
}

/// [`load`] from the contents of a file.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(model: &mut (impl Parameters + ?Sized), bytes: &[u8]) -> Result<()> {
    strictly(model, source::of_bytes(bytes)?)
}

pub(crate) fn strictly<R: Read + Seek>(
    model: &mut (impl Parameters + ?Sized),
    source: Source<R>,
) -> Result<()> {
    Load::strict().run(model, source).map(drop)
}

/// Loading for fine-tuning: a part of a file, or under other names.
///
/// Without a method's permission everything must fit, as for [`load`]; only counters (`num_batches_tracked`) may always be
/// missing, as they are in old files. The name of a tensor goes through the renaming methods in the order of their calls.
///
/// ```
/// # use chainrule_core::*;
/// # #[derive(Clone)]
/// # struct Gain(Param<f32>);
/// # impl Layer for Gain {
/// #     type T = f32;
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
/// #     fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> { y.copy_from(x); Ok(()) }
/// #     fn backward(&self, _: Call<'_, f32>, _: &mut (), _: &mut Grads<f32>, _: Option<&mut Tensor>) -> Result<()> { Ok(()) }
/// #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, f32>) { out.add(&self.0) }
/// #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) { out.add(&mut self.0) }
/// # }
/// # fn gain(classes: usize) -> Gain { Gain(Param::new("gain", [classes], Init::ONES)) }
/// use chainrule_io::Load;
/// struct Classifier { body: Gain, head: Gain }
/// parameters! { Classifier: f32 { body, head } }
///
/// let bytes = chainrule_io::to_bytes(&Classifier { body: gain(3), head: gain(10) }.init(0)?)?;
/// let mut model = Classifier { body: gain(3), head: gain(5) }.init(1)?; // another head
/// let report = Load::new().skip_mismatched().from_bytes(&mut model, &bytes)?;
/// assert_eq!(
///     report.to_string(),
///     "1 taken, 1 left\n  `body.gain`\n  left `head.gain`: expected [5], got [10]"
/// );
/// # Ok::<(), Error>(())
/// ```
#[must_use]
#[derive(Default)]
pub struct Load<'a> {
    renames: Vec<Rename<'a>>,
    skip: Option<Which<'a>>,
    missing: Option<Which<'a>>,
    unexpected: Option<Which<'a>>,
    skip_mismatched: bool,
    /// Counters may not be missing either.
    strict: bool,
}

type Which<'a> = Box<dyn Fn(&str) -> bool + 'a>;

impl<'a> Load<'a> {
    /// Everything must fit.
    pub fn new() -> Self {
        Self::default()
    }

    fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Takes a prefix off the names that have it: `strip_prefix("module.")`.
    pub fn strip_prefix(self, prefix: impl Into<String>) -> Self {
        self.renamed(Rename::StripPrefix(prefix.into()))
    }

    /// Puts a prefix before every name: `add_prefix("encoder.")`.
    pub fn add_prefix(self, prefix: impl Into<String>) -> Self {
        self.renamed(Rename::AddPrefix(prefix.into()))
    }

    /// Replaces the first run of whole names between points: `rule("model.fc", "head")`. A `*` is any one name, and is
    /// carried over: `rule("layer.*.attn", "blocks.*.attention")`.
    pub fn rule(self, from: &str, to: &str) -> Self {
        self.renamed(Rename::rule(from, to))
    }

    /// Replaces every name by that which `f` returns.
    pub fn rename(self, f: impl Fn(&str) -> String + 'a) -> Self {
        self.renamed(Rename::Call(Box::new(f)))
    }

    fn renamed(mut self, rename: Rename<'a>) -> Self {
        self.renames.push(rename);
        self
    }

    /// Skips the tensors whose name in the file satisfies `which`, even if the model has a parameter for them. The last
    /// call holds.
    pub fn skip(self, which: impl Fn(&str) -> bool + 'a) -> Self {
        Self { skip: Some(Box::new(which)), ..self }
    }

    /// Parameters whose path in the model satisfies `which` may be missing in the file: they keep what they had. The last
    /// call holds.
    pub fn allow_missing(self, which: impl Fn(&str) -> bool + 'a) -> Self {
        Self { missing: Some(Box::new(which)), ..self }
    }

    /// Tensors whose name in the file satisfies `which` need no parameter in the model. The last call holds.
    pub fn allow_unexpected(self, which: impl Fn(&str) -> bool + 'a) -> Self {
        Self { unexpected: Some(Box::new(which)), ..self }
    }

    /// Skips tensors of another shape than the model's, or of a type that cannot be read: the parameters keep what they had.
    pub fn skip_mismatched(self) -> Self {
        Self { skip_mismatched: true, ..self }
    }

    /// Loads from a file.
    ///
    /// # Errors
    /// As [`load`], unless a method allows it; two tensors are for the same parameter.
    pub fn load(&self, model: &mut (impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<Report> {
        self.run(model, source::open(path.as_ref())?)
    }

    /// Loads from the contents of a file.
    ///
    /// # Errors
    /// As [`Load::load`].
    pub fn from_bytes(&self, model: &mut (impl Parameters + ?Sized), bytes: &[u8]) -> Result<Report> {
        self.run(model, source::of_bytes(bytes)?)
    }

    fn run<P: Parameters + ?Sized, R: Read + Seek>(
        &self,
        model: &mut P,
        mut source: Source<R>,
    ) -> Result<Report> {
        let plan = self.plan(model, &source)?;
        let mut loaded: BTreeMap<ParamId, Tensor<P::T>> = BTreeMap::new();
        for (Taken { from, .. }, target, stored) in &plan.taken {
            let tensor = source.tensor(from, *stored, target.shape, target.counter)?;
            match loaded.get(&target.id) {
                Some(other) if *other != tensor => {
                    return Err(Error::state(format!(
                        "{}: expected the same values under all names of one parameter, got others in {}",
                        source.name,
                        quote(from)
                    )));
                }
                Some(_) => {}
                None => _ = loaded.insert(target.id, tensor),
            }
        }
        let mut result = Ok(());
        model.visit_mut(&mut |_, param| {
            let absent_counter = param.is_counter() && param.tensor().is_none();
            let tensor = loaded.remove(&param.id()).or_else(|| absent_counter.then(|| P::T::ZERO.into()));
            if let Some(tensor) = tensor {
                // Shapes were compared before: this cannot fail half-way.
                result = std::mem::replace(&mut result, Ok(())).and(param.set(tensor));
            }
        });
        result?;
        Ok(Report { taken: plan.taken.into_iter().map(|(taken, ..)| taken).collect(), left: plan.left })
    }

    /// What goes where, if header and model fit together as far as they must.
    fn plan<P: Parameters + ?Sized, R>(&self, model: &P, source: &Source<R>) -> Result<Plan> {
        let mut problems = Problems::default();
        let targets = targets(model, &mut problems);
        let mut plan = Plan::default();
        let mut leave = |name: &str, reason: Reason| plan.left.push(Left { name: name.into(), reason });
        // What keeps its values by the caller's word is not missing.
        let (mut found, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let mut tensors: BTreeMap<Cow<'_, str>, &Entry> = BTreeMap::new();
        for entry in source.header.tensors() {
            let name = &*entry.name;
            let path = self
                .renames
                .iter()
                .fold(Cow::Borrowed(name), |name, rename| Cow::Owned(rename.apply(name.into_owned())));
            if self.skip.as_ref().is_some_and(|which| which(name)) {
                leave(name, Reason::Skipped);
                if let Some((path, _)) = targets.get_key_value(&*path) {
                    kept.insert(path.as_str());
                }
            } else if let Some(other) = tensors.get(&path) {
                problems.add(|| {
                    let [path, other, name] = [&*path, &*other.name, name].map(quote);
                    format!("expected one tensor for {path}, got {other} and {name}")
                });
            } else {
                tensors.insert(path, entry);
            }
        }
        for (path, entry) in tensors {
            let name = &*entry.name;
            let Some((path, target)) = targets.get_key_value(&*path) else {
                if self.unexpected.as_ref().is_some_and(|which| which(name)) {
                    leave(name, Reason::Unexpected);
                } else {
                    problems.add(|| format!("unexpected {} {:?}", quote(name), entry.shape));
                }
                continue;
            };
            let Some((expected, got)) = target.mismatch::<P::T>(entry) else {
                found.insert(target.id);
                let taken = Taken { path: path.clone(), from: name.into() };
                plan.taken.push((taken, *target, (entry.dtype, entry.place)));
                continue;
            };
            kept.insert(path.as_str());
            if self.skip_mismatched {
                leave(name, Reason::Mismatched { expected, got });
            } else {
                problems.add(|| format!("expected {} {expected}, got {got}", quote(path)));
            }
        }
        for (path, target) in &targets {
            if found.contains(&target.id) || kept.contains(path.as_str()) {
                continue;
            }
            let allowed = self.missing.as_ref().is_some_and(|which| which(path));
            if allowed || (target.counter && !self.strict) {
                leave(path, Reason::Missing);
            } else {
                problems.add(|| format!("missing {} {}", quote(path), target.shape));
            }
        }
        match problems.finish() {
            None => Ok(plan),
            Some(problems) => {
                Err(Error::state(format!("{} and the model do not fit: {problems}", source.name)))
            }
        }
    }
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("renames", &self.renames.len())
            .field("skip_mismatched", &self.skip_mismatched)
            .finish_non_exhaustive()
    }
}

/// As many problems as one error lists: enough to see that a prefix is wrong.
const MOST_PROBLEMS: usize = 50;

/// What does not fit: the first of many, and how many more.
#[derive(Default)]
struct Problems {
    first: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.first.len() < MOST_PROBLEMS { self.first.push(text()) } else { self.more += 1 }
    }

    fn finish(mut self) -> Option<String> {
        if self.more > 0 {
            self.first.push(format!("and {} more", self.more));
        }
        (!self.first.is_empty()).then(|| self.first.join("; "))
    }
}

/// What a model wants under a path.
#[derive(Clone, Copy)]
struct Target {
    id: ParamId,
    shape: Shape,
    counter: bool,
}

#[derive(Default)]
struct Plan {
    taken: Vec<(Taken, Target, (Dtype, (usize, usize)))>,
    left: Vec<Left>,
}

fn targets<P: Parameters + ?Sized>(model: &P, problems: &mut Problems) -> BTreeMap<String, Target> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    model.visit(&mut |path, param| {
        let new = Target { id: param.id(), shape: *param.shape(), counter: param.is_counter() };
        let path = path.to_string();
        if targets.get(&path).is_some_and(|old| old.id != new.id) {
            problems.add(|| format!("two parameters of the model are named {}", quote(&path)));
        }
        targets.insert(path, new);
    });
    targets
}

impl Target {
    /// What was expected and what the file has, if they differ.
    fn mismatch<T: Scalar>(&self, info: &Entry) -> Option<(String, String)> {
        if info.shape[..] != self.shape[..] {
            return Some((self.shape.to_string(), format!("{:?}", info.shape)));
        }
        let expected = match self.counter {
            true if info.dtype != Dtype::I64 => "I64",
            false if !dtype::is_float(info.dtype) => T::NAME,
            _ => return None,
        };
        Some((format!("of type {expected}"), info.dtype.to_string()))
    }
}
