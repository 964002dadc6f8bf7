//! Every loss, forward with gradient, over 2²⁰ elements and over 4096 rows of 1000.

use crate::workloads::Run;
use chainrule::{
    core::{Classes, Objective, Target, Targets},
    prelude::*,
};

/// Values that are drawn; they repeat from there on.
const DRAWN: usize = 1 << 16;

/// `loss_kind_1m` or `loss_kind_4096x1000`; `None` for another name.
///
/// # Errors
/// A loss does not fit: a mistake in this file.
pub fn build(name: &str) -> Result<Option<Run>> {
    let Some((kind, shape)) = sized(name) else { return Ok(None) };
    let [n, c] = shape;
    let normal = |seed| values(&shape, seed, |rng| rng.normal() as f32);
    let within = |seed, low: f64, high: f64| {
        values(&shape, seed, move |rng| (low + (high - low) * rng.uniform()) as f32)
    };
    let either = |shape: &[usize], low: f32, high: f32| {
        values(shape, 3, move |rng| if rng.below(2) == 0 { low } else { high }).map(Targets::Values)
    };
    let signs = || either(&shape, -1.0, 1.0);
    let classes = || Targets::classes((0..n).map(|i| (i * 7919 + 13) % c).collect::<Vec<_>>());
    // Of elements and targets of their shape.
    let y = || normal(1);
    let t = || normal(2).map(Targets::Values);
    let share = || within(2, 0.0, 1.0).map(Targets::Values);
    Ok(Some(match kind {
        "mse" => objective(Mse::new(), [y()?], [t()?]),
        "mae" => objective(Mae::new(), [y()?], [t()?]),
        "huber" => objective(Huber::new(), [y()?], [t()?]),
        "smooth_l1" => objective(SmoothL1::new(), [y()?], [t()?]),
        "log_cosh" => objective(LogCosh::new(), [y()?], [t()?]),
        "quantile" => objective(Quantile::new(), [y()?], [t()?]),
        "msle" => objective(Msle::new(), [within(1, 0.0, 10.0)?], [Targets::Values(within(2, 0.0, 10.0)?)]),
        "mape" => objective(Mape::new(), [y()?], [t()?]),
        "bce" => objective(Bce::new(), [within(1, 0.01, 0.99)?], [share()?]),
        "bce_with_logits" => objective(BceWithLogits::new(), [y()?], [share()?]),
        "binary_focal" => objective(BinaryFocal::new(), [y()?], [either(&shape, 0.0, 1.0)?]),
        "poisson_nll" => objective(PoissonNll::new(), [y()?], [Targets::Values(within(2, 0.0, 5.0)?)]),
        "gaussian_nll" => objective(GaussianNll::new(), [y()?, within(3, 0.1, 2.0)?], [t()?]),
        "soft_margin" => objective(SoftMargin::new(), [y()?], [signs()?]),
        "hinge" => objective(Hinge::new(), [y()?], [signs()?]),
        "squared_hinge" => objective(SquaredHinge::new(), [y()?], [signs()?]),
        "hinge_embedding" => objective(HingeEmbedding::new(), [y()?], [signs()?]),
        "margin_ranking" => objective(MarginRanking::new(), [y()?, normal(4)?], [signs()?]),
        "activity_penalty" => objective(ActivityPenalty::new().l1(1.0).l2(1.0), [y()?], []),
        "kl_div" => objective(KlDiv::new(), [within(1, -9.0, -0.1)?], [share()?]),
        "dice" => objective(Dice::new(), [within(1, 0.0, 1.0)?], [share()?]),
        "tversky" => objective(Tversky::new(), [within(1, 0.0, 1.0)?], [share()?]),
        "ce" => objective(CrossEntropy::new(), [y()?], [classes()]),
        "ce_smoothed" => objective(CrossEntropy::new().label_smoothing(0.1), [y()?], [classes()]),
        "ce_probabilities" => objective(CrossEntropy::new(), [y()?], [share()?]),
        "nll" => objective(Nll::new(), [within(1, -9.0, -0.1)?], [classes()]),
        "focal" => objective(Focal::new(), [y()?], [classes()]),
        "multi_margin" => objective(MultiMargin::new(), [y()?], [classes()]),
        "multi_label_margin" => {
            // Three classes of each row.
            let class = |i: usize| match i % c {
                place @ 0..3 => (i / c * 7919 + place * 101) % c,
                _ => Classes::IGNORED,
            };
            let indices = (0..n * c).map(class).collect();
            objective(
                MultiLabelMargin::new(),
                [y()?],
                [Targets::Classes { indices, shape: Shape::new(&shape)? }],
            )
        }
        "multi_label_soft_margin" => {
            objective(MultiLabelSoftMargin::new(), [y()?], [either(&shape, 0.0, 1.0)?])
        }
        "cosine_embedding" => {
            objective(CosineEmbedding::new(), [y()?, normal(4)?], [either(&[n], -1.0, 1.0)?])
        }
        "triplet_margin" => objective(TripletMargin::new(), [y()?, normal(4)?, normal(5)?], []),
        "contrastive" => objective(Contrastive::new(), [y()?, normal(4)?], [either(&[n], 0.0, 1.0)?]),
        "info_nce" => objective(InfoNce::new(), [y()?, normal(4)?], []),
        "ctc" => {
            // 64 frames of each sample, and 20 classes to be found in them.
            let samples = n / 64;
            let logits = values(&[64, samples, c], 1, |rng| rng.normal() as f32)?;
            let indices = (0..samples * 20).map(|i| 1 + (i * 7919) % (c - 1)).collect();
            objective(Ctc::new(), [logits], [Targets::Sequences { indices, lengths: vec![20; samples] }])
        }
        _ => return Ok(None),
    }))
}

/// The kind of a name, and the shape of its size.
fn sized(name: &str) -> Option<(&str, [usize; 2])> {
    let name = name.strip_prefix("loss_")?;
    let (kind, size) = name.rsplit_once('_')?;
    match size {
        "1m" => Some((kind, [1024, 1024])),
        "4096x1000" => Some((kind, [4096, 1000])),
        _ => None,
    }
}

/// Values of a shape.
fn values(shape: &[usize], seed: u64, mut draw: impl FnMut(&mut Rng) -> f32) -> Result<Tensor> {
    let (mut rng, count) = (Rng::new(seed), shape.iter().product());
    let drawn: Vec<f32> = (0..DRAWN.min(count)).map(|_| draw(&mut rng)).collect();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.extend_from_slice(&drawn[..drawn.len().min(count - all.len())]);
    }
    Tensor::from_vec(Shape::new(shape)?, all)
}

/// The loss and the gradients of all predictions.
fn objective<const P: usize, const N: usize>(
    loss: impl Objective<T = f32> + 'static,
    ys: [Tensor; P],
    targets: [Targets<f32>; N],
) -> Run {
    let mut dys = ys.each_ref().map(|_| Tensor::default());
    Box::new(move || {
        let targets = targets.each_ref().map(Target::from);
        loss.value_and_gradients(&ys.each_ref(), &targets, &mut dys).expect("a workload fits together");
    })
}
