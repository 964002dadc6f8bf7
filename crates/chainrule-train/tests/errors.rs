//! Errors name their place, and leave the weights of the last good step.

mod common;

use chainrule_core::{
    Call, Context, Grads, Init, Kind, Layer, Optimizer, Param, Parameters, Reduction, Result, Shape, Tensor,
};
use chainrule_data::{Dataset, Targets};
use chainrule_layers::{BatchNorm1d, Linear, Sequential, Tanh};
use chainrule_losses::{CrossEntropy, Mse};
use chainrule_train::{EarlyStopping, Ended, Progress, SaveWeights, Trainer};
use common::{Broken, Sgd, iris, mlp, values};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

type Flowers = Trainer<Sequential, CrossEntropy, Sgd>;

fn flowers() -> Flowers {
    Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), Sgd(0.1)).epochs(2).progress(Progress::Silent)
}

fn refused(mut trainer: Flowers, data: &Dataset) -> String {
    let before = values(trainer.model());
    let error = trainer.fit(data).unwrap_err().to_string();
    assert_eq!(values(trainer.model()), before);
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
    assert!(text(flowers().callback(SaveWeights::new("x").every(0))).contains("every 1 epoch or more"));
    let unknown = text(flowers().callback(SaveWeights::new("x").best_only("speed")));
    assert!(unknown.contains(r#"`loss` or one of ["accuracy"], got `speed`"#), "{unknown}");
    // A folder that cannot be made, and a file that cannot be written, are found before the first epoch.
    let file = std::env::temp_dir().join(format!("chainrule-train-file-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    assert!(text(flowers().callback(SaveWeights::new(file.join("x.safetensors")))).contains("write into"));
    std::fs::remove_file(file).unwrap();
    assert!(text(flowers().callback(SaveWeights::new(std::env::temp_dir()))).contains("the name of a file"));
    #[cfg(unix)]
    assert!(text(flowers().callback(SaveWeights::new("/dev/null"))).contains("expected a regular file"));
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
    let mut two = Trainer::new(mlp::<f32>([4, 8, 3], 1), CrossEntropy::new(), Sgd(0.1));
    let heads =
        Dataset::new([Tensor::zeros([3, 4])], [Targets::classes([0, 1, 2]), Targets::classes([0, 1, 2])]);
    let text = two.fit(heads.unwrap()).unwrap_err().to_string();
    assert!(
        text.contains("expected 1 inputs, as the model, and 1 targets, as the loss, got 1 and 2"),
        "{text}"
    );
    let mut each = Trainer::new(mlp::<f32>([4, 8, 3], 1), Mse::new().reduction(Reduction::None), Sgd(0.1));
    assert!(each.fit(&values).unwrap_err().to_string().contains("got reduction none"));
    // NaN never gets into a dataset, and an empty one cannot be made.
    assert!(Dataset::classification(Tensor::from([[f32::NAN]]), [0], 1).is_err());
    assert!(Dataset::<f32>::classification(Tensor::zeros([0, 4]), [], 3).is_err());
}

#[test]
fn a_model_that_is_not_initialised_is_an_error_that_names_the_parameter() {
    let model: Sequential = Sequential::new().add(Linear::new(4, 3));
    let error = Trainer::new(model, CrossEntropy::new(), Sgd(0.1)).fit(&iris()).unwrap_err();
    assert!(matches!(error.kind(), Kind::State(_)) && error.to_string().contains("`weight`"), "{error}");
}

#[test]
fn a_sample_that_is_not_finite_is_named() {
    let mut trainer = flowers();
    let mut x = Tensor::zeros([3, 4]);
    x.data_mut()[6] = f32::NAN;
    let before = values(trainer.model());
    let text = trainer.step(&x, &[0, 1, 2]).unwrap_err().to_string();
    assert_eq!(text, "input: expected finite values, got NaN in sample 1 of the batch, position [2]");
    let mut regression = Trainer::new(mlp::<f32>([4, 8, 1], 1), Mse::new(), Sgd(0.1));
    let t = Tensor::from([[0.0], [0.0], [f32::INFINITY]]);
    let text = regression.step(&Tensor::zeros([3, 4]), &t).unwrap_err().to_string();
    assert_eq!(text, "target: expected finite values, got inf in sample 2 of the batch, position [0]");
    assert_eq!(values(trainer.model()), before);
}

fn first_error(model: Sequential, rate: f64) -> String {
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
    let before = values(trainer.model());
    let text = trainer.fit(&iris()).unwrap_err().to_string();
    assert_eq!(text, "in layer `0`: expected the gradient of `weight` to be finite, got NaN at [0, 0]");
    assert_eq!((values(trainer.model()), trainer.steps()), (before, 0));
}

#[test]
fn a_step_into_infinity_is_found_in_the_same_epoch() {
    let model: Sequential = Sequential::new().add(Linear::new(4, 3));
    let text = first_error(model, f64::INFINITY);
    assert!(text.starts_with("in layer `0`: expected `"), "{text}");
}

#[test]
fn a_loss_that_diverges_is_reported_with_the_size_of_the_outputs() {
    let mut trainer =
        Trainer::new(mlp::<f32>([2, 4, 1], 1), Mse::new(), Sgd(3.0)).epochs(500).progress(Progress::Silent);
    let data =
        Dataset::regression(Tensor::from([[0.0, 1.0], [1.0, 1.0]]), Tensor::from([[1.0], [-1.0]])).unwrap();
    let text = trainer.fit(&data).unwrap_err().to_string();
    assert!(text.contains("up to ") && text.contains("learning rate"), "{text}");
}

/// Moves the first parameter, and then fails; or makes the last weight of the model infinite.
struct HalfWay {
    steps: usize,
    fails: bool,
}

impl Optimizer<f32> for HalfWay {
    fn step(&mut self, model: &mut dyn Parameters<T = f32>, grads: &Grads<f32>) -> Result<()> {
        let Some(left) = self.steps.checked_sub(1) else {
            let mut parameters = 0;
            model.visit_mut(&mut |_, _| parameters += 1);
            let mut at = 0;
            model.visit_mut(&mut |_, p: &mut Param<f32>| {
                at += 1;
                match self.fails {
                    true if at == 1 => p.value_mut().unwrap().fill(9.0),
                    false if at == parameters => p.value_mut().unwrap()[0] = f32::INFINITY,
                    false => p.value_mut().unwrap().iter_mut().for_each(|v| *v += 1.0),
                    _ => {}
                }
            });
            return if self.fails { Err(chainrule_core::Error::value("out of luck")) } else { Ok(()) };
        };
        self.steps = left;
        Sgd(0.1).step(model, grads)
    }
    fn learning_rate(&self) -> f64 {
        0.1
    }
    fn set_learning_rate(&mut self, _: f64) {}
}

#[test]
fn an_update_that_fails_or_overflows_leaves_the_weights_from_before() {
    for fails in [true, false] {
        for steps in [0, 7] {
            let trainer = |optimizer| {
                Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), optimizer)
                    .batch_size(30)
                    .epochs(4)
                    .progress(Progress::Silent)
            };
            let mut failing = trainer(HalfWay { steps, fails });
            let text = failing.fit(&iris()).unwrap_err().to_string();
            assert!(text.contains(if fails { "out of luck" } else { "to be finite, got inf" }), "{text}");
            // A second attempt moves nothing more.
            failing.step(iris::<f32>().x(), &[0; 150]).unwrap_err();
            assert_eq!(failing.steps(), steps as u64);

            /// Ends after some steps.
            struct After(u64);
            impl<M: Parameters> chainrule_train::Callback<M> for After {
                fn on_step_end(&mut self, step: u64, _: f64, _: &mut M) -> Result<std::ops::ControlFlow<()>> {
                    Ok(if step >= self.0 {
                        std::ops::ControlFlow::Break(())
                    } else {
                        std::ops::ControlFlow::Continue(())
                    })
                }
            }
            let mut good = trainer(HalfWay { steps: 100, fails }).callback(After(steps as u64));
            if steps > 0 {
                good.fit(&iris()).unwrap();
            }
            assert_eq!(values(failing.model()), values(good.model()));
            assert_eq!(failing.history().epochs.len(), steps / 5);
            assert_eq!(failing.history().ended, Ended::Error);
        }
    }
}

#[test]
fn a_diverging_fit_ends_with_its_best_weights_and_its_history() {
    let data = iris::<f32>();
    let mut trainer =
        Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), HalfWay { steps: 17, fails: false })
            .batch_size(30)
            .epochs(9)
            .validation(iris())
            .early_stopping(9)
            .progress(Progress::Silent);
    trainer.fit(&data).unwrap_err();
    let history = trainer.history().clone();
    assert_eq!((history.epochs.len(), history.ended, history.best), (3, Ended::Error, Some(3)));
    let loss = history.best().unwrap().validation.as_ref().unwrap().loss;
    assert_eq!(trainer.evaluate(&data).unwrap().loss(), loss);
}

