//! What clients do of their own will: connect, drop, take over, subscribe, publish.

use stillwire::routing::home;
use stillwire::wire::{Qos, ReasonCode, RetainHandling, SubscribeOptions, Version};

use super::Profile;
use super::client::Dial;
use super::world::World;

const TOPICS: &[&str] = &["t/0", "t/1", "t/2", "t/a/b", "t/a/c", "s/0", "s/1"];
const FILTERS: &[&str] = &[
    "t/0",
    "t/1",
    "t/2",
    "t/a/b",
    "t/+",
    "t/#",
    "t/a/+",
    "+/a/b",
    "w/#",
    "w/+",
    "$share/g/s/0",
    "$share/g/s/+",
    "$share/h/s/#",
    "$share/h/s/1",
];
const QOS: &[Qos] = &[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

impl World {
    /// A random client does something.
    pub(crate) fn act(&mut self) {
        let at = self.random.below(self.clients.len());
        if self.clients[at].conn.is_none() {
            if self.random.percent(30) {
                self.dial(at, None);
            }
            return;
        }
        match self.random.below(200) {
            0..2 => self.drop_connection(at),
            2..4 => self.dial(at, None),
            4..6 => self.clients[at].lazy ^= true,
            _ if !self.clients[at].online => {}
            6..9 => self.disconnect(at),
            9..35 => self.subscribe(at),
            35..45 => self.unsubscribe(at),
            _ => self.publish(at),
        }
    }

    /// Opens a connection; one that is there is left to be taken over.
    pub(crate) fn dial(&mut self, at: usize, forced: Option<(bool, u32)>) {
        if let Some(old) = self.clients[at].conn {
            self.network.conns[old].gone = true;
            self.network.conns[old].silent = true;
            self.network.conns[old].up.clear();
        }
        let name = self.model.scoped(at, &self.clients[at].name);
        let reactor = home(&self.shared.hasher, &name, self.shards.len());
        let capacity = if self.profile == Profile::Tight || self.random.percent(40) {
            300
        } else {
            100_000
        };
        let conn = self
            .network
            .open(reactor, at, self.clients[at].version, capacity);
        let topic = format!("w/{at}");
        let will = (forced.is_none() && self.random.percent(40)).then(|| {
            let (qos, retain) = (self.random.pick(QOS), self.random.percent(20));
            let delay = self.random.pick(&[0, 0, 1, 5]);
            let delay = if self.clients[at].version == Version::V5 {
                delay
            } else {
                0
            };
            let scoped = self.model.scoped(at, &topic);
            let number = self.model.message(None, &scoped, qos, retain, false);
            (number.to_be_bytes(), qos, retain, delay)
        });
        let (clean, expiry) = forced.unwrap_or((
            self.random.percent(12),
            self.random.pick(&[0, 2, 10, 100_000, 100_000, 100_000]),
        ));
        let dial = Dial {
            clean,
            expiry,
            receive_maximum: self.random.pick(&[1, 2, 5, 100]),
            aliases: self.random.pick(&[0, 0, 2, 10]),
            will: will.as_ref().map(|(payload, qos, retain, delay)| {
                (&*topic, &payload[..], *qos, *retain, *delay)
            }),
        };
        let packet = self.clients[at].connect(conn, dial);
        self.network.conns[conn].up.push_back(packet);
    }

    fn drop_connection(&mut self, at: usize) {
        let Some(conn) = self.clients[at].conn.take() else {
            return;
        };
        self.clients[at].online = false;
        let conn = &mut self.network.conns[conn];
        conn.gone = true;
        conn.silent = self.random.percent(30);
        // A reset loses what was under way.
        let arrives = if self.random.percent(50) {
            conn.up.len()
        } else {
            self.random.below(conn.up.len() + 1)
        };
        conn.up.truncate(arrives);
        if conn.session.is_none() && conn.up.is_empty() {
            conn.held = false;
        }
    }

    pub(crate) fn disconnect(&mut self, at: usize) {
        let Some(conn) = self.clients[at].conn.take() else {
            return;
        };
        self.clients[at].online = false;
        let with_will = self.clients[at].version == Version::V5 && self.random.percent(20);
        let reason = if with_will {
            ReasonCode::DISCONNECT_WITH_WILL
        } else {
            ReasonCode::SUCCESS
        };
        let packet = self.clients[at].disconnect(reason);
        self.network.conns[conn].up.push_back(packet);
        self.network.conns[conn].gone = true;
    }

    fn subscribe(&mut self, at: usize) {
        let conn = self.clients[at].conn.expect("online");
        let v5 = self.clients[at].version == Version::V5;
        let mut filters = Vec::new();
        for _ in 0..=self.random.below(3) {
            let filter = self.random.pick(FILTERS);
            if filters.iter().any(|(other, _)| *other == filter) {
                continue;
            }
            let mut options = SubscribeOptions::new(self.random.pick(&[
                Qos::AtMostOnce,
                Qos::AtLeastOnce,
                Qos::ExactlyOnce,
                Qos::ExactlyOnce,
            ]));
            if v5 {
                options.no_local = self.random.percent(10) && !filter.starts_with("$share");
                options.retain_as_published = self.random.percent(20);
                options.retain_handling = self.random.pick(&[
                    RetainHandling::Send,
                    RetainHandling::SendIfNew,
                    RetainHandling::DontSend,
                ]);
            }
            filters.push((filter, options));
        }
        let id = self
            .random
            .percent(30)
            .then(|| 1 + self.random.below(300) as u32);
        let packet = self.clients[at].subscribe(&filters, id);
        self.network.conns[conn].up.push_back(packet);
    }

    fn unsubscribe(&mut self, at: usize) {
        let conn = self.clients[at].conn.expect("online");
        let filter = self.random.pick(FILTERS);
        let packet = self.clients[at].unsubscribe(&[filter]);
        self.network.conns[conn].up.push_back(packet);
    }

    fn publish(&mut self, at: usize) {
        let conn = self.clients[at].conn.expect("online");
        for _ in 0..=self.random.below(6) {
            if self.clients[at].out.len() >= self.clients[at].window {
                return;
            }
            let (qos, retain) = (self.random.pick(QOS), self.random.percent(15));
            let topic = if self.random.percent(10) {
                let to = self.random.below(self.clients.len());
                format!("$inbox/{}/x", self.clients[to].name)
            } else {
                self.random.pick(TOPICS).to_owned()
            };
            let retain = retain && !topic.starts_with("$inbox");
            let expiry = self
                .random
                .percent(8)
                .then(|| 1 + self.random.below(5) as u32);
            let scoped = self.model.scoped(at, &topic);
            let number = self
                .model
                .message(Some(at), &scoped, qos, retain, expiry.is_some());
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(4 + self.random.below(60), b'.');
            let packet = self.clients[at].publish(&topic, &payload, qos, retain, expiry);
            self.network.conns[conn].up.push_back(packet);
        }
    }
}
