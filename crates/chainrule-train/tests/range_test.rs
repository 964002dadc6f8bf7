//! The learning-rate range test finds rates that train, and leaves nothing behind.

mod common;

use chainrule_core::{Context, Parameters, Pass};
use chainrule_data::digits;
use chainrule_layers::{BatchNorm1d, Conv2d, Flatten, Linear, MaxPool2d, Relu, Sequential, Tanh};
use chainrule_losses::CrossEntropy;
use chainrule_optim::{Adam, schedule::Cosine};
use chainrule_train::{Progress, RangeTest, Trainer};
use common::{Broken, Sgd, iris, values};

fn model() -> Sequential {
    let model = Sequential::new().add(Linear::new(4, 16)).add(BatchNorm1d::new(16)).add(Tanh::new());
    model.add(Linear::new(16, 3)).init(1).unwrap()
}

fn trainer() -> Trainer<Sequential, CrossEntropy, Adam> {
    Trainer::new(model(), CrossEntropy::new(), Adam::new(1e-2))
        .epochs(4)
        .batch_size(16)
        .schedule(Cosine::new(40))
        .schedule_setting("momentum", Cosine::new(1000))
        .progress(Progress::Silent)
}

#[test]
fn nothing_is_left_behind_before_or_in_the_middle_of_a_training() {
    let data = iris();
    let mut plain = trainer();
    plain.fit(&data).unwrap();
    let half = plain.steps();
    plain.fit(&data).unwrap();
    let mut tested = trainer();
    tested.range_test(&data, RangeTest::new()).unwrap();
    assert_eq!((tested.steps(), values(tested.model())), (0, values(&model())));
    tested.fit(&data).unwrap();
    assert_eq!(tested.steps(), half);
    tested.range_test(&data, RangeTest::new().steps(30)).unwrap();
    tested.fit(&data).unwrap();
    assert_eq!(values(plain.model()), values(tested.model()));
}

#[test]
fn the_rate_that_it_suggests_trains_and_the_curve_is_a_picture() {
    let data = iris();
    let mut run = trainer();
    let tested = run.range_test(&data, RangeTest::new()).unwrap();
    let n = tested.rates.len();
    assert!(n == tested.losses.len() && n == tested.smoothed.len() && n <= 100);
    assert!((tested.rates[0], tested.rates[1] / tested.rates[0] > 1.2) == (1e-7, true));
    let rate = tested.suggestion().unwrap();
    assert!((1e-4..1.0).contains(&rate), "{tested}");
    let text = tested.to_string();
    assert!(
        text.contains("steps at learning rates from 1.0e-7") && text.contains("and fell most steeply at"),
        "{text}"
    );
    let svg = tested.picture().to_string();
    assert!(svg.contains("suggested: ") && svg.contains("smoothed") && !svg.contains("NaN"), "{svg}");
    let mut run =
        Trainer::new(model(), CrossEntropy::new(), Adam::new(rate)).epochs(30).progress(Progress::Silent);
    let last = run.fit(&data).unwrap().last().unwrap().train.loss;
    assert!(last < 0.3, "{last} at {rate}");
}

/// Of a convolutional network, whose rate for Adam is known to be about 10⁻².
#[test]
fn the_rate_of_the_digits_has_the_right_order() {
    let model = Sequential::new()
        .add(Conv2d::new(1, 16, 3).padding(1))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Flatten::new())
        .add(Linear::new(256, 10));
    let mut run = Trainer::new(model.init(1).unwrap(), CrossEntropy::new(), Adam::new(1e-3));
    let tested = run.range_test(&digits(), RangeTest::new()).unwrap();
    let rate = tested.suggestion().unwrap();
    let [low, high] = tested.bounds().unwrap();
    assert!(low < rate && rate < high, "{tested}");
    assert!((2e-3..5e-2).contains(&rate), "{tested}");
}

#[test]
fn a_loss_that_explodes_ends_it() {
    let data = iris();
    let plain = || Sequential::new().add(Linear::new(4, 16)).add(Linear::new(16, 3)).init(1).unwrap();
    let mut run = Trainer::new(plain(), CrossEntropy::new(), Sgd(0.1)).batch_size(16);
    let tested = run.range_test(&data, RangeTest::new().rates(1e-3, 1e9)).unwrap();
    assert!(tested.exploded && tested.rates.len() < 100, "{tested}");
    assert!(tested.to_string().contains("the loss exploded"), "{tested}");
    assert_eq!(values(run.model()), values(&plain()));
    // What fails at once is an error, and nothing has moved.
    let broken = Sequential::new().add(Linear::new(4, 3)).add(Broken).init(1).unwrap();
    let mut run = Trainer::new(broken, CrossEntropy::new(), Sgd(0.1));
    assert!(run.range_test(&data, RangeTest::new()).is_err());
    assert!(run.range_test(&data, RangeTest::new().steps(1)).is_err());
    assert_eq!(run.steps(), 0);
    let mut pass = Pass::new(run.model());
    pass.forward(run.model(), data.x(), Context::infer()).unwrap();
}
