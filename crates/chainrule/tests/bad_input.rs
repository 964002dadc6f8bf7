//! What a user may get wrong: each gives an error that says what, and nothing is half-done.

mod common;

use chainrule::{data::labelled_images, io, prelude::*};
use common::{network, some_digits};
use std::path::PathBuf;

/// Every value of a model, as bits.
fn bits(model: &Sequential) -> Vec<u32> {
    let mut bits = Vec::new();
    model.visit(&mut |_, p| bits.extend(p.value().unwrap().iter().map(|v| v.to_bits())));
    bits
}

fn text<V>(result: Result<V>) -> String {
    result.err().expect("an error").to_string()
}

/// A file of this test's own, gone when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("chainrule-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn wrong_shapes_when_built_and_when_run() {
    let built = |input: &[usize]| text(network::<f32>().build(input));
    assert_eq!(
        built(&[1, 3, 8, 8]),
        "in layer `0`: Conv2d: expected input (N, 1, H, W) with at least one element per channel, got [1, 3, 8, 8]"
    );
    assert_eq!(built(&[1, 1, 16, 16]), "in layer `13`: Linear: expected input (.., 256), got [1, 1024]");
    assert!(built(&[1, 1, 2, 2]).starts_with("in layer `10`: MaxPool2d"));
    let model = network::<f32>().init(1).unwrap();
    assert!(text(model.infer(&Tensor::zeros([5, 64]))).starts_with("in layer `0`: Conv2d"));
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-3));
    let before = bits(trainer.model());
    assert!(text(trainer.step(&Tensor::zeros([2, 1, 16, 16]), &[0, 1])).starts_with("in layer `13`"));
    assert!(text(trainer.step(&some_digits(0, 3).0, &[0, 1])).contains("CrossEntropy: expected"));
    assert_eq!(bits(trainer.model()), before);
}

#[test]
fn a_label_out_of_range() {
    let model = network::<f32>().init(1).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-3));
    let before = bits(trainer.model());
    let error = text(trainer.step(&some_digits(0, 3).0, &[4, 10, 2]));
    assert_eq!(error, "CrossEntropy: expected classes below 10, got 10 at position 1");
    assert_eq!(bits(trainer.model()), before);
    let error = text(Dataset::classification(some_digits::<f32>(0, 3).0, [4, 10, 2], 10));
    assert_eq!(error, "labels: expected classes below 10, got 10 at sample 1");
}

#[test]
fn an_empty_dataset_a_batch_of_none_and_values_that_are_not_finite() {
    assert!(
        text(Dataset::<f32>::classification(Tensor::zeros([0, 4]), [], 3)).contains("at least one sample")
    );
    let model = network::<f32>().init(1).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-3)).batch_size(0);
    let before = bits(trainer.model());
    assert_eq!(text(trainer.fit(&digits())), "loader: expected a batch size of at least 1, got 0");
    let (mut x, labels) = some_digits::<f32>(0, 3);
    x.data_mut()[64 + 9] = f32::NAN;
    assert!(text(Dataset::classification(x.clone(), labels.clone(), 10)).contains("NaN"));
    let error = text(trainer.step(&x, &labels));
    assert_eq!(error, "input: expected finite values, got NaN in sample 1 of the batch, position [0, 1, 1]");
    assert_eq!(bits(trainer.model()), before);
}

#[test]
fn the_weights_of_another_model() {
    let other = Sequential::new()
        .add(Conv2d::new(1, 8, 3).padding(1).bias(false))
        .named("head", Linear::new(4, 2))
        .init(1)
        .unwrap();
    let file = Temporary::new("other.safetensors", &io::to_bytes(&other).unwrap());
    let mut model = network::<f32>().init(1).unwrap();
    let before = bits(&model);
    let error = text(io::load(&mut model, &file.0));
    for part in ["0.weight", "[8, 1, 3, 3]", "head.weight", "13.bias", "1.running_mean"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(bits(&model), before);
}

#[test]
fn weights_that_are_cut_or_lie() {
    let mut model = network::<f32>().init(1).unwrap();
    let (whole, before) = (io::to_bytes(&model).unwrap(), bits(&model));
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        assert!(io::from_bytes(&mut model, &whole[..length]).is_err(), "{length} bytes");
    }
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(io::from_bytes(&mut model, &lying).is_err());
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let json = std::str::from_utf8(&whole[8..8 + header]).unwrap();
    for (from, to) in [("[16,1,3,3]", "[16,9,3,3]"), ("\"F32\"", "\"F64\""), ("\"0.weight\"", "\"0.weighs\"")]
    {
        let text = json.replacen(from, to, 1);
        assert_ne!(text, json, "{from}");
        let lying = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &whole[8 + header..]].concat();
        assert!(io::from_bytes(&mut model, &lying).is_err(), "{to}");
    }
    assert_eq!(bits(&model), before);
    io::from_bytes(&mut model, &whole).unwrap();
}

#[test]
fn idx_files_that_are_cut_or_lie() {
    let labels = Temporary::new("labels", &[0, 0, 8, 1, 0, 0, 0, 2, 3, 4]);
    let images = |bytes: &[u8]| {
        let file = Temporary::new("images", bytes);
        labelled_images::<f32>(&file.0, &labels.0, 10).map(|data| data.len())
    };
    let whole = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[7, 8, 9, 10]].concat();
    assert_eq!(images(&whole).unwrap(), 2);
    (0..whole.len()).for_each(|length| assert!(images(&whole[..length]).is_err(), "{length} bytes"));
    for (at, lie) in [(2, 9), (3, 1), (4, 255), (7, 3), (8, 127), (15, 200)] {
        let mut lying = whole.clone();
        lying[at] = lie;
        assert!(images(&lying).is_err(), "byte {at}");
    }
    let far = Temporary::new("labels-far", &[0, 0, 8, 1, 0, 0, 0, 2, 3, 14]);
    let file = Temporary::new("images-far", &whole);
    assert!(text(labelled_images::<f32>(&file.0, &far.0, 10)).contains("got 14 at sample 1"));
}
