//! As whom a connection was admitted, and how that travels to another reactor.

use std::sync::Arc;

use super::UnixSeconds;
use super::acl::Rights;
use crate::limits;

/// As whom a connection was admitted. The default is whoever came to an open server: the default tenant, no name, no rights of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant; empty: the default one.
    pub tenant: Arc<str>,
    /// The user name, where somebody vouches for it.
    pub user: Option<Arc<str>>,
    /// What the token allows, if it says.
    pub rights: Option<Arc<Rights>>,
    /// The token's id (`jti`).
    pub token: Option<Arc<str>>,
    /// When the token was issued.
    pub issued: Option<UnixSeconds>,
    /// When the token ends.
    pub expires: Option<UnixSeconds>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            tenant: Arc::from(""),
            user: None,
            rights: None,
            token: None,
            issued: None,
            expires: None,
        }
    }
}

// The bits of the first byte: which fields follow, in this order. Texts carry a length of two bytes, times are eight bytes, all big endian.
const TENANT: u8 = 1;
const USER: u8 = 2;
const RIGHTS: u8 = 4;
const TOKEN: u8 = 8;
const ISSUED: u8 = 16;
const EXPIRES: u8 = 32;
const ALL: u8 = TENANT | USER | RIGHTS | TOKEN | ISSUED | EXPIRES;

impl Identity {
    /// Whether it fits into [`limits::IDENTITY_BYTES`]; whoever makes one sees to that.
    pub(super) fn fits(&self) -> bool {
        let text = |text: &str| 2 + text.len();
        let optional = |field: &Option<Arc<str>>| field.as_deref().map_or(0, text);
        let rights = self.rights.as_ref().map_or(0, |rights| {
            let patterns = rights.publish.iter().chain(&rights.subscribe);
            2 * 2 + patterns.map(|pattern| text(pattern.text())).sum::<usize>()
        });
        // One byte of bits, and two times of eight.
        let rest = text(&self.tenant) + optional(&self.user) + optional(&self.token);
        1 + 2 * 8 + rights + rest <= limits::IDENTITY_BYTES
    }

    /// Appends it: one byte for the default identity, at most [`limits::IDENTITY_BYTES`] for any that this module has admitted.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bit = |there: bool, bit: u8| if there { bit } else { 0 };
        out.push(
            bit(!self.tenant.is_empty(), TENANT)
                | bit(self.user.is_some(), USER)
                | bit(self.rights.is_some(), RIGHTS)
                | bit(self.token.is_some(), TOKEN)
                | bit(self.issued.is_some(), ISSUED)
                | bit(self.expires.is_some(), EXPIRES),
        );
        if !self.tenant.is_empty() {
            put_text(out, &self.tenant);
        }
        if let Some(user) = &self.user {
            put_text(out, user);
        }
        if let Some(rights) = &self.rights {
            for list in [&rights.publish, &rights.subscribe] {
                out.extend((list.len() as u16).to_be_bytes());
                for pattern in list {
                    put_text(out, pattern.text());
                }
            }
        }
        if let Some(token) = &self.token {
            put_text(out, token);
        }
        for UnixSeconds(time) in [self.issued, self.expires].into_iter().flatten() {
            out.extend(time.to_be_bytes());
        }
    }

    /// Reads one that [`Self::encode`] wrote. None: it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (identity, rest) = Self::decode_from(bytes)?;
        rest.is_empty().then_some(identity)
    }

    /// The same from the start of `bytes`, with what follows it.
    pub fn decode_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&bits, mut rest) = bytes.split_first()?;
        if bits & !ALL != 0 {
            return None;
        }
        let mut identity = Self::default();
        let from = &mut rest;
        if bits & TENANT != 0 {
            identity.tenant = take_text(from)?.into();
        }
        if bits & USER != 0 {
            identity.user = Some(take_text(from)?.into());
        }
        if bits & RIGHTS != 0 {
            let (publish, subscribe) = (take_list(from)?, take_list(from)?);
            let rights = Rights::new(publish.into_iter(), subscribe.into_iter())?;
            identity.rights = Some(Arc::new(rights));
        }
        if bits & TOKEN != 0 {
            identity.token = Some(take_text(from)?.into());
        }
        if bits & ISSUED != 0 {
            identity.issued = Some(take_time(from)?);
        }
        if bits & EXPIRES != 0 {
            identity.expires = Some(take_time(from)?);
        }
        Some((identity, rest))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Nothing longer comes from an MQTT string or a token.
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn take_u16(from: &mut &[u8]) -> Option<u16> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u16::from_be_bytes(*bytes))
}

fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_u16(from)?;
    let (text, rest) = from.split_at_checked(usize::from(len))?;
    *from = rest;
    std::str::from_utf8(text).ok()
}

fn take_list<'a>(from: &mut &'a [u8]) -> Option<Vec<&'a str>> {
    let count = take_u16(from)?;
    (0..count).map(|_| take_text(from)).collect()
}

fn take_time(from: &mut &[u8]) -> Option<UnixSeconds> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(UnixSeconds(u64::from_be_bytes(*bytes)))
}
