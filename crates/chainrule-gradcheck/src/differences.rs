//! Central differences of E = Σ R ⊙ Y, one coordinate or one direction at a time.

use crate::{
    evaluate::weights,
    report::{Comparison, Disagreement, coordinate},
};
use chainrule_core::{Result, Rng, Shape, Tensor};

/// Tensors up to this size are checked at every coordinate.
pub(crate) const COORDINATES: usize = 2_000;
/// Larger ones at this many coordinates and along as many directions.
const SAMPLES: usize = 100;
/// The step at values up to 1; larger ones take a step in proportion.
const STEP: f64 = 1e-6;
/// One-sided slopes that differ by more than this share belong to a kink.
const KINK: f64 = 1e-3;

/// A function of several tensors with several outputs.
pub(crate) trait Function {
    /// Calls `f` with the values of a tensor that it depends on.
    fn change(&mut self, tensor: usize, f: &mut dyn FnMut(&mut [f64]));

    /// Overwrites the outputs.
    fn value(&mut self, ys: &mut Vec<Tensor<f64>>) -> Result<()>;
}

/// The comparison at one point of a function.
pub(crate) struct Differences<'f, F> {
    f: &'f mut F,
    tolerance: f64,
    /// R and Y, of the same shapes.
    rs: &'f [Tensor<f64>],
    ys: Vec<Tensor<f64>>,
    plus: Vec<Tensor<f64>>,
    minus: Vec<Tensor<f64>>,
    /// √Σ (R Y)²: rounding in Y moves E by about this many ε.
    size: f64,
    rng: Rng,
}

/// Slopes along one direction.
struct Slopes {
    /// Σ R (Y₊ − Y₋)/(2h)
    central: f64,
    /// Σ R (Y₊ − Y)/h and Σ R (Y − Y₋)/h
    sides: [f64; 2],
    /// The slope by the gradient, along the step that was really taken.
    analytic: f64,
    /// What rounding may add to `central`.
    noise: f64,
}

/// Coordinates and how far each goes in a step of 1.
type Direction<'a> = &'a [(usize, f64)];

/// Σ R (A − B)
fn weighted(rs: &[Tensor<f64>], a: &[Tensor<f64>], b: &[Tensor<f64>]) -> f64 {
    let elements = |(r, (a, b)): (&Tensor<f64>, (&Tensor<f64>, &Tensor<f64>))| -> f64 {
        r.data().iter().zip(a.data().iter().zip(b.data())).map(|(r, (a, b))| r * (a - b)).sum()
    };
    rs.iter().zip(a.iter().zip(b)).map(elements).sum()
}

impl<'f, F: Function> Differences<'f, F> {
    pub(crate) fn new(f: &'f mut F, rs: &'f [Tensor<f64>], tolerance: f64, rng: Rng) -> Result<Self> {
        let mut ys = Vec::new();
        f.value(&mut ys)?;
        let elements = rs.iter().zip(&ys).flat_map(|(r, y)| r.data().iter().zip(y.data()));
        let size = elements.map(|(r, y)| (r * y) * (r * y)).sum::<f64>().sqrt();
        Ok(Self { f, tolerance, rs, ys, plus: Vec::new(), minus: Vec::new(), size, rng })
    }

    /// Compares the gradient of one tensor with differences.
    pub(crate) fn compare(
        &mut self,
        tensor: usize,
        (name, shape): (&str, Shape),
        gradient: &[f64],
    ) -> Result<Comparison> {
        let (mut out, n) = (Comparison::new(name), gradient.len());
        let mut origin = Vec::new();
        self.f.change(tensor, &mut |values| origin = values.to_vec());
        let unit = |v: f64| v.abs().max(1.0);
        let every = n <= COORDINATES;
        for k in 0..if every { n } else { SAMPLES } {
            let at = if every { k } else { self.rng.below(n) };
            let along = [(at, unit(origin[at]))];
            self.one(tensor, &origin, &along, gradient, &mut out, || coordinate(name, &shape, at))?;
        }
        for k in 0..if every { 0 } else { SAMPLES } {
            let signs = weights(Shape::from([n]), &mut self.rng);
            let scale = 1.0 / (n as f64).sqrt();
            let along: Vec<(usize, f64)> =
                signs.data().iter().enumerate().map(|(i, s)| (i, s * scale * unit(origin[i]))).collect();
            let name = || format!("{name} along direction {k}");
            self.one(tensor, &origin, &along, gradient, &mut out, name)?;
        }
        Ok(out)
    }

    fn one(
        &mut self,
        tensor: usize,
        origin: &[f64],
        along: Direction<'_>,
        gradient: &[f64],
        out: &mut Comparison,
        name: impl Fn() -> String,
    ) -> Result<()> {
        let at_step = self.slopes(tensor, origin, along, gradient, STEP)?;
        // Where third derivatives are large a smaller step is the better one, where rounding is large a larger one.
        let mut best = self.error(&at_step);
        for step in [STEP / 8.0, STEP * 8.0] {
            if best.is_some() {
                break;
            }
            let slopes = self.slopes(tensor, origin, along, gradient, step)?;
            best = self.error(&slopes);
        }
        let Slopes { sides: [right, left], analytic, central: numeric, noise } = at_step;
        if let Some(error) = best {
            out.checked += 1;
            out.largest = out.largest.max(error);
        } else if (right - left).abs() > KINK * right.abs().max(left.abs()).max(1.0) + 4.0 * noise {
            out.skipped += 1;
        } else {
            out.checked += 1;
            out.wrong.push(Disagreement { name: name(), analytic, numeric });
        }
        Ok(())
    }

    /// The relative error, if it is within the tolerance.
    fn error(&self, s: &Slopes) -> Option<f64> {
        let scale = s.analytic.abs().max(s.central.abs()).max(1.0);
        let error = (s.analytic - s.central).abs();
        (error <= self.tolerance * scale + s.noise).then_some(error / scale)
    }

    fn slopes(
        &mut self,
        tensor: usize,
        origin: &[f64],
        along: Direction<'_>,
        gradient: &[f64],
        h: f64,
    ) -> Result<Slopes> {
        let at = |sign: f64, i: usize, by: f64| origin[i] + sign * h * by;
        self.f.change(tensor, &mut |v| along.iter().for_each(|&(i, by)| v[i] = at(1.0, i, by)));
        self.f.value(&mut self.plus)?;
        self.f.change(tensor, &mut |v| along.iter().for_each(|&(i, by)| v[i] = at(-1.0, i, by)));
        self.f.value(&mut self.minus)?;
        self.f.change(tensor, &mut |v| v.copy_from_slice(origin));
        // The step that was taken is a rounded one. For a single coordinate its length is divided by, exactly.
        let taken = |&(i, by): &(usize, f64)| at(1.0, i, by) - at(-1.0, i, by);
        let length = if let [one] = along { taken(one) } else { 2.0 * h };
        let analytic = match along {
            [(i, _)] => gradient[*i],
            _ => along.iter().map(|step| gradient[step.0] * taken(step)).sum::<f64>() / length,
        };
        let (right, left) =
            (weighted(self.rs, &self.plus, &self.ys), weighted(self.rs, &self.ys, &self.minus));
        Ok(Slopes {
            central: weighted(self.rs, &self.plus, &self.minus) / length,
            sides: [right, left].map(|s| s / (0.5 * length)),
            analytic,
            noise: 16.0 * f64::EPSILON * self.size / length.abs(),
        })
    }
}
