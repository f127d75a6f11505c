//! The properties of a PUBLISH that the server passes on unaltered (MQTT 5 sections 3.3.2.3.2 to 3.3.2.3.9).

use std::fmt;

use super::super::primitive::{Reader, varint};
use super::{Property, UserProperties, Walk, put_some};

/// Payload format, content type, response topic, correlation data, user properties: as bits by identifier.
pub(super) const MASK: u64 = 1 << 0x01 | 1 << 0x03 | 1 << 0x08 | 1 << 0x09 | 1 << 0x26;

/// The pass-through properties of a message, in the order in which they came.
#[derive(Clone, Copy, Default)]
pub struct Forward<'a> {
    /// A block of well-formed properties.
    raw: &'a [u8],
    /// Bytes of those that are passed on; all of `raw`, mostly.
    len: usize,
}

impl<'a> Forward<'a> {
    /// From what [`Forward::copy_to`] or [`ForwardFields::encode`] wrote.
    pub fn from_encoded(raw: &'a [u8]) -> Self {
        Self {
            raw,
            len: raw.len(),
        }
    }

    /// From a block in which other properties stand as well; `len` bytes of it are to be passed on.
    pub(super) fn from_block(raw: &'a [u8], len: usize) -> Self {
        Self { raw, len }
    }

    /// True if there is nothing to pass on.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that [`Forward::copy_to`] will write.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends the pass-through properties, encoded, without a length before them.
    #[inline]
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        if self.len == self.raw.len() {
            out.extend_from_slice(self.raw);
        } else if self.len > 0 {
            spans(self.raw).for_each(|span| out.extend_from_slice(span));
        }
    }

    /// Payload format indicator; true: the payload is UTF-8.
    pub fn payload_format(&self) -> Option<bool> {
        self.find(|property| {
            if let Property::PayloadFormat(text) = property {
                Some(text)
            } else {
                None
            }
        })
    }

    /// Content type.
    pub fn content_type(&self) -> Option<&'a str> {
        self.find(|property| {
            if let Property::ContentType(text) = property {
                Some(text)
            } else {
                None
            }
        })
    }

    /// Response topic.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.find(|property| {
            if let Property::ResponseTopic(topic) = property {
                Some(topic)
            } else {
                None
            }
        })
    }

    /// Correlation data.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.find(|property| {
            if let Property::CorrelationData(data) = property {
                Some(data)
            } else {
                None
            }
        })
    }

    /// User properties.
    pub fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_block(self.raw)
    }

    fn find<T>(&self, pick: impl FnMut(Property<'a>) -> Option<T>) -> Option<T> {
        Walk(Reader(self.raw)).find_map(pick)
    }
}

/// The pass-through properties of `raw`, each as its bytes. They have been read before, so that only their lengths are looked at.
fn spans(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        loop {
            let (&id, after) = rest.split_first()?;
            let (span, tail) = rest.split_at_checked(1 + value_len(id, after)?)?;
            rest = tail;
            if MASK & (1 << id) != 0 {
                return Some(span);
            }
        }
    })
}

/// Bytes of the value of property `id`, which `bytes` begins with. For the properties of PUBLISH and of a will; `None` for others.
fn value_len(id: u8, bytes: &[u8]) -> Option<usize> {
    let counted = |at: usize| Some(at + 2 + usize::from(Reader(bytes.get(at..)?).u16().ok()?));
    match id {
        0x01 => Some(1),
        0x23 => Some(2),
        0x02 | 0x18 => Some(4),
        0x03 | 0x08 | 0x09 => counted(0),
        0x0B => varint(bytes).ok()?.map(|(_, len)| len),
        0x26 => counted(counted(0)?),
        _ => None,
    }
}

impl PartialEq for Forward<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && spans(self.raw).eq(spans(other.raw))
    }
}

impl Eq for Forward<'_> {}

impl fmt::Debug for Forward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("payload_format", &self.payload_format())
            .field("content_type", &self.content_type())
            .field("response_topic", &self.response_topic())
            .field("correlation_data", &self.correlation_data())
            .field("user_properties", &self.user_properties())
            .finish()
    }
}

/// The pass-through properties one by one, for who makes a message: a test, the load generator, the server's own topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardFields<'a> {
    /// Payload format indicator; true: the payload is UTF-8.
    pub payload_format: Option<bool>,
    /// Content type.
    pub content_type: Option<&'a str>,
    /// Response topic.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl ForwardFields<'_> {
    /// Appends them encoded, fit for [`Forward::from_encoded`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_some(out, self.payload_format, Property::PayloadFormat);
        put_some(out, self.content_type, Property::ContentType);
        put_some(out, self.response_topic, Property::ResponseTopic);
        put_some(out, self.correlation_data, Property::CorrelationData);
        self.user_properties.put(out);
    }
}
