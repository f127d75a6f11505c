//! What a durable session leaves in the store: bytes, and back.
//!
//! Four kinds. A *state* is all of a session but its queue; a *note* is one change to it, applied behind the state in the order of writing; a
//! *body* is a message; a *meta* says how one session is to get it. Each begins with its version. Never does I/O, never panics on what it
//! reads: what it can't read is [`Unreadable`], and the caller reports it.
//!
//! Numbers are little-endian. Times are Unix milliseconds, for the process that reads them has another clock.

use crate::topic::SubOptions;
use crate::wire::Qos;

/// The version of all four.
const VERSION: u8 = 1;

/// The bytes are not of this version, or not what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

type Read<T> = Result<T, Unreadable>;

// ---- bodies ----

/// A message as it is stored. Its publisher is not: it has been told, or will send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// As published.
    pub qos: Qos,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// When it stops being worth delivering.
    pub expires: Option<u64>,
    /// When it was published, in Unix seconds; there if queues have an age.
    pub since: Option<u32>,
    /// Tells the message of a durable publisher from all others, at QoS 2: if the server dies before it has said that it has the message, the
    /// client sends it again, and whoever has it already is found by this.
    pub token: Option<u64>,
    /// The topic name.
    pub topic: &'a str,
    /// Properties that are passed on, encoded.
    pub forward: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// Bytes of a body before its topic, at most.
const BODY_HEAD: usize = 2 + 2 + 8 + 4 + 8 + 4;

/// The beginning of a body; topic, forwarded properties and payload follow.
#[derive(Clone, Copy, Debug)]
pub struct BodyHead {
    bytes: [u8; BODY_HEAD],
    len: usize,
}

impl BodyHead {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

const BODY_QOS: u8 = 3;
const BODY_RETAIN: u8 = 4;
const BODY_EXPIRES: u8 = 8;
const BODY_TOKEN: u8 = 16;
const BODY_FORWARD: u8 = 32;
const BODY_SINCE: u8 = 64;

impl<'a> Body<'a> {
    /// What stands before the topic.
    pub fn head(&self) -> BodyHead {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = self.qos as u8
            | flag(self.retain, BODY_RETAIN)
            | flag(self.expires.is_some(), BODY_EXPIRES)
            | flag(self.since.is_some(), BODY_SINCE)
            | flag(self.token.is_some(), BODY_TOKEN)
            | flag(!self.forward.is_empty(), BODY_FORWARD);
        let mut head = BodyHead {
            bytes: [0; BODY_HEAD],
            len: 0,
        };
        head.put(&[VERSION, flags]);
        head.put(&(self.topic.len() as u16).to_le_bytes());
        if let Some(at) = self.expires {
            head.put(&at.to_le_bytes());
        }
        if let Some(since) = self.since {
            head.put(&since.to_le_bytes());
        }
        if let Some(token) = self.token {
            head.put(&token.to_le_bytes());
        }
        if !self.forward.is_empty() {
            head.put(&(self.forward.len() as u32).to_le_bytes());
        }
        head
    }

    /// Its parts, in order; `head` is [`Body::head`].
    pub fn pieces<'b>(&self, head: &'b BodyHead) -> [&'b [u8]; 4]
    where
        'a: 'b,
    {
        [
            head.bytes(),
            self.topic.as_bytes(),
            self.forward,
            self.payload,
        ]
    }

    /// Reads one.
    pub fn read(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let flags = reader.u8()?;
        let topic_len = usize::from(reader.u16()?);
        let expires = reader.when(flags & BODY_EXPIRES != 0, Reader::u64)?;
        let since = reader.when(flags & BODY_SINCE != 0, Reader::u32)?;
        let token = reader.when(flags & BODY_TOKEN != 0, Reader::u64)?;
        let forward_len = reader.when(flags & BODY_FORWARD != 0, Reader::u32)?;
        Ok(Self {
            qos: Qos::from_bits(flags & BODY_QOS).ok_or(Unreadable)?,
            retain: flags & BODY_RETAIN != 0,
            expires,
            since,
            token,
            topic: text(reader.take(topic_len)?)?,
            forward: reader.take(forward_len.unwrap_or(0) as usize)?,
            payload: reader.0,
        })
    }

    /// The token alone, of whatever the bytes are.
    pub fn token_of(bytes: &'a [u8]) -> Option<u64> {
        Self::read(bytes).ok()?.token
    }
}

// ---- metas ----

/// How one session is to get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// QoS 2, else 1: what is sent at QoS 0 is not stored.
    pub twice: bool,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Vec<u32>,
    /// Share name and filter of the shared subscription that chose the session.
    pub group: Option<(Box<str>, Box<str>)>,
}

