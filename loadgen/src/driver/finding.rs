//! How a phone finds the server: straight to the plan's addresses, or with a ticket as an app would do it (see [`crate::tickets`]).
//!
//! Whoever is to be connected comes through [`Driver::set_out`] and ends in [`Driver::dial`], now or later, or in a back-off.
//!
//! Time that the lookup makes a phone wait is no latency of the server: connect-to-ready counts from the moment at which the phone may call.
//! How long tickets take, and how long phones are told to wait, are histograms of their own.

use std::cmp::Reverse;
use std::rc::Rc;

use mio::Token;

use super::Driver;
use crate::clock::{self, MILLI};
use crate::orders::FleetPlan;
use crate::phone::Stage;
use crate::stats::{Count, Latencies, record};
use crate::tickets::Tickets;
use crate::tickets::answer::{Answer, Endpoint, Refusal, Retry, Route};
use crate::tickets::desk::{DESK, Desk, Question, Said};
use crate::tickets::wallet::{Held, Wallet};

/// The lookup may put a phone off so many times in a row. Then it goes on as if the lookup were gone: patience ends somewhere.
const MOST_PUT_OFF: u8 = 7;

/// Phones that are looked at in one turn for tickets that should be refreshed.
const REFRESH_PER_TURN: u32 = 4096;

/// The walk over all phones begins anew after so long.
const REFRESH_EVERY: u64 = 250 * MILLI;

/// Questions of the walk that wait at most: it goes on when they are answered, and phones without a connection don't wait behind it.
const REFRESH_WAITING: usize = 64;

/// What a thread with tickets has beside its phones.
pub(super) struct Finding {
    plan: Tickets,
    desk: Desk,
    wallet: Wallet,
    /// The list that the app was delivered with.
    delivered: Rc<Route>,
    /// The walk for old tickets: the next phone, and when.
    next: u32,
    next_at: u64,
    /// Of its questions, those not yet answered.
    refreshing: usize,
    /// The walk asks for phones that have no ticket yet, too.
    collects: bool,
    failed: Vec<Question>,
}

impl Finding {
    pub(super) fn of(plan: &FleetPlan, phones: usize, now: u64) -> Option<Self> {
        let tickets = plan.tickets.clone()?;
        Some(Self {
            desk: Desk::new(&tickets),
            wallet: Wallet::new(phones, now),
            delivered: Rc::new(Route::of_addresses(&plan.targets)),
            plan: tickets,
            next: 0,
            next_at: 0,
            refreshing: 0,
            collects: false,
            failed: Vec::new(),
        })
    }

    /// User name and password of the phone's next call.
    pub(super) fn credentials(&self, at: u32, now: u64) -> Option<(&str, &[u8])> {
        Some((self.plan.user(), self.wallet.token(at, now)?))
    }

    /// The connection failed, or the server ended it.
    pub(super) fn lost(&mut self, at: u32, was_ready: bool) {
        self.wallet.lost(at, was_ready);
    }

    /// The phone is ready.
    pub(super) fn arrived(&mut self, at: u32) {
        self.wallet.arrived(at);
    }

    /// What every back-off has at least, and the longest first one and the longest of all that comes on top of it, with full jitter.
    pub(super) fn retry(&self, at: u32) -> (u64, u64, u64) {
        let retry = self.wallet.route(at).unwrap_or(&self.delivered).retry;
        let after = if self.plan.pacing { retry.after } else { 0 };
        (
            u64::from(after) * MILLI,
            u64::from(retry.min) * MILLI,
            u64::from(retry.max) * MILLI,
        )
    }
}

impl Driver {
    /// Phones that are away fetch their tickets from now on, before they are to call.
    pub(super) fn collect_tickets(&mut self) {
        if let Some(finding) = &mut self.finding {
            finding.collects = true;
            (finding.next, finding.next_at) = (0, 0);
        }
    }

