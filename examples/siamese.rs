//! One encoder used twice: do two handwritten digits show the same class? The graph owns the encoder once; both uses add to the
//! same gradients.
//!
//! `cargo run --release --example siamese [-- SEED]`

use chainrule::{prelude::*, train::BinaryAccuracy};

/// y = (a − b)², element by element: ∂y/∂a = 2 (a − b), ∂y/∂b = −2 (a − b).
#[derive(Clone)]
struct SquaredDifference;

impl Parameters for SquaredDifference {
    type T = f32;
    fn list<'a>(&'a self, _: &mut Params<'_, 'a, f32>) {}
    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, f32>) {}
}

impl Module for SquaredDifference {
    type State = ();
    fn inputs(&self) -> usize {
        2
    }
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        match inputs {
            [a, b] if a == b => Ok(vec![*a]),
            _ => Err(Error::shape(format!(
                "SquaredDifference: expected two inputs of one shape, got {inputs:?}"
            ))),
        }
    }
    fn apply(&self, xs: &[&Tensor], ys: &mut [Tensor], _: &mut (), _: Context) -> Result<()> {
        self.output_shapes(&[*xs[0].shape(), *xs[1].shape()])?;
        let pairs = xs[0].data().iter().zip(xs[1].data());
        ys[0].reset(*xs[0].shape()).iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = (a - b) * (a - b));
        Ok(())
    }
    fn pull(
        &self,
        call: ModuleCall<'_, f32>,
        _: &mut (),
        _: &mut Grads<f32>,
        dxs: &mut [Option<&mut Tensor>],
    ) -> Result<()> {
        let (a, b) = (call.xs[0].data(), call.xs[1].data());
        for (dx, sign) in dxs.iter_mut().zip([2.0, -2.0]) {
            let Some(dx) = dx else { continue };
            let dx = dx.reset(*call.xs[0].shape());
            match call.dys[0] {
                Some(dy) => (0..dx.len()).for_each(|i| dx[i] = sign * (a[i] - b[i]) * dy.data()[i]),
                None => dx.fill(0.0),
            }
        }
        Ok(())
    }
}

/// Pairs of digits and whether they are the same: every second pair is.
fn pairs(data: &Dataset, count: usize, rng: &mut Rng) -> Result<Dataset> {
    let labels = data.labels().unwrap_or_default();
    let (mut left, mut right, mut same) = (Vec::new(), Vec::new(), Vec::new());
    while left.len() < count {
        let (i, j) = (rng.below(data.len()), rng.below(data.len()));
        if (labels[i] == labels[j]) == (left.len() % 2 == 0) {
            left.push(i);
            right.push(j);
            same.push(if labels[i] == labels[j] { 1.0 } else { 0.0 });
        }
    }
    let images = |at: &[usize]| Ok::<_, Error>(data.select(at)?.x().clone());
    let same = Targets::Values(Tensor::from_vec([count, 1], same)?);
    Dataset::new([images(&left)?, images(&right)?], [same])
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let (train, test) = digits().flatten().split_stratified(0.2, seed)?;
    let mut rng = Rng::new(seed);
    let (train, test) = (pairs(&train, 24_000, &mut rng)?, pairs(&test, 2000, &mut rng)?);

    let mut graph = Graph::new();
    let (left, right) = (graph.input("left"), graph.input("right"));
    let encoder = Sequential::new().add(Linear::new(64, 64)).add(Relu::new()).add(Linear::new(64, 32));
    let a = graph.add("encoder", encoder, left);
    let b = graph.again("encoder", right);
    let distance = graph.add("distance", SquaredDifference, [a, b]);
    graph.add("head", Linear::new(32, 1), distance);
    let graph = graph.init(seed)?;
    println!("{graph}\n{} parameters, the encoder's once", graph.parameter_count());

    let mut trainer = Trainer::new(graph, BceWithLogits::new(), Adam::new(2e-3))
        .epochs(4)
        .batch_size(64)
        .seed(seed)
        .metric(BinaryAccuracy::new(0.0));
    trainer.fit(&train)?;
    let report = trainer.evaluate(&test)?;
    println!("pairs of unseen digits told apart: {:.3} of {}", report.accuracy().unwrap_or(0.0), test.len());
    Ok(())
}
