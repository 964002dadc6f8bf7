//! What goes wrong is told by its place, and leaves the weights of the last good step.

mod common;

use chainrule_core::{Init, Kind, Layer, Parameters, Reduction, Scalar, Tensor};
use chainrule_data::Dataset;
use chainrule_layers::{Linear, Sequential, Tanh};
use chainrule_losses::{CrossEntropy, Mse};
use chainrule_train::{Checkpoint, EarlyStopping, Progress, Trainer};
use common::{Broken, Sgd, iris, mlp, numbers};

type Flowers = Trainer<Sequential, CrossEntropy, Sgd>;

fn flowers() -> Flowers {
    Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), Sgd(0.1)).epochs(2).progress(Progress::Silent)
}

fn refused(mut trainer: Flowers, data: &Dataset) -> String {
    let before = numbers(trainer.model());
    let error = trainer.fit(data).unwrap_err().to_string();
    assert_eq!(numbers(trainer.model()), before);
    error
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let data = iris::<f32>();
    let text = |trainer: Flowers| refused(trainer, &data);
    assert_eq!(text(flowers().batch_size(0)), "loader: expected a batch size of at least 1, got 0");
    assert!(text(flowers().accumulate(0)).contains("expected to accumulate at least 1 batch, got 0"));
    assert!(text(flowers().batch_size(200).drop_last(true)).contains("at least one whole batch of 200"));
    assert!(text(flowers().clip_norm(0.0)).contains("clip_norm: expected a finite limit above 0, got 0"));
    assert!(text(flowers().early_stopping(0)).contains("a patience of at least 1"));
    assert!(text(flowers().early_stopping(EarlyStopping::new(1).min_delta(f64::NAN))).contains("min_delta"));
    let monitor = text(flowers().early_stopping(EarlyStopping::new(1).monitor("speed")));
    assert!(monitor.contains(r#"`loss` or one of ["accuracy"], got `speed`"#), "{monitor}");
    let error = flowers().callback(Checkpoint::new("x").every(0)).fit(&data).unwrap_err();
    assert!(error.to_string().contains("every 1 epoch or more"));
}

#[test]
fn data_that_do_not_fit_are_errors() {
    let narrow = Dataset::classification(Tensor::zeros([3, 2]), [0, 1, 2], 3).unwrap();
    assert!(refused(flowers(), &narrow).starts_with("in layer `0`: Linear: expected"));
    let text = refused(flowers().validation(narrow), &iris());
    assert_eq!(text, "validation data: expected samples of shape [4] as in the training data, got [2]");
    let ten = Dataset::classification(Tensor::zeros([3, 4]), [0, 1, 9], 10).unwrap();
    assert!(refused(flowers(), &ten).contains("expected classes below 3, got 9"));
    let values = Dataset::regression(Tensor::zeros([3, 4]), Tensor::zeros([3, 2])).unwrap();
    assert!(flowers().fit(&values).is_err() && flowers().evaluate(&values).is_err());
    let mut each = Trainer::new(mlp::<f32>([4, 8, 3], 1), Mse::new().reduction(Reduction::None), Sgd(0.1));
    assert!(each.fit(&values).unwrap_err().to_string().contains("got reduction none"));
    // NaN never gets into a dataset, and an empty one cannot be made.
    assert!(Dataset::classification(Tensor::from([[f32::NAN]]), [0], 1).is_err());
    assert!(Dataset::<f32>::classification(Tensor::zeros([0, 4]), [], 3).is_err());
}

#[test]
fn a_model_without_numbers_is_an_error_that_names_the_parameter() {
    let model: Sequential = Sequential::new().add(Linear::new(4, 3));
    let error = Trainer::new(model, CrossEntropy::new(), Sgd(0.1)).fit(&iris()).unwrap_err();
    assert!(matches!(error.kind(), Kind::State(_)) && error.to_string().contains("`weight`"), "{error}");
}

#[test]
fn a_sample_that_is_not_finite_is_named() {
    let mut trainer = flowers();
    let mut x = Tensor::zeros([3, 4]);
    x.data_mut()[6] = f32::NAN;
    let before = numbers(trainer.model());
    let text = trainer.step(&x, &[0, 1, 2]).unwrap_err().to_string();
    assert_eq!(text, "input: expected finite numbers, got NaN in sample 1 of the batch, position [2]");
    let mut regression = Trainer::new(mlp::<f32>([4, 8, 1], 1), Mse::new(), Sgd(0.1));
    let t = Tensor::from([[0.0], [0.0], [f32::INFINITY]]);
    let text = regression.step(&Tensor::zeros([3, 4]), &t).unwrap_err().to_string();
    assert_eq!(text, "target: expected finite numbers, got inf in sample 2 of the batch, position [0]");
    assert_eq!(numbers(trainer.model()), before);
}

fn first_error<T: Scalar>(model: Sequential<T>, rate: f64) -> String {
    let mut trainer =
        Trainer::new(model.init(1).unwrap(), CrossEntropy::new(), Sgd(rate)).progress(Progress::Silent);
    trainer.fit(&iris()).unwrap_err().to_string()
}

#[test]
fn a_layer_whose_output_is_not_finite_is_named() {
    let large = Linear::new(8, 8).weight_init(Init::Constant(1e38f32.into()));
    let inner = Sequential::new().add(large.clone()).named("head", large);
    let model: Sequential = Sequential::new().add(Linear::new(4, 8)).add(Tanh::new()).named("body", inner);
    let text = first_error(model, 0.1);
    assert!(text.starts_with("in layer `body.head`: expected a finite output"), "{text}");
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut trainer = flowers();
    trainer.model_mut().visit_mut(&mut |path, param| {
        if path.to_string() == "2.weight" {
            param.value_mut().unwrap()[9] = f32::NAN;
        }
    });
    let text = trainer.fit(&iris()).unwrap_err().to_string();
    assert_eq!(text, "in layer `2`: expected `weight` to be finite, got NaN at [1, 1]");
    assert_eq!(trainer.evaluate(&iris()).unwrap_err().to_string(), text);
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_no_step_is_taken() {
    let model: Sequential = Sequential::new().add(Linear::new(4, 3)).add(Broken);
    let mut trainer =
        Trainer::new(model.init(1).unwrap(), CrossEntropy::new(), Sgd(0.1)).progress(Progress::Silent);
    let before = numbers(trainer.model());
    let text = trainer.fit(&iris()).unwrap_err().to_string();
    assert_eq!(text, "in layer `0`: expected the gradient of `weight` to be finite, got NaN at [0, 0]");
    assert_eq!((numbers(trainer.model()), trainer.steps()), (before, 0));
}

#[test]
fn a_step_into_infinity_is_found_in_the_same_epoch() {
    let model: Sequential = Sequential::new().add(Linear::new(4, 3));
    let text = first_error(model, f64::INFINITY);
    assert!(text.starts_with("in layer `0`: expected `"), "{text}");
}

#[test]
fn a_loss_that_grows_out_of_bounds_is_told_with_the_size_of_the_outputs() {
    let mut trainer =
        Trainer::new(mlp::<f32>([2, 4, 1], 1), Mse::new(), Sgd(3.0)).epochs(500).progress(Progress::Silent);
    let data =
        Dataset::regression(Tensor::from([[0.0, 1.0], [1.0, 1.0]]), Tensor::from([[1.0], [-1.0]])).unwrap();
    let text = trainer.fit(&data).unwrap_err().to_string();
    assert!(text.contains("up to ") && text.contains("learning rate"), "{text}");
}
