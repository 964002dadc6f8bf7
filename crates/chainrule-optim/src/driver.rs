//! What every optimizer does around its rule: find each parameter's gradient, state and settings, and check them.

use crate::Group;
use chainrule_core::{Error, Grads, Param, ParamId, Parameters, Result, Scalar, Tensor};
use std::ops::Range;

/// Settings, groups and the flat state of an optimizer. `N` numbers are kept for each parameter's number.
#[derive(Clone, Debug)]
pub struct Driver<T, const N: usize> {
    pub rate: f64,
    pub weight_decay: f64,
    pub maximize: bool,
    pub groups: Vec<Group>,
    state: [Tensor<T>; N],
    /// Sorted by id.
    entries: Vec<Entry>,
}

/// One parameter.
#[derive(Clone, Debug)]
struct Entry {
    id: ParamId,
    range: Range<usize>,
    group: Option<usize>,
    steps: u64,
}

/// One parameter's turn.
pub struct Turn<'a, T, const N: usize> {
    pub w: &'a mut [T],
    pub g: &'a [T],
    pub state: [&'a mut [T]; N],
    /// How often this parameter was moved, this time included.
    pub t: u64,
    pub rate: f64,
    pub weight_decay: f64,
    /// −1 to climb, else 1.
    pub sign: T,
}

impl<T: Scalar, const N: usize> Driver<T, N> {
    pub fn new(rate: f64, weight_decay: f64) -> Self {
        Self {
            rate,
            weight_decay,
            maximize: false,
            groups: Vec::new(),
            state: std::array::from_fn(|_| Tensor::default()),
            entries: Vec::new(),
        }
    }

    /// Whether the settings that all optimizers have make sense.
    pub fn check(&self, name: &str) -> Result<()> {
        not_negative(name, "learning rate", self.rate)?;
        not_negative(name, "weight decay", self.weight_decay)?;
        self.groups.iter().try_for_each(|group| {
            not_negative(name, "learning rate scale of a group", group.rate_scale)?;
            not_negative(name, "weight decay of a group", group.weight_decay.unwrap_or(0.0))
        })
    }

    /// Calls `rule` for every trainable parameter.
    pub fn step(
        &mut self,
        model: &mut dyn Parameters<T>,
        grads: &Grads<T>,
        rule: impl Fn(Turn<'_, T, N>),
    ) -> Result<()> {
        if self.entries.is_empty() {
            self.enter(model, grads)?;
        }
        if self.state.iter().any(|s| s.len() != grads.values().len()) {
            return Err(foreign("the gradients have another number of parameters than at the first step"));
        }
        let mut result = Ok(());
        let sign = if self.maximize { -T::ONE } else { T::ONE };
        model.visit_mut(&mut |path, p| {
            if result.is_err() || !p.trainable() {
                return;
            }
            let Ok(at) = self.entries.binary_search_by_key(&p.id(), |e| e.id) else {
                result = Err(foreign("it was not there at the first step").in_layer(path.to_string()));
                return;
            };
            let entry = &mut self.entries[at];
            let range = entry.range.clone();
            let Some(g) = grads.values().get(range.clone()) else {
                result = Err(foreign("the gradients end before it").in_layer(path.to_string()));
                return;
            };
            let group = entry.group.map(|g| &self.groups[g]);
            match p.value_mut() {
                Err(error) => result = Err(error.in_layer(path.to_string())),
                Ok(w) => {
                    entry.steps += 1;
                    rule(Turn {
                        w,
                        g,
                        state: self.state.each_mut().map(|s| &mut s.data_mut()[range.clone()]),
                        t: entry.steps,
                        rate: self.rate * group.map_or(1.0, |g| g.rate_scale),
                        weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(self.weight_decay),
                        sign,
                    });
                }
            }
        });
        result
    }

    /// Lays the state out as the gradients are, and puts parameters into groups.
    fn enter(&mut self, model: &dyn Parameters<T>, grads: &Grads<T>) -> Result<()> {
        let (mut entries, mut missing) = (Vec::new(), None);
        model.visit(&mut |path, p: &Param<T>| {
            if p.is_buffer() {
                return;
            }
            let path = path.to_string();
            match grads.range(p) {
                Some(range) => {
                    let group = self.groups.iter().position(|g| g.wants(&path, p.shape()));
                    entries.push(Entry { id: p.id(), range, group, steps: 0 });
                }
                None => missing = Some(path),
            }
        });
        if let Some(path) = missing {
            return Err(foreign("they were made for another model").in_layer(path));
        }
        entries.sort_by_key(|e| e.id);
        entries.dedup_by_key(|e| e.id);
        self.entries = entries;
        self.state.iter_mut().for_each(|s| *s = Tensor::zeros([grads.values().len()]));
        Ok(())
    }
}

#[cold]
fn foreign(why: &str) -> Error {
    Error::state(format!("expected gradients of this model: {why}"))
}

pub fn not_negative(optimizer: &str, name: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{optimizer}: expected a finite {name} from 0, got {value}")))
}

pub fn below_one(optimizer: &str, name: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::value(format!("{optimizer}: expected {name} in [0, 1), got {value}")))
}

