//! As whom the sessions of a shard are, and what they may do: rules are asked here, and what was allowed once is looked at again.
//!
//! A session of an open server has no pass. Rules for topics stand in [`Access`], which the reactor replaces whole when the operator has it
//! read anew; then every session is looked at again, a slice a turn: who is revoked is cut off, a subscription that is not allowed any more ends.

use std::sync::Arc;

use super::Shard;
use super::depart::LastWill;
use super::port::{CloseCause, Port};
use crate::access::{Access, Action, Identity, Rights, UnixSeconds, Who};
use crate::clock::Millis;
use crate::ids::SessionIdx;
use crate::limits;
use crate::session::Will;
use crate::session::durable;
use crate::topic::filter::Filter;
use crate::topic::scope::bare;
use crate::wire::ReasonCode;

/// As whom one session is. Its tenant stands before its client identifier.
#[derive(Debug)]
pub(super) struct Pass {
    user: Option<Arc<str>>,
    rights: Option<Arc<Rights>>,
    token: Option<Arc<str>>,
    issued: Option<UnixSeconds>,
}

/// The passes of a shard.
#[derive(Debug)]
pub(super) struct Passes {
    pub(super) access: Arc<Access>,
    /// By session, as far as there are any.
    all: Vec<Option<Box<Pass>>>,
    /// Anything is asked of topics at all.
    checks: bool,
    /// Some token has had rights.
    had_rights: bool,
    /// Rights that came last: tokens of one app tend to have the same, which are kept once then.
    last_rights: Option<Arc<Rights>>,
    /// Where looking at all sessions again goes on.
    recheck: Option<usize>,
}

impl Passes {
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self {
            checks: access.checks(None),
            had_rights: false,
            access,
            all: Vec::new(),
            last_rights: None,
            recheck: None,
        }
    }

    fn get(&self, idx: SessionIdx) -> Option<&Pass> {
        self.all.get(idx.index())?.as_deref()
    }

    /// A session is this one's from now on.
    pub(super) fn put(&mut self, idx: SessionIdx, identity: &Identity) {
        let is_nobody = identity.user.is_none()
            && identity.rights.is_none()
            && identity.token.is_none()
            && identity.issued.is_none();
        if is_nobody {
            self.remove(idx);
            return;
        }
        let rights = identity.rights.as_ref().map(|rights| {
            self.checks = true;
            self.had_rights = true;
            match &self.last_rights {
                Some(last) if last == rights => Arc::clone(last),
                _ => {
                    self.last_rights = Some(Arc::clone(rights));
                    Arc::clone(rights)
                }
            }
        });
        let at = idx.index();
        if self.all.len() <= at {
            self.all.resize_with(at + 1, || None);
        }
        self.all[at] = Some(Box::new(Pass {
            user: identity.user.clone(),
            rights,
            token: identity.token.clone(),
            issued: identity.issued,
        }));
    }

    /// The session has ended.
    pub(super) fn remove(&mut self, idx: SessionIdx) {
        if let Some(pass) = self.all.get_mut(idx.index()) {
            *pass = None;
        }
    }

    /// Lets go of the memory of sessions that have all ended.
    pub(super) fn give_back(&mut self) {
        self.all = Vec::new();
        self.last_rights = None;
    }
}

impl Shard {
    /// Other rules hold from now on.
    pub fn set_access(&mut self, access: Arc<Access>) {
        self.tenants.reload(&access);
        self.passes.checks = access.checks(None) || self.passes.had_rights;
        self.passes.access = access;
        self.passes.recheck = Some(0);
    }

