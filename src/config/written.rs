//! The configuration as it was typed: key by key, each value accepted by its key and with its place.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::keys::{self, KEYS};
use super::value::{Fault, Raw, Value};
use crate::limits;

/// One value that somebody gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position of its key in [`KEYS`].
    pub key: usize,
    /// The value.
    pub value: Value,
    /// Who gave it.
    pub origin: Origin,
}

/// A flag that stands for a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// As it is typed, such as `--max-connections`.
    pub name: &'static str,
    /// The key it overrides.
    pub key: &'static str,
    /// Its value.
    pub raw: Raw,
}

/// Reads a configuration file.
pub fn read_file(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    use std::io::Read as _;
    let unreadable = |error| ConfigError::Unreadable(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() as u64 <= limits::CONFIG_FILE_BYTES);
    parse(
        &path.to_string_lossy(),
        &text.ok_or_else(|| ConfigError::NotText(path.to_owned()))?,
    )
}

/// Reads the text of a configuration file that was named `path`. The first thing wrong in it is reported.
pub fn parse(path: &str, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let places = Places {
        path: path.into(),
        text,
    };
    let table = DeTable::parse(text).map_err(|error| {
        ConfigError::Syntax(
            places.at(error.span().map_or(0, |span| span.start)),
            error.message().to_owned(),
        )
    })?;
    let mut leaves = Vec::new();
    collect(table.get_ref(), &mut String::new(), &mut leaves);
    leaves.sort_by_key(|leaf| leaf.key_at);
    leaves.into_iter().map(|leaf| leaf.check(&places)).collect()
}

/// Checks what stands behind a flag.
///
/// # Panics
/// If the flag stands for a key that doesn't exist, which is a mistake of the command line's own table.
pub fn from_flag(flag: &Flag) -> Result<Entry, ConfigError> {
    let origin = Origin::Flag(flag.name);
    let key = keys::position(flag.key).expect("each flag stands for a key of the table");
    match KEYS[key].kind.read(&flag.raw) {
        Ok(value) => Ok(Entry { key, value, origin }),
        Err(fault) => Err(ConfigError::Value(origin, KEYS[key].name, fault)),
    }
}

/// A value of the file with its dotted name.
struct Leaf {
    name: String,
    key_at: usize,
    value_at: usize,
    raw: Raw,
}

impl Leaf {
    fn check(self, places: &Places<'_>) -> Result<Entry, ConfigError> {
        let Some(key) = keys::position(&self.name) else {
            if let Some((table, _)) = KEYS
                .iter()
                .map(keys::Key::split)
                .find(|(table, _)| *table == self.name)
            {
                let fault = Fault::WrongType {
                    expected: "a table of keys".to_owned(),
                    found: self.raw.type_name(),
                };
                return Err(ConfigError::Value(places.at(self.value_at), table, fault));
            }
            let nearest = keys::nearest(&self.name);
            return Err(ConfigError::UnknownKey(
                places.at(self.key_at),
                self.name,
                nearest,
            ));
        };
        let origin = places.at(self.value_at);
        match KEYS[key].kind.read(&self.raw) {
            Ok(value) => Ok(Entry { key, value, origin }),
            Err(fault) => Err(ConfigError::Value(origin, KEYS[key].name, fault)),
        }
    }
}

/// Walks down to the keys. The parser bounds the depth.
fn collect(table: &DeTable<'_>, prefix: &mut String, leaves: &mut Vec<Leaf>) {
    for (key, value) in table {
        let parent = prefix.len();
        if parent > 0 {
            prefix.push('.');
        }
        prefix.push_str(key.get_ref());
        match value.get_ref() {
            // A table where a known key wants a value is that key's error; a table without keys that nobody knows must not pass.
            DeValue::Table(inner)
                if keys::position(prefix).is_none() && (!inner.is_empty() || is_table(prefix)) =>
            {
                collect(inner, prefix, leaves);
            }
            other => leaves.push(Leaf {
                name: prefix.clone(),
                key_at: key.span().start,
                value_at: value.span().start,
                raw: raw(other),
            }),
        }
        prefix.truncate(parent);
    }
}

