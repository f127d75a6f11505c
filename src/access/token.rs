//! Tickets: JWTs of our own. What stands in one, and what must be true of it when a client presents it.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::acl::{Rights, RightsClaim};
use super::{Denied, Identity, UnixSeconds, is_tenant};

/// Who issues tickets.
const OURS: &str = "stillwire";

/// The claims of a ticket. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Marks it as ours; a token with another issuer is no ticket.
    pub iss: Ours,
    /// The client id that may connect with it.
    pub sub: String,
    /// The tenant; None: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The user that the signer vouches for, if it does.
    #[serde(default, rename = "usr", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it ends.
    pub exp: u64,
    /// When it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// When it begins, if not when it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Its own id, by which it can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What it allows; None: what the rules for topics allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<RightsClaim>,
}

/// The issuer of tickets: always the same word, and nothing else is read as it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ours;

impl Serialize for Ours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(OURS)
    }
}

impl<'de> Deserialize<'de> for Ours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl serde::de::Visitor<'_> for Word {
            type Value = Ours;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(OURS)
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Ours, E> {
                if word == OURS {
                    Ok(Ours)
                } else {
                    Err(E::custom("another issuer"))
                }
            }
        }
        deserializer.deserialize_str(Word).map_err(D::Error::custom)
    }
}

/// The times of a token against the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) expires: u64,
    pub(super) issued: Option<u64>,
    pub(super) begins: Option<u64>,
}

impl Times {
    /// Whether it is good now, if either clock may be off by `skew` seconds.
    pub(super) fn check(self, UnixSeconds(now): UnixSeconds, skew: u64) -> Result<(), Denied> {
        if now >= self.expires.saturating_add(skew) {
            return Err(Denied::Expired);
        }
        // One from the future was signed by a clock that can't be trusted with the rest either.
        let latest = now.saturating_add(skew);
        if self.issued.is_some_and(|at| at > latest) || self.begins.is_some_and(|at| at > latest) {
            return Err(Denied::BadCredentials);
        }
        Ok(())
    }
}

/// What a ticket with a good signature makes of a client.
pub(super) fn admit(
    claims: Claims,
    client_id: &str,
    now: UnixSeconds,
    skew: u64,
) -> Result<Identity, Denied> {
    let times = Times {
        expires: claims.exp,
        issued: claims.iat,
        begins: claims.nbf,
    };
    times.check(now, skew)?;
    let tenant = claims.app.unwrap_or_default();
    if claims.sub != client_id || !(tenant.is_empty() || is_tenant(&tenant)) {
        return Err(Denied::BadCredentials);
    }
    let rights = match &claims.acl {
        None => None,
        Some(claim) => Some(
            Rights::from_claim(claim)
                .ok_or(Denied::BadCredentials)?
                .into(),
        ),
    };
    Ok(Identity {
        tenant: tenant.into(),
        user: claims.user.map(Into::into),
        rights,
        token: claims.jti.map(Into::into),
        issued: claims.iat.map(UnixSeconds),
        expires: Some(UnixSeconds(claims.exp)),
    })
}

/// Whose token it says it is, on its word alone. None: it is no JWT, or doesn't say.
pub(super) fn issuer(token: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        iss: String,
    }
    let said: Said = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(said.iss)
}

/// Whether that is us.
pub(super) fn is_ours(issuer: &str) -> bool {
    issuer == OURS
}
