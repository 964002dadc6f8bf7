//! Files that are whole or not there: written beside their place, then moved into it.

use chainrule_core::{Error, Result};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// As many links as Linux follows: more are a cycle.
const MOST_LINKS: usize = 40;

/// As many stale files of one process number as are stepped over before the folder is reported.
const MOST_STALE: usize = 1000;

/// Writes a file atomically: a reader sees the old contents or the new, never a part, whenever the program ends.
///
/// The new contents are first written to a file `.chainrule-PROCESS-NUMBER.tmp` in the same folder. A link is followed, and
/// the permissions of an old file are kept.
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
/// The path is that of a folder or a device, or the operating system refuses; the old file, if there was one, is then as it
/// was.
pub fn write_atomically(path: impl AsRef<Path>, contents: &[u8]) -> Result<()> {
    let path = path.as_ref();
    replace(path, contents).map_err(|e| Error::io(e, format!("write {}", path.display())))
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let path = target(path)?;
    if path.file_name().is_none() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "expected the path of a file"));
    }
    let old = match fs::metadata(&path) {
        Ok(old) if !old.is_file() => {
            return Err(io::Error::new(ErrorKind::InvalidInput, "expected a regular file, got another kind"));
        }
        Ok(old) => Some(old.permissions()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (file, temporary) = beside(&path)?;
    let moved = fill(file, old, contents).and_then(|()| fs::rename(&temporary, &path));
    if moved.is_err() {
        // Nothing more can be done if this fails too: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return moved;
    }
    // The move itself is on disk once the folder is; some systems cannot open a folder, and then nothing more can be done.
    if let Ok(folder) = File::open(folder(&path)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The file that is meant: a link's target, whether it exists or not.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = folder(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "expected a file, got links in a circle"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in the same folder, because a file moves atomically only within its file system. Its name does not grow with
/// that of the target, and one that another process left is stepped over.
fn beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut stale = 0;
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder(path).join(format!(".chainrule-{}-{number}.tmp", process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && stale < MOST_STALE => stale += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Permissions come first: what a private file holds is never readable by others.
fn fill(mut file: File, permissions: Option<fs::Permissions>, contents: &[u8]) -> io::Result<()> {
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("chainrule-io-{name}-{}", process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = Folder::new("atomic-test");
        let at = |name: &str| folder.0.join(name);
        fs::create_dir_all(at("taken")).unwrap();
        write_atomically(at("a"), b"old").unwrap();
        write_atomically(at("a"), b"new").unwrap();
        assert_eq!(fs::read(at("a")).unwrap(), b"new");
        // A folder cannot be replaced by a file.
        let error = write_atomically(at("taken"), b"new").unwrap_err().to_string();
        assert!(error.starts_with("write ") && error.contains("taken"), "{error}");
        assert_eq!(folder.names(), ["a", "taken"]);
        assert!(write_atomically(at("missing/a"), b"").is_err());
        assert!(write_atomically("/", b"").is_err() && write_atomically("", b"").is_err());
    }

    #[test]
    fn a_stale_file_is_no_obstacle_and_stays() {
        let folder = Folder::new("stale");
        // Tests of this process count on at the same time: enough names are taken.
        let stale: Vec<_> =
            (0..200).map(|i| folder.0.join(format!(".chainrule-{}-{i}.tmp", process::id()))).collect();
        stale.iter().for_each(|path| fs::write(path, b"theirs").unwrap());
        write_atomically(folder.0.join("a"), b"new").unwrap();
        assert!(stale.iter().all(|path| fs::read(path).unwrap() == b"theirs"));
        assert_eq!(folder.names().len(), 201);
    }

    #[test]
    fn a_name_may_be_as_long_as_the_system_allows() {
        let folder = Folder::new("long");
        let name = "a".repeat(255);
        write_atomically(folder.0.join(&name), b"new").unwrap();
        assert_eq!(folder.names(), [name]);
        assert!(write_atomically(folder.0.join("a".repeat(256)), b"new").is_err());
        assert_eq!(folder.names().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_permissions_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = Folder::new("links");
        let at = |name: &str| folder.0.join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        fs::create_dir_all(at("real")).unwrap();
        fs::write(at("real/a"), b"old").unwrap();
        fs::set_permissions(at("real/a"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("real/a", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        write_atomically(at("second"), b"new").unwrap();
        assert_eq!(fs::read(at("real/a")).unwrap(), b"new");
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(mode("real/a"), 0o600);
        // A link to a file that is not there makes it.
        symlink("real/b", at("dangling")).unwrap();
        write_atomically(at("dangling"), b"new").unwrap();
        assert_eq!(fs::read(at("real/b")).unwrap(), b"new");
        symlink("circle", at("circle")).unwrap();
        assert!(write_atomically(at("circle"), b"new").unwrap_err().to_string().contains("circle"));
        assert!(write_atomically("/dev/null", b"new").unwrap_err().to_string().contains("regular file"));
    }
}
