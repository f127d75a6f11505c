//! Who may come in, as whom, and what they may do: tickets, other issuers' tokens, passwords, rules for topics, tenants, revocation.
//!
//! | file | what it owns |
//! |---|---|
//! | [`token`], [`keys`] | tickets: their claims, the keys that sign and verify them |
//! | `jwt` | issuers whose JWTs are taken |
//! | [`passwords`] | users, and hashes of their passwords |
//! | [`apps`] | tenants, their secrets and limits |
//! | [`acl`], [`pattern`] | rules for topics, and the sets of topics they are about |
//! | `revoked` | who is out |
//! | [`identity`] | as whom somebody was admitted |
//! | [`throttle`] | who comes too often |
//! | `files` | the only place that reads and writes files |
//!
//! An [`Access`] is an immutable snapshot of all files: reactors read it without a lock, and a reload puts another one in its place, or none if a
//! file is broken. Nothing here knows a socket or an MQTT packet, or reads a clock. What takes long is a [`Question`], for the gate.

pub mod acl;
pub mod apps;
mod error;
mod files;
pub mod identity;
mod jwt;
pub mod keys;
pub mod passwords;
pub mod pattern;
mod revoked;
#[cfg(test)]
mod tests;
pub mod throttle;
pub mod token;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::config::resolved::{self, Method};
use crate::limits;
pub use crate::topic::scope::is_tenant;

use acl::Acl;
use jwt::{Bearer, Issuers};
use passwords::Passwords;
use pattern::Names;
use revoked::Revoked;

pub use acl::{Rights, RightsClaim};
pub use apps::{App, AppLimits, Apps};
pub use error::AccessError;
pub use identity::Identity;
pub use keys::{Keys, SignError};
pub use throttle::{RetryAfter, Throttle};
pub use token::Claims;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// What a client presents.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Its client id, the assigned one where it has none.
    pub client_id: &'a str,
    /// Its user name.
    pub user: Option<&'a str>,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Where it calls from.
    pub address: IpAddr,
}

/// What is said to credentials.
#[derive(Debug)]
pub enum Decision {
    /// Come in.
    Admit(Identity),
    /// Stay out.
    Refuse(Denied),
    /// The gate has to say.
    Ask(Question),
}

/// Why somebody stays out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// The client erred: no credentials, wrong ones, or those of another.
    BadCredentials,
    /// The client is who it says, and may not come in: its tenant is not known here.
    NotAuthorized,
    /// The operator has revoked its token, client id or tenant.
    Revoked,
    /// Its token has ended; a new one will do.
    Expired,
    /// We can't say: the hook did not answer, or the gate is full. Later, it may be another answer.
    Unavailable,
}

/// What the gate has to find out. Owned: the connection's buffer is gone by then.
pub struct Question {
    /// The client id.
    pub client_id: Box<str>,
    /// The user name.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<[u8]>>,
    /// Where the client calls from.
    pub address: IpAddr,
    /// Who answers it.
    pub to: Asked,
}

/// Who answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The password file, slowly.
    Passwords,
    /// The HTTP hook.
    Hook,
}

/// As whom somebody acts. Names and topics have no tenant's prefix here.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The tenant; empty: the default one.
    pub tenant: &'a str,
    /// The client id.
    pub client_id: &'a str,
    /// The user name that somebody vouches for.
    pub user: Option<&'a str>,
    /// The token's rights.
    pub rights: Option<&'a Rights>,
}

/// What somebody wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish to it.
    Publish,
    /// Be given a message of it.
    Receive,
}

/// All that is known of who may do what.
#[derive(Debug, Default)]
pub struct Access {
    methods: Vec<Method>,
    keys: Keys,
    apps: Apps,
    /// There is an apps file: only those in it are tenants.
    only_known: bool,
    passwords: Passwords,
    issuers: Issuers,
    acl: Option<Acl>,
    revoked: Revoked,
    skew: u64,
}

impl Access {
    /// Reads all files. The first one that is broken is the error, and then nothing is taken.
    pub fn load(config: &resolved::Access, auth: &[Method]) -> Result<Self, AccessError> {
        fn read<T>(
            path: &Path,
            read: fn(&Path) -> Result<T, AccessError>,
        ) -> Result<Option<T>, AccessError> {
            let is_named = !path.as_os_str().is_empty();
            is_named.then(|| read(path)).transpose()
        }
        Ok(Self {
            methods: auth.to_vec(),
            keys: read(&config.keys, Keys::read)?.unwrap_or_default(),
            apps: read(&config.apps, Apps::read)?.unwrap_or_default(),
            only_known: !config.apps.as_os_str().is_empty(),
            passwords: read(&config.passwords, Passwords::read)?.unwrap_or_default(),
            issuers: read(&config.issuers, Issuers::read)?.unwrap_or_default(),
            acl: read(&config.acl, Acl::read)?,
            revoked: read(&config.revoked, Revoked::read)?.unwrap_or_default(),
            skew: u64::from(config.clock_skew),
        })
    }

