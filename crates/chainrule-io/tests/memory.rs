//! What a hostile file may take: memory within a small multiple of its size, messages of a stated length.

use chainrule_core::{Error, Init, Param, Parameters, Params, ParamsMut, Registry};
use chainrule_io::{Load, from_bytes, model_from_bytes};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Write,
    sync::Mutex,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts the bytes that are allocated at the same time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grow(size: usize) {
    let now = NOW.fetch_add(size, Relaxed) + size;
    MOST.fetch_max(now, Relaxed);
}

// SAFETY: every call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both are there.
        grow(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout, and the caller keeps realloc's contract.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The longest header that is read.
const HEADER: usize = 16 << 20;

/// The longest message, in characters.
const MESSAGE: usize = 8001;

struct One(Param<f32>);

impl Parameters for One {
    type T = f32;
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
        out.add(&self.0);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) {
        out.add(&mut self.0);
    }
}

fn one() -> One {
    One(Param::new("weight", [1], Init::ZEROS))
}

/// A file of a header alone, as long as a header may be.
fn file(mut header: String) -> Vec<u8> {
    header.extend(std::iter::repeat_n(' ', HEADER.saturating_sub(header.len())));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// Entries until the header is full.
fn entries(mut entry: impl FnMut(usize) -> String) -> Vec<u8> {
    let mut header = String::from("{");
    for i in 0.. {
        let next = entry(i);
        if header.len() + next.len() + 2 > HEADER {
            break;
        }
        write!(header, "{}{next}", if i > 0 { "," } else { "" }).unwrap();
    }
    header.push('}');
    file(header)
}

/// The error, whose text is short and plain, and the memory that it took beside the file, in MiB.
fn refused(what: &str, bytes: &[u8], load: impl FnOnce(&[u8]) -> Result<(), Error>) -> String {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let error = load(bytes).unwrap_err().to_string();
    let took = MOST.load(Relaxed) - before;
    assert!(error.chars().count() <= MESSAGE, "{what}: {} characters", error.chars().count());
    assert!(!error.contains(char::is_control), "{what}");
    assert!(took <= 8 * HEADER, "{what}: {} MiB", took >> 20);
    error
}

fn strictly(what: &str, bytes: &[u8]) -> String {
    refused(what, bytes, |bytes| from_bytes(&mut one(), bytes))
}

#[test]
fn a_header_full_of_small_tensors() {
    let full = entries(|i| format!(r#""{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#));
    let error = strictly("small tensors", &full);
    assert!(error.contains("unexpected `0` [0]") && error.contains(" more"), "{error}");
    refused("skipped", &full, |bytes| {
        Load::new()
            .skip(|_| true)
            .from_bytes(&mut one(), bytes)
            .map(|report| panic!("{} left, and `weight` is not missing", report.left.len()))
    });
}

#[test]
fn a_header_full_of_one_thing() {
    strictly(
        "a long shape",
        &entries(|i| match i {
            0 => r#""a":{"dtype":"U8","data_offsets":[0,1],"shape":[1"#.into(),
            _ => "1".into(),
        }),
    );
    let ones = "1,".repeat(HEADER / 2 - 40);
    strictly(
        "a long shape",
        &file(format!(r#"{{"a":{{"dtype":"U8","data_offsets":[0,1],"shape":[{ones}1]}}}}"#)),
    );
    let name = |c: &str| c.repeat((HEADER - 80) / c.len());
    for c in ["n", "\\u001b", "é", "\\\\"] {
        let name = name(c);
        strictly(
            "a long name",
            &file(format!(r#"{{"{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}"#)),
        );
        strictly("a long type", &file(format!(r#"{{"a":{{"dtype":"{name}"}}}}"#)));
        strictly("a long field", &file(format!(r#"{{"a":{{"{name}":1}}}}"#)));
        strictly("metadata", &file(format!(r#"{{"__metadata__":{{"a":"{name}"}}}}"#)));
    }
    strictly(
        "metadata of many entries",
        &entries(|i| match i {
            0 => r#""__metadata__":{"":"""#.into(),
            _ => format!(r#""{i:x}":"""#),
        }),
    );
    strictly("open brackets", &file("[".repeat(HEADER)));
    strictly("an unknown field", &file(format!(r#"{{"a":{{"b":[{}"#, "0,".repeat(HEADER / 2 - 40))));
}

#[test]
fn an_architecture_as_long_as_a_header() {
    let build = |what: &str, text: String| {
        let header = format!(r#"{{"__metadata__":{{"chainrule.model":{}}}}}"#, serde_json::Value::from(text));
        refused(what, &file(header), |bytes| model_from_bytes(&Registry::<f32>::new(), bytes).map(drop))
    };
    let spec = |kind: &str, attributes: &str| {
        format!(
            r#"{{"version":1,"model":{{"kind":"{kind}","attributes":{{{attributes}}},"children":{{}}}}}}"#
        )
    };
    build("a long kind", spec(&"k".repeat(HEADER / 2), ""));
    build("many values", spec("A", &format!(r#""a":[{}0]"#, "0,".repeat(HEADER / 4))));
    build("control characters", spec("\\u001b[2J\\n", ""));
    build("many attributes", {
        let all: Vec<_> = (0..HEADER / 16).map(|i| format!(r#""{i:x}":0"#)).collect();
        spec("A", &all.join(","))
    });
}
