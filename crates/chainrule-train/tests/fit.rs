//! What a trainer does to a model.

mod common;

use chainrule_core::{Module, Parameters, Reduction, Scalar, Tensor};
use chainrule_data::Dataset;
use chainrule_layers::{BatchNorm1d, Dropout, Linear, Sequential, Tanh};
use chainrule_losses::{CrossEntropy, Mse};
use chainrule_optim::schedule::Step;
use chainrule_tensor::par;
use chainrule_train::{Callback, EarlyStopping, Ended, Epoch, Progress, SaveWeights, Trainer};
use common::{Counting, Sgd, iris, mlp, values};
use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

fn xor<T: Scalar>() -> Dataset<T> {
    let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0f64]]);
    Dataset::regression(x.cast(), Tensor::from([[0.0], [1.0], [1.0], [0.0f64]]).cast()).unwrap()
}

fn flowers<T: Scalar>(seed: u64) -> Trainer<Sequential<T>, CrossEntropy<T>, Sgd> {
    Trainer::new(mlp([4, 8, 3], seed), CrossEntropy::new(), Sgd(0.1)).seed(seed).progress(Progress::Silent)
}

#[test]
fn xor_is_learned() {
    let mut trainer = Trainer::new(mlp::<f32>([2, 4, 1], 1), Mse::new(), Sgd(0.1))
        .batch_size(1)
        .epochs(1000)
        .progress(Progress::Silent);
    let history = trainer.fit(&xor()).unwrap();
    assert_eq!((history.epochs.len(), trainer.steps(), history.ended), (1000, 4000, Ended::Done));
    let report = trainer.evaluate(&xor()).unwrap();
    assert!(report.loss() < 0.01 && report.scores().get("r2").unwrap() > 0.9, "{report}");
    assert!(report.confusion().is_none() && report.accuracy().is_none());
    let y = trainer.into_model().infer(xor().x()).unwrap();
    assert!(y.data().iter().zip([0.0, 1.0, 1.0, 0.0]).all(|(y, t)| (y - t).abs() < 0.5), "{y:?}");
}

#[test]
fn flowers_are_told_apart_and_the_report_counts_them() {
    let (train, test) = iris::<f32>().split_stratified(0.3, 1).unwrap();
    let mut trainer = flowers(1).epochs(60).batch_size(16);
    let history = trainer.fit(&train).unwrap();
    assert!(history.last().unwrap().train.loss < history.epochs[0].train.loss / 4.0);
    let before = values(trainer.model());
    let report = trainer.evaluate(&test).unwrap();
    assert_eq!(values(trainer.model()), before);
    let confusion = report.confusion().unwrap();
    assert!(report.accuracy().unwrap() >= 0.9, "{report}");
    assert_eq!(report.scores().accuracy(), report.accuracy());
    assert_eq!((confusion.total(), report.samples(), report.predictions().len()), (45, 45, 45));
    assert_eq!(report.mistakes().count(), 45 - confusion.right());
    let labels = test.labels().unwrap();
    assert!(report.mistakes().all(|(i, truth, predicted)| labels[i] == truth && predicted != truth));
    assert!(confusion.to_string().contains("setosa"));
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    // 150 samples are 4 steps of 32 and one of 22: the last is made of two batches of 8 and one of 6.
    let weights = |batch_size, accumulate| {
        let mut trainer = flowers::<f64>(3).epochs(2).batch_size(batch_size).accumulate(accumulate);
        let history = trainer.fit(&iris()).unwrap();
        assert_eq!(trainer.steps(), 10);
        (values(trainer.model()), history.last().unwrap().train.loss)
    };
    let (large, small) = (weights(32, 1), weights(8, 4));
    let worst = large.0.iter().zip(&small.0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-13, "weights differ by {worst}");
    assert!((large.1 - small.1).abs() < 1e-13);
}

#[test]
fn a_summed_loss_is_accumulated_as_a_sum_and_told_as_a_mean() {
    let data = iris::<f64>().one_hot().unwrap();
    let run = |reduction, rate, batch_size, accumulate| {
        let mut trainer = Trainer::new(mlp::<f64>([4, 8, 3], 1), Mse::new().reduction(reduction), Sgd(rate))
            .batch_size(batch_size)
            .accumulate(accumulate)
            .epochs(2)
            .progress(Progress::Silent);
        let loss = trainer.fit(&data).unwrap().last().unwrap().train.loss;
        (values(trainer.model()), loss, trainer.evaluate(&data).unwrap().loss())
    };
    // 50 samples of 3 outputs: the gradient of the sum is 150 times that of the mean.
    let mean = run(Reduction::Mean, 0.15, 50, 1);
    for (batch_size, accumulate) in [(50, 1), (10, 5), (25, 2)] {
        let (weights, loss, evaluated) = run(Reduction::Sum, 0.001, batch_size, accumulate);
        let worst = weights.iter().zip(&mean.0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-13, "weights differ by {worst}");
        assert!((loss - 3.0 * mean.1).abs() < 1e-13 && (evaluated - 3.0 * mean.2).abs() < 1e-13);
    }
}