    /// Whether somebody may come in, as whom, or who has to be asked. Takes no lock, and microseconds.
    ///
    /// A credential that a method recognises as its own and finds wrong is refused, whatever other methods there are.
    pub fn authenticate(&self, c: &Credentials<'_>, now: UnixSeconds) -> Decision {
        if self.methods == [Method::Open] {
            // Nobody is asked for credentials, so nobody's are wrong.
            return self.admit_open(c.client_id);
        }
        if let Some(password) = c.password
            && let Some(verdict) = self.bearer(c.client_id, password, now)
        {
            return match verdict.and_then(|identity| self.admit(c.client_id, identity)) {
                Ok(identity) => Decision::Admit(identity),
                Err(denied) => Decision::Refuse(denied),
            };
        }
        let (files, hook) = (self.has(Method::PasswordFile), self.has(Method::Http));
        let is_user = c
            .user
            .is_some_and(|user| self.passwords.get(user).is_some());
        match (c.user, c.password) {
            (None, None) if self.has(Method::Open) => self.admit_open(c.client_id),
            (Some(_), None) if files && is_user => Decision::Refuse(Denied::BadCredentials),
            // A name that is not in the file is looked up all the same, so that it takes as long.
            (Some(_), Some(_)) if files && (is_user || !hook) => {
                Decision::Ask(Question::new(c, Asked::Passwords))
            }
            _ if hook => Decision::Ask(Question::new(c, Asked::Hook)),
            (_, None) if self.has(Method::Open) => self.admit_open(c.client_id),
            _ => Decision::Refuse(Denied::BadCredentials),
        }
    }

    /// What a password is worth as a token. None: it is none, or nobody's that is known here.
    fn bearer(
        &self,
        client_id: &str,
        password: &[u8],
        now: UnixSeconds,
    ) -> Option<Result<Identity, Denied>> {
        let (tickets, others) = (self.has(Method::Ticket), self.has(Method::Jwt));
        if !(tickets || others) || password.len() > limits::TOKEN_BYTES {
            return None;
        }
        if tickets && let Some(claims) = self.keys.verify(password) {
            return Some(token::admit(claims, client_id, now, self.skew));
        }
        let issuer = token::issuer(password)?;
        if token::is_ours(&issuer) {
            return tickets.then_some(Err(Denied::BadCredentials));
        }
        if !(others && self.issuers.knows(&issuer)) {
            return None;
        }
        let verified = self.issuers.verify(password, &issuer, now, self.skew);
        Some(verified.and_then(
            |Bearer {
                 identity,
                 client_id: of,
             }| {
                let is_its = of.is_none_or(|of| of == client_id);
                is_its.then_some(identity).ok_or(Denied::BadCredentials)
            },
        ))
    }

    /// Whom a JWT of another issuer speaks for, if it is good: its tenant, and the client id that it is bound to, if it is to one. For the lookup.
    pub fn bearer_of(
        &self,
        token: &[u8],
        now: UnixSeconds,
    ) -> Result<(Identity, Option<String>), Denied> {
        let issuer = token::issuer(token).filter(|_| token.len() <= limits::TOKEN_BYTES);
        let issuer = issuer
            .filter(|issuer| self.issuers.knows(issuer))
            .ok_or(Denied::BadCredentials)?;
        let bearer = self.issuers.verify(token, &issuer, now, self.skew)?;
        let identity = self.admit(
            bearer.client_id.as_deref().unwrap_or_default(),
            bearer.identity,
        )?;
        Ok((identity, bearer.client_id))
    }

    /// Answers a question about a password. Takes as long as argon2 does: for the gate's threads.
    pub fn check_password(&self, question: &Question) -> Result<Identity, Denied> {
        let name = question.user.as_deref().unwrap_or_default();
        let password = question.password.as_deref().unwrap_or_default();
        let user = self.passwords.get(name);
        let is_right = user.map_or_else(
            || passwords::verify_nobody(password),
            |user| user.verify(password),
        );
        let user = user.filter(|_| is_right).ok_or(Denied::BadCredentials)?;
        let identity = Identity {
            tenant: user.tenant.clone(),
            user: Some(name.into()),
            ..Identity::default()
        };
        self.admit(&question.client_id, identity)
    }