const META_TWICE: u8 = 1;
const META_RETAIN: u8 = 2;
const META_IDS: u8 = 4;
const META_GROUP: u8 = 8;

/// Bytes of the longest meta: the store has 16 bits for the length.
const META_BYTES: usize = u16::MAX as usize;
/// Bytes of a meta beside its subscription identifiers and names.
const META_HEAD: usize = 1 + 2 + 2 + 2;
/// Subscription identifiers that are stored: as many overlapping filters of one client are no use to anybody.
const META_IDS_MOST: usize = 16_000;
const _: () = assert!(META_HEAD + META_IDS_MOST * size_of::<u32>() <= META_BYTES);

/// What a tag or the first byte of a meta says of the QoS.
pub fn is_twice(tag: u8) -> bool {
    tag & META_TWICE != 0
}

impl Meta {
    /// The two bits that are enough for most.
    pub fn tag(qos: Qos, retain: bool) -> u8 {
        let twice = if qos == Qos::ExactlyOnce {
            META_TWICE
        } else {
            0
        };
        twice | if retain { META_RETAIN } else { 0 }
    }

    /// From those two bits.
    pub fn of_tag(tag: u8) -> Self {
        Self {
            twice: is_twice(tag),
            retain: tag & META_RETAIN != 0,
            ids: Vec::new(),
            group: None,
        }
    }

    /// Appends a meta, which is [`META_BYTES`] long at most: names of a group that are as long as a packet allows are left out, so that the message
    /// goes to no other member should this session end.
    pub fn write(out: &mut Vec<u8>, tag: u8, ids: &[u32], group: Option<(&str, &str)>) {
        let ids = &ids[..ids.len().min(META_IDS_MOST)];
        let before = META_HEAD + size_of_val(ids);
        let group = group.filter(|(group, path)| before + group.len() + path.len() <= META_BYTES);
        let mut first = tag & (META_TWICE | META_RETAIN);
        if !ids.is_empty() {
            first |= META_IDS;
        }
        if group.is_some() {
            first |= META_GROUP;
        }
        out.push(VERSION << 4 | first);
        if !ids.is_empty() {
            put_count(out, ids.len());
            for id in ids {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
        if let Some((group, path)) = group {
            put_text(out, group);
            put_text(out, path);
        }
    }

    /// Reads one.
    pub fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader(bytes);
        let first = reader.u8()?;
        if first >> 4 != VERSION {
            return Err(Unreadable);
        }
        let mut meta = Self::of_tag(first & (META_TWICE | META_RETAIN));
        if first & META_IDS != 0 {
            for _ in 0..reader.u16()? {
                meta.ids.push(reader.u32()?);
            }
        }
        if first & META_GROUP != 0 {
            meta.group = Some((reader.text()?.into(), reader.text()?.into()));
        }
        reader.end()?;
        Ok(meta)
    }
}

// ---- states and notes ----

/// A subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The filter as in SUBSCRIBE, with `$share/{group}/` if it has that.
    pub filter: &'a str,
    /// What was granted.
    pub options: SubOptions,
    /// Subscription identifier.
    pub id: Option<u32>,
}

/// A will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Its QoS.
    pub qos: Qos,
    /// Its RETAIN flag.
    pub retain: bool,
    /// Will delay interval in seconds.
    pub delay: u32,
    /// Message expiry interval in seconds.
    pub expiry: Option<u32>,
    /// The topic name.
    pub topic: &'a str,
    /// Properties that are passed on, encoded.
    pub forward: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// A message that was in doubt when the server died, and that this session had by then. Its publisher sends it again; until that is over this stands
/// in the session's state, since the record of a message that is done may go at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Had<'a> {
    /// See [`Body::token`].
    pub token: u64,
    /// Share name and filter of the shared subscription that chose the session.
    pub group: Option<(&'a str, &'a str)>,
}

/// All of a session but its subscriptions and its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// It is over, but for messages of its queue that go on to others.
    pub ended: bool,
    /// With a connection: session expiry interval in seconds.
    pub expiry: u32,
    /// Without one: when it ends; `u64::MAX`: never.
    pub ends: Option<u64>,
    /// Without one: the first message of its queue that was never sent, if that is known.
    pub unsent: Option<u32>,
    /// The will of its connection, or of the last one while its delay runs.
    pub will: Option<Will<'a>>,
    /// When the delay of its will is over.
    pub will_due: Option<u64>,
    /// QoS 2 messages of the client that it has not released; those with a token were taken, but maybe not by everybody.
    pub incoming: Vec<(u16, Option<u64>)>,
    /// Messages of others in doubt that it had.
    pub had: Vec<Had<'a>>,
}

