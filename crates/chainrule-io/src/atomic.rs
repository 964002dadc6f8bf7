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

/// As many names as are tried for a temporary file before the folder is reported.
const MOST_TRIES: usize = 1000;

/// Writes a file atomically: a reader sees the old contents or the new, never a part, whenever the program ends.
///
/// The new contents are first written to a file `.chainrule-PROCESS-NUMBER-CHECK.tmp` in the same folder. A link is followed,
/// and the permissions of an old file are kept. A temporary file that a killed process left in the folder is removed (on
/// Unix) if it is certainly one: CHECK is a hash of the rest of the name, and nobody holds the lock that its writer takes.
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

/// Finds out whether [`write_atomically`] could write a file, and changes nothing.
///
/// ```
/// let error = chainrule_io::check_writable(std::env::temp_dir()).unwrap_err().to_string();
/// assert!(error.contains("expected a regular file, got a folder"), "{error}");
/// ```
///
/// # Errors
/// As [`write_atomically`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let check = || {
        let (path, _) = regular(path)?;
        // A name that is too long is refused when it is looked up.
        let (file, temporary) = beside(&path)?;
        let removed = fs::remove_file(temporary);
        drop(file);
        removed
    };
    check().map_err(|e| Error::io(e, format!("write {}", path.display())))
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let (path, permissions) = regular(path)?;
    remove_stale(folder(&path));
    let (mut file, temporary) = beside(&path)?;
    // Where open files cannot be moved, there are no locks of ours either.
    let moved = fill(&mut file, permissions, contents).and_then(|()| {
        let held = cfg!(unix).then_some(file);
        let moved = fs::rename(&temporary, &path);
        drop(held);
        moved
    });
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

/// The file that is meant, and the permissions that it has if it is there.
fn regular(path: &Path) -> io::Result<(PathBuf, Option<fs::Permissions>)> {
    let wrong = |text: &str| Err(io::Error::new(ErrorKind::InvalidInput, text));
    let path = target(path)?;
    if path.file_name().is_none() {
        return wrong("expected the path of a file");
    }
    match fs::metadata(&path) {
        Ok(old) if old.is_dir() => wrong("expected a regular file, got a folder"),
        Ok(old) if !old.is_file() => wrong("expected a regular file, got a device, a pipe or a socket"),
        Ok(old) => Ok((path, Some(old.permissions()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((path, None)),
        Err(error) => Err(error),
    }
}

/// The name of a temporary file. Another program does not come by it: its last part is a hash of the others.
fn temporary_name(process: u32, number: u64) -> String {
    let check = format!("{process}-{number}").bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a (Fowler, Noll and Vo, 1991)
    });
    format!(".chainrule-{process}-{number}-{check:016x}.tmp")
}

/// A new file in the same folder, because a file moves atomically only within its file system; locked, so that others see
/// that it is written. Its name does not grow with that of the target, and one that is taken is stepped over.
fn beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut tries = 0;
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder(path).join(temporary_name(process::id(), number));
        tries += 1;
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) if lock(&file, &temporary) || tries >= MOST_TRIES => return Ok((file, temporary)),
            // Another process took it for a stale one, before it was locked.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < MOST_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Locks a temporary file. Whether it is still there: before, it looked like one that a killed process left.
#[cfg(unix)]
fn lock(file: &File, path: &Path) -> bool {
    // A file system without locks has no stale files that could be told apart, and nothing there is removed.
    file.lock().is_err() || is_at(file, path)
}

#[cfg(not(unix))]
fn lock(_: &File, _: &Path) -> bool {
    true
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (file.metadata().map(identity), fs::symlink_metadata(path).map(identity));
    open.is_ok_and(|open| there.is_ok_and(|there| open == there))
}

/// Removes the temporary files of processes that were killed. What cannot be removed stays.
#[cfg(unix)]
fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_none_or(|name| !is_temporary(name))
            || !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            continue;
        }
        let path = entry.path();
        // A lock ends with its process. It is held until the file is gone: whoever made it sees then that it lost it.
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// There locks end before a file is moved, so that one that is in use cannot be told from a stale one.
#[cfg(not(unix))]
fn remove_stale(_: &Path) {}

