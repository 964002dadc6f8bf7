//! What is done to gradients between backward and the step: clipping, centralisation, noise.

use crate::driver::{each, foreign};
use chainrule_core::{Error, Grads, Param, Parameters, Result, Rng, Scalar};
use chainrule_tensor::{
    compiled,
    kernels::{elementwise::scale, layers::optim::sum_of_squares, reduce},
};

/// Limits every gradient to [−limit, limit].
///
/// # Errors
/// The limit is negative or NaN.
///
/// ```
/// # use chainrule_core::Grads;
/// # fn f(grads: &mut Grads<f32>) -> chainrule_core::Result<()> {
/// chainrule_optim::clip_value(grads, 0.5)
/// # }
/// ```
pub fn clip_value<T: Scalar>(grads: &mut Grads<T>, limit: f64) -> Result<()> {
    check(limit)?;
    let limit = T::from_f64(limit);
    for g in grads.values_mut() {
        *g = if *g > limit {
            limit
        } else if *g < -limit {
            -limit
        } else {
            *g
        };
    }
    Ok(())
}

/// Scales all gradients together so that their Euclidean norm is at most `limit`; returns the norm before.
///
/// A norm beyond the limit is multiplied by limit/(norm + 10⁻⁶), as PyTorch does (Pascanu, Mikolov and Bengio, 2013).
///
/// # Errors
/// The limit is negative or NaN, or the norm is not finite: the gradients are then left as they are.
pub fn clip_norm<T: Scalar>(grads: &mut Grads<T>, limit: f64) -> Result<f64> {
    check(limit)?;
    let norm = sum_of_squares(grads.values()).sqrt();
    if !norm.is_finite() {
        return Err(Error::value(format!("expected finite gradients, got a norm of {norm}")));
    }
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        grads.scale(T::from_f64(factor));
    }
    Ok(norm)
}

/// Scales the gradient of each tensor by itself so that its Euclidean norm is at most `limit`; returns the largest norm before.
///
/// A norm beyond the limit is multiplied by limit/(norm + 10⁻⁶), as [`clip_norm`] does.
///
/// # Errors
/// The limit is negative or NaN, the gradients are of another model, or a norm is not finite: the gradients are then left
/// as they are.
pub fn clip_each_norm<T: Scalar>(
    model: &dyn Parameters<T = T>,
    grads: &mut Grads<T>,
    limit: f64,
) -> Result<f64> {
    check(limit)?;
    let mut most = 0.0f64;
    trained(model, grads, &mut |_, g| {
        let norm = finite(sum_of_squares(g).sqrt())?;
        most = most.max(norm);
        Ok(())
    })?;
    trained(model, grads, &mut |_, g| {
        let factor = limit / (sum_of_squares(g).sqrt() + 1e-6);
        if factor < 1.0 {
            scale(g, T::from_f64(factor));
        }
        Ok(())
    })?;
    Ok(most)
}

/// Adaptive clipping: limits the gradient of each unit to a share of the norm of its weights (Brock, De, Smith and Simonyan,
/// 2021). A unit is a row of a matrix or a filter of a convolution; a vector is one.
///
/// Where ‖g‖ > λ max(‖w‖, ε), g ← g λ max(‖w‖, ε)/‖g‖. The paper has λ = 0.01 and ε = 0.001, and leaves the last layer out.
///
/// # Errors
/// λ or ε is negative or NaN, the gradients are of another model, or a norm is not finite: the gradients are then left as
/// they are.
pub fn clip_adaptive<T: Scalar>(
    model: &dyn Parameters<T = T>,
    grads: &mut Grads<T>,
    share: f64,
    eps: f64,
) -> Result<()> {
    check(share)?;
    check(eps)?;
    trained(model, grads, &mut |_, g| finite(sum_of_squares(g)).map(drop))?;
    trained(model, grads, &mut |p, g| {
        let unit = unit(p);
        for (w, g) in p.value()?.chunks(unit).zip(g.chunks_mut(unit)) {
            let (most, norm) = (share * sum_of_squares(w).sqrt().max(eps), sum_of_squares(g).sqrt());
            if norm > most {
                scale(g, T::from_f64(most / norm));
            }
        }
        Ok(())
    })
}

/// Subtracts from the gradient of each unit its mean (Yong, Huang, Hua and Zhang, 2020): the weights of a unit keep their sum.
/// A unit is a row of a matrix or a filter of a convolution; vectors stay as they are.
///
/// # Errors
/// The gradients are of another model.
pub fn centralize<T: Scalar>(model: &dyn Parameters<T = T>, grads: &mut Grads<T>) -> Result<()> {
    trained(model, grads, &mut |p, g| {
        if p.shape().len() > 1 {
            centre(g, unit(p)); // g −= mean g
        }
        Ok(())
    })
}

compiled! {
    fn centre[T](g: &mut [T], unit: usize) {
        for g in g.chunks_mut(unit) {
            let mean = T::from_f64(reduce::sum(g) / g.len() as f64);
            g.iter_mut().for_each(|g| *g -= mean);
        }
    }
}

/// Adds normal noise of a standard deviation σ to the gradients (Neelakantan and others, 2015, who take σ² = η/(1 + t)^0.55 at
/// step t).
///
/// # Errors
/// σ is negative or not finite, or the gradients are of another model.
///
/// ```
/// # use chainrule_core::{Grads, Parameters, Result, Rng};
/// # fn f(model: &impl Parameters<T = f32>, grads: &mut Grads<f32>, step: u64) -> Result<()> {
/// let variance = 0.3 / (1.0 + step as f64).powf(0.55);
/// chainrule_optim::add_noise(model, grads, variance.sqrt(), &mut Rng::keyed(1, step))
/// # }
/// ```
pub fn add_noise<T: Scalar>(
    model: &dyn Parameters<T = T>,
    grads: &mut Grads<T>,
    std: f64,
    rng: &mut Rng,
) -> Result<()> {
    check(std)?;
    if !T::from_f64(std).is_finite() {
        return Err(Error::value(format!("expected a finite standard deviation, got {std}")));
    }
    trained(model, grads, &mut |_, g| {
        g.iter_mut().for_each(|g| *g += T::from_f64(std * rng.normal()));
        Ok(())
    })
}