#[test]
fn running_statistics_that_overflow_are_not_kept() {
    let model = Sequential::new().add(BatchNorm1d::new(1)).add(Linear::new(1, 1)).init(1).unwrap();
    let mut trainer = Trainer::new(model, Mse::new(), Sgd(1e-3)).progress(Progress::Silent);
    let before = values(trainer.model());
    let x = Tensor::from([[1e25f32], [-1e25]]);
    let text = trainer.step(&x, &Tensor::from([[0.0], [0.0]])).unwrap_err().to_string();
    assert!(text.starts_with("in layer `0`"), "{text}");
    assert_eq!(values(trainer.model()), before);
}

#[test]
fn a_callback_may_fail_and_its_trainer_goes_on() {
    let mut trainer = flowers().epochs(3).validation(iris()).on_epoch(|epoch, _| match epoch.number {
        2 => Err(chainrule_core::Error::value("the disk is full")),
        _ => Ok(std::ops::ControlFlow::Continue(())),
    });
    assert_eq!(trainer.fit(&iris()).unwrap_err().to_string(), "the disk is full");
    assert_eq!(trainer.history().epochs.len(), 2);
    assert!(trainer.fit(&iris()).unwrap().epochs.iter().all(|e| e.validation.is_some()));
}

/// y = x, until a call at which it panics.
#[derive(Clone)]
struct Fragile(Arc<AtomicUsize>);

