//! idx files that are complete, truncated, of a false size or of another format; MNIST itself if it is beside the project.

mod common;

use chainrule_data::{
    idx::{Idx, Kind},
    labelled_images, mnist,
};
use common::Folder;
use proptest::prelude::*;
use std::path::Path;

/// An idx file of bytes.
fn idx(axes: &[u32], data: &[u8]) -> Vec<u8> {
    let axes_bytes = axes.iter().flat_map(|a| a.to_be_bytes());
    [0, 0, 8, axes.len() as u8].into_iter().chain(axes_bytes).chain(data.iter().copied()).collect()
}

fn refused(bytes: &[u8]) -> String {
    let e = Idx::read(bytes).unwrap_err();
    assert!(matches!(e.kind(), chainrule_tensor::Kind::Format(_)), "{e}");
    e.to_string()
}

#[test]
fn every_element_type_is_read() {
    let read = |kind: u8, data: &[u8]| {
        let file: Vec<u8> = [0, 0, kind, 1, 0, 0, 0, 2].iter().chain(data).copied().collect();
        let array = Idx::read(&file[..]).unwrap();
        assert_eq!(array.bytes().len(), 2 * array.kind().size());
        array.tensor::<f64>().into_vec()
    };
    assert_eq!(read(0x08, &[0, 255]), [0.0, 255.0]);
    assert_eq!(read(0x09, &[127, 255]), [127.0, -1.0]);
    assert_eq!(read(0x0b, &[1, 0, 255, 254]), [256.0, -2.0]);
    assert_eq!(read(0x0c, &[0, 1, 0, 0, 255, 255, 255, 253]), [65536.0, -3.0]);
    assert_eq!(read(0x0d, &[1.5f32.to_be_bytes(), (-2.0f32).to_be_bytes()].concat()), [1.5, -2.0]);
    assert_eq!(read(0x0e, &[0.1f64.to_be_bytes(), 1e300f64.to_be_bytes()].concat()), [0.1, 1e300]);
}

#[test]
fn files_of_another_format_are_refused() {
    assert_eq!(refused(b"\x89PNG\r\n\x1a\n"), "idx: idx magic number: expected bytes 00 00, got 89 50");
    assert_eq!(refused(b""), "idx: idx header: expected 4 bytes of magic number, got 0");
    assert_eq!(refused(&[0, 0, 0x0a, 1]), "idx: idx type: expected 08, 09, 0b, 0c, 0d or 0e, got 0a");
    assert_eq!(refused(&[0, 0, 8, 0]), "idx: idx rank: expected 1 to 8 axes, got 0");
    assert_eq!(refused(&[0, 0, 8, 255]), "idx: idx rank: expected 1 to 8 axes, got 255");
}

#[test]
fn truncated_files_are_refused() {
    let whole = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    assert_eq!(Idx::read(&whole[..]).unwrap().shape()[..], [2, 3]);
    assert_eq!(refused(&whole[..9]), "idx: idx header: axis 1: expected 8 bytes of 2 axes, got 5");
    assert_eq!(refused(&whole[..15]), "idx: idx data: expected 6 bytes for [2, 3], got 3");
    (0..whole.len()).for_each(|n| drop(refused(&whole[..n])));
}

#[test]
fn false_headers_are_refused_without_allocating_what_they_claim() {
    let more = idx(&[2], &[1, 2, 3]);
    assert_eq!(refused(&more), "idx: idx data: expected the end after 2 bytes for [2], got more");
    let huge = idx(&[u32::MAX, 1 << 20], &[1, 2, 3]);
    assert_eq!(
        refused(&huge),
        "idx: idx data: expected 4503599626321920 bytes for [4294967295, 1048576], got 3"
    );
    let text = refused(&idx(&[u32::MAX; 4], &[]));
    assert!(
        text.starts_with("idx: idx header: expected axes whose volume fits in memory, got [42949"),
        "{text}"
    );
    // A file's own size refuses the claim before the data are read.
    let folder = Folder::new("lying");
    let text = Idx::open(folder.put("x", &huge)).unwrap_err().to_string();
    assert!(
        text.ends_with("expected 4503599626321920 bytes for [4294967295, 1048576], got a file of at most 3")
    );
}

#[test]
fn images_and_labels_have_to_belong_together() {
    let folder = Folder::new("pairs");
    let images = folder.put("images", &idx(&[2, 2, 2], &[0, 51, 102, 153, 204, 255, 0, 0]));
    let labels = |name: &str, data: &[u8]| folder.put(name, &idx(&[data.len() as u32], data));
    let good = labels("good", &[1, 0]);
    let d = labelled_images::<f64>(&images, &good, 2).unwrap();
    assert_eq!((d.sample_shape(), d.labels()), (&[1, 2, 2][..], Some(&[1, 0][..])));
    assert_eq!(d.x().data(), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.0, 0.0]);

    let fails = |x: &Path, y: &Path| labelled_images::<f32>(x, y, 2).unwrap_err().to_string();
    let text = fails(&images, &labels("three", &[0, 1, 0]));
    assert!(
        text.contains("idx header: labels: expected 2, one for each image of") && text.ends_with("got 3")
    );
    let text = fails(&images, &labels("bad", &[0, 2]));
    assert_eq!(text, "labels: expected classes below 2, got 2 at sample 1");
    assert!(fails(&good, &good).ends_with("idx rank: images: expected 3 axes, got [2]"));
    assert!(fails(&images, &images).ends_with("idx rank: labels: expected 1 axes, got [2, 2, 2]"));
    let signed = folder.put("signed", &[0, 0, 9, 1, 0, 0, 0, 1, 0]);
    assert!(fails(&images, &signed).ends_with("idx type: labels: expected U8, got I8"));
    let none = folder.put("none", &idx(&[0, 2, 2], &[]));
    assert!(fails(&none, &labels("no", &[])).starts_with("dataset: expected at least one sample"));
}

