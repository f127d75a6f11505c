//! The files behind an [`Access`](super::Access): read whole and bounded, written whole or not at all, every mistake with its line.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::AccessError;
use crate::limits::ACCESS_FILE_BYTES;

/// The bytes of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, AccessError> {
    let unreadable = |error| AccessError::Unreadable(path.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(ACCESS_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > ACCESS_FILE_BYTES {
        return Err(AccessError::NotText(path.to_owned()));
    }
    Ok(bytes)
}

/// The text of a file.
pub(super) fn text(path: &Path) -> Result<String, AccessError> {
    String::from_utf8(bytes(path)?).map_err(|_| AccessError::NotText(path.to_owned()))
}

/// Reads TOML.
pub(super) fn toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, AccessError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        AccessError::broken(path, line_at(text, at), error.message())
    })
}

/// The line of an offset, from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.matches('\n').count()
}

/// The lines that say something, with their numbers: not the empty ones, and not those that start with `#`.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The words of a line. One with a space in it stands in double quotes. None: a quote without its end, or glued to a word.
pub(super) fn words(line: &str) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return None;
        }
        words.push(word);
        rest = after.trim_start();
    }
    Some(words)
}

/// Puts a text into the place of a file, readable for its owner alone. Whoever reads meanwhile sees the old one or the new one, and so does
/// whoever reads after a crash.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), AccessError> {
    let unwritable = |error| AccessError::Unwritable(path.to_owned(), error);
    let mut name = path
        .file_name()
        .map(OsString::from)
        .ok_or_else(|| unwritable(io::ErrorKind::InvalidInput.into()))?;
    name.push(format!(".{}.new", std::process::id()));
    // A link stays one: what it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let new = target.with_file_name(name);
    let written = write_new(&new, text).and_then(|()| fs::rename(&new, &target));
    if let Err(error) = written {
        _ = fs::remove_file(&new);
        return Err(unwritable(error));
    }
    let directory = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(unwritable)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    /// A directory of one test's own, gone at the end.
    pub(in crate::access) struct Scratch(PathBuf);

    impl Scratch {
        pub(in crate::access) fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("stillwire-access-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(in crate::access) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        pub(in crate::access) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            fs::write(self.path(name), text).unwrap();
            self.path(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(words("  a \t b#  "), Some(vec!["a", "b#"]));
        assert_eq!(words("\"a b\" \"\" c"), Some(vec!["a b", "", "c"]));
        assert_eq!(words(""), Some(vec![]));
        for broken in ["\"a", "\"a\"b", "a \"", "\""] {
            assert_eq!(words(broken), None, "{broken}");
        }
        // A quote inside a word is a part of it.
        assert_eq!(words("a\"b\" c"), Some(vec!["a\"b\"", "c"]));
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        let text = "\n# no\n  a\r\n\t\n #\nb";
        assert_eq!(lines(text).collect::<Vec<_>>(), [(3, "a"), (6, "b")]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_kept_from_others() {
        let scratch = Scratch::new("replace");
        let path = scratch.file("f", "old");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(text(&path).unwrap(), "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
        let link = scratch.path("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "newer").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(text(&path).unwrap(), "newer");
        let nowhere = replace(&scratch.path("no/such/f"), "").unwrap_err();
        assert!(matches!(nowhere, AccessError::Unwritable(..)), "{nowhere}");
        assert!(replace(Path::new("/"), "").is_err());
    }

    #[test]
    fn what_is_no_text_file_is_said() {
        let scratch = Scratch::new("text");
        let binary = scratch.file("binary", [0xff, 0xfe]);
        assert!(matches!(text(&binary), Err(AccessError::NotText(_))));
        assert!(matches!(
            text(Path::new("/dev/zero")),
            Err(AccessError::NotText(_))
        ));
        assert!(matches!(
            text(Path::new("/")),
            Err(AccessError::Unreadable(..))
        ));
        let error = text(&scratch.path("missing")).unwrap_err().to_string();
        assert!(
            error.contains("missing: cannot be read: No such file"),
            "{error}"
        );
    }
}
