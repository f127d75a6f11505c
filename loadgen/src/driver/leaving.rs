//! How phones leave: one by one as in a mobile network, or many at once in a storm.
//!
//! A phone that vanishes keeps its socket, but a filter throws away all that comes in, before TCP sees it: nothing is answered, nothing
//! acknowledged, and neither FIN nor RST is sent. To the broker that is a phone without a network. The socket is closed once the phone is
//! ready again, when the broker has no use for the old connection any more; its RST then meets a connection that is over.
//!
//! In a takeover the old connection stands, unread, until the broker closes it. That is its duty (MQTT 5, 3.1.4-3), so it is no failure;
//! one that still stands a while after the phone is ready again is counted.
//!
//! When the server restarts no phone hangs up: the server ends the connections, and only then a few phones try whether it is there again. All
//! others wait at a gate until one of them is let in.

use std::cmp::Reverse;
use std::net::TcpStream;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use mio::Token;
use mio::unix::SourceFd;
use socket2::Socket;
use std::os::fd::AsRawFd;

use super::Driver;
use crate::clock::{self, MILLI, SECOND};
use crate::orders::{Back, Leave, Storm};
use crate::phone::Stage;
use crate::stats::Count;

/// Phones that a storm looks at in one turn, so that events are served in between.
const STORM_PER_TURN: u32 = 512;

/// While a storm waits for the broker, a thread tries this often.
const PROBE_EVERY: u64 = 50 * MILLI;

/// A connection that a phone left without closing it.
pub(super) struct Behind {
    stream: TcpStream,
    token: Token,
    since: u64,
    vanished: bool,
}

impl Drop for Behind {
    fn drop(&mut self) {
        // As with all connections, so that the port doesn't wait; nothing else depends on it.
        drop(socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
    }
}

/// A storm that is still dropping phones.
pub(super) struct Storming {
    storm: Storm,
    began: u64,
    next: u32,
    /// Ready phones not yet looked at, and how many of them are to go.
    ready: u32,
    due: u32,
}

/// Nobody calls until the broker lets one phone in.
pub(super) struct Gate {
    pub(super) waiting: Vec<u32>,
    /// Never, before the broker has ended a connection.
    next_probe: u64,
}

impl Gate {
    /// The broker has ended a connection: it may be looked for.
    pub(super) fn lost(&mut self, now: u64) {
        self.next_probe = self.next_probe.min(now);
    }
}

impl Driver {
    /// Lets the phones leave whose time has come; returns when the next one is due.
    pub(super) fn do_churn(&mut self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.churn.since) as f64 / SECOND as f64;
        self.churn.since = now;
        let per_second = self.churn.order.fraction_per_second * self.phones.len() as f64;
        self.churn.due += elapsed * per_second;
        while self.churn.due >= 1.0 {
            self.churn.due -= 1.0;
            // A few tries find a ready phone unless hardly any is.
            let found = (0..16)
                .map(|_| self.rng.u32(0..self.phones.len() as u32))
                .find(|&at| self.phones[at as usize].stage == Stage::Ready);
            if let Some(at) = found {
                self.churn_one(at, now);
            }
        }
        if per_second > 0.0 {
            now + ((1.0 - self.churn.due) / per_second * SECOND as f64) as u64
        } else {
            u64::MAX
        }
    }

    fn churn_one(&mut self, at: u32, now: u64) {
        let shape = self.churn.order.shape;
        let (min, max) = (clock::nanos(shape.away_min), clock::nanos(shape.away_max));
        let back = now + self.rng.u64(min..=max.max(min));
        let sum = shape.clean + shape.reset + shape.vanish + shape.takeover;
        let mut pick = self.rng.f64() * sum;
        let mut falls = |weight: f64| {
            pick -= weight;
            pick < 0.0
        };
        if falls(shape.takeover) {
            self.leave_behind(at, false, now);
            return self.set_out(at, now);
        }
        if falls(shape.vanish) {
            self.leave_behind(at, true, now);
        } else {
            let clean = falls(shape.clean);
            self.hang_up(at, clean, now);
        }
        if self.phones[at as usize].stage == Stage::Returning {
            return;
        }
        self.come_back(at, back);
    }

