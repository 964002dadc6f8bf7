//! Loading for fine-tuning: a part of a file, or under other names.

use chainrule_core::{Init, Param, Parameters, Params, ParamsMut, Scalar, parameters};
use chainrule_io::{Load, Reason, Report, from_bytes, part_to_bytes, to_bytes};

/// y = x, with a weight of a width and a counter.
#[derive(Clone)]
struct Norm<T> {
    weight: Param<T>,
    count: Param<T>,
}

impl<T: Scalar> Parameters for Norm<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
        out.add(&self.count);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
        out.add(&mut self.count);
    }
}

fn norm(width: usize, value: f64) -> Norm<f32> {
    let weight = Param::new("weight", [width], Init::Constant(value));
    Norm { weight, count: Param::counter("num_batches_tracked") }
}

struct Model<T> {
    body: Norm<T>,
    head: Norm<T>,
}
parameters! { Model<T> { body, head } }

struct Trunk<T> {
    trunk: Norm<T>,
}
parameters! { Trunk<T> { trunk } }

/// The file: a body of three ones and a head of `classes` ones.
fn file(classes: usize) -> Vec<u8> {
    to_bytes(&model(classes, 1.0)).unwrap()
}

fn model(classes: usize, value: f64) -> Model<f32> {
    Model { body: norm(3, value), head: norm(classes, value) }.init(0).unwrap()
}

fn weights(model: &Model<f32>) -> [f32; 2] {
    [model.body.weight.value().unwrap()[0], model.head.weight.value().unwrap()[0]]
}

fn left(report: &Report) -> Vec<(&str, &Reason)> {
    report.left.iter().map(|left| (left.name.as_str(), &left.reason)).collect()
}

#[test]
fn without_permission_everything_must_fit() {
    let mut model = model(2, 0.0);
    let report = Load::new().from_bytes(&mut model, &file(2)).unwrap();
    assert!(report.is_complete() && report.taken.len() == 4);
    let error = Load::new().from_bytes(&mut model, &file(5)).unwrap_err().to_string();
    assert_eq!(error, "weights and the model do not fit: expected `head.weight` [2], got [5]");
}

#[test]
fn a_part_is_saved_and_loaded_alone() {
    let bytes = part_to_bytes(&model(2, 5.0), |path| path.starts_with("head.")).unwrap();
    let mut other = model(2, 1.0);
    assert!(from_bytes(&mut other, &bytes).is_err());
    let report =
        Load::new().allow_missing(|path| path.starts_with("body.")).from_bytes(&mut other, &bytes).unwrap();
    assert_eq!((report.taken.len(), weights(&other)), (2, [1.0, 5.0]));
    assert!(part_to_bytes(&other, |_| false).is_err());
}

#[test]
fn a_head_of_another_size_can_be_skipped() {
    let mut model = model(2, 0.0);
    let report = Load::new().skip_mismatched().from_bytes(&mut model, &file(5)).unwrap();
    assert_eq!(weights(&model), [1.0, 0.0]);
    let mismatch = Reason::Mismatched { expected: "[2]".into(), got: "[5]".into() };
    assert_eq!(left(&report), [("head.weight", &mismatch)]);
    assert_eq!(
        report.to_string(),
        "3 taken, 1 left\n  `body.num_batches_tracked`\n  `body.weight`\n  `head.num_batches_tracked`\n  \
         left `head.weight`: expected [2], got [5]"
    );
}

#[test]
fn a_head_of_the_same_size_can_be_skipped() {
    let mut model = model(5, 0.0);
    let report = Load::new().skip(|name| name.starts_with("head.")).from_bytes(&mut model, &file(5)).unwrap();
    assert_eq!(weights(&model), [1.0, 0.0]);
    assert_eq!(
        left(&report),
        [("head.num_batches_tracked", &Reason::Skipped), ("head.weight", &Reason::Skipped)]
    );
}

#[test]
fn names_are_mapped_in_the_order_of_the_calls() {
    let mut trunk = Trunk { trunk: norm(3, 0.0) }.init(0).unwrap();
    let load = Load::new().rule("body", "trunk").allow_unexpected(|name| name.starts_with("head"));
    let report = load.from_bytes(&mut trunk, &file(5)).unwrap();
    assert_eq!(trunk.trunk.weight.value().unwrap(), [1.0; 3]);
    assert_eq!(
        (report.taken[1].path.as_str(), report.taken[1].from.as_str()),
        ("trunk.weight", "body.weight")
    );
    assert!(report.to_string().contains("`trunk.weight` from `body.weight`"));
    assert_eq!(left(&report)[1], ("head.weight", &Reason::Unexpected));

    let bytes = to_bytes(&trunk).unwrap();
    let mut model = model(5, 0.0);
    let load =
        Load::new().strip_prefix("trunk.").add_prefix("body.").allow_missing(|path| path.starts_with("head"));
    let report = load.from_bytes(&mut model, &bytes).unwrap();
    assert_eq!(weights(&model), [1.0, 0.0]);
    assert_eq!(left(&report)[1], ("head.weight", &Reason::Missing));

    let load = Load::new().rename(|name| name.replace("trunk", "head")).allow_missing(|_| true);
    let error = load.from_bytes(&mut model, &bytes).unwrap_err().to_string();
    assert!(error.contains("expected `head.weight` [5], got [3]"), "{error}");
}

#[test]
fn two_tensors_for_one_parameter_are_an_error() {
    let error = Load::new().rule("head", "body").from_bytes(&mut model(3, 0.0), &file(3)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expected one tensor for `body.weight`, got `body.weight` and `head.weight`")
    );
}

#[test]
fn a_missing_counter_is_allowed_and_starts_at_zero() {
    struct Old<T>(Norm<T>);
    impl<T: Scalar> Parameters for Old<T> {
        type T = T;
        fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
            out.add(&self.0.weight);
        }
        fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
            out.add(&mut self.0.weight);
        }
    }
    let bytes = to_bytes(&Old(norm(3, 1.0)).init(0).unwrap()).unwrap();
    let mut model = norm(3, 0.0);
    let error = from_bytes(&mut model, &bytes).unwrap_err().to_string();
    assert!(error.contains("missing `num_batches_tracked`"), "{error}");
    let report = Load::new().from_bytes(&mut model, &bytes).unwrap();
    assert_eq!(left(&report), [("num_batches_tracked", &Reason::Missing)]);
    assert_eq!(model.count.value().unwrap(), [0.0]);
    model.count.value_mut().unwrap()[0] = 7.0;
    Load::new().from_bytes(&mut model, &bytes).unwrap();
    assert_eq!(model.count.value().unwrap(), [7.0]);
}

#[test]
fn a_model_behind_a_reference_is_loaded() {
    let mut model = model(2, 0.0);
    let erased: &mut dyn Parameters<T = f32> = &mut model;
    Load::new().from_bytes(erased, &file(2)).unwrap();
    from_bytes(erased, &file(2)).unwrap();
    assert_eq!(weights(&model), [1.0, 1.0]);
}
