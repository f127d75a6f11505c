//! Values as an operator writes them: what a key accepts, how a value is read and how it is printed.

use std::fmt::Write as _;

/// A value as it was typed, in a file or behind a flag.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A whole number.
    Integer(i128),
    /// true or false.
    Boolean(bool),
    /// A string.
    Text(String),
    /// A list of values.
    List(Vec<Raw>),
    /// Anything else that TOML has; the name of its type.
    Other(&'static str),
}

impl Raw {
    /// What stands behind a flag: a number if it looks like one, else a string.
    pub fn from_flag(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Text(text.to_owned()), Self::Integer)
    }

    /// The name of its type, with an article.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

/// A value that its key accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A count, bytes or seconds.
    Number(u64),
    /// On or off.
    Switch(bool),
    /// One of a choice, or a path.
    Text(String),
    /// Addresses.
    List(Vec<String>),
    /// Chosen by the server at start.
    Auto,
}

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A count within a range; `auto` if the server can choose.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// Whether `"auto"` is accepted.
        auto: bool,
    },
    /// Bytes: an integer, or a string with KiB, MiB or GiB.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Seconds: an integer, or a string with s, m, h or d.
    Seconds {
        /// Shortest.
        min: u64,
        /// Longest.
        max: u64,
    },
    /// true or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of some of these words, each once.
    Words(&'static [&'static str]),
    /// A path.
    Path,
    /// A path, or nothing.
    OptionalPath,
    /// An address of a plain HTTP service, or nothing.
    OptionalUrl,
    /// A list of ADDRESS:PORT.
    Addresses,
}

/// Why a key doesn't accept a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of another type.
    WrongType {
        /// The type it should have.
        expected: String,
        /// The type it has.
        found: &'static str,
    },
    /// A number beyond its range.
    OutOfRange {
        /// What was written.
        found: String,
        /// The range, as it would be written.
        permitted: String,
    },
    /// The right type, but not readable as what it should be.
    Unreadable {
        /// What was written.
        found: String,
        /// What to write.
        expected: String,
    },
}

