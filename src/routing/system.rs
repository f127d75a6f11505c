//! `$SYS`: the figures of the broker, under the names that mosquitto made usual. Published by the first shard, retained.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::port::Port;
use super::tenants::Tenant;
use crate::clock::Millis;
use crate::counters::Totals;
use crate::ids::ReactorId;
use crate::limits;
use crate::session::message::Message;
use crate::topic::scope;
use crate::wire::Forward;

/// When the figures were published, and what they were.
#[derive(Debug)]
pub(super) struct System {
    started: Millis,
    next: Millis,
    /// Tenants that are yet to be told of themselves in this round.
    tenants: Vec<(Box<str>, Arc<Tenant>)>,
}

impl System {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            started: now,
            next: now,
            tenants: Vec::new(),
        }
    }
}

/// Picks a figure from the sums.
type Figure = fn(&Totals) -> u64;

/// Topics below `$SYS/broker/`, each with where its figure comes from.
const FIGURES: &[(&str, Figure)] = &[
    ("clients/connected", |t| t.sessions_online),
    ("clients/disconnected", |t| {
        t.sessions.saturating_sub(t.sessions_online)
    }),
    ("clients/total", |t| t.sessions),
    ("connections/count", |t| t.connections),
    ("connections/accepted", |t| t.accepted),
    ("connections/refused", |t| t.refused + t.connects_refused),
    ("connections/denied", |t| t.connects_denied),
    ("connections/throttled", |t| t.connects_throttled),
    ("messages/received", |t| t.packets_in),
    ("messages/sent", |t| t.packets_out),
    ("publish/messages/received", |t| t.publishes_in),
    ("publish/messages/sent", |t| t.publishes_out),
    ("publish/messages/dropped", |t| {
        t.dropped_backlog
            + t.dropped_mailbox
            + t.dropped_queue
            + t.dropped_store
            + t.dropped_expired
            + t.dropped_too_large
            + t.dropped_fanout
            + t.dropped_retained
            + t.dropped_forbidden
            + t.dropped_quota
    }),
    ("bytes/received", |t| t.bytes_in),
    ("bytes/sent", |t| t.bytes_out),
    ("subscriptions/count", |t| t.subscriptions),
    ("retained messages/count", |t| t.retained),
    ("store/messages/count", |t| t.queued),
    ("store/bytes/live", |t| t.store_live_bytes),
    ("store/bytes/log", |t| t.store_log_bytes),
    ("store/segments/count", |t| t.store_segments),
    ("store/syncs", |t| t.store_syncs),
    ("store/damaged", |t| t.store_damaged),
    ("dropped/backlog", |t| t.dropped_backlog),
    ("dropped/mailbox", |t| t.dropped_mailbox),
    ("dropped/fanout", |t| t.dropped_fanout),
    ("dropped/queue", |t| t.dropped_queue),
    ("dropped/store", |t| t.dropped_store),
    ("dropped/expired", |t| t.dropped_expired),
    ("dropped/too large", |t| t.dropped_too_large),
    ("dropped/retained", |t| t.dropped_retained),
    ("dropped/forbidden", |t| t.dropped_forbidden),
    ("dropped/quota", |t| t.dropped_quota),
    ("clients/revoked", |t| t.revoked),
];

impl Shard {
    /// Once an interval, on the first shard.
    pub(super) fn publish_sys(&mut self, now: Millis, port: &mut impl Port) {
        let interval = u64::from(self.mqtt().sys_interval) * 1000;
        if self.me != ReactorId(0) || interval == 0 {
            return;
        }
        self.tell_tenants(now, port);
        if now < self.sys.next {
            return;
        }
        self.sys.next = Millis(now.0 + interval);
        self.sys.tenants = self.shared.all_tenants.all();
        let totals = self.shared.counters.totals();
        let uptime = now.since(self.sys.started) / 1000;
        self.publish_figure(
            "version",
            concat!("stillwire version ", env!("CARGO_PKG_VERSION")),
            now,
            port,
        );
        self.publish_figure("uptime", &format!("{uptime} seconds"), now, port);
        for (topic, figure) in FIGURES {
            self.publish_figure(topic, &figure(&totals).to_string(), now, port);
        }
    }

    /// Some tenants are told what they have: each of itself alone.
    fn tell_tenants(&mut self, now: Millis, port: &mut impl Port) {
        let left = self.sys.tenants.len().saturating_sub(limits::TENANTS_TOLD);
        for (name, tenant) in self.sys.tenants.split_off(left) {
            let prefix = scope::prefix(&name);
            for (figure, count) in [
                ("clients/connected", &tenant.connections),
                ("subscriptions/count", &tenant.subscriptions),
                ("publish/messages/received", &tenant.publishes_in),
                ("store/bytes/queued", &tenant.queued_bytes),
                ("refused", &tenant.refused),
            ] {
                let value = count.load(Relaxed).to_string();
                self.publish_own(&format!("{prefix}$SYS/broker/{figure}"), &value, now, port);
            }
        }
    }

    fn publish_figure(&mut self, name: &str, value: &str, now: Millis, port: &mut impl Port) {
        self.publish_own(&format!("$SYS/broker/{name}"), value, now, port);
    }

    fn publish_own(&mut self, topic: &str, value: &str, now: Millis, port: &mut impl Port) {
        let mut message = Message::new(
            topic,
            self.shared.hasher.hash(topic),
            &Forward::default(),
            value.as_bytes(),
        );
        message.retain = true;
        let message = Arc::new(message);
        self.route(&message, now, port);
    }
}