#[test]
fn every_pass_is_absorbed_once() {
    let model = Sequential::new().add(Counting::<f32>::new()).add(mlp([4, 4, 3], 1)).init(1).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Sgd(0.1))
        .batch_size(10)
        .accumulate(4)
        .epochs(2)
        .progress(Progress::Silent);
    trainer.fit(&iris()).unwrap();
    assert_eq!((values(trainer.model())[0], trainer.steps()), (30.0, 8));
}

#[test]
fn one_seed_gives_the_same_bits_with_any_number_of_threads() {
    let run = |threads, seed| {
        par::with_threads(threads, || {
            let mut trainer = flowers::<f32>(seed).epochs(3).validation(iris());
            let losses: Vec<_> = trainer.fit(&iris()).unwrap().epochs.iter().map(|e| e.train.loss).collect();
            (values(trainer.model()), losses)
        })
    };
    let first = run(1, 7);
    assert_eq!(run(1, 7), first);
    assert_eq!(run(2, 7), first);
    assert_eq!(run(3, 7), first);
    assert_ne!(run(1, 8), first);
}

#[test]
fn gradients_are_clipped_by_value_and_by_norm() {
    let data = iris::<f64>();
    let step = |trainer: Trainer<Sequential<f64>, CrossEntropy<f64>, Sgd>| {
        let mut trainer = trainer;
        trainer.step(data.x(), data.labels().unwrap()).unwrap();
        trainer.grads().values().to_vec()
    };
    let norm = |g: &[f64]| g.iter().map(|v| v * v).sum::<f64>().sqrt();
    let free = step(flowers(1));
    assert!(norm(&free) > 0.2);
    let short = step(flowers(1).clip_norm(0.1));
    assert!((norm(&short) - 0.1).abs() < 1e-6);
    assert!(free.iter().zip(&short).all(|(f, s)| (f * 0.1 / norm(&free) - s).abs() < 1e-6));
    assert_eq!(step(flowers(1).clip_norm(100.0)), free);
    let cut: Vec<f64> = free.iter().map(|v| v.clamp(-0.01, 0.01)).collect();
    assert_eq!(step(flowers(1).clip_value(0.01)), cut);
}

#[test]
fn the_learning_rate_follows_the_steps() {
    let mut trainer =
        flowers::<f32>(1).batch_size(50).epochs(2).learning_rate(|step| 0.1 / (1 + step) as f64);
    let history = trainer.fit(&iris()).unwrap();
    let rates: Vec<f64> = history.epochs.iter().map(|e| e.learning_rate).collect();
    assert_eq!(rates, [0.1 / 3.0, 0.1 / 6.0]);
}

/// A network with noise and with batch statistics.
fn noisy(seed: u64) -> Trainer<Sequential, CrossEntropy, Sgd> {
    let model = Sequential::new()
        .add(Linear::new(4, 32))
        .add(BatchNorm1d::new(32))
        .add(Tanh::new())
        .add(Dropout::new(0.5))
        .add(Linear::new(32, 3));
    Trainer::new(model.init(seed).unwrap(), CrossEntropy::new(), Sgd(0.2))
        .seed(seed)
        .progress(Progress::Silent)
}

#[test]
fn noise_and_batch_statistics_are_decided_by_the_seed() {
    let run = |threads, epochs: &[usize]| {
        par::with_threads(threads, || {
            let mut trainer = noisy(3);
            for &n in epochs {
                trainer = trainer.epochs(n);
                trainer.fit(&iris()).unwrap();
            }
            values(trainer.model())
        })
    };
    let first = run(1, &[4]);
    assert_eq!(run(2, &[4]), first);
    assert_eq!(run(3, &[1, 3]), first);
}

