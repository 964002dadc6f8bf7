//! Memory-bound layers, losses and optimizers, as a share of a copy loop over as many bytes.

use crate::{optimizers, timing::median, workloads::normal};
use chainrule::{
    core::{Call, Grads, Target},
    optim::{Lion, RmsProp},
    prelude::*,
    tensor::kernels::layers::limits::copy_speed,
};
use std::{cell::Cell, time::Instant};

/// An image batch of 4 MB, and rows of 256.
const IMAGES: [usize; 4] = [16, 64, 32, 32];
const ROWS: [usize; 2] = [4096, 256];

/// Prints the table, for names that contain `filter`, whatever its case.
///
/// # Errors
/// No name contains the filter, or a layer does not fit: a mistake in this file.
pub fn print(filter: &str, seconds: f64) -> Result<()> {
    let table = Table { filter: filter.to_lowercase(), seconds, rows: Cell::new(0) };
    println!("{:24} {:>9} {:>8} {:>9} {:>7}", "", "µs", "GB/s", "copy GB/s", "share");
    // How many tensors of x's size backward reads besides ∂E/∂y.
    table.layer("relu", Relu::new(), &IMAGES, 1)?;
    table.layer("leaky_relu", LeakyRelu::new(), &IMAGES, 1)?;
    table.layer("sigmoid", Sigmoid::new(), &IMAGES, 1)?;
    table.layer("tanh", Tanh::new(), &IMAGES, 1)?;
    table.layer("gelu", Gelu::new(), &IMAGES, 1)?;
    table.layer("silu", Silu::new(), &IMAGES, 1)?;
    table.layer("dropout", Dropout::new(0.5), &IMAGES, 0)?;
    table.layer("max_pool2d", MaxPool2d::new(2), &IMAGES, 0)?;
    table.layer("avg_pool2d", AvgPool2d::new(2), &IMAGES, 0)?;
    table.layer("global_avg_pool2d", GlobalAvgPool2d::new(), &IMAGES, 0)?;
    table.layer("batch_norm2d", BatchNorm2d::new(64), &IMAGES, 1)?;
    table.layer("layer_norm", LayerNorm::new(256), &ROWS, 1)?;
    table.layer("softmax", Softmax::new(-1), &ROWS, 1)?;
    table.layer("log_softmax", LogSoftmax::new(-1), &ROWS, 1)?;
    let labels: Vec<usize> = (0..ROWS[0]).map(|i| (i * 7919 + 13) % ROWS[1]).collect();
    table.loss("cross_entropy", CrossEntropy::new(), Target::from(&labels), 2)?;
    let targets = normal(&ROWS)?;
    table.loss("mse", Mse::new(), Target::Values(&targets), 3)?;
    // In one tensor, and in 200.
    for tensors in [1, 200] {
        table.optimizer("sgd, momentum", Sgd::new(0.01).momentum(0.9), 5, tensors)?;
        table.optimizer("adam", Adam::new(1e-3), 7, tensors)?;
        table.optimizer("adamw", AdamW::new(1e-3), 7, tensors)?;
        table.optimizer("rmsprop", RmsProp::new(1e-2), 5, tensors)?;
        table.optimizer("lion", Lion::new(1e-4), 5, tensors)?;
    }
    match table.rows.get() {
        0 => Err(Error::value(format!("no row matches `{}`", table.filter))),
        _ => Ok(()),
    }
}

struct Table {
    filter: String,
    seconds: f64,
    /// Rows printed so far.
    rows: Cell<usize>,
}

impl Table {
    /// Times `run`, which moves `bytes`, in turn with a copy of as many.
    fn row(&self, name: &str, bytes: usize, mut run: impl FnMut() -> Result<()>) -> Result<()> {
        if !name.contains(&self.filter) {
            return Ok(());
        }
        self.rows.set(self.rows.get() + 1);
        // Half is read, half is written.
        let (from, mut to) = (vec![1.0f32; bytes / 8], vec![0.0f32; bytes / 8]);
        let (mut times, mut copies) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < self.seconds || times.len() < 10 {
            // Several times each, so that both find what fits in the caches there.
            for _ in 0..3 {
                run()?;
            }
            let t = Instant::now();
            run()?;
            times.push(t.elapsed().as_secs_f64());
            let speed = (0..4).map(|_| copy_speed(&from, &mut to)).last().unwrap_or_default();
            copies.push(speed);
        }
        let (time, copy) = (median(&mut times), median(&mut copies));
        let speed = bytes as f64 / time;
        let share = 100.0 * speed / copy;
        println!("{name:24} {:9.1} {:8.2} {:9.2} {share:6.0}%", time * 1e6, speed / 1e9, copy / 1e9);
        Ok(())
    }

    /// Forward reads x and writes y; backward reads ∂E/∂y and `reads` tensors of x's size, and writes ∂E/∂x.
    fn layer<L: Layer<T = f32>>(&self, name: &str, layer: L, shape: &[usize], reads: usize) -> Result<()> {
        let (layer, x) = (layer.init(1)?, normal(shape)?);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), L::Cache::default());
        let output = layer.output_shape(shape)?;
        let (dy, mut grads) = (normal(&output)?, Grads::new(&layer));
        self.row(&format!("{name}, forward"), 4 * (x.len() + dy.len()), || {
            layer.forward(&x, &mut y, &mut cache, Context::train(1))
        })?;
        layer.forward(&x, &mut y, &mut cache, Context::train(1))?;
        self.row(&format!("{name}, backward"), 4 * (dy.len() + (1 + reads) * x.len()), || {
            layer.backward(Call::recorded(&x, &y, &dy)?, &mut cache, &mut grads, Some(&mut dx))
        })
    }

    /// `streams` tensors of the prediction's size are read or written.
    fn loss(
        &self,
        name: &str,
        loss: impl Loss<T = f32>,
        target: Target<'_, f32>,
        streams: usize,
    ) -> Result<()> {
        let (y, mut dy) = (normal(&ROWS)?, Tensor::default());
        self.row(name, 4 * streams * y.len(), || loss.value_and_gradient(&y, target, &mut dy).map(drop))
    }

    /// `streams` tensors of the parameters' size are read or written.
    fn optimizer(
        &self,
        name: &str,
        mut optimizer: impl Optimizer<f32>,
        streams: usize,
        tensors: usize,
    ) -> Result<()> {
        let mut model = optimizers::model(tensors).init(1)?;
        let mut grads = Grads::new(&model);
        grads.values_mut().fill(0.5);
        let bytes = 4 * streams * grads.values().len();
        let name = if tensors == 1 { name.to_owned() } else { format!("{name}, {tensors} tensors") };
        self.row(&name, bytes, || optimizer.step(&mut model, &grads))
    }
}
