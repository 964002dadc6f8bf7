//! The classic: a 2-3-1 tanh network learns XOR by plain gradient descent, one sample a step.
//!
//! `cargo run --release --example xor [-- SEED ..]`, seeds 1 to 5 by default

use chainrule::prelude::*;

fn main() -> Result<()> {
    let seeds: Vec<u64> = std::env::args().skip(1).filter_map(|seed| seed.parse().ok()).collect();
    for seed in if seeds.is_empty() { (1..=5).collect() } else { seeds } {
        println!("seed {seed}");
        learn(seed)?;
    }
    Ok(())
}

fn learn(seed: u64) -> Result<()> {
    let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);

    // Glorot's start is made for tanh; from others, now and then a network this small stays where it began.
    let linear = |inputs, outputs| Linear::new(inputs, outputs).weight_init(Init::xavier_uniform());
    let mut model =
        Sequential::new().add(linear(2, 3)).add(Tanh::new()).add(linear(3, 1)).add(Tanh::new()).init(seed)?;
    let (loss, mut sgd, mut pass) = (Mse::new(), Sgd::new(0.1), Pass::new(&model));

    for epoch in 0..1000 {
        let mut sum = 0.0;
        for i in 0..4 {
            let (x, t) = (x.rows(i, i + 1), t.rows(i, i + 1));
            pass.forward(&model, &x, Context::train(seed).step(4 * epoch + i as u64))?;
            sum += pass.loss(&loss, &t)?;
            pass.backward(&model, &x)?;
            pass.update(&mut model, &mut sgd)?;
        }
        if epoch % 250 == 249 {
            println!("  epoch {:4}  loss {:.5}", epoch + 1, sum / 4.0);
        }
    }

    let y = model.infer(&x)?;
    for ((x, y), t) in x.data().chunks(2).zip(y.data()).zip(t.data()) {
        let verdict = if (*y > 0.5) == (*t > 0.5) { "right" } else { "WRONG" };
        println!("  {} xor {} = {y:+.3}  {verdict}", x[0], x[1]);
    }
    Ok(())
}
