//! One encoder used twice: do two handwritten digits show the same class? The graph owns the encoder once; both uses add to the
//! same gradients.
//!
//! `cargo run --release --example siamese [-- SEED]`

use chainrule::prelude::*;

/// y = (a − b)², element by element: ∂y/∂a = 2 (a − b), ∂y/∂b = −2 (a − b).
#[derive(Clone)]
struct SquaredDifference;

impl<T: Scalar> MultiLayer<T> for SquaredDifference {
    type Cache = ();
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs {
            [a, b] if a == b => Shape::new(a),
            _ => Err(Error::shape(format!(
                "SquaredDifference: expected two inputs of one shape, got {inputs:?}"
            ))),
        }
    }
    fn forward(&self, xs: &[&Tensor<T>], y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        let (a, b) = (xs[0].data(), xs[1].data());
        let y = y.reset(*xs[0].shape());
        (0..y.len()).for_each(|i| y[i] = (a[i] - b[i]) * (a[i] - b[i]));
        Ok(())
    }
    fn backward(
        &self,
        call: MultiCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let (a, b, dy) = (call.xs[0].data(), call.xs[1].data(), call.dy.data());
        for (dx, sign) in dxs.iter_mut().zip([T::ONE, -T::ONE]) {
            if let Some(dx) = dx {
                let dx = dx.reset(*call.xs[0].shape());
                (0..dx.len()).for_each(|i| dx[i] = sign * (T::ONE + T::ONE) * (a[i] - b[i]) * dy[i]);
            }
        }
        Ok(())
    }
}

/// Two digits each and whether they are the same: every second pair is.
fn pairs(data: &Dataset, count: usize, rng: &mut Rng) -> Result<(Tensor, Tensor, Tensor)> {
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
    let images = |at: &[usize]| Ok::<_, Error>(data.select(at)?.into_parts().0);
    Ok((images(&left)?, images(&right)?, Tensor::from_vec([count, 1], same)?))
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let (train, test) = digits::<f32>().flatten().split_stratified(0.2, seed)?;
    let encoder: Sequential =
        Sequential::new().add(Linear::new(64, 64)).add(Relu::new()).add(Linear::new(64, 32));

    let mut graph: Graph = Graph::new();
    let (left, right) = (graph.input(), graph.input());
    let a = graph.add("encoder", encoder, left)?;
    let b = graph.again("encoder", &[right])?;
    let distance = graph.join("distance", SquaredDifference, &[a, b])?;
    graph.add("head", Linear::new(32, 1), distance)?;
    let mut graph = graph.init(seed)?;
    println!("{} parameters, the encoder's once", graph.parameter_count());

    let (loss, mut adam, mut grads) = (BceWithLogits::new(), Adam::new(2e-3), Grads::new(&graph));
    let (mut y, mut dy, mut cache) = Default::default();
    let mut rng = Rng::new(seed);
    let steps = 1500;
    let mut sum = 0.0;
    for step in 0..steps {
        let (a, b, same) = pairs(&train, 64, &mut rng)?;
        let xs = [&a, &b];
        MultiLayer::forward(&graph, &xs, &mut y, &mut cache, &mut Context::train(seed).step(step))?;
        sum += loss.gradient(&y, &same, &mut dy)?;
        grads.zero();
        let call = MultiCall { xs: &xs, y: &y, dy: &dy };
        MultiLayer::backward(&graph, call, &mut cache, &mut grads, &mut [None, None])?;
        adam.step(&mut graph, &grads)?;
        if step % 250 == 249 {
            println!("step {:4}  loss {:.4}", step + 1, sum / 250.0);
            sum = 0.0;
        }
    }

    let (a, b, same) = pairs(&test, 2000, &mut rng)?;
    MultiLayer::forward(&graph, &[&a, &b], &mut y, &mut cache, &mut Context::infer())?;
    let right = y.data().iter().zip(same.data()).filter(|(y, t)| (**y > 0.0) == (**t > 0.5)).count();
    println!("pairs of unseen digits told apart: {:.3} ({right} of 2000)", right as f64 / 2000.0);
    Ok(())
}
