//! Who is out before a token ends: lines `token JTI`, `client APP/CLIENT [before UNIX]` and `app APP [before UNIX]`, with `-` for the default
//! tenant. With a time, only what was issued before it is out; what does not say when it was issued counts as older.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::{AccessError, UnixSeconds, files, is_tenant};

/// Everything that is out.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    tokens: HashSet<Box<str>>,
    /// By tenant, then by client id: what was issued before this.
    clients: HashMap<Box<str>, HashMap<Box<str>, UnixSeconds>>,
    apps: HashMap<Box<str>, UnixSeconds>,
}

/// Whatever it was issued.
const ALWAYS: UnixSeconds = UnixSeconds(u64::MAX);

impl Revoked {
    /// Reads such a file.
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let mut revoked = Self::default();
        for (number, line) in files::lines(text) {
            revoked.add(line).ok_or_else(|| {
                let what = "write `token JTI`, `client APP/CLIENT [before UNIX]` or `app APP [before UNIX]`; the default app is -";
                AccessError::broken(path, number, what)
            })?;
        }
        Ok(revoked)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let words = files::words(line)?;
        let (kind, what, before) = match words.as_slice() {
            [kind, what] => (*kind, *what, ALWAYS),
            [kind, what, "before", time] if *kind != "token" => {
                (*kind, *what, UnixSeconds(time.parse().ok()?))
            }
            _ => return None,
        };
        match kind {
            "token" => {
                self.tokens.insert(what.into());
            }
            "client" => {
                let (app, client) = what.split_once('/')?;
                let of_app = self.clients.entry(tenant(app)?.into()).or_default();
                later(of_app.entry(client.into()).or_default(), before);
            }
            "app" => later(self.apps.entry(tenant(what)?.into()).or_default(), before),
            _ => return None,
        }
        Some(())
    }

    /// Whether somebody is out.
    pub(super) fn has(
        &self,
        tenant: &str,
        client_id: &str,
        token: Option<&str>,
        issued: Option<UnixSeconds>,
    ) -> bool {
        let is_before = |time: &UnixSeconds| *time == ALWAYS || issued.unwrap_or_default() < *time;
        token.is_some_and(|token| self.tokens.contains(token))
            || self.apps.get(tenant).is_some_and(is_before)
            || self
                .clients
                .get(tenant)
                .and_then(|clients| clients.get(client_id))
                .is_some_and(is_before)
    }
}

fn tenant(word: &str) -> Option<&str> {
    match word {
        "-" => Some(""),
        word => is_tenant(word).then_some(word),
    }
}

/// Of two lines about one, the later time holds.
fn later(time: &mut UnixSeconds, other: UnixSeconds) {
    *time = (*time).max(other);
}
