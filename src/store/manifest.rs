//! What must be known before any log is opened: which directory the logs are in, how many reactors wrote them, and the keys.
//!
//! A small TOML file, `manifest` in the data directory, written as a whole: a temporary file is synced and takes its place. A changed number
//! of reactors becomes true in that moment: the new logs stand in a directory of their own (the *generation*), and the old go afterwards.
//!
//! ```text
//! version = 1                          of this file and all that it leads to
//! generation = 3                       the logs are in store-3/<reactor>/
//! reactors = 8
//! hash_key = "0123456789abcdef"        seeds the hash that gives each client its home: homes stay where the logs are
//! log_key = "fedcba9876543210"         seeds the logs' checksums
//! check = "0a1b2c3d"                   CRC-32C of everything before this line
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::error::one_line;
use crate::limits;

/// The version that this build reads and writes.
pub const VERSION: u32 = 1;

const NAME: &str = "manifest";
const TEMPORARY: &str = "manifest.new";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which directory the logs are in.
    pub generation: u64,
    /// How many logs there are.
    pub reactors: u32,
    /// Seeds the hash of client identifiers.
    pub hash_key: u64,
    /// Seeds the keys of the logs, see [`Manifest::key`].
    pub log_key: u64,
}

/// A manifest that can't be had.
#[derive(Debug)]
pub enum ManifestError {
    /// It can't be read.
    Unreadable(PathBuf, io::Error),
    /// It can't be written.
    Unwritable(PathBuf, io::Error),
    /// A newer server wrote it.
    Newer(PathBuf, u64),
    /// It is something else, or damaged; in words.
    Foreign(PathBuf, String),
    /// It is not there, but logs are: this directory holds them.
    Lost(PathBuf, PathBuf),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreadable(path, _)
        | Self::Unwritable(path, _)
        | Self::Newer(path, _)
        | Self::Foreign(path, _)
        | Self::Lost(path, _)) = self;
        let path = one_line(&path.to_string_lossy());
        match self {
            Self::Unreadable(_, error) => write!(
                f,
                "{path}: cannot read it: {error}; give this user the right to, or name another directory with --data-dir"
            ),
            Self::Unwritable(_, error) => write!(
                f,
                "{path}: cannot write it: {error}; make the data directory writable for this user, with room on its disk, or name another with --data-dir"
            ),
            Self::Newer(_, version) => write!(
                f,
                "{path}: written by a newer server (format {version}, this one reads {VERSION}); start that one, or name another directory with --data-dir"
            ),
            Self::Foreign(_, why) => write!(
                f,
                "{path}: not a manifest that this server wrote: {}; put a copy back (all sessions depend on its keys), or name another directory with --data-dir",
                one_line(why)
            ),
            Self::Lost(_, logs) => write!(
                f,
                "{path}: is missing, but {} holds stored sessions; put the file back, or move that directory away to start without them",
                one_line(&logs.to_string_lossy())
            ),
        }
    }
}

impl std::error::Error for ManifestError {}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    generation: u64,
    reactors: u32,
    hash_key: String,
    log_key: String,
    check: String,
}

impl Manifest {
    /// A first one, with keys that nobody can guess.
    pub fn new(reactors: u32) -> Self {
        let random = |salt: u64| RandomState::new().hash_one(salt);
        Self {
            generation: 1,
            reactors,
            hash_key: random(1),
            log_key: random(2),
        }
    }

    /// The key of a reactor's log: of this generation, so that a file of another is told.
    pub fn key(&self, reactor: u32) -> u64 {
        let place = self.generation << 32 | u64::from(reactor);
        let product = u128::from(self.log_key ^ place) * 0x9e37_79b9_7f4a_7c15;
        (product as u64) ^ ((product >> 64) as u64)
    }

    /// Where the logs of a generation are.
    pub fn directory(data: &Path, generation: u64) -> PathBuf {
        data.join(format!("store-{generation}"))
    }

    /// Where the log of a reactor is.
    pub fn log(&self, data: &Path, reactor: u32) -> PathBuf {
        Self::directory(data, self.generation).join(reactor.to_string())
    }

