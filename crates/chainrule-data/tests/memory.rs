//! What a hostile idx file may take: memory and reading that follow its headers and its size.
#![cfg(feature = "gzip")]

use chainrule_data::{idx::Idx, labelled_images};
use flate2::{Compression, write::GzEncoder};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Counts the bytes that are allocated at the same time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing. `realloc` is
// made of the other two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
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

/// The error, and the bytes that were allocated at the same time.
fn refused<V>(read: impl FnOnce() -> chainrule_data::Result<V>) -> (String, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let error = read().err().expect("an error").to_string();
    (error, MOST.load(Relaxed) - before)
}

/// A header, and so many zeros after it, compressed.
fn zeros(axes: &[u32], n: usize) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&[0, 0, 8, axes.len() as u8]).unwrap();
    axes.iter().for_each(|a| out.write_all(&a.to_be_bytes()).unwrap());
    io::copy(&mut io::repeat(0).take(n as u64), &mut out).unwrap();
    out.finish().unwrap()
}

struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("memory-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn other_counts_are_found_before_the_data_are_read() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    // 200 images of a megapixel, of which 64 are there, beside one label.
    let images = File::new("images.gz", &zeros(&[200, 1024, 1024], 64 << 20));
    let label = File::new("label.gz", &zeros(&[1], 1));
    let (error, took) = refused(|| labelled_images::<f32>(&images.0, &label.0, 10));
    assert!(error.contains("expected 200, one for each image of"), "{error}");
    assert!(took < 4 << 20, "{took} bytes");
    // The same the other way round.
    let labels = File::new("labels.gz", &zeros(&[64 << 20], 64 << 20));
    let image = File::new("image.gz", &zeros(&[1, 2, 2], 4));
    let (error, took) = refused(|| labelled_images::<f32>(&image.0, &labels.0, 10));
    assert!(error.contains("expected 1, one for each image of"), "{error}");
    assert!(took < 4 << 20, "{took} bytes");
}

/// Counts what is taken from it.
struct Counted<'b>(&'b [u8], usize);

impl Read for &mut Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(bytes)?;
        self.1 += n;
        Ok(n)
    }
}

#[test]
fn reading_stops_where_the_counts_end() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let bomb = zeros(&[4], 64 << 20);
    let mut counted = Counted(&bomb, 0);
    let (error, took) = refused(|| Idx::read(&mut counted));
    assert_eq!(error, "idx: idx data: expected the end after 4 bytes for [4], got more");
    assert!(took < 4 << 20, "{took} bytes");
    // 64 MiB are 60,000 blocks of the compressor's window or more; one buffer of the reader is enough.
    assert!(counted.1 <= 64 << 10, "{} bytes of {} were read", counted.1, bomb.len());
}

#[test]
fn what_is_compressed_better_than_data_are_is_refused_at_the_limit() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    // The header tells the truth, up to the cut.
    let bomb = zeros(&[1 << 30], 264 << 20);
    let (error, took) = refused(|| Idx::read(&bomb[..]));
    assert!(error.starts_with("idx: gzip: expected a whole compressed stream, got: more than"), "{error}");
    assert!(error.ends_with("unpack it first"), "{error}");
    assert!(took < 1 << 30, "{took} bytes");
    // Whatever is in it, a small file is no bomb.
    let small = zeros(&[4 << 20], 4 << 20);
    assert_eq!(Idx::read(&small[..]).unwrap().shape()[..], [4 << 20]);
}
