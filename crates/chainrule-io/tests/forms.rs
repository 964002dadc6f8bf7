//! Weights in PyTorch's and NumPy's own forms, loaded into a model.

mod common;

use chainrule_core::{Init, Kind, Param, Parameters, Params, ParamsMut};
use chainrule_io::{Load, Save, TensorFile, from_bytes, load};
use common::{Pickle, all, floats, npy, safetensors, state_dict, torch_legacy, torch_zip, zip};
use std::{fs, path::PathBuf};

struct Linear {
    weight: Param<f32>,
    bias: Param<f32>,
}

impl Parameters for Linear {
    type T = f32;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
        out.add(&self.weight);
        out.add(&self.bias);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) {
        out.add(&mut self.weight);
        out.add(&mut self.bias);
    }
}

fn linear() -> Linear {
    Linear { weight: Param::new("weight", [2, 3], Init::ZEROS), bias: Param::new("bias", [2], Init::ZEROS) }
}

/// What [`state_dict`] holds with the storage 0, 1, … 7.
fn check(model: &Linear) {
    assert_eq!(model.weight.value().unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    assert_eq!(model.bias.value().unwrap(), [6.0, 7.0]);
}

fn storage() -> Vec<(&'static str, Vec<u8>)> {
    vec![("0", floats((0..8).map(|i| i as f32)))]
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("chainrule-io-forms-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn refused(bytes: &[u8]) -> String {
    from_bytes(&mut linear(), bytes).unwrap_err().to_string()
}

#[test]
fn a_state_dict_of_torch_save_is_loaded_as_it_is() {
    for bytes in [
        torch_zip(state_dict(), &storage(), false),
        torch_zip(state_dict(), &storage(), true),
        torch_legacy(state_dict(), &storage()),
    ] {
        let mut model = linear();
        from_bytes(&mut model, &bytes).unwrap();
        check(&model);
        // A model of another shape is an error, as ever.
        let mut other = Linear { weight: Param::new("weight", [3, 2], Init::ZEROS), ..linear() };
        let error = from_bytes(&mut other, &bytes).unwrap_err();
        assert!(matches!(error.kind(), Kind::State(_)) && error.to_string().contains("[3, 2]"), "{error}");
    }
}

/// A training checkpoint: an item with the weights among others.
fn checkpoint(names: &[&str]) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.op(b"}(").text("epoch").int(3);
    for name in names {
        pickle.text(name).op(b"}(").text("module.weight").tensor("0", 8, 0, &[2, 3], &[1, 2]);
        pickle.text("module.bias").tensor("0", 8, 6, &[2], &[1]).op(b"u");
    }
    // An optimizer's state by number, settings as an object, a generator's state.
    pickle.text("optimizer").op(b"}").text("state").op(b"}").int(0).op(b"}").text("step").tensor(
        "0",
        8,
        0,
        &[],
        &[],
    );
    pickle.op(b"sss").text("args").global("argparse", "Namespace").op(b")\x81}").text("lr").op(b"Nsb");
    pickle.text("rng").tensor("0", 8, 0, &[1], &[1]).op(b"u");
    torch_zip(pickle.done(), &storage(), false)
}

#[test]
fn the_state_dict_of_a_checkpoint_is_found_and_the_prefix_of_a_wrapper_taken_off() {
    for name in ["state_dict", "model", "weights"] {
        let bytes = checkpoint(&[name]);
        let mut model = linear();
        if name == "weights" {
            // It has no usual name, and there is a tensor beside it.
            assert!(
                from_bytes(&mut model, &bytes).unwrap_err().to_string().contains("`optimizer.state.0.step`")
            );
            Load::new().item(name).from_bytes(&mut model, &bytes).unwrap();
        } else {
            from_bytes(&mut model, &bytes).unwrap();
        }
        check(&model);
    }
    let bytes = checkpoint(&["model", "state_dict"]);
    let error = refused(&bytes);
    assert!(error.contains("`model`, `state_dict`"), "{error}");
    let mut model = linear();
    let report = Load::new().item("model").from_bytes(&mut model, &bytes).unwrap();
    assert_eq!(report.item.as_deref(), Some("model"));
    assert_eq!(
        report.to_string(),
        "2 taken, 0 left of `model`\n  `bias` from `module.bias`\n  `weight` from `module.weight`"
    );
    check(&model);
    assert!(Load::new().item("ema").from_bytes(&mut model, &bytes).is_err());
    let names: Vec<_> =
        TensorFile::from_bytes(&bytes).unwrap().tensors().map(|t| t.name().to_owned()).collect();
    assert_eq!(names[0], "model.module.bias");
    assert_eq!(names.len(), 6);
    let mut file = TensorFile::from_bytes(&bytes).unwrap().item("state_dict").unwrap();
    assert_eq!(file.tensor::<f64>("module.bias").unwrap().data(), [6.0, 7.0]);
    assert!(file.tensor::<f64>("rng").is_err());
}

#[test]
fn nothing_of_a_pickle_is_called() {
    let mut pickle = Pickle::new();
    pickle.op(b"}").text("weight").global("os", "system").op(b"(").text("true").op(b"tRs");
    let error = refused(&torch_zip(pickle.done(), &storage(), false));
    assert!(error.contains("`os.system`") && error.contains("state_dict"), "{error}");
    let mut pickle = Pickle::new();
    pickle.global("torch.nn", "Linear").op(b")\x81}b");
    let error = refused(&torch_zip(pickle.done(), &storage(), false));
    assert!(error.contains("a whole module"), "{error}");
}

#[test]
fn views_reach_no_further_than_their_storage() {
    for (offset, shape, strides) in [
        (0, &[2, 3][..], &[4, 2][..]),
        (7, &[2], &[1]),
        (8, &[], &[]),
        (-1, &[1], &[1]),
        (0, &[-1], &[1]),
        (0, &[1], &[-1]),
        (0, &[2], &[1, 1]),
        (i32::MAX, &[i32::MAX; 8], &[i32::MAX; 8]),
        (0, &[i32::MAX; 8], &[0; 8]),
        (0, &[1 << 19], &[0]),
    ] {
        let mut pickle = Pickle::new();
        pickle.op(b"}").text("weight").tensor("0", 8, offset, shape, strides).op(b"s");
        let bytes = torch_zip(pickle.done(), &storage(), false);
        assert!(TensorFile::from_bytes(&bytes).is_err(), "{offset} {shape:?} {strides:?}");
    }
    // Rows repeated, columns skipped, nothing at all, and one element of many.
    for (offset, shape, strides, expected) in [
        (1, &[2, 2][..], &[0, 3][..], &[1.0, 4.0, 1.0, 4.0][..]),
        (7, &[1, 1], &[100, 100], &[7.0]),
        (8, &[0, 3], &[3, 1], &[]),
        (3, &[], &[], &[3.0]),
        (0, &[2, 2, 2], &[1, 4, 2], &[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]),
    ] {
        let mut pickle = Pickle::new();
        pickle.op(b"}").text("a").tensor("0", 8, offset, shape, strides).op(b"s");
        for pack in [false, true] {
            let bytes = torch_zip(pickle.0.0.clone().into_iter().chain(*b".").collect(), &storage(), pack);
            let mut file = TensorFile::from_bytes(&bytes).unwrap();
            assert_eq!(file.tensor::<f32>("a").unwrap().data(), expected, "{shape:?} {strides:?}");
        }
    }
}

#[test]
fn a_sparse_view_of_a_large_storage_is_read_element_by_element() {
    let count = 1 << 20;
    let values = floats((0..count).map(|i| i as f32));
    let mut pickle = Pickle::new();
    pickle.op(b"}").text("a").tensor("0", count, 5, &[3, 2], &[300_000, 100_000]).op(b"s");
    let pickle = pickle.done();
    let bytes = torch_zip(pickle.clone(), &[("0", values.clone())], false);
    let mut file = TensorFile::from_bytes(&bytes).unwrap();
    let expected = [5.0, 100_005.0, 300_005.0, 400_005.0, 600_005.0, 700_005.0];
    assert_eq!(file.tensor::<f32>("a").unwrap().data(), expected);
    let error = TensorFile::from_bytes(&torch_zip(pickle, &[("0", values)], true)).unwrap_err();
    assert!(error.to_string().contains("stored records"), "{error}");
}

#[test]
fn arrays_of_numpy_are_loaded() {
    let members = [
        (
            "weight.npy",
            npy(">f8", true, "(2, 3)", &[0.0f64, 1.0, 2.0, 3.0, 4.0, 5.0].map(f64::to_be_bytes).concat()),
        ),
        ("bias.npy", npy("<f2", false, "(2,)", &[0x00, 0x46, 0x00, 0x47])),
        ("notes.txt", b"no array".to_vec()),
    ];
    for pack in [false, true] {
        let mut model = linear();
        from_bytes(&mut model, &zip(&members, pack)).unwrap();
        check(&model);
    }
    // One array has no name: a prefix gives it one.
    let bytes = npy("<f4", false, "(2,)", &floats([6.0, 7.0]));
    let mut model = linear().init(0).unwrap();
    Load::new().add_prefix("bias").allow_missing(|_| true).from_bytes(&mut model, &bytes).unwrap();
    assert_eq!(model.bias.value().unwrap(), [6.0, 7.0]);
    let error = refused(&npy("|O", false, "(2,)", b"\x80\x02]."));
    assert!(error.contains("objects"), "{error}");
}

#[test]
fn damaged_elements_are_noticed_and_the_model_keeps_its_own() {
    for (bytes, pack) in [
        (torch_zip(state_dict(), &storage(), false), false),
        (torch_zip(state_dict(), &storage(), true), true),
    ] {
        let mut model = linear().init(3).unwrap();
        let at = bytes.windows(14).position(|window| window == b"archive/data/0").unwrap() + 14 + 4;
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = from_bytes(&mut model, &damaged).unwrap_err().to_string();
        assert!(pack || error.contains("checksum"), "{error}");
        assert_eq!(model.weight.value().unwrap(), [0.0; 6]);
        for n in 0..bytes.len() {
            assert!(from_bytes(&mut model, &bytes[..n]).is_err());
        }
    }
    let legacy = torch_legacy(state_dict(), &storage());
    for n in 0..legacy.len() {
        assert!(from_bytes(&mut linear(), &legacy[..n]).is_err());
    }
}

#[test]
fn weights_in_several_files_are_loaded_by_their_index() {
    let folder = folder("shards");
    let tensor = |name: &str, shape: &str, n: usize| {
        format!(r#"{{"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{n}]}}}}"#)
    };
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write(
        "a.safetensors",
        &safetensors(&tensor("weight", "[2,3]", 24), &floats([0.0, 2.0, 4.0, 1.0, 3.0, 5.0])),
    );
    let mut pickle = Pickle::new();
    pickle.op(b"}").text("bias").tensor("0", 8, 6, &[2], &[1]).op(b"s");
    write("b.bin", &torch_zip(pickle.done(), &storage(), false));
    let index = folder.join("model.safetensors.index.json");
    let good = r#"{"metadata":{"total_size":32},"weight_map":{"weight":"a.safetensors","bias":"b.bin"}}"#;
    fs::write(&index, good).unwrap();
    let mut model = linear();
    load(&mut model, &index).unwrap();
    check(&model);
    for (from, to, expected) in [
        ("b.bin", "a.safetensors", "expected tensor `bias` in `a.safetensors`, got none"),
        ("b.bin", "c.bin", "c.bin"),
        ("b.bin", "../b.bin", "beside the index"),
        ("b.bin", "/b.bin", "beside the index"),
        ("b.bin", "model.safetensors.index.json", "another index"),
        (r#""weight":"a"#, r#""weight":"b.bin","weight":"a"#, "twice"),
        (r#","bias":"b.bin""#, "", ""),
        ("bias", "bias2", "nowhere"),
        ("weight_map", "weights", "weight_map"),
    ] {
        fs::write(&index, good.replacen(from, to, 1)).unwrap();
        let error = load(&mut linear(), &index).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
    let error = refused(good.as_bytes());
    assert!(error.contains("give its path"), "{error}");
    // What takes the place of a file is another one.
    fs::write(&index, good).unwrap();
    let mut file = TensorFile::open(&index).unwrap();
    fs::rename(folder.join("b.bin"), folder.join("a.safetensors")).unwrap();
    assert_eq!(file.tensor::<f32>("weight").unwrap().data()[1], 2.0);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_tied_tensor_that_stands_once_is_loaded_by_any_of_its_names() {
    let header = r#"{"__metadata__":{"format":"pt","head":"bias","lost":"nothing"},
        "weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
        "bias":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}}"#;
    let bytes = safetensors(header, &floats([0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 7.0]));
    let mut model = linear();
    from_bytes(&mut model, &bytes).unwrap();
    check(&model);
    // Under the other name alone, too.
    let mut other = Linear { bias: Param::new("head", [2], Init::ZEROS), ..linear() };
    from_bytes(&mut other, &bytes).unwrap();
    check(&other);
    let names: Vec<_> = all(&mut TensorFile::from_bytes(&bytes).unwrap()).unwrap().into_keys().collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_header_of_640_bytes_is_no_pickle() {
    let header = r#"{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"bias":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}}"#;
    for length in [640, 896, 1152, 1408] {
        let bytes = safetensors(&format!("{header:length$}"), &floats((0..8).map(|i| i as f32)));
        assert_eq!(bytes[0], 0x80);
        from_bytes(&mut linear(), &bytes).unwrap();
    }
}

#[test]
fn weights_are_saved_in_16_bits() {
    let mut model = linear().init(0).unwrap();
    model.weight.value_mut().unwrap().copy_from_slice(&[0.1, 65519.0, -1e-8, 1.0, 2049.0, 6e-8]);
    for (save, dtype, expected) in [
        (Save::new().f16(), "F16", [0.099_975_586, 65504.0, 0.0, 1.0, 2048.0, 5.960_464_5e-8]),
        (Save::new().bf16(), "BF16", [0.100_097_656, 65536.0, -1.001_171_8e-8, 1.0, 2048.0, 6.007_030_6e-8]),
    ] {
        let bytes = save.to_bytes(&model).unwrap();
        let file = TensorFile::from_bytes(&bytes).unwrap();
        assert!(file.tensors().all(|t| t.dtype().to_string() == dtype));
        let mut other = linear();
        from_bytes(&mut other, &bytes).unwrap();
        assert_eq!(other.weight.value().unwrap(), expected);
        // Rounded values are saved as they are.
        assert_eq!(save.to_bytes(&other).unwrap(), bytes);
    }
    model.weight.value_mut().unwrap()[3] = 65520.0;
    let error = Save::new().f16().to_bytes(&model).unwrap_err().to_string();
    assert_eq!(error, "parameter `weight`: expected values that F16 holds, got 65520 at position 3");
    let bytes = Save::new().f16().allow_overflow().only(|path| path == "weight").to_bytes(&model).unwrap();
    let mut other = linear().init(0).unwrap();
    let load = Load::new().allow_missing(|path| path == "bias");
    assert!(load.from_bytes(&mut other, &bytes).unwrap_err().to_string().contains("inf at position 3"));
    load.allow_not_finite().from_bytes(&mut other, &bytes).unwrap();
    assert_eq!(other.weight.value().unwrap()[3], f32::INFINITY);
}

#[test]
fn a_limit_refuses_what_a_small_file_can_make_large() {
    let zeros = npy("<f4", false, "(100000,)", &floats((0..100_000).map(|_| 0.0)));
    let bytes = zip(&[("a.npy", zeros)], true);
    assert!(bytes.len() < 2000);
    let mut file = TensorFile::from_bytes(&bytes).unwrap().limit(400_000).unwrap();
    assert_eq!(file.tensor::<f32>("a").unwrap().len(), 100_000);
    let error = file.limit(399_999).unwrap_err().to_string();
    assert!(error.contains("expected at most 399999 bytes, got 400000"), "{error}");
}
