//! `explain` finds what was planted: a bad sample, an exploding layer, a log of zero in a loss, a bad checkpoint, an ε that is too
//! small; and what else can be the first value that is not finite.

use chainrule::{
    data::{Batch, Source},
    prelude::*,
    train::{Culprit, Explanation, Finding, Statistics},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("chainrule-explain-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// The newest checkpoint.
    fn newest(&self) -> PathBuf {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn found(explanation: &Explanation) -> &Finding {
    explanation.first.as_ref().unwrap_or_else(|| panic!("{explanation}"))
}

fn of<'a>(inputs: &'a [(String, Statistics)], name: &str) -> &'a Statistics {
    &inputs.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}: {inputs:?}")).1
}

/// Batch statistics, dropout, an activation in place; three epochs with a checkpoint after each.
fn trainer(folder: &Folder) -> Trainer<Sequential, CrossEntropy, AdamW> {
    let body = Sequential::new().add(Linear::new(64, 24)).add(BatchNorm1d::new(24)).add(Relu::new());
    let model = Sequential::new().add(Flatten::new()).named("body", body).add(Dropout::new(0.2));
    let model = model.named("head", Linear::new(24, 10)).init(1).unwrap();
    Trainer::new(model, CrossEntropy::new(), AdamW::new(5e-3))
        .epochs(3)
        .batch_size(64)
        .seed(7)
        .checkpoint(Checkpoint::new(&folder.0))
        .progress(Progress::Silent)
}

/// The digits, with another value in place of one pixel of one sample.
fn spoiled(sample: usize, value: f32) -> Dataset {
    let data = digits();
    let mut x = data.x().clone();
    x.data_mut()[64 * sample + 20] = value;
    Dataset::classification(x, data.labels().unwrap(), 10).unwrap()
}

#[test]
fn a_bad_sample_is_named_by_its_place_in_the_data() {
    let folder = Folder::new("sample");
    // Larger than it can be, from the second epoch on: BatchNorm spreads it over the batch, and the variance overflows.
    let data = spoiled(118, 1e30);
    let mut epoch = 0;
    let mut source = data.map(move |batch: &mut Batch| {
        epoch += 1; // counts batches: 29 an epoch
        if epoch <= 29 {
            batch.inputs[0].data_mut().iter_mut().for_each(|v| *v = v.min(1.0));
        }
        Ok(())
    });
    let mut run = trainer(&folder);
    run.fit(&mut source).unwrap_err();
    let explanation = run.explain(&folder.0, data_again()).unwrap();
    let first = found(&explanation);
    assert_eq!(
        (first.epoch, &first.path[..], &first.tensor),
        (2, "body.1", &Culprit::Activation(0)),
        "{explanation}"
    );
    let sample = first.sample.unwrap();
    assert_eq!(
        (sample.in_data, sample.largest, sample.usual),
        (Some(118), f64::from(1e30f32), 1.0),
        "{explanation}"
    );
    assert_eq!(explanation.steps.start, 30, "from the checkpoint of the first epoch");
    assert!(of(&first.inputs, "x").max.abs() > 1e28, "{explanation}");

    fn data_again() -> Dataset {
        spoiled(118, 1e30)
    }
}

#[test]
fn a_sample_that_is_nan_is_found_before_any_layer() {
    let folder = Folder::new("nan");
    let source = || {
        spoiled(3, 17.0).map(|batch: &mut Batch| {
            batch.inputs[0].data_mut().iter_mut().filter(|v| **v == 17.0).for_each(|v| *v = f32::NAN);
            Ok(())
        })
    };
    let mut run = trainer(&folder);
    run.fit(source()).unwrap_err();
    // Steps were taken, and there is no checkpoint yet: the start of the run is another trainer's.
    let text = run.explain(&folder.0, source()).unwrap_err().to_string();
    assert!(text.contains("a new trainer begins at the start"), "{text}");
    let explanation = trainer(&folder).explain(&folder.0, source()).unwrap();
    let first = found(&explanation);
    assert_eq!((&first.path[..], &first.tensor), ("", &Culprit::Input(0)), "{explanation}");
    assert_eq!(first.sample.unwrap().in_data, Some(3), "{explanation}");
    assert_eq!(first.position[1..], [0, 2, 4], "{explanation}");
}

