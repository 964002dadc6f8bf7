//! Every code block of the pages in docs/, compiled and run: build.rs writes a test for each.
#![allow(unused, clippy::all, reason = "a page shows pieces; doc tests allow as much")]

include!(concat!(env!("OUT_DIR"), "/pages.rs"));
