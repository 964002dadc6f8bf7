//! Every kind of data, model and loss, through `fit`.

mod common;

use chainrule_core::{
    Call, Context, Error, Grads, Layer, Loss, Module, ModuleCall, Objective, Parameters, Params, ParamsMut,
    Result, Sequences, Shape, Target, Tensor,
};
use chainrule_data::{
    Batch, Bytes, Classes, Dataset, Features, Sample, Schema, Source, Stream, TargetSchema, Targets, digits,
};
use chainrule_layers::{Add, Conv2d, Flatten, Graph, Linear, Relu, Sequential, Tanh};
use chainrule_losses::{BceWithLogits, CrossEntropy, Mse, WeightedSum};
use chainrule_optim::Adam;
use chainrule_tensor::Rng;
use chainrule_train::{Accuracy, BinaryAccuracy, EarlyStopping, Metric, Progress, Scores, Trainer};
use common::{Sgd, iris, mlp, values};

/// The scores of the first and the last epoch, and those of an evaluation.
fn learned<M: Module, L: Objective<T = M::T>>(
    model: M,
    loss: L,
    rate: f64,
    epochs: usize,
    mut data: impl Source<M::T>,
) -> (Scores, Scores, Scores) {
    let mut trainer = Trainer::new(model, loss, Adam::new(rate)).epochs(epochs).progress(Progress::Silent);
    let history = trainer.fit(&mut data).unwrap();
    let report = trainer.evaluate(&mut data).unwrap();
    (history.epochs[0].train.clone(), history.last().unwrap().train.clone(), report.scores().clone())
}

#[test]
fn dense_labels() {
    // Which pixels are ink, told from a noisy image.
    let data = digits::<f32>().select(&(0..120).collect::<Vec<_>>()).unwrap();
    let labels: Vec<usize> = data.x().data().iter().map(|&v| usize::from(v > 0.4)).collect();
    let mut rng = Rng::new(1);
    let noisy = data.map_x(|x| {
        x.data_mut().iter_mut().for_each(|v| *v += 0.02 * rng.normal() as f32);
        Ok(())
    });
    let data = Dataset::segmentation(noisy.unwrap().x().clone(), labels, 2).unwrap();
    let model = Sequential::new()
        .add(Conv2d::new(1, 8, 3).padding(1))
        .add(Relu::new())
        .add(Conv2d::new(8, 2, 1))
        .init(1)
        .unwrap();
    let (first, last, report) = learned(model, CrossEntropy::new(), 0.02, 12, &data);
    assert!(last.loss < first.loss / 2.0 && report.accuracy().unwrap() > 0.9, "{report}");
}

/// Two heads on one body: the class of a digit and the count of its ink.
fn two_heads() -> Graph {
    let mut graph = Graph::new();
    let x = graph.input("image");
    let body =
        graph.add("body", Sequential::new().add(Flatten::new()).add(Linear::new(64, 32)).add(Relu::new()), x);
    let class = graph.add("class", Linear::new(32, 10), body);
    let ink = graph.add("ink", Linear::new(32, 1), body);
    graph.output("class", class);
    graph.output("ink", ink);
    graph.init(1).unwrap()
}

fn with_ink() -> Dataset {
    let data = digits::<f32>().select(&(0..400).collect::<Vec<_>>()).unwrap();
    let ink: Vec<f32> = data.x().data().chunks(64).map(|image| image.iter().sum::<f32>() / 10.0).collect();
    let targets = [data.targets()[0].clone(), Targets::Values(Tensor::from_vec([400, 1], ink).unwrap())];
    Dataset::new([data.x().clone()], targets).unwrap().with_classes(0, 10).unwrap()
}

#[test]
fn several_targets_with_a_weighted_sum() {
    let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(0.5, Mse::new());
    let (first, last, report) = learned(two_heads(), loss, 5e-3, 15, with_ink());
    assert!(last.loss < first.loss / 4.0, "{last}");
    assert!(report.accuracy().unwrap() > 0.9 && report.get("r2_1").unwrap() > 0.8, "{report}");
    let names: Vec<&str> = report.metrics.iter().map(|score| score.name.as_str()).collect();
    assert_eq!(names, ["accuracy", "mae_1", "r2_1"]);
}

