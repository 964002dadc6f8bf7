//! From a file to a model: the header first, all names and shapes at once, then the values, and only then the model.

use crate::{
    TensorFile, dtype,
    file::{Entry, Root},
    report::{Left, Reason, Report, Taken},
    rule::Rename,
};
use chainrule_core::{Error, ParamId, Parameters, Result, Scalar, Shape, Tensor, text::quote};
use safetensors::Dtype;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

/// Loads every parameter and buffer of a model from a file in any form that [`TensorFile`] reads: safetensors in one file or
/// several, what `torch.save` writes, or NumPy's arrays. [`Load`] loads a part, or under other names.
///
/// Floating-point values become the model's own, counters are read from I64. Of a parameter with several names one may be
/// missing. Of a checkpoint that holds more than a `state_dict` its only one is taken, under the usual names or another, and
/// the prefixes `module.` and `_orig_mod.` of all names are taken off if the model has none. The file is read tensor by
/// tensor, after its header was found to fit.
///
/// # Errors
/// One error of kind [`State`](chainrule_core::Kind::State) lists the names that are missing, unexpected, of another shape
/// or of a type that cannot be read. A file that is cut or lies about its contents, values that are not finite, counts that
/// the model's scalar does not hold exactly and what the operating system reports are errors too. The model is as it was
/// after any of them.
pub fn load(model: &mut (impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    strictly(model, &mut TensorFile::open(path)?)
}

/// [`load`] from the contents of a file.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(model: &mut (impl Parameters + ?Sized), bytes: &[u8]) -> Result<()> {
    strictly(model, &mut TensorFile::from_bytes(bytes)?)
}

