//! What these tests share.

mod network;

pub use network::network;

use chainrule::prelude::*;

/// Digits `from` to `to`.
pub fn some_digits<T: Scalar>(from: usize, to: usize) -> (Tensor<T>, Vec<usize>) {
    let data = digits::<T>();
    (data.x().rows(from, to), data.labels().unwrap()[from..to].to_vec())
}