/// Whether a name is one that [`temporary_name`] makes.
#[cfg(unix)]
fn is_temporary(name: &str) -> bool {
    let numbers = name.strip_prefix(".chainrule-").and_then(|rest| {
        let (process, rest) = rest.split_once('-')?;
        let (number, _) = rest.split_once('-')?;
        Some((process.parse().ok()?, number.parse().ok()?))
    });
    numbers.is_some_and(|(process, number)| temporary_name(process, number) == name)
}

/// Permissions come first: what a private file holds is never readable by others.
fn fill(file: &mut File, permissions: Option<fs::Permissions>, contents: &[u8]) -> io::Result<()> {
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
    fn what_is_not_ours_is_no_obstacle_and_stays() {
        let folder = Folder::new("stale");
        // Tests of this process count on at the same time: enough names are taken.
        let own = |i| temporary_name(process::id(), i);
        let names = (0..200).map(|i| format!(".chainrule-{}-{i}.tmp", process::id()));
        let nearly =
            ["", "-", "-x-0", "-1-2-0000000000000000", "--1-0-0"].map(|s| format!(".chainrule{s}.tmp"));
        let theirs: Vec<_> = names.chain(nearly).map(|name| folder.0.join(name)).collect();
        theirs.iter().for_each(|path| fs::write(path, b"theirs").unwrap());
        // A folder and a link of such a name are no temporary files.
        fs::create_dir(folder.0.join(own(1 << 40))).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&theirs[0], folder.0.join(own(1 << 41))).unwrap();
        let before = folder.names().len();
        write_atomically(folder.0.join("a"), b"new").unwrap();
        assert!(theirs.iter().all(|path| fs::read(path).unwrap() == b"theirs"));
        assert_eq!(folder.names().len(), before + 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let folder = Folder::new("killed");
        let target = folder.0.join("a");
        let writing = beside(&target).unwrap();
        // As many as the next names of this process, and some of others: nobody has them open.
        let stale = (0..300).map(|i| (process::id(), i)).chain([(1, 0), (u32::MAX, u64::MAX)]);
        for path in stale.map(|(process, number)| folder.0.join(temporary_name(process, number))) {
            if path != writing.1 {
                fs::write(path, b"a part").unwrap();
            }
        }
        write_atomically(&target, b"new").unwrap();
        let name = writing.1.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(folder.names(), [name, "a".into()]);
        drop(writing);
        write_atomically(&target, b"newer").unwrap();
        assert_eq!(folder.names(), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn writers_of_one_folder_do_not_remove_each_others_files() {
        let folder = Folder::new("threads");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = folder.0.join(format!("{thread}"));
                scope.spawn(move || {
                    for round in 0..40u8 {
                        write_atomically(&path, &[round; 1000]).unwrap();
                        assert_eq!(fs::read(&path).unwrap(), [round; 1000]);
                    }
                });
            }
        });
        assert_eq!(folder.names(), ["0", "1", "2", "3"]);
    }

    #[test]
    fn whether_a_file_could_be_written_is_found_out_without_a_trace() {
        let folder = Folder::new("check");
        let at = |name: &str| folder.0.join(name);
        fs::write(at("old"), b"old").unwrap();
        for name in ["old", "new", &"a".repeat(255)] {
            check_writable(at(name)).unwrap();
        }
        assert!(check_writable(&folder.0).unwrap_err().to_string().contains("got a folder"));
        assert!(check_writable(at("missing/a")).is_err() && check_writable(at(&"a".repeat(256))).is_err());
        assert_eq!((folder.names(), fs::read(at("old")).unwrap()), (vec!["old".to_owned()], b"old".to_vec()));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused() {
        let folder = Folder::new("kinds");
        let socket = folder.0.join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [Path::new("/dev/null"), &socket] {
            let text = write_atomically(path, b"new").unwrap_err().to_string();
            assert!(text.ends_with("expected a regular file, got a device, a pipe or a socket"), "{text}");
            assert!(check_writable(path).is_err());
        }
        let pipe = folder.0.join("pipe");
        if process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
            assert!(write_atomically(&pipe, b"new").is_err());
        }
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
