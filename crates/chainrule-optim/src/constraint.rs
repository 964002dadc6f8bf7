//! What holds for weights after each step.

use crate::clip::unit;
use chainrule_core::{Error, Parameters, Result, Scalar};
use chainrule_tensor::{
    compiled,
    kernels::{elementwise::scale, layers::optim::sum_of_squares},
};

/// A set that weights are projected onto: the nearest point of it in the Euclidean distance.
///
/// Norms are those of a unit: a row of a matrix or a filter of a convolution; a vector is one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Constraint {
    /// w ≥ 0.
    NonNegative,
    /// ‖w‖ ≤ the limit (Srebro and Shraibman, 2005; with dropout: Hinton and others, 2012).
    MaxNorm(f64),
    /// ‖w‖ = 1. A unit of zeros stays as it is.
    UnitNorm,
    /// least ≤ ‖w‖ ≤ most. A unit of zeros stays as it is.
    NormWithin {
        /// The smallest norm.
        least: f64,
        /// The largest norm.
        most: f64,
    },
}

impl Constraint {
    /// Projects the parameters whose path satisfies `which`; returns how many that were. Frozen ones and buffers stay.
    ///
    /// # Errors
    /// A limit is negative, infinite or NaN, the least norm is above the most, or a parameter is not initialised.
    ///
    /// ```
    /// # use chainrule_core::{Init, Param, Parameters, Params, ParamsMut};
    /// # struct Row(Param<f64>);
    /// # impl Parameters for Row {
    /// #     type T = f64;
    /// #     fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) { out.add(&self.0) }
    /// #     fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) { out.add(&mut self.0) }
    /// # }
    /// use chainrule_optim::Constraint;
    /// let mut model = Row(Param::new("weight", [1, 2], Init::Constant(3.0))).init(0)?;
    /// assert_eq!(Constraint::UnitNorm.apply(&mut model, &|path| path == "weight")?, 1);
    /// assert!((model.0.value()?[0] - 0.5f64.sqrt()).abs() < 1e-12);
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    pub fn apply<T: Scalar>(
        self,
        model: &mut dyn Parameters<T = T>,
        which: &dyn Fn(&str) -> bool,
    ) -> Result<usize> {
        let (least, most) = self.bounds()?;
        let mut n = 0;
        model.try_visit_mut(&mut |path, p| {
            if !p.trainable() || !which(&path.to_string()) {
                return Ok(());
            }
            n += 1;
            let unit = unit(p);
            let w = p.value_mut()?;
            match self {
                Self::NonNegative => rectify(w),
                _ => w.chunks_mut(unit).for_each(|w| to_norm(w, least, most)),
            }
            Ok(())
        })?;
        Ok(n)
    }

    /// The norms that are allowed.
    fn bounds(self) -> Result<(f64, f64)> {
        let (least, most) = match self {
            Self::NonNegative => (0.0, f64::MAX),
            Self::MaxNorm(most) => (0.0, most),
            Self::UnitNorm => (1.0, 1.0),
            Self::NormWithin { least, most } => (least, most),
        };
        match 0.0 <= least && least <= most && most.is_finite() {
            true => Ok((least, most)),
            false => Err(Error::value(format!(
                "constraint: expected norms 0 ≤ least ≤ most, both finite, got {least} and {most}"
            ))),
        }
    }
}

compiled! {
    fn rectify[T](w: &mut [T]) {
        for w in w {
            *w = if *w < T::ZERO { T::ZERO } else { *w };
        }
    }
}

/// The point of the shell between two norms that is nearest: w along itself.
fn to_norm<T: Scalar>(w: &mut [T], least: f64, most: f64) {
    let norm = sum_of_squares(w).sqrt();
    let wanted = norm.clamp(least, most);
    if norm > 0.0 && wanted != norm {
        scale(w, T::from_f64(wanted / norm));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bag;

    fn bag() -> Bag<f64> {
        let mut bag = Bag::of(&[("weight", &[2, 2]), ("bias", &[2])]);
        bag.0[0].value_mut().unwrap().copy_from_slice(&[3.0, 4.0, 0.3, -0.4]);
        bag
    }

    fn after(constraint: Constraint) -> Vec<f64> {
        let mut bag = bag();
        assert_eq!(constraint.apply(&mut bag, &|path| path == "weight").unwrap(), 1);
        assert_eq!(bag.0[1].value().unwrap(), self::bag().0[1].value().unwrap(), "another path stays");
        bag.0[0].value().unwrap().to_vec()
    }

    /// Rows (3, 4) and (0.3, −0.4) of the norms 5 and ½.
    #[test]
    fn by_hand() {
        assert_eq!(after(Constraint::NonNegative), [3.0, 4.0, 0.3, 0.0]);
        let close = |got: Vec<f64>, want: [f64; 4]| {
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{got:?}");
        };
        close(after(Constraint::MaxNorm(1.0)), [0.6, 0.8, 0.3, -0.4]);
        close(after(Constraint::UnitNorm), [0.6, 0.8, 0.6, -0.8]);
        close(after(Constraint::NormWithin { least: 1.0, most: 2.5 }), [1.5, 2.0, 0.6, -0.8]);
    }

    #[test]
    fn frozen_weights_stay_and_wrong_limits_are_errors() {
        let mut bag = bag();
        bag.set_frozen(true, &|_| true);
        assert_eq!(Constraint::UnitNorm.apply(&mut bag, &|_| true).unwrap(), 0);
        assert_eq!(bag.0[0].value().unwrap()[..2], [3.0, 4.0]);
        for limit in [-1.0, f64::NAN, f64::INFINITY] {
            let error = Constraint::MaxNorm(limit).apply(&mut bag, &|_| true).unwrap_err();
            assert!(error.to_string().contains("norms"), "{error}");
        }
        assert!(Constraint::NormWithin { least: 2.0, most: 1.0 }.apply(&mut bag, &|_| true).is_err());
    }
}
