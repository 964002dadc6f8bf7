//! The catalogue of optimizers and schedules.

use crate::{Adam, AdamW, Sgd, schedule};
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
        Adam => adam,
        AdamW => adamw,
        Sgd => sgd,
    }
    schedules {
        Constant => constant,
        Cosine => cosine,
        LinearWarmup => linear_warmup,
        Sequence => sequence,
        Step => step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Example, Facts, Optimizer, Schedule, Spec};
    use std::path::Path;

    fn complete(facts: Facts, examples: &[Example]) {
        let Facts { kind, family, formula, page, torch, .. } = facts;
        assert!(!family.is_empty() && !formula.is_empty() && torch.is_some(), "{kind}");
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
            let defaults = registry.build_optimizer(&Spec::new(entry.facts.kind)).unwrap();
            assert_eq!(defaults.learning_rate(), 1e-3, "PyTorch's default");
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
