//! What `Dice` and `Tversky` share: the index of Tversky of each region.
//!
//! ```text
//! A = Σ y t    B = Σ y    C = Σ t    D = (1 − α − β) A + α B + β C + s        e = 1 − (A + s)/D
//! ∂e/∂yᵢ = ((A + s)/D ((1 − α − β) tᵢ + α) − tᵢ)/D
//! ```

use crate::{elementwise::values, rowwise::Outputs};
use chainrule_core::{Error, Result, Scalar, Shape, Target};
use chainrule_tensor::{
    compiled,
    kernels::reduce::{dot, sum},
};

/// Weights of what is predicted and not there (α), and of what is there and not predicted (β); what is added above and below.
#[derive(Clone, Copy)]
pub struct Overlap {
    pub kind: &'static str,
    pub alpha: f64,
    pub beta: f64,
    pub smooth: f64,
}

impl Overlap {
    /// (N, C) of (N, C, d₁, …), (N) of (N, D), none of (D).
    pub fn regions<T: Scalar>(self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        values(self.kind, y, target)?;
        match y {
            [] => Err(Error::shape(format!(
                "{}: expected a prediction (N, C, ..), (N, D) or (D), got []",
                self.kind
            ))),
            [_] => Ok(Shape::default()),
            [n, _] => Ok(Shape::from([*n])),
            [n, c, ..] => Ok(Shape::from([*n, *c])),
        }
    }
}

compiled! {
    pub fn pass[T](of: Overlap, regions: usize, y: &[T], t: &[T], out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, mut dt } = out;
        let n = y.len() / regions.max(1);
        let both = 1.0 - of.alpha - of.beta;
        for region in 0..regions {
            let at = region * n..(region + 1) * n;
            let (y, t) = (&y[at.clone()], &t[at.clone()]);
            let common = dot(y, t);
            let whole = both * common + of.alpha * sum(y) + of.beta * sum(t) + of.smooth;
            // Nothing there and nothing predicted, without smoothing: no error.
            let empty = whole == 0.0;
            let index = if empty { 1.0 } else { (common + of.smooth) / whole };
            if let Some(loss) = &mut loss {
                loss(region, 1.0 - index);
            }
            let scale = if empty { T::ZERO } else { T::from_f64(1.0 / whole) * g(region) };
            // dyᵢ = (index ((1 − α − β) tᵢ + α) − tᵢ)/D
            let slopes = |d: &mut [T], other: &[T], own: f64| {
                let (factor, constant) = (T::from_f64(index * both - 1.0), T::from_f64(index * own));
                d.iter_mut().zip(other).for_each(|(d, &v)| *d = scale * (factor * v + constant));
            };
            if let Some(dy) = &mut dy {
                slopes(&mut dy[at.clone()], t, of.alpha);
            }
            if let Some(dt) = &mut dt {
                slopes(&mut dt[at], y, of.beta);
            }
        }
    }
}
