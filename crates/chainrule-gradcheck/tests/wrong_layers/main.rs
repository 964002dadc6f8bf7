//! The laws can fail: each wrong layer is caught, by the name of the law that it breaks.

mod activation;
mod layer;
mod module;
mod sequence;

use chainrule_core::{Context, Parameters, Tensor};
use chainrule_gradcheck::{
    Check, check, laws,
    laws::{BoxModule, Case, Law, Violation, layer_laws},
};
use layer::{Fault, Masked};

/// What is broken over a few cases.
fn broken(fault: Fault) -> Vec<Violation> {
    // A cost of 20 for each element of the largest tensor is more than 64 bits hold.
    let size = if fault == Fault::CostOverflows { 20 } else { 4 };
    let case = |seed| {
        let case = Case::new(seed).input([3, size]).large([40, size]);
        if fault == Fault::WrongShapeAccepted { case.wrong([3, size + 1]) } else { case }
    };
    let run = |seed| {
        layer_laws(&case(seed), &|| BoxModule::new(Masked::new(size, fault)), &|| {
            BoxModule::new(Masked::new(size, fault))
        })
    };
    (0..12).flat_map(run).collect()
}

/// The laws that are broken, each once.
fn laws(broken: &[Violation]) -> Vec<Law> {
    let mut laws: Vec<Law> = Vec::new();
    broken.iter().for_each(|v| laws.extend((!laws.contains(&v.law)).then_some(v.law)));
    laws
}

fn caught(fault: Fault, law: Law) {
    let laws = laws(&broken(fault));
    assert!(laws.contains(&law), "{fault:?}: expected {law:?}, got {laws:?}");
}

