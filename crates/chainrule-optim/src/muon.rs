//! Muon (Jordan and others, 2024): momentum, orthogonalised.
//!
//! ```text
//! b = b + (1 − μ)(g − b)                 u = b, or looking ahead  g + μ (b − g)
//! X = u/‖u‖, then five times  A = X Xᵀ,  X ← a X + (b A + c A²) X
//! w ← (1 − η λ) w − η √max(1, rows/columns) X
//! ```
//!
//! Derivation: docs/optimizers/muon.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, not_negative, representable},
    rule::settings,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec, Value};
use chainrule_tensor::kernels::{
    gemm::{Mat, MatMut, matmul},
    layers::optim::{muon_update, round_to_bfloat16, shrink_and_step, sum_of_squares, transpose},
};
use std::cell::RefCell;

/// Steps whose singular values are all about 1, for the matrices inside a network. Give embeddings, heads, biases and gains another
/// optimizer by training them apart.
///
/// PyTorch refuses what is not a matrix. Here a kernel is the matrix of (outputs, everything else), and a vector one of a single
/// row, whose step is u/‖u‖.
///
/// Defaults: μ = 0.95, looking ahead, λ = 0.1, five iterations with (3.4445, −4.775, 2.0315), ε = 1e-7, and as in PyTorch all iterations
/// rounded to bfloat16.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Muon;
/// let muon: Muon = Muon::new(0.02).momentum(0.9).bfloat16(false);
/// assert!(muon.check().is_ok());
/// ```
pub type Muon<T = f32> = Driver<MuonRule<T>, T>;

/// The rule of [`Muon`]; keeps `momentum_buffer` b.
#[derive(Clone, Debug)]
pub struct MuonRule<T> {
    momentum: f64,
    nesterov: bool,
    ns_coefficients: [f64; 3],
    eps: f64,
    ns_steps: u64,
    match_rms_adamw: bool,
    bfloat16: bool,
    scratch: RefCell<[Vec<T>; 4]>,
}

impl<T> Default for MuonRule<T> {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            ns_coefficients: [3.4445, -4.775, 2.0315],
            eps: 1e-7,
            ns_steps: 5,
            match_rms_adamw: false,
            bfloat16: true,
            scratch: RefCell::default(),
        }
    }
}

impl<T: Scalar> Driver<MuonRule<T>, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(MuonRule::default(), learning_rate).weight_decay(0.1)
    }
}

settings! { MuonRule<T> {
    /// How much μ of the momentum stays at each step.
    momentum: f64,
    /// Looks ahead along the momentum.
    nesterov: bool,
    /// The coefficients (a, b, c) of an iteration.
    ns_coefficients: [f64; 3],
    /// The least norm that u is divided by.
    eps: f64,
    /// The number of iterations, below 100.
    ns_steps: u64,
    /// Multiplies by 0.2 √max(rows, columns), so that steps are as large as AdamW's, not by √max(1, rows/columns).
    match_rms_adamw: bool,
    /// Rounds to bfloat16 after every operation of an iteration.
    bfloat16: bool,
} }

impl<T: Scalar> MuonRule<T> {
    /// X of a matrix of rows × columns, rows ≤ columns.
    fn orthogonalise(&self, [x, gram, update, next]: &mut [Vec<T>; 4], rows: usize, columns: usize) {
        let round = |x: &mut [T]| {
            if self.bfloat16 {
                round_to_bfloat16(x);
            }
        };
        let [a, b, c] = self.ns_coefficients.map(T::from_f64);
        round(x);
        let mut norm = [T::from_f64(sum_of_squares(x).sqrt())];
        round(&mut norm);
        let norm = norm[0].to_f64().max(self.eps).max(f32::MIN_POSITIVE.into());
        x.iter_mut().for_each(|x| *x = T::from_f64(x.to_f64() / norm));
        round(x);
        gram.resize(rows * rows, T::ZERO);
        update.resize(rows * rows, T::ZERO);
        next.resize(rows * columns, T::ZERO);
        for _ in 0..self.ns_steps {
            let of_x = Mat::new(x, rows, columns);
            matmul(T::ONE, of_x, of_x.t(), T::ZERO, MatMut::new(gram, rows, rows)); // A = X Xᵀ
            round(gram);
            update.copy_from_slice(gram);
            let of_gram = Mat::new(gram, rows, rows);
            matmul(c, of_gram, of_gram, b, MatMut::new(update, rows, rows)); // B = b A + c A²
            round(update);
            next.copy_from_slice(x);
            matmul(T::ONE, Mat::new(update, rows, rows), of_x, a, MatMut::new(next, rows, columns)); // X ← a X + B X
            round(next);
            std::mem::swap(x, next);
        }
    }
}

