//! From a file to a model: the header first, all names and shapes at once, then the values, and only then the model.

use crate::{
    dtype,
    report::{Left, Reason, Report, Taken},
    rule::Rename,
    source::{self, Source},
    text::{self, quote},
};
use chainrule_core::{Error, ParamId, Parameters, Result, Scalar, Shape, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};
use std::{
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
        for (Taken { from, .. }, target, info) in &plan.taken {
            let tensor = source.tensor(from, info, target.shape, target.counter)?;
            match loaded.get(&target.id) {
                Some(other) if *other != tensor => {
                    return Err(Error::state(text::message(&format!(
                        "{}: expected the same values under all names of one parameter, got others in {}",
                        source.name,
                        quote(from)
                    ))));
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
        let mut problems = Vec::new();
        let targets = targets(model, &mut problems);
        let mut plan = Plan::default();
        let mut leave = |name: &str, reason: Reason| plan.left.push(Left { name: name.into(), reason });
        // What keeps its values by the caller's word is not missing.
        let (mut found, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let mut tensors: BTreeMap<String, (String, &TensorInfo)> = BTreeMap::new();
        let mut names = source.header.offset_keys();
        names.sort_unstable();
        for name in names {
            let Some(info) = source.header.info(&name) else { continue };
            let path = self.renames.iter().fold(name.clone(), |name, rename| rename.apply(name));
            if self.skip.as_ref().is_some_and(|which| which(&name)) {
                leave(&name, Reason::Skipped);
                kept.insert(path);
            } else if let Some((other, _)) = tensors.get(&path) {
                let [path, other, name] = [&path, other, &name].map(|name| quote(name));
                problems.push(format!("expected one tensor for {path}, got {other} and {name}"));
            } else {
                tensors.insert(path, (name, info));
            }
        }
        for (path, (from, info)) in tensors {
            match targets.get(&path).map(|target| (target, target.mismatch::<P::T>(info))) {
                Some((target, None)) => {
                    found.insert(target.id);
                    plan.taken.push((Taken { path, from }, *target, info.clone()));
                }
                Some((_, Some((expected, got)))) if self.skip_mismatched => {
                    leave(&from, Reason::Mismatched { expected, got });
                    kept.insert(path);
                }
                Some((_, Some((expected, got)))) => {
                    problems.push(format!("expected {} {expected}, got {got}", quote(&path)));
                    kept.insert(path);
                }
                None if self.unexpected.as_ref().is_some_and(|which| which(&from)) => {
                    leave(&from, Reason::Unexpected);
                }
                None => problems.push(format!("unexpected {} {:?}", quote(&from), info.shape)),
            }
        }
        for (path, target) in &targets {
            if found.contains(&target.id) || kept.contains(path) {
                continue;
            }
            let allowed = self.missing.as_ref().is_some_and(|which| which(path));
            if allowed || (target.counter && !self.strict) {
                leave(path, Reason::Missing);
            } else {
                problems.push(format!("missing {} {}", quote(path), target.shape));
            }
        }
        if problems.is_empty() {
            return Ok(plan);
        }
        let n = problems.len();
        if n > MOST_PROBLEMS {
            problems.truncate(MOST_PROBLEMS);
            problems.push(format!("and {} more", n - MOST_PROBLEMS));
        }
        let text = format!("{} and the model do not fit: {}", source.name, problems.join("; "));
        Err(Error::state(text::message(&text)))
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

/// What a model wants under a path.
#[derive(Clone, Copy)]
struct Target {
    id: ParamId,
    shape: Shape,
    counter: bool,
}

#[derive(Default)]
struct Plan {
    taken: Vec<(Taken, Target, TensorInfo)>,
    left: Vec<Left>,
}

fn targets<P: Parameters + ?Sized>(model: &P, problems: &mut Vec<String>) -> BTreeMap<String, Target> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    model.visit(&mut |path, param| {
        let new = Target { id: param.id(), shape: *param.shape(), counter: param.is_counter() };
        let path = path.to_string();
        if targets.get(&path).is_some_and(|old| old.id != new.id) {
            problems.push(format!("two parameters of the model are named {}", quote(&path)));
        }
        targets.insert(path, new);
    });
    targets
}

impl Target {
    /// What was expected and what the file has, if they differ.
    fn mismatch<T: Scalar>(&self, info: &TensorInfo) -> Option<(String, String)> {
        if info.shape != self.shape[..] {
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
