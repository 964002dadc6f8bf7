//! What the tests of optimizers share.

use chainrule_core::{Grads, Init, Optimizer, Param, Parameters, Params, ParamsMut, Scalar, Shape, Tensor};

/// Parameters and nothing else.
#[derive(Clone)]
pub struct Bag<T = f64>(pub Vec<Param<T>>);

impl<T: Scalar> Bag<T> {
    /// One parameter.
    pub fn new(values: &[f64]) -> Self {
        let mut p = Param::new("weight", [values.len()], Init::ZEROS);
        p.set(Tensor::from_fn([values.len()], |i| T::from_f64(values[i]))).unwrap();
        Self(vec![p])
    }

    /// One parameter of each name and shape, of small values that differ.
    pub fn of(params: &[(&'static str, &[usize])]) -> Self {
        let one = |&(name, shape): &(&'static str, &[usize])| {
            let shape = Shape::new(shape).unwrap();
            let mut p = Param::new(name, shape, Init::ZEROS);
            p.set(Tensor::from_fn(shape, |i| T::from_f64(((i * 7) % 5) as f64 * 0.5 - 1.0))).unwrap();
            p
        };
        Self(params.iter().map(one).collect())
    }
}

impl<T: Scalar> Parameters for Bag<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.iter_mut().for_each(|p| out.add(p));
    }
}

/// Overwrites gradients with values that depend on the step.
pub fn fill<T: Scalar>(grads: &mut Grads<T>, t: usize) {
    for (i, g) in grads.values_mut().iter_mut().enumerate() {
        *g = T::from_f64(((i * 7 + t * 5) % 11) as f64 * 0.3 - 1.5);
    }
}

/// Runs an optimizer over given gradients and compares with a plain reference, element by element: `reference` moves one
/// w given g, its own state, and the step from 1.
pub fn compare<S: Default + Clone>(
    mut optimizer: impl Optimizer<f64>,
    reference: impl Fn(&mut f64, f64, &mut S, i32),
) {
    let start = [1.0, -2.0, 0.5, 3.0, 0.0];
    let mut bag = Bag::new(&start);
    let (mut want, mut state) = (start, vec![S::default(); start.len()]);
    let mut grads = Grads::new(&bag);
    for t in 1..=7 {
        fill(&mut grads, t);
        optimizer.step(&mut bag, &grads).unwrap();
        for ((w, s), &g) in want.iter_mut().zip(&mut state).zip(grads.values()) {
            reference(w, g, s, t as i32);
        }
        for (got, want) in bag.0[0].value().unwrap().iter().zip(want) {
            assert!((got - want).abs() < 1e-13, "step {t}: {got} for {want}");
        }
    }
}

/// Takes one step for each row of `want`, always with the same gradients, and compares the values of all parameters.
pub fn descends<const N: usize>(
    mut optimizer: impl Optimizer<f64>,
    g: &[f64],
    bag: &mut Bag,
    want: &[[f64; N]],
) {
    let mut grads = Grads::new(bag);
    for (t, want) in want.iter().enumerate() {
        grads.values_mut().copy_from_slice(g);
        optimizer.step(bag, &grads).unwrap();
        let got: Vec<f64> = bag.0.iter().flat_map(|p| p.value().unwrap().to_vec()).collect();
        assert_eq!(got.len(), N);
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-13, "step {t}: {got} for {want}");
        }
    }
}

/// The Euclidean norm.
pub fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// [`compare`] for rules that look at a whole tensor: `reference` moves the values of one given its gradient, three vectors of
/// state, 0 before the first step, and the step from 1.
pub fn compare_whole(
    mut optimizer: impl Optimizer<f64>,
    reference: impl Fn(&mut [f64], &[f64], &mut [Vec<f64>; 3], i32),
) {
    let mut bag = Bag::<f64>::of(&[("weight", &[2, 3]), ("bias", &[5])]);
    let mut want: Vec<Vec<f64>> = bag.0.iter().map(|p| p.value().unwrap().to_vec()).collect();
    let mut state: Vec<[Vec<f64>; 3]> = want.iter().map(|w| [0; 3].map(|_| vec![0.0; w.len()])).collect();
    let mut grads = Grads::new(&bag);
    for t in 1..=7 {
        fill(&mut grads, t);
        optimizer.step(&mut bag, &grads).unwrap();
        for ((w, s), p) in want.iter_mut().zip(&mut state).zip(&bag.0) {
            reference(w, grads.get(p).unwrap(), s, t as i32);
            for (got, want) in p.value().unwrap().iter().zip(w) {
                assert!((got - *want).abs() < 1e-13, "step {t}: {got} for {want}");
            }
        }
    }
}
