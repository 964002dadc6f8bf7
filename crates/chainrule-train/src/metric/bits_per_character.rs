//! Bits per character of a model of text.

use super::{Head, Metric, perplexity::Nats};
use chainrule_core::{Error, Result, Scalar, Target, Tensor};

/// Σ −log₂ p of the next tokens over the number of their characters, named `bits_per_character`. Without the lengths of the tokens each
/// is one character. With their lengths in bytes it is the bits per byte.
///
/// # Examples
/// ```
/// use chainrule_core::{Classes, Tensor};
/// use chainrule_train::{BitsPerCharacter, Metric};
/// let mut bits = BitsPerCharacter::new();
/// bits.add(&Tensor::<f32>::zeros([2, 3, 64]), Classes::new(&[7; 6], [2, 3])?.into())?;
/// assert!((Metric::<f32>::value(&bits) - 6.0).abs() < 1e-6);
/// assert_eq!(BitsPerCharacter::of_loss(std::f64::consts::LN_2), 1.0);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BitsPerCharacter {
    head: Head,
    nats: Nats,
    lengths: Option<Vec<usize>>,
}

impl Default for BitsPerCharacter {
    fn default() -> Self {
        Self::of(0)
    }
}

impl BitsPerCharacter {
    /// Of the first output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an output, against the target of the same index.
    pub fn of(output: usize) -> Self {
        Self { head: Head::new("bits_per_character", output), nats: Nats::default(), lengths: None }
    }

    /// Of a cross-entropy, the mean over characters.
    pub fn of_loss(loss: f64) -> f64 {
        loss / std::f64::consts::LN_2
    }

    /// How many characters each token has.
    #[must_use]
    pub fn lengths(self, lengths: impl Into<Vec<usize>>) -> Self {
        Self { lengths: Some(lengths.into()), ..self }
    }

    /// Whether the classes stand on the last axis, as in [`Accuracy::classes_last`](crate::Accuracy::classes_last).
    #[must_use]
    pub fn classes_last(mut self, last: bool) -> Self {
        self.nats.last = last;
        self
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for BitsPerCharacter {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        self.nats.reset();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        let Self { nats, lengths, .. } = self;
        nats.add("bits_per_character", y, target, |token| match &*lengths {
            None => Ok(1),
            Some(lengths) => lengths.get(token).copied().ok_or_else(|| {
                Error::index(format!(
                    "bits_per_character: expected tokens below {}, the number of lengths, got {token}",
                    lengths.len()
                ))
            }),
        })
    }

    fn sums(&self) -> Vec<f64> {
        self.nats.sums()
    }

    fn set_sums(&mut self, sums: &[f64]) {
        self.nats.set_sums(sums);
    }

    fn value(&self) -> f64 {
        Self::of_loss(self.nats.mean())
    }

    fn higher_is_better(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // −log₂ p = 1, 2, and 3 + 1 characters: 3 bits over 4.
        let y = Tensor::from([[0.0f64, 0.0], [3f64.ln(), 0.0]]);
        let mut bits = BitsPerCharacter::new().lengths([3, 1]);
        bits.add(&y, (&[0, 1]).into()).unwrap();
        assert!((Metric::<f64>::value(&bits) - 0.75).abs() < 1e-12);
        let mut bits = BitsPerCharacter::new();
        bits.add(&y, (&[0, 1]).into()).unwrap();
        assert!((Metric::<f64>::value(&bits) - 1.5).abs() < 1e-12);
        let text = BitsPerCharacter::new().lengths([3]).add(&y, (&[0, 1]).into()).unwrap_err().to_string();
        assert_eq!(text, "bits_per_character: expected tokens below 1, the number of lengths, got 1");
    }
}
