//! What the monitor sees, what it warns of, and that it changes nothing.

mod common;

use chainrule_core::{Init, Parameters, Tensor};
use chainrule_data::Dataset;
use chainrule_layers::{Conv2d, Flatten, Linear, Relu, Sequential, Sigmoid};
use chainrule_losses::{CrossEntropy, Mse};
use chainrule_train::{Health, Monitor, Progress, Trainer, Trouble};
use common::{Broken, Sgd, iris, values};
use std::sync::{Arc, Mutex};

type Seen = Arc<Mutex<Vec<Health>>>;

fn monitor(every: u64) -> (Monitor, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let monitor = Monitor::every(every).tell(move |health| {
        kept.lock().unwrap().push(health.clone());
        Ok(())
    });
    (monitor, seen)
}

fn network() -> Sequential {
    let model = Sequential::new().add(Linear::new(4, 16)).add(Relu::new()).add(Linear::new(16, 3));
    model.init(1).unwrap()
}

fn trainer(model: Sequential, rate: f64) -> Trainer<Sequential, CrossEntropy, Sgd> {
    Trainer::new(model, CrossEntropy::new(), Sgd(rate)).epochs(3).progress(Progress::Silent)
}

/// All warnings of a fit, by kind and path.
fn warnings(model: Sequential, rate: f64) -> Vec<(Trouble, String)> {
    let (monitor, seen) = monitor(1);
    trainer(model, rate).callback(monitor).fit(&iris()).unwrap();
    let seen = seen.lock().unwrap();
    seen.iter().flat_map(|health| &health.warnings).map(|w| (w.trouble, w.path.clone())).collect()
}

#[test]
fn a_monitored_run_has_the_same_bits_and_shows_every_layer() {
    let mut plain = trainer(network(), 0.1);
    plain.fit(&iris()).unwrap();
    let (monitor, seen) = monitor(4);
    let mut run = trainer(network(), 0.1).validation(iris()).callback(monitor);
    run.fit(&iris()).unwrap();
    assert_eq!(values(plain.model()), values(run.model()));
    let seen = seen.lock().unwrap();
    // 150 samples in batches of 32: 5 steps an epoch.
    assert_eq!(seen.iter().map(|health| health.step).collect::<Vec<_>>(), [1, 4, 8, 12]);
    for health in &*seen {
        let layers: Vec<_> = health.layers.iter().map(|l| (&l.path[..], &l.kind[..])).collect();
        assert_eq!(layers, [("0", "Linear"), ("1", "Relu"), ("2", "Linear")]);
        let counts: Vec<_> = health.layers.iter().map(|l| (l.activations.count, l.gradients.count)).collect();
        assert_eq!(counts, [(512, 512), (512, 512), (96, 96)], "one batch, without the validation's");
        let paths: Vec<_> = health.parameters.iter().map(|p| &p.path[..]).collect();
        assert_eq!(paths, ["0.weight", "0.bias", "2.weight", "2.bias"]);
        for p in &health.parameters {
            // Δw = −η g
            assert!(
                (p.update.rms() - 0.1 * p.gradients.rms()).abs() <= 1e-3 * p.update.rms() + 1e-9,
                "{p:?}"
            );
            assert!((p.ratio - p.update.rms() / p.values.rms()).abs() <= 1e-9 * p.ratio);
        }
    }
    let text = seen[0].to_string();
    assert!(text.starts_with("step 1\n  layer  kind"), "{text}");
    assert!(text.contains("0.weight") && text.lines().count() == 10, "{text}");
}

#[test]
fn a_sound_run_has_no_warnings() {
    assert_eq!(warnings(network(), 0.1), []);
}

#[test]
fn dead_units_are_counted_by_channel_and_warned_of_once() {
    let dead = Linear::new(4, 10).weight_init(Init::ZEROS).bias_init(Init::Constant(-1.0));
    let model = Sequential::new().add(dead).add(Relu::new()).add(Linear::new(10, 3)).init(1).unwrap();
    let all = warnings(model, 0.1);
    assert_eq!(all.iter().filter(|w| **w == (Trouble::DeadUnits, "1".into())).count(), 1, "{all:?}");
    // Two of four channels are 0 everywhere, the others somewhere.
    let conv = Conv2d::new(1, 4, 1).weight_init(Init::ONES);
    let mut model = Sequential::new().add(conv).add(Relu::new()).add(Flatten::new()).add(Linear::new(16, 1));
    model = model.init(1).unwrap();
    model.visit_mut(&mut |path, p| {
        if path.to_string() == "0.bias" {
            p.value_mut().unwrap().copy_from_slice(&[-9.0, 0.0, -0.5, -2.0]);
        }
    });
    let x = Tensor::from_fn([3, 1, 2, 2], |i| if i % 4 == 0 { 1.0 } else { 0.0 });
    let data = Dataset::regression(x, Tensor::zeros([3, 1])).unwrap();
    let (monitor, seen) = monitor(1);
    let mut run = Trainer::new(model, Mse::new(), Sgd(0.0)).epochs(1).progress(Progress::Silent);
    run = run.callback(monitor);
    run.fit(&data).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].layers[1].dead, Some(0.5));
    let warning = seen[0].warnings.iter().find(|w| w.trouble == Trouble::DeadUnits).unwrap();
    assert!(warning.to_string().starts_with("`1`: 50 % of its units are 0 for every sample"), "{warning}");
}

#[test]
fn gradients_that_vanish_or_explode_are_warned_of() {
    // Each sigmoid takes a quarter at most.
    let deep = (0..12).fold(Sequential::new().add(Linear::new(4, 8)), |model, _| {
        model.add(Sigmoid::new()).add(Linear::new(8, 8))
    });
    let all = warnings(deep.add(Linear::new(8, 3)).init(1).unwrap(), 1e-3);
    assert!(all.contains(&(Trouble::VanishingGradient, "0".into())), "{all:?}");
    assert!(
        !all.iter().any(|(trouble, path)| *trouble == Trouble::VanishingGradient && path == "24"),
        "{all:?}"
    );
    let large = || Linear::new(4, 4).weight_init(Init::Normal { mean: 0.0, std: 30.0 });
    let deep = Sequential::new().add(large()).add(large()).add(large()).add(large());
    let all = warnings(deep.add(Linear::new(4, 3)).init(1).unwrap(), 1e-30);
    assert!(all.contains(&(Trouble::ExplodingGradient, "0".into())), "{all:?}");
}

#[test]
fn a_rate_that_is_far_off_is_warned_of() {
    let of = |rate| warnings(network(), rate);
    assert!(of(1e-6).contains(&(Trouble::RateTooLow, "0.weight".into())));
    assert!(of(30.0).contains(&(Trouble::RateTooHigh, "0.weight".into())));
}

#[test]
fn a_fit_that_failed_leaves_no_watch_behind_in_the_next() {
    let (monitor, seen) = monitor(1);
    let model = Sequential::new().add(Linear::new(4, 3)).add(Broken).init(1).unwrap();
    let mut run = trainer(model, 0.1).callback(monitor);
    run.fit(&iris()).unwrap_err();
    run.fit(&iris()).unwrap_err();
    assert!(seen.lock().unwrap().is_empty());
    let error = trainer(network(), 0.1).callback(Monitor::every(0)).fit(&iris()).unwrap_err();
    assert!(error.to_string().contains("every 1 step or more, got 0"), "{error}");
}
