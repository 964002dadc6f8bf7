//! Folders of reference cases for the tests.

use safetensors::SafeTensors;
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The folder of the cases kept with the sources.
pub fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// A folder of one test's own, gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("chainrule-parity-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.0.join(name));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The f64 tensors of a file, and where their bytes are.
pub fn tensors(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
    let start = bytes.as_ptr() as usize;
    let mut all: Vec<_> = SafeTensors::deserialize(bytes)
        .unwrap()
        .iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F64 && !view.data().is_empty())
        .map(|(key, view)| {
            let at = view.data().as_ptr() as usize - start;
            (key.to_owned(), at..at + view.data().len())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A file without tensors that has this metadata.
pub fn file(metadata: &[(&str, &str)]) -> Vec<u8> {
    let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let none: [(String, safetensors::tensor::TensorView<'_>); 0] = [];
    safetensors::serialize(none, Some(metadata)).unwrap()
}
