//! Threads share a model, and their number changes no bit.

mod common;

use chainrule::{prelude::*, tensor::par};
use common::{network, some_digits};
use std::thread;

/// Σ E and Σ ∂E/∂θ over a batch, of the inference function: there a sample does not depend on its neighbours.
fn gradients(model: &Sequential<f64>, x: &Tensor<f64>, labels: &[usize]) -> (f64, Grads<f64>) {
    let loss = CrossEntropy::new().reduction(Reduction::Sum);
    let mut pass = Pass::new(model);
    pass.forward(model, x, Context::frozen()).unwrap();
    let e = pass.loss(&loss, labels).unwrap();
    pass.backward(model, x).unwrap();
    (e, pass.grads().clone())
}

#[test]
fn four_threads_share_a_model_and_their_gradients_add_up() {
    let model = network::<f64>().init(3).unwrap();
    let (x, labels) = some_digits(0, 60);
    let (e, serial) = gradients(&model, &x, &labels);
    let shards: Vec<_> = thread::scope(|scope| {
        let (model, x, labels) = (&model, &x, &labels);
        let workers: Vec<_> = (0..4)
            .map(|i| (15 * i, 15 * (i + 1)))
            .map(|(from, to)| scope.spawn(move || gradients(model, &x.rows(from, to), &labels[from..to])))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let (mut sum, mut total) = (Grads::new(&model), 0.0);
    for (e, grads) in &shards {
        sum.add(grads).unwrap();
        total += e;
    }
    assert!((total - e).abs() < 1e-10 * e.abs(), "{total} {e}");
    let largest = serial.values().iter().fold(0.0f64, |m, g| m.max(g.abs()));
    assert!(largest > 1e-2);
    for (got, want) in sum.values().iter().zip(serial.values()) {
        assert!((got - want).abs() < 1e-11 * largest.max(1.0), "{got} {want}");
    }
}

#[test]
fn four_threads_that_infer_give_the_bits_of_one() {
    let model = network::<f32>().init(3).unwrap();
    let (x, _) = some_digits::<f32>(0, 40);
    let alone = model.infer(&x).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = Session::new(&model);
                for _ in 0..3 {
                    assert_eq!(session.run(&x).unwrap().data(), alone.data());
                }
            });
        }
    });
}

/// Every parameter and running statistic after two epochs, as bits.
fn trained(threads: usize) -> Vec<u32> {
    par::with_threads(threads, || {
        let data = digits::<f32>().select(&(0..200).collect::<Vec<_>>()).unwrap();
        let model = network().init(5).unwrap();
        let mut trainer = Trainer::new(model, CrossEntropy::new().label_smoothing(0.1), AdamW::new(3e-3))
            .epochs(2)
            .batch_size(64)
            .clip_norm(1.0)
            .seed(5)
            .progress(Progress::Silent);
        trainer.fit(&data).unwrap();
        let mut bits = Vec::new();
        trainer.model().visit(&mut |_, p| bits.extend(p.value().unwrap().iter().map(|v| v.to_bits())));
        bits
    })
}

#[test]
fn training_gives_the_same_bits_with_one_two_and_three_threads() {
    let one = trained(1);
    let start = network::<f32>().init(5).unwrap();
    assert!(one.len() > start.parameter_count());
    assert!(trained(2) == one && trained(3) == one);
}