#[test]
fn a_metric_reads_its_output_and_early_stopping_watches_it() {
    let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(0.5, Mse::new());
    let mut trainer = Trainer::new(two_heads(), loss, Adam::new(5e-3))
        .epochs(3)
        .metric(Accuracy::of(0).named("digit"))
        .early_stopping(EarlyStopping::new(5).monitor("digit"))
        .progress(Progress::Silent);
    let history = trainer.fit(with_ink()).unwrap();
    assert!(history.last().unwrap().train.get("digit").unwrap() > 0.3);
    assert_eq!(trainer.outputs().len(), 2);
    let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(0.5, Mse::new());
    let mut wrong =
        Trainer::new(two_heads(), loss, Adam::new(5e-3)).metric(Accuracy::of(2)).progress(Progress::Silent);
    let text = wrong.fit(with_ink()).unwrap_err().to_string();
    assert_eq!(text, "accuracy_2: expected output 2 and target 2, got 2 outputs and 2 targets");
}

#[test]
fn several_labels_at_once() {
    // Which of three features are above their mean.
    let data = iris::<f32>();
    let labels = Tensor::from_fn([150, 3], |i| f32::from(data.x().data()[i / 3 * 4 + i % 3] > 0.0));
    let data = Dataset::regression(data.x().clone(), labels).unwrap();
    let mut trainer = Trainer::new(mlp([4, 8, 3], 1), BceWithLogits::new(), Adam::new(0.02))
        .epochs(30)
        .metric(BinaryAccuracy::new(0.0))
        .progress(Progress::Silent);
    let history = trainer.fit(&data).unwrap();
    assert!(history.last().unwrap().train.accuracy().unwrap() > 0.95, "{history}");
}

/// Each output predicts how often its class occurs in the sample's sequence.
struct Counts;

impl Loss for Counts {
    type T = f32;
    fn output_shape(&self, y: &[usize], target: Target<'_, f32>) -> Result<Shape> {
        match y {
            [n, _] if *n == target.sequences()?.lengths().len() => Ok(Shape::default()),
            _ => Err(Error::shape("Counts: expected a row for each sequence")),
        }
    }
    fn forward(&self, y: &Tensor, target: Target<'_, f32>, loss: &mut Tensor) -> Result<()> {
        let differences = self.differences(y, target)?;
        loss.reset([])[0] = differences.iter().map(|d| d * d).sum::<f32>() / y.shape()[0] as f32;
        Ok(())
    }
    fn backward(
        &self,
        y: &Tensor,
        target: Target<'_, f32>,
        dloss: &Tensor,
        dy: Option<&mut Tensor>,
        _: Option<&mut Tensor>,
    ) -> Result<()> {
        let (differences, scale) =
            (self.differences(y, target)?, 2.0 * dloss.data()[0] / y.shape()[0] as f32);
        if let Some(dy) = dy {
            dy.reset(*y.shape()).iter_mut().zip(differences).for_each(|(dy, d)| *dy = scale * d);
        }
        Ok(())
    }
}

impl Counts {
    fn differences(&self, y: &Tensor, target: Target<'_, f32>) -> Result<Vec<f32>> {
        self.output_shape(y.shape(), target)?;
        let (mut d, classes) = (y.data().to_vec(), y.shape()[1]);
        for (row, sequence) in d.chunks_mut(classes).zip(target.sequences()?.iter()) {
            sequence.iter().for_each(|&c| row[c] -= 1.0);
        }
        Ok(d)
    }
}

#[test]
fn sequences_of_different_lengths() {
    // x: how many of each class; the target lists them.
    let mut rng = Rng::new(1);
    let counts: Vec<[usize; 3]> = (0..96).map(|_| std::array::from_fn(|_| rng.below(4))).collect();
    let x = Tensor::from_fn([96, 3], |i| counts[i / 3][i % 3] as f32);
    let lists: Vec<Vec<usize>> =
        counts.iter().map(|n| (0..3).flat_map(|c| std::iter::repeat_n(c, n[c])).collect()).collect();
    let lengths: Vec<usize> = lists.iter().map(Vec::len).collect();
    assert!(lengths.contains(&0) || lengths.iter().any(|n| *n != lengths[0]));
    let target = Targets::Sequences { indices: lists.concat(), lengths };
    let data = Dataset::new([x], [target]).unwrap().with_classes(0, 3).unwrap();
    let (first, last, report) = learned(Linear::new(3, 3).init(1).unwrap(), Counts, 0.03, 40, &data);
    assert!(last.loss < first.loss / 20.0, "{last}");
    assert!(report.loss < 0.1 && report.metrics.is_empty());
}