    /// The phone is to be connected, planned for that moment.
    pub(super) fn set_out(&mut self, at: u32, planned: u64) {
        let number = self.number(at);
        let Some(finding) = &mut self.finding else {
            let targets = &self.shared.plan.targets;
            let target = targets[number as usize % targets.len()];
            return self.dial(at, target, planned);
        };
        let (now, wallet) = (clock::now(), &mut finding.wallet);
        if wallet.take_due(at) {
            return self.call_by_ticket(at, planned);
        }
        if finding.plan.cache && wallet.held(at, now) == Held::Fresh && !wallet.is_lost(at) {
            self.tally.count(Count::CacheHits);
            return self.call_by_ticket(at, planned);
        }
        self.phones[at as usize].stage = Stage::Asking;
        finding.desk.ask(at, number, planned, now);
    }

    /// Calls where the phone's ticket says.
    fn call_by_ticket(&mut self, at: u32, planned: u64) {
        let number = self.number(at);
        let Some(finding) = &mut self.finding else {
            return;
        };
        finding.wallet.set_fallback(at, false);
        let tried = finding.wallet.tried(at);
        let route = finding.wallet.route(at).unwrap_or(&finding.delivered);
        if let Some(endpoint) = route.choose(number, tried) {
            if endpoint.fallback {
                self.tally.count(Count::Fallbacks);
            }
            self.dial(at, endpoint.addr, planned);
        }
    }

    /// There is no ticket, old or new: calls an address of the fallback list, which is that of an older ticket, or the delivered one.
    fn call_fallback(&mut self, at: u32, said: &[Endpoint], planned: u64) {
        let number = self.number(at);
        let Some(finding) = &mut self.finding else {
            return;
        };
        finding.wallet.set_fallback(at, true);
        let tried = finding.wallet.tried(at);
        let said = Route {
            endpoints: said.to_vec(),
            retry: Retry::default(),
        };
        let endpoint = said
            .choose_fallback(number, tried)
            .or_else(|| finding.wallet.route(at)?.choose_fallback(number, tried))
            .or_else(|| finding.delivered.choose(number, tried));
        if let Some(endpoint) = endpoint {
            self.tally.count(Count::Fallbacks);
            self.dial(at, endpoint.addr, planned);
        }
    }

    /// Lets the desk do what is due, and asks for phones whose tickets grow old; returns when there is more to do.
    pub(super) fn ask_lookup(&mut self, now: u64) -> u64 {
        let Some(finding) = &mut self.finding else {
            return u64::MAX;
        };
        let mut next = u64::MAX;
        if finding.plan.cache {
            next = self.refresh(now);
        }
        let Some(finding) = &mut self.finding else {
            return next;
        };
        let mut failed = std::mem::take(&mut finding.failed);
        next = next.min(finding.desk.work(self.poll.registry(), now, &mut failed));
        for question in failed.drain(..) {
            self.failed(&question, now);
        }
        if let Some(finding) = &mut self.finding {
            finding.failed = failed;
        }
        next
    }

    /// Asks for a bounded part of the phones that are ready and whose tickets should be refreshed, and of those that are to have their first one.
    fn refresh(&mut self, now: u64) -> u64 {
        let phones = self.phones.len() as u32;
        let (first, stride) = (self.shared.plan.first + self.index, self.stride);
        let Some(finding) = &mut self.finding else {
            return u64::MAX;
        };
        if now < finding.next_at || finding.refreshing >= REFRESH_WAITING {
            return finding.next_at.max(now + MILLI);
        }
        let end = (finding.next + REFRESH_PER_TURN).min(phones);
        let room = REFRESH_WAITING - finding.refreshing;
        let (list, wallet) = (&self.phones, &finding.wallet);
        let wants = |at: &u32| match list[*at as usize].stage {
            Stage::Ready => wallet.is_stale(*at, now),
            Stage::Away => finding.collects && wallet.lacks(*at, now),
            _ => false,
        };
        let wanting: Vec<u32> = (finding.next..end).filter(wants).take(room).collect();
        // Where there was no more room, the walk goes on behind the last one that found some.
        finding.next = match wanting.last() {
            Some(&last) if wanting.len() == room => last + 1,
            _ => end,
        };
        for at in wanting {
            // Until the answer is there it is not asked for again; if it fails, not before its back-off.
            let (_, min, max) = finding.retry(at);
            let later = now + self.rng.u64(min..=max.max(min));
            finding.wallet.refresh_later(at, later);
            finding.refreshing += 1;
            finding.desk.ask(at, first + at * stride, now, now);
        }
        if finding.next >= phones {
            finding.next = 0;
            finding.next_at = now + REFRESH_EVERY;
        }
        finding.next_at.max(now)
    }