const CORE_ENDS: u8 = 1;
const CORE_UNSENT: u8 = 2;
const CORE_WILL: u8 = 4;
const CORE_WILL_DUE: u8 = 8;
const CORE_HAD: u8 = 16;
const CORE_ENDED: u8 = 32;

/// Appends a state without its subscriptions, which follow: [`put_subscription`] adds each.
pub fn write_core(out: &mut Vec<u8>, core: &Core<'_>) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(VERSION);
    put_text(out, core.client_id);
    out.push(
        flag(core.ends.is_some(), CORE_ENDS)
            | flag(core.unsent.is_some(), CORE_UNSENT)
            | flag(core.will.is_some(), CORE_WILL)
            | flag(core.will_due.is_some(), CORE_WILL_DUE)
            | flag(!core.had.is_empty(), CORE_HAD)
            | flag(core.ended, CORE_ENDED),
    );
    match core.ends {
        Some(at) => out.extend_from_slice(&at.to_le_bytes()),
        None => out.extend_from_slice(&core.expiry.to_le_bytes()),
    }
    if let Some(unsent) = core.unsent {
        out.extend_from_slice(&unsent.to_le_bytes());
    }
    if let Some(will) = &core.will {
        put_will(out, will);
    }
    if let Some(due) = core.will_due {
        out.extend_from_slice(&due.to_le_bytes());
    }
    put_count(out, core.incoming.len());
    for (id, token) in &core.incoming {
        out.extend_from_slice(&id.to_le_bytes());
        out.push(u8::from(token.is_some()));
        if let Some(token) = token {
            out.extend_from_slice(&token.to_le_bytes());
        }
    }
    if !core.had.is_empty() {
        put_count(out, core.had.len().min(usize::from(u16::MAX)));
        for had in core.had.iter().take(usize::from(u16::MAX)) {
            put_had(out, had);
        }
    }
}

/// A change to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note<'a> {
    /// It has a connection.
    Online {
        /// Session expiry interval in seconds.
        expiry: u32,
        /// The will of the connection.
        will: Option<Will<'a>>,
    },
    /// It has none any more.
    Offline {
        /// When it ends; `u64::MAX`: never.
        ends: u64,
        /// The first message of its queue that was never sent.
        unsent: u32,
        /// When the delay of the will is over; none: there is no will any more.
        will_due: Option<u64>,
    },
    /// Its will has been published.
    WillPublished,
    /// It took a QoS 2 message of the client.
    Took {
        /// The packet identifier.
        id: u16,
        /// See [`Body::token`].
        token: u64,
    },
    /// Everybody has that message.
    Held {
        /// The packet identifier.
        id: u16,
    },
    /// The client has released it, or it was refused.
    Freed {
        /// The packet identifier.
        id: u16,
    },
    /// It had a message that is in doubt.
    Had(Had<'a>),
    /// It is over, but for messages of its queue that go on to others.
    Ended {
        /// The first message of its queue that was never sent.
        unsent: u32,
    },
}

const ONLINE: u8 = 1;
const OFFLINE: u8 = 2;
const WILL_PUBLISHED: u8 = 3;
const TOOK: u8 = 4;
const HELD: u8 = 5;
const FREED: u8 = 6;
const SUBSCRIBED: u8 = 7;
const UNSUBSCRIBED: u8 = 8;
const HAD: u8 = 9;
const ENDED: u8 = 10;

impl Note<'_> {
    /// Appends the note.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Online { expiry, will } => {
                out.push(ONLINE);
                out.extend_from_slice(&expiry.to_le_bytes());
                out.push(u8::from(will.is_some()));
                if let Some(will) = will {
                    put_will(out, will);
                }
            }
            Self::Offline {
                ends,
                unsent,
                will_due,
            } => {
                out.push(OFFLINE);
                out.extend_from_slice(&ends.to_le_bytes());
                out.extend_from_slice(&unsent.to_le_bytes());
                if let Some(due) = will_due {
                    out.extend_from_slice(&due.to_le_bytes());
                }
            }
            Self::WillPublished => out.push(WILL_PUBLISHED),
            Self::Took { id, token } => {
                out.push(TOOK);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&token.to_le_bytes());
            }
            Self::Held { id } => put_id(out, HELD, *id),
            Self::Freed { id } => put_id(out, FREED, *id),
            Self::Had(had) => {
                out.push(HAD);
                put_had(out, had);
            }
            Self::Ended { unsent } => {
                out.push(ENDED);
                out.extend_from_slice(&unsent.to_le_bytes());
            }
        }
    }
}