/// y = 10³⁰ Σ x, twice.
#[test]
fn an_exploding_layer_is_named_by_its_path() {
    let (data, folder) = (iris::<f32>(), Folder::new("exploding"));
    let large = |inputs| Linear::new(inputs, 6).weight_init(Init::Constant(1e30));
    let body = Sequential::new().add(large(4)).add(Relu::new()).named("up", large(6));
    let model = Sequential::new().add(Residual::new(Linear::new(4, 4))).named("body", body);
    let model = model.add(Linear::new(6, 3)).init(1).unwrap();
    let mut run = Trainer::new(model, CrossEntropy::new(), Sgd::new(0.1))
        .checkpoint(Checkpoint::new(&folder.0))
        .progress(Progress::Silent);
    let error = run.fit(&data).unwrap_err().to_string();
    assert!(error.contains("`body.up`"), "{error}");
    let explanation = run.explain(&folder.0, &data).unwrap();
    let first = found(&explanation);
    assert_eq!(
        (first.step, &first.path[..], &first.tensor),
        (1, "body.up", &Culprit::Activation(0)),
        "{explanation}"
    );
    assert!(
        first.value.is_infinite() && of(&first.inputs, "weight").min == f64::from(1e30f32),
        "{explanation}"
    );
    assert!(of(&first.inputs, "x").max > 1e29, "{explanation}");
    let text = explanation.to_string();
    assert!(text.starts_with("step 1, epoch 1: the first value that is not finite is inf at [0, 0] in the output, in layer `body.up`"), "{text}");
    // It is not watched any more.
    assert!(!format!("{:?}", run.model()).is_empty() && run.fit(&data).is_err());
}

/// E = y + 0 ln y goes down until a ReLU gives 0.
#[test]
fn a_log_of_zero_in_a_loss_is_found_in_the_loss() {
    let folder = Folder::new("log");
    let data = Dataset::regression(Tensor::zeros([8, 1]), Tensor::zeros([8, 1])).unwrap();
    let run = || {
        let model = Sequential::new().add(Linear::new(1, 1).bias_init(Init::Constant(1.0))).add(Relu::new());
        let loss = FnLoss::new(|y: f32, _| y + 0.0 * y.ln(), |_, _| [1.0, 0.0]);
        Trainer::new(model.init(1).unwrap(), loss, Sgd::new(0.03))
            .epochs(50)
            .batch_size(8)
            .checkpoint(Checkpoint::new(&folder.0).every_epochs(15))
            .progress(Progress::Silent)
    };
    let mut first_run = run();
    first_run.fit(&data).unwrap_err();
    // In another process.
    let explanation = run().explain(&folder.0, &data).unwrap();
    let first = found(&explanation);
    assert_eq!((first.step, &first.path[..], &first.tensor), (35, "", &Culprit::Loss), "{explanation}");
    assert_eq!((of(&first.inputs, "y").zeros, of(&first.inputs, "target").count), (8, 8), "{explanation}");
    assert_eq!(explanation.steps, 16..36, "step 35 is too near to the checkpoint of step 30");
}

