//! One step of a small XOR network with every number: what forward, the loss, backward and the update compute.
//!
//! `cargo run --release --example teach`; docs/teaching.md derives the same numbers by hand.

use chainrule::{prelude::*, teach::Lesson};
use std::f32::consts::LN_2;

fn main() -> Result<()> {
    let model = Sequential::new().add(Linear::new(2, 2)).add(Tanh::new()).add(Linear::new(2, 1));
    let mut model = model.init(1)?;
    // Weights that are easy on paper: tanh(ln 2) = 0.6.
    let values = [&[LN_2, 0.5, -LN_2, 0.25][..], &[0.0, 0.0], &[1.0, -0.5], &[-0.4]];
    let mut next = values.iter();
    model.try_visit_mut(&mut |_, p| {
        next.next().map_or(Ok(()), |values| p.set(Tensor::from_vec(*p.shape(), values.to_vec())?))
    })?;

    // 1 xor 0 = 1
    let (x, t) = (Tensor::from([[1.0, 0.0]]), Tensor::from([[1.0]]));
    let (loss, mut sgd) = (Mse::new(), Sgd::new(0.1));
    print!("{}", Lesson::new().step(&mut model, &loss, &mut sgd, &x, &t, Context::train(1))?);
    Ok(())
}
