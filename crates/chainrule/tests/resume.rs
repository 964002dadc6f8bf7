//! A run that was stopped, killed or out of room goes on, and ends with the bits of the run that was never stopped.

use chainrule::{
    data::{Dataset, Source},
    optim::{Average, schedule::Cosine},
    prelude::*,
    train::Averaging,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("chainrule-resume-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("step-"));
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn parts() -> (Dataset, Dataset) {
    digits().split_stratified(0.8, 3).unwrap()
}

/// Samples with noise of their own in each epoch.
fn noisy(data: &Dataset) -> impl Source + '_ {
    data.augment(5, |batch, i, rng| {
        batch.sample_mut(0, i).iter_mut().for_each(|v| *v += 0.05 * rng.normal() as f32);
        Ok(())
    })
}

/// Everything that remembers something: batch statistics, dropout, averages, schedules, accumulation, metrics, early stopping.
fn trainer(validation: &Dataset) -> Trainer<Sequential, CrossEntropy, AdamW> {
    let model = Sequential::new()
        .add(Flatten::new())
        .add(Linear::new(64, 24))
        .add(BatchNorm1d::new(24))
        .add(Relu::new())
        .add(Dropout::new(0.2))
        .add(Linear::new(24, 10))
        .init(1)
        .unwrap();
    Trainer::new(model, CrossEntropy::new(), AdamW::new(5e-3).weight_decay(0.1))
        .epochs(3)
        .batch_size(16)
        .accumulate(2)
        .seed(7)
        .clip_norm(1.0)
        .schedule(Cosine::new(40))
        .schedule_setting("weight_decay", Cosine::new(40))
        .schedule_noise(Cosine::new(60))
        .validation(validation.clone())
        .early_stopping(2)
        .callback(Averaging::new(Average::exponential(0.9).unwrap().warmup(true)))
        .progress(Progress::Silent)
}

/// The bits of all values, and what the history says, the time aside.
fn outcome(trainer: &Trainer<Sequential, CrossEntropy, AdamW>) -> (Vec<u32>, String) {
    let mut bits = Vec::new();
    trainer.model().visit(&mut |_, p| bits.extend(p.value().unwrap().iter().map(|v| v.to_bits())));
    let epochs = trainer.history().epochs.iter();
    let lines: Vec<String> = epochs
        .map(|e| format!("{} {:?} {:?} {:?}", e.number, e.train, e.validation, e.learning_rate))
        .collect();
    (bits, format!("{lines:?} {:?}", trainer.history().best))
}

#[test]
fn a_run_goes_on_from_any_step_with_the_same_bits() {
    let ((train, test), folder) = (parts(), Folder::new("any"));
    let checkpoint = Checkpoint::new(&folder.0).every_steps(1).keep(1000);
    let mut whole = trainer(&test).checkpoint(checkpoint);
    assert!(!whole.resume(&folder.0).unwrap(), "nothing there yet");
    whole.fit(noisy(&train)).unwrap();
    let want = outcome(&whole);
    let mut plain = trainer(&test);
    plain.fit(noisy(&train)).unwrap();
    assert!(outcome(&plain) == want, "checkpoints change nothing");
    let files = folder.files();
    assert!(files.len() > 30, "{}", files.len());
    for file in files.iter().step_by(5).chain(files.last()) {
        let mut again = trainer(&test);
        assert!(again.resume(file).unwrap());
        again.fit(noisy(&train)).unwrap();
        assert!(outcome(&again) == want, "from {}", file.display());
    }
}

#[test]
fn a_run_that_is_asked_to_stop_writes_where_it_is() {
    let ((train, test), folder) = (parts(), Folder::new("stop"));
    let mut plain = trainer(&test);
    plain.fit(noisy(&train)).unwrap();
    let mut stops = 0;
    loop {
        let flag = Arc::new(AtomicBool::new(false));
        let (set, mut left) = (Arc::clone(&flag), 7);
        let mut run = trainer(&test)
            .on_gradients(move |_, _, _| {
                left -= 1;
                set.store(left == 0, Ordering::Relaxed);
                Ok(())
            })
            .checkpoint(Checkpoint::new(&folder.0).every_epochs(100))
            .stop_on(flag);
        run.resume(&folder.0).unwrap();
        if run.fit(noisy(&train)).unwrap().ended == Ended::Stopped {
            stops += 1;
            continue;
        }
        assert!(outcome(&run) == outcome(&plain) && stops >= 3, "{stops} stops");
        return;
    }
}

const FOLDER: &str = "CHAINRULE_TEST_RESUME_FOLDER";

/// The program that is killed: it does nothing unless it is told where.
#[test]
fn the_program_that_is_killed() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let (train, test) = parts();
    let mut run = trainer(&test).checkpoint(Checkpoint::new(&folder).every_steps(1).keep(2).best("loss"));
    run.resume(&folder).unwrap();
    run.fit(noisy(&train)).unwrap();
    fs::write(Path::new(&folder).join("outcome"), format!("{:?}", outcome(&run))).unwrap();
}