    /// Leaves without closing the connection.
    fn leave_behind(&mut self, at: u32, vanished: bool, now: u64) {
        let token = self.token(at);
        let Some(stream) = self.phones[at as usize].stream.take() else {
            return;
        };
        self.tally.count(Count::HungUp);
        self.tally.count(if vanished {
            Count::Vanished
        } else {
            Count::Takeovers
        });
        self.leave(at, now);
        if vanished {
            // Neither fails on a socket that is open; if one did, the phone would leave less silently.
            let _ = crate::sys::deafen(&stream);
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&stream.as_raw_fd()));
        }
        self.behind.entry(at).or_default().push(Behind {
            stream,
            token,
            since: now,
            vanished,
        });
    }

    /// An old connection was closed by the broker.
    pub(super) fn behind_closed(&mut self, token: Token) {
        let at = token.0 as u32;
        if let Some(left) = self.behind.get_mut(&at) {
            left.retain(|old| old.token != token);
            if left.is_empty() {
                self.behind.remove(&at);
            }
        }
    }

    /// The phone is ready: the broker is done with the connections from which it vanished.
    pub(super) fn is_back(&mut self, at: u32, now: u64) {
        if let Some(left) = self.behind.get_mut(&at) {
            left.retain(|old| !old.vanished);
            if left.is_empty() {
                self.behind.remove(&at);
            }
        }
        if let Some(in_storm) = self.in_storm.get_mut(at as usize)
            && std::mem::take(in_storm)
        {
            self.shared.storm.last_back.fetch_max(now, Relaxed);
            self.shared.storm.back.fetch_add(1, Relaxed);
        }
        // Whoever got ready before the broker went away says nothing.
        if let Some(gate) = self.gate.take_if(|gate| gate.next_probe != u64::MAX) {
            for at in gate.waiting {
                self.come_back(at, now);
            }
            self.shared.storm.threads_done.fetch_add(1, Release);
        }
    }

    /// Closes old connections that the broker should have closed.
    pub(super) fn close_behind(&mut self, now: u64) {
        let patience = clock::nanos(self.shared.plan.patience);
        let (phones, tally) = (&self.phones, &self.tally);
        self.behind.retain(|&at, left| {
            if phones[at as usize].stage == Stage::Ready {
                left.retain(|old| {
                    let stands = now.saturating_sub(old.since) > patience;
                    if stands {
                        tally.count(Count::TakeoversStood);
                    }
                    !stands
                });
            }
            !left.is_empty()
        });
    }

    /// The phone calls at that moment, or when the broker is there again.
    pub(super) fn come_back(&mut self, at: u32, when: u64) {
        self.phones[at as usize].stage = Stage::Returning;
        if let Some(gate) = &mut self.gate {
            gate.waiting.push(at);
            self.mark(at);
        } else {
            self.returns.push(Reverse((when, at)));
        }
    }

    /// Counts the phone to the storm.
    fn mark(&mut self, at: u32) {
        if !std::mem::replace(&mut self.in_storm[at as usize], true) {
            self.shared.storm.dropped.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn begin_storm(&mut self, storm: Storm, began: u64) {
        self.in_storm = vec![false; self.phones.len()];
        (self.gate, self.storm) = (None, None);
        let ready = self.phones.iter().filter(|p| p.stage == Stage::Ready);
        let ready = ready.count() as u32;
        if storm.back == Back::WhenListening {
            return self.close_gate(ready > 0, began);
        }
        self.storm = Some(Storming {
            storm,
            began,
            next: 0,
            ready,
            due: (storm.fraction * f64::from(ready)).round() as u32,
        });
    }

    /// All phones are in it: those that are away wait from now on, the others when the broker has ended their connections.
    fn close_gate(&mut self, any_ready: bool, began: u64) {
        let mut gate = Gate {
            waiting: Vec::new(),
            next_probe: u64::MAX,
        };
        if !any_ready {
            gate.lost(began);
        }
        self.gate = Some(gate);
        for at in 0..self.phones.len() as u32 {
            if self.phones[at as usize].stage == Stage::Ready {
                self.mark(at);
            }
        }
        for Reverse((_, at)) in std::mem::take(&mut self.returns) {
            self.come_back(at, began);
        }
        if self.phones.is_empty() {
            self.gate = None;
            self.shared.storm.threads_done.fetch_add(1, Release);
        }
    }

    /// Drops what a storm has still to drop, a bounded part of it; returns when there is more to do.
    pub(super) fn do_storm(&mut self, now: u64) -> u64 {
        let Some(mut storming) = self.storm.take() else {
            return self.probe(now);
        };
        let end = (storming.next + STORM_PER_TURN).min(self.phones.len() as u32);
        for at in storming.next..end {
            if self.phones[at as usize].stage != Stage::Ready {
                continue;
            }
            let goes = self.rng.u32(0..storming.ready.max(1)) < storming.due;
            storming.ready = storming.ready.saturating_sub(1);
            if goes {
                storming.due -= 1;
                self.storm_one(at, &storming, now);
            }
        }
        storming.next = end;
        if (end as usize) < self.phones.len() {
            self.storm = Some(storming);
            return now;
        }
        self.shared.storm.threads_done.fetch_add(1, Release);
        u64::MAX
    }

    fn storm_one(&mut self, at: u32, storming: &Storming, now: u64) {
        self.mark(at);
        self.hang_up(at, storming.storm.leave == Leave::Clean, now);
        let within = match storming.storm.back {
            Back::Within(time) => clock::nanos(time).max(1),
            // The gate has those that wait for the broker.
            Back::AtOnce | Back::WhenListening => 1,
        };
        if self.phones[at as usize].stage != Stage::Returning {
            let back = storming.began + self.rng.u64(0..within);
            self.come_back(at, back);
        }
    }

    /// Lets one phone try whether the broker is there again; returns when the next one may.
    fn probe(&mut self, now: u64) -> u64 {
        let Some(gate) = &mut self.gate else {
            return u64::MAX;
        };
        if now < gate.next_probe {
            return gate.next_probe;
        }
        gate.next_probe = now + PROBE_EVERY;
        if let Some(at) = gate.waiting.pop() {
            self.set_out(at, now);
        }
        now + PROBE_EVERY
    }
}

/// Ends a connection with a reset; see the head of `driver`.
pub(crate) fn reset(stream: TcpStream) {
    // Without it the port waits a minute. Nothing else depends on it.
    drop(Socket::from(stream).set_linger(Some(Duration::ZERO)));
}
