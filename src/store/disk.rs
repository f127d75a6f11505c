//! What the syncer asks of a disk, behind a trait so that tests can have it refuse.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::sys;

/// A disk. Every call may take as long as disks do.
pub trait Disk: Send + Sync + 'static {
    /// A new file of zeros whose blocks are all its own, and which is there after a power loss. What is half done when it fails is removed.
    fn create(&self, path: &Path, size: u64) -> io::Result<File>;
    /// Opens a file to sync it.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Everything that was written to it is on the disk. After an error nothing is known any more.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Removes a file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Files that were created or removed in a directory stay so.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

impl Disk for Real {
    fn create(&self, path: &Path, size: u64) -> io::Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let done = sys::file::allocate(&mut file, size).and_then(|()| file.sync_all());
        if let Err(error) = done {
            _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
