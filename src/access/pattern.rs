//! Patterns of rules: topic filters that may hold `%c` (the client id) and `%u` (the user name), and how they stand to names and filters.
//!
//! A pattern is a set of topic names, and so is a filter. A rule that allows must *cover* what a client asks for, that is, hold all of its names; one
//! that denies need only *overlap* it, that is, share one name with it. Both are decided exactly, level by level, without listing names.
//!
//! A name that would change the shape of a filter when it is put into one (`+`, `#`, `/` in it, a `$` at its start, nothing at all) never
//! satisfies an allow, and in a deny it stands for everything (CVE-2017-7650).

use crate::topic::TopicError;
use crate::topic::filter::Filter;

/// The names that placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// For `%c`.
    pub client_id: &'a str,
    /// For `%u`.
    pub user: Option<&'a str>,
}

/// A filter with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As it was written.
    text: Box<str>,
    /// At least one.
    levels: Box<[Level]>,
    /// Whether more levels may follow.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// `+`.
    Any,
    /// This text.
    Text(Box<str>),
    /// Text with placeholders.
    Template(Box<[Piece]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Client,
    User,
}

/// One level of a filter as a client wrote it; a name's levels are all text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked<'a> {
    Any,
    Text(&'a str),
}

/// How a level of a pattern stands to a level that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// All of it is in the pattern.
    Covers,
    /// Some of it is.
    Overlaps,
    /// Nothing is.
    Apart,
    /// A placeholder stands for a name that can't be put into a filter.
    Unusable,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let filter = Filter::parse(text, u16::MAX)?;
        if filter.share.is_some() {
            return Err(TopicError::Share);
        }
        let shape = Shape::of(text);
        Ok(Self {
            text: text.into(),
            levels: shape.levels.map(Level::parse).collect(),
            open: shape.open,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether all names of a filter are in it, for an allow. A valid filter, or a name.
    pub fn covers(&self, filter: &str, names: Names<'_>) -> bool {
        let asked = Shape::of(filter);
        if asked.open && !self.open {
            return false;
        }
        let mut levels = asked.levels;
        for (at, level) in self.levels.iter().enumerate() {
            let Some(wanted) = levels.next() else {
                return false;
            };
            if level.fit(at, wanted, names) != Fit::Covers {
                return false;
            }
        }
        self.open || levels.next().is_none()
    }

    /// Whether a filter may have a name that is in it, for a deny. A valid filter, or a name.
    pub fn overlaps(&self, filter: &str, names: Names<'_>) -> bool {
        let asked = Shape::of(filter);
        let mut levels = asked.levels;
        for (at, level) in self.levels.iter().enumerate() {
            let Some(wanted) = levels.next() else {
                // The filter goes on with whatever the pattern wants.
                return asked.open;
            };
            match level.fit(at, wanted, names) {
                Fit::Covers | Fit::Overlaps => {}
                Fit::Apart => return false,
                Fit::Unusable => return true,
            }
        }
        self.open || levels.next().is_none()
    }
}

/// A filter in the form in which two of them can be compared: so many levels, and whether more may follow.
struct Shape<'a, I: Iterator<Item = Asked<'a>>> {
    levels: I,
    open: bool,
}

impl<'a> Shape<'a, std::iter::Empty<Asked<'a>>> {
    fn of(text: &'a str) -> Shape<'a, impl Iterator<Item = Asked<'a>>> {
        // Every name has a level, and one that starts with a slash has two: `#` is `+/#`, and `/#` is `/+/#`. An empty text is no filter.
        let (path, more, open) = match text {
            "#" => ("+", None, true),
            "/#" => ("", Some(Asked::Any), true),
            _ => match text.strip_suffix("/#") {
                Some(path) => (path, None, true),
                None => (text, None, false),
            },
        };
        let levels = path.split('/').map(|level| match level {
            "+" => Asked::Any,
            text => Asked::Text(text),
        });
        Shape {
            levels: levels.chain(more),
            open,
        }
    }
}

impl Level {
    fn parse(level: Asked<'_>) -> Self {
        let Asked::Text(mut rest) = level else {
            return Self::Any;
        };
        let mut pieces = Vec::new();
        let mut text = String::new();
        while let Some(letter) = rest.chars().next() {
            let piece = match rest.as_bytes() {
                [b'%', b'c', ..] => Some(Piece::Client),
                [b'%', b'u', ..] => Some(Piece::User),
                _ => None,
            };
            if let Some(piece) = piece {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(piece);
                rest = &rest[2..];
            } else {
                text.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
        if pieces.is_empty() {
            return Self::Text(text.into());
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        Self::Template(pieces.into())
    }

    fn fit(&self, at: usize, wanted: Asked<'_>, names: Names<'_>) -> Fit {
        // What starts with a wildcard has no names that start with `$` (MQTT 5 section 4.7.2).
        let is_special = |text: &str| at == 0 && text.starts_with('$');
        match (self, wanted) {
            (Self::Any, Asked::Text(text)) if is_special(text) => Fit::Apart,
            (Self::Any, _) => Fit::Covers,
            (Self::Text(text), Asked::Any) if is_special(text) => Fit::Apart,
            (Self::Text(_), Asked::Any) => Fit::Overlaps,
            (Self::Text(text), Asked::Text(wanted)) if **text == *wanted => Fit::Covers,
            (Self::Text(_), Asked::Text(_)) => Fit::Apart,
            (Self::Template(pieces), wanted) => fit_template(pieces, wanted, names, is_special),
        }
    }
}

fn fit_template<'a>(
    pieces: &'a [Piece],
    wanted: Asked<'_>,
    names: Names<'a>,
    is_special: impl Fn(&str) -> bool,
) -> Fit {
    // None: a name that can't be put in.
    let text = |piece: &'a Piece| match piece {
        Piece::Text(text) => Some(&**text),
        Piece::Client => usable(names.client_id).then_some(names.client_id),
        Piece::User => names.user.filter(|user| usable(user)),
    };
    if pieces.iter().any(|piece| text(piece).is_none()) {
        return Fit::Unusable;
    }
    match wanted {
        Asked::Any if pieces.first().and_then(text).is_some_and(is_special) => Fit::Apart,
        Asked::Any => Fit::Overlaps,
        Asked::Text(mut rest) => {
            for piece in pieces {
                match text(piece).and_then(|text| rest.strip_prefix(text)) {
                    Some(after) => rest = after,
                    None => return Fit::Apart,
                }
            }
            if rest.is_empty() {
                Fit::Covers
            } else {
                Fit::Apart
            }
        }
    }
}

/// Whether a name can stand in a filter without changing its shape.
fn usable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('$')
        && !name
            .bytes()
            .any(|byte| matches!(byte, b'+' | b'#' | b'/' | 0))
}
