//! A run of training in a file, from which it goes on after it was stopped or killed.

use crate::{
    Callback, Epoch, History, Score, Scores, Settings, Trainer, best::Best, early_stopping::Watch,
    metric::Panel, snapshot::Snapshot, step::Learner,
};
use chainrule_core::{Error, Module, Objective, Optimizer, OptimizerState, Result, Scalar, text::quote};
use chainrule_io::Archive;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Writes everything that a run goes on from into a folder: weights, buffers, the optimizer's state, counts of steps and epochs,
/// the place in the data, what metrics have added up, early stopping, callbacks, the history. [`Trainer::resume`] reads it, and
/// the run ends with the same bits as one that was never stopped.
///
/// A file is written beside its place and moved into it, so that a crash loses what came after the last one and no more. The
/// newest `keep` stay, and one of the best epoch if that is asked for. The folder is made before the first step; one that has the
/// checkpoints of another run is refused.
///
/// ```no_run
/// # use chainrule_train::{Checkpoint, Trainer};
/// # use chainrule_core::Parameters;
/// # use chainrule_data::iris;
/// # use chainrule_layers::Linear;
/// # use chainrule_losses::CrossEntropy;
/// # use chainrule_optim::Adam;
/// let model = Linear::<f32>::new(4, 3).init(1)?;
/// let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(0.05))
///     .checkpoint(Checkpoint::new("runs/iris").every_steps(100).best("loss"));
/// trainer.resume("runs/iris")?; // goes on if there is something to go on from
/// trainer.fit(&iris())?;
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    epochs: usize,
    steps: Option<u64>,
    keep: usize,
    best: Option<Best>,
    /// Whether the files of the folder are of this run.
    ours: bool,
}

impl Checkpoint {
    /// After every epoch, into this folder; the newest three stay.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), epochs: 1, steps: None, keep: 3, best: None, ours: false }
    }

    /// After every `n` epochs.
    #[must_use]
    pub fn every_epochs(mut self, n: usize) -> Self {
        self.epochs = n;
        self
    }

    /// After every `n` steps as well.
    #[must_use]
    pub fn every_steps(mut self, n: u64) -> Self {
        self.steps = Some(n);
        self
    }

    /// How many of the newest stay.
    #[must_use]
    pub fn keep(mut self, n: usize) -> Self {
        self.keep = n;
        self
    }

    /// Keeps the one after the best epoch too, `best.safetensors`, by `"loss"` or a metric, on the validation data if there are any.
    #[must_use]
    pub fn best(mut self, monitor: impl Into<String>) -> Self {
        self.best = Some(Best::new(monitor));
        self
    }

    /// Whether it makes sense, and whether it can be written, by a run that goes on from a checkpoint or a new one.
    pub(crate) fn prepare(&mut self, scores: &[String], resumed: bool) -> Result<()> {
        for (what, n) in
            [("epochs", self.epochs as u64), ("steps", self.steps.unwrap_or(1)), ("files", self.keep as u64)]
        {
            if n == 0 {
                return Err(Error::value(format!("checkpoint: expected a number of {what} from 1, got 0")));
            }
        }
        if let Some(best) = &mut self.best {
            best.check("checkpoint", scores)?;
            best.reset();
        }
        make_writable(&self.file(0))?;
        if !(self.ours || resumed || self.files()?.is_empty()) {
            return Err(Error::state(format!(
                "checkpoint: expected a folder without the checkpoints of another run: resume that one, or remove {}",
                self.folder.display()
            )));
        }
        self.ours = true;
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        files(&self.folder).map_err(|e| Error::io(e, format!("read {}", self.folder.display())))
    }

    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.steps.is_some_and(|n| step.is_multiple_of(n))
    }

    pub(crate) fn is_due_after(&self, epoch: usize) -> bool {
        epoch.is_multiple_of(self.epochs)
    }

    /// Whether an epoch is the best so far.
    pub(crate) fn improves(&mut self, epoch: &Epoch) -> bool {
        self.best.as_mut().is_some_and(|best| best.improves(epoch))
    }

    pub(crate) fn save<T: Scalar>(&self, archive: &mut Archive<T>) {
        if let Some(best) = &self.best {
            best.save(archive, "checkpoint.best");
        }
    }

    pub(crate) fn restore<T: Scalar>(&mut self, archive: &Archive<T>) -> Result<()> {
        match &mut self.best {
            Some(best) if archive.find("checkpoint.best").is_some() => {
                best.restore(archive, "checkpoint.best")
            }
            _ => Ok(()),
        }
    }

    fn file(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:010}{SUFFIX}"))
    }

    pub(crate) fn write<T: Scalar>(&self, archive: &Archive<T>, step: u64) -> Result<()> {
        archive.save(self.file(step))?;
        for file in self.files()?.into_iter().skip(self.keep) {
            // Another process may have removed it.
            let _ = fs::remove_file(file);
        }
        Ok(())
    }

    pub(crate) fn write_best<T: Scalar>(&self, archive: &Archive<T>) -> Result<()> {
        archive.save(self.folder.join("best.safetensors"))
    }
}

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";

