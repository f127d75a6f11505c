//! The loop. Each turn does a bounded amount of each kind of work, in this order:
//!
//! 1. poll: sleep until something happens, at most until the next tick; not at all if the last turn left something
//! 2. connections handed over to this reactor, then mail from other shards
//! 3. events of connections, then those that an earlier turn left
//! 4. new connections
//! 5. once a tick: timers, and the shard's own
//! 6. a slice of fan-out
//! 7. what this turn found out: broken connections, backlogs that went down
//! 8. out: one write a connection, one batch and wake-up a reactor, connections that go home, and then the closes
//!
//! Of mail, of events and of what was left, no more is handled in a turn than leads to `limits::DELIVERIES_PER_TURN` deliveries.
//!
//! So what arrives is answered in the turn that reads it, with one system call, and nobody waits for more than a turn's bounds.

use std::collections::VecDeque;
use std::sync::Arc;

use super::handover::{Arrival, Letter};
use super::mailbox::Batch;
use super::slots::State;
use super::token::{self, Source};
use super::{Order, Reactor};
use crate::limits;
use crate::routing::port::CloseCause;
use crate::sys;
use crate::sys::events::Events;

/// A mailbox or a hand-over pair is full: try again so soon. Its owner works on it, and spinning would take the core from it.
const RETRY_MILLIS: u64 = 1;

