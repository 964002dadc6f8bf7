//! What several tests of decoders share: an allocator that counts, and small files made by hand.
#![allow(dead_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Counts the bytes that are allocated at the same time, and refuses what no case can need.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

const REFUSED: usize = 2 << 30;

// SAFETY: every call goes to the system's allocator with the arguments that came, or gives null, which the contract allows;
// counting allocates nothing. The other methods are made of these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REFUSED {
            return std::ptr::null_mut();
        }
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
static TURN: Mutex<()> = Mutex::new(());

pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

/// What a case returned, how long it took and how much memory; a panic is an error.
pub fn measured<V>(f: impl FnOnce() -> V) -> (Result<V, String>, Duration, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let (time, took) = (begun.elapsed(), MOST.load(Relaxed).saturating_sub(before));
    let outcome = outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    });
    (outcome, time, took)
}

/// A folder beside the checkout, where it is there.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(folder);
    if !path.exists() {
        println!("skipped: no ../shared/{folder}");
        return None;
    }
    Some(path)
}

/// Bytes to be written to.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn u16(&mut self, n: u16) -> &mut Self {
        self.put(&n.to_le_bytes())
    }
    pub fn u32(&mut self, n: u32) -> &mut Self {
        self.put(&n.to_le_bytes())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zip archive.
pub fn zip(members: &[(&str, Vec<u8>)], pack: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Bytes::default(), Bytes::default());
    for (name, bytes) in members {
        let packed = if pack { deflated(bytes) } else { bytes.clone() };
        let method = if pack { 8 } else { 0 };
        let offset = file.0.len() as u32;
        let mut common = Bytes::default();
        common.u16(20).u16(0).u16(method).u32(0).u32(crc(bytes));
        common.u32(packed.len() as u32).u32(bytes.len() as u32).u16(name.len() as u16).u16(0);
        file.put(b"PK\x03\x04").put(&common.0).put(name.as_bytes()).put(&packed);
        directory.put(b"PK\x01\x02").u16(20).put(&common.0).u16(0).u16(0).u16(0).u32(0).u32(offset);
        directory.put(name.as_bytes());
    }
    let (start, size, n) = (file.0.len() as u32, directory.0.len() as u32, members.len() as u16);
    file.put(&directory.0).put(b"PK\x05\x06").u16(0).u16(0).u16(n).u16(n).u32(size).u32(start).u16(0);
    file.0
}

/// An array of NumPy.
pub fn npy(descr: &str, fortran: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut file = Bytes::default();
    file.put(b"\x93NUMPY\x01\x00").u16(header.len() as u16).put(header.as_bytes()).put(elements);
    file.0
}

/// A pickle that is being written.
#[derive(Default)]
pub struct Pickle(pub Bytes);

impl Pickle {
    pub fn new() -> Self {
        let mut this = Self::default();
        this.op(b"\x80\x02");
        this
    }
    pub fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.put(bytes);
        self
    }
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.put(b"X").u32(text.len() as u32).put(text.as_bytes());
        self
    }
    pub fn int(&mut self, n: i32) -> &mut Self {
        self.0.put(b"J").put(&n.to_le_bytes());
        self
    }
    pub fn ints(&mut self, all: &[i32]) -> &mut Self {
        self.op(b"(");
        all.iter().for_each(|&n| _ = self.int(n));
        self.op(b"t")
    }
    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }
    /// A tensor in a storage of some elements.
    pub fn tensor(
        &mut self,
        key: &str,
        count: i32,
        offset: i32,
        shape: &[i32],
        strides: &[i32],
    ) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"((").text("storage");
        self.global("torch", "FloatStorage").text(key).text("cpu").int(count).op(b"tQ");
        self.int(offset)
            .ints(shape)
            .ints(strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }
    pub fn done(&mut self) -> Vec<u8> {
        self.op(b".");
        std::mem::take(&mut self.0.0)
    }
}

/// Some elements.
pub fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A file of torch.save: its pickle, and the elements of its storages by key.
pub fn torch_zip(pickle: Vec<u8>, storages: &[(&str, Vec<u8>)], pack: bool) -> Vec<u8> {
    let mut members =
        vec![("archive/data.pkl".to_owned(), pickle), ("archive/byteorder".to_owned(), b"little".to_vec())];
    members.extend(storages.iter().map(|(key, bytes)| (format!("archive/data/{key}"), bytes.clone())));
    members.push(("archive/version".to_owned(), b"3\n".to_vec()));
    let members: Vec<(&str, Vec<u8>)> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    zip(&members, pack)
}

/// The same in the form before 1.6.
pub fn torch_legacy(pickle: Vec<u8>, storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = Bytes::default();
    file.put(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.").put(b"\x80\x02M\xe9\x03.");
    file.put(&Pickle::new().op(b"}").text("little_endian").op(b"\x88s").done()).put(&pickle);
    let mut keys = Pickle::new();
    keys.op(b"](");
    storages.iter().for_each(|(key, _)| _ = keys.text(key));
    file.put(&keys.op(b"e").done());
    for (_, bytes) in storages {
        file.put(&(bytes.len() as u64 / 4).to_le_bytes()).put(bytes);
    }
    file.0
}

/// A file of safetensors: header and values.
pub fn safetensors(header: &str, values: &[u8]) -> Vec<u8> {
    let mut file = Bytes::default();
    file.put(&(header.len() as u64).to_le_bytes()).put(header.as_bytes()).put(values);
    file.0
}

/// A state_dict of `weight` 2 × 3, transposed in its storage, and `bias` 2, both in one storage of 8.
pub fn state_dict() -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.op(b"}(").text("weight").tensor("0", 8, 0, &[2, 3], &[1, 2]);
    pickle.text("bias").tensor("0", 8, 6, &[2], &[1]).op(b"u").done()
}

/// Every tensor of a file with its bytes.
pub fn all(
    file: &mut chainrule_io::TensorFile<'_>,
) -> chainrule_io::core::Result<HashMap<String, (String, Vec<usize>, Vec<u8>)>> {
    let listed: Vec<_> =
        file.tensors().map(|t| (t.name().to_owned(), t.dtype().to_string(), t.shape().to_vec())).collect();
    listed
        .into_iter()
        .map(|(name, dtype, shape)| {
            let bytes = file.bytes(&name)?;
            Ok((name, (dtype, shape, bytes)))
        })
        .collect()
}