    /// What the hook's yes makes of a client.
    pub fn admit_hooked(
        &self,
        question: &Question,
        said: &Hooked,
        now: UnixSeconds,
    ) -> Result<Identity, Denied> {
        let expires = said.expires.map(UnixSeconds);
        if expires.is_some_and(|end| end <= now) {
            return Err(Denied::Expired);
        }
        let rights = match &said.acl {
            None => None,
            Some(claim) => Some(Rights::from_claim(claim).ok_or(Denied::Unavailable)?.into()),
        };
        let tenant = said.tenant.as_deref().unwrap_or_default();
        if !tenant.is_empty() && !is_tenant(tenant) {
            return Err(Denied::Unavailable);
        }
        let identity = Identity {
            tenant: tenant.into(),
            user: said
                .user
                .as_deref()
                .or(question.user.as_deref())
                .map(Into::into),
            rights,
            token: None,
            issued: None,
            expires,
        };
        self.admit(&question.client_id, identity)
    }

    fn admit_open(&self, client_id: &str) -> Decision {
        match self.admit(client_id, Identity::default()) {
            Ok(identity) => Decision::Admit(identity),
            Err(denied) => Decision::Refuse(denied),
        }
    }

    /// The last word on somebody whose credentials are good.
    fn admit(&self, client_id: &str, identity: Identity) -> Result<Identity, Denied> {
        let (tenant, token) = (&*identity.tenant, identity.token.as_deref());
        if !self.knows_tenant(tenant) || !identity.fits() {
            return Err(Denied::NotAuthorized);
        }
        if self.is_revoked(tenant, client_id, token, identity.issued) {
            return Err(Denied::Revoked);
        }
        Ok(identity)
    }

    fn has(&self, method: Method) -> bool {
        self.methods.contains(&method)
    }

    /// Whether nobody is asked who they are: whoever comes is let in, as nobody in particular.
    pub fn is_open(&self) -> bool {
        self.methods == [Method::Open] && self.revoked.is_empty()
    }

    /// Whether a tenant is one of this server's.
    pub fn knows_tenant(&self, name: &str) -> bool {
        !self.only_known || self.apps.get(name).is_some()
    }

    /// Whether anything is asked of topics at all. False: everything is allowed.
    pub fn checks(&self, rights: Option<&Rights>) -> bool {
        self.acl.is_some() || rights.is_some()
    }

    /// Whether somebody may publish to a topic, or be given a message of it. `topic` is a valid name.
    pub fn may(&self, who: &Who<'_>, action: Action, topic: &str) -> bool {
        match (&self.acl, who.rights) {
            (Some(acl), _) => acl.allows(who, action, topic),
            (None, Some(rights)) => acl::rights_allow(rights, who, action, topic),
            (None, None) => true,
        }
    }

    /// Whether somebody may subscribe to a filter: a rule allows all that it matches, and none denies any of it. `filter` is a valid one, without
    /// `$share/{group}/`.
    pub fn may_subscribe(&self, who: &Who<'_>, filter: &str) -> bool {
        self.may(who, Action::Receive, filter)
    }

    /// Whether a token, a client or a tenant is out.
    pub fn is_revoked(
        &self,
        tenant: &str,
        client_id: &str,
        token: Option<&str>,
        issued: Option<UnixSeconds>,
    ) -> bool {
        self.revoked.has(tenant, client_id, token, issued)
    }

    /// A tenant of the apps file, with its limits.
    pub fn tenant(&self, name: &str) -> Option<&App> {
        self.apps.get(name)
    }

    /// The keys that sign and verify tickets.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The tenants; none of them where there is no apps file.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }
}

/// What the hook says of somebody it lets in.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Hooked {
    /// The tenant; None: the default one.
    pub tenant: Option<String>,
    /// The user name, if not the one that was presented.
    pub user: Option<String>,
    /// When this ends, in seconds since 1970.
    pub expires: Option<u64>,
    /// What is allowed; None: what the rules for topics allow.
    pub acl: Option<RightsClaim>,
}

impl Question {
    fn new(c: &Credentials<'_>, to: Asked) -> Self {
        Self {
            client_id: c.client_id.into(),
            user: c.user.map(Into::into),
            password: c.password.map(Into::into),
            address: c.address,
            to,
        }
    }
}

impl<'a> Who<'a> {
    /// A client that was admitted as `identity`.
    pub fn new(client_id: &'a str, identity: &'a Identity) -> Self {
        Self {
            tenant: &identity.tenant,
            client_id,
            user: identity.user.as_deref(),
            rights: identity.rights.as_deref(),
        }
    }

    fn names(&self) -> Names<'a> {
        Names {
            client_id: self.client_id,
            user: self.user,
        }
    }
}

// No password is printed, whatever asks for it.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credentials({:?}, {:?}, {})",
            self.client_id, self.user, self.address
        )
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Question({:?}, {:?}, {:?})",
            self.client_id, self.user, self.to
        )
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadCredentials => "wrong credentials, or none",
            Self::NotAuthorized => "not authorized",
            Self::Revoked => "revoked",
            Self::Expired => "token has ended",
            Self::Unavailable => "authentication is not available",
        })
    }
}