    /// The manifest of a data directory; none: it is new.
    pub fn read(data: &Path) -> Result<Option<Self>, ManifestError> {
        let path = data.join(NAME);
        let unreadable = |error| ManifestError::Unreadable(path.clone(), error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match generations(data).map_err(unreadable)?.pop() {
                    Some((_, logs)) => Err(ManifestError::Lost(path, logs)),
                    None => Ok(None),
                };
            }
            file => file.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(limits::MANIFEST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::parse(&bytes).map(Some).map_err(|fault| match fault {
            Fault::Newer(version) => ManifestError::Newer(path, version),
            Fault::Foreign(why) => ManifestError::Foreign(path, why),
        })
    }

    /// Makes this the manifest of a data directory, whole or not at all, and on the disk when it returns.
    pub fn write(&self, data: &Path) -> Result<(), ManifestError> {
        let temporary = data.join(TEMPORARY);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, data.join(NAME))?;
            File::open(data)?.sync_all()
        };
        write().map_err(|error| ManifestError::Unwritable(data.join(NAME), error))
    }

    /// Removes the logs of all other generations: of one that was left behind, or never finished.
    pub fn tidy(&self, data: &Path) -> Result<(), ManifestError> {
        let failed = |error| ManifestError::Unwritable(data.to_owned(), error);
        for (generation, path) in generations(data).map_err(failed)? {
            if generation != self.generation {
                std::fs::remove_dir_all(&path)
                    .map_err(|error| ManifestError::Unwritable(path.clone(), error))?;
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let Self {
            generation,
            reactors,
            hash_key,
            log_key,
        } = self;
        let text = format!(
            "version = {VERSION}\ngeneration = {generation}\nreactors = {reactors}\nhash_key = \"{hash_key:016x}\"\nlog_key = \"{log_key:016x}\"\n"
        );
        let check = crc32c::crc32c(text.as_bytes());
        format!("{text}check = \"{check:08x}\"\n")
    }

    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let foreign = |why: &str| Fault::Foreign(why.to_owned());
        let text = str::from_utf8(bytes).map_err(|_| foreign("it is not text"))?;
        let table: toml::Table = text.parse().map_err(|_| foreign("it is not TOML"))?;
        // A newer one may look different otherwise.
        if let Some(version) = table.get("version").and_then(toml::Value::as_integer) {
            let version = u64::try_from(version).unwrap_or(0);
            if version > u64::from(VERSION) {
                return Err(Fault::Newer(version));
            }
        }
        let written: Written = table
            .try_into()
            .map_err(|error: toml::de::Error| foreign(error.message()))?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let manifest = Self {
            generation: written.generation,
            reactors: written.reactors,
            hash_key: hex(&written.hash_key).ok_or_else(|| foreign("hash_key is no number"))?,
            log_key: hex(&written.log_key).ok_or_else(|| foreign("log_key is no number"))?,
        };
        // What is written is the same to the byte; so anything else was not.
        if written.version != u64::from(VERSION)
            || manifest.reactors == 0
            || manifest.text() != text
            || hex(&written.check).is_none()
        {
            return Err(foreign("its checksum does not fit"));
        }
        Ok(manifest)
    }
}

enum Fault {
    Newer(u64),
    Foreign(String),
}

/// The directories of logs in a data directory, by generation.
fn generations(data: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("store-"));
        if let Some(generation) = number.and_then(|number| number.parse().ok()) {
            found.push((generation, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("stillwire-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_comes_back_and_the_other_generations_go() {
        let scratch = Scratch::new("manifest");
        assert_eq!(Manifest::read(&scratch.0).unwrap(), None);
        let first = Manifest::new(4);
        first.write(&scratch.0).unwrap();
        assert_eq!(Manifest::read(&scratch.0).unwrap(), Some(first));
        let second = Manifest {
            generation: 2,
            reactors: 5,
            ..first
        };
        for manifest in [first, second] {
            std::fs::create_dir_all(manifest.log(&scratch.0, 3)).unwrap();
        }
        second.write(&scratch.0).unwrap();
        second.tidy(&scratch.0).unwrap();
        assert_eq!(Manifest::read(&scratch.0).unwrap(), Some(second));
        assert!(!first.log(&scratch.0, 3).exists() && second.log(&scratch.0, 3).exists());
        assert_ne!(first.key(3), second.key(3));
        assert_ne!(first.key(3), first.key(2));
        assert_ne!(Manifest::new(4).log_key, first.log_key);
    }

    #[test]
    fn any_other_byte_or_length_is_an_error_that_names_the_file() {
        let scratch = Scratch::new("manifest-damaged");
        let manifest = Manifest::new(2);
        manifest.write(&scratch.0).unwrap();
        let path = scratch.0.join(NAME);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let error = Manifest::read(&scratch.0).unwrap_err();
            assert!(error.to_string().contains("manifest: "), "{error}");
            std::fs::write(&path, &good[..at]).unwrap();
            let error = Manifest::read(&scratch.0).unwrap_err();
            assert!(matches!(error, ManifestError::Foreign(..)), "{error}");
        }
    }

    #[test]
    fn a_newer_and_a_lost_one_say_what_to_do() {
        let scratch = Scratch::new("manifest-newer");
        let path = scratch.0.join(NAME);
        std::fs::write(&path, "version = 2\nsomething = [1, 2]\n").unwrap();
        let error = Manifest::read(&scratch.0).unwrap_err();
        assert!(matches!(error, ManifestError::Newer(_, 2)), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(scratch.0.join("store-7")).unwrap();
        let error = Manifest::read(&scratch.0).unwrap_err();
        assert!(matches!(error, ManifestError::Lost(..)), "{error}");
        assert!(error.to_string().contains("store-7"));
        assert!(!error.to_string().contains('\n'));
    }
}