impl Layer for Fragile {
    type T = f32;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> {
        assert!(self.0.fetch_sub(1, Relaxed) != 1, "a layer of the user's");
        y.copy_from(x);
        Ok(())
    }
    fn backward(
        &self,
        call: Call<'_, f32>,
        _: &mut (),
        _: &mut Grads<f32>,
        dx: Option<&mut Tensor>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.copy_from(call.dy));
        Ok(())
    }
}

#[test]
fn after_a_panic_in_a_layer_the_validation_data_are_still_there() {
    // Three batches to train on, two to validate: in the first of them all, and in the last.
    for at in [1, 5] {
        let calls = Arc::new(AtomicUsize::new(at));
        let model = Sequential::new().add(Linear::new(4, 3)).add(Fragile(Arc::clone(&calls)));
        let (train, validation) = iris::<f32>().split(0.4, 1).unwrap();
        let mut trainer = Trainer::new(model.init(1).unwrap(), CrossEntropy::new(), Sgd(0.1))
            .epochs(1)
            .validation(validation)
            .progress(Progress::Silent);
        let fit = std::panic::AssertUnwindSafe(|| trainer.fit(&train));
        assert!(std::panic::catch_unwind(fit).is_err());
        assert_eq!(calls.load(Relaxed), 0);
        let history = trainer.fit(&train).unwrap();
        assert!(history.last().unwrap().validation.is_some());
    }
}