pub(crate) fn strictly(model: &mut (impl Parameters + ?Sized), file: &mut TensorFile<'_>) -> Result<()> {
    Load::strict().run(model, file).map(drop)
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
    allow_not_finite: bool,
    item: Option<String>,
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

    /// Takes the tensors below an item of a checkpoint, `item("ema")`, and names them without it. Without this the only
    /// `state_dict` is taken; `item("")` takes all, under their whole names.
    pub fn item(self, name: impl Into<String>) -> Self {
        Self { item: Some(name.into()), ..self }
    }

    /// Takes infinities and NaN too.
    pub fn allow_not_finite(self) -> Self {
        Self { allow_not_finite: true, ..self }
    }

    /// Loads from a file.
    ///
    /// # Errors
    /// As [`load`], unless a method allows it; two tensors are for the same parameter.
    pub fn load(&self, model: &mut (impl Parameters + ?Sized), path: impl AsRef<Path>) -> Result<Report> {
        self.run(model, &mut TensorFile::open(path)?)
    }

    /// Loads from the contents of a file.
    ///
    /// # Errors
    /// As [`Load::load`].
    pub fn from_bytes(&self, model: &mut (impl Parameters + ?Sized), bytes: &[u8]) -> Result<Report> {
        self.run(model, &mut TensorFile::from_bytes(bytes)?)
    }

    /// Loads from a file that is open.
    ///
    /// # Errors
    /// As [`Load::load`].
    pub fn from_file(
        &self,
        model: &mut (impl Parameters + ?Sized),
        file: &mut TensorFile<'_>,
    ) -> Result<Report> {
        self.run(model, file)
    }

    fn run<P: Parameters + ?Sized>(&self, model: &mut P, file: &mut TensorFile<'_>) -> Result<Report> {
        let mut plan = self.plan(model, file)?;
        let mut loaded: BTreeMap<ParamId, Tensor<P::T>> = BTreeMap::new();
        let mut in_order: Vec<usize> = (0..plan.taken.len()).collect();
        in_order.sort_by_key(|&i| file.order(plan.taken[i].2));
        for (Taken { from, .. }, target, at) in in_order.into_iter().map(|i| &plan.taken[i]) {
            let tensor = file.value(*at, target.shape, target.counter, !self.allow_not_finite)?;
            match loaded.get(&target.id) {
                Some(other) if !same(other, &tensor) => {
                    return Err(Error::state(format!(
                        "{}: expected the same values under all names of one parameter, got others in {}",
                        file.name(),
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
        let taken = plan.taken.drain(..).map(|(taken, ..)| taken).collect();
        Ok(Report { item: plan.item, taken, left: plan.left })
    }

    /// The item of the file that is loaded.
    fn chosen(&self, file: &TensorFile<'_>) -> Result<Option<String>> {
        match (&self.item, file.root()) {
            (Some(name), _) if name.is_empty() => Ok(None),
            (Some(name), _) => Ok(Some(name.clone())),
            (None, Root::Whole) => Ok(None),
            (None, Root::Item(name)) => Ok(Some(name.to_string())),
            (None, Root::Several(names)) => {
                let names: Vec<String> = names.iter().take(MOST_PROBLEMS).map(|name| quote(name)).collect();
                Err(Error::state(format!(
                    "{}: expected one state_dict, got several: name one by `Load::item`: {}",
                    file.name(),
                    names.join(", ")
                )))
            }
        }
    }

    /// What goes where, if header and model fit together as far as they must.
    fn plan<P: Parameters + ?Sized>(&self, model: &P, file: &TensorFile<'_>) -> Result<Plan> {
        let mut problems = Problems::default();
        let targets = targets(model, &mut problems);
        let mut plan = Plan { item: self.chosen(file)?, ..Plan::default() };
        let mut leave = |name: &str, reason: Reason| plan.left.push(Left { name: name.into(), reason });
        // The tensors, each under its name in the item and under that which the model should know.
        let mut named: Vec<Named> = Vec::new();
        for (at, entry) in file.entries().iter().enumerate() {
            let name = match &plan.item {
                None => &*entry.name,
                Some(item) => {
                    match entry.name.strip_prefix(&**item).and_then(|rest| rest.strip_prefix('.')) {
                        Some(name) => name,
                        None => continue,
                    }
                }
            };
            let rename = |name, rename: &Rename<'a>| Cow::Owned(rename.apply(Cow::into_owned(name)));
            let path = self.renames.iter().fold(Cow::Borrowed(name), rename);
            named.push(Named { name, path, at, entry });
        }
        if let (Some(item), true) = (&plan.item, named.is_empty()) {
            return Err(Error::state(format!(
                "{}: expected tensors below {}, got none",
                file.name(),
                quote(item)
            )));
        }
        strip_wrappers(&mut named, &targets);
        // What keeps its values by the caller's word is not missing.
        let (mut found, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let mut tensors: BTreeMap<Cow<'_, str>, (&str, usize, &Entry)> = BTreeMap::new();
        for Named { name, path, at, entry } in named {
            if self.skip.as_ref().is_some_and(|which| which(name)) {
                leave(name, Reason::Skipped);
                if let Some((path, _)) = targets.get_key_value(&*path) {
                    kept.insert(path.as_str());
                }
            } else if let Some((other, ..)) = tensors.get(&path) {
                problems.add(|| {
                    let [path, other, name] = [&*path, other, name].map(quote);
                    format!("expected one tensor for {path}, got {other} and {name}")
                });
            } else {
                tensors.insert(path, (name, at, entry));
            }
        }
        // Of tied tensors, of which a file names one and tells the other names, any name will do.
        let aliases = tensors.iter().filter(|(_, (.., entry))| entry.alias);
        let tied: BTreeSet<(u32, u64)> = aliases
            .filter(|(path, _)| targets.contains_key(&***path))
            .map(|(_, &(_, at, _))| file.order(at))
            .collect();
        for (path, (name, at, entry)) in tensors {
            let Some((path, target)) = targets.get_key_value(&*path) else {
                if entry.alias || tied.contains(&file.order(at)) {
                    continue;
                }
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
                plan.taken.push((taken, *target, at));
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
                Err(Error::state(format!("{} and the model do not fit: {problems}", file.name())))
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
    item: Option<String>,
    /// With the number of the tensor in the file.
    taken: Vec<(Taken, Target, usize)>,
    left: Vec<Left>,
}

/// A tensor of the file.
struct Named<'f> {
    /// Its name there.
    name: &'f str,
    /// Its name for the model.
    path: Cow<'f, str>,
    at: usize,
    entry: &'f Entry,
}

/// Takes off what `nn.DataParallel` and `torch.compile` put before all names, if the model has no such names.
fn strip_wrappers(named: &mut [Named<'_>], targets: &BTreeMap<String, Target>) {
    loop {
        let wraps = |prefix: &&str| {
            named.iter().all(|tensor| tensor.path.starts_with(*prefix))
                && !targets.keys().any(|path| path.starts_with(*prefix))
        };
        let Some(prefix) = ["module.", "_orig_mod."].into_iter().find(wraps).filter(|_| !named.is_empty())
        else {
            return;
        };
        for tensor in &mut *named {
            tensor.path = match &tensor.path {
                Cow::Borrowed(path) => Cow::Borrowed(&path[prefix.len()..]),
                Cow::Owned(path) => Cow::Owned(path[prefix.len()..].to_owned()),
            };
        }
    }
}

/// Whether two tensors have the same values, NaN being itself.
fn same<T: Scalar>(a: &Tensor<T>, b: &Tensor<T>) -> bool {
    a.data().iter().zip(b.data()).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
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