#[test]
fn a_graph_of_two_inputs() {
    let mut graph = Graph::new();
    let (a, b) = (graph.input("a"), graph.input("b"));
    let a = graph.add("encoder", Linear::new(4, 8), a);
    let b = graph.again("encoder", b);
    let sum = graph.add("sum", Add::new(), [a, b]);
    let hidden = graph.add("tanh", Tanh::new(), sum);
    let y = graph.add("head", Linear::new(8, 3), hidden);
    graph.output("y", y);
    // The sum of two halves is the flower.
    let data = iris::<f32>();
    let half = Tensor::from_fn([150, 4], |i| if i % 4 < 2 { data.x().data()[i] } else { 0.0 });
    let rest = Tensor::from_fn([150, 4], |i| data.x().data()[i] - half.data()[i]);
    let data = Dataset::new([half, rest], data.targets().to_vec()).unwrap().with_classes(0, 3).unwrap();
    let (first, last, report) = learned(graph.init(1).unwrap(), CrossEntropy::new(), 0.02, 25, &data);
    assert!(last.loss < first.loss / 3.0 && report.accuracy().unwrap() > 0.9, "{report}");
}

/// A struct of the user's: the mean of two layers, without a graph.
struct Pair {
    left: Linear,
    right: Linear,
}

impl Parameters for Pair {
    type T = f32;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
        Parameters::list(&self.left, &mut out.child("left"));
        Parameters::list(&self.right, &mut out.child("right"));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) {
        Parameters::list_mut(&mut self.left, &mut out.child("left"));
        Parameters::list_mut(&mut self.right, &mut out.child("right"));
    }
}

impl Module for Pair {
    type State = ();
    fn inputs(&self) -> usize {
        2
    }
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        Ok(vec![self.left.output_shape(&inputs[0])?])
    }
    fn apply(&self, xs: &[&Tensor], ys: &mut [Tensor], _: &mut (), cx: Context) -> Result<()> {
        let mut other = Tensor::default();
        self.left.forward(xs[0], &mut ys[0], &mut Default::default(), cx)?;
        self.right.forward(xs[1], &mut other, &mut Default::default(), cx)?;
        ys[0].data_mut().iter_mut().zip(other.data()).for_each(|(y, o)| *y += o);
        Ok(())
    }
    fn pull(
        &self,
        call: ModuleCall<'_, f32>,
        _: &mut (),
        grads: &mut Grads<f32>,
        _: &mut [Option<&mut Tensor>],
    ) -> Result<()> {
        let Some(dy) = call.dys[0] else { return Ok(()) };
        for (layer, x) in [(&self.left, call.xs[0]), (&self.right, call.xs[1])] {
            layer.backward(Call::recorded(x, &call.ys[0], dy)?, &mut Default::default(), grads, None)?;
        }
        Ok(())
    }
}

#[test]
fn a_module_of_the_users() {
    let model = Pair { left: Linear::new(2, 1), right: Linear::new(1, 1) }.init(1).unwrap();
    let (a, b) =
        (Tensor::from_fn([64, 2], |i| (i as f32).sin()), Tensor::from_fn([64, 1], |i| (i as f32).cos()));
    let y = Tensor::from_fn([64, 1], |i| a.data()[2 * i] - 2.0 * a.data()[2 * i + 1] + 3.0 * b.data()[i]);
    let data = Dataset::new([a, b], [Targets::Values(y)]).unwrap();
    let (_, last, report) = learned(model, Mse::new(), 0.1, 60, &data);
    assert!(last.loss < 0.01 && report.get("r2").unwrap() > 0.99, "{report}");
}

