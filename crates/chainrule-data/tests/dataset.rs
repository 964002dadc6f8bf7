//! What a dataset refuses, and what its splits keep.

use chainrule_data::{Batch, Bytes, Classes, Dataset, Features, Targets, samples};
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
    assert_eq!(text, "features: expected finite values, got NaN at sample 1, position [1, 1]");
    let text = Dataset::regression(features(2), Tensor::from([1.0, f32::INFINITY])).unwrap_err().to_string();
    assert_eq!(text, "values: expected finite values, got inf at sample 1, position []");
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
    assert_eq!(text, "class names: expected 2, one for each class, got 1");
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
fn shapes_and_targets_change_without_changing_the_values() {
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
    samples::diabetes::<f32>().gather(&[3, 1], &mut batch).unwrap();
    assert!(matches!(batch.target(), Targets::Values(v) if v.shape()[..] == [2, 1]));
    samples::iris::<f32>().gather(&[149, 0, 0], &mut batch).unwrap();
    assert_eq!((batch.len(), batch.target()), (3, &Targets::classes([2, 0, 0])));
    assert!(samples::iris::<f32>().gather(&[150], &mut batch).is_err());
}

#[test]
fn a_set_has_any_number_of_inputs_and_targets() {
    let inputs: [Features<f32>; 2] = [
        features(3).into(),
        Bytes::new([3, 2], vec![0, 1, 2, 3, 4, 5], |v| f32::from(v) * 10.0).unwrap().into(),
    ];
    let targets = [
        Targets::Classes { indices: (0..12).map(|i| i % 3).collect(), shape: [3, 2, 2].into() },
        Targets::Sequences { indices: vec![1, 2, 0], lengths: vec![2, 0, 1] },
        Targets::Values(Tensor::from([1.0, 2.0, 3.0])),
    ];
    let d = Dataset::new(inputs, targets).unwrap().with_classes(0, 3).unwrap().with_classes(1, 3).unwrap();
    assert_eq!((d.len(), d.classes(), d.class_counts()), (3, 3, vec![4, 4, 4]));
    let mut batch = Batch::default();
    d.gather(&[2, 0], &mut batch).unwrap();
    assert_eq!(batch.inputs[1], Tensor::from([[40.0, 50.0], [0.0, 10.0]]));
    assert_eq!(
        batch.targets[0],
        Targets::Classes { indices: vec![2, 0, 1, 2, 0, 1, 2, 0], shape: [2, 2, 2].into() }
    );
    assert_eq!(batch.targets[1], Targets::Sequences { indices: vec![0, 1, 2], lengths: vec![1, 2] });
    assert_eq!(batch.targets[2], Targets::Values(Tensor::from([3.0, 1.0])));
    let part = d.select(&[2, 0]).unwrap();
    let mut again = Batch::default();
    part.gather(&[0, 1], &mut again).unwrap();
    assert_eq!(again, batch);

    let targets = |n: usize| [Targets::classes(vec![0; n])];
    assert!(Dataset::new([features(3), features(2)], targets(3)).is_err());
    assert!(Dataset::new([features(3)], targets(2)).is_err());
    assert!(Dataset::<f32>::new(Vec::<Tensor<f32>>::new(), targets(2)).is_err());
    assert!(d.clone().with_classes(0, 2).is_err() && d.clone().with_classes(1, 2).is_err());
    assert!(d.clone().with_classes(2, 2).is_err() && d.clone().with_classes(3, 2).is_err());
    let wrong = Targets::Sequences { indices: vec![1], lengths: vec![2, 0, 1] };
    assert!(Dataset::new([features(3)], [wrong]).is_err());
    assert!(Dataset::classification(Bytes::new([1, 1], vec![0], |_| f32::NAN).unwrap(), [0], 1).is_err());
}

#[test]
fn dense_labels_have_the_shape_of_the_image() {
    let x = Tensor::<f32>::zeros([2, 3, 2, 2]);
    let d = Dataset::segmentation(x.clone(), [0, 1, 1, 0, Classes::IGNORED, 1, 1, 1], 2).unwrap();
    assert!(matches!(&d.targets()[0], Targets::Classes { shape, .. } if shape[..] == [2, 2, 2]));
    assert_eq!(d.class_counts(), [2, 5]);
    assert!(d.clone().one_hot().is_err() && d.split_stratified(0.5, 1).is_err());
    assert!(Dataset::segmentation(x.clone(), [0; 7], 2).is_err());
    let text = Dataset::segmentation(x, [0, 0, 0, 0, 0, 2, 0, 0], 2).unwrap_err().to_string();
    assert_eq!(text, "labels: expected classes below 2, got 2 at sample 1");
}

#[test]
fn bytes_take_a_byte_each() {
    let bytes = Bytes::new([100, 8, 8], vec![7; 6400], f32::from).unwrap();
    let d = Dataset::classification(bytes, vec![0; 100], 1).unwrap();
    assert_eq!(d.memory(), 6400 + 100 * size_of::<usize>());
    let mut batch = Batch::default();
    d.gather(&[1, 2], &mut batch).unwrap();
    let (train, test) = d.split(0.5, 1).unwrap();
    assert_eq!((d.memory(), train.memory() + test.memory()), (7200, 7200));
    assert!(batch.x().data().iter().all(|&v| v == 7.0));
    assert_eq!(d.clone().flatten().memory(), 7200);
    // Asked for as one tensor, they are also held as values.
    assert_eq!((d.x().len(), d.memory()), (6400, 7200 + 4 * 6400));
    let scaled = d
        .map_x(|x| {
            x.fill(1.0);
            Ok(())
        })
        .unwrap();
    assert_eq!(scaled.memory(), 4 * 6400 + 800);
}

proptest! {
    #[test]
    fn a_split_keeps_every_sample_with_its_target(n in 2usize..80, held_out in 0.0f64..1.0, seed: u64, stratified: bool) {
        let labels: Vec<usize> = (0..n).map(|i| (i * i + 1) % 3).collect();
        let x = Tensor::from_fn([n, 1], |i| i as f64);
        let d = Dataset::classification(x, labels.clone(), 3).unwrap();
        let halves = || if stratified { d.split_stratified(held_out, seed) } else { d.split(held_out, seed) };
        let count = (held_out * n as f64).round() as usize;
        let classes = d.class_counts().iter().filter(|&&n| n > 0).count();
        let Ok((train, test)) = halves() else {
            prop_assert!(count == 0 || count == n || (stratified && n - count < classes));
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
            // A class that has to keep its last sample hands its share to others.
            let kept = |&all: &usize| all > 0 && held_out * all as f64 > all as f64 - 1.0;
            let moved = d.class_counts().iter().filter(|all| kept(all)).count() as f64;
            for ((held, left), all) in test.class_counts().into_iter().zip(train.class_counts()).zip(d.class_counts()) {
                prop_assert!((held as f64 - held_out * all as f64).abs() < 1.0 + moved + 1e-9);
                prop_assert!(left > 0 || all == 0);
            }
        }
    }
}
