//! Weights saved and loaded, strictness, and hostile files.

use chainrule_core::{Init, Kind, Param, Parameters, Params, ParamsMut, Scalar};
use chainrule_io::{from_bytes, load, save, to_bytes};
use proptest::prelude::*;
use std::{fs, path::PathBuf};

/// One of everything that is saved.
#[derive(Clone)]
struct Layered<T> {
    weight: Param<T>,
    mean: Param<T>,
    count: Param<T>,
    /// Shown a second time under this name.
    tied: Option<&'static str>,
}

impl<T: Scalar> Layered<T> {
    fn new() -> Self {
        let weight = Param::new("weight", [2, 3], Init::Normal { mean: 0.0, std: 1.0 });
        let mean = Param::buffer("running_mean", [3], Init::Constant(0.25));
        Self { weight, mean, count: Param::counter("num_batches_tracked"), tied: None }
    }
}

impl<T: Scalar> Parameters for Layered<T> {
    type T = T;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.child("encoder").add(&self.weight);
        if let Some(name) = self.tied {
            out.child(name).add(&self.weight);
        }
        out.add(&self.mean);
        out.add(&self.count);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.child("encoder").add(&mut self.weight);
        out.add(&mut self.mean);
        out.add(&mut self.count);
    }
}

fn values<T: Scalar>(model: &Layered<T>) -> Vec<Option<Vec<f64>>> {
    let mut all = Vec::new();
    model.visit(&mut |_, p| {
        all.push(p.tensor().map(|t| t.data().iter().map(|v| v.to_f64()).collect()));
    });
    all
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("chainrule-io-{}-{name}", std::process::id()))
}

/// A file made by hand.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn refused(bytes: &[u8]) -> chainrule_core::Error {
    let mut model = Layered::<f32>::new();
    let error = from_bytes(&mut model, bytes).unwrap_err();
    assert!(values(&model).iter().all(Option::is_none), "a refused file changed the model");
    error
}

#[test]
fn saved_and_loaded_weights_are_the_same_bits() {
    fn there_and_back<T: Scalar>(name: &str) {
        let path = temporary(name);
        let mut model = Layered::<T>::new().init(3).unwrap();
        model.count.value_mut().unwrap()[0] = T::from_usize(41);
        save(&model, &path).unwrap();
        let mut other = Layered::<T>::new();
        load(&mut other, &path).unwrap();
        assert_eq!(values(&model), values(&other));
        fs::remove_file(path).unwrap();
    }
    there_and_back::<f32>("bits-f32");
    there_and_back::<f64>("bits-f64");
}

#[test]
fn weights_of_the_other_scalar_type_are_converted() {
    let model = Layered::<f32>::new().init(3).unwrap();
    let mut other = Layered::<f64>::new();
    from_bytes(&mut other, &to_bytes(&model).unwrap()).unwrap();
    assert_eq!(values(&model), values(&other));
}

#[test]
fn names_and_types_in_the_file_are_those_of_pytorch() {
    let bytes = to_bytes(&Layered::<f32>::new().init(3).unwrap()).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> =
        tensors.iter().map(|(name, t)| format!("{name} {} {:?}", t.dtype(), t.shape())).collect();
    all.sort();
    assert_eq!(all, ["encoder.weight F32 [2, 3]", "num_batches_tracked I64 []", "running_mean F32 [3]"]);
}

#[test]
fn one_error_lists_all_that_does_not_fit_and_nothing_changes() {
    let header = r#"{"encoder.weight":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},
        "other.bias":{"dtype":"F32","shape":[1],"data_offsets":[24,28]},
        "running_mean":{"dtype":"I32","shape":[3],"data_offsets":[28,40]}}"#;
    let error = refused(&file(header, &[0; 40]));
    assert!(matches!(error.kind(), Kind::State(_)));
    assert_eq!(
        error.to_string(),
        "weights and the model do not fit: expected `encoder.weight` [2, 3], got [3, 2]; unexpected \
         `other.bias` [1]; expected `running_mean` of type F32, got I32; missing `num_batches_tracked` []"
    );
}

#[test]
fn a_failed_load_leaves_the_values_that_were_there() {
    let mut model = Layered::<f32>::new().init(1).unwrap();
    let before = values(&model);
    let mut bytes = to_bytes(&Layered::<f32>::new().init(2).unwrap()).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = from_bytes(&mut model, &bytes).unwrap_err().to_string();
    assert_eq!(error, "weights: tensor `running_mean`: expected finite values, got NaN at position 2");
    assert_eq!(values(&model), before);
}

#[test]
fn a_value_too_large_for_the_model_is_an_error() {
    let mut model = Layered::<f64>::new().init(2).unwrap();
    model.weight.value_mut().unwrap()[4] = 1e300;
    let error = refused(&to_bytes(&model).unwrap()).to_string();
    assert!(error.contains("`encoder.weight`") && error.contains("inf"), "{error}");
}

