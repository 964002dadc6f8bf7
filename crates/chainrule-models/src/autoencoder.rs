//! A convolutional autoencoder.

use chainrule_core::{BoxModule, Error, Result, Scalar};
use chainrule_layers::{
    Conv2d, ConvTranspose2d, Flatten, Graph, Linear, Relu, Sequential, Sigmoid, Unflatten,
};

/// Two convolutions at stride 2 and a linear layer make a code; a linear layer and two transposed convolutions make the image again.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::AutoEncoder;
/// let model = AutoEncoder::new(1, [8, 8], 4).build()?.init(1)?;
/// let outputs = model.infer_all(&Tensor::<f32>::zeros([2, 1, 8, 8]))?;
/// assert_eq!((&outputs[0].shape()[..], &outputs[1].shape()[..]), (&[2, 1, 8, 8][..], &[2, 4][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AutoEncoder<T: Scalar = f32> {
    /// Channels of the image.
    pub channels: usize,
    /// Its height and width, multiples of 4.
    pub size: [usize; 2],
    /// Filters of the two convolutions.
    pub width: [usize; 2],
    /// Elements of the code.
    pub code: usize,
    /// The kernel of the transposed convolutions: 3, or an even one.
    pub up_kernel: usize,
    /// The activation.
    pub activation: BoxModule<T>,
}

impl AutoEncoder {
    /// 16 and 32 filters, ReLU.
    #[must_use]
    pub fn new(channels: usize, size: [usize; 2], code: usize) -> Self {
        Self::of(channels, size, code)
    }
}

impl<T: Scalar> AutoEncoder<T> {
    /// [`AutoEncoder::new`] for any element type.
    #[must_use]
    pub fn of(channels: usize, size: [usize; 2], code: usize) -> Self {
        Self { channels, size, width: [16, 32], code, up_kernel: 3, activation: BoxModule::new(Relu::new()) }
    }

    /// x (N, channels, H, W) → `reconstruction`, of the same shape and in (0, 1), and `code` (N, code).
    ///
    /// # Errors
    /// A size that is not a multiple of 4.
    pub fn build(&self) -> Result<Graph<T>> {
        let &Self { channels, size, width: [c1, c2], code, up_kernel: k, .. } = self;
        if size.iter().any(|n| n % 4 != 0) {
            return Err(Error::value(format!(
                "AutoEncoder: expected a size of multiples of 4, got {size:?}"
            )));
        }
        let ([h, w], act) = (size.map(|n| n / 4), || self.activation.clone());
        let flat = c2.saturating_mul(h).saturating_mul(w);
        let down = |inputs, filters| Conv2d::new(inputs, filters, 3).stride(2).padding(1);
        let up = |inputs, filters| {
            let up = ConvTranspose2d::new(inputs, filters, k).stride(2);
            if k == 3 { up.padding(1).output_padding(1) } else { up.padding(k.saturating_sub(2) / 2) }
        };
        let encoder = Sequential::of()
            .add(down(channels, c1))
            .add(act())
            .add(down(c1, c2))
            .add(act())
            .add(Flatten::new())
            .add(Linear::new(flat, code));
        let decoder = Sequential::of()
            .add(Linear::new(code, flat))
            .add(act())
            .add(Unflatten::new(1, [c2, h, w]))
            .add(up(c2, c1))
            .add(act())
            .add(up(c1, channels))
            .add(Sigmoid::new());
        let mut graph = Graph::of();
        let x = graph.input("x");
        let z = graph.add("encoder", encoder, x);
        let y = graph.add("decoder", decoder, z);
        graph.output("reconstruction", y);
        graph.output("code", z);
        Ok(graph)
    }
}