#[test]
fn a_stream() {
    let stream = |n: usize| {
        let schema = Schema::new([[2]], [TargetSchema::values([1])]);
        Stream::new(schema, move |epoch| {
            let mut rng = Rng::new(epoch);
            (0..n).map(move |_| {
                let (a, b) = (rng.normal() as f32, rng.normal() as f32);
                Ok(Sample::values(Tensor::from([a, b]), Tensor::from([a - 2.0 * b])))
            })
        })
    };
    let model = || Linear::new(2, 1).init(1).unwrap();
    let (_, last, report) = learned(model(), Mse::new(), 0.05, 12, stream(200));
    assert!(last.loss < 0.01 && report.get("r2").unwrap() > 0.99, "{report}");
    // Seven batches an epoch, two for each step.
    let mut trainer = Trainer::new(model(), Mse::new(), Adam::new(0.05))
        .accumulate(2)
        .epochs(3)
        .validation(stream(50))
        .progress(Progress::Silent);
    let history = trainer.fit(stream(200)).unwrap();
    assert_eq!((trainer.steps(), trainer.evaluate(stream(45)).unwrap().samples()), (12, 45));
    assert!(history.last().unwrap().validation.is_some());
    let text = trainer.fit(stream(0)).unwrap_err().to_string();
    assert_eq!(text, "trainer: expected a batch in each epoch, got none from the source");
    let broken = stream(200).map(|_: &mut Batch| Err(Error::value("the wire was cut")));
    assert_eq!(trainer.fit(broken).unwrap_err().to_string(), "the wire was cut");
}

#[test]
fn bytes_stay_bytes_while_a_model_trains() {
    let digits = digits::<f32>().flatten();
    let bytes: Vec<u8> = digits.x().data().iter().map(|v| (v * 16.0) as u8).collect();
    let bytes = Bytes::new([1797, 64], bytes, |v| f32::from(v) / 16.0).unwrap();
    let small = Dataset::classification(bytes, digits.labels().unwrap(), 10).unwrap();
    let mut weights = Vec::new();
    for data in [&small, &digits] {
        let mut trainer = Trainer::new(mlp([64, 16, 10], 1), CrossEntropy::new(), Sgd(0.1))
            .epochs(2)
            .progress(Progress::Silent);
        trainer.fit(data).unwrap();
        trainer.evaluate(data).unwrap();
        weights.push(values(trainer.model()));
    }
    assert_eq!(weights[0], weights[1]);
    assert_eq!(small.inputs()[0].memory(), 1797 * 64);
    assert_eq!(digits.inputs()[0].memory(), 4 * 1797 * 64);
    assert!(matches!(small.inputs()[0], Features::Bytes(_)));
}

#[test]
fn augmented_data_are_the_same_for_one_seed() {
    let data = iris::<f32>();
    let run = |seed| {
        let noisy = (&data).augment(seed, |batch, sample, rng| {
            batch.sample_mut(0, sample).iter_mut().for_each(|v| *v += 0.1 * rng.normal() as f32);
            Ok(())
        });
        let mut trainer = Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), Sgd(0.1))
            .epochs(2)
            .progress(Progress::Silent);
        trainer.fit(noisy).unwrap();
        values(trainer.model())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Flowers of which some have no label: by a class of its own, or by an existing one.
fn partly_labelled(ignored: usize) -> (Dataset<f64>, usize) {
    let data = iris::<f64>();
    let labels: Vec<usize> = data
        .labels()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, &c)| if i % 3 == 0 || (64..128).contains(&i) { ignored } else { c })
        .collect();
    let counted = labels.iter().filter(|&&c| c != ignored).count();
    (Dataset::classification(data.x().clone(), labels, 3).unwrap(), counted)
}

#[test]
fn ignored_targets_count_nowhere() {
    for ignored in [Classes::IGNORED, 0] {
        let (data, counted) = partly_labelled(ignored);
        // Not shuffled, two batches of 32 have no target at all, and three if the flowers of the first class have none.
        let mut trainer =
            Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new().ignore_index(ignored), Sgd(0.1))
                .shuffle(false)
                .epochs(20)
                .validation(data.clone())
                .progress(Progress::Silent);
        let history = trainer.fit(&data).unwrap();
        assert_eq!(trainer.steps(), if ignored == 0 { 40 } else { 60 });
        let last = history.last().unwrap();
        let report = trainer.evaluate(&data).unwrap();
        assert_eq!(report.confusion().unwrap().total(), counted);
        assert_eq!((report.accuracy(), last.validation.as_ref().unwrap().accuracy()), {
            let accuracy = report.scores().accuracy();
            (accuracy, accuracy)
        });
        assert_eq!(report.predictions().len(), 150);
        assert_eq!(report.mistakes().count(), counted - report.confusion().unwrap().right());
        assert!(report.mistakes().all(|(_, truth, _)| truth != ignored));
        assert!(last.train.loss.is_finite());
        // Nothing but ignored targets: no step, no score, no error.
        let none = Dataset::classification(data.x().clone(), vec![ignored; 150], 3).unwrap();
        let before = values(trainer.model());
        let history = trainer.fit(&none).unwrap();
        assert_eq!((values(trainer.model()), history.last().unwrap().train.loss.is_nan()), (before, true));
        assert_eq!(trainer.step(none.x(), none.labels().unwrap()).unwrap(), 0.0);
    }
}