    /// Something happened to a connection to the lookup.
    pub(super) fn desk_event(&mut self, token: Token, latency: &mut Latencies) {
        let Some(finding) = &mut self.finding else {
            return;
        };
        let Some((question, said)) = finding.desk.event(token, self.poll.registry()) else {
            return;
        };
        let now = clock::now();
        match said {
            Said::Ticket(answer) => {
                record(&mut latency.ticket, now.saturating_sub(question.planned));
                self.ticket(&question, &answer, now, latency);
            }
            Said::Later(refusal) => self.put_off(&question, &refusal, now),
            Said::Nothing => self.failed(&question, now),
        }
    }

    /// Whether the phone waits for an answer; if not, the answer refreshes its ticket and nothing else.
    fn waits(&mut self, at: u32) -> bool {
        let waits = self.phones[at as usize].stage == Stage::Asking;
        if let Some(finding) = &mut self.finding
            && !waits
        {
            finding.refreshing = finding.refreshing.saturating_sub(1);
        }
        waits
    }

    fn ticket(&mut self, question: &Question, answer: &Answer, now: u64, latency: &mut Latencies) {
        let at = question.at;
        self.tally.count(Count::Tickets);
        let waits = self.waits(at);
        let Some(finding) = &mut self.finding else {
            return;
        };
        finding.wallet.put(at, answer, now);
        if !waits {
            return;
        }
        let wait = if finding.plan.pacing {
            clock::nanos(answer.connect_after)
        } else {
            0
        };
        if wait == 0 {
            return self.call_by_ticket(at, now);
        }
        self.tally.count(Count::Paced);
        record(&mut latency.paced, wait);
        finding.wallet.set_due(at);
        self.wait_until(at, now + wait);
    }

    /// The lookup has no time for it now.
    fn put_off(&mut self, question: &Question, refusal: &Refusal, now: u64) {
        let at = question.at;
        self.tally.count(Count::TicketsPutOff);
        if !self.waits(at) {
            return;
        }
        let Some(finding) = &mut self.finding else {
            return;
        };
        let times = finding.wallet.put_off(at);
        if times >= MOST_PUT_OFF {
            return self.go_without(at, &refusal.fallback, now);
        }
        let wait = if finding.plan.pacing {
            // Nobody before that time, and not all at it.
            let least = clock::nanos(refusal.retry_after);
            let (_, first, _) = finding.retry(at);
            least + self.rng.u64(0..=least.max(first))
        } else {
            self.back_off(at, times)
        };
        self.wait_until(at, now + wait);
    }

    /// The lookup gave no answer, or none that can be used.
    fn failed(&mut self, question: &Question, now: u64) {
        self.tally.count(Count::TicketsFailed);
        if self.waits(question.at) {
            self.go_without(question.at, &[], now);
        }
    }

    /// The phone goes on with what it has; `said` is a fallback list that came without a ticket.
    fn go_without(&mut self, at: u32, said: &[Endpoint], now: u64) {
        let holds = self
            .finding
            .as_ref()
            .is_some_and(|f| f.plan.cache && f.wallet.held(at, now) != Held::Nothing);
        if holds {
            self.tally.count(Count::CacheSaves);
            self.call_by_ticket(at, now);
        } else {
            self.call_fallback(at, said, now);
        }
    }

    /// The phone comes back at that moment, whatever a storm has to say about it: the lookup has said when.
    fn wait_until(&mut self, at: u32, when: u64) {
        self.phones[at as usize].stage = Stage::Returning;
        self.returns.push(Reverse((when, at)));
    }
}

/// Whether an event is the desk's.
pub(super) fn is_desk(token: Token) -> bool {
    token.0 & DESK != 0
}
