//! Training that was stopped, and saved, goes on in another process with the same bits: every optimizer of the registry, every
//! wrapper around each, averages of the weights, accumulation.

use chainrule::{
    core::{Entry, OptimizerState, Pass},
    io::Archive,
    optim::{Average, schedule::Cosine},
    prelude::*,
    train::Averaging,
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What is around the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Around {
    /// A trainer, whose rate follows a schedule.
    Trainer,
    /// Gradients averaged over two batches.
    Accumulation,
    Exponential,
    Uniform,
    /// No trainer: the loss is a closure, evaluated as often as the optimizer needs.
    Closure,
}

struct Case {
    optimizer: Spec,
    around: Around,
}

impl Case {
    fn name(&self) -> String {
        // One line.
        format!("{} in {:?}", self.optimizer, self.around).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

type Boxed = Box<dyn Optimizer<f32>>;

/// The small examples of a kind.
fn examples(entry: &Entry<f32, Boxed>) -> Vec<Spec> {
    (entry.examples)().into_iter().filter(|example| !example.bench).map(|example| example.spec).collect()
}

/// A wrapper around another optimizer than in its example.
fn around(wrapper: &Spec, inside: &Spec) -> Spec {
    let new = Spec::new(wrapper.kind());
    let new =
        wrapper.attributes().iter().fold(new, |new, (name, value)| new.with(name.as_str(), value.clone()));
    new.child(wrapper.children()[0].0.as_str(), inside.clone())
}

/// Every example of every optimizer; every wrapper around the first of each, and around one another; the first of each in everything else.
fn cases() -> Vec<Case> {
    let registry = chainrule_parity::registry::<f32>();
    let kinds: Vec<Vec<Spec>> = registry.optimizers().map(examples).collect();
    let (wrappers, plain): (Vec<_>, Vec<_>) = kinds.iter().partition(|specs| !specs[0].children().is_empty());
    let mut cases = Vec::new();
    let mut add = |optimizer: Spec, around| cases.push(Case { optimizer, around });
    kinds.iter().flatten().for_each(|spec| add(spec.clone(), Around::Trainer));
    for wrapper in &wrappers {
        for inside in &plain {
            add(around(&wrapper[0], &inside[0]), Around::Trainer);
        }
        // Around itself the names of its state would be there twice.
        for inside in wrappers.iter().filter(|inside| inside[0].kind() != wrapper[0].kind()) {
            let twice = around(&wrapper[0], &inside[0]);
            add(twice.clone(), Around::Trainer);
            add(twice, Around::Closure);
        }
    }
    for specs in &kinds {
        for around in [Around::Accumulation, Around::Exponential, Around::Uniform, Around::Closure] {
            add(specs[0].clone(), around);
        }
    }
    // The line search needs a closure, where Sam hands on one gradient.
    let search = Spec::new("Lbfgs").with("line_search_fn", "strong_wolfe").with("history_size", 3);
    for wrapper in wrappers.iter().filter(|wrapper| wrapper[0].kind() != "Sam") {
        add(around(&wrapper[0], &search), Around::Closure);
    }
    add(search, Around::Closure);
    cases
}

fn model() -> Sequential {
    Sequential::new()
        .add(Linear::new(4, 6))
        .add(BatchNorm1d::new(6))
        .add(Tanh::new())
        .add(Dropout::new(0.2))
        .add(Linear::new(6, 3))
        .init(1)
        .unwrap()
}

fn data() -> Dataset {
    let mut x = Tensor::zeros([24, 4]);
    Rng::new(2).fill_normal(x.data_mut());
    Dataset::classification(x, (0..24).map(|i| i * 7 % 3).collect::<Vec<_>>(), 3).unwrap()
}

/// The bits of all parameters and buffers.
fn bits(model: &Sequential) -> String {
    let mut text = String::new();
    model.visit(&mut |_, p| p.value().unwrap().iter().for_each(|v| text += &format!("{:08x}", v.to_bits())));
    text
}

/// Where a case keeps what it goes on from.
fn place(folder: &Path, number: usize) -> PathBuf {
    folder.join(number.to_string())
}

const STEPS: u64 = 7;

/// Two epochs of six batches; `resumed` from the checkpoint after the seventh step, which the first process writes.
fn trained(case: &Case, at: &Path, resumed: bool) -> Result<String> {
    let optimizer = chainrule_parity::registry::<f32>().build_optimizer(&case.optimizer)?;
    let mut trainer = Trainer::new(model(), CrossEntropy::new(), optimizer)
        .epochs(2)
        .batch_size(4)
        .seed(3)
        .schedule(Cosine::new(12))
        .progress(Progress::Silent);
    trainer = match case.around {
        Around::Accumulation => trainer.batch_size(2).accumulate(2),
        Around::Exponential => trainer.callback(Averaging::new(Average::exponential(0.8)?.warmup(true))),
        Around::Uniform => trainer.callback(Averaging::new(Average::uniform())),
        _ => trainer,
    };
    if resumed {
        assert!(trainer.resume(at)?);
    } else {
        trainer = trainer.checkpoint(Checkpoint::new(at).every_steps(STEPS).every_epochs(100));
    }
    trainer.fit(&data())?;
    let losses: Vec<String> =
        trainer.history().epochs.iter().map(|epoch| format!("{:?}", epoch.train)).collect();
    Ok(format!("{} {losses:?}", bits(trainer.model())))
}

/// Twelve steps over all samples.
fn minimized(case: &Case, at: &Path, resumed: bool) -> Result<String> {
    let (data, mut model) = (data(), model());
    let mut optimizer = chainrule_parity::registry::<f32>().build_optimizer(&case.optimizer)?;
    let (mut pass, mut first) = (Pass::new(&model), 0);
    if resumed {
        let mut archive = Archive::load(at)?;
        archive.take_model("model/", &mut model)?;
        optimizer.restore_state(&model, archive.take_state("optimizer/"))?;
        first = STEPS;
    }
    for step in first..12 {
        if step == STEPS && !resumed {
            let mut archive = Archive::new();
            archive.insert_model("model/", &model)?;
            archive.insert_state("optimizer/", &OptimizerState::of(&*optimizer, &model)?)?;
            archive.save(at)?;
        }
        pass.minimize(&mut model, &mut *optimizer, |pass, model| {
            pass.zero();
            pass.forward(model, data.x(), Context::train(1).step(step))?;
            let loss = pass.loss(&CrossEntropy::new(), &data.targets()[0])?;
            pass.backward(model, data.x())?;
            Ok(loss)
        })?;
    }
    Ok(bits(&model))
}

/// The outcomes of all cases by their names.
fn outcomes(folder: &Path, resumed: bool) -> BTreeMap<String, String> {
    let one = |(number, case): (usize, Case)| {
        let run = if case.around == Around::Closure { minimized } else { trained };
        let outcome = run(&case, &place(folder, number), resumed);
        (case.name(), outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name())))
    };
    cases().into_iter().enumerate().map(one).collect()
}

const FOLDER: &str = "CHAINRULE_TEST_CONTINUED_FOLDER";

/// The other process: it does nothing unless it is told where.
#[test]
fn the_process_that_goes_on() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let lines = outcomes(folder, true).into_iter().map(|(name, outcome)| format!("{name}\t{outcome}\n"));
    fs::write(folder.join("outcomes"), lines.collect::<String>()).unwrap();
}

#[test]
fn every_optimizer_in_every_wrapper_goes_on_in_another_process_with_the_same_bits() {
    let folder = env::temp_dir().join(format!("chainrule-continued-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let want = outcomes(&folder, false);
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_process_that_goes_on"])
        .env(FOLDER, &folder)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let got = fs::read_to_string(folder.join("outcomes")).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let got: BTreeMap<&str, &str> = got.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(got.len(), want.len());
    for (name, want) in &want {
        assert!(got.get(&**name) == Some(&&**want), "{name}");
    }
    // The other half of the steps did something.
    assert!(want.values().collect::<std::collections::BTreeSet<_>>().len() > want.len() / 2);
}
