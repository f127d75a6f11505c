//! Labels: what is said of a node and of who asks, such as `place=fra`, so that phones are sent to what is near them. A name may have several
//! values: a phone may be near two places.

use crate::limits;

/// A few names with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

/// What to write for labels.
pub const WRITTEN: &str = "name=value, both of 1 to 64 letters, digits, '.', '_', '-', ':' or '/'";

/// The text is no label, or one more than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLabel;

impl Labels {
    /// None.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Of `name=value`, one after the other.
    pub fn read<'a>(labels: impl Iterator<Item = &'a str>) -> Result<Self, NoLabel> {
        let mut all = Self::none();
        for label in labels {
            let (name, value) = label.split_once('=').ok_or(NoLabel)?;
            all.add(name, value)?;
        }
        Ok(all)
    }

    /// One more.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), NoLabel> {
        if self.0.len() >= limits::LOOKUP_LABELS || !is_word(name) || !is_word(value) {
            return Err(NoLabel);
        }
        self.0.push((name.into(), value.into()));
        Ok(())
    }

    /// How many of these the others have too, with the same value.
    pub fn in_common(&self, others: &Self) -> usize {
        self.0
            .iter()
            .filter(|label| others.0.contains(label))
            .count()
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn is_word(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    (1..=limits::LOOKUP_LABEL_BYTES).contains(&text.len()) && text.bytes().all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Labels, NoLabel> {
        Labels::read(text.split(','))
    }

    #[test]
    fn what_two_have_in_common_is_counted() {
        let node = read("place=fra,isp=x,rack=3").unwrap();
        for (asker, common) in [
            ("place=fra", 1),
            ("place=fra,isp=x", 2),
            ("place=ams,isp=x", 1),
            ("isp=fra", 0),
        ] {
            assert_eq!(read(asker).unwrap().in_common(&node), common, "{asker}");
        }
        assert_eq!(Labels::none().in_common(&node), 0);
    }

    #[test]
    fn labels_are_few_short_and_plain() {
        let long = format!("place={}", "x".repeat(65));
        let many: Vec<String> = (0..17).map(|n| format!("l{n}=1")).collect();
        for text in [
            "",
            "place",
            "=fra",
            "place=",
            "pla ce=fra",
            "place=\0",
            &long,
            &many.join(","),
        ] {
            assert_eq!(read(text), Err(NoLabel), "{text}");
        }
        assert_eq!(read(&many[..16].join(",")).unwrap().iter().count(), 16);
    }
}
