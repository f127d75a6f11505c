//! The password file: lines `user:app:$argon2id$…`, as `stillwire passwd` writes them. A user of the default tenant has nothing between the colons.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};

use super::{AccessError, files, is_tenant};
use crate::limits;

/// The users of a file.
#[derive(Debug, Default)]
pub(super) struct Passwords(HashMap<Box<str>, User>);

pub(super) struct User {
    pub(super) tenant: Arc<str>,
    /// As it stands in the file; it has been checked to be one.
    hash: Box<str>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("User").field(&self.tenant).finish()
    }
}

/// Of no password: who is not in the file costs what a wrong password costs, so that the time of an answer names no users.
pub(super) const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RpbGx3aXJlbm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Passwords {
    /// Reads a password file; one without users lets nobody in.
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let mut users = HashMap::new();
        for (number, line) in files::lines(text) {
            let broken = |what: String| {
                AccessError::broken(
                    path,
                    number,
                    format!("{what}; `stillwire passwd` writes such lines"),
                )
            };
            let (name, user) = parse_line(line).map_err(broken)?;
            if users.insert(name.into(), user).is_some() {
                return Err(broken(format!("user {name:?} stands twice")));
            }
        }
        Ok(Self(users))
    }

    /// The user of a name.
    pub(super) fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }
}

impl User {
    /// Whether this is the password. Takes tens of milliseconds.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        verify(&self.hash, password)
    }
}

/// Takes as long as a wrong password, and is one.
pub(super) fn verify_nobody(password: &[u8]) -> bool {
    verify(NOBODY, password) & false
}

fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn parse_line(line: &str) -> Result<(&str, User), String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(tenant), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("a line is user:app:hash".to_owned());
    };
    if name.is_empty() {
        return Err("a user has a name".to_owned());
    }
    if !tenant.is_empty() && !is_tenant(tenant) {
        // What stands there may be a password that somebody has typed.
        return Err("between the colons stands no app key".to_owned());
    }
    check_hash(hash)?;
    let user = User {
        tenant: tenant.into(),
        hash: hash.into(),
    };
    Ok((name, user))
}

/// Whether it is a hash that can be verified, at a cost that a login may have.
fn check_hash(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).map_err(|error| format!("no password hash: {error}"))?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err("not a whole argon2id hash".to_owned());
    }
    let params = Params::try_from(&hash).map_err(|error| format!("no argon2id hash: {error}"))?;
    if params.m_cost() > limits::ARGON2_KIB || params.t_cost() > limits::ARGON2_PASSES {
        return Err(format!(
            "a hash takes {} KiB and {} passes at most",
            limits::ARGON2_KIB,
            limits::ARGON2_PASSES
        ));
    }
    Ok(())
}

/// What a user or an app can't be called in a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// A user name is empty, starts with `#` or a space, ends with a space, or has a colon or a control character in it.
    User,
    /// Not an app key.
    App,
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "a user name is not empty, does not start with #, and has no colon, no control character and no space at its ends",
            Self::App => "an app key has 1 to 32 letters, digits, dashes and underscores",
        })
    }
}

impl std::error::Error for NameError {}

/// Whether a user can stand in a password file.
pub fn check_names(user: &str, app: &str) -> Result<(), NameError> {
    let odd = user.is_empty()
        || user.starts_with('#')
        || user.trim() != user
        || user
            .chars()
            .any(|letter| letter == ':' || letter.is_control());
    if odd {
        return Err(NameError::User);
    }
    if !app.is_empty() && !is_tenant(app) {
        return Err(NameError::App);
    }
    Ok(())
}

/// Sets the password of a user in a file, adding the user, and the file, where they are not there. True: the user was there.
///
/// # Panics
/// If [`check_names`] does not hold.
pub fn set(path: &Path, user: &str, app: &str, password: &[u8]) -> Result<bool, AccessError> {
    assert_eq!(
        check_names(user, app),
        Ok(()),
        "names are checked by the caller"
    );
    let text = match files::text(path) {
        Ok(text) => text,
        Err(AccessError::Unreadable(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => return Err(error),
    };
    Passwords::parse(path, &text)?;
    let hash = Argon2::default()
        .hash_password(password)
        .map_err(|error| AccessError::Random(error.to_string()))?;
    let new = format!("{user}:{app}:{hash}");
    let (mut out, mut was_there) = (String::new(), false);
    for line in text.lines() {
        let is_it =
            !line.trim_start().starts_with('#') && line.trim().split(':').next() == Some(user);
        was_there |= is_it;
        out.push_str(if is_it { &new } else { line });
        out.push('\n');
    }
    if !was_there {
        out.push_str(&new);
        out.push('\n');
    }
    files::replace(path, &out)?;
    Ok(was_there)
}
