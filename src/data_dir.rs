//! The data directory: created if it is missing, and locked for as long as the server lives. Owns nothing inside but its lock file.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::config::error::one_line;

/// The lock file. It stays when the server ends: the lock is the kernel's (flock), not the file's existence, so a crash leaves nothing
/// to clean up. Its text is the process id of the last holder.
const LOCK: &str = "lock";

/// A data directory that belongs to this process until it is dropped or the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// The data directory can't be had. The operator erred, or the disk.
#[derive(Debug)]
pub enum DataDirError {
    /// It could not be created or entered.
    Unusable(PathBuf, io::Error),
    /// Its lock file could not be opened or written.
    Lock(PathBuf, io::Error),
    /// Another server has it; its process id, if it could be read.
    Taken(PathBuf, Option<u32>),
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unusable(path, _) | Self::Lock(path, _) | Self::Taken(path, _)) = self;
        let path = one_line(&path.to_string_lossy());
        match self {
            Self::Unusable(_, error) => {
                write!(
                    f,
                    "{path}: cannot create or enter the data directory: {error}; name another with --data-dir, or change its rights"
                )
            }
            Self::Lock(_, error) => {
                write!(
                    f,
                    "{path}: cannot lock the data directory: {error}; make it writable for this user, or name another with --data-dir"
                )
            }
            Self::Taken(_, Some(pid)) => {
                write!(
                    f,
                    "{path}: the server with process id {pid} uses this data directory; stop it, or name another with --data-dir"
                )
            }
            Self::Taken(_, None) => {
                write!(
                    f,
                    "{path}: another server uses this data directory (`fuser {path}/lock` names it); stop it, or name another with --data-dir"
                )
            }
        }
    }
}

impl std::error::Error for DataDirError {}

impl DataDir {
    /// Creates the directory if it is missing, with access for its owner alone, and locks it.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let unusable = |error| DataDirError::Unusable(path.to_owned(), error);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let lock_path = path.join(LOCK);
        let failed = |error| DataDirError::Lock(lock_path.clone(), error);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Taken(path, holder(&mut lock)));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The process id in the lock file. The holder may not have written it yet, and then nobody is named.
fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, gone at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("stillwire-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_is_created_locked_and_free_again() {
        let scratch = Scratch::new("data-dir");
        let path = scratch.0.join("a/b");
        let held = DataDir::lock(&path).unwrap();
        assert!(held.path().is_absolute());
        let second = DataDir::lock(&path).unwrap_err();
        assert!(
            matches!(&second, DataDirError::Taken(_, Some(pid)) if *pid == std::process::id()),
            "{second}"
        );
        drop(held);
        drop(DataDir::lock(&path).unwrap());
    }

    #[test]
    fn a_stale_or_odd_lock_file_does_not_matter() {
        let scratch = Scratch::new("stale-lock");
        std::fs::create_dir_all(&scratch.0).unwrap();
        std::fs::write(
            scratch.0.join(LOCK),
            "999999999999999999999 and much more text than a process id",
        )
        .unwrap();
        let held = DataDir::lock(&scratch.0).unwrap();
        assert_eq!(
            std::fs::read_to_string(scratch.0.join(LOCK))
                .unwrap()
                .trim(),
            std::process::id().to_string()
        );
        std::fs::write(scratch.0.join(LOCK), "not a number").unwrap();
        assert!(matches!(
            DataDir::lock(&scratch.0),
            Err(DataDirError::Taken(_, None))
        ));
        drop(held);
    }

    #[test]
    fn a_file_in_its_place_is_said() {
        let scratch = Scratch::new("not-a-dir");
        std::fs::write(&scratch.0, "").unwrap();
        let error = DataDir::lock(&scratch.0).unwrap_err();
        std::fs::remove_file(&scratch.0).unwrap();
        assert!(matches!(error, DataDirError::Unusable(..)), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
