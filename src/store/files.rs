//! The files of a log at its start: found, opened, mapped, and those that are of no use removed. No descriptor is kept.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::chain::Part;
use super::format;
use super::segment::Segment;
use crate::config::error::one_line;

/// A log that can't be opened. The operator's to solve; each says what and where.
#[derive(Debug)]
pub enum OpenError {
    /// Its directory can't be made or listed.
    Directory(PathBuf, io::Error),
    /// A file in it can't be opened or mapped.
    File(PathBuf, io::Error),
    /// A file in it was written by a newer version.
    Newer(PathBuf, u32),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Directory(path, _) | Self::File(path, _) | Self::Newer(path, _)) = self;
        let path = one_line(&path.to_string_lossy());
        match self {
            Self::Directory(_, error) => write!(
                f,
                "{path}: cannot use the directory of the stored sessions: {error}; give this user the right to read and write it"
            ),
            Self::File(_, error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => write!(
                    f,
                    "{path}: cannot write a file of the stored sessions: {error}; give this user the right to, and mount its disk writable"
                ),
                io::ErrorKind::OutOfMemory => write!(
                    f,
                    "{path}: cannot map a file of the stored sessions: {error}; raise vm.max_map_count"
                ),
                _ => write!(
                    f,
                    "{path}: cannot open a file of the stored sessions: {error}; look at the disk, or move the file away to start without what is in it"
                ),
            },
            Self::Newer(_, version) => write!(
                f,
                "{path}: written by a newer server (format {version}, this one reads {}); start that one, or name another directory with --data-dir",
                format::VERSION
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// All segments of a directory, writable, and the number of the next. The directory is made if it is missing.
pub(super) fn map(directory: &Path) -> Result<(Vec<Part>, u64), OpenError> {
    let failed = |error| OpenError::Directory(directory.to_owned(), error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let mut how = OpenOptions::new();
    how.read(true).write(true);
    open_all(directory, &how, Segment::map)
}

/// The same, to be read only. What is not there any more when it is opened is left out: a server may be removing it.
pub(super) fn view(directory: &Path) -> Result<(Vec<Part>, u64), OpenError> {
    open_all(directory, OpenOptions::new().read(true), Segment::view)
}

fn open_all(
    directory: &Path,
    how: &OpenOptions,
    map: fn(&File) -> io::Result<Segment>,
) -> Result<(Vec<Part>, u64), OpenError> {
    let failed = |error| OpenError::Directory(directory.to_owned(), error);
    let mut parts = Vec::new();
    let mut next = 0;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(format::file_number) else {
            continue;
        };
        next = next.max(number.saturating_add(1));
        let path = entry.path();
        let segment = match how.open(&path).and_then(|file| map(&file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            segment => segment.map_err(|error| OpenError::File(path.clone(), error))?,
        };
        parts.push(Part {
            segment,
            number,
            name: path.display().to_string(),
        });
    }
    Ok((parts, next))
}

/// Removes files that are of no use any more, and has that stay so.
pub(super) fn tidy(directory: &Path, numbers: &[u64]) -> Result<(), OpenError> {
    for number in numbers {
        let path = directory.join(format::file_name(*number));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::File(path, error));
            }
            _ => {}
        }
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| OpenError::Directory(directory.to_owned(), error))
}
