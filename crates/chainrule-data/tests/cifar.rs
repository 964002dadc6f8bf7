//! Files of CIFAR that are whole, cut, longer than their records or of classes that there are not.

mod common;

use chainrule_data::{Cifar, Features, cifar10};
use common::Folder;
use proptest::prelude::*;
use std::path::Path;

/// A record with these labels, whose pixels count up from `first`.
fn record(labels: &[u8], first: u8) -> Vec<u8> {
    let pixels = (0..3072).map(|i| (i as u8).wrapping_add(first));
    labels.iter().copied().chain(pixels).collect()
}

fn refused(kind: Cifar, bytes: &[u8]) -> String {
    let e = kind.read::<f32>(bytes).unwrap_err();
    assert!(matches!(e.kind(), chainrule_tensor::Kind::Format(_)), "{e}");
    e.to_string()
}

#[test]
fn a_record_is_a_label_and_three_planes() {
    let data = Cifar::Cifar10.read::<f64>(&[record(&[3], 0), record(&[9], 7)].concat()[..]).unwrap();
    assert_eq!((data.sample_shape(), data.labels()), (&[3, 32, 32][..], Some(&[3, 9][..])));
    assert_eq!((data.classes(), data.class_name(3)), (10, "cat".into()));
    // Plane 1, row 2, column 3 of the second image.
    let at = 32 * 32 + 2 * 32 + 3;
    assert_eq!(data.x().data()[3072 + at], f64::from((at as u8).wrapping_add(7)) / 255.0);
    assert!(matches!(&data.inputs()[0], Features::Bytes(bytes) if bytes.data().len() == 2 * 3072));
}

#[test]
fn cifar_100_has_two_labels() {
    let file = [record(&[19, 99], 0), record(&[0, 5], 1)].concat();
    let fine = Cifar::Cifar100.read::<f32>(&file[..]).unwrap();
    let coarse = Cifar::Cifar100Coarse.read::<f32>(&file[..]).unwrap();
    assert_eq!((fine.labels(), fine.classes()), (Some(&[99, 5][..]), 100));
    assert_eq!((coarse.labels(), coarse.classes()), (Some(&[19, 0][..]), 20));
    assert_eq!(fine.x(), coarse.x());
    // The label that is not read is checked too.
    let text = "cifar: cifar label: expected a fine class below 100, got 100 in record 0";
    assert_eq!(refused(Cifar::Cifar100Coarse, &record(&[0, 100], 0)), text);
    assert!(refused(Cifar::Cifar100, &record(&[20, 0], 0)).contains("a coarse class below 20, got 20"));
}

#[test]
fn files_of_another_length_are_refused() {
    let (whole, length) =
        (record(&[0], 0), "cifar: cifar length: expected one or more records of 3073 bytes");
    assert_eq!(refused(Cifar::Cifar10, b""), format!("{length}, got 0 bytes"));
    for n in [1, 2, 3071, 3072] {
        assert_eq!(refused(Cifar::Cifar10, &whole[..n]), format!("{length}, got {n} bytes"));
    }
    assert_eq!(refused(Cifar::Cifar10, &[&whole[..], &[1]].concat()), format!("{length}, got 3074 bytes"));
    // Several pieces of reading, and one byte more.
    let many = whole.repeat(600);
    assert_eq!(Cifar::Cifar10.read::<f32>(&many[..]).unwrap().len(), 600);
    let text = refused(Cifar::Cifar10, &[&many[..], &[0]].concat());
    assert_eq!(text, format!("{length}, got {} bytes", 600 * 3073 + 1));
    // The records of the other format.
    assert!(refused(Cifar::Cifar100, &whole).contains("records of 3074 bytes"));
}

#[test]
fn labels_out_of_range_are_refused_with_their_record() {
    let mut file = record(&[9], 0).repeat(400);
    file[300 * 3073] = 10;
    let text = "cifar: cifar label: expected a class below 10, got 10 in record 300";
    assert_eq!(refused(Cifar::Cifar10, &file), text);
}

#[test]
fn a_folder_holds_both_parts() {
    let folder = Folder::new("cifar");
    let missing = |text: &str| {
        let e = cifar10::<f32>(&folder.0).unwrap_err();
        assert!(matches!(e.kind(), chainrule_tensor::Kind::Io(..)));
        let found = e.to_string();
        assert!(found.contains(text) && found.contains("https://"), "{found}");
    };
    missing("data_batch_1.bin");
    // In the order of their numbers.
    (1..=10).for_each(|i| _ = folder.put(&format!("data_batch_{i}.bin"), &record(&[i % 10], i)));
    missing("test_batch.bin");
    folder.put("test_batch.bin", &record(&[7], 0).repeat(2));
    let (train, test) = cifar10::<f32>(&folder.0).unwrap();
    assert_eq!(train.labels(), Some(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 0][..]));
    assert_eq!(test.labels(), Some(&[7, 7][..]));
    folder.put("data_batch_11.bin", &[]);
    let text = cifar10::<f32>(&folder.0).unwrap_err().to_string();
    assert!(text.contains("data_batch_11.bin: cifar length: expected one or more records"), "{text}");

    folder.put("train.bin", &record(&[1, 2], 0));
    folder.put("test.bin", &record(&[3, 4], 0));
    let (train, test) = Cifar::Cifar100.folder::<f32>(&folder.0).unwrap();
    assert_eq!((train.labels(), test.labels()), (Some(&[2][..]), Some(&[4][..])));
    assert!(Cifar::Cifar10.open::<f32>(&[&folder.0]).is_err());
    assert!(Cifar::Cifar10.open::<f32>(&[folder.0.join("nothing")]).is_err());
    assert!(Cifar::Cifar10.open::<f32>(&[] as &[&Path]).is_err());
    assert!(cifar10::<f32>(folder.0.join("nothing")).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(labels in prop::collection::vec(any::<u8>(), 0..4), more in 0usize..4, cut in 0usize..7000) {
        let mut file: Vec<u8> = labels.iter().flat_map(|&label| record(&[label], label)).collect();
        file.extend(vec![1; more]);
        file.truncate(cut.max(1));
        for kind in [Cifar::Cifar10, Cifar::Cifar100, Cifar::Cifar100Coarse] {
            if let Ok(data) = kind.read::<f32>(&file[..]) {
                prop_assert_eq!(data.x().len(), data.len() * 3072);
            }
        }
    }
}
