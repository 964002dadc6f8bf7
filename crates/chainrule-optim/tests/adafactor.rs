//! Adafactor (Shazeer and Stern, 2018) as a rule: its state has another shape than the weight.

use chainrule_core::{
    Grads, Init, Optimizer, OptimizerState, Param, Parameters, Params, ParamsMut, Scalar, Shape, StateValue,
    Tensor,
};
use chainrule_optim::{Driver, Rule, StateTensor, Update};

/// Of a matrix it keeps the row and column means of the second moment:
///
/// ```text
/// β = 1 − t^(−0.8)        q = g² + ε
/// R = β R + (1 − β) meanⱼ q        C = β C + (1 − β) meanᵢ q
/// u = g/√(R Cᵀ/mean R)    (g/√V with a full V for other shapes)
/// w ← w − η u/max(1, rms(u)/d)
/// ```
#[derive(Clone, Copy, Debug)]
struct Adafactor {
    eps: f64,
    clip: f64,
}

fn matrix(shape: &Shape) -> Option<[usize; 2]> {
    <[usize; 2]>::try_from(&shape[..]).ok()
}

impl<T: Scalar> Rule<T> for Adafactor {
    const KIND: &'static str = "Adafactor";
    const DECOUPLED: bool = true;

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        match matrix(shape) {
            Some([rows, columns]) => {
                vec![StateTensor::new("row_var", [rows]), StateTensor::new("col_var", [columns])]
            }
            None => vec![StateTensor::new("variance", *shape)],
        }
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, shape, t, rate, .. } = update;
        let beta = 1.0 - (t as f64).powf(-0.8);
        let average = |of: &mut T, mean: f64| *of = T::from_f64(beta * of.to_f64() + (1.0 - beta) * mean);
        let q = |g: T| g.to_f64() * g.to_f64() + self.eps;
        let mut u: Vec<f64> = g.iter().map(|g| g.to_f64()).collect();
        match (state, matrix(shape)) {
            ([r, c], Some([rows, columns])) => {
                for (i, r) in r.data_mut().iter_mut().enumerate() {
                    average(
                        r,
                        g[i * columns..][..columns].iter().map(|&g| q(g)).sum::<f64>() / columns as f64,
                    );
                }
                for (j, c) in c.data_mut().iter_mut().enumerate() {
                    average(c, (0..rows).map(|i| q(g[i * columns + j])).sum::<f64>() / rows as f64);
                }
                let mean = r.data().iter().map(|r| r.to_f64()).sum::<f64>() / rows as f64;
                for (at, u) in u.iter_mut().enumerate() {
                    let (r, c) = (r.data()[at / columns].to_f64(), c.data()[at % columns].to_f64());
                    *u /= (r * c / mean).sqrt();
                }
            }
            ([v], _) => {
                for ((u, v), &g) in u.iter_mut().zip(v.data_mut()).zip(g) {
                    average(v, q(g));
                    *u /= v.to_f64().sqrt();
                }
            }
            _ => unreachable!("the state is that of the shape"),
        }
        let rms = (u.iter().map(|u| u * u).sum::<f64>() / u.len() as f64).sqrt();
        let rate = rate / (rms / self.clip).max(1.0);
        w.iter_mut().zip(&u).for_each(|(w, u)| *w -= T::from_f64(rate * u));
    }
}

struct Model(Vec<Param<f64>>);

impl Model {
    fn new() -> Self {
        let one = |name, shape: Shape| {
            let mut p = Param::new(name, shape, Init::ONES);
            p.set(Tensor::full(shape, 1.0)).unwrap();
            p
        };
        Self(vec![one("weight", Shape::from([2, 2])), one("bias", Shape::from([2]))])
    }

    fn values(&self) -> Vec<Vec<f64>> {
        self.0.iter().map(|p| p.value().unwrap().to_vec()).collect()
    }
}

impl Parameters for Model {
    type T = f64;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
        self.0.iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
        self.0.iter_mut().for_each(|p| out.add(p));
    }
}

fn adafactor() -> Driver<Adafactor, f64> {
    Driver::from_rule(Adafactor { eps: 0.0, clip: 2.0 }, 0.5)
}

/// β = 0 on the first step. G = [1 1; 1 7]: R = (1, 25), C = (1, 25), mean R = 13, V = R Cᵀ/13 = [1 25; 25 625]/13,
/// u = √13 [1, 1/5; 1/5, 7/25], whose rms is √(13 (1 + 2/25 + 49/625)/4) = √(13 · 724/2500) < 2: no clipping.
/// b: u = sign(g).
#[test]
fn a_step_by_hand() {
    let mut model = Model::new();
    let (mut optimizer, mut grads) = (adafactor(), Grads::new(&model));
    grads.values_mut().copy_from_slice(&[1.0, 1.0, 1.0, 7.0, -3.0, 0.5]);
    optimizer.step(&mut model, &grads).unwrap();
    let root = 13f64.sqrt();
    let want = [1.0, 0.2, 0.2, 0.28].map(|u| 1.0 - 0.5 * root * u);
    let got = model.values();
    assert!(got[0].iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-14), "{got:?}");
    assert_eq!(got[1], [1.5, 0.5]);
    let state = OptimizerState::of(&optimizer, &model).unwrap();
    let values = |of: &[f64; 2]| Some(StateValue::Values(Tensor::from(*of)));
    assert_eq!(state.get("weight", "row_var"), values(&[1.0, 25.0]).as_ref());
    assert_eq!(state.get("weight", "col_var"), values(&[1.0, 25.0]).as_ref());
    assert_eq!(state.get("bias", "variance"), values(&[9.0, 0.25]).as_ref());
    assert_eq!(state.len(), 5);
}

#[test]
fn factored_state_is_restored_by_name_bit_for_bit() {
    let fill = |grads: &mut Grads<f64>, t: usize| {
        grads.values_mut().iter_mut().enumerate().for_each(|(i, g)| *g = ((i * 7 + t * 5) % 11) as f64 - 4.9);
    };
    let (mut whole, mut part, mut heir) = (Model::new(), Model::new(), Model::new());
    let (mut one, mut two, mut three) =
        (adafactor().weight_decay(0.1), adafactor().weight_decay(0.1), adafactor());
    three = three.weight_decay(0.1);
    let mut grads = [&whole, &part, &heir].map(Grads::new);
    for t in 0..10 {
        grads.iter_mut().for_each(|g| fill(g, t));
        one.step(&mut whole, &grads[0]).unwrap();
        if t < 5 {
            two.step(&mut part, &grads[1]).unwrap();
            continue;
        }
        if t == 5 {
            heir.0
                .iter_mut()
                .zip(&part.0)
                .for_each(|(to, from)| to.set(from.tensor().unwrap().clone()).unwrap());
            three.restore_state(&heir, OptimizerState::of(&two, &part).unwrap()).unwrap();
        }
        three.step(&mut heir, &grads[2]).unwrap();
    }
    assert_eq!(whole.values(), heir.values());
}