fn put_id(out: &mut Vec<u8>, kind: u8, id: u16) {
    out.push(kind);
    out.extend_from_slice(&id.to_le_bytes());
}

fn put_had(out: &mut Vec<u8>, had: &Had<'_>) {
    out.extend_from_slice(&had.token.to_le_bytes());
    out.push(u8::from(had.group.is_some()));
    if let Some((group, path)) = had.group {
        put_text(out, group);
        put_text(out, path);
    }
}

/// Begins a note of new or changed subscriptions; [`put_subscription`] adds each.
pub fn begin_subscribed(out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, SUBSCRIBED]);
}

/// Begins a note of subscriptions that have ended; [`put_filter`] adds each.
pub fn begin_unsubscribed(out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, UNSUBSCRIBED]);
}

/// Adds a filter to a note.
pub fn put_filter(out: &mut Vec<u8>, filter: &str) {
    put_text(out, filter);
}

const SUB_NO_LOCAL: u8 = 4;
const SUB_RETAIN_AS_PUBLISHED: u8 = 8;
const SUB_ID: u8 = 16;

/// Adds a subscription to a note.
pub fn put_subscription(out: &mut Vec<u8>, subscription: &Subscription<'_>) {
    let options = subscription.options;
    let mut flags = options.qos;
    if options.no_local {
        flags |= SUB_NO_LOCAL;
    }
    if options.retain_as_published {
        flags |= SUB_RETAIN_AS_PUBLISHED;
    }
    if subscription.id.is_some() {
        flags |= SUB_ID;
    }
    out.push(flags);
    if let Some(id) = subscription.id {
        out.extend_from_slice(&id.to_le_bytes());
    }
    put_text(out, subscription.filter);
}

fn put_will(out: &mut Vec<u8>, will: &Will<'_>) {
    let mut flags = will.qos as u8;
    if will.retain {
        flags |= 4;
    }
    if will.expiry.is_some() {
        flags |= 8;
    }
    out.push(flags);
    out.extend_from_slice(&will.delay.to_le_bytes());
    if let Some(expiry) = will.expiry {
        out.extend_from_slice(&expiry.to_le_bytes());
    }
    put_text(out, will.topic);
    put_bytes(out, will.forward);
    put_bytes(out, will.payload);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u16).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What a note is about, in a word, for who looks at a log.
pub fn note_word(note: &[u8]) -> Option<&'static str> {
    Some(match (note.first()?, note.get(1)?) {
        (&VERSION, &ONLINE) => "online",
        (&VERSION, &OFFLINE) => "offline",
        (&VERSION, &WILL_PUBLISHED) => "will published",
        (&VERSION, &TOOK) => "took",
        (&VERSION, &HELD) => "held",
        (&VERSION, &FREED) => "freed",
        (&VERSION, &SUBSCRIBED) => "subscribed",
        (&VERSION, &UNSUBSCRIBED) => "unsubscribed",
        (&VERSION, &HAD) => "had",
        (&VERSION, &ENDED) => "ended",
        _ => return None,
    })
}

