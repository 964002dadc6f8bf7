//! Every optimizer goes down a badly conditioned bowl and Rosenbrock's valley, in a given number of steps below a given loss.

use chainrule_core::{
    Evaluation, Grads, Init, Optimizer, Param, Parameters, Params, ParamsMut, Result, Schedule, Tensor,
};
use chainrule_optim::{
    AdEMAMix, AdaBelief, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Adan, Asgd, Lamb, Lars, Lbfgs,
    Lion, Lookahead, Muon, NAdam, NovoGrad, OptaxAdafactor, RAdam, RmsProp, Rprop, Sam, ScheduleFreeAdamW,
    ScheduleFreeSgd, Sgd, Yogi, schedule::Cosine,
};

/// Where the bowl is entered.
const START: [f64; 10] = [1.0, -0.5, 2.0, 0.3, -1.0, 1.5, -2.0, 0.7, 1.2, -0.8];

/// One matrix, so that factored and orthogonalised steps have rows and columns.
struct Point(Param<f64>);

impl Point {
    fn new(shape: [usize; 2], values: &[f64]) -> Self {
        let mut p = Param::new("weight", shape, Init::ZEROS);
        p.set(Tensor::from_vec(shape, values.to_vec()).unwrap()).unwrap();
        Self(p)
    }
}

impl Parameters for Point {
    type T = f64;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
        out.add(&self.0);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
        out.add(&mut self.0);
    }
}

/// E and its gradient at w.
type Function = fn(&[f64], &mut [f64]) -> f64;

/// (I − 2 v vᵀ) w for the unit vector v of equal elements: the axes of the bowl are none of the parameters'.
fn reflect(w: &[f64]) -> Vec<f64> {
    let twice_mean = 2.0 * w.iter().sum::<f64>() / w.len() as f64;
    w.iter().map(|w| w - twice_mean).collect()
}

/// E = ½ Σ λᵢ uᵢ² with u the reflected w, λ from 1 to 1000 in equal ratios.
fn bowl(w: &[f64], g: &mut [f64]) -> f64 {
    let lambda = |i: usize| 1000f64.powf(i as f64 / 9.0);
    let u = reflect(w);
    let du: Vec<f64> = u.iter().enumerate().map(|(i, u)| lambda(i) * u).collect();
    g.copy_from_slice(&reflect(&du));
    0.5 * u.iter().zip(&du).map(|(u, du)| u * du).sum::<f64>()
}

/// E = (1 − x)² + 100 (y − x²)².
fn valley(w: &[f64], g: &mut [f64]) -> f64 {
    let [x, y] = [w[0], w[1]];
    g[0] = -2.0 * (1.0 - x) - 400.0 * x * (y - x * x);
    g[1] = 200.0 * (y - x * x);
    (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2)
}

/// E after so many steps at a rate that rises for a hundred steps and falls along a cosine.
fn descend(
    optimizer: &mut dyn Optimizer<f64>,
    function: Function,
    point: &mut Point,
    steps: u64,
) -> Result<f64> {
    let (mut grads, rate, schedule) = (Grads::new(point), optimizer.learning_rate(), Cosine::new(steps));
    let gradient = |point: &Point, grads: &mut Grads<f64>| Ok(function(point.0.value()?, grads.values_mut()));
    for step in 0..steps {
        let warmup = ((step + 1) as f64 / 100.0).min(1.0);
        optimizer.set_learning_rate(rate * warmup * schedule.factor(step));
        optimizer.step_with(&mut Evaluation::new(point, &mut grads, gradient))?;
    }
    Ok(function(point.0.value()?, grads.values_mut()))
}

type Make = fn(f64) -> Box<dyn Optimizer<f64>>;

