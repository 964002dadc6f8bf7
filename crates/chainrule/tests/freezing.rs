//! Freezing, thawing and groups, of every optimizer of the registry: what is frozen keeps its bits, and nothing else notices.

use chainrule::{
    core::{StateValue, Value},
    prelude::*,
};
use std::collections::BTreeMap;

/// Parameters and nothing else.
struct Bag(Vec<Param<f32>>);

impl Bag {
    fn of(names: &[&'static str]) -> Self {
        let one = |&name: &&'static str| {
            let shape = match name {
                "a" => Shape::from([3, 4]),
                "b" => [5, 2].into(),
                _ => [7].into(),
            };
            let mut p = Param::new(name, shape, Init::ZEROS);
            p.set(Tensor::from_fn(shape, |i| ((i * 7 + name.len()) % 5) as f32 * 0.5 - 0.9)).unwrap();
            p
        };
        Self(names.iter().map(one).collect())
    }

    /// Gradients that depend on the parameter's name and on the step, not on what other parameters there are.
    fn grads(&self, step: usize) -> Grads<f32> {
        let mut grads = Grads::new(self);
        for p in &self.0 {
            let seed = usize::from(p.name().as_bytes()[0]);
            if let Some(g) = grads.of(p) {
                let value = |i: usize| ((i * 7 + step * 5 + seed) % 11) as f32 * 0.3 - 1.4;
                g.iter_mut().enumerate().for_each(|(i, g)| *g = value(i));
            }
        }
        grads
    }

    fn bits(&self, name: &str) -> Vec<u32> {
        let of = |p: &&Param<f32>| p.name() == name;
        self.0
            .iter()
            .find(of)
            .map_or_else(Vec::new, |p| p.value().unwrap().iter().map(|v| v.to_bits()).collect())
    }
}

impl Parameters for Bag {
    type T = f32;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
        self.0.iter().for_each(|p| out.add(p));
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) {
        self.0.iter_mut().for_each(|p| out.add(p));
    }
}

/// Of all parameters together: a norm, a line. Others see one tensor at a time.
const TOGETHER: &[&str] = &["Lbfgs", "Sam"];

fn all() -> Vec<Spec> {
    let registry = chainrule_parity::registry::<f32>();
    let examples = registry.optimizers().flat_map(|entry| (entry.examples)());
    examples.filter(|example| !example.bench).map(|example| example.spec).collect()
}

fn build(spec: &Spec) -> Box<dyn Optimizer<f32>> {
    chainrule_parity::registry::<f32>().build_optimizer(spec).unwrap()
}

/// The state of one parameter.
fn state(optimizer: &dyn Optimizer<f32>, bag: &Bag, of: &str) -> BTreeMap<String, Vec<u64>> {
    let mut all = BTreeMap::new();
    let mut visit = |path: &str, name: &str, value: StateValue<&Tensor>| {
        if path == of {
            let bits = match value {
                StateValue::Values(v) => v.data().iter().map(|v| v.to_bits().into()).collect(),
                StateValue::Count(n) => vec![n],
            };
            all.insert(name.to_owned(), bits);
        }
    };
    optimizer.visit_state(bag, &mut visit).unwrap();
    all
}

/// An even number, after which Sam stands where it began.
const PHASE: usize = 4;

#[test]
fn what_is_frozen_keeps_its_bits_and_what_is_thawed_moves_again() {
    for spec in all().into_iter().filter(|spec| spec.kind() != "Lbfgs") {
        let (mut bag, mut optimizer) = (Bag::of(&["a", "b", "c"]), build(&spec));
        for (phase, frozen) in [false, true, false, true, false].into_iter().enumerate() {
            bag.set_frozen(frozen, &|path| path == "b");
            let (b, others) = (bag.bits("b"), [bag.bits("a"), bag.bits("c")]);
            for step in 0..PHASE {
                let grads = bag.grads(phase * PHASE + step);
                optimizer.step(&mut bag, &grads).unwrap();
                assert!(!frozen || bag.bits("b") == b, "{spec}: b moved in phase {phase}");
            }
            assert!(frozen || bag.bits("b") != b, "{spec}: b did not move in phase {phase}");
            assert!(
                [bag.bits("a"), bag.bits("c")] != others,
                "{spec}: a and c did not move in phase {phase}"
            );
        }
    }
}

