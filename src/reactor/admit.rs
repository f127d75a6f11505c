//! Who may come in, asked where the connection was accepted, before its home is known: a tenant's name is part of what decides the home.
//!
//! What takes long (argon2, the operator's hook) is found out by the gate's threads; until its answer comes the connection waits among the
//! greetings, with its CONNECT, and not longer than any other may take for that.

use std::net::IpAddr;
use std::sync::Arc;

use super::Reactor;
use super::accept::Next;
use super::slots::{Flags, State};
use crate::access::throttle::RetryAfter;
use crate::access::{Credentials, Decision, Denied, Identity, Question, UnixSeconds};
use crate::gate::Answer;
use crate::ids::ConnId;
use crate::routing::greet::{refusal, refusal_because};
use crate::routing::port::CloseCause;
use crate::routing::{Greeting, greet, home};
use crate::topic::scope::{self, Scope};
use crate::wire::{Connect, ReasonCode, Version};

/// As whom a connection comes in; none: as nobody in particular, as all do where the server is open.
pub(super) type As = Option<Box<Identity>>;

impl Reactor {
    /// What becomes of a connection whose CONNECT is whole. `address`: where it calls from.
    pub(super) fn rule<'a>(
        &self,
        connect: Connect<'a>,
        len: usize,
        address: impl FnOnce() -> Option<IpAddr>,
    ) -> Next<'a> {
        // Where nobody is asked, nobody fails.
        let throttle = self.throttle.as_ref();
        let is_counted = throttle.is_some_and(|throttle| throttle.counts_connects());
        if self.access.is_open() && !is_counted {
            return self.place(connect, len, None);
        }
        let version = connect.version;
        let Some(address) = address() else {
            // It is gone already.
            return Next::Refuse(Vec::new());
        };
        if let Err(wait) = self.let_through(&connect, address) {
            return Next::Refuse(self.hold_off(version, wait));
        }
        let credentials = Credentials {
            client_id: connect.client_id,
            user: connect.username,
            password: connect.password,
            address,
        };
        match self.access.authenticate(&credentials, self.unix()) {
            Decision::Admit(identity) => self.place(connect, len, Some(Box::new(identity))),
            Decision::Refuse(denied) => {
                self.note_failure(connect.client_id, address, denied);
                Next::Refuse(self.deny(version, denied))
            }
            Decision::Ask(question) => Next::Ask(question),
        }
    }

    /// Where somebody who may come in is at home.
    fn place<'a>(&self, connect: Connect<'a>, len: usize, identity: As) -> Next<'a> {
        if connect.client_id.is_empty() {
            return Next::Stay(connect, len, identity);
        }
        let hasher = &self.shared.hasher;
        let home = match identity.as_deref() {
            Some(Identity { tenant, .. }) if !tenant.is_empty() => {
                let prefix = scope::prefix(tenant);
                match Scope::of(&prefix).name(connect.client_id) {
                    Some(name) => home(hasher, &name, self.reactors),
                    // Refused by whoever takes it in.
                    None => self.me,
                }
            }
            _ => home(hasher, connect.client_id, self.reactors),
        };
        if home == self.me {
            Next::Stay(connect, len, identity)
        } else {
            Next::Go(home, connect.version, identity)
        }
    }

    fn unix(&self) -> UnixSeconds {
        UnixSeconds(self.unix_millis / 1000)
    }

    /// Whether neither its address nor its client identifier comes too often, or has failed too often.
    fn let_through(&self, connect: &Connect<'_>, address: IpAddr) -> Result<(), RetryAfter> {
        let Some(throttle) = &self.throttle else {
            return Ok(());
        };
        throttle.admit(address, self.now)?;
        if connect.client_id.is_empty() {
            return Ok(());
        }
        throttle.admit_client(connect.client_id, self.now)
    }

    /// Somebody came with credentials that are not good.
    fn note_failure(&self, client_id: &str, address: IpAddr, denied: Denied) {
        if denied == Denied::BadCredentials
            && let Some(throttle) = &self.throttle
        {
            throttle.failed(address, client_id, self.now);
        }
    }

    /// The words to somebody who comes too often.
    fn hold_off(&self, version: Version, RetryAfter(seconds): RetryAfter) -> Vec<u8> {
        self.io.connections.counters().connects_throttled.add(1);
        let words = format!("too many connects; try again in {seconds} s");
        refusal_because(version, ReasonCode::CONNECTION_RATE_EXCEEDED, &words)
    }

    /// The words to somebody who may not come in.
    fn deny(&self, version: Version, denied: Denied) -> Vec<u8> {
        self.io.connections.counters().connects_denied.add(1);
        match denied {
            Denied::BadCredentials => refusal(version, ReasonCode::BAD_USER_NAME_OR_PASSWORD),
            Denied::NotAuthorized => refusal(version, ReasonCode::NOT_AUTHORIZED),
            Denied::Revoked => refusal(version, ReasonCode::BANNED),
            Denied::Expired => refusal_because(
                version,
                ReasonCode::NOT_AUTHORIZED,
                "the token has expired; fetch a new one",
            ),
            Denied::Unavailable => refusal_because(
                version,
                ReasonCode::SERVER_UNAVAILABLE,
                "credentials can't be checked now; try again later",
            ),
        }
    }

    /// Have the gate find out about a connection, which waits with all that was read from it.
    pub(super) fn ask(&mut self, conn: ConnId, question: Question) {
        let Some(slot) = self.io.connections.slots.get_mut(conn) else {
            return;
        };
        slot.flags.put(Flags::PAUSED, true);
        let access = Arc::clone(&self.access);
        let asked = self
            .gate
            .as_ref()
            .is_some_and(|gate| gate.ask(self.me, conn.to_bits(), question, access).is_ok());
        if !asked {
            self.answered(conn, Err(Denied::Unavailable));
        }
    }

    /// The gate's answer. A failure counts whether or not the client has waited for it.
    pub(super) fn gate_answered(&mut self, answer: Answer) {
        if let Err(denied) = answer.result {
            self.note_failure(&answer.client_id, answer.address, denied);
        }
        self.answered(ConnId::from_bits(answer.ticket), answer.result);
    }

    /// It is known whether a connection may come in that has waited for it; it may be gone.
    fn answered(&mut self, conn: ConnId, answer: Result<Identity, Denied>) {
        let waits = self
            .io
            .connections
            .slots
            .get_mut(conn)
            .filter(|slot| slot.state == State::Greeting && slot.flags.has(Flags::PAUSED));
        let Some(slot) = waits else { return };
        slot.flags.put(Flags::PAUSED, false);
        let kept = self.io.connections.take_greeting(conn);
        let Greeting::Connect { connect, len } = greet(&kept, self.largest_connect()) else {
            debug_assert!(false, "a question is asked about a whole CONNECT");
            self.io.connections.drop_lost(conn, CloseCause::Refused);
            return;
        };
        let next = match answer {
            Ok(identity) => self.place(connect, len, Some(Box::new(identity))),
            Err(denied) => Next::Refuse(self.deny(connect.version, denied)),
        };
        self.go_on(conn, next, &kept);
    }
}

/// As whom somebody comes in, for the way home.
pub(super) fn encode(identity: Option<&Identity>) -> Vec<u8> {
    let mut bytes = Vec::new();
    match identity {
        Some(identity) => identity.encode(&mut bytes),
        None => bytes.push(NOBODY),
    }
    bytes
}

/// The whole of [`Identity::encode`] for the default one.
pub(super) const NOBODY: u8 = 0;