/// The settings that every optimizer has, as builder methods.
macro_rules! common_settings {
    ($optimizer:ident) => {
        impl<T: chainrule_core::Scalar> $optimizer<T> {
            /// The factor λ of weight decay.
            #[must_use]
            pub fn weight_decay(mut self, weight_decay: f64) -> Self {
                self.driver.weight_decay = weight_decay;
                self
            }

            /// Climbs instead of descends.
            #[must_use]
            pub fn maximize(mut self, maximize: bool) -> Self {
                self.driver.maximize = maximize;
                self
            }

            /// Gives some parameters settings of their own.
            #[must_use]
            pub fn group(mut self, group: crate::Group) -> Self {
                self.driver.groups.push(group);
                self
            }
        }
    };
}
pub(crate) use common_settings;

#[cfg(test)]
pub mod tests {
    use super::*;
    use chainrule_core::{Call, Context, Init, Layer, Optimizer, Params, ParamsMut, Shape, Tensor};

    /// Parameters and nothing else.
    #[derive(Clone)]
    pub struct Bag(pub Vec<Param<f64>>);

    impl Bag {
        pub fn new(values: &[f64]) -> Self {
            let mut p = Param::new("weight", [values.len()], Init::ZEROS);
            p.set(Tensor::from_vec([values.len()], values.to_vec()).unwrap()).unwrap();
            Self(vec![p])
        }
    }

    impl Layer<f64> for Bag {
        type Cache = ();
        fn output_shape(&self, input: &[usize]) -> Result<Shape> {
            Shape::new(input)
        }
        fn forward(&self, x: &Tensor<f64>, y: &mut Tensor<f64>, _: &mut (), _: &mut Context) -> Result<()> {
            y.copy_from(x);
            Ok(())
        }
        fn backward(
            &self,
            _: Call<'_, f64>,
            _: &mut (),
            _: &mut Grads<f64>,
            _: Option<&mut Tensor<f64>>,
        ) -> Result<()> {
            Ok(())
        }
        fn params<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
            self.0.iter().for_each(|p| out.add(p));
        }
        fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
            self.0.iter_mut().for_each(|p| out.add(p));
        }
    }

    /// Runs an optimizer over given gradients and compares with a plain reference, number by number: `reference` moves one w
    /// given g and its own state.
    pub fn agrees_with_reference<S: Default + Clone>(
        mut optimizer: impl Optimizer<f64>,
        reference: impl Fn(&mut f64, f64, &mut S, i32),
    ) {
        let start = [1.0, -2.0, 0.5, 3.0, 0.0];
        let mut bag = Bag::new(&start);
        let (mut want, mut state) = (start, vec![S::default(); start.len()]);
        let mut grads = Grads::new(&bag);
        for t in 1..=7 {
            for (i, g) in grads.values_mut().iter_mut().enumerate() {
                *g = ((i * 7 + t * 5) % 11) as f64 * 0.3 - 1.5;
            }
            optimizer.step(&mut bag, &grads).unwrap();
            for ((w, s), &g) in want.iter_mut().zip(&mut state).zip(grads.values()) {
                reference(w, g, s, t as i32);
            }
            for (got, want) in bag.0[0].value().unwrap().iter().zip(want) {
                assert!((got - want).abs() < 1e-13, "step {t}: {got} for {want}");
            }
        }
    }

    #[test]
    fn groups_freezing_and_foreign_gradients() {
        let named = |name, shape: Shape| {
            let mut p = Param::new(name, shape, Init::ONES);
            p.fill(&mut chainrule_core::Rng::new(0));
            p
        };
        let mut bag = Bag(vec![
            named("weight", Shape::from([1, 1])),
            named("bias", Shape::from([1])),
            named("head", Shape::from([1, 1])),
            named("frozen", Shape::from([1, 1])),
        ]);
        bag.set_frozen(true, &|path| path == "frozen");
        let mut grads = Grads::new(&bag);
        grads.values_mut().fill(1.0);
        let mut sgd = crate::Sgd::new(0.1)
            .weight_decay(1.0)
            .group(Group::matching(|path| path == "head").learning_rate_scale(2.0))
            .group(Group::biases_and_norms().weight_decay(0.0));
        sgd.step(&mut bag, &grads).unwrap();
        let w: Vec<f64> = bag.0.iter().map(|p| p.value().unwrap()[0]).collect();
        // 1 − 0.1 (1 + 1), 1 − 0.1 · 1, 1 − 0.2 (1 + 1), unmoved.
        for (got, want) in w.iter().zip([0.8, 0.9, 0.6, 1.0]) {
            assert!((got - want).abs() < 1e-15, "{w:?}");
        }
        let other = Bag::new(&[1.0, 2.0]);
        assert!(sgd.step(&mut bag, &Grads::new(&other)).is_err());
        assert!(crate::Sgd::new(0.1).step(&mut bag, &Grads::new(&other)).is_err());
        assert!(crate::Sgd::new(-0.1).step(&mut bag, &grads).is_err());
        let mut empty = Bag(vec![Param::new("weight", [1], Init::ONES)]);
        let grads = Grads::new(&empty);
        let text = crate::Sgd::new(0.1).step(&mut empty, &grads).unwrap_err().to_string();
        assert!(text.contains("has no numbers yet"), "{text}");
    }
}