/// Its history is of all parameters together: others than before are an error, and after `reset` it begins with them.
#[test]
fn lbfgs_refuses_others_and_begins_anew_after_a_reset() {
    for spec in all().into_iter().filter(|spec| spec.kind() == "Lbfgs") {
        let (mut bag, mut optimizer) = (Bag::of(&["a", "b", "c"]), build(&spec));
        let grads = bag.grads(0);
        optimizer.step(&mut bag, &grads).unwrap();
        bag.set_frozen(true, &|path| path == "b");
        let (grads, b) = (bag.grads(1), bag.bits("b"));
        let text = optimizer.step(&mut bag, &grads).unwrap_err().to_string();
        assert!(text.contains("expected the trainable parameters of the first step"), "{text}");
        optimizer.reset();
        let a = bag.bits("a");
        optimizer.step(&mut bag, &grads).unwrap();
        assert!(bag.bits("b") == b && bag.bits("a") != a, "{spec}");
    }
}

/// a and c, and what the optimizer keeps for them, are those of a run in which b is never frozen, and of one without b.
#[test]
fn the_others_and_their_state_are_untouched() {
    for spec in all().iter().filter(|spec| !TOGETHER.contains(&spec.kind())) {
        let run = |names: &[&'static str], freezes: bool| {
            let (mut bag, mut optimizer) = (Bag::of(names), build(spec));
            for step in 0..5 * PHASE {
                bag.set_frozen(freezes && (step / PHASE) % 2 == 1, &|path| path == "b");
                let grads = bag.grads(step);
                optimizer.step(&mut bag, &grads).unwrap();
            }
            let of = |name| (bag.bits(name), state(&*optimizer, &bag, name));
            [of("a"), of("c")]
        };
        let want = run(&["a", "b", "c"], false);
        assert!(run(&["a", "b", "c"], true) == want, "{spec}: b was frozen for a while");
        assert!(run(&["a", "c"], false) == want, "{spec}: there is no b");
    }
}

/// What was frozen from the start begins, when it is thawed, as a parameter that is new. Lookahead's period is that of all.
#[test]
fn what_was_frozen_from_the_start_begins_anew() {
    let together = |spec: &Spec| TOGETHER.contains(&spec.kind()) || spec.kind() == "Lookahead";
    for spec in all().iter().filter(|spec| !together(spec)) {
        let (mut bag, mut optimizer) = (Bag::of(&["a", "b"]), build(spec));
        bag.set_frozen(true, &|path| path == "b");
        for step in 0..2 * PHASE {
            if step == PHASE {
                bag.set_frozen(false, &|_| true);
            }
            let grads = bag.grads(step);
            optimizer.step(&mut bag, &grads).unwrap();
        }
        let (mut alone, mut optimizer) = (Bag::of(&["b"]), build(spec));
        for step in PHASE..2 * PHASE {
            let grads = alone.grads(step);
            optimizer.step(&mut alone, &grads).unwrap();
        }
        assert!(bag.bits("b") == alone.bits("b"), "{spec}");
    }
}

/// A group's parameters move as by an optimizer of their own with the group's settings, the others as without the group.
#[test]
fn a_group_moves_as_by_an_optimizer_of_its_own() {
    let mut grouped = 0;
    for spec in all() {
        let group = Spec::new("Prefix").with("prefix", "b").with("learning_rate_scale", 0.25);
        let with = spec.clone().with("groups", vec![Value::from(group)]);
        let registry = chainrule_parity::registry::<f32>();
        // Wrappers leave groups to what is inside, and L-BFGS has none.
        let Ok(optimizer) = registry.build_optimizer(&with) else { continue };
        let run = |mut optimizer: Box<dyn Optimizer<f32>>, names: &[&'static str]| {
            let mut bag = Bag::of(names);
            for step in 0..2 * PHASE {
                let grads = bag.grads(step);
                optimizer.step(&mut bag, &grads).unwrap();
            }
            bag
        };
        let all = run(optimizer, &["a", "b", "c"]);
        let plain = run(build(&spec), &["a", "c"]);
        let mut scaled = build(&spec);
        scaled.set_learning_rate(scaled.learning_rate() * 0.25);
        let alone = run(scaled, &["b"]);
        assert!(all.bits("a") == plain.bits("a") && all.bits("c") == plain.bits("c"), "{spec}");
        assert!(all.bits("b") == alone.bits("b"), "{spec}");
        grouped += 1;
    }
    assert!(grouped > 40, "{grouped}");
}
