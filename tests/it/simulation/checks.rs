//! The end of a run: everything drains, every promise is kept, and nothing is left behind.

use stillwire::topic::matches;
use stillwire::topic::scope::{Scope, bare};
use stillwire::wire::{Qos, Version};

use super::Profile;
use super::client::Client;
use super::crash::Crash;
use super::model::Step;
use super::world::World;

/// Calls without any progress to be made are far fewer.
const PATIENCE: usize = 400_000;
/// How often clients come back until everything has found its way.
const ROUNDS: usize = 40;

impl World {
    /// Every client comes back, answers, and reads; nothing new is published.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        for client in &mut self.clients {
            client.lazy = false;
        }
        // A client whose message is refused may be cut off for it, and comes back with the next one.
        for round in 0..ROUNDS {
            self.settle_down();
            if round == ROUNDS / 2 && self.profile == Profile::Tight {
                // Where a full queue refuses, an MQTT 3 client that fills its own is cut off each time it tries: it gives up.
                for client in self
                    .clients
                    .iter_mut()
                    .filter(|client| client.version != Version::V5)
                {
                    client.out.clear();
                }
            }
            let done = |client: &Client| client.online && client.out.is_empty();
            if self.clients.iter().all(done) {
                return;
            }
            for at in 0..self.clients.len() {
                if self.clients[at].conn.is_none() {
                    self.dial(at, Some((false, 100_000)));
                }
            }
            if self.profile == Profile::Tight {
                self.time_passes();
            }
        }
    }

    /// Until no packet, letter or work is left.
    fn settle_down(&mut self) {
        for _ in 0..PATIENCE {
            let busy = match self.random.below(7) {
                0 => self.server_reads(),
                1 => self.client_reads(),
                2 => self.client_answers(),
                3 => self.letter_arrives(),
                4 => self.work(),
                5 => self.crash == Crash::Power && self.disks_sync(),
                _ => self.notice_losses(),
            };
            if !busy && self.is_quiet() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn is_quiet(&mut self) -> bool {
        let quiet = self.network.letters == 0
            && self.shards.iter().all(|shard| !shard.has_work())
            && self
                .clients
                .iter()
                .all(|client| client.replies.is_empty() || !client.online);
        let synced = self.crash == Crash::Power && self.disks_sync();
        quiet && !synced && !self.server_reads() && !self.client_reads() && !self.notice_losses()
    }

    /// What was acknowledged has arrived.
    pub(crate) fn check_promises(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            assert!(client.online, "client {at} is not connected at the end");
            let unacked: Vec<_> = client
                .out
                .iter()
                .map(|out| (super::model::number(&out.payload), out.id, out.qos))
                .collect();
            assert!(
                unacked.is_empty(),
                "client {at}: {unacked:?} were never acknowledged"
            );
            assert!(
                client.taken.is_empty(),
                "client {at}: {:?} were never released",
                client.taken
            );
            let session = &self.model.sessions[at];
            let flying: Vec<_> = session
                .flights
                .iter()
                .map(|flight| (flight.id, flight.number))
                .collect();
            assert!(
                flying.is_empty(),
                "client {at}: identifiers and messages {flying:?} are still in flight"
            );
        }
        let mut missing = 0;
        for (number, message) in self.model.messages.iter().enumerate() {
            let (Some(taken), Some(acked)) = (message.taken, message.acked) else {
                continue;
            };
            if message.qos == Qos::AtMostOnce || message.expires {
                continue;
            }
            for at in self.wanting(taken, acked, message.publisher, &message.topic) {
                if !self.model.sessions[at].got.contains(&(number as u32)) {
                    assert!(
                        self.model.lossy,
                        "message {number} on {} (taken {taken}, acknowledged {acked}) never came to client {at}: {:#?}",
                        message.topic, self.model.sessions[at].subs
                    );
                    missing += 1;
                }
            }
            self.check_shared(number, taken);
        }
        let totals = self.shared.counters.totals();
        assert!(
            missing <= totals.dropped_queue + self.dropped_before,
            "{missing} are missing, {} were counted as dropped",
            totals.dropped_queue + self.dropped_before
        );
        if self.profile == Profile::Roomy {
            assert_eq!(
                totals.dropped_queue + totals.dropped_mailbox + totals.dropped_too_large,
                0,
                "dropped without need"
            );
        }
    }

    /// Clients whose session was subscribed from before a message was taken until after it was acknowledged.
    fn wanting(
        &self,
        taken: Step,
        acked: Step,
        publisher: Option<usize>,
        topic: &str,
    ) -> Vec<usize> {
        let wants = |at: &usize| {
            let session = &self.model.sessions[*at];
            let inbox = bare(topic)
                .strip_prefix("$inbox/")
                .and_then(|rest| rest.strip_suffix("/x"));
            let is_its = topic.starts_with(self.model.prefixes[*at])
                && Scope::of(topic) == Scope::of(self.model.prefixes[*at]);
            if is_its && inbox == Some(&self.clients[*at].name) {
                return session.since < taken;
            }
            session.subs.iter().any(|sub| {
                sub.group.is_none()
                    && sub.options.qos > Qos::AtMostOnce
                    && sub.granted.is_some_and(|granted| granted < taken)
                    && sub.until.is_none_or(|until| until > acked)
                    && !(sub.options.no_local && publisher == Some(*at))
                    && matches(&sub.path, topic)
            })
        };
        (0..self.clients.len()).filter(wants).collect()
    }

    /// Each shared subscription with a lasting member has served the message, and none twice.
    fn check_shared(&self, number: usize, taken: Step) {
        let message = &self.model.messages[number];
        if bare(&message.topic).starts_with("$inbox") {
            return;
        }
        let mut lasting = std::collections::BTreeSet::new();
        let mut any = std::collections::BTreeSet::new();
        for session in &self.model.sessions {
            for sub in session
                .subs
                .iter()
                .filter(|sub| matches(&sub.path, &message.topic))
            {
                let Some(group) = &sub.group else { continue };
                any.insert((group, &sub.path));
                let stays =
                    sub.granted.is_some_and(|granted| granted < taken) && sub.until.is_none();
                if stays && sub.options.qos > Qos::AtMostOnce {
                    lasting.insert((group, &sub.path));
                }
            }
        }
        if message.regrouped || message.again {
            return;
        }
        let _ = any;
        if !self.model.lossy && message.shared == 0 && !lasting.is_empty() {
            let present = self.model.sessions.iter();
            let present = present.flat_map(|session| &session.subs);
            // One that was away may have been chosen, and its session may have ended since; or before a crash, and not for the server.
            let past = self.model.past.iter();
            let past = past.filter(|sub| sub.until.is_none_or(|until| until >= taken));
            let mixed = present.chain(past).any(|sub| {
                sub.group.is_some()
                    && sub.options.qos == Qos::AtMostOnce
                    && matches(&sub.path, &message.topic)
            });
            assert!(
                mixed,
                "message {number}: {lasting:?} had a member, and none got it"
            );
        }
    }

    /// Everybody leaves for good; then nothing may be left.
    pub(crate) fn leave(&mut self) {
        for at in 0..self.clients.len() {
            self.dial(at, Some((true, 0)));
        }
        self.settle_down();
        for at in 0..self.clients.len() {
            self.disconnect(at);
        }
        self.settle_down();
        for _ in 0..3 {
            self.now = self.now.plus_secs(10);
            self.time_passes();
            self.settle_down();
        }
        let totals = self.shared.counters.totals();
        assert_eq!(
            (
                totals.sessions,
                totals.sessions_online,
                totals.subscriptions,
                totals.queued
            ),
            (0, 0, 0, 0),
            "sessions, online, subscriptions, queued"
        );
        assert_eq!(
            self.shared.tenants_have(),
            (0, 0, 0),
            "connections, subscriptions and queued bytes of all tenants"
        );
        for shard in &self.shards {
            assert!(shard.is_empty(), "something is left: {:?}", shard.census());
        }
    }
}