#[test]
fn the_restored_model_measures_what_its_best_epoch_measured() {
    let (train, validation) = iris::<f32>().split(0.3, 2).unwrap();
    let mut trainer = noisy(1).epochs(100).validation(validation.clone()).early_stopping(6);
    let history = trainer.fit(&train).unwrap();
    assert_eq!(history.ended, Ended::NoImprovement);
    let report = trainer.evaluate(&validation).unwrap();
    assert_eq!(Some(report.scores()), history.best().unwrap().validation.as_ref());
}

#[test]
fn two_fits_are_one_long_fit() {
    let mut once = flowers::<f32>(5).epochs(6);
    once.fit(&iris()).unwrap();
    let mut twice = flowers::<f32>(5).epochs(3);
    twice.fit(&iris()).unwrap();
    let second = twice.fit(&iris()).unwrap();
    assert_eq!(second.epochs[0].number, 4);
    assert_eq!(values(once.model()), values(twice.model()));
}

#[test]
fn a_step_is_what_fit_does() {
    let data = iris::<f32>();
    let mut fitted = flowers::<f32>(2).epochs(1).batch_size(150).shuffle(false);
    let history = fitted.fit(&data).unwrap();
    let mut stepped = flowers::<f32>(2);
    let loss = stepped.step(data.x(), data.labels().unwrap()).unwrap();
    assert_eq!(values(fitted.model()), values(stepped.model()));
    assert_eq!(history.epochs[0].train.loss, f64::from(loss));
}

#[test]
fn early_stopping_brings_the_best_bits_back() {
    let (train, validation) = iris::<f32>().split(0.3, 2).unwrap();
    let seen: Arc<Mutex<Vec<(f64, Vec<f64>)>>> = Arc::default();
    let log = Arc::clone(&seen);
    // A rate so large that the validation loss goes up and down.
    let mut trainer = Trainer::new(mlp::<f32>([4, 8, 3], 1), CrossEntropy::new(), Sgd(4.0))
        .epochs(200)
        .validation(validation)
        .early_stopping(4)
        .on_epoch(move |epoch, model: &mut Sequential| {
            log.lock().unwrap().push((epoch.watched().loss, values(model)));
            Ok(ControlFlow::Continue(()))
        })
        .progress(Progress::Silent);
    let history = trainer.fit(&train).unwrap();
    let seen = seen.lock().unwrap();
    let best = seen.iter().enumerate().min_by(|a, b| a.1.0.total_cmp(&b.1.0)).unwrap().0;
    assert_eq!((history.ended, history.best), (Ended::NoImprovement, Some(best + 1)));
    assert_eq!(history.epochs.len(), best + 1 + 4);
    assert_eq!(values(trainer.model()), seen[best].1);
    assert_ne!(values(trainer.model()), seen.last().unwrap().1);
}

#[test]
fn accuracy_is_watched_upwards_and_an_improvement_must_be_large_enough() {
    let mut trainer = flowers::<f32>(1).epochs(50).early_stopping(EarlyStopping::new(3).monitor("accuracy"));
    let history = trainer.fit(&iris()).unwrap();
    let accuracies = history.train("accuracy");
    let best = accuracies.iter().map(|p| p.1).fold(0.0, f64::max);
    assert_eq!(history.best().unwrap().train.accuracy(), Some(best));
    let mut trainer = flowers::<f32>(1).epochs(50).early_stopping(EarlyStopping::new(2).min_delta(1e3));
    assert_eq!(trainer.fit(&iris()).unwrap().best, Some(1));
}

#[test]
fn callbacks_stop_the_training() {
    struct AfterSteps(u64);
    impl<M: Parameters> Callback<M> for AfterSteps {
        fn on_step_end(&mut self, step: u64, _: f64, _: &mut M) -> chainrule_core::Result<ControlFlow<()>> {
            Ok(if step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        }
    }
    let mut trainer = flowers::<f32>(1).callback(AfterSteps(7));
    let history = trainer.fit(&iris()).unwrap();
    assert_eq!((trainer.steps(), history.epochs.len(), history.ended), (7, 2, Ended::Callback));
    let mut trainer = flowers::<f32>(1)
        .on_epoch(|e, _| Ok(if e.number == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }));
    assert_eq!(trainer.fit(&iris()).unwrap().epochs.len(), 3);
}

#[test]
fn a_schedule_that_makes_no_sense_is_an_error_before_the_first_step() {
    let never = || Step::new(5).then(10, Step::new(5)).then(10, Step::new(2));
    let mut trainer = flowers::<f32>(1).schedule(never());
    let before = values(trainer.model());
    let error = trainer.fit(&iris()).unwrap_err().to_string();
    assert!(error.contains("never run"), "{error}");
    let data = iris();
    assert!(trainer.step(data.x(), data.targets()).is_err());
    assert_eq!((values(trainer.model()), trainer.steps()), (before, 0));
    assert!(flowers::<f32>(1).schedule(never()).learning_rate(|_| 0.1).epochs(1).fit(&iris()).is_ok());
}

