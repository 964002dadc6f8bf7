//! Central differences of E = Σ R ⊙ Y, one coordinate or one direction at a time.

use crate::{
    report::{Disagreement, Report, coordinate},
    subject::weights,
};
use chainrule_core::{Result, Rng, Shape, Tensor};

/// Slices up to this size are checked at every coordinate.
pub(crate) const COORDINATES: usize = 2_000;
/// Larger ones at so many coordinates and along so many directions.
const SAMPLES: usize = 100;
/// The step at numbers up to 1; larger ones take a step in proportion.
const STEP: f64 = 1e-6;
/// One-sided slopes that differ by more than this share belong to a kink.
const KINK: f64 = 1e-3;

/// A function of several named slices of numbers.
pub(crate) trait Function {
    /// Names and shapes of the slices.
    fn slices(&self) -> Vec<(String, Shape)>;

    /// Calls `f` with the numbers of a slice.
    fn change(&mut self, slice: usize, f: &mut dyn FnMut(&mut [f64]));

    /// Overwrites `y`.
    fn value(&mut self, y: &mut Tensor<f64>) -> Result<()>;
}

/// The comparison at one point of a function.
pub(crate) struct Differences<'f, F> {
    f: &'f mut F,
    tolerance: f64,
    /// R and Y, of one shape.
    r: &'f Tensor<f64>,
    y: Tensor<f64>,
    plus: Tensor<f64>,
    minus: Tensor<f64>,
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
    /// What backward says, along the step that was really taken.
    analytic: f64,
    /// What rounding may add to `central`.
    noise: f64,
}

impl<'f, F: Function> Differences<'f, F> {
    pub(crate) fn new(f: &'f mut F, r: &'f Tensor<f64>, tolerance: f64, rng: Rng) -> Result<Self> {
        let mut y = Tensor::default();
        f.value(&mut y)?;
        let size = r.data().iter().zip(y.data()).map(|(r, y)| (r * y) * (r * y)).sum::<f64>().sqrt();
        let (plus, minus) = (Tensor::default(), Tensor::default());
        Ok(Self { f, tolerance, r, y, plus, minus, size, rng })
    }

    /// Compares ∂E/∂slice, as backward gave it, with differences.
    pub(crate) fn compare(
        &mut self,
        slice: usize,
        (name, shape): (&str, Shape),
        gradient: &[f64],
    ) -> Result<Report> {
        let (mut report, n) = (Report::default(), gradient.len());
        let mut origin = Vec::new();
        self.f.change(slice, &mut |values| origin = values.to_vec());
        let unit = |v: f64| v.abs().max(1.0);
        let every = n <= COORDINATES;
        for k in 0..if every { n } else { SAMPLES } {
            let at = if every { k } else { self.rng.below(n) };
            let along = [(at, unit(origin[at]))];
            self.one(slice, &origin, &along, gradient, &mut report, || coordinate(name, &shape, at))?;
        }
        for k in 0..if every { 0 } else { SAMPLES } {
            let signs = weights(Shape::from([n]), &mut self.rng);
            let scale = 1.0 / (n as f64).sqrt();
            let along: Vec<(usize, f64)> =
                signs.data().iter().enumerate().map(|(i, s)| (i, s * scale * unit(origin[i]))).collect();
            let name = || format!("{name} along direction {k}");
            self.one(slice, &origin, &along, gradient, &mut report, name)?;
        }
        Ok(report)
    }

    /// One direction: a list of positions and how far each goes.
    fn one(
        &mut self,
        slice: usize,
        origin: &[f64],
        along: &[(usize, f64)],
        gradient: &[f64],
        report: &mut Report,
        name: impl Fn() -> String,
    ) -> Result<()> {
        let at_step = self.slopes(slice, origin, along, gradient, STEP)?;
        // Where third derivatives are large a smaller step is the better one, where rounding is large a larger one.
        let mut best = self.error(&at_step);
        for step in [STEP / 8.0, STEP * 8.0] {
            if best.is_some() {
                break;
            }
            let slopes = self.slopes(slice, origin, along, gradient, step)?;
            best = self.error(&slopes);
        }
        let Slopes { sides: [right, left], analytic, central: numeric, noise } = at_step;
        if let Some(error) = best {
            report.checked += 1;
            report.largest = report.largest.max(error);
        } else if (right - left).abs() > KINK * right.abs().max(left.abs()).max(1.0) + 4.0 * noise {
            report.skipped += 1;
        } else {
            report.checked += 1;
            report.wrong.push(Disagreement { name: name(), analytic, numeric });
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
        slice: usize,
        origin: &[f64],
        along: &[(usize, f64)],
        gradient: &[f64],
        h: f64,
    ) -> Result<Slopes> {
        let at = |sign: f64, i: usize, by: f64| origin[i] + sign * h * by;
        self.f.change(slice, &mut |v| along.iter().for_each(|&(i, by)| v[i] = at(1.0, i, by)));
        self.f.value(&mut self.plus)?;
        self.f.change(slice, &mut |v| along.iter().for_each(|&(i, by)| v[i] = at(-1.0, i, by)));
        self.f.value(&mut self.minus)?;
        self.f.change(slice, &mut |v| v.copy_from_slice(origin));
        let sum = |a: &Tensor<f64>, b: &Tensor<f64>| -> f64 {
            self.r.data().iter().zip(a.data().iter().zip(b.data())).map(|(r, (a, b))| r * (a - b)).sum()
        };
        // The step that was taken is a rounded one. For a single coordinate its length is divided by, exactly.
        let taken = |&(i, by): &(usize, f64)| at(1.0, i, by) - at(-1.0, i, by);
        let length = if let [one] = along { taken(one) } else { 2.0 * h };
        let analytic = match along {
            [(i, _)] => gradient[*i],
            _ => along.iter().map(|step| gradient[step.0] * taken(step)).sum::<f64>() / length,
        };
        Ok(Slopes {
            central: sum(&self.plus, &self.minus) / length,
            sides: [sum(&self.plus, &self.y), sum(&self.y, &self.minus)].map(|s| s / (0.5 * length)),
            analytic,
            noise: 16.0 * f64::EPSILON * self.size / length.abs(),
        })
    }
}
