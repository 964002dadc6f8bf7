//! The catalogue: every family lists its layers, one line a file.

use chainrule_core::{Registry, Scalar};

/// The layers of this crate, to be built from their specs.
///
/// ```
/// use chainrule_core::{Module, Spec, Tensor};
/// let spec = Spec::new("LeakyRelu").with("negative_slope", 0.5);
/// let layer = chainrule_layers::registry().build_module(&spec)?;
/// assert_eq!(layer.infer(&Tensor::from([-4.0f32]))?.data(), [-2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub fn registry<T: Scalar>() -> Registry<T> {
    Registry::new()
        .merge(crate::activation::registry())
        .merge(crate::attention::registry())
        .merge(crate::container::registry())
        .merge(crate::conv::registry())
        .merge(crate::linear::registry())
        .merge(crate::noise::registry())
        .merge(crate::norm::registry())
        .merge(crate::pool::registry())
        .merge(crate::recurrent::registry())
        .merge(crate::shape::registry())
        .merge(crate::weight::registry())
}

/// The files of a family, `file => Layer, Layer;` a line: declares the module, exports what is public in it, registers its
/// layers, and prints them, `{}` and `{:?}`, as their specs. Layers that no spec can build, because they hold closures,
/// are left out: `file => ;`.
///
/// Under test, a file compiles only with laws and with an example worked by hand: `tests::obeys_the_laws` and
/// `tests::by_hand`, both `pub`, in `pub(crate) mod tests`.
macro_rules! family {
    ($($file:ident => $($layer:ident),*;)*) => {
        $(
            pub(crate) mod $file;
            pub use $file::*;
        )*

        /// The layers of this family, to be built from their specs.
        pub(crate) fn registry<T: chainrule_core::Scalar>() -> chainrule_core::Registry<T> {
            chainrule_core::Registry::new()$($(.module::<$file::$layer<T>>())*)*
        }

        $($(
            impl<T: chainrule_core::Scalar> std::fmt::Display for $file::$layer<T> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    chainrule_core::Module::to_spec(self).fmt(f)
                }
            }

            impl<T: chainrule_core::Scalar> std::fmt::Debug for $file::$layer<T> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    std::fmt::Display::fmt(self, f)
                }
            }
        )*)*

        #[cfg(test)]
        pub(crate) const PROOFS: &[$crate::registry::Proof] = &[$($crate::registry::Proof {
            file: stringify!($file),
            layers: &[$(stringify!($layer)),*],
            _tests: [$file::tests::obeys_the_laws, $file::tests::by_hand],
        }),*];
    };
}
pub(crate) use family;