#[test]
fn a_model_that_could_not_be_loaded_again_is_not_saved() {
    let path = temporary("refused");
    let mut model = Layered::<f32>::new();
    let error = save(&model, &path).unwrap_err().to_string();
    assert!(error.starts_with("parameter `encoder.weight` is not initialised"), "{error}");
    model = model.init(0).unwrap();
    model.weight.value_mut().unwrap()[1] = f32::INFINITY;
    let error = save(&model, &path).unwrap_err().to_string();
    assert_eq!(error, "parameter `encoder.weight`: expected finite values, got inf at position 1");
    assert!(!path.exists());
}

#[test]
fn a_parameter_used_twice_is_saved_under_both_names_and_one_is_enough_to_load() {
    let mut model = Layered::<f32>::new().init(3).unwrap();
    let plain = to_bytes(&model).unwrap();
    model.tied = Some("decoder");
    let both = to_bytes(&model).unwrap();
    assert!(String::from_utf8_lossy(&both).contains("decoder.weight"));
    for bytes in [&plain, &both] {
        let mut other = Layered::<f32> { tied: Some("decoder"), ..Layered::new() };
        from_bytes(&mut other, bytes).unwrap();
        assert_eq!(values(&other), values(&model));
    }
    // The same name for the same parameter is no conflict.
    model.tied = Some("encoder");
    assert_eq!(to_bytes(&model).unwrap(), plain);
    // Two names of one parameter with different values are.
    let mut lying = both.clone();
    let at = both.len() - 12 - 24;
    lying[at] ^= 1;
    let mut other = Layered::<f32> { tied: Some("decoder"), ..Layered::new() };
    let error = from_bytes(&mut other, &lying).unwrap_err().to_string();
    assert!(error.contains("under all names of one parameter"), "{error}");
}

#[test]
fn what_is_saved_can_be_loaded_whatever_the_names_and_counts() {
    for name in ["", ".", "__metadata__", "\u{1b}[2J\"\\\n", "é\u{202e}", &"long".repeat(25_000)] {
        let tied = Some(&*name.to_owned().leak());
        let model = Layered::<f32> { tied, ..Layered::new() }.init(3).unwrap();
        let mut other = Layered::<f32> { tied, ..Layered::new() };
        from_bytes(&mut other, &to_bytes(&model).unwrap()).unwrap();
        assert_eq!(values(&other), values(&model), "{name:.20?}");
    }
    fn counts<T: Scalar>() {
        for power in 0..70 {
            let mut model = Layered::<T>::new().init(3).unwrap();
            model.count.value_mut().unwrap()[0] = T::from_f64(2f64.powi(power));
            if let Ok(bytes) = to_bytes(&model) {
                from_bytes(&mut Layered::<T>::new(), &bytes).unwrap();
            }
        }
        // And what can be loaded can be saved.
        for count in (0..63).flat_map(|power| [(1i64 << power) - 1, 1 << power]) {
            let mut bytes = to_bytes(&Layered::<T>::new().init(3).unwrap()).unwrap();
            let at = bytes.len() - 9 * size_of::<T>() - 8;
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let mut model = Layered::<T>::new();
            if from_bytes(&mut model, &bytes).is_ok() {
                assert_eq!(model.count.value().unwrap()[0].to_f64(), count as f64);
                assert_eq!(to_bytes(&model).unwrap(), bytes);
            }
        }
    }
    counts::<f32>();
    counts::<f64>();
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_not_waited_for() {
    for path in ["/dev/null", "/dev/zero"] {
        let error = load(&mut Layered::<f32>::new(), path).unwrap_err().to_string();
        assert!(error.contains("expected a regular file"), "{error}");
    }
    let pipe = temporary("pipe");
    if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        assert!(load(&mut Layered::<f32>::new(), &pipe).is_err());
        fs::remove_file(pipe).unwrap();
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = to_bytes(&Layered::<f32>::new().init(3).unwrap()).unwrap();
    (0..bytes.len()).for_each(|n| _ = refused(&bytes[..n]));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(refused(&longer).to_string().contains("bytes of values after the header"));
    let path = temporary("cut");
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = load(&mut Layered::<f32>::new(), &path).unwrap_err();
    assert!(matches!(error.kind(), Kind::Format(_)) && error.to_string().contains("cut"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(load(&mut Layered::<f32>::new(), &path).unwrap_err().kind(), Kind::Io(..)));
    assert!(load(&mut Layered::<f32>::new(), std::env::temp_dir()).is_err());
}

#[test]
fn a_header_that_lies_is_an_error() {
    let huge = [u64::MAX.to_le_bytes().to_vec(), vec![b' '; 64]].concat();
    assert!(refused(&huge).to_string().contains("expected a header of at most 64 bytes"));
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let cases = [
        (String::new(), 0),
        ("[]".into(), 0),
        ("{".repeat(100_000), 0),
        (tensor("[2]", "[0,7]"), 8),
        (tensor("[2]", "[4,12]"), 12),
        (tensor("[2]", "[8,0]"), 8),
        (tensor("[-1]", "[0,4]"), 4),
        (tensor("[4294967296,4294967296,4]", "[0,16]"), 16),
        (tensor("[4611686018427387904]", "[0,0]"), 0),
        (tensor("[0,9223372036854775807,9]", "[0,0]"), 0),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#
                .into(),
            12,
        ),
    ];
    for (header, data) in cases {
        let error = refused(&file(&header, &vec![0; data]));
        assert!(matches!(error.kind(), Kind::Format(_) | Kind::State(_)), "{error}");
    }
    // Eight tensors whose lengths add up beyond 64 bits, to the number of bytes that there are.
    let size = (1u64 << 61) - 1;
    let mut entries: Vec<String> = (0..8)
        .map(|i| {
            let (s, e) = (i * size, (i + 1) * size);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{s},{e}]}}"#)
        })
        .collect();
    entries.push(format!(
        r#""t8":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#,
        u64::MAX - 7,
        u64::MAX
    ));
    assert!(matches!(refused(&file(&format!("{{{}}}", entries.join(",")), &[])).kind(), Kind::Format(_)));
}

