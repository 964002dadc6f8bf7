//! Every optimizer trains a network on the handwritten digits.

use chainrule::{core::Pass, optim::*, prelude::*};

type Make = fn(f64) -> Box<dyn Optimizer<f32>>;

/// Every kind, and its rate.
const ALL: &[(&str, Make, f64)] = &[
    ("AdEMAMix", |rate| Box::new(AdEMAMix::new(rate)), 1e-2),
    ("AdaBelief", |rate| Box::new(AdaBelief::new(rate)), 1e-2),
    ("Adadelta", |rate| Box::new(Adadelta::new(rate)), 3.0),
    ("Adafactor", |rate| Box::new(Adafactor::new(rate)), 3e-2),
    ("Adagrad", |rate| Box::new(Adagrad::new(rate)), 0.1),
    ("Adam", |rate| Box::new(Adam::new(rate)), 1e-2),
    ("AdamW", |rate| Box::new(AdamW::new(rate)), 1e-2),
    ("Adamax", |rate| Box::new(Adamax::new(rate)), 3e-2),
    ("Adan", |rate| Box::new(Adan::new(rate)), 1e-2),
    ("Asgd", |rate| Box::new(Asgd::new(rate)), 0.3),
    ("Lamb", |rate| Box::new(Lamb::new(rate)), 1e-2),
    ("Lars", |rate| Box::new(Lars::new(rate)), 3.0),
    ("Lion", |rate| Box::new(Lion::new(rate)), 3e-3),
    ("Lookahead", |rate| Box::new(Lookahead::new(Adam::new(rate))), 3e-2),
    ("Muon", |rate| Box::new(Muon::new(rate)), 1e-2),
    ("NAdam", |rate| Box::new(NAdam::new(rate)), 1e-2),
    ("OptaxAdafactor", |rate| Box::new(OptaxAdafactor::new(rate)), 3e-2),
    ("NovoGrad", |rate| Box::new(NovoGrad::new(rate)), 0.1),
    ("RAdam", |rate| Box::new(RAdam::new(rate)), 3e-2),
    ("RmsProp", |rate| Box::new(RmsProp::new(rate)), 1e-2),
    ("Rprop", |rate| Box::new(Rprop::new(rate)), 1e-3),
    ("ScheduleFreeAdamW", |rate| Box::new(ScheduleFreeAdamW::new(rate)), 1e-2),
    ("ScheduleFreeSgd", |rate| Box::new(ScheduleFreeSgd::new(rate)), 1.0),
    ("Sgd", |rate| Box::new(Sgd::new(rate).momentum(0.9)), 3e-2),
    ("Yogi", |rate| Box::new(Yogi::new(rate)), 1e-2),
];

fn network() -> Sequential {
    Sequential::new().add(Flatten::new()).add(Linear::new(64, 32)).add(Relu::new()).add(Linear::new(32, 10))
}

/// The share of unseen digits that a network is right about after eight epochs.
#[test]
fn every_optimizer_learns_the_digits() {
    let (train, test) = digits().split_stratified(0.2, 1).unwrap();
    for &(kind, make, rate) in ALL {
        let optimizer = make(rate);
        assert_eq!(optimizer.spec().kind(), kind);
        let mut trainer = Trainer::new(network().init(1).unwrap(), CrossEntropy::new(), optimizer)
            .epochs(8)
            .seed(1)
            .progress(Progress::Silent);
        trainer.fit(&train).unwrap();
        let right = trainer.evaluate(&test).unwrap().accuracy().unwrap();
        // Rprop takes the signs of a batch for those of all samples, and is worse off for it.
        let wanted = if kind == "Rprop" { 0.88 } else { 0.94 };
        assert!(right >= wanted, "{kind}: expected {wanted} of the digits, got {right:.3}");
    }
}

/// Those that evaluate the loss several times a step, on all training samples at once.
#[test]
fn optimizers_of_a_closure_learn_the_digits() {
    let (train, test) = digits().split_stratified(0.2, 1).unwrap();
    let labels = train.labels().unwrap().to_vec();
    let all: [Box<dyn Optimizer<f32>>; 2] =
        [Box::new(Lbfgs::new(1.0)), Box::new(Sam::new(Sgd::new(0.3).momentum(0.9)))];
    for mut optimizer in all {
        let mut model = network().init(1).unwrap();
        let mut pass = Pass::new(&model);
        for step in 0..60 {
            pass.minimize(&mut model, &mut *optimizer, |pass, model| {
                pass.zero();
                pass.forward(model, train.x(), Context::train(1).step(step))?;
                let loss = pass.loss(&CrossEntropy::new(), &labels)?;
                pass.backward(model, train.x())?;
                Ok(loss)
            })
            .unwrap();
        }
        let y = model.infer(test.x()).unwrap().argmax_rows();
        let right = y.iter().zip(test.labels().unwrap()).filter(|(y, t)| y == t).count();
        let share = right as f64 / test.len() as f64;
        assert!(share >= 0.94, "{}: expected 0.94 of the digits, got {share:.3}", optimizer.spec().kind());
    }
}