/// (outputs, everything else) of a shape; a vector is a single row.
fn matrix(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [] => [1, 1],
        [n] => [1, n],
        [rows, ref rest @ ..] => [rows, rest.iter().product()],
    }
}

impl<T: Scalar> Rule<T> for MuonRule<T> {
    const KIND: &'static str = "Muon";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => Some(&mut self.momentum),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        below_one("Muon", "momentum", self.momentum)?;
        not_negative::<T>("Muon", "ε", self.eps)?;
        self.ns_coefficients.into_iter().try_for_each(|c| representable::<T>("Muon", "coefficients", c))?;
        if self.ns_steps >= 100 {
            return Err(Error::value(format!(
                "Muon: expected less than 100 iterations, got {}",
                self.ns_steps
            )));
        }
        Ok(())
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("momentum_buffer", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, shape, rate, terms, .. } = update;
        let [rows, columns] = matrix(shape);
        if rows == 0 || columns == 0 {
            return;
        }
        let b = state[0].data_mut();
        let mut scratch = self.scratch.borrow_mut();
        let (ahead, size) = (if self.nesterov { self.momentum } else { 1.0 }, rows * columns);
        let x = &mut scratch[0];
        x.resize(size, T::ZERO);
        let [newest, ahead] = [1.0 - self.momentum, ahead].map(T::from_f64);
        muon_update(x, b, w, g, terms.cast(), newest, ahead); // b += (1 − μ)(d − b), u = d + μ (b − d)
        let tall = rows > columns;
        if tall {
            let [x, .., next] = &mut *scratch;
            next.resize(size, T::ZERO);
            transpose(x, next, columns);
            std::mem::swap(x, next);
        }
        self.orthogonalise(&mut scratch, rows.min(columns), rows.max(columns));
        if tall {
            let [x, .., next] = &mut *scratch;
            transpose(x, next, rows);
            std::mem::swap(x, next);
        }
        let (rows, columns) = (rows as f64, columns as f64);
        let scale = match self.match_rms_adamw {
            true => 0.2 * rows.max(columns).sqrt(),
            false => (rows / columns).max(1.0).sqrt(),
        };
        shrink_and_step(w, &scratch[0], T::from_f64(terms.shrink), T::from_f64(rate * scale));
    }

    fn spec(&self, settings: &Settings) -> Spec {
        let adjust = if self.match_rms_adamw { Value::from("match_rms_adamw") } else { Value::None };
        Spec::new("Muon")
            .with("lr", settings.rate)
            .with("weight_decay", settings.weight_decay)
            .with("momentum", self.momentum)
            .with("nesterov", self.nesterov)
            .with("ns_coefficients", self.ns_coefficients)
            .with("eps", self.eps)
            .with("ns_steps", self.ns_steps)
            .with("adjust_lr_fn", adjust)
            .with_unless(true, "bfloat16", self.bfloat16)
            .with_unless(false, "maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Muon<T> {
    const FACTS: Facts = Facts::new("Muon")
        .family("optimizer")
        .formula("w ← (1 − η λ) w − η U Vᵀ of the momentum U Σ Vᵀ")
        .page("optimizers/muon.md")
        .torch("Muon");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = MuonRule::<T>::default();
        let adjust = match args.optional::<String>("adjust_lr_fn")?.as_deref() {
            None | Some("original") => false,
            Some("match_rms_adamw") => true,
            Some(other) => {
                let other = chainrule_core::text::quote(other);
                return Err(Error::value(format!(
                    "Muon: expected adjust_lr_fn original or match_rms_adamw, got {other}"
                )));
            }
        };
        Self::new(1e-3)
            .momentum(args.or("momentum", rule.momentum)?)
            .nesterov(args.or("nesterov", rule.nesterov)?)
            .ns_coefficients(args.or("ns_coefficients", rule.ns_coefficients)?)
            .eps(args.or("eps", rule.eps)?)
            .ns_steps(args.or("ns_steps", rule.ns_steps)?)
            .match_rms_adamw(adjust)
            .bfloat16(args.or("bfloat16", true)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let muon = || Spec::new("Muon").with("lr", 0.03);
        let other = muon().with("nesterov", false).with("momentum", 0.5).with("weight_decay", 0.0);
        let iterations =
            muon().with("ns_coefficients", [2.0, -1.5, 0.5]).with("ns_steps", 3).with("eps", 1e-6);
        vec![
            Example::new(muon().with("bfloat16", false), [[3, 2], [2, 5]]),
            Example::new(other.with("adjust_lr_fn", "match_rms_adamw"), [[3, 2], [2, 5]]),
            Example::new(iterations.with("maximize", true), [[7]]),
            Example::bench(muon(), [[256, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare_whole, descends, norm};
    use chainrule_core::Optimizer;

    /// A vector: X = (0.6, 0.8); one iteration with (½, 0, 0) halves it. w = 1 − 0.1 · (0.3, 0.4).
    #[test]
    pub fn by_hand() {
        let muon =
            Muon::new(0.1).weight_decay(0.0).ns_steps(1).ns_coefficients([0.5, 0.0, 0.0]).bfloat16(false);
        descends(muon, &[3.0, 4.0], &mut Bag::new(&[1.0, 1.0]), &[[0.97, 0.96]]);
    }

    /// The reference goes by the definition, on the matrix as it stands: a X + (b A + c A²) X = X (a + b G + c G²) with G = Xᵀ X.
    #[test]
    pub fn agrees_with_reference() {
        let k = [3.4445, -4.775, 2.0315];
        for (nesterov, maximize) in [(true, false), (false, true)] {
            let muon = Muon::new(0.1).momentum(0.5).nesterov(nesterov).weight_decay(0.1).maximize(maximize);
            compare_whole(muon.bfloat16(false).match_rms_adamw(true), |w, g, [b, ..], _| {
                let (rows, columns) = if w.len() == 6 { (2, 3) } else { (1, w.len()) };
                let mut x = vec![0.0; w.len()];
                for i in 0..w.len() {
                    let d = if maximize { -g[i] } else { g[i] };
                    b[i] = 0.5 * b[i] + 0.5 * d;
                    x[i] = if nesterov { 0.5 * d + 0.5 * b[i] } else { b[i] };
                }
                let length = norm(&x);
                x.iter_mut().for_each(|x| *x /= length);
                for _ in 0..5 {
                    let times = |x: &[f64], of: &[f64]| -> Vec<f64> {
                        // (x Gᵀ) with G = ofᵀ of, one entry at a time.
                        let gram = |p: usize, q: usize| -> f64 {
                            (0..rows).map(|r| of[r * columns + p] * of[r * columns + q]).sum()
                        };
                        (0..x.len())
                            .map(|i| {
                                (0..columns)
                                    .map(|q| x[i / columns * columns + q] * gram(q, i % columns))
                                    .sum()
                            })
                            .collect()
                    };
                    let first = times(&x, &x);
                    let second = times(&first, &x);
                    for i in 0..x.len() {
                        x[i] = k[0] * x[i] + k[1] * first[i] + k[2] * second[i];
                    }
                }
                let rate = 0.1 * 0.2 * (columns as f64).sqrt();
                w.iter_mut().zip(x).for_each(|(w, x)| *w = (1.0 - 0.1 * 0.1) * *w - rate * x);
            });
        }
    }

    #[test]
    fn a_tall_matrix_is_the_transpose_of_a_wide_one() {
        let of = |shape: &[usize], g: &[f64]| {
            let mut bag = Bag::<f64>::of(&[("weight", shape)]);
            bag.0[0].value_mut().unwrap().fill(0.0);
            let mut grads = chainrule_core::Grads::new(&bag);
            grads.values_mut().copy_from_slice(g);
            Muon::new(0.1).match_rms_adamw(true).step(&mut bag, &grads).unwrap();
            bag.0[0].value().unwrap().to_vec()
        };
        let wide = of(&[2, 3], &[1.0, 2.0, 3.0, -1.0, 0.5, 4.0]);
        let tall = of(&[3, 2], &[1.0, -1.0, 2.0, 0.5, 3.0, 4.0]);
        for (i, v) in wide.iter().enumerate() {
            assert_eq!(*v, tall[i % 3 * 2 + i / 3]);
        }
        assert_eq!(matrix(&[4, 3, 2, 2]), [4, 12]);
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Muon::<f32>::new(0.1).momentum(1.0).check().is_err());
        assert!(Muon::<f32>::new(0.1).ns_steps(100).check().is_err());
        assert!(Muon::<f32>::new(0.1).ns_coefficients([f64::NAN, 0.0, 0.0]).check().is_err());
        assert!(Muon::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