/// Overwrites the first value of a tensor in a checkpoint.
fn plant(file: &Path, tensor: &str, value: f32) {
    let mut bytes = fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..8 + header].to_vec()).unwrap();
    let entry = &text[text.find(&format!("\"{tensor}\"")).unwrap()..];
    let offsets = &entry[entry.find("\"data_offsets\":[").unwrap() + 16..];
    let start: usize = offsets[..offsets.find(',').unwrap()].parse().unwrap();
    bytes[8 + header + start..][..4].copy_from_slice(&value.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_bad_checkpoint_is_named_with_the_tensor() {
    let (data, folder) = (digits(), Folder::new("checkpoint"));
    trainer(&folder).fit(&data).unwrap();
    let newest = folder.newest();
    for (value, says) in
        [(f32::NAN, "`model/head.weight`: expected finite values, got NaN"), (0.5, "damaged")]
    {
        plant(&newest, "model/head.weight", value);
        // The file alone, and with those before it.
        let alone = trainer(&folder).explain(&newest, &data).unwrap();
        assert!(alone.first.is_none() && alone.steps.is_empty(), "{alone}");
        let with_others = trainer(&folder).explain(&folder.0, &data).unwrap();
        assert!(with_others.first.is_none() && with_others.steps == (59..88), "{with_others}");
        for explanation in [alone, with_others] {
            assert_eq!(explanation.damaged.len(), 1);
            let text = explanation.to_string();
            assert!(text.contains(says) && text.contains(newest.to_str().unwrap()), "{text}");
        }
    }
}

/// v = g² underflows, and what is left of √v + ε is the smallest number: w = 10⁻¹² moves by 10¹⁵.
#[test]
fn an_epsilon_that_is_too_small_is_found_in_the_step_before() {
    let folder = Folder::new("epsilon");
    let data = Dataset::regression(Tensor::full([8, 4], 1.0), Tensor::full([8, 4], 1e-10)).unwrap();
    let small = || Linear::new(4, 4).bias(false).weight_init(Init::Constant(1e-12));
    let model = Sequential::new().add(small()).add(small()).init(1).unwrap();
    let mut run = Trainer::new(model, Mse::new(), Adam::new(0.1).eps(0.0))
        .batch_size(8)
        .checkpoint(Checkpoint::new(&folder.0).every_steps(1))
        .progress(Progress::Silent);
    run.fit(&data).unwrap_err();
    let mut again = run;
    let explanation = again.explain(Folder::new("none").0.clone(), &data);
    assert!(explanation.unwrap_err().to_string().contains("expected a checkpoint"));
    let model = Sequential::new().add(small()).add(small()).init(1).unwrap();
    let mut fresh =
        Trainer::new(model, Mse::new(), Adam::new(0.1).eps(0.0)).batch_size(8).progress(Progress::Silent);
    let explanation = fresh.explain(Folder::new("none").0.clone(), &data).unwrap();
    let first = found(&explanation);
    assert_eq!((first.step, &first.tensor), (2, &Culprit::Loss), "{explanation}");
    let leap = explanation.leap.as_ref().unwrap();
    assert_eq!((leap.step, &leap.vanished[..]), (1, &["exp_avg_sq".to_owned()][..]), "{explanation}");
    assert!(leap.ratio > 1e20 && ["0.weight", "1.weight"].contains(&&leap.parameter[..]), "{explanation}");
    let [gradient, v] = ["gradient", "exp_avg_sq"].map(|name| of(&leap.inputs, name));
    assert!(gradient.rms() < 1e-20 && gradient.zeros == 0 && v.zeros == v.count, "{explanation}");
    assert!(explanation.to_string().contains("ε is all of it, and too small"), "{explanation}");
}

/// √x is 0 at 0, and its derivative is not finite.
#[test]
fn a_gradient_is_found_where_it_is_made() {
    let data = Dataset::regression(Tensor::zeros([8, 2]), Tensor::full([8, 1], 1.0)).unwrap();
    let root = Activation::new(f32::sqrt, |x: f32| 0.5 / x.sqrt());
    let model =
        Sequential::new().add(Linear::new(2, 3).bias(false)).named("root", root).add(Linear::new(3, 1));
    let mut run = Trainer::new(model.init(1).unwrap(), Mse::new(), Sgd::new(0.1)).progress(Progress::Silent);
    run.fit(&data).unwrap_err();
    let explanation = run.explain("nowhere", &data).unwrap();
    let first = found(&explanation);
    assert_eq!((&first.path[..], &first.tensor), ("root", &Culprit::InputGradient(0)), "{explanation}");
    assert!(
        of(&first.inputs, "∂E/∂y").not_finite == 0 && of(&first.inputs, "x").zeros == 24,
        "{explanation}"
    );
}

/// g = 10²⁵: g² overflows in v, w does not move any more, and nothing else would tell.
#[test]
fn an_optimizer_whose_state_overflows_is_found() {
    let data = Dataset::regression(Tensor::full([8, 1], 1e25), Tensor::full([8, 1], 1.0)).unwrap();
    let model =
        Sequential::new().add(Linear::new(1, 1).bias(false).weight_init(Init::ZEROS)).init(1).unwrap();
    let mut run = Trainer::new(model, Mse::new(), Adam::new(1e-3)).epochs(3).progress(Progress::Silent);
    run.fit(&data).unwrap();
    assert!(run.explain("nowhere", &data).is_err(), "steps were taken");
    let model =
        Sequential::new().add(Linear::new(1, 1).bias(false).weight_init(Init::ZEROS)).init(1).unwrap();
    let mut run = Trainer::new(model, Mse::new(), Adam::new(1e-3)).epochs(3).progress(Progress::Silent);
    let explanation = run.explain("nowhere", &data).unwrap();
    let culprit = Culprit::OptimizerState { parameter: "weight".into(), name: "exp_avg_sq".into() };
    let first = found(&explanation);
    assert_eq!((first.step, &first.path[..], &first.tensor), (1, "0", &culprit), "{explanation}");
    assert!(of(&first.inputs, "gradient").rms() > 1e25, "{explanation}");
}

#[test]
fn a_sound_run_is_taken_again_with_its_bits() {
    let (data, folder) = (digits(), Folder::new("sound"));
    let mut run = trainer(&folder);
    run.fit(&data).unwrap();
    let mut again = trainer(&folder);
    let files: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    let explanation = again.explain(files.iter().min().unwrap(), &data).unwrap();
    assert_eq!(explanation.to_string(), "every value is finite in steps 30 to 87");
    let bits = |run: &Trainer<Sequential, CrossEntropy, AdamW>| {
        let mut bits = Vec::new();
        run.model().visit(&mut |_, p| bits.extend(p.value().unwrap().iter().map(|v| v.to_bits())));
        bits
    };
    assert!(bits(&run) == bits(&again));
}
