//! The catalogue of losses.

use chainrule_core::{Registry, Scalar};

/// Every loss of this crate, to be built from its spec.
///
/// ```
/// use chainrule_core::{Objective, Spec};
/// let spec = Spec::new("CrossEntropy").with("label_smoothing", 0.1);
/// let loss = chainrule_losses::registry::<f32>().build_loss(&spec)?;
/// assert_eq!(loss.to_spec().get("label_smoothing"), Some(&0.1.into()));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub fn registry<T: Scalar>() -> Registry<T> {
    crate::register(Registry::new())
}

/// The files of losses, `file => Loss;` a line: declares the module, exports the loss, registers it, and prints it, `{}`,
/// as its spec. Under test, a file compiles only with laws and with an example worked by hand.
macro_rules! losses {
    ($($file:ident => $loss:ident;)*) => {
        $(
            pub(crate) mod $file;
            pub use $file::$loss;

            impl<T: chainrule_core::Scalar> std::fmt::Display for $loss<T> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    chainrule_core::Objective::to_spec(self).fmt(f)
                }
            }
        )*

        fn register<T: chainrule_core::Scalar>(
            registry: chainrule_core::Registry<T>,
        ) -> chainrule_core::Registry<T> {
            registry$(.loss::<$loss<T>>())*
        }

        #[cfg(test)]
        const PROOFS: &[(&str, [fn(); 2])] =
            &[$((stringify!($loss), [$file::tests::obeys_the_laws, $file::tests::by_hand])),*];
    };
}
pub(crate) use losses;

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Facts, Reduction, Spec, Target, Tensor, Value};
    use std::path::Path;

    /// Losses for which PyTorch has no class, and what stands for them there.
    const NOT_IN_PYTORCH: &[(&str, &str)] = &[
        ("ActivityPenalty", "y.abs().mean() and y.pow(2).mean()"),
        ("BinaryFocal", "torchvision's sigmoid_focal_loss"),
        ("Contrastive", "other packages"),
        ("Dice", "other packages"),
        ("Focal", "other packages"),
        ("Hinge", "other packages"),
        ("InfoNce", "CrossEntropyLoss of a matrix of similarities"),
        ("LogCosh", "other packages"),
        ("Mape", "other packages"),
        ("Msle", "other packages"),
        ("Quantile", "other packages"),
        ("SquaredHinge", "other packages"),
        ("Tversky", "other packages"),
        ("WeightedSum", "the operators * and +"),
    ];

    #[test]
    fn every_loss_is_complete() {
        let registry = registry::<f32>();
        let kinds: Vec<_> = registry.losses().map(|entry| entry.facts.kind).collect();
        assert_eq!(kinds, crate::PROOFS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
        for entry in registry.losses() {
            let Facts { kind, family, formula, page, torch, .. } = entry.facts;
            assert!(!formula.is_empty() && family == "loss", "{kind}");
            assert!(torch.is_some() != NOT_IN_PYTORCH.iter().any(|(name, _)| *name == kind), "{kind}");
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page).is_file(), "{kind}");
            let (bench, small): (Vec<_>, Vec<_>) = (entry.examples)().into_iter().partition(|e| e.bench);
            assert!(!bench.is_empty() && !small.is_empty(), "{kind}");
            assert!(bench.iter().chain(&small).all(|e| e.spec.kind() == kind), "{kind}");
        }
    }

    fn walk<T: Scalar>() {
        let registry = registry::<T>();
        for example in registry.losses().flat_map(|entry| (entry.examples)()) {
            let loss = registry.build_loss(&example.spec).unwrap();
            assert_eq!(loss.to_spec(), example.spec);
            let ys: Vec<Tensor<T>> = example.inputs.iter().map(|s| Tensor::full(*s, T::ONE)).collect();
            let (ys, targets): (Vec<_>, Vec<_>) = (ys.iter().collect(), example.loss_targets::<T>());
            let targets: Vec<Target<'_, T>> = targets.iter().map(Target::from).collect();
            let mut dys = vec![Tensor::default(); ys.len()];
            let e = loss.value_and_gradients(&ys, &targets, &mut dys).unwrap();
            assert!(e.is_finite(), "{}", example.spec);
            let unknown = example.spec.with("no_such", 1);
            assert!(registry.build_loss(&unknown).is_err());
        }
    }

    #[test]
    fn every_example_comes_back_from_its_spec_and_runs() {
        walk::<f32>();
        walk::<f64>();
    }

    #[test]
    fn attributes_of_pytorch_that_have_its_default_may_be_missing() {
        let registry = registry::<f32>();
        for (kind, _) in crate::PROOFS.iter().filter(|(kind, _)| *kind != "WeightedSum") {
            let loss = registry.build_loss(&Spec::new(*kind)).unwrap();
            assert_eq!(loss.reduced_by(), Reduction::Mean);
            let text = registry.build_loss(&Spec::new(*kind).with("reduction", "median")).err().unwrap();
            assert!(text.to_string().contains("expected mean, sum or none, got median"), "{text}");
        }
        let dense =
            Spec::new("BceWithLogits").with("weight", Value::List(vec![Value::List(vec![]), 1.0.into()]));
        assert!(registry.build_loss(&dense).is_err());
        assert!(registry.build_loss(&Spec::new("Huber").with("delta", -1.0)).is_err());
        assert!(registry.build_loss(&Spec::new("WeightedSum").with("weights", [1.0])).is_err());
    }

    #[test]
    fn losses_print_as_their_specs() {
        let sum = crate::WeightedSum::<f32>::new().add(0.5, crate::Mse::new());
        assert_eq!(sum.to_string(), "WeightedSum(weights=(0.5),\n  (0): Mse(reduction=mean)\n)");
        assert_eq!(crate::Huber::<f32>::new().to_string(), "Huber(reduction=mean, delta=1.0)");
    }
}
