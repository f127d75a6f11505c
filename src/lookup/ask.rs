//! What a client asks for: read from a query or from JSON, strictly. What is no MQTT client identifier is no question.

use std::fmt;

use serde::Deserialize;

use super::labels::{self, Labels};
use crate::limits;

/// A question for a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who will connect.
    pub client_id: String,
    /// Of which app; none: the asker's own, or the default one.
    pub app: Option<String>,
    /// Where the client is, and the like.
    pub labels: Labels,
}

/// No question. The asker's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAsk {
    /// There is no client identifier.
    NoClientId,
    /// It is longer than [`limits::LOOKUP_CLIENT_ID_CHARS`], or holds a NUL.
    ClientId,
    /// No name of an app.
    App,
    /// No labels.
    Labels,
    /// A parameter stands twice.
    Twice(&'static str),
    /// What is behind a `%` is no byte, or the bytes are no UTF-8.
    Encoding,
    /// No JSON of the right shape.
    Json,
}

impl fmt::Display for BadAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoClientId => f.write_str("client_id is missing"),
            Self::ClientId => write!(
                f,
                "client_id has 1 to {} characters and no NUL",
                limits::LOOKUP_CLIENT_ID_CHARS
            ),
            Self::App => f.write_str("app has 1 to 32 letters, digits, '_' or '-'"),
            Self::Labels => write!(
                f,
                "labels are up to {} of {}",
                limits::LOOKUP_LABELS,
                labels::WRITTEN
            ),
            Self::Twice(name) => write!(f, "{name} stands twice"),
            Self::Encoding => f.write_str("the query is no percent-encoded UTF-8"),
            Self::Json => f.write_str(
                "the body is a JSON object with client_id, and app and labels if wanted",
            ),
        }
    }
}

/// A body as it is written. What it may have beside is left to later versions.
#[derive(Deserialize)]
struct Body {
    client_id: Option<String>,
    app: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
}

impl Ask {
    /// From the part of a URL behind the `?`. `labels` are divided by commas; written with nothing behind it, they are none.
    pub fn from_query(query: &str) -> Result<Self, BadAsk> {
        let (mut client_id, mut app, mut labels) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (place, name) = match decode(name)?.as_str() {
                "client_id" => (&mut client_id, "client_id"),
                "app" => (&mut app, "app"),
                "labels" => (&mut labels, "labels"),
                _ => continue,
            };
            if place.replace(decode(value)?).is_some() {
                return Err(BadAsk::Twice(name));
            }
        }
        let labels = labels.as_deref().filter(|labels| !labels.is_empty());
        let labels = labels.into_iter().flat_map(|labels| labels.split(','));
        Self::check(client_id, app, labels)
    }

    /// From a body.
    pub fn from_json(body: &[u8]) -> Result<Self, BadAsk> {
        let body: Body = serde_json::from_slice(body).map_err(|_| BadAsk::Json)?;
        Self::check(
            body.client_id,
            body.app,
            body.labels.iter().map(String::as_str),
        )
    }

    fn check<'a>(
        client_id: Option<String>,
        app: Option<String>,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<Self, BadAsk> {
        let client_id = client_id.ok_or(BadAsk::NoClientId)?;
        let length = 1..=limits::LOOKUP_CLIENT_ID_CHARS;
        if !length.contains(&client_id.chars().count()) || client_id.contains('\0') {
            return Err(BadAsk::ClientId);
        }
        if !app.as_deref().is_none_or(is_app) {
            return Err(BadAsk::App);
        }
        let labels = Labels::read(labels).map_err(|_| BadAsk::Labels)?;
        Ok(Self {
            client_id,
            app,
            labels,
        })
    }
}

fn is_app(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(letters)
}

