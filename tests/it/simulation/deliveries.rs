//! Whether a message may come to a client: subscribed, once, in order, within the window, and with the right flags.

use stillwire::topic::matches;
use stillwire::topic::scope::bare;
use stillwire::wire::Qos;

use super::model::{Flight, Model, Sub, number};

/// A delivery, as written by a shard or read by a client.
pub(crate) struct Delivered<'a> {
    /// With its tenant's name before it: the client's, which has to be the publisher's.
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: Option<u16>,
}

impl Model {
    /// A shard sends a message.
    pub(crate) fn sent(&mut self, conn: usize, delivered: &Delivered<'_>) {
        let link = &self.links[&conn];
        let (client, window) = (link.client, link.window);
        let number = number(delivered.payload);
        self.follow(
            number,
            format_args!(
                "sent to client {client} with {:?}, id {:?}, dup {}, retain {}",
                delivered.qos, delivered.id, delivered.dup, delivered.retain
            ),
        );
        let message = &mut self.messages[number as usize];
        let session = &mut self.sessions[client];
        let what = format!(
            "message {number} on {} to client {client} ({:?}, sent {:?}, again {}, dup {}, retain {})",
            delivered.topic,
            message.qos,
            delivered.qos,
            message.again,
            delivered.dup,
            delivered.retain
        );
        assert_eq!(message.topic, delivered.topic, "{what}");
        let taken = message
            .taken
            .unwrap_or_else(|| panic!("{what}: nobody has published it"));
        let inbox = bare(delivered.topic).starts_with("$inbox/");
        let fits = |sub: &&Sub| {
            sub.until.is_none_or(|until| until >= taken) && matches(&sub.path, delivered.topic)
        };
        let plain: Vec<_> = session
            .subs
            .iter()
            .filter(fits)
            .filter(|sub| sub.group.is_none())
            .collect();
        let shared = session
            .subs
            .iter()
            .filter(fits)
            .any(|sub| sub.group.is_some());
        assert!(
            inbox || shared || session.revived || !plain.is_empty(),
            "{what}: it is not subscribed"
        );
        let is_shared = shared || session.may_share(delivered.topic);
        assert!(
            delivered.qos <= message.qos,
            "{what}: QoS above the published"
        );
        let best = session
            .subs
            .iter()
            .filter(|sub| matches(&sub.path, delivered.topic))
            .map(|sub| sub.options.qos)
            .max();
        assert!(
            inbox || session.revived || Some(delivered.qos) <= best,
            "{what}: QoS above the granted"
        );
        let as_published =
            plain.iter().any(|sub| sub.options.retain_as_published) && message.retain;
        let kept = delivered.retain && !as_published && !shared;
        if delivered.retain {
            assert!(message.retain, "{what}: it was not retained");
        }
        if kept && delivered.qos == Qos::AtMostOnce {
            let active = session
                .subs
                .iter()
                .any(|sub| sub.until.is_none() && matches(&sub.path, delivered.topic));
            assert!(
                active || session.revived,
                "{what}: retained, after the UNSUBSCRIBE"
            );
        }
        if let Some(id) = delivered.id {
            let at = session.flights.iter().position(|flight| flight.id == id);
            if delivered.dup && (at.is_some() || !session.crashed) {
                let at = at.unwrap_or_else(|| {
                    panic!("{what}: sent again, but nothing is in flight as {id}")
                });
                assert_eq!(
                    session.flights[at].number, number,
                    "{what}: the identifier was another message's"
                );
                assert!(at >= session.cursor, "{what}: sent again out of order");
                session.cursor = at + 1;
                session.flights[at].conn = conn;
            } else {
                assert!(at.is_none(), "{what}: identifier {id} is in use");
                // Only after a crash may one be sent with DUP that was not in flight, among those that were.
                let at = if delivered.dup {
                    session.cursor
                } else {
                    session.flights.len()
                };
                session.flights.insert(at, Flight { id, number, conn });
                session.cursor = at + 1;
            }
            let flying = session
                .flights
                .iter()
                .filter(|flight| flight.conn == conn)
                .count();
            assert!(
                flying <= window,
                "{what}: {flying} in flight, the client allows {window}"
            );
        }
        session.sent.insert(number);
        // With RETAIN it may be the retained copy, which comes besides the live one.
        let ambiguous = delivered.retain;
        let first = !ambiguous && session.live_sent.insert(number);
        if is_shared {
            message.shared += 1;
        }
        if delivered.dup || inbox {
            return;
        }
        if let Some(publisher) = message.publisher {
            let live = session
                .live
                .entry((publisher, delivered.topic.to_owned(), delivered.qos))
                .or_default();
            if kept && !message.again {
                let since = plain.iter().map(|sub| sub.from).max().unwrap_or(0);
                assert!(
                    live.0 <= number || live.1 < since,
                    "{what}: retained, behind the newer {}",
                    live.0
                );
            } else if !kept && message.retain && number >= live.0 {
                *live = (number, self.step);
            }
            // One that was published again may come to somebody who missed it the first time.
            if first && !is_shared && !message.again {
                let key = (
                    publisher,
                    delivered.topic.to_owned(),
                    message.qos,
                    delivered.qos,
                );
                let last = session.order.entry(key).or_default();
                assert!(*last < number, "{what}: behind the later {last}");
                *last = number;
            }
        }
        if !ambiguous && !first && !is_shared {
            assert!(message.again, "{what}: a second time without DUP");
        }
    }

    /// The client has read a message. `again`: it knew the packet identifier (QoS 2).
    pub(crate) fn got(&mut self, client: usize, delivered: &Delivered<'_>, again: bool) {
        let number = number(delivered.payload);
        self.follow(
            number,
            format_args!(
                "read by client {client} with {:?}, known {again}",
                delivered.qos
            ),
        );
        let session = &mut self.sessions[client];
        session.got.insert(number);
        if delivered.qos == Qos::ExactlyOnce && !again && !delivered.retain {
            let unknown = session.may_share(delivered.topic);
            let times = session.got_twice.entry(number).or_default();
            *times += 1;
            // One that matches several shared subscriptions comes once for each.
            let shares = session
                .subs
                .iter()
                .filter(|sub| sub.group.is_some() && matches(&sub.path, delivered.topic))
                .count();
            // A message that one session refused was delivered to others; its publisher may try again.
            let message = &self.messages[number as usize];
            let retried = (self.lossy || message.publisher.is_none()) && message.again;
            assert!(
                retried || unknown || *times as usize <= shares.max(1),
                "QoS 2 message {number} came {times} times to client {client}"
            );
        }
    }
}