#[test]
fn gradients_can_be_changed_before_they_are_clipped() {
    let none = flowers::<f32>(1).epochs(1).on_gradients(|_, _, grads| {
        grads.scale(0.0);
        Ok(())
    });
    let mut changed = none.clip_norm(1.0);
    changed.fit(&iris()).unwrap();
    assert_eq!(values(changed.model()), values(&mlp::<f32>([4, 8, 3], 1)), "no gradient moves nothing");

    let mut failing = flowers::<f32>(1).epochs(1).batch_size(30).on_gradients(|step, model, grads| {
        assert!(model.parameter_count() == grads.values().len() && grads.values().iter().any(|g| *g != 0.0));
        if step < 2 { Ok(()) } else { Err(chainrule_core::Error::value("enough")) }
    });
    assert!(failing.fit(&iris()).unwrap_err().to_string().contains("enough"));
    assert_eq!(failing.steps(), 2);
    let data = iris();
    assert!(failing.step(data.x(), data.targets()).is_err(), "a step of the caller's too");
}

#[test]
fn checkpoints_hold_the_weights_of_their_epoch() {
    let folder = std::env::temp_dir().join(format!("chainrule-train-checkpoints-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let seen: Arc<Mutex<Vec<Vec<f64>>>> = Arc::default();
    let log = Arc::clone(&seen);
    let mut trainer = flowers::<f32>(1)
        .epochs(5)
        .callback(SaveWeights::new(folder.join("epoch-{epoch}.safetensors")).every(2))
        .on_epoch(move |_, model| {
            log.lock().unwrap().push(values(model));
            Ok(ControlFlow::Continue(()))
        });
    trainer.fit(&iris()).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    for epoch in [2, 4] {
        let mut model = mlp::<f32>([4, 8, 3], 9);
        chainrule_io::load(&mut model, folder.join(format!("epoch-{epoch}.safetensors"))).unwrap();
        assert_eq!(values(&model), seen.lock().unwrap()[epoch - 1]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A writer whose text can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_best_weights_alone_are_saved() {
    let path = std::env::temp_dir().join(format!("chainrule-train-best-{}.safetensors", std::process::id()));
    // A rate so large that the validation loss goes up and down.
    let mut trainer = Trainer::new(mlp::<f32>([4, 8, 3], 1), CrossEntropy::new(), Sgd(4.0))
        .epochs(12)
        .validation(iris())
        .early_stopping(100)
        .callback(SaveWeights::new(&path).best_only("loss"))
        .progress(Progress::Silent);
    let history = trainer.fit(&iris()).unwrap();
    assert!(history.best.unwrap() < 12);
    let mut model = mlp::<f32>([4, 8, 3], 9);
    chainrule_io::load(&mut model, &path).unwrap();
    assert_eq!(values(&model), values(trainer.model()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn no_epochs_take_no_time() {
    let history = flowers::<f32>(1).epochs(0).fit(&iris()).unwrap();
    assert_eq!((history.to_string(), history.seconds().is_sign_positive()), ("0 epochs".into(), true));
}

#[test]
fn progress_is_a_plain_line_an_epoch() {
    let out = Shared::default();
    let mut trainer =
        flowers::<f32>(1).epochs(2).validation(iris()).progress(Progress::Lines).progress_to(out.clone());
    let history = trainer.fit(&iris()).unwrap();
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    let expected: Vec<String> = history.epochs.iter().map(Epoch::to_string).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(text.starts_with("epoch 1: loss ") && text.contains("; validation loss "), "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn another_model_put_in_place_gets_gradients_of_its_own() {
    let data = iris::<f32>();
    let mut trainer = flowers::<f32>(1);
    trainer.step(data.x(), data.labels().unwrap()).unwrap();
    *trainer.model_mut() = mlp([4, 16, 3], 2);
    trainer.step(data.x(), data.labels().unwrap()).unwrap();
    let mut fresh = Trainer::new(mlp::<f32>([4, 16, 3], 2), CrossEntropy::new(), Sgd(0.1));
    fresh.step(data.x(), data.labels().unwrap()).unwrap();
    assert_eq!(values(trainer.model()), values(fresh.model()));
}