/// Whether keys stand in a table of this name.
fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == name)
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Raw::Other("an integer beyond 128 bits"), Raw::Integer),
        DeValue::Boolean(on) => Raw::Boolean(*on),
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a float"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Turns offsets into places.
struct Places<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl Places<'_> {
    fn at(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("sw.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn values_come_with_their_places() {
        let entries = parse(
            "sw.toml",
            "reactors = 3\n[mqtt]\n  max_packet_size = \"2MiB\"\n",
        )
        .unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| {
                format!(
                    "{} {:?} {}",
                    KEYS[entry.key].name, entry.value, entry.origin
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "reactors Number(3) sw.toml:1:12",
                "mqtt.max_packet_size Number(2097152) sw.toml:3:21"
            ]
        );
    }

    #[test]
    fn each_mistake_is_one_line_with_place_key_and_remedy() {
        for (text, expected) in [
            (
                "reactor = 3",
                "sw.toml:1:1: unknown key \"reactor\"; did you mean \"reactors\"? `stillwire config` prints every key",
            ),
            (
                "\n[mqtt]\nmax_inflite = 3",
                "sw.toml:3:1: unknown key \"mqtt.max_inflite\"; did you mean \"mqtt.max_inflight\"? `stillwire config` prints every key",
            ),
            (
                "max_inflight = 3",
                "sw.toml:1:1: unknown key \"max_inflight\"; did you mean \"mqtt.max_inflight\"? `stillwire config` prints every key",
            ),
            (
                "reactors = 5000",
                "sw.toml:1:12: reactors: 5000 is out of range; use 1 to 1024",
            ),
            (
                "reactors = \"many\"",
                "sw.toml:1:12: reactors: needs an integer or \"auto\", not a string",
            ),
            (
                "pin = 1",
                "sw.toml:1:7: pin: needs true or false, not an integer",
            ),
            (
                "mqtt.connect_timeout = \"11m\"",
                "sw.toml:1:24: mqtt.connect_timeout: 11m is out of range; use 1 to 10m",
            ),
            (
                "log.format = \"xml\"",
                "sw.toml:1:14: log.format: \"xml\" can't be used; write one of \"text\", \"json\"",
            ),
            (
                "listen = [\"1883\"]",
                "sw.toml:1:10: listen: \"1883\" can't be used; write an IP address and a port, such as 0.0.0.0:1883 or [::]:1883",
            ),
            (
                "mqtt = 3",
                "sw.toml:1:8: mqtt: needs a table of keys, not an integer",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn whatever_stands_in_the_file_is_an_error_and_one_line() {
        let deep = format!("a = {}", "[".repeat(100_000));
        for text in [
            "reactors = ",
            "[mqtt",
            "a.b.c.d = 1",
            "[[mqtt]]\nmax_inflight = 1",
            "[listen]\nx = 1",
            "[nothing]",
            "reactors = 1\nreactors = 2",
            "reactors = 99999999999999999999999999999999999999999",
            "reactors = 0x_1",
            "reactors = 1.0",
            "reactors = 2026-01-01",
            "\"a\\nb\" = 1",
            "data_dir = \"\"",
            "data_dir = \"a\\u0000b\"",
            "listen = []",
            "listen = [1]",
            "max_connections = 0",
            &deep,
        ] {
            let message = error(text);
            assert!(message.starts_with("sw.toml:"), "{text}: {message}");
            assert!(
                !message.contains('\n') && message.len() < 300,
                "{text}: {message}"
            );
        }
        let syntax = parse("sw.toml", "reactors = = 1").unwrap_err();
        assert!(
            matches!(syntax, ConfigError::Syntax(Origin::File { line: 1, .. }, _)),
            "{syntax:?}"
        );
    }

    #[test]
    fn a_column_counts_characters() {
        assert!(error("data_dir = \"ä\" #é\nläufer = 1").starts_with("sw.toml:2:"));
        assert!(error("data_dir = \"ää\" x").starts_with("sw.toml:1:17:"));
    }

    #[test]
    fn an_empty_table_that_exists_is_fine() {
        assert_eq!(parse("sw.toml", "[mqtt]\n[log]\n# nothing\n").unwrap(), []);
    }

    #[test]
    fn a_file_that_is_none_is_said() {
        let missing = read_file(Path::new("/nonexistent/sw.toml")).unwrap_err();
        assert!(matches!(missing, ConfigError::Unreadable(..)));
        assert!(matches!(
            read_file(Path::new("/dev/zero")).unwrap_err(),
            ConfigError::NotText(_)
        ));
        assert!(matches!(
            read_file(Path::new("/")).unwrap_err(),
            ConfigError::Unreadable(..)
        ));
    }
}