    fn who(&self, idx: SessionIdx) -> Who<'_> {
        let name = self.client_id(idx);
        let pass = self.passes.get(idx);
        Who {
            tenant: self.scope(idx).tenant(),
            client_id: bare(name),
            user: pass.and_then(|pass| pass.user.as_deref()),
            rights: pass.and_then(|pass| pass.rights.as_deref()),
        }
    }

    /// Whether a session may publish to a topic; its name as the client knows it.
    pub(super) fn may_publish(&self, idx: SessionIdx, name: &str) -> bool {
        !self.passes.checks
            || self
                .passes
                .access
                .may(&self.who(idx), Action::Publish, name)
    }

    /// Whether a session may still be given what has waited for it. Its own inbox is never asked about: it needs no subscription.
    pub(super) fn may_receive(&self, idx: SessionIdx, topic: &str) -> bool {
        if !self.passes.checks {
            return true;
        }
        let name = bare(topic);
        let may = name.starts_with(super::publish::INBOX)
            || self
                .passes
                .access
                .may(&self.who(idx), Action::Receive, name);
        if !may {
            self.counters().dropped_forbidden.add(1);
        }
        may
    }

    /// Whether a session may subscribe; the path of the filter as the client knows it.
    pub(super) fn may_subscribe(&self, idx: SessionIdx, path: &str) -> bool {
        !self.passes.checks || self.passes.access.may_subscribe(&self.who(idx), path)
    }

    /// Whether somebody who is coming in may have this will.
    pub(super) fn may_will(&self, client_id: &str, identity: &Identity, topic: &str) -> bool {
        let who = Who::new(client_id, identity);
        !self.passes.access.checks(who.rights)
            || self.passes.access.may(&who, Action::Publish, topic)
    }

    /// Takes a session's will to be published, if the session may still publish it.
    pub(super) fn take_will(&mut self, idx: SessionIdx) -> Option<Will> {
        let will = self.sessions[idx].some_extras_mut()?.will.take()?;
        if !self.has_been_revoked(idx) && self.may_publish(idx, bare(will.message.topic())) {
            return Some(will);
        }
        self.counters().dropped_forbidden.add(1);
        None
    }

    /// Ends the subscriptions that a session may not have any more.
    pub(super) fn end_forbidden(&mut self, idx: SessionIdx, port: &mut impl Port) {
        if !self.passes.checks {
            return;
        }
        let access = Arc::clone(&self.passes.access);
        let who = self.who(idx);
        let is_forbidden = |path: &str| !access.may_subscribe(&who, bare(path));
        let mut forbidden: Vec<String> = self
            .index
            .subscriptions(idx)
            .filter(|(path, ..)| is_forbidden(path))
            .map(|(path, ..)| path.to_owned())
            .collect();
        let shared = self.sessions[idx].extras().map(|extras| &extras.shared);
        for sub in shared.into_iter().flatten() {
            let (key, ..) = self.groups.membership(*sub);
            if is_forbidden(&key.path) {
                let filter = Filter {
                    share: Some(&key.group),
                    path: &key.path,
                    wildcard: false,
                };
                forbidden.push(filter.text().into_owned());
            }
        }
        let mut ended = Vec::new();
        for text in &forbidden {
            if let Ok(filter) = Filter::kept(text)
                && self.unsubscribe_from(idx, &filter, port)
                && self.sessions[idx].is_durable()
            {
                if ended.is_empty() {
                    durable::begin_unsubscribed(&mut ended);
                }
                durable::put_filter(&mut ended, text);
            }
        }
        if !ended.is_empty() {
            // If there is no room for it, the next start finds the subscription, and the next connection ends it again.
            let _ = self.keep.store.note(self.id_of(idx), &ended);
        }
    }

    /// True if sessions are to be looked at again.
    pub(super) fn has_recheck(&self) -> bool {
        self.passes.recheck.is_some()
    }

    /// Looks at some sessions again, under the rules that hold now. True: there are more.
    pub(super) fn recheck(&mut self, now: Millis, port: &mut impl Port) -> bool {
        let Some(from) = self.passes.recheck else {
            return false;
        };
        let capacity = self.sessions.0.capacity();
        let end = (from + limits::RECHECK_SLICE).min(capacity);
        for at in from..end {
            if self.sessions.0.contains(at) {
                self.recheck_one(SessionIdx(at as u32), now, port);
            }
        }
        self.passes.recheck = (end < capacity).then_some(end);
        self.passes.recheck.is_some()
    }

    /// Whether somebody who comes in is out by the rules of this shard, which may be newer than those by which it was let in.
    pub(super) fn is_out(&self, client_id: &str, identity: &Identity) -> bool {
        let access = &self.passes.access;
        let (tenant, token) = (&*identity.tenant, identity.token.as_deref());
        access.is_revoked(tenant, client_id, token, identity.issued) || !access.knows_tenant(tenant)
    }

    /// Whether a session's client is out: itself, its token, its tenant.
    fn has_been_revoked(&self, idx: SessionIdx) -> bool {
        let (who, pass) = (self.who(idx), self.passes.get(idx));
        let token = pass.and_then(|pass| pass.token.as_deref());
        let issued = pass.and_then(|pass| pass.issued);
        let access = &self.passes.access;
        access.is_revoked(who.tenant, who.client_id, token, issued)
            || !access.knows_tenant(who.tenant)
    }

    /// Whether a session is a user's, and this is another one: nobody takes over what is not theirs.
    pub(super) fn is_anothers(&self, idx: SessionIdx, identity: &Identity) -> bool {
        let owner = self.passes.get(idx).and_then(|pass| pass.user.as_deref());
        owner.is_some_and(|owner| identity.user.as_deref() != Some(owner))
    }

    fn recheck_one(&mut self, idx: SessionIdx, now: Millis, port: &mut impl Port) {
        let is_out = self.has_been_revoked(idx);
        let has_pass = self.passes.get(idx).is_some();
        let is_online = self.sessions[idx].conn().is_some();
        if is_out && is_online {
            self.counters().revoked.add(1);
            if let Some(conn) = self.sessions[idx].conn() {
                self.send_disconnect(idx, ReasonCode::ADMINISTRATIVE_ACTION, port);
                port.close(conn, CloseCause::Revoked);
                // Whoever is out has no say any more, not with a last word either.
                self.detach(idx, LastWill::Void, now, port);
            }
        } else if is_online || has_pass {
            // Of a session that is away since before the start it is not known whose it is; its next connection says.
            self.end_forbidden(idx, port);
        }
    }
}