fn caught_alone(broken: &[Violation], law: Law) {
    let texts: Vec<String> = broken.iter().map(Violation::to_string).collect();
    assert_eq!(laws(broken), [law], "{texts:#?}");
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

macro_rules! wrong_alone {
    ($($name:ident: $broken:expr, breaks $law:ident;)+) => {$(
        #[test]
        fn $name() {
            caught_alone(&$broken, Law::$law);
        }
    )+};
}

wrong_alone! {
    an_output_that_backward_reads_unsaid: broken(Fault::OutputReadUnsaid), breaks UnreadOutputs;
    a_cache_of_another_batch_taken_for_its_own: broken(Fault::CacheOfAnotherBatch), breaks ForeignCache;
    a_stream_that_remembers_the_last_batch: broken(Fault::StreamRemembers), breaks Streaming;
    the_cost_of_one_sample: broken(Fault::CostOfOneSample), breaks Cost;
    the_cost_of_an_empty_batch: broken(Fault::CostOfAnEmptyBatch), breaks Cost;
    a_cost_that_overflows: broken(Fault::CostOverflows), breaks Cost;
    another_value_in_place: activation::broken(activation::Fault::Forward), breaks InPlace;
    another_gradient_in_place: activation::broken(activation::Fault::Backward), breaks InPlace;
    another_value_in_place_in_single_precision: activation::broken(activation::Fault::SinglePrecision), breaks InPlace;
    an_absent_gradient_taken_for_ones: module::broken(module::Fault::AbsentIsOnes), breaks AbsentGradients;
    dx_left_when_no_gradient_is_present: module::broken(module::Fault::DxLeft), breaks AbsentGradients;
    a_gradient_that_needs_all_outputs: module::broken(module::Fault::NeedsAll), breaks AbsentGradients;
    memory_lost_between_pieces: sequence::broken(sequence::Fault::Forgets), breaks Streaming;
    memory_kept_of_the_first_piece_alone: sequence::broken(sequence::Fault::KeepsTheFirst), breaks Streaming;
    memory_that_is_not_listed: sequence::broken(sequence::Fault::ListsNothing), breaks Streaming;
    memory_that_is_lost_when_it_is_listed: sequence::broken(sequence::Fault::ListsAFreshBatch), breaks Streaming;
}

laws! {
    #![cases = 6]
    a_module_of_several_inputs_and_outputs_obeys_the_laws(rows in 1..4usize, width in 1..4usize) {
        layer: module::scaled::<T>(module::Fault::Nothing),
        inputs: [[rows, width]; 2],
        values_of(1): Values::Mask,
        wrong_inputs: [[rows, width], [rows, width + 1]],
    }

    a_layer_with_memory_obeys_the_laws(rows in 1..4usize, time in 1..7usize) {
        layer: sequence::decay(sequence::Fault::Nothing),
        input: [rows, time],
        sequence: 1,
    }
}

#[test]
fn right_modules_of_every_kind_break_no_law() {
    for broken in [
        activation::broken(activation::Fault::Nothing),
        module::broken(module::Fault::Nothing),
        // `ModuleCall::new` has checked the call.
        module::broken(module::Fault::CallUnchecked),
        sequence::broken(sequence::Fault::Nothing),
    ] {
        let texts: Vec<String> = broken.iter().map(Violation::to_string).collect();
        assert!(texts.is_empty(), "{texts:#?}");
    }
}

#[test]
fn a_parameter_that_params_mut_misses_is_named() {
    let x = Tensor::zeros([2, 4]);
    let layer = || Masked::<f64>::new(4, Fault::BiasMissingInParamsMut);
    let expected = "expected params_mut to list what params lists, got none of `bias`";
    // Already by `init`, which would leave the bias without values, and say that of it in the first pass.
    assert_eq!(layer().init(1).err().unwrap().to_string(), expected);
    assert_eq!(check(&layer(), &x).unwrap_err().to_string(), expected);
    caught_alone(&broken(Fault::BiasMissingInParamsMut), Law::SavedAndLoaded);

    let layer = Masked::<f64>::new(4, Fault::BiasMissingInBothLists).init(1).unwrap();
    let text = check(&layer, &x).unwrap_err().to_string();
    assert!(
        text.contains("`bias` is not initialised") && text.ends_with("does one of them miss this one?"),
        "{text}"
    );
}

#[test]
fn the_checker_names_each_wrong_derivative() {
    let x = Tensor::from([[0.5, -1.5, 2.0, 0.25], [1.0, 0.75, -0.5, -2.0]]);
    let layer = |fault| Masked::<f64>::new(4, fault).init(1).unwrap();
    let report = check(&layer(Fault::Nothing), &x).unwrap();
    assert_eq!((report.checked(), report.skipped()), (8 + 16 + 4, 0));
    assert!(report.largest_error() < 1e-8, "{report}");

    let text = check(&layer(Fault::BiasGradientMissing), &x).unwrap_err().to_string();
    assert!(
        text.starts_with(
            "4 of 28 derivatives disagree with central differences\n  bias: 4 of 4 wrong, analytic = 0\n  bias[0]: analytic 0.0000, "
        ),
        "{text}"
    );

    let report = Check::new().context(Context::frozen()).module(&layer(Fault::FactorMissing), &x).unwrap();
    assert!(!report.passed());
    let names: Vec<&str> = report.disagreements().map(|d| &d.name[..]).collect();
    assert_eq!(names[..5], ["x[0, 0]", "x[0, 1]", "x[0, 2]", "x[0, 3]", "x[1, 0]"]);
    for d in report.disagreements() {
        assert!((d.numeric - 2.0 * d.analytic).abs() < 1e-6, "{d}");
    }
}

#[test]
fn large_layers_are_checked_along_directions() {
    let size = 60; // 3,600 weights
    let x = Tensor::from_fn([2, size], |i| (i as f64 * 0.37).sin());
    let report = check(&Masked::<f64>::new(size, Fault::Nothing).init(1).unwrap(), &x).unwrap();
    assert_eq!(report.checked(), 2 * size + 200 + size);
    let wrong = Masked::<f64>::new(size, Fault::GradientScaledAway).init(1).unwrap();
    let report = Check::new().module(&wrong, &x).unwrap();
    assert!(report.disagreements().any(|d| d.name.starts_with("weight along direction")), "{report}");
}
