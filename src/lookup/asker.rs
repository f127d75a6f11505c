//! Who may ask for a ticket, for which client of which app, and the token that says so.
//!
//! Three ways, of which the configuration names some: `open` (whoever asks), `app` (the app's own back end, by its key and a secret, HTTP Basic),
//! `jwt` (the client itself, by a JWT of the app's identity provider, as bearer). Who presents a credential is judged by it, whatever else is open.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ask::Ask;
use crate::access::keys::token_id;
use crate::access::{Access, Claims, Rights, SignError, UnixSeconds};
use crate::config::resolved::AskMethod;

/// What an asker says about itself (the `Authorization` header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// Nothing.
    None,
    /// An app's key and secret.
    App {
        /// The key.
        key: String,
        /// The secret.
        secret: String,
    },
    /// A JWT.
    Bearer(&'a str),
    /// Something that is neither.
    Unreadable,
}

impl<'a> Credentials<'a> {
    /// From the value of the header.
    pub(super) fn read(value: &'a str) -> Self {
        let Some((scheme, rest)) = value.trim().split_once(' ') else {
            return Self::Unreadable;
        };
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest);
        }
        let pair = || {
            let bytes = STANDARD.decode(rest).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (key, secret) = text.split_once(':')?;
            Some((key.to_owned(), secret.to_owned()))
        };
        match pair() {
            Some((key, secret)) if scheme.eq_ignore_ascii_case("basic") => {
                Self::App { key, secret }
            }
            _ => Self::Unreadable,
        }
    }
}

/// For whom a ticket may be given.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The tenant; empty: the default one.
    pub(super) tenant: Arc<str>,
    /// As whom the identity provider knows it.
    pub(super) user: Option<Arc<str>>,
    /// What the client may do, where its identity provider says.
    pub(super) rights: Option<Arc<Rights>>,
}

/// Why a question gets no answer. The asker erred in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It does not say who it is, or that is not so.
    Unknown,
    /// Its token is bound to another client.
    OtherClient,
    /// It is somebody else's app.
    OtherApp,
    /// There is no such app.
    NoApp,
    /// The client, or its app, is revoked.
    Revoked,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "who asks is not known",
            Self::OtherClient => "client_id is not the asker's own",
            Self::OtherApp => "app is not the asker's own",
            Self::NoApp => "there is no such app",
            Self::Revoked => "the client is revoked",
        })
    }
}

/// Who asks, by what it says about itself.
pub(super) fn check(
    methods: &[AskMethod],
    access: &Access,
    ask: &Ask,
    credentials: &Credentials<'_>,
    unix_millis: u64,
) -> Result<Grant, Refused> {
    let now = UnixSeconds(unix_millis / 1000);
    let is_allowed = |method| methods.contains(&method);
    let asked = ask.app.as_deref();
    let grant = match credentials {
        Credentials::None if is_allowed(AskMethod::Open) => {
            let tenant = asked.unwrap_or_default();
            if !tenant.is_empty() && access.tenant(tenant).is_none() {
                return Err(Refused::NoApp);
            }
            Grant {
                tenant: tenant.into(),
                user: None,
                rights: None,
            }
        }
        Credentials::App { key, secret } if is_allowed(AskMethod::App) => {
            // As in the file, the default tenant is written as a dash.
            let tenant = if key == "-" { "" } else { key };
            if !access.apps().check(tenant, secret) {
                return Err(Refused::Unknown);
            }
            Grant {
                tenant: tenant.into(),
                user: None,
                rights: None,
            }
        }
        Credentials::Bearer(token) if is_allowed(AskMethod::Jwt) => {
            let (identity, client_id) = access
                .bearer_of(token.as_bytes(), now)
                .map_err(|_| Refused::Unknown)?;
            if client_id.is_some_and(|client_id| client_id != ask.client_id) {
                return Err(Refused::OtherClient);
            }
            // What it had before it was revoked can't be traded for something newer.
            let issued = identity.issued.unwrap_or_default();
            if access.is_revoked(&identity.tenant, &ask.client_id, None, Some(issued)) {
                return Err(Refused::Revoked);
            }
            Grant {
                tenant: identity.tenant,
                user: identity.user,
                rights: identity.rights,
            }
        }
        _ => return Err(Refused::Unknown),
    };
    if asked.is_some_and(|asked| *asked != *grant.tenant) {
        return Err(Refused::OtherApp);
    }
    if access.is_revoked(&grant.tenant, &ask.client_id, None, Some(now)) {
        return Err(Refused::Revoked);
    }
    Ok(grant)
}

/// The token of a ticket; none where no key signs.
pub(super) fn token(
    access: &Access,
    ask: &Ask,
    grant: &Grant,
    ttl: u32,
    unix_millis: u64,
) -> Result<Option<String>, SignError> {
    let keys = access.keys();
    if !keys.can_sign() {
        return Ok(None);
    }
    let now = unix_millis / 1000;
    let claims = Claims {
        sub: ask.client_id.clone(),
        app: (!grant.tenant.is_empty()).then(|| grant.tenant.to_string()),
        exp: now + u64::from(ttl),
        iat: Some(now),
        // Without one it can't be revoked by itself, and still be by its client.
        jti: token_id().ok(),
        user: grant.user.as_deref().map(str::to_owned),
        acl: grant.rights.as_ref().map(|rights| rights.to_claim()),
        ..Claims::default()
    };
    keys.sign(&claims).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_asker_says_is_read_strictly() {
        let app = |key: &str, secret: &str| Credentials::App {
            key: key.to_owned(),
            secret: secret.to_owned(),
        };
        for (value, want) in [
            (
                "Basic c2hvcDpzZWNyZXQ6d2l0aDpjb2xvbnM=",
                app("shop", "secret:with:colons"),
            ),
            ("basic   OnM=", app("", "s")),
            ("Bearer a.b.c", Credentials::Bearer("a.b.c")),
            ("BEARER a.b.c", Credentials::Bearer("a.b.c")),
            ("Bearer", Credentials::Unreadable),
            ("", Credentials::Unreadable),
            ("Basic !!!", Credentials::Unreadable),
            ("Basic c2hvcA==", Credentials::Unreadable),
            ("Basic /////w==", Credentials::Unreadable),
            ("Digest c2hvcDpzZWNyZXQ=", Credentials::Unreadable),
        ] {
            assert_eq!(Credentials::read(value), want, "{value}");
        }
    }
}