/// The checkpoints of a folder, the newest first.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let step = |path: &Path| -> Option<u64> {
        let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.extend(step(&path).map(|step| (step, path)));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The newest checkpoint that is whole, and what is wrong with those after it.
pub(crate) struct Newest<T> {
    pub(crate) archive: Option<Archive<T>>,
    pub(crate) damaged: Vec<Error>,
}

/// Of a folder or a file, leaving so many of the newest whole ones out; nothing if there is nothing at this path.
pub(crate) fn newest<T: Scalar>(from: &Path, mut leave: usize) -> Result<Newest<T>> {
    let files = match from.is_dir() {
        true => files(from).map_err(|e| Error::io(e, format!("read {}", from.display())))?,
        false => from.exists().then(|| from.to_owned()).into_iter().collect(),
    };
    let mut damaged = Vec::new();
    for file in files {
        match Archive::load(file) {
            Ok(archive) if leave == 0 => return Ok(Newest { archive: Some(archive), damaged }),
            Ok(_) => leave -= 1,
            Err(error) => damaged.push(error),
        }
    }
    Ok(Newest { archive: None, damaged })
}

/// Makes the folder of a file, and finds out whether the file can be written there.
pub(crate) fn make_writable(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io(e, format!("write into {}", folder.display())))?;
    if path.file_name().is_none() || path.is_dir() {
        return Err(Error::value(format!("expected the name of a file, got {}", path.display())));
    }
    chainrule_io::check_writable(path)
}

/// A fit under way: what a checkpoint holds beside model, optimizer and history.
#[derive(Debug)]
pub(crate) struct UnderWay<T> {
    /// The epochs before it.
    pub(crate) first: usize,
    pub(crate) part: Part,
    pub(crate) watch: Option<Watch<T>>,
    /// The checkpoint that it goes on from, for what comes to be as it begins.
    pub(crate) resumed: Option<Archive<T>>,
    /// Whether it was asked to stop.
    pub(crate) stopped: bool,
}

/// The epoch in hand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) seen: usize,
    pub(crate) sum: f64,
    pub(crate) weight: f64,
}

impl<T> UnderWay<T> {
    pub(crate) fn new(first: usize) -> Self {
        Self { first, part: Part::default(), watch: None, resumed: None, stopped: false }
    }
}

/// Everything that a run goes on from, between two steps.
pub(crate) fn archive<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>>(
    learner: &Learner<M, L, O>,
    panel: &Panel<T>,
    callbacks: &[Box<dyn Callback<M>>],
    history: &History,
    under_way: &UnderWay<T>,
    checkpoint: &Checkpoint,
) -> Result<Archive<T>> {
    let mut archive = Archive::new();
    let (model, run) = (&learner.model, &learner.run);
    archive.set(KIND, RUN);
    archive.set("settings", fingerprint(&learner.settings));
    archive.insert_model("model/", model)?;
    archive.insert_state("optimizer/", &OptimizerState::of(&learner.optimizer, model)?)?;
    archive.set("learning_rate", format_args!("{:?}", learner.optimizer.learning_rate()));
    archive.set_list("run", [run.passes, run.steps, run.epochs as u64, under_way.first as u64]);
    let Part { seen, sum, weight } = under_way.part;
    archive.set_list("epoch", [seen as f64, sum, weight]);
    panel.save(&mut archive);
    save_history(history, &mut archive);
    if let Some(watch) = &under_way.watch {
        watch.save(&mut archive)?;
    }
    checkpoint.save(&mut archive);
    for (i, callback) in callbacks.iter().enumerate() {
        callback.save(&mut archive, &prefix(i))?;
    }
    Ok(archive)
}

const KIND: &str = "kind";
const RUN: &str = "run of training";

/// The prefix of what a callback keeps.
pub(crate) fn prefix(callback: usize) -> String {
    format!("callback.{callback}/")
}

/// What must be the same for a run to go on with the same bits.
fn fingerprint(settings: &Settings) -> String {
    let Settings { batch_size, seed, shuffle, drop_last, accumulate, .. } = settings;
    format!(
        "batch_size {batch_size}, seed {seed}, shuffle {shuffle}, drop_last {drop_last}, accumulate {accumulate}"
    )
}