const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DURATIONS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Kind {
    /// Reads a value, or says why not.
    pub fn read(&self, raw: &Raw) -> Result<Value, Fault> {
        match (self, raw) {
            (Self::Count { auto: true, .. }, Raw::Text(text)) if text == "auto" => Ok(Value::Auto),
            (
                Self::Count { .. } | Self::Bytes { .. } | Self::Seconds { .. },
                Raw::Integer(number),
            ) => self.in_range(*number, || number.to_string()),
            (Self::Bytes { .. }, Raw::Text(text)) => self.with_unit(text, &SIZES),
            (Self::Seconds { .. }, Raw::Text(text)) => self.with_unit(text, &DURATIONS),
            (Self::Switch, Raw::Boolean(on)) => Ok(Value::Switch(*on)),
            (Self::Choice(words), Raw::Text(text)) if words.contains(&text.as_str()) => {
                Ok(Value::Text(text.clone()))
            }
            (Self::Path, Raw::Text(text)) if !text.is_empty() && !text.contains('\0') => {
                Ok(Value::Text(text.clone()))
            }
            (Self::OptionalPath, Raw::Text(text)) if !text.contains('\0') => {
                Ok(Value::Text(text.clone()))
            }
            (Self::OptionalUrl, Raw::Text(text)) if text.is_empty() || is_plain_http(text) => {
                Ok(Value::Text(text.clone()))
            }
            (
                Self::Choice(_) | Self::Path | Self::OptionalPath | Self::OptionalUrl,
                Raw::Text(text),
            ) => Err(self.unreadable(text)),
            (Self::Words(words), Raw::List(items)) => self.words(words, items),
            (Self::Addresses, Raw::List(items)) => self.addresses(items),
            _ => Err(Fault::WrongType {
                expected: self.accepts(),
                found: raw.type_name(),
            }),
        }
    }

    /// What may be written, in words.
    pub fn accepts(&self) -> String {
        match self {
            Self::Count { auto: false, .. } => "an integer".to_owned(),
            Self::Count { auto: true, .. } => "an integer or \"auto\"".to_owned(),
            Self::Bytes { .. } => "bytes as an integer, or a string such as \"256KiB\"".to_owned(),
            Self::Seconds { .. } => {
                "seconds as an integer, or a string such as \"8s\" or \"7d\"".to_owned()
            }
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => {
                format!(
                    "one of {}",
                    words
                        .iter()
                        .map(|word| format!("\"{word}\""))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Self::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("a list of one or more of {}", words.join(", "))
            }
            Self::Path => "a string that is a path".to_owned(),
            Self::OptionalPath => "a string that is a path, or \"\"".to_owned(),
            Self::OptionalUrl => {
                "a string such as \"http://127.0.0.1:8000/auth\", or \"\"".to_owned()
            }
            Self::Addresses => {
                "a list of strings such as [\"0.0.0.0:1883\", \"[::]:1883\"]".to_owned()
            }
        }
    }

    /// The range of a number, as it would be written.
    pub fn permitted(&self) -> Option<String> {
        let (Self::Count { min, max, .. } | Self::Bytes { min, max } | Self::Seconds { min, max }) =
            self
        else {
            return None;
        };
        Some(format!("{} to {}", self.number(*min), self.number(*max)))
    }

    /// A value as TOML that [`Kind::read`] takes back.
    pub fn print(&self, value: &Value) -> String {
        match value {
            Value::Number(number) => match self {
                Self::Bytes { .. } if *number >= 1024 && number.is_multiple_of(1024) => {
                    format!("\"{}\"", self.number(*number))
                }
                Self::Seconds { .. } if *number >= 60 && number.is_multiple_of(60) => {
                    format!("\"{}\"", self.number(*number))
                }
                _ => number.to_string(),
            },
            Value::Switch(on) => on.to_string(),
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                format!(
                    "[{}]",
                    items
                        .iter()
                        .map(|item| quoted(item))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Value::Auto => "\"auto\"".to_owned(),
        }
    }

    /// A number with the largest unit that divides it.
    fn number(&self, number: u64) -> String {
        let units: &[(&str, u64)] = match self {
            Self::Bytes { .. } => &SIZES,
            Self::Seconds { .. } => &DURATIONS[..3],
            _ => &[],
        };
        let unit = units
            .iter()
            .find(|(_, size)| number > 0 && number.is_multiple_of(*size));
        unit.map_or_else(
            || number.to_string(),
            |(name, size)| format!("{}{name}", number / size),
        )
    }

    fn in_range(&self, number: i128, written: impl FnOnce() -> String) -> Result<Value, Fault> {
        let (Self::Count { min, max, .. } | Self::Bytes { min, max } | Self::Seconds { min, max }) =
            self
        else {
            unreachable!("only numbers have a range");
        };
        match u64::try_from(number) {
            Ok(number) if (*min..=*max).contains(&number) => Ok(Value::Number(number)),
            _ => Err(Fault::OutOfRange {
                found: written(),
                permitted: self.permitted().unwrap_or_default(),
            }),
        }
    }

    fn with_unit(&self, text: &str, units: &[(&str, u64)]) -> Result<Value, Fault> {
        let (digits, size) = units
            .iter()
            .find_map(|(name, size)| Some((text.strip_suffix(name)?.trim_end(), *size)))
            .unwrap_or((text, 1));
        let number = Some(digits)
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u64>().ok())
            .ok_or_else(|| self.unreadable(text))?;
        self.in_range(i128::from(number) * i128::from(size), || text.to_owned())
    }

    fn addresses(&self, items: &[Raw]) -> Result<Value, Fault> {
        let mut list: Vec<String> = Vec::new();
        for item in items {
            let Raw::Text(text) = item else {
                return Err(Fault::WrongType {
                    expected: self.accepts(),
                    found: "a list with something else",
                });
            };
            let address: std::net::SocketAddr = text.parse().map_err(|_| Fault::Unreadable {
                found: text.clone(),
                expected: "an IP address and a port, such as 0.0.0.0:1883 or [::]:1883".to_owned(),
            })?;
            let address = address.to_string();
            // Port 0 takes a free port each time, so it can stand twice.
            if list.contains(&address) && !address.ends_with(":0") {
                return Err(Fault::Unreadable {
                    found: address,
                    expected: "each address only once".to_owned(),
                });
            }
            list.push(address);
        }
        if !(1..=crate::limits::MAX_LISTENERS).contains(&list.len()) {
            let permitted = format!("1 to {} addresses", crate::limits::MAX_LISTENERS);
            return Err(Fault::OutOfRange {
                found: format!("{} addresses", list.len()),
                permitted,
            });
        }
        Ok(Value::List(list))
    }

    fn words(&self, words: &[&str], items: &[Raw]) -> Result<Value, Fault> {
        let mut list: Vec<String> = Vec::new();
        for item in items {
            match item {
                Raw::Text(text) if words.contains(&text.as_str()) && !list.contains(text) => {
                    list.push(text.clone());
                }
                Raw::Text(text) => return Err(self.unreadable(text)),
                other => {
                    return Err(Fault::WrongType {
                        expected: self.accepts(),
                        found: other.type_name(),
                    });
                }
            }
        }
        if list.is_empty() {
            return Err(self.unreadable("[]"));
        }
        Ok(Value::List(list))
    }

    fn unreadable(&self, text: &str) -> Fault {
        Fault::Unreadable {
            found: text.to_owned(),
            expected: self.accepts(),
        }
    }
}

/// Whether it is a URL that a client without TLS can ask.
fn is_plain_http(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.scheme() == "http" && url.has_host())
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            // Writing to a String can't fail.
            control if control.is_control() => _ = write!(out, "\\u{:04X}", control as u32),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Kind = Kind::Bytes {
        min: 1024,
        max: 1 << 30,
    };
    const SECONDS: Kind = Kind::Seconds {
        min: 0,
        max: 100 * 86_400,
    };
    const COUNT: Kind = Kind::Count {
        min: 1,
        max: 65_535,
        auto: false,
    };

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_and_durations_take_units() {
        for (written, bytes) in [
            ("4096", 4096),
            ("256KiB", 256 << 10),
            ("1MiB", 1 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(
                BYTES.read(&text(written)),
                Ok(Value::Number(bytes)),
                "{written}"
            );
        }
        for (written, seconds) in [
            ("8s", 8),
            ("2m", 120),
            ("1h", 3600),
            ("7d", 604_800),
            ("0", 0),
            ("5", 5),
        ] {
            assert_eq!(
                SECONDS.read(&text(written)),
                Ok(Value::Number(seconds)),
                "{written}"
            );
        }
        for written in [
            "",
            "KiB",
            "-1KiB",
            "1.5MiB",
            "+4KiB",
            "1kb",
            "1 KiB extra",
            "99999999999999999999KiB",
            "8S",
        ] {
            assert!(
                matches!(BYTES.read(&text(written)), Err(Fault::Unreadable { .. })),
                "{written}"
            );
        }
        assert!(matches!(
            BYTES.read(&text("18446744073709551615GiB")),
            Err(Fault::OutOfRange { .. })
        ));
    }

    #[test]
    fn a_range_is_told_as_it_would_be_written() {
        let fault = BYTES.read(&Raw::Integer(5)).unwrap_err();
        assert_eq!(
            fault,
            Fault::OutOfRange {
                found: "5".to_owned(),
                permitted: "1KiB to 1GiB".to_owned()
            }
        );
        let fault = COUNT.read(&Raw::Integer(-3)).unwrap_err();
        assert_eq!(
            fault,
            Fault::OutOfRange {
                found: "-3".to_owned(),
                permitted: "1 to 65535".to_owned()
            }
        );
        assert_eq!(COUNT.read(&Raw::Integer(65_535)), Ok(Value::Number(65_535)));
        assert!(COUNT.read(&Raw::Integer(65_536)).is_err());
    }

    #[test]
    fn types_are_not_guessed() {
        assert!(matches!(
            COUNT.read(&text("5")),
            Err(Fault::WrongType {
                found: "a string",
                ..
            })
        ));
        assert!(matches!(
            Kind::Switch.read(&Raw::Integer(1)),
            Err(Fault::WrongType { .. })
        ));
        assert!(matches!(
            Kind::Addresses.read(&text("0.0.0.0:1883")),
            Err(Fault::WrongType { .. })
        ));
        assert!(matches!(
            COUNT.read(&text("auto")),
            Err(Fault::WrongType { .. })
        ));
        assert!(matches!(
            Kind::Choice(&["text", "json"]).read(&text("xml")),
            Err(Fault::Unreadable { .. })
        ));
    }

    #[test]
    fn addresses_are_checked_one_by_one() {
        let list = |items: &[&str]| {
            Kind::Addresses.read(&Raw::List(items.iter().map(|item| text(item)).collect()))
        };
        let good = ["127.0.0.1:1883", "[::1]:1883"];
        assert_eq!(
            list(&good),
            Ok(Value::List(good.map(str::to_owned).to_vec()))
        );
        assert!(list(&["127.0.0.1:0", "127.0.0.1:0"]).is_ok());
        for bad in [
            &["1883"][..],
            &["localhost:1883"],
            &["127.0.0.1:70000"],
            &["::1:1883", ""],
            &[],
            &good.repeat(2),
        ] {
            assert!(list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for (kind, number) in [
            (BYTES, 1025),
            (BYTES, 1 << 20),
            (SECONDS, 7 * 86_400),
            (SECONDS, 61),
            (SECONDS, 0),
            (COUNT, 60),
        ] {
            let printed = kind.print(&Value::Number(number));
            let raw = match printed.strip_prefix('"') {
                Some(rest) => text(rest.trim_end_matches('"')),
                None => Raw::Integer(printed.parse().unwrap()),
            };
            assert_eq!(kind.read(&raw), Ok(Value::Number(number)), "{printed}");
        }
        let odd = "a \"b\" \\ \n \u{7f} é";
        let table: toml::Table = toml::from_str(&format!("path = {}", quoted(odd))).unwrap();
        assert_eq!(table["path"].as_str(), Some(odd));
    }
}