/// Calls `f` with every trainable parameter and its gradient.
fn trained<T: Scalar>(
    model: &dyn Parameters<T = T>,
    grads: &mut Grads<T>,
    f: &mut dyn FnMut(&Param<T>, &mut [T]) -> Result<()>,
) -> Result<()> {
    each(model, &mut |path, p| {
        let range = grads.range(p).ok_or_else(|| foreign("they were made for another model"));
        let range = range.map_err(|e| e.in_layer(path.to_string()))?;
        if p.trainable() { f(p, &mut grads.values_mut()[range]) } else { Ok(()) }
    })
}

/// How many elements of a parameter belong to one output; all of a vector.
pub(crate) fn unit<T: Scalar>(p: &Param<T>) -> usize {
    match p.shape()[..] {
        [_, _, ..] => p.shape()[1..].iter().product::<usize>().max(1),
        _ => p.volume().max(1),
    }
}

fn finite(norm: f64) -> Result<f64> {
    match norm.is_finite() {
        true => Ok(norm),
        false => Err(Error::value(format!("expected finite gradients, got a norm of {norm}"))),
    }
}

fn check(limit: f64) -> Result<()> {
    if limit >= 0.0 {
        return Ok(());
    }
    Err(Error::value(format!("expected a limit from 0, got {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bag;

    /// (3, 4) has the norm 5; clipped to 1 it is (0.6, 0.8) up to the 10⁻⁶.
    #[test]
    fn the_norm_is_global_and_small_gradients_stay() {
        let mut grads = Grads::new(&Bag::<f64>::new(&[0.0, 0.0]));
        grads.values_mut().copy_from_slice(&[3.0, 4.0]);
        assert_eq!(clip_norm(&mut grads, 10.0).unwrap(), 5.0);
        assert_eq!(grads.values(), [3.0, 4.0]);
        clip_norm(&mut grads, 1.0).unwrap();
        assert!((grads.values()[0] - 0.6).abs() < 1e-6 && (grads.values()[1] - 0.8).abs() < 1e-6);
        clip_value(&mut grads, 0.7).unwrap();
        assert_eq!(grads.values()[1], 0.7);
        grads.values_mut()[0] = f64::NAN;
        assert!(clip_norm(&mut grads, 1.0).is_err());
        assert!(clip_value(&mut grads, -1.0).is_err());
    }

    fn two() -> (Bag<f64>, Grads<f64>) {
        let bag = Bag::of(&[("weight", &[2, 2]), ("bias", &[2])]); // weight −1 0 1 −½, bias −1 0
        let mut grads = Grads::new(&bag);
        grads.values_mut().copy_from_slice(&[3.0, 4.0, 0.3, 0.4, 6.0, 8.0]);
        (bag, grads)
    }

    fn close(got: &[f64], want: [f64; 6]) {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?} for {want:?}");
    }

    /// Norms √25.25 and 10, both to 1.
    #[test]
    fn each_tensor_has_a_norm_of_its_own() {
        let (bag, mut grads) = two();
        assert_eq!(clip_each_norm(&bag, &mut grads, 1.0).unwrap(), 10.0);
        let n = 25.25f64.sqrt();
        close(grads.values(), [3.0 / n, 4.0 / n, 0.3 / n, 0.4 / n, 0.6, 0.8]);
        let (_, mut foreign) = two();
        assert!(clip_each_norm(&bag, &mut foreign, 1.0).is_err());
        grads.values_mut()[0] = f64::NAN;
        assert!(clip_each_norm(&bag, &mut grads, 1.0).is_err());
    }

    /// ‖w‖ of the rows is 1 and √1.25, of the bias 1; λ = 0.5: to ½, left as it is (½ < √1.25/2), and to ½.
    #[test]
    fn units_are_clipped_to_a_share_of_their_weights() {
        let (bag, mut grads) = two();
        clip_adaptive(&bag, &mut grads, 0.5, 1e-3).unwrap();
        close(grads.values(), [0.3, 0.4, 0.3, 0.4, 0.3, 0.4]);
        assert!(clip_adaptive(&bag, &mut grads, -0.5, 1e-3).is_err());
    }

    #[test]
    fn centralised_rows_have_the_sum_zero_and_vectors_stay() {
        let (mut bag, mut grads) = two();
        centralize(&bag, &mut grads).unwrap();
        close(grads.values(), [-0.5, 0.5, -0.05, 0.05, 6.0, 8.0]);
        bag.set_frozen(true, &|path| path == "bias");
        add_noise(&bag, &mut grads, 0.1, &mut Rng::new(1)).unwrap();
        assert!(grads.values()[0] != -0.5 && (grads.values()[0] + 0.5).abs() < 1.0);
        assert_eq!(grads.values()[4..], [6.0, 8.0], "what is frozen has no noise");
        assert!(add_noise(&bag, &mut grads, f64::INFINITY, &mut Rng::new(1)).is_err());
    }

    #[test]
    fn norms_are_right_beyond_the_range_of_squares() {
        // The squares of f32 overflow from 1.8e19 on; they are summed in f64.
        assert!((sum_of_squares(&[3e25f32, 4e25]).sqrt() / 5e25 - 1.0).abs() < 1e-6);
    }
}