/// A name or value of a query, as forms write it: `+` is a space, `%` and two digits are a byte.
fn decode(text: &str) -> Result<String, BadAsk> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(bytes.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let (high, low) = (digit(), digit());
                high.zip(low)
                    .map(|(high, low)| high << 4 | low)
                    .ok_or(BadAsk::Encoding)?
            }
            plain => plain,
        });
    }
    String::from_utf8(out).map_err(|_| BadAsk::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_and_a_body_ask_the_same() {
        let query =
            Ask::from_query("client_id=phone%2F1+%C3%A9&app=shop&labels=place%3Dfra,isp=x&later=1")
                .unwrap();
        let body = Ask::from_json(
            "{\"client_id\": \"phone/1 \u{e9}\", \"app\": \"shop\", \"labels\": [\"place=fra\", \"isp=x\"], \"later\": 1}".as_bytes(),
        );
        assert_eq!(Ok(query), body);
        for least in ["client_id=a", "client_id=a&labels="] {
            assert_eq!(
                Ask::from_query(least),
                Ok(Ask {
                    client_id: "a".into(),
                    app: None,
                    labels: Labels::none()
                })
            );
        }
    }

    #[test]
    fn what_is_no_question_says_why() {
        let long = format!("client_id={}", "\u{e9}".repeat(257));
        let many = format!(
            "client_id=a&labels={}",
            (0..17)
                .map(|n| format!("l{n}=1"))
                .collect::<Vec<_>>()
                .join(",")
        );
        for (query, want) in [
            ("", BadAsk::NoClientId),
            ("client=a", BadAsk::NoClientId),
            ("client_id=", BadAsk::ClientId),
            ("client_id", BadAsk::ClientId),
            ("client_id=a%00b", BadAsk::ClientId),
            (&long, BadAsk::ClientId),
            ("client_id=%", BadAsk::Encoding),
            ("client_id=%4", BadAsk::Encoding),
            ("client_id=%zz", BadAsk::Encoding),
            ("client_id=%+1", BadAsk::Encoding),
            ("client_id=%FF", BadAsk::Encoding),
            ("client_id=%C0%80", BadAsk::Encoding),
            ("client_id=%ED%A0%80", BadAsk::Encoding),
            ("client_id=a&client_id=b", BadAsk::Twice("client_id")),
            ("client_id=a&client%5Fid=b", BadAsk::Twice("client_id")),
            ("client_id=a&app=", BadAsk::App),
            ("client_id=a&app=a%2Fb", BadAsk::App),
            ("client_id=a&labels=fra", BadAsk::Labels),
            ("client_id=a&labels=,", BadAsk::Labels),
            ("client_id=a&labels=place=fra,", BadAsk::Labels),
            ("client_id=a&labels=place=fra,place=!", BadAsk::Labels),
            (&many, BadAsk::Labels),
        ] {
            assert_eq!(Ask::from_query(query), Err(want), "{query}");
            assert!(!want.to_string().is_empty());
        }
        let deep = format!("{{\"client_id\": {}", "[".repeat(8000));
        for body in [
            "",
            "null",
            "[]",
            "{\"client_id\": 3}",
            "{\"client_id\": \"a\", \"client_id\": \"b\"}",
            "{\"client_id\": \"a\", \"labels\": \"place=fra\"}",
            "{\"client_id\": \"\\ud800\"}",
            "{\"client_id\": \"a\"} x",
            &deep,
        ] {
            assert_eq!(
                Ask::from_json(body.as_bytes()),
                Err(BadAsk::Json),
                "{body:.40}"
            );
        }
        assert_eq!(
            Ask::from_json(b"{\"client_id\": \"\xff\"}"),
            Err(BadAsk::Json)
        );
        assert_eq!(Ask::from_json(b"{}"), Err(BadAsk::NoClientId));
        assert_eq!(
            Ask::from_json(b"{\"client_id\": \"a\\u0000\"}"),
            Err(BadAsk::ClientId)
        );
    }

    proptest! {
        #[test]
        fn every_client_id_comes_through_percent_encoding(id in "[^\0]{1,200}") {
            let encoded: Vec<String> = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let ask = Ask::from_query(&format!("client_id={}", encoded.concat())).unwrap();
            prop_assert_eq!(ask.client_id, id);
        }

        #[test]
        fn nothing_panics(query in ".{0,300}", body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Ask::from_query(&query);
            let _ = Ask::from_json(&body);
        }
    }
}
