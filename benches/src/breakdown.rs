//! Where the time of a training step goes, by layer and direction.

use crate::{networks, timing::median, workloads::normal};
use chainrule::{
    core::{AnyState, Call, Grads},
    prelude::*,
};
use std::time::Instant;

/// Prints the breakdown of W2, W3 and W4, or of those whose name contains `filter`.
///
/// # Errors
/// A layer does not fit: a mistake in the networks.
pub fn print(filter: &str, seconds: f64) -> Result<()> {
    let networks = [
        ("w2_mlp_b128", networks::mlp(&[784, 128, 64, 10]), vec![128, 784]),
        ("w3_lenet_b64", networks::lenet(), vec![64, 1, 28, 28]),
        ("w4_cnn32_b32", networks::cnn32(), vec![32, 3, 32, 32]),
    ];
    let filter = filter.to_lowercase();
    if !networks.iter().any(|(name, ..)| name.contains(&filter)) {
        return Err(Error::value(format!("no network matches `{filter}`: a breakdown is of W2, W3 or W4")));
    }
    for (name, model, input) in networks {
        if name.contains(&filter) {
            println!("{name}");
            table(&model.init(1)?, &input, seconds)?;
        }
    }
    Ok(())
}

/// What one layer of a step costs.
#[derive(Default)]
struct Row {
    forward: Vec<f64>,
    backward: Vec<f64>,
}

fn table(model: &Sequential, input: &[usize], seconds: f64) -> Result<()> {
    let layers: Vec<_> = model.children().collect();
    let n = layers.len();
    let summary = model.summary(input)?;
    let mut xs = vec![normal(input)?];
    xs.resize_with(n + 1, Tensor::default);
    let mut caches: Vec<AnyState> = (0..n).map(|_| AnyState::default()).collect();
    // As `Sequential` does it: an activation overwrites an output that is not read again.
    let in_place = |i: usize| layers[i].1.as_in_place().filter(|_| i > 0 && !layers[i - 1].1.reads_outputs());
    let (mut dy, mut dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(model));
    let mut rows: Vec<Row> = (0..n).map(|_| Row::default()).collect();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds.max(0.1) || rows[0].forward.len() < 5 {
        grads.zero();
        for (i, (_, layer)) in layers.iter().enumerate() {
            let (x, y) = xs.split_at_mut(i + 1);
            let overwrites = in_place(i).inspect(|_| std::mem::swap(&mut x[i], &mut y[0]));
            let t = Instant::now();
            match overwrites {
                Some(layer) => layer.forward_in_place(&mut y[0])?,
                None => layer.apply_one(&x[i], &mut y[0], &mut caches[i], Context::train(1).child(i))?,
            }
            rows[i].forward.push(t.elapsed().as_secs_f64());
        }
        dy.reset(*xs[n].shape()).fill(1.0);
        for (i, (_, layer)) in layers.iter().enumerate().rev() {
            let t = Instant::now();
            if let Some(layer) = in_place(i) {
                layer.backward_in_place(&xs[i + 1], &mut dy);
                rows[i].backward.push(t.elapsed().as_secs_f64());
                xs.swap(i, i + 1);
                continue;
            }
            let call = Call::recorded(&xs[i], &xs[i + 1], &dy)?;
            layer.pull_one(call, &mut caches[i], &mut grads, (i > 0).then_some(&mut dx))?;
            rows[i].backward.push(t.elapsed().as_secs_f64());
            std::mem::swap(&mut dy, &mut dx);
        }
    }
    println!(
        "{:5} {:18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "layer", "type", "fwd µs", "GFLOP/s", "GB/s", "bwd µs", "GFLOP/s", "GB/s"
    );
    let (mut forward, mut backward) = (0.0, 0.0);
    for (i, (row, info)) in rows.iter_mut().zip(summary.rows()).enumerate() {
        let (f, b) = (median(&mut row.forward), median(&mut row.backward));
        let flops = 2.0 * info.multiply_adds as f64;
        // Forward reads x and writes y; backward reads x and dy and writes dx, and computes ∂W and ∂X.
        let before = if i == 0 { xs[0].len() } else { summary.rows()[i - 1].output.volume() };
        let (read, written) = (4.0 * before as f64, 4.0 * info.output.volume() as f64);
        let products = if i == 0 { 1.0 } else { 2.0 };
        println!(
            "{:5} {:18} {:9.1} {:9.1} {:9.2} {:9.1} {:9.1} {:9.2}",
            info.path,
            info.kind,
            f * 1e6,
            flops / f / 1e9,
            (read + written) / f / 1e9,
            b * 1e6,
            products * flops / b / 1e9,
            (2.0 * read + written) / b / 1e9
        );
        (forward, backward) = (forward + f, backward + b);
    }
    println!("{:24} {:9.1} {:19} {:9.1}\n", "sum", forward * 1e6, "", backward * 1e6);
    Ok(())
}