#[test]
fn names_in_a_hostile_file_cannot_write_to_the_terminal() {
    let header = r#"{"\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let error = refused(&file(header, &[0; 4])).to_string();
    assert!(error.contains(r"\u{1b}[2J") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_count_that_the_scalar_does_not_hold_is_an_error() {
    let mut bytes = to_bytes(&Layered::<f32>::new().init(3).unwrap()).unwrap();
    let n = bytes.len();
    for count in [-1, (1 << 24) + 1, (1 << 53) + 1, i64::MAX, i64::MIN] {
        bytes[n - 36 - 8..n - 36].copy_from_slice(&i64::to_le_bytes(count));
        let error = refused(&bytes).to_string();
        assert!(error.contains("`num_batches_tracked`") && error.contains(&count.to_string()), "{error}");
    }
    bytes[n - 36 - 8..n - 36].copy_from_slice(&i64::to_le_bytes((1 << 24) + 1));
    let mut other = Layered::<f64>::new();
    from_bytes(&mut other, &bytes).unwrap();
    assert_eq!(other.count.value().unwrap(), [16_777_217.0]);
}

#[test]
fn a_count_that_no_file_holds_is_not_saved() {
    let mut model = Layered::<f64>::new().init(3).unwrap();
    for count in [-1.0, 0.5, 1e16, f64::INFINITY, f64::NAN] {
        model.count.value_mut().unwrap()[0] = count;
        assert!(to_bytes(&model).unwrap_err().to_string().contains("expected a count"), "{count}");
    }
    model.count.value_mut().unwrap()[0] = 8e15;
    let mut other = Layered::<f64>::new();
    from_bytes(&mut other, &to_bytes(&model).unwrap()).unwrap();
    assert_eq!(values(&other), values(&model));
}

#[test]
fn a_form_is_told_by_the_first_bytes() {
    let zip = [b"PK\x03\x04".to_vec(), vec![0; 64]].concat();
    let pickle = [b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46".to_vec(), vec![0; 64]].concat();
    let tar = [vec![0; 257], b"ustar".to_vec(), vec![0; 250]].concat();
    for (bytes, what) in [
        (zip, "zip archive"),
        (pickle, "magic number"),
        (tar, "a tar archive"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), "HDF5"),
        (b"\x93NUMPY\x01\x00".to_vec(), "a NumPy array"),
        (b"GGUF\x03\0\0\0".to_vec(), "GGUF"),
        (b"{\"weight_map\":{}}".to_vec(), "index"),
    ] {
        let error = refused(&bytes);
        assert!(matches!(error.kind(), Kind::Format(_)));
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn an_error_about_a_hostile_file_is_of_bounded_length() {
    let name = "n".repeat(100_000);
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    assert!(refused(&file(&header, &[0; 4])).to_string().len() < 1000);
    let entries: Vec<String> =
        (0..1000).map(|i| format!(r#""t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let error = refused(&file(&format!("{{{}}}", entries.join(",")), &[])).to_string();
    assert!(error.contains("and 953 more") && error.len() < 8000, "{error}");
    let error = refused(&file(&format!(r#"{{"a":{{"dtype":"{name}"}}}}"#), &[])).to_string();
    assert!(error.len() < 9000, "{}", error.len());
}

proptest! {
    #[test]
    fn a_damaged_file_never_panics_and_never_half_loads(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = to_bytes(&Layered::<f32>::new().init(3).unwrap()).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut model = Layered::<f32>::new();
        let loaded = from_bytes(&mut model, &bytes).is_ok();
        let values = values(&model);
        prop_assert!(values.iter().all(|n| n.is_some() == loaded));
        prop_assert!(values.iter().flatten().flatten().all(|v| v.is_finite()));
    }

    #[test]
    fn noise_is_no_file(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        refused(&bytes);
    }
}
