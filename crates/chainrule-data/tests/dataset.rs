//! What a dataset refuses, and what its splits keep.

use chainrule_data::{Batch, Dataset, Targets, samples};
use chainrule_tensor::{Kind, Tensor};
use proptest::prelude::*;

fn features(n: usize) -> Tensor<f32> {
    Tensor::from_fn([n, 2, 3], |i| i as f32)
}

#[test]
fn an_empty_dataset_is_an_error() {
    let text = Dataset::classification(features(0), [], 2).unwrap_err().to_string();
    assert_eq!(text, "dataset: expected at least one sample and one feature, got features [0, 2, 3]");
    assert!(Dataset::regression(features(0), Tensor::zeros([0, 1])).is_err());
    assert!(Dataset::classification(Tensor::<f32>::zeros([3, 0]), [0, 0, 0], 1).is_err());
    assert!(Dataset::classification(Tensor::from(1.0f32), [0], 1).is_err());
    assert!(Dataset::regression(features(1), Tensor::from(1.0f32)).is_err());
}

#[test]
fn lengths_that_disagree_are_an_error() {
    let e = Dataset::classification(features(3), [0, 1], 2).unwrap_err();
    assert_eq!(e.to_string(), "dataset: expected a target for each of 3 samples, got 2");
    assert!(matches!(e.kind(), Kind::Shape(_)));
    assert!(Dataset::regression(features(3), Tensor::zeros([4, 1])).is_err());
}

#[test]
fn a_label_out_of_range_is_an_error() {
    let e = Dataset::classification(features(3), [0, 1, 7], 2).unwrap_err();
    assert_eq!(e.to_string(), "labels: expected classes below 2, got 7 at sample 2");
    assert!(matches!(e.kind(), Kind::Index(_)));
}

#[test]
fn what_is_not_finite_is_an_error_with_its_position() {
    let mut x = features(3);
    x.data_mut()[6 + 4] = f32::NAN;
    let text = Dataset::classification(x, [0, 1, 1], 2).unwrap_err().to_string();
    assert_eq!(text, "features: expected finite numbers, got NaN at sample 1, position [1, 1]");
    let text = Dataset::regression(features(2), Tensor::from([1.0, f32::INFINITY])).unwrap_err().to_string();
    assert_eq!(text, "values: expected finite numbers, got inf at sample 1, position []");
    let spoil = |x: &mut Tensor<f32>| {
        x.data_mut()[0] = f32::NAN;
        Ok(())
    };
    assert!(samples::iris().map_x(spoil).is_err());
    assert!(samples::diabetes().map_values(spoil).is_err());
}

#[test]
fn wrong_names_and_positions_are_errors() {
    let d = Dataset::classification(features(3), [0, 1, 1], 2).unwrap();
    let text = d.clone().with_class_names(["a"]).unwrap_err().to_string();
    assert_eq!(text, "class names: expected 2, one a class, got 1");
    assert_eq!(d.select(&[0, 3]).unwrap_err().to_string(), "select: expected positions below 3, got 3");
    assert_eq!(
        d.select(&[]).unwrap_err().to_string(),
        "dataset: expected at least one sample, got none selected"
    );
}

#[test]
fn a_split_that_leaves_a_part_empty_is_an_error() {
    let d = Dataset::classification(features(3), [0, 1, 1], 2).unwrap();
    for fraction in [0.0, 1.0, -0.5, 2.0, 0.01, 0.99, f64::NAN, f64::INFINITY] {
        assert!(d.split(fraction, 1).is_err(), "{fraction}");
        assert!(d.split_stratified(fraction, 1).is_err(), "{fraction}");
    }
    assert!(samples::diabetes::<f32>().split_stratified(0.5, 1).is_err());
}

#[test]
fn targets_of_the_wrong_kind_are_errors() {
    assert!(samples::diabetes::<f32>().one_hot().is_err());
    assert!(samples::iris::<f32>().map_values(|_| Ok(())).is_err());
}

#[test]
fn shapes_and_targets_change_without_changing_the_numbers() {
    let d = samples::digits::<f32>();
    let flat = d.clone().flatten();
    assert_eq!((flat.sample_shape(), flat.x().data()), (&[64][..], d.x().data()));
    assert_eq!(flat.clone().reshape(&[1, 8, 8]).unwrap(), d);
    assert!(flat.clone().reshape(&[65]).is_err());
    let hot = flat.one_hot().unwrap();
    assert_eq!(hot.values().unwrap().argmax_rows(), d.labels().unwrap());
    assert_eq!((hot.classes(), hot.class_counts()), (0, vec![]));
}

#[test]
fn a_batch_takes_the_kind_of_targets_of_its_dataset() {
    let mut batch = Batch::default();
    samples::diabetes::<f32>().gather(&[3, 1], &mut batch);
    assert!(matches!(&batch.targets, Targets::Values(v) if v.shape()[..] == [2, 1]));
    samples::iris::<f32>().gather(&[149, 0, 0], &mut batch);
    assert_eq!((batch.len(), &batch.targets), (3, &Targets::Classes(vec![2, 0, 0])));
}

proptest! {
    #[test]
    fn a_split_keeps_every_sample_with_its_target(n in 2usize..80, held_out in 0.0f64..1.0, seed: u64, stratified: bool) {
        let labels: Vec<usize> = (0..n).map(|i| (i * i + 1) % 3).collect();
        let x = Tensor::from_fn([n, 1], |i| i as f64);
        let d = Dataset::classification(x, labels.clone(), 3).unwrap();
        let halves = || if stratified { d.split_stratified(held_out, seed) } else { d.split(held_out, seed) };
        let count = (held_out * n as f64).round() as usize;
        let Ok((train, test)) = halves() else {
            prop_assert!(count == 0 || count == n);
            return Ok(());
        };
        prop_assert_eq!(test.len(), count);
        prop_assert_eq!(&halves().unwrap().0, &train);
        let mut seen = Vec::new();
        for part in [&train, &test] {
            for (v, &c) in part.x().data().iter().zip(part.labels().unwrap()) {
                prop_assert_eq!(labels[*v as usize], c);
                seen.push(*v as usize);
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        if stratified {
            for (held, all) in test.class_counts().into_iter().zip(d.class_counts()) {
                prop_assert!((held as f64 - held_out * all as f64).abs() < 1.0 + 1e-9);
            }
        }
    }
}
