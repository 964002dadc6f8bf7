//! A line search for the strong conditions of Wolfe (Nocedal and Wright, 2006, algorithms 3.5 and 3.6), as PyTorch has it.

use chainrule_core::{Result, Scalar};
use chainrule_tensor::kernels::reduce::dot;

/// A point of the line: w + t d.
#[derive(Clone, Debug)]
pub struct Point<T> {
    pub t: f64,
    /// The loss.
    pub f: f64,
    /// Its gradient.
    pub g: Vec<T>,
    /// Its slope g · d.
    pub slope: f64,
}

impl<T: Scalar> Point<T> {
    pub fn new(t: f64, f: f64, g: Vec<T>, d: &[T]) -> Self {
        let slope = dot(&g, d);
        Self { t, f, g, slope }
    }
}

/// The share of the slope at 0 that the loss has to fall by.
const FALL: f64 = 1e-4;
/// The share of the slope at 0 that the slope may still have.
const FLAT: f64 = 0.9;
/// A bracket in which no element moves by more is left.
const CHANGE: f64 = 1e-9;
/// The most evaluations after the first.
const MOST: u32 = 25;

/// Finds t with f(t) ≤ f(0) + 10⁻⁴ t f′(0) and |f′(t)| ≤ 0.9 |f′(0)|, from a first guess. `size` is the largest |dᵢ|. Returns the best
/// point and the number of evaluations.
pub fn strong_wolfe<T: Scalar>(
    start: Point<T>,
    mut t: f64,
    size: f64,
    evaluate: &mut dyn FnMut(f64) -> Result<Point<T>>,
) -> Result<(Point<T>, u64)> {
    let (f0, slope) = (start.f, start.slope);
    let too_high = |p: &Point<T>| p.f > f0 + FALL * p.t * slope;
    let flat = |p: &Point<T>| p.slope.abs() <= -FLAT * slope;
    let (mut new, mut evaluations, mut tries) = (evaluate(t)?, 1, 0);
    let mut before = start.clone();
    // Moves on until the interval behind holds a point that fulfils the conditions.
    let mut bracket = loop {
        if tries == MOST {
            break [start, new];
        }
        if too_high(&new) || (tries > 1 && new.f >= before.f) {
            break [before, new];
        }
        if flat(&new) {
            return Ok((new, evaluations));
        }
        if new.slope >= 0.0 {
            break [before, new];
        }
        let (least, most) = (t + 0.01 * (t - before.t), t * 10.0);
        t = cubic(&before, &new, Some([least, most]));
        before = std::mem::replace(&mut new, evaluate(t)?);
        evaluations += 1;
        tries += 1;
    };
    // Narrows the interval.
    let order = |bracket: &[Point<T>; 2]| if bracket[0].f <= bracket[1].f { (0, 1) } else { (1, 0) };
    let ((mut low, mut high), mut stuck) = (order(&bracket), false);
    while tries < MOST && (bracket[1].t - bracket[0].t).abs() * size >= CHANGE {
        let mut t = cubic(&bracket[0], &bracket[1], None);
        let [least, most] = [bracket[0].t.min(bracket[1].t), bracket[0].t.max(bracket[1].t)];
        let margin = 0.1 * (most - least);
        // Near an end twice, or beyond it: a tenth of the interval away from it.
        if (most - t).min(t - least) < margin {
            if stuck || t >= most || t <= least {
                t = if (t - most).abs() < (t - least).abs() { most - margin } else { least + margin };
                stuck = false;
            } else {
                stuck = true;
            }
        } else {
            stuck = false;
        }
        let new = evaluate(t)?;
        evaluations += 1;
        tries += 1;
        if too_high(&new) || new.f >= bracket[low].f {
            bracket[high] = new;
            (low, high) = order(&bracket);
            continue;
        }
        let done = flat(&new);
        if !done && new.slope * (bracket[high].t - bracket[low].t) >= 0.0 {
            bracket[high] = bracket[low].clone();
        }
        bracket[low] = new;
        if done {
            break;
        }
    }
    let [first, second] = bracket;
    Ok((if low == 0 { first } else { second }, evaluations))
}

/// The minimum of the cubic through two points with their slopes, within bounds.
fn cubic<T>(a: &Point<T>, b: &Point<T>, bounds: Option<[f64; 2]>) -> f64 {
    let [least, most] = bounds.unwrap_or([a.t.min(b.t), a.t.max(b.t)]);
    let d1 = a.slope + b.slope - 3.0 * (a.f - b.f) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    if square.is_nan() || square < 0.0 {
        return 0.5 * (least + most);
    }
    let d2 = square.sqrt();
    let at = match a.t <= b.t {
        true => b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2)),
        false => a.t - (a.t - b.t) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2.0 * d2)),
    };
    at.max(least).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (t − 1)² through 0 and 3 has its minimum at 1.
    #[test]
    fn a_parabola_is_its_own_cubic() {
        let at = |t: f64| Point::<f64> { t, f: (t - 1.0) * (t - 1.0), g: vec![], slope: 2.0 * (t - 1.0) };
        for (a, b) in [(0.0, 3.0), (3.0, 0.0)] {
            assert!((cubic(&at(a), &at(b), None) - 1.0).abs() < 1e-15);
        }
        assert_eq!(cubic(&at(0.0), &at(0.5), Some([2.0, 5.0])), 2.0);
    }

    #[test]
    fn both_conditions_hold_where_the_search_ends() {
        let f = |t: f64| (t - 2.0).powi(4) + t;
        let df = |t: f64| 4.0 * (t - 2.0).powi(3) + 1.0;
        for guess in [1e-3, 0.5, 4.0, 50.0] {
            let at = |t: f64| Point::new(t, f(t), vec![df(t)], &[1.0]);
            let (p, n) = strong_wolfe(at(0.0), guess, 1.0, &mut |t| Ok(at(t))).unwrap();
            assert!(
                p.f <= f(0.0) + FALL * p.t * df(0.0) && p.slope.abs() <= -FLAT * df(0.0),
                "{guess}: {p:?}"
            );
            assert!(n <= 26);
        }
    }
}
