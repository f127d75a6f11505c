//! `tools store dump`: the records of the logs, a line of JSON each.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use stillwire::session::durable::{self, Body, Core, Meta};
use stillwire::store::fan;
use stillwire::store::format::Kind;
use stillwire::store::log::{Log, Record};

use super::StoreError;

/// Which records.
pub(super) struct Filter<'a> {
    /// A client identifier, or an index.
    pub(super) session: Option<&'a str>,
    pub(super) topic: Option<&'a str>,
}

pub(super) fn run(dir: &Path, filter: &Filter<'_>, out: &mut impl Write) -> Result<(), StoreError> {
    for opened in super::open(dir)?.logs {
        let log = &opened.log;
        let chosen = Chosen::find(log, filter);
        for damage in &opened.damage {
            writeln!(out, "{}", json!({"damage": damage.to_string()}))?;
        }
        for item in log.records() {
            let line = match item {
                Ok(record) => chosen.line(&record),
                Err(damage) => Some(json!({"damage": damage.to_string()})),
            };
            if let Some(line) = line {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}

/// What the filter means in a log.
struct Chosen<'a> {
    reactor: u32,
    /// Index and serial; none: all.
    sessions: Option<HashSet<(u32, u32)>>,
    /// Any serial of this index.
    index: Option<u32>,
    topic: Option<&'a str>,
    /// Ids of shared bodies with that topic.
    bodies: HashSet<u64>,
}

impl<'a> Chosen<'a> {
    fn find(log: &Log, filter: &Filter<'a>) -> Self {
        let mut chosen = Self {
            reactor: log.reactor(),
            sessions: filter.session.map(|_| HashSet::new()),
            index: filter.session.and_then(|session| session.parse().ok()),
            topic: filter.topic,
            bodies: HashSet::new(),
        };
        if filter.session.is_none() && filter.topic.is_none() {
            return chosen;
        }
        for record in log.records().filter_map(Result::ok) {
            match record.header.kind {
                Kind::State => {
                    let client = durable::read_core(record.payload, &[]).ok();
                    if client.is_some_and(|core| filter.session == Some(core.client_id))
                        && let Some(sessions) = &mut chosen.sessions
                    {
                        sessions.insert((record.header.session, record.header.serial));
                    }
                }
                Kind::Body => {
                    if let Some((id, body)) = fan::id_and_rest(record.payload)
                        && chosen.is_topic(body)
                    {
                        chosen.bodies.insert(id);
                    }
                }
                _ => {}
            }
        }
        chosen
    }

    fn is_session(&self, idx: u32, serial: u32) -> bool {
        let Some(sessions) = &self.sessions else {
            return true;
        };
        sessions.contains(&(idx, serial)) || self.index == Some(idx)
    }

    /// Whether this message has the topic.
    fn is_topic(&self, body: &[u8]) -> bool {
        let Some(topic) = self.topic else { return true };
        Body::read(body).is_ok_and(|body| body.topic == topic)
    }

    fn is_body(&self, id: u64) -> bool {
        self.topic.is_none() || self.bodies.contains(&id)
    }

    /// The record's line, if it is wanted.
    fn line(&self, record: &Record<'_>) -> Option<Value> {
        let header = record.header;
        let kind = header.kind;
        let is_of_session = !matches!(
            kind,
            Kind::Body | Kind::Fan | Kind::Value | Kind::Forget | Kind::Seal
        );
        let mut line = Map::new();
        let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
        put("reactor", self.reactor.into());
        put("position", record.at.0.into());
        put("kind", format!("{kind:?}").to_lowercase().into());
        if is_of_session {
            if !self.is_session(header.session, header.serial) {
                return None;
            }
            put("session", header.session.into());
            put("serial", header.serial.into());
        } else if self.sessions.is_some() && kind != Kind::Fan {
            return None;
        }
        let payload = record.payload;
        match kind {
            Kind::State | Kind::Note | Kind::End | Kind::Received | Kind::Done
                if self.topic.is_some() =>
            {
                return None;
            }
            Kind::State => state(&mut line, payload),
            Kind::Note => note(&mut line, payload),
            Kind::Message => {
                let (meta, body) = payload.split_at_checked(header.aux.into())?;
                if !self.is_topic(body) {
                    return None;
                }
                put("seq", header.seq.into());
                put_meta(&mut line, meta);
                put_body(&mut line, body);
            }
            Kind::Reference => {
                let (id, meta) = fan::id_and_rest(payload)?;
                if !self.is_body(id) {
                    return None;
                }
                put("seq", header.seq.into());
                put("body", id.into());
                put_meta(&mut line, meta);
            }
            Kind::Received | Kind::Done => {
                put("seq", header.seq.into());
            }
            Kind::Body => {
                let (id, body) = fan::id_and_rest(payload)?;
                if !self.is_topic(body) {
                    return None;
                }
                put("body", id.into());
                put_body(&mut line, body);
            }
            Kind::Fan => {
                let (id, entries) = fan::decode(payload)?;
                let entries: Vec<Value> = entries
                    .filter(|it| self.is_session(it.session.idx.0, it.session.serial))
                    .map(|it| {
                        let meta = Meta::of_tag(it.tag);
                        json!({
                            "session": it.session.idx.0, "serial": it.session.serial, "seq": it.seq,
                            "qos": if meta.twice { 2 } else { 1 }, "retain": meta.retain,
                        })
                    })
                    .collect();
                if entries.is_empty() || !self.is_body(id) {
                    return None;
                }
                put("body", id.into());
                put("entries", entries.into());
            }
            Kind::Value | Kind::Forget => {
                let key = if kind == Kind::Value {
                    payload.get(..usize::from(header.aux))?
                } else {
                    payload
                };
                let topic = String::from_utf8_lossy(key);
                if self.topic.is_some_and(|wanted| wanted != topic) {
                    return None;
                }
                put("topic", topic.into());
                if kind == Kind::Value {
                    put_body(&mut line, &payload[key.len()..]);
                }
            }
            Kind::End | Kind::Seal => {}
        }
        Some(line.into())
    }
}

fn state(line: &mut Map<String, Value>, payload: &[u8]) {
    let read = durable::read_core(payload, &[]);
    let (Ok(core), Ok(subscriptions)) = (read, durable::read_subscriptions(payload, &[])) else {
        put_bytes(line, "state", payload);
        return;
    };
    line.insert("client".to_owned(), core.client_id.into());
    put_core(line, &core);
    let filters: Vec<&str> = subscriptions.iter().map(|it| it.filter).collect();
    line.insert("subscriptions".to_owned(), filters.into());
}

fn note(line: &mut Map<String, Value>, payload: &[u8]) {
    let Some(word) = durable::note_word(payload) else {
        put_bytes(line, "note", payload);
        return;
    };
    line.insert("note".to_owned(), word.into());
    // What it does to a session of which nothing else is known.
    let mut blank = Vec::new();
    durable::write_core(&mut blank, &Core::default());
    if let Ok(core) = durable::read_core(&blank, &[payload]) {
        put_core(line, &core);
    }
    let subscriptions = durable::read_subscriptions(&blank, &[payload]).unwrap_or_default();
    if !subscriptions.is_empty() {
        let filters: Vec<&str> = subscriptions.iter().map(|it| it.filter).collect();
        line.insert("subscriptions".to_owned(), filters.into());
    }
}

fn put_core(line: &mut Map<String, Value>, core: &Core<'_>) {
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    if core.expiry > 0 {
        put("expiry_seconds", core.expiry.into());
    }
    match core.ends {
        Some(u64::MAX) => drop(put("ends_unix_ms", "never".into())),
        Some(ends) => drop(put("ends_unix_ms", ends.into())),
        None => {}
    }
    if let Some(unsent) = core.unsent {
        put("unsent_from", unsent.into());
    }
    if let Some(will) = &core.will {
        put("will_topic", will.topic.into());
    }
    if !core.incoming.is_empty() {
        let ids: Vec<u16> = core.incoming.iter().map(|(id, _)| *id).collect();
        put("unreleased", ids.into());
    }
}

fn put_meta(line: &mut Map<String, Value>, meta: &[u8]) {
    let Ok(read) = Meta::read(meta) else {
        put_bytes(line, "meta", meta);
        return;
    };
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("deliver_qos", if read.twice { 2 } else { 1 }.into());
    if read.retain {
        put("deliver_retain", true.into());
    }
    if !read.ids.is_empty() {
        put("subscription_ids", read.ids.into());
    }
    if let Some((group, filter)) = read.group {
        put("share", format!("$share/{group}/{filter}").into());
    }
}

fn put_body(line: &mut Map<String, Value>, bytes: &[u8]) {
    let Ok(body) = Body::read(bytes) else {
        put_bytes(line, "message", bytes);
        return;
    };
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("topic", body.topic.into());
    put("qos", (body.qos as u8).into());
    if body.retain {
        put("retain", true.into());
    }
    if let Some(at) = body.expires {
        put("expires_unix_ms", at.into());
    }
    if let Some(token) = body.token {
        put("token", token.into());
    }
    put_bytes(line, "payload", body.payload);
}

/// Text as text, anything else as hexadecimal digits under a name that says so.
fn put_bytes(line: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        line.insert(key.to_owned(), text.into());
        return;
    }
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        _ = write!(hex, "{byte:02x}");
    }
    line.insert(format!("{key}_hex"), hex.into());
}