fn save_history<T: Scalar>(history: &History, archive: &mut Archive<T>) {
    let names = history.epochs.first().map_or(&[][..], |epoch| &epoch.train.metrics);
    let joined: Vec<&str> = names.iter().map(|score| score.name.as_str()).collect();
    archive.set("history.names", joined.join("\n"));
    archive.set_list("history.higher", names.iter().map(|score| score.higher_is_better));
    archive.set("history", history.epochs.len());
    for (i, epoch) in history.epochs.iter().enumerate() {
        let scores = |scores: &Scores| {
            std::iter::once(scores.loss).chain(scores.metrics.iter().map(|m| m.value)).collect::<Vec<_>>()
        };
        archive.set_list(format!("history.{i}"), [epoch.number as f64, epoch.learning_rate, epoch.seconds]);
        archive.set_list(format!("history.{i}.train"), scores(&epoch.train));
        if let Some(validation) = &epoch.validation {
            archive.set_list(format!("history.{i}.validation"), scores(validation));
        }
    }
}

fn load_history<T: Scalar>(archive: &Archive<T>) -> Result<History> {
    let wrong = || Error::format("checkpoint: expected a history whose epochs have the scores that it names");
    let names: Vec<&str> = archive.get("history.names")?.lines().collect();
    let higher: Vec<bool> = archive.list("history.higher")?;
    let scores = |values: Vec<f64>| -> Result<Scores> {
        let [loss, ref values @ ..] = values[..] else { return Err(wrong()) };
        if values.len() != names.len() || higher.len() != names.len() {
            return Err(wrong());
        }
        let metrics = names.iter().zip(values).zip(&higher).map(|((name, &value), &higher_is_better)| {
            Score { name: (*name).to_owned(), value, higher_is_better }
        });
        Ok(Scores { loss, metrics: metrics.collect() })
    };
    let mut history = History::default();
    for i in 0..archive.number::<usize>("history")? {
        let [number, learning_rate, seconds] = archive.list(&format!("history.{i}"))?[..] else {
            return Err(wrong());
        };
        let validation = format!("history.{i}.validation");
        history.epochs.push(Epoch {
            number: number as usize,
            train: scores(archive.list(&format!("history.{i}.train"))?)?,
            validation: match archive.find(&validation) {
                Some(_) => Some(scores(archive.list(&validation)?)?),
                None => None,
            },
            learning_rate,
            seconds,
        });
    }
    Ok(history)
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// Takes over what a [`Checkpoint`] wrote: the newest whole file of a folder, or a file. The next [`Trainer::fit`] goes on
    /// from there, in the middle of an epoch too, to the number of epochs that this trainer is set to, counted from where the
    /// stopped `fit` began. False if there is nothing at this path yet.
    ///
    /// Model, loss, optimizer, data, schedules and callbacks are made by the program as before; the callbacks in the same order.
    ///
    /// # Errors
    /// The file is damaged, of another model, optimizer or type of values, or of a run with other settings of the data. The
    /// trainer is then as it was.
    pub fn resume(&mut self, from: impl AsRef<Path>) -> Result<bool> {
        let Newest { archive, damaged } = newest::<T>(from.as_ref(), 0)?;
        match (archive, damaged.into_iter().next()) {
            (Some(archive), _) => self.take_over(archive).map(|()| true),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(false),
        }
    }

    /// Goes on from a checkpoint.
    pub(crate) fn take_over(&mut self, mut archive: Archive<T>) -> Result<()> {
        if archive.find(KIND) != Some(RUN) {
            return Err(Error::format("checkpoint: expected a run of training, got another archive"));
        }
        let (ours, theirs) = (fingerprint(&self.learner.settings), archive.get("settings")?);
        if ours != theirs {
            return Err(Error::state(format!(
                "checkpoint: expected the settings of the run, {}, got {ours}",
                quote(theirs)
            )));
        }
        let [passes, steps, epochs, first] = archive.list::<u64>("run")?[..] else {
            return Err(Error::format("checkpoint: expected four counts as `run`"));
        };
        let [seen, sum, weight] = archive.list::<f64>("epoch")?[..] else {
            return Err(Error::format("checkpoint: expected three numbers as `epoch`"));
        };
        let rate: f64 = archive.number("learning_rate")?;
        let history = load_history(&archive)?;
        let learner = &mut self.learner;
        let mut before = Snapshot::default();
        before.take(&learner.model)?;
        let state = archive.take_state("optimizer/");
        archive.take_model("model/", &mut learner.model)?;
        if let Err(error) = learner.optimizer.restore_state(&learner.model, state) {
            before.restore(&mut learner.model)?;
            return Err(error);
        }
        learner.optimizer.set_learning_rate(rate);
        learner.run.touched = true;
        (learner.run.passes, learner.run.steps, learner.run.epochs) = (passes, steps, epochs as usize);
        self.history = history;
        self.under_way = UnderWay {
            part: Part { seen: seen as usize, sum, weight },
            resumed: Some(archive),
            ..UnderWay::new(first as usize)
        };
        Ok(())
    }
}