/// Every kind, and its [rate, loss to be reached] in the bowl and in the valley. The rates are the best of a search over powers of
/// √10; the loss is ten times what was reached there, and 10⁻⁶ at least. Methods that average or disturb the weights reach less.
const ALL: &[(&str, Make, [f64; 2], [f64; 2])] = &[
    ("AdEMAMix", |rate| Box::new(AdEMAMix::new(rate)), [10.0, 1e-3], [3.0, 1e-3]),
    ("AdaBelief", |rate| Box::new(AdaBelief::new(rate)), [1.0, 1e-6], [0.3, 1e-6]),
    ("Adadelta", |rate| Box::new(Adadelta::new(rate)), [10.0, 1e-6], [1.0, 1e-3]),
    ("Adafactor", |rate| Box::new(Adafactor::new(rate)), [10.0, 1e-4], [0.03, 1e-2]),
    ("OptaxAdafactor", |rate| Box::new(OptaxAdafactor::new(rate)), [0.1, 1e-4], [0.03, 1e-2]),
    ("Adagrad", |rate| Box::new(Adagrad::new(rate)), [10.0, 1e-4], [1.0, 1e-2]),
    ("Adam", |rate| Box::new(Adam::new(rate)), [1.0, 1e-6], [1.0, 1e-6]),
    ("AdamW", |rate| Box::new(AdamW::new(rate).weight_decay(0.0)), [1.0, 1e-6], [1.0, 1e-6]),
    ("Adamax", |rate| Box::new(Adamax::new(rate)), [10.0, 1e-6], [1.0, 1e-6]),
    ("Adan", |rate| Box::new(Adan::new(rate)), [0.3, 1e-6], [0.003, 1e-6]),
    ("Asgd", |rate| Box::new(Asgd::new(rate)), [0.001, 1e-1], [0.003, 1e-2]),
    ("Lamb", |rate| Box::new(Lamb::new(rate)), [1.0, 1e-6], [0.01, 1e-6]),
    ("Lars", |rate| Box::new(Lars::new(rate)), [3.0, 1e-6], [1.0, 1e-6]),
    ("Lbfgs", |rate| Box::new(Lbfgs::new(rate)), [10.0, 1e-6], [10.0, 1e-6]),
    ("Lion", |rate| Box::new(Lion::new(rate)), [0.003, 1e-6], [0.03, 1e-6]),
    ("Lookahead", |rate| Box::new(Lookahead::new(Adam::new(rate))), [1.0, 1e-6], [0.3, 1e-6]),
    ("Muon", |rate| Box::new(Muon::new(rate)), [0.01, 1e-6], [0.003, 1e-6]),
    ("NAdam", |rate| Box::new(NAdam::new(rate)), [10.0, 1e-6], [0.3, 1e-5]),
    ("NovoGrad", |rate| Box::new(NovoGrad::new(rate)), [0.001, 1e-6], [3e-4, 1e-6]),
    ("RAdam", |rate| Box::new(RAdam::new(rate)), [0.3, 1e-1], [0.3, 1e-6]),
    ("RmsProp", |rate| Box::new(RmsProp::new(rate)), [0.3, 1e-6], [0.01, 1e-4]),
    ("Rprop", |rate| Box::new(Rprop::new(rate)), [0.03, 1e-6], [0.001, 1e-5]),
    ("Sam", |rate| Box::new(Sam::new(Sgd::new(rate).momentum(0.9))), [0.003, 1e-6], [1e-4, 1.0]),
    ("ScheduleFreeAdamW", |rate| Box::new(ScheduleFreeAdamW::new(rate)), [10.0, 1e-6], [0.3, 1e-3]),
    ("ScheduleFreeSgd", |rate| Box::new(ScheduleFreeSgd::new(rate)), [0.01, 1e-2], [0.03, 1e-1]),
    ("Sgd", |rate| Box::new(Sgd::new(rate).momentum(0.9)), [0.003, 1e-6], [0.003, 1e-6]),
    ("Yogi", |rate| Box::new(Yogi::new(rate)), [3.0, 1e-6], [1.0, 1e-6]),
];

#[test]
fn every_optimizer_reaches_the_bottom_of_a_badly_conditioned_bowl() {
    for &(kind, make, [rate, wanted], _) in ALL {
        let mut point = Point::new([2, 5], &START);
        let e = descend(&mut *make(rate), bowl, &mut point, 3000).unwrap();
        assert!(e < wanted, "{kind}: expected a loss below {wanted:e}, got {e:e}");
    }
}

#[test]
fn every_optimizer_goes_along_rosenbrocks_valley() {
    for &(kind, make, _, [rate, wanted]) in ALL {
        let mut point = Point::new([1, 2], &[-1.2, 1.0]);
        let e = descend(&mut *make(rate), valley, &mut point, 5000).unwrap();
        assert!(e < wanted, "{kind}: expected a loss below {wanted:e}, got {e:e}");
    }
}

#[test]
fn the_table_has_every_kind() {
    let registry = chainrule_optim::registry::<f64>();
    let kinds: Vec<&str> = registry.optimizers().map(|entry| entry.facts.kind).collect();
    let mut listed: Vec<&str> = ALL.iter().map(|(kind, ..)| *kind).collect();
    listed.sort_unstable();
    assert_eq!(listed, kinds);
    for &(kind, make, ..) in ALL {
        assert_eq!(make(0.1).spec().kind(), kind);
    }
}