/// Reads the core of a session from its state and the notes behind it.
pub fn read_core<'a>(state: &'a [u8], notes: &[&'a [u8]]) -> Read<Core<'a>> {
    let mut core = state_core(&mut Reader(state))?;
    for note in notes {
        core.apply(note)?;
    }
    Ok(core)
}

/// Reads the subscriptions of a session from its state and the notes behind it. The order is that of the first SUBSCRIBE.
pub fn read_subscriptions<'a>(state: &'a [u8], notes: &[&'a [u8]]) -> Read<Vec<Subscription<'a>>> {
    let mut reader = Reader(state);
    state_core(&mut reader)?;
    let mut found = Vec::new();
    while !reader.0.is_empty() {
        found.push(reader.subscription()?);
    }
    for note in notes {
        let mut reader = Reader(note);
        reader.version()?;
        match reader.u8()? {
            SUBSCRIBED => {
                while !reader.0.is_empty() {
                    let new = reader.subscription()?;
                    match found.iter_mut().find(|old| old.filter == new.filter) {
                        Some(old) => *old = new,
                        None => found.push(new),
                    }
                }
            }
            UNSUBSCRIBED => {
                while !reader.0.is_empty() {
                    let gone = reader.text()?;
                    found.retain(|old| old.filter != gone);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn state_core<'a>(reader: &mut Reader<'a>) -> Read<Core<'a>> {
    reader.version()?;
    let client_id = reader.text()?;
    let flags = reader.u8()?;
    let mut core = Core {
        client_id,
        ended: flags & CORE_ENDED != 0,
        ..Core::default()
    };
    if flags & CORE_ENDS != 0 {
        core.ends = Some(reader.u64()?);
    } else {
        core.expiry = reader.u32()?;
    }
    core.unsent = reader.when(flags & CORE_UNSENT != 0, Reader::u32)?;
    core.will = reader.when(flags & CORE_WILL != 0, Reader::will)?;
    core.will_due = reader.when(flags & CORE_WILL_DUE != 0, Reader::u64)?;
    for _ in 0..reader.u16()? {
        let id = reader.u16()?;
        let has_token = reader.u8()? != 0;
        core.incoming
            .push((id, reader.when(has_token, Reader::u64)?));
    }
    if flags & CORE_HAD != 0 {
        for _ in 0..reader.u16()? {
            core.had.push(reader.had()?);
        }
    }
    Ok(core)
}

impl<'a> Core<'a> {
    fn apply(&mut self, note: &'a [u8]) -> Read<()> {
        let mut reader = Reader(note);
        reader.version()?;
        match reader.u8()? {
            ONLINE => {
                self.expiry = reader.u32()?;
                (self.ends, self.unsent, self.will_due) = (None, None, None);
                let has_will = reader.u8()? != 0;
                self.will = reader.when(has_will, Reader::will)?;
            }
            OFFLINE => {
                self.ends = Some(reader.u64()?);
                self.unsent = Some(reader.u32()?);
                self.will_due = reader.when(!reader.0.is_empty(), Reader::u64)?;
                if self.will_due.is_none() {
                    self.will = None;
                }
            }
            WILL_PUBLISHED => (self.will, self.will_due) = (None, None),
            TOOK => {
                let (id, token) = (reader.u16()?, reader.u64()?);
                self.incoming.retain(|(other, _)| *other != id);
                self.incoming.push((id, Some(token)));
            }
            HELD => {
                let id = reader.u16()?;
                match self.incoming.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, token)) => *token = None,
                    None => self.incoming.push((id, None)),
                }
            }
            FREED => {
                let id = reader.u16()?;
                self.incoming.retain(|(other, _)| *other != id);
            }
            HAD => {
                let had = reader.had()?;
                if !self.had.contains(&had) {
                    self.had.push(had);
                }
            }
            ENDED => {
                let unsent = Some(reader.u32()?);
                (self.ended, self.ends, self.unsent) = (true, Some(u64::MAX), unsent);
                (self.will, self.will_due) = (None, None);
                self.incoming.clear();
            }
            // The other half of the session.
            SUBSCRIBED | UNSUBSCRIBED => return Ok(()),
            _ => return Err(Unreadable),
        }
        reader.end()
    }
}

/// Reads what was written, front to back.
struct Reader<'a>(&'a [u8]);

fn text(bytes: &[u8]) -> Read<&str> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable)
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Unreadable)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Read<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn when<T>(&mut self, there: bool, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if there {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    fn text(&mut self) -> Read<&'a str> {
        let len = usize::from(self.u16()?);
        text(self.take(len)?)
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn version(&mut self) -> Read<()> {
        if self.u8()? == VERSION {
            Ok(())
        } else {
            Err(Unreadable)
        }
    }

    fn end(&self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Unreadable)
        }
    }

    fn had(&mut self) -> Read<Had<'a>> {
        let token = self.u64()?;
        let in_group = self.u8()? != 0;
        let group = self.when(in_group, |reader| Ok((reader.text()?, reader.text()?)))?;
        Ok(Had { token, group })
    }

    fn subscription(&mut self) -> Read<Subscription<'a>> {
        let flags = self.u8()?;
        let id = self.when(flags & SUB_ID != 0, Self::u32)?;
        if flags & 3 == 3 {
            return Err(Unreadable);
        }
        Ok(Subscription {
            filter: self.text()?,
            options: SubOptions {
                qos: flags & 3,
                no_local: flags & SUB_NO_LOCAL != 0,
                retain_as_published: flags & SUB_RETAIN_AS_PUBLISHED != 0,
            },
            id,
        })
    }

    fn will(&mut self) -> Read<Will<'a>> {
        let flags = self.u8()?;
        let delay = self.u32()?;
        let expiry = self.when(flags & 8 != 0, Self::u32)?;
        Ok(Will {
            qos: Qos::from_bits(flags & 3).ok_or(Unreadable)?,
            retain: flags & 4 != 0,
            delay,
            expiry,
            topic: self.text()?,
            forward: self.bytes()?,
            payload: self.bytes()?,
        })
    }
}

#[cfg(test)]
mod tests;