#[test]
fn a_missing_file_is_named_with_its_source() {
    let folder = Folder::new("missing");
    folder.put("train-images-idx3-ubyte", &idx(&[1, 1, 1], &[0]));
    let e = mnist::<f32>(&folder.0).unwrap_err();
    assert!(matches!(e.kind(), chainrule_tensor::Kind::Io(..)));
    let text = e.to_string();
    assert!(text.contains("train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz: no such file"), "{text}");
    assert!(text.contains("https://"), "{text}");
    assert!(Idx::open(folder.0.join("nothing")).is_err());
    assert!(Idx::open(&folder.0).is_err());
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn compressed_files_are_recognised_by_their_first_bytes() {
        let plain = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(Idx::read(&compress(&plain)[..]).unwrap(), Idx::read(&plain[..]).unwrap());
    }

    #[test]
    fn truncated_and_damaged_compression_is_refused() {
        let whole = compress(&idx(&[64], &std::array::from_fn::<u8, 64, _>(|i| (i * 37) as u8)));
        (0..whole.len()).for_each(|n| drop(refused(&whole[..n])));
        let text = refused(&whole[..whole.len() - 1]); // the checksum
        assert!(text.starts_with("idx: gzip: expected a whole compressed stream, got: "), "{text}");
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        refused(&damaged);
        refused(&[&whole[..], b"more"].concat());
    }

    #[test]
    fn a_bomb_is_not_unpacked_past_its_header() {
        let mut bomb = idx(&[4], &[]);
        bomb.resize(64 << 20, 0);
        let bomb = compress(&bomb);
        assert_eq!(refused(&bomb), "idx: idx data: expected the end after 4 bytes for [4], got more");
    }

    #[test]
    fn a_header_that_no_compression_of_this_size_could_fill_is_refused() {
        let folder = Folder::new("ratio");
        let path = folder.put("x.gz", &compress(&idx(&[1 << 30], &[0; 100])));
        let text = Idx::open(path).unwrap_err().to_string();
        assert!(text.contains("expected 1073741824 bytes for [1073741824], got a file of at most"), "{text}");
    }

    proptest! {
        #[test]
        fn no_compressed_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]);
            let _ = Idx::read(&bytes[..]);
        }
    }
}

#[cfg(not(feature = "gzip"))]
#[test]
fn without_the_feature_gzip_is_named() {
    assert!(refused(&[0x1f, 0x8b, 8, 0]).contains("expected the feature `gzip`"));
}

proptest! {
    #[test]
    fn no_bytes_panic(kind in 0u8..16, rank in 0u8..10, rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let file: Vec<u8> = [0, 0, kind, rank].into_iter().chain(rest).collect();
        if let Ok(array) = Idx::read(&file[..]) {
            prop_assert_eq!(array.tensor::<f32>().len(), array.shape().volume());
        }
    }

    #[test]
    fn what_is_written_is_read(axes in prop::collection::vec(0u32..5, 1..5), seed: u8) {
        let n = axes.iter().product::<u32>();
        let data: Vec<u8> = (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let file = idx(&axes, &data);
        let array = Idx::read(&file[..]).unwrap();
        prop_assert_eq!(array.kind(), Kind::U8);
        prop_assert_eq!(array.bytes(), &data[..]);
        prop_assert_eq!(array.shape().iter().map(|&a| a as u32).collect::<Vec<_>>(), axes);
    }
}

#[test]
fn mnist_is_read_if_it_is_beside_the_project() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mnist");
    if !dir.is_dir() || cfg!(not(feature = "gzip")) {
        println!("skipped: no MNIST at {} or no gzip", dir.display());
        return;
    }
    let (train, test) = mnist::<f32>(&dir).unwrap();
    assert_eq!(train.inputs()[0].memory(), 60_000 * 28 * 28);
    assert_eq!((train.x().shape()[..].to_vec(), test.len()), (vec![60_000, 1, 28, 28], 10_000));
    assert_eq!(train.labels().unwrap()[..6], [5, 0, 4, 1, 9, 2]);
    assert_eq!(test.labels().unwrap()[..6], [7, 2, 1, 0, 4, 1]);
    assert_eq!(train.class_counts(), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    let mean = train.x().data().iter().map(|&v| f64::from(v)).sum::<f64>() / train.x().len() as f64;
    assert!((mean - 0.1306604).abs() < 1e-6, "{mean}");
}