/// The tests of a file, named so that it does not compile without them.
#[cfg(test)]
pub(crate) struct Proof {
    pub(crate) file: &'static str,
    pub(crate) layers: &'static [&'static str],
    pub(crate) _tests: [fn(); 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        activation, attention, container, conv, linear, noise, norm, pool, recurrent, shape, weight,
    };
    use chainrule_core::{BoxModule, Example, Facts, Module, Parameters, Rng, Shape, Spec, Tensor, Value};
    use std::path::Path;

    /// Layers for which PyTorch has no class, and what stands for them there.
    const NOT_IN_PYTORCH: &[(&str, &str)] = &[
        ("Add", "the operator +"),
        ("LearnedPosition", "an Embedding of positions and the operator +"),
        ("ScaledDotProductAttention", "the function of this name"),
        ("SinusoidalPosition", "a table and the operator +"),
        ("Rope", "the sum of two products, with sines and cosines"),
        ("BilinearGlu", "the product of the halves"),
        ("Chunk", "the function torch.chunk"),
        ("Concat", "the function torch.cat"),
        ("ConvLstm2d", "a convolution of the input and the state, then the gates"),
        ("DropPath", "torchvision's StochasticDepth of rows"),
        ("GaussianDropout", "the product with torch.randn"),
        ("GaussianNoise", "the sum with torch.randn"),
        ("Geglu", "GELU of one half, times the other"),
        ("GlobalAvgPool1d", "AdaptiveAvgPool1d(1), then Flatten"),
        ("GlobalAvgPool2d", "AdaptiveAvgPool2d(1), then Flatten"),
        ("GlobalAvgPool3d", "AdaptiveAvgPool3d(1), then Flatten"),
        ("GlobalMaxPool1d", "AdaptiveMaxPool1d(1), then Flatten"),
        ("GlobalMaxPool2d", "AdaptiveMaxPool2d(1), then Flatten"),
        ("GlobalMaxPool3d", "AdaptiveMaxPool3d(1), then Flatten"),
        ("Graph", "a module's own forward"),
        ("LayerNorm2d", "LayerNorm between two permutations"),
        ("Parallel", "a module's own forward"),
        ("Reglu", "ReLU of one half, times the other"),
        ("Recompute", "torch.utils.checkpoint"),
        ("Reparametrize", "three operators"),
        ("Residual", "a module's own forward"),
        ("Sine", "the function torch.sin"),
        ("Snake", "the function torch.sin, squared"),
        ("Split", "the function torch.split"),
        ("Bias", "a parameter and the operator +"),
        ("Crop1d", "ConstantPad1d of negative margins"),
        ("Crop2d", "ConstantPad2d of negative margins"),
        ("Crop3d", "ConstantPad3d of negative margins"),
        ("L2Normalize", "the function torch.nn.functional.normalize"),
        ("MatMul", "the function torch.matmul"),
        ("Max", "the function torch.amax"),
        ("MaxPool1dWithIndices", "MaxPool1d with return_indices"),
        ("MaxPool2dWithIndices", "MaxPool2d with return_indices"),
        ("MaxPool3dWithIndices", "MaxPool3d with return_indices"),
        ("Maxout", "Linear, then Unflatten and amax"),
        ("Mean", "the function torch.mean"),
        ("Mul", "the operator *"),
        ("Narrow", "the function torch.narrow"),
        ("Permute", "the function torch.permute"),
        ("Repeat", "the function torch.tile"),
        ("Reshape", "the function torch.reshape"),
        ("Scale", "a parameter and the operator *"),
        ("SquaredRelu", "the square of ReLU"),
        ("Stack", "the function torch.stack"),
        ("Sub", "the operator -"),
        ("Sum", "the function torch.sum"),
        ("Swiglu", "SiLU of one half, times the other"),
        ("Transpose", "the function torch.transpose"),
        ("TimeDistributed", "Flatten and Unflatten of the first two axes"),
        ("Lora", "the library peft"),
        ("Pruned", "torch.nn.utils.prune"),
        ("SpectralNorm", "the function torch.nn.utils.parametrizations.spectral_norm"),
        ("WeightNorm", "the function torch.nn.utils.parametrizations.weight_norm"),
    ];

    /// Files whose layers no spec can build, and why.
    const UNBUILT: &[(&str, &str)] = &[("activation", "holds closures")];

    const PROOFS: [&[Proof]; 11] = [
        activation::PROOFS,
        attention::PROOFS,
        container::PROOFS,
        conv::PROOFS,
        linear::PROOFS,
        noise::PROOFS,
        norm::PROOFS,
        pool::PROOFS,
        recurrent::PROOFS,
        shape::PROOFS,
        weight::PROOFS,
    ];

    fn facts() -> Vec<Facts> {
        registry::<f32>().modules().map(|entry| entry.facts).collect()
    }

    fn examples() -> Vec<Example> {
        registry::<f32>().modules().flat_map(|entry| (entry.examples)()).collect()
    }

    #[test]
    fn every_file_has_its_layers_in_the_registry() {
        let proofs = || PROOFS.iter().copied().flatten();
        let mut listed: Vec<_> = proofs().flat_map(|proof| proof.layers).copied().collect();
        listed.sort_unstable();
        assert_eq!(facts().iter().map(|facts| facts.kind).collect::<Vec<_>>(), listed);
        for Proof { file, layers, .. } in proofs() {
            assert!(layers.is_empty() == UNBUILT.iter().any(|(unbuilt, _)| unbuilt == file), "{file}");
        }
    }

    /// `tests/windows.rs` goes through all small sizes of what has windows: a new layer has to be added there.
    #[test]
    fn every_layer_with_windows_goes_through_all_small_sizes() {
        let tests = include_str!("../tests/windows.rs");
        for Facts { kind, family, .. } in facts() {
            let kind = kind.trim_end_matches("WithIndices"); // both passes are those of the pool without
            let name = ["1d", "2d", "3d"].iter().find_map(|rank| kind.strip_suffix(rank)).unwrap_or(kind);
            let tested = |text: String| [" ", "(", "&"].iter().any(|c| tests.contains(&format!("{c}{text}")));
            let tested = tested(format!("{name}::<R, ")) || tested(format!("{kind}::<"));
            assert!(tested || !["conv", "pool"].contains(&family), "{kind}");
        }
    }

    #[test]
    fn every_layer_has_a_formula_and_a_page_in_the_folder_of_its_family() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for Facts { kind, family, formula, page, .. } in facts() {
            assert!(!formula.is_empty(), "{kind}: no formula");
            assert!(
                !family.is_empty() && root.join("src").join(family).is_dir(),
                "{kind}: family `{family}`"
            );
            assert!(page.starts_with(&format!("layers/{family}/")), "{kind}: page `{page}`");
            assert!(root.join("../../docs").join(page).is_file(), "{kind}: no page `{page}`");
        }
    }

    #[test]
    fn every_layer_is_named_in_the_readme() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let words: Vec<_> = readme.split(|c: char| !c.is_alphanumeric()).collect();
        for kind in facts().iter().map(|facts| facts.kind).chain(["Activation"]) {
            assert!(words.contains(&kind), "{kind}");
        }
    }

    #[test]
    fn every_layer_has_small_examples_and_one_for_the_bench() {
        for entry in registry::<f32>().modules() {
            let (bench, small): (Vec<_>, Vec<_>) = (entry.examples)().into_iter().partition(|e| e.bench);
            assert!(!bench.is_empty() && !small.is_empty(), "{}", entry.facts.kind);
            let kinds: Vec<_> = bench.iter().chain(&small).map(|e| e.spec.kind().to_owned()).collect();
            assert!(kinds.iter().all(|kind| kind == entry.facts.kind), "{}: {kinds:?}", entry.facts.kind);
        }
    }

    #[test]
    fn every_layer_names_its_pytorch_class_or_what_stands_for_it() {
        for Facts { kind, torch, .. } in facts() {
            let listed = NOT_IN_PYTORCH.iter().any(|(name, _)| *name == kind);
            assert!(torch.is_some() != listed, "{kind}: {torch:?}");
        }
    }

    #[test]
    fn every_example_is_built_from_its_spec_and_gives_it_back() {
        fn check<T: Scalar>(example: &Example) {
            let built = registry::<T>().build_module(&example.spec).unwrap();
            assert_eq!(built.to_spec(), example.spec);
            assert_eq!(format!("{built:?}"), example.spec.to_string());
            built.output_shapes(&example.inputs).unwrap();
        }
        for example in examples() {
            check::<f32>(&example);
            check::<f64>(&example);
        }
    }

    fn inputs<T: Scalar>(example: &Example) -> Vec<Tensor<T>> {
        let mut rng = Rng::new(1);
        let tensor = |shape: &Shape| match example.ids {
            Some(bound) => Tensor::from_fn(*shape, |_| T::from_f64(rng.below(bound) as f64)),
            None => {
                let mut x = Tensor::zeros(*shape);
                rng.fill_normal(x.data_mut());
                x
            }
        };
        example.inputs.iter().map(tensor).collect()
    }

    #[test]
    fn every_small_example_runs() {
        fn check<T: Scalar>(example: &Example) {
            let module = registry::<T>().build_module(&example.spec).unwrap().init(1).unwrap();
            let ys = module.infer_all(&inputs(example)).unwrap();
            let shapes: Vec<_> = ys.iter().map(|y| *y.shape()).collect();
            assert_eq!(shapes, module.output_shapes(&example.inputs).unwrap(), "{}", example.spec);
            assert!(ys.iter().all(|y| y.data().iter().all(|v| v.is_finite())), "{}", example.spec);
        }
        for example in examples().iter().filter(|example| !example.bench) {
            check::<f32>(example);
            check::<f64>(example);
        }
    }

    /// The spec with its attribute `at` set to another value.
    fn with_value(spec: &Spec, at: usize, other: &Value) -> Spec {
        let attributes = spec.attributes().iter().enumerate();
        let spec_of = attributes.fold(Spec::new(spec.kind()), |new, (i, (name, value))| {
            new.with(name.as_str(), if i == at { other.clone() } else { value.clone() })
        });
        spec.children().iter().fold(spec_of, |new, (name, child)| new.child(name.as_str(), child.clone()))
    }

    #[test]
    fn an_attribute_of_any_value_gives_a_layer_or_an_error() {
        let hostile = [
            Value::None,
            Value::Bool(true),
            Value::Int(0),
            Value::Int(-1),
            Value::Int(i64::MIN),
            Value::Int(i64::MAX),
            Value::Float(f64::NAN),
            Value::Float(f64::NEG_INFINITY),
            Value::Text("?".into()),
            Value::List(Vec::new()),
            Value::List(vec![Value::Int(i64::MAX); 3]),
            Value::Spec(Spec::new("?")),
        ];
        let registry = registry::<f32>();
        let tried = |spec: &Spec, inputs: &[Shape]| {
            if let Ok(built) = registry.build_module(spec) {
                let _ = built.output_shapes(inputs);
                let _ = built.summary(inputs);
            }
        };
        for example in examples().iter().filter(|example| !example.bench) {
            for at in 0..example.spec.attributes().len() {
                hostile
                    .iter()
                    .for_each(|value| tried(&with_value(&example.spec, at, value), &example.inputs));
            }
        }
    }

    #[test]
    fn an_attribute_that_a_layer_does_not_have_is_an_error() {
        let registry = registry::<f32>();
        for example in examples() {
            let text = registry.build_module(&example.spec.with("no_such", 1)).unwrap_err().to_string();
            assert!(text.contains("unknown attribute `no_such`"), "{text}");
        }
    }

    #[test]
    fn a_layer_prints_as_its_spec() {
        let elu = crate::Elu::<f32>::new();
        assert_eq!([elu.to_string(), format!("{elu:?}")], ["Elu(alpha=1.0)", "Elu(alpha=1.0)"]);
        let square = crate::Activation::new(|x: f32| x * x, |x: f32| 2.0 * x);
        assert_eq!([square.to_string(), format!("{square:?}")], ["Activation()", "Activation()"]);
        assert_eq!(format!("{:?}", BoxModule::new(elu)), elu.to_string());
    }
}
