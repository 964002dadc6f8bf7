//! Files that are whole or not there: written beside their place, then moved into it.

use chainrule_core::{Error, Result};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Writes a file atomically: a reader sees the old contents or the new, never a part, whenever the program ends.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("chainrule-io-atomic-{}", std::process::id()));
/// chainrule_io::write_atomically(&path, b"whole")?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"whole");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), chainrule_core::Error>(())
/// ```
///
/// # Errors
/// The operating system refuses; the old file, if there was one, is then as it was.
pub fn write_atomically(path: impl AsRef<Path>, contents: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let doing = |e| Error::io(e, format!("write {}", path.display()));
    let temporary = beside(path).map_err(doing)?;
    let written = write_and_move(&temporary, path, contents);
    if written.is_err() {
        // Nothing more can be done if this fails too: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(doing)
}

/// A name in the same folder, because a file moves atomically only within its file system.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "expected the path of a file"))?;
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{number}.tmp", process::id()));
    Ok(path.with_file_name(temporary))
}

fn write_and_move(temporary: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    // The move itself is on disk once the folder is; some systems cannot open a folder, and then it is as good as it gets.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("chainrule-io-atomic-test-{}", process::id()));
        fs::create_dir_all(folder.join("taken")).unwrap();
        write_atomically(folder.join("a"), b"old").unwrap();
        write_atomically(folder.join("a"), b"new").unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"new");
        // A folder cannot be replaced by a file: the move fails after the writing.
        fs::write(folder.join("taken/b"), b"").unwrap();
        let error = write_atomically(folder.join("taken"), b"new").unwrap_err().to_string();
        assert!(error.starts_with("write ") && error.contains("taken"), "{error}");
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "taken"]);
        assert!(write_atomically(folder.join("missing/a"), b"").is_err());
        assert!(write_atomically("/", b"").is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