impl Reactor {
    /// Turn until the server says stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TURN);
        let mut work = Work::default();
        let mut drain_until = None;
        loop {
            let timeout = self.timeout(work);
            let mailbox = &self.lines.boxes[self.me.index()];
            let timeout = if timeout == 0 || mailbox.may_sleep() {
                timeout
            } else {
                0
            };
            // The descriptor is ours and the list of events too: nothing can be wrong with the call.
            if let Err(error) = events.wait(&self.poll, timeout) {
                panic!("reactor {}: the poller failed: {error}", self.me.0);
            }
            self.lines.boxes[self.me.index()].stay_awake();
            let begin = sys::clock::nanos();
            self.now = self.lines.moment(begin);
            self.io.connections.set_now(self.now);
            self.turns += 1;
            work = self.turn(&events);
            match self.lines.order() {
                Order::Run => {}
                Order::Stop => return,
                Order::Drain => {
                    let longest = self.drain_timeout.as_nanos() as u64;
                    let until = *drain_until.get_or_insert_with(|| begin.saturating_add(longest));
                    work.now |= self.drain();
                    if (self.io.connections.slots.is_empty() && !work.later) || begin >= until {
                        return;
                    }
                }
            }
            let counters = self.io.connections.counters();
            counters.turns.add(1);
            counters.wakeups.add(u64::from(timeout > 0));
            // Only a turn that met one of its bounds can be a long one; the clock is not read for the others.
            if work.now {
                self.longest_turn = self.longest_turn.max(sys::clock::nanos() - begin);
            }
        }
    }

    /// How many milliseconds to sleep after a turn that left `work`.
    fn timeout(&self, work: Work) -> u64 {
        if work.now {
            return 0;
        }
        let tick = limits::TICK_MILLIS - self.now.0 % limits::TICK_MILLIS;
        let wait = match work {
            _ if work.later => RETRY_MILLIS,
            _ if self.lending.is_lending() => tick.min(limits::LOAN_MILLIS),
            _ => tick,
        };
        self.accept_resumes_in().map_or(wait, |resumes| {
            let millis = resumes.as_nanos().div_ceil(1_000_000) as u64;
            millis.min(wait)
        })
    }

    fn turn(&mut self, events: &Events) -> Work {
        let mut work = Work::default();
        self.note_sources(events);
        self.lending.close_taken();
        if std::mem::take(&mut self.arrivals_ready) {
            self.arrive();
        }
        work.now |= self.read_mail();
        // Those who were left wait already; each is served once, whether or not an event comes for it too.
        let leftovers = self
            .io
            .connections
            .leftovers()
            .min(limits::LEFTOVERS_PER_TURN);
        self.shard.begin();
        let mut next = events.iter().skip(1);
        for event in events.iter() {
            if let Some(next) = next.next()
                && let Source::Connection(conn) = token::source(next.token)
            {
                self.io.connections.slots.expect(conn);
            }
            if let Source::Connection(conn) = token::source(event.token) {
                let ended = event.is_ended();
                self.on_event(conn, event.is_readable(), ended, event.is_writable());
            }
        }
        self.handle_heard();
        // Anew, so that neither of the two starves the other.
        self.shard.begin();
        for _ in 0..leftovers {
            if self.is_spent() {
                break;
            }
            let Some(conn) = self.io.connections.next_leftover() else {
                break;
            };
            self.serve(conn);
        }
        self.accept();
        work.now |= self.timers();
        if self.shard.has_work() {
            work.now |= self.shard.work(self.now, &mut self.io);
        }
        self.report();
        self.io.connections.flush();
        work.now |= self.io.connections.close_finished();
        work.later |= self.io.post.flush();
        let counters = self.io.connections.counters();
        counters.mail_waits.add(u64::from(work.later));
        counters.mail_batches.add(self.io.post.take_posted());
        work.later |= self.send_departures();
        // Those who wait for mail to leave are served when some has: `later` is set then.
        work.now |= self.io.connections.has_work(self.io.post.is_crowded());
        work
    }

    /// What the events say about anything but connections.
    fn note_sources(&mut self, events: &Events) {
        for event in events.iter() {
            match token::source(event.token) {
                Source::Listener(index) => {
                    if let Some(listener) = self.listeners.get_mut(index) {
                        listener.ready = true;
                    }
                }
                Source::Arrivals => self.arrivals_ready = true,
                Source::Wake | Source::Connection(_) => {}
            }
        }
    }

    /// Mail from other reactors. True: there is more than one turn takes.
    fn read_mail(&mut self) -> bool {
        self.shard.begin();
        let mut arrived = 0;
        for at in 1..=limits::LETTERS_PER_TURN {
            if at % limits::LOOK_AHEAD == 0 {
                self.expect_mail();
            }
            let Some(letter) = self.inbox.pop_front() else {
                let Some(batch) = self.lines.boxes[self.me.index()].take() else {
                    return false;
                };
                match batch {
                    Batch::One(letter) => self.inbox.push_back(letter),
                    Batch::Many(letters) => {
                        let emptied = std::mem::replace(&mut self.inbox, VecDeque::from(letters));
                        self.io.post.reuse(Vec::from(emptied));
                        self.expect_mail();
                    }
                }
                continue;
            };
            match letter {
                Letter::Mail(mail) => self.shard.mail(mail, self.now, &mut self.io),
                Letter::Arrival(Arrival { socket, bytes }) => {
                    if let Some(socket) = self.land(socket) {
                        self.arrived(socket, &bytes);
                    }
                    arrived += 1;
                }
                Letter::Answer(answer) => self.gate_answered(*answer),
                Letter::Access(access) => {
                    self.access = Arc::clone(&access);
                    self.shard.set_access(access);
                }
            }
            if self.shard.is_spent() || arrived >= limits::ARRIVALS_PER_TURN {
                break;
            }
        }
        true
    }

    /// The letters that are there already, and more than one, will be handled.
    fn expect_mail(&self) {
        if self.inbox.len() > 1 {
            let mail = self.inbox.iter().filter_map(|letter| match letter {
                Letter::Mail(mail) => Some(mail),
                Letter::Arrival(_) | Letter::Answer(..) | Letter::Access(_) => None,
            });
            self.shard.expect_mail(mail, &self.io);
        }
    }

    /// Timers, if a tick has begun since. True: there are more than one turn handles.
    fn timers(&mut self) -> bool {
        let tick = self.now.tick();
        if self.ticked < tick {
            self.ticked = tick;
            self.unix_millis = sys::clock::unix_millis();
            self.shard.tick(self.now, &mut self.io);
            let (log, unreadable) = (self.shard.store().log(), self.shard.unreadable());
            for news in self.trouble.look(log, unreadable, self.now) {
                news.say(self.me.0);
            }
            let longest = std::mem::take(&mut self.longest_turn) / 1000;
            // The loop sleeps until the tick at most, so what came meanwhile has waited about as long as the tick has. A millisecond is how
            // exactly it wakes.
            let late = (self.now.0 % limits::TICK_MILLIS).saturating_sub(1) * 1000;
            let counters = self.io.connections.counters();
            counters.turn_micros.set(longest);
            counters.lag_micros.set(longest.max(late));
            self.timers_left = true;
            self.give_back();
        }
        if self.timers_left {
            let mut due = std::mem::take(&mut self.due);
            self.timers_left = self.io.connections.expire(&mut due);
            for index in due.drain(..) {
                if let Some((conn, cause)) = self.io.connections.overdue(index) {
                    self.report_lost(conn, cause);
                }
            }
            self.due = due;
        }
        self.timers_left
    }

    /// Give back to the system what a crowd has taken, once half of it has left, and once all of it has.
    fn give_back(&mut self) {
        let held = self.io.connections.slots.len();
        self.crowd.most = self.crowd.most.max(held);
        self.crowd.came |= held >= limits::CROWD;
        let is_half_gone = self.crowd.most >= limits::CROWD && held <= self.crowd.most / 2;
        let is_gone = held == 0 && self.crowd.came;
        if is_half_gone || is_gone {
            self.crowd.came = held > 0;
            self.crowd.most = held;
            self.io.connections.give_back();
            self.io.post.give_back();
            self.inbox.shrink_to_fit();
            self.due = Vec::new();
            self.shard.give_back();
            self.crowd.echoes = limits::CROWD_ECHOES;
        }
        // Other threads free what was theirs, and what was allocated here, a little later.
        if self.crowd.echoes > 0 {
            self.crowd.echoes -= 1;
            sys::memory::give_back();
        }
    }

    /// Tell the shard what became known in this turn while it could not be told.
    fn report(&mut self) {
        for conn in self.io.connections.take_drained() {
            if let Some(slot) = self.io.connections.slots.get(conn)
                && slot.state == State::Attached
            {
                let session = slot.session;
                self.shard.drained(session, self.now, &mut self.io);
            }
        }
        while let Some((conn, cause)) = self.io.connections.next_lost() {
            match self.io.connections.slots.get(conn).map(|slot| slot.state) {
                // The shard has let go of it since.
                Some(State::Closing) => self.io.connections.free(conn),
                Some(_) => self.report_lost(conn, cause),
                None => {}
            }
        }
    }

    /// The server ends: no new connections, and a slice of those that there are is told to go. True: there are more.
    fn drain(&mut self) -> bool {
        // Dropping them closes them, and the poller forgets what is closed.
        self.listeners.clear();
        let capacity = self.io.connections.slots.capacity() as u32;
        if self.drained_to >= capacity {
            // Some may have been on their way here: another round each tick.
            if self.drained_at == self.ticked || self.io.connections.slots.is_empty() {
                return false;
            }
            self.drained_to = 0;
        }
        self.drained_at = self.ticked;
        let end = capacity.min(self.drained_to + limits::DRAIN_SLICE);
        for index in self.drained_to..end {
            if let Some(conn) = self.io.connections.slots.conn_at(index) {
                self.dismiss(conn);
            }
        }
        self.drained_to = end;
        end < capacity
    }

    fn dismiss(&mut self, conn: crate::ids::ConnId) {
        let Some(slot) = self.io.connections.slots.get(conn) else {
            return;
        };
        match slot.state {
            State::Attached => {
                let session = slot.session;
                self.shard.shutdown(session, self.now, &mut self.io);
            }
            State::Greeting => self
                .io
                .connections
                .begin_close(conn, CloseCause::ServerShutdown),
            State::Closing | State::Lingering => {}
        }
    }
}

/// What a turn left to do.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// At once.
    now: bool,
    /// When another reactor has made room.
    later: bool,
}