/// The weights after some steps on the digits, and what the optimizer's setting is then.
fn trained(trainer: Trainer<Sequential, CrossEntropy, Sgd>, setting: &str) -> (Vec<f32>, Option<f64>) {
    let mut trainer = trainer.epochs(1).batch_size(64).seed(1).progress(Progress::Silent);
    trainer.fit(&digits()).unwrap();
    let mut values = Vec::new();
    trainer.model().visit(&mut |_, p| values.extend_from_slice(p.value().unwrap()));
    let value = trainer.optimizer_mut().setting(setting);
    (values, value)
}

#[test]
fn settings_of_an_optimizer_follow_schedules() {
    let new = |sgd: Sgd| Trainer::new(network().init(1).unwrap(), CrossEntropy::new(), sgd);
    let sgd = || Sgd::new(0.05).momentum(0.8).weight_decay(0.01);
    let half = || schedule::Constant::new().at_first(0.5, u64::MAX);
    let (scheduled, momentum) = trained(new(sgd()).schedule_setting("momentum", half()), "momentum");
    assert_eq!(momentum, Some(0.4));
    assert_eq!(scheduled, trained(new(sgd().momentum(0.4)), "momentum").0);
    let (scheduled, decay) = trained(new(sgd()).schedule_setting("weight_decay", half()), "weight_decay");
    assert_eq!(decay, Some(0.005));
    assert_eq!(scheduled, trained(new(sgd().weight_decay(0.005)), "lr").0);
    // Momentum that comes to nothing takes its state with it.
    let off = || schedule::Constant::new().at_first(0.0, u64::MAX);
    let (scheduled, _) = trained(new(sgd()).schedule_setting("momentum", off()), "momentum");
    assert_eq!(scheduled, trained(new(sgd().momentum(0.0)), "momentum").0);
    let mut unknown = new(sgd()).schedule_setting("speed", half());
    let text = unknown.fit(&digits()).unwrap_err().to_string();
    assert!(text.contains("`speed`"), "{text}");
}

#[test]
fn every_setting_with_a_beta_is_known_as_momentum() {
    for &(kind, make, rate) in ALL {
        let mut optimizer = make(rate);
        assert_eq!(optimizer.setting("lr"), Some(rate), "{kind}");
        assert_eq!(optimizer.setting("none"), None, "{kind}");
        assert!(optimizer.set_setting("none", 0.1).is_err(), "{kind}");
        let text = optimizer.spec().to_string();
        let has = text.contains("betas=") || text.contains("momentum=");
        let none = ["NAdam", "OptaxAdafactor"].contains(&kind); // momentum_decay; none kept
        assert!(optimizer.setting("momentum").is_some() == has || none, "{kind}: {text}");
        optimizer.set_setting("weight_decay", 0.25).unwrap();
        assert_eq!(optimizer.setting("weight_decay"), Some(0.25), "{kind}");
    }
}

#[test]
fn dropout_follows_a_schedule() {
    let dropout = |p| network().add(Dropout::new(p)).init(1).unwrap();
    let new = |p| Trainer::new(dropout(p), CrossEntropy::new(), Sgd::new(0.05));
    let by = |by| schedule::Constant::new().at_first(by, u64::MAX);
    let plain = |p| trained(new(p), "lr").0;
    assert_ne!(plain(0.5), plain(0.25));
    assert_eq!(trained(new(0.5).schedule_noise(by(0.5)), "lr").0, plain(0.25));
    assert_eq!(trained(new(0.5).schedule_noise(by(0.0)), "lr").0, plain(0.0));
    assert_eq!(trained(new(0.5).schedule_noise(by(1.0)), "lr").0, plain(0.5));
}

#[test]
fn the_tables_have_every_kind() {
    let registry = chainrule_parity::registry::<f32>();
    let kinds: Vec<&str> = registry.optimizers().map(|entry| entry.facts.kind).collect();
    let mut listed: Vec<&str> = ALL.iter().map(|(kind, ..)| *kind).chain(["Lbfgs", "Sam"]).collect();
    listed.sort_unstable();
    assert_eq!(listed, kinds);
}