/// How many labels count.
#[derive(Default)]
struct Counted(usize);

impl Metric<f64> for Counted {
    fn name(&self) -> &str {
        "counted"
    }
    fn reset(&mut self) {
        self.0 = 0;
    }
    fn add(&mut self, _: &Tensor<f64>, target: Target<'_, f64>) -> Result<()> {
        self.0 += target.classes()?.iter().filter(|&&c| c != Classes::IGNORED).count();
        Ok(())
    }
    fn value(&self) -> f64 {
        self.0 as f64
    }
}

#[test]
fn a_metric_of_the_users_sees_which_targets_are_ignored() {
    for ignored in [Classes::IGNORED, 0] {
        let (data, counted) = partly_labelled(ignored);
        let mut trainer =
            Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new().ignore_index(ignored), Sgd(0.1))
                .epochs(1)
                .validation(data.clone())
                .metric(Counted::default())
                .metric(Accuracy::new())
                .progress(Progress::Silent);
        let history = trainer.fit(&data).unwrap();
        let last = history.last().unwrap();
        for scores in
            [&last.train, last.validation.as_ref().unwrap(), trainer.evaluate(&data).unwrap().scores()]
        {
            assert_eq!(scores.get("counted"), Some(counted as f64));
        }
    }
}

#[test]
fn a_loss_with_class_weights_does_not_depend_on_the_batch_size() {
    let (data, _) = partly_labelled(Classes::IGNORED);
    let loss = || CrossEntropy::new().weights([1.0, 20.0, 0.3]).ignore_index(Classes::IGNORED);
    let trainer = |batch_size| {
        Trainer::new(mlp([4, 8, 3], 1), loss(), Sgd(0.1)).batch_size(batch_size).progress(Progress::Silent)
    };
    let whole = trainer(150).evaluate(&data).unwrap().loss();
    for size in [1, 7, 40, 149] {
        assert!((trainer(size).evaluate(&data).unwrap().loss() - whole).abs() < 1e-12);
    }
    // Nor does a step of several batches depend on how they are cut.
    let step = |batch_size, accumulate| {
        let mut trainer = trainer(batch_size).accumulate(accumulate).epochs(2).shuffle(false);
        let history = trainer.fit(&data).unwrap();
        (values(trainer.model()), history.last().unwrap().train.loss)
    };
    let (weights, loss) = step(150, 1);
    for (batch_size, accumulate) in [(50, 3), (10, 15), (7, 22)] {
        let (other, other_loss) = step(batch_size, accumulate);
        let worst = weights.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-12 && (loss - other_loss).abs() < 1e-12, "{worst}");
    }
}

#[test]
fn an_optimizer_may_be_boxed() {
    let optimizer: Box<dyn chainrule_core::Optimizer<f32>> = Box::new(Adam::new(0.01));
    let mut trainer =
        Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), optimizer).epochs(1).progress(Progress::Silent);
    trainer.fit(&iris()).unwrap();
}

/// Sequences convert into a target by themselves.
#[test]
fn a_step_takes_sequences() {
    let mut trainer = Trainer::new(Linear::new(3, 3).init(1).unwrap(), Counts, Sgd(0.1));
    let sequences = Sequences::new(&[0, 2, 2], &[2, 0, 1]).unwrap();
    let x = Tensor::zeros([3, 3]);
    let first = trainer.step(&x, sequences).unwrap();
    assert!(trainer.step(&x, sequences).unwrap() < first);
}
