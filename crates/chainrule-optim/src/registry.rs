//! The catalogue of optimizers and schedules.

use crate::*;
use chainrule_core::{Registry, Scalar};

/// One line a kind. An optimizer does not compile under test without a hand-worked example (`tests::by_hand`) and a
/// comparison with a plain reference (`tests::agrees_with_reference`), nor a schedule without the first.
macro_rules! catalogue {
    (
        optimizers { $($optimizer:ident => $file:ident,)* }
        schedules { $($schedule:ident => $schedule_file:ident,)* }
    ) => {
        /// Every optimizer and every schedule of this crate.
        ///
        /// ```
        /// use chainrule_core::Spec;
        /// let spec = Spec::new("Adam").with("lr", 3e-4).with("amsgrad", true);
        /// let adam = chainrule_optim::registry::<f32>().build_optimizer(&spec)?;
        /// assert_eq!(adam.learning_rate(), 3e-4);
        /// # Ok::<(), chainrule_core::Error>(())
        /// ```
        pub fn registry<T: Scalar>() -> Registry<T> {
            Registry::new()
                $(.optimizer::<$optimizer<T>>())*
                $(.schedule::<schedule::$schedule>())*
        }

        #[cfg(test)]
        const PROOFS: &[(&str, &[fn()])] = &[
            $((stringify!($optimizer), &[crate::$file::tests::by_hand, crate::$file::tests::agrees_with_reference]),)*
            $((stringify!($schedule), &[schedule::$schedule_file::tests::by_hand]),)*
        ];
    };
}

