//! The laws can fail: each wrong layer is caught, by the name of the law that it breaks.

mod layer;

use chainrule_core::{Context, Layer, Tensor};
use chainrule_gradcheck::{
    Check, check_layer,
    laws::{Case, Law, One, Violation, layer_laws},
};
use layer::{Fault, Masked};

/// What is broken over a few cases.
fn broken(fault: Fault) -> Vec<Violation> {
    let case = |seed| {
        let case = Case::new(seed).input([3, 4]).large([40, 4]);
        if fault == Fault::WrongShapeAccepted { case.wrong([3, 5]) } else { case }
    };
    let run = |seed| {
        layer_laws(&case(seed), || One(Masked::<f64>::new(4, fault)), || One(Masked::<f32>::new(4, fault)))
    };
    (0..12).flat_map(run).collect()
}

fn caught(fault: Fault, law: Law) {
    let broken = broken(fault);
    let laws: Vec<String> = broken.iter().map(|v| v.law.to_string()).collect();
    assert!(broken.iter().any(|v| v.law == law), "{fault:?}: expected `{law}`, got {laws:?}");
}

#[test]
fn the_right_layer_breaks_no_law() {
    let broken: Vec<String> = broken(Fault::Nothing).iter().map(Violation::to_string).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

macro_rules! wrong {
    ($($name:ident: $fault:ident breaks $($law:ident),+;)+) => {$(
        #[test]
        fn $name() {
            $(caught(Fault::$fault, Law::$law);)+
        }
    )+};
}

wrong! {
    a_missing_factor: FactorMissing breaks InputGradient;
    a_transposed_weight: TransposedWeight breaks InputGradient;
    a_missing_gradient_of_a_parameter: BiasGradientMissing breaks ParameterGradients;
    a_mask_redrawn_in_backward: MaskRedrawnInBackward breaks InputGradient;
    a_backward_that_ignores_the_scale_of_dy: GradientScaledAway breaks Linearity;
    a_constant_in_backward: ConstantInBackward breaks Linearity, InputGradient;
    dx_added_instead_of_overwritten: DxAdded breaks TwoBackwards, SameBits;
    gradients_overwritten_instead_of_added: GradientsOverwritten breaks TwoBackwards;
    gradients_that_need_dx: GradientsOnlyWithDx breaks WithoutInputGradient;
    a_frozen_weight_that_stops_the_bias: FrozenWeightStopsBias breaks Freezing;
    a_stale_cache: StaleCache breaks ReusedCache;
    a_cache_that_backward_uses_up: CacheConsumed breaks TwoBackwards;
    an_output_that_backward_reads_unsaid: OutputReadUnsaid breaks SameBits;
    a_wrong_output_shape: WrongOutputShape breaks Shapes;
    a_wrong_shape_that_is_accepted: WrongShapeAccepted breaks Shapes;
    a_wrong_shape_that_panics: WrongShapePanics breaks Shapes;
    noise_in_inference: NoiseInInference breaks Inference;
    a_recording_that_inference_leaves: InferenceLeavesTheRecording breaks Inference;
    a_hidden_counter: HiddenCounter breaks SameBits;
    duplicate_names: DuplicateNames breaks SavedAndLoaded;
    state_that_is_not_saved: UnsavedState breaks SavedAndLoaded;
    coarse_single_precision: CoarseInSinglePrecision breaks SinglePrecision;
    numbers_that_depend_on_threads: DependsOnThreads breaks Threads;
}

#[test]
fn the_checker_names_each_wrong_derivative() {
    let x = Tensor::from([[0.5, -1.5, 2.0, 0.25], [1.0, 0.75, -0.5, -2.0]]);
    let layer = |fault| Masked::<f64>::new(4, fault).init(1).unwrap();
    let report = check_layer(&layer(Fault::Nothing), &x).unwrap();
    assert_eq!((report.checked(), report.skipped()), (8 + 16 + 4, 0));
    assert!(report.largest_error() < 1e-8, "{report}");

    let text = check_layer(&layer(Fault::BiasGradientMissing), &x).unwrap_err().to_string();
    assert!(
        text.starts_with(
            "4 of 28 derivatives disagree with central differences\n  bias[0]: analytic 0.0000, "
        ),
        "{text}"
    );

    let check = Check::new().context(Context::frozen());
    let report = check.layer(&layer(Fault::FactorMissing), &x).unwrap();
    assert!(!report.passed());
    let names: Vec<&str> = report.disagreements().iter().map(|d| &d.name[..]).collect();
    assert_eq!(names[..5], ["x[0, 0]", "x[0, 1]", "x[0, 2]", "x[0, 3]", "x[1, 0]"]);
    for d in report.disagreements() {
        assert!((d.numeric - 2.0 * d.analytic).abs() < 1e-6, "{d}");
    }
}

#[test]
fn large_layers_are_checked_along_directions() {
    let size = 60; // 3,600 weights
    let x = Tensor::from_fn([2, size], |i| (i as f64 * 0.37).sin());
    let report = check_layer(&Masked::<f64>::new(size, Fault::Nothing).init(1).unwrap(), &x).unwrap();
    assert_eq!(report.checked(), 2 * size + 200 + size);
    let wrong = Masked::<f64>::new(size, Fault::GradientScaledAway).init(1).unwrap();
    let report = Check::new().layer(&wrong, &x).unwrap();
    assert!(report.disagreements().iter().any(|d| d.name.starts_with("weight along direction")), "{report}");
}
