//! A program that knows no network: it reads one, architecture and weights, from the file that `digits` wrote, and runs it.
//!
//! `cargo run --release --example predict [-- MODEL]`, `target/digits/model.safetensors` by default

use chainrule::{io, prelude::*, registry};

fn main() -> Result<()> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "target/digits/model.safetensors".into());
    let model = io::load_model(&registry::<f32>(), file)?;
    println!("{model}\n\n{}\n", model.summary([1, 1, 8, 8])?);

    let data = digits();
    let y = Session::new(&model).run(data.x())?.clone();
    let labels = data.labels().unwrap_or_default();
    let right = y.argmax_rows().iter().zip(labels).filter(|(a, b)| a == b).count();
    println!("{right} of {} digits are classified right", data.len());
    println!("fingerprint of the outputs: {:016x}", fingerprint(&y));
    Ok(())
}

/// A hash of the bits of a tensor (FNV-1a); `digits` prints that of the model it wrote.
fn fingerprint(y: &Tensor) -> u64 {
    let bytes = y.data().iter().flat_map(|v| v.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