catalogue! {
    optimizers {
        AdaBelief => adabelief,
        Adadelta => adadelta,
        Adafactor => adafactor,
        Adagrad => adagrad,
        Adam => adam,
        Adamax => adamax,
        AdamW => adamw,
        Adan => adan,
        AdEMAMix => ademamix,
        Asgd => asgd,
        Lamb => lamb,
        Lars => lars,
        Lbfgs => lbfgs,
        Lion => lion,
        Lookahead => lookahead,
        Muon => muon,
        NAdam => nadam,
        NovoGrad => novograd,
        OptaxAdafactor => optax_adafactor,
        RAdam => radam,
        RmsProp => rmsprop,
        Rprop => rprop,
        Sam => sam,
        ScheduleFreeAdamW => schedule_free_adamw,
        ScheduleFreeSgd => schedule_free_sgd,
        Sgd => sgd,
        Yogi => yogi,
    }
    schedules {
        Chained => chained,
        Constant => constant,
        Cosine => cosine,
        Cyclic => cyclic,
        Exponential => exponential,
        InverseTime => inverse_time,
        LinearWarmup => linear_warmup,
        MultiStep => multi_step,
        Noam => noam,
        OneCycle => one_cycle,
        Piecewise => piecewise,
        Polynomial => polynomial,
        Sequence => sequence,
        Step => step,
        Trapezoid => trapezoid,
        WarmRestarts => warm_restarts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Example, Facts, Optimizer, Schedule, Spec};
    use std::path::Path;

    const NOT_IN_PYTORCH: &[&str] = &[
        "AdaBelief",
        "Adan",
        "AdEMAMix",
        "Lamb",
        "Lars",
        "Lion",
        "NovoGrad",
        "OptaxAdafactor",
        "Yogi",
        "Lookahead",
        "Sam",
        "ScheduleFreeAdamW",
        "ScheduleFreeSgd",
        "InverseTime",
        "Noam",
        "Piecewise",
        "Trapezoid",
    ];

    /// Default learning rates, PyTorch's where it has the optimizer, other than 1e-3.
    const RATES: &[(&str, f64)] = &[
        ("Adadelta", 1.0),
        ("Adafactor", 1e-2),
        ("Adagrad", 1e-2),
        ("Adamax", 2e-3),
        ("Asgd", 1e-2),
        ("Lbfgs", 1.0),
        ("Lion", 1e-4),
        ("NAdam", 2e-3),
        ("OptaxAdafactor", 1.0),
        ("RmsProp", 1e-2),
        ("Rprop", 1e-2),
        ("ScheduleFreeAdamW", 25e-4),
        ("ScheduleFreeSgd", 1.0),
        ("Yogi", 1e-2),
    ];

    fn complete(facts: Facts, examples: &[Example]) {
        let Facts { kind, family, formula, page, torch, .. } = facts;
        assert!(!family.is_empty() && !formula.is_empty(), "{kind}");
        assert_eq!(torch.is_none(), NOT_IN_PYTORCH.contains(&kind), "{kind}");
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
        assert!(page.is_file(), "{kind}: {} is missing", page.display());
        assert!(PROOFS.iter().any(|(name, proofs)| *name == kind && !proofs.is_empty()), "{kind}");
        assert!(examples.iter().any(|e| !e.bench), "{kind} has no small example");
        assert!(examples.iter().all(|e| e.spec.kind() == kind));
    }

    fn walk<T: Scalar>() {
        let registry = registry::<T>();
        for entry in registry.optimizers() {
            let examples = (entry.examples)();
            complete(entry.facts, &examples);
            assert!(examples.iter().any(|e| e.bench), "{:?} has no bench", entry.facts);
            for Example { spec, .. } in examples {
                let spec = registry.build_optimizer(&spec).unwrap().spec();
                assert_eq!(registry.build_optimizer(&spec).unwrap().spec(), spec, "{spec}");
            }
            let mut defaults = Spec::new(entry.facts.kind);
            if ["Lookahead", "Sam"].contains(&entry.facts.kind) {
                defaults = defaults.child("base", Spec::new("Adam"));
            }
            let defaults = registry.build_optimizer(&defaults).unwrap();
            let rate =
                RATES.iter().find(|(kind, _)| *kind == entry.facts.kind).map_or(1e-3, |(_, rate)| *rate);
            assert_eq!(defaults.learning_rate(), rate, "{}: the default", entry.facts.kind);
            let unknown = Spec::new(entry.facts.kind).with("learning_rate", 0.1);
            assert!(registry.build_optimizer(&unknown).is_err());
        }
        for entry in registry.schedules() {
            let examples = (entry.examples)();
            complete(entry.facts, &examples);
            for Example { spec, .. } in examples {
                let built = registry.build_schedule(&spec).unwrap();
                assert_eq!(built.spec(), spec);
                assert!((0..99).all(|t| built.factor(t).is_finite()));
            }
        }
    }

    #[test]
    fn every_kind_is_complete_and_comes_back_from_its_spec() {
        walk::<f32>();
        walk::<f64>();
    }

    #[test]
    fn groups_come_back_and_predicates_do_not() {
        use crate::Group;
        let head = Group::prefix("head.").learning_rate_scale(10.0);
        let adam = Adam::<f32>::new(0.1).group(head).group(Group::biases_and_norms().weight_decay(0.0));
        let spec = adam.spec();
        let again = registry::<f32>().build_optimizer(&spec).unwrap().spec();
        assert_eq!(again, spec);
        let text = spec.to_string();
        assert!(
            text.contains("groups=(Prefix(prefix=head., learning_rate_scale=10.0), BiasesAndNorms("),
            "{text}"
        );
        let closure = Adam::<f32>::new(0.1).group(Group::matching(|_| true)).spec();
        assert!(registry::<f32>().build_optimizer(&closure).is_err());
    }

    #[test]
    fn settings_that_make_no_sense_are_not_built() {
        let registry = registry::<f32>();
        assert!(registry.build_optimizer(&Spec::new("Sgd").with("lr", 1e300)).is_err());
        assert!(registry.build_schedule(&Spec::new("Step").with("step_size", 0)).is_err());
        let never = schedule::Constant::new().then(0, schedule::Constant::new()).spec();
        assert!(registry.build_schedule(&never).is_err());
    }
}