fn program(folder: &Path) -> Command {
    let mut program = Command::new(env::current_exe().unwrap());
    program.args(["--exact", "the_program_that_is_killed"]).env(FOLDER, folder);
    program.stdout(Stdio::null()).stderr(Stdio::null());
    program
}

#[cfg(unix)]
#[test]
fn a_run_killed_at_twenty_moments_ends_with_the_same_bits() {
    let (train, test) = parts();
    let mut plain = trainer(&test);
    plain.fit(noisy(&train)).unwrap();
    let want = format!("{:?}", outcome(&plain));
    let (mut kills, mut moments, mut runs) = (0, Rng::new(11), 0);
    while kills < 20 {
        let folder = Folder::new(&format!("kill-{runs}"));
        runs += 1;
        loop {
            let mut child = program(&folder.0).spawn().unwrap();
            if kills < 20 {
                thread::sleep(Duration::from_millis(20 + (moments.uniform() * 300.0) as u64));
                kills += usize::from(child.try_wait().unwrap().is_none());
                child.kill().unwrap(); // SIGKILL
            }
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            assert!(status.code().is_none(), "it failed by itself: {status}");
        }
        assert!(fs::read_to_string(folder.0.join("outcome")).unwrap() == want, "run {runs}");
    }
}

/// No file may grow beyond some size: the write fails, the checkpoint before stays whole, and the run goes on once there is room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let ((train, test), folder) = (parts(), Folder::new("full"));
    let mut plain = trainer(&test);
    plain.fit(noisy(&train)).unwrap();
    // Some steps with room.
    let mut begun = trainer(&test).checkpoint(Checkpoint::new(&folder.0).every_steps(1));
    begun.learn_some(&train);
    let before: Vec<Vec<u8>> = folder.files().iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!before.is_empty());
    let script = format!(
        "trap '' XFSZ; ulimit -f 4; exec {:?} --exact the_program_that_is_killed",
        env::current_exe().unwrap()
    );
    let out = Command::new("sh").args(["-c", &script]).env(FOLDER, &folder.0).output().unwrap();
    assert!(!out.status.success(), "it had no room");
    let after: Vec<Vec<u8>> = folder.files().iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(after == before, "the checkpoints are as they were");
    assert!(program(&folder.0).status().unwrap().success());
    let got = fs::read_to_string(folder.0.join("outcome")).unwrap();
    assert!(got == format!("{:?}", outcome(&plain)));
}

trait LearnSome {
    fn learn_some(&mut self, train: &Dataset);
}

impl LearnSome for Trainer<Sequential, CrossEntropy, AdamW> {
    /// Until a source that fails.
    fn learn_some(&mut self, train: &Dataset) {
        let mut batches = 0;
        let failing = noisy(train).map(move |_| {
            batches += 1;
            if batches < 12 { Ok(()) } else { Err(Error::value("enough")) }
        });
        self.fit(failing).unwrap_err();
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let ((train, test), folder) = (parts(), Folder::new("damaged"));
    trainer(&test).checkpoint(Checkpoint::new(&folder.0).every_steps(2)).learn_some(&train);
    let files = folder.files();
    assert!(files.len() >= 2);
    let newest = files.last().unwrap();
    let bytes = fs::read(newest).unwrap();
    fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
    let mut run = trainer(&test);
    assert!(run.resume(&folder.0).unwrap());
    run.fit(noisy(&train)).unwrap();
    let mut plain = trainer(&test);
    plain.fit(noisy(&train)).unwrap();
    assert!(outcome(&run) == outcome(&plain));
    files.iter().for_each(|file| fs::write(file, b"no").unwrap());
    assert!(trainer(&test).resume(&folder.0).is_err(), "none is whole");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_changes_nothing() {
    let ((train, test), folder) = (parts(), Folder::new("other"));
    trainer(&test).checkpoint(Checkpoint::new(&folder.0).every_steps(2)).learn_some(&train);
    let text = trainer(&test).batch_size(8).resume(&folder.0).unwrap_err().to_string();
    assert!(text.contains("batch_size 16") && text.contains("batch_size 8"), "{text}");
    let weights = folder.0.join("weights.safetensors");
    chainrule::io::save(trainer(&test).model(), &weights).unwrap();
    assert!(trainer(&test).resume(&weights).is_err(), "weights alone");
    let model = Sequential::new().add(Flatten::new()).add(Linear::new(64, 10)).init(1).unwrap();
    let mut other =
        Trainer::new(model, CrossEntropy::new(), AdamW::new(1e-3)).batch_size(16).accumulate(2).seed(7);
    let before = other.model().infer(test.x()).unwrap();
    assert!(other.resume(&folder.0).is_err(), "another model");
    assert_eq!(other.model().infer(test.x()).unwrap(), before);
    let again = trainer(&test).checkpoint(Checkpoint::new(&folder.0)).fit(&train).unwrap_err().to_string();
    assert!(again.contains("another run"), "{again}");
    for wrong in [
        Checkpoint::new(&folder.0).keep(0),
        Checkpoint::new(&folder.0).every_steps(0),
        Checkpoint::new("/dev/null/x"),
    ] {
        assert!(trainer(&test).checkpoint(wrong).fit(&train).is_err());
    }
}
