//! The tickets of a thread's phones: 24 bytes each beside the phone's own 64, and the token in one arena.
//!
//! Tokens of one lookup are of nearly one length, so the arena has a place of the same size for each phone, which grows for all if a longer
//! token comes. Endpoints and back-off are the same in very many tickets, so they stand once.

use std::collections::HashSet;
use std::rc::Rc;

use super::answer::{Answer, Route};
use crate::clock::{self, MILLI};

/// Places grow in steps of this many bytes, so that a token which is a digit longer changes nothing.
const STEP: usize = 32;

/// Routes that nobody uses any more are looked for when there are twice as many as were left the last time, and this many at least.
const FEWEST_ROUTES: usize = 64;

/// What is remembered beside a phone.
#[derive(Clone, Debug, Default)]
struct Ticket {
    /// None: it never had one.
    route: Option<Rc<Route>>,
    /// Milliseconds after the wallet was made: valid until, and to be refreshed from.
    expires: u32,
    refresh: u32,
    /// Bytes of the token; 0: none.
    token: u16,
    /// Calls that led nowhere since the phone was ready, or was sent elsewhere.
    tried: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Ticket>() == 24);

/// The phone has an answer and waits for its time: it calls without asking again.
const DUE: u8 = 1;

/// The last connection failed, or was ended by the server.
const LOST: u8 = 2;

/// The phone calls an address of the fallback list, without a token.
const FALLBACK: u8 = 4;

/// Times in a row that the lookup put the phone off: three bits.
const PUT_OFF: u8 = 0b0011_1000;
const PUT_OFF_ONE: u8 = 0b0000_1000;

/// How good a phone's ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// There is none, or it has expired.
    Nothing,
    /// It is valid, but should be refreshed.
    Stale,
    /// It is valid.
    Fresh,
}

/// The tickets of all phones of a thread.
#[derive(Debug)]
pub(crate) struct Wallet {
    began: u64,
    tickets: Vec<Ticket>,
    routes: HashSet<Rc<Route>>,
    /// How many routes there may be before unused ones are removed.
    routes_until: usize,
    /// Bytes of a place in `tokens`.
    place: usize,
    tokens: Vec<u8>,
}

impl Wallet {
    /// For so many phones, none of which has one.
    pub(crate) fn new(phones: usize, now: u64) -> Self {
        Self {
            began: now,
            tickets: vec![Ticket::default(); phones],
            routes: HashSet::new(),
            routes_until: FEWEST_ROUTES,
            place: 0,
            tokens: Vec::new(),
        }
    }

    /// Milliseconds since it was made; a run that takes longer than 49 days has tickets that don't expire.
    fn millis(&self, at: u64) -> u32 {
        u32::try_from(at.saturating_sub(self.began) / MILLI).unwrap_or(u32::MAX)
    }

    /// Keeps an answer.
    pub(crate) fn put(&mut self, at: u32, answer: &Answer, now: u64) {
        let route = self.share(&answer.route);
        let expires = self.millis(now + clock::nanos(answer.ttl));
        let refresh = self.millis(now + clock::nanos(answer.refresh));
        let token = answer.token.as_deref().unwrap_or_default().as_bytes();
        if token.len() > self.place {
            self.widen(token.len().next_multiple_of(STEP));
        }
        let from = at as usize * self.place;
        self.tokens[from..from + token.len()].copy_from_slice(token);
        let ticket = &mut self.tickets[at as usize];
        // Where the lookup sends the phone again where it failed, it goes on down the list.
        let is_same = ticket.route.as_ref().is_some_and(|r| Rc::ptr_eq(r, &route));
        *ticket = Ticket {
            route: Some(route),
            expires,
            refresh,
            token: token.len() as u16,
            tried: if is_same { ticket.tried } else { 0 },
            flags: 0,
        };
    }

    fn share(&mut self, route: &Rc<Route>) -> Rc<Route> {
        if let Some(known) = self.routes.get(route) {
            return Rc::clone(known);
        }
        if self.routes.len() >= self.routes_until {
            self.routes.retain(|route| Rc::strong_count(route) > 1);
            self.routes_until = (2 * self.routes.len()).max(FEWEST_ROUTES);
        }
        self.routes.insert(Rc::clone(route));
        Rc::clone(route)
    }

    fn widen(&mut self, place: usize) {
        let mut tokens = vec![0; place * self.tickets.len()];
        for (at, ticket) in self.tickets.iter().enumerate() {
            let len = usize::from(ticket.token);
            tokens[at * place..][..len].copy_from_slice(&self.tokens[at * self.place..][..len]);
        }
        (self.place, self.tokens) = (place, tokens);
    }

    /// How good the phone's ticket is.
    pub(crate) fn held(&self, at: u32, now: u64) -> Held {
        let (ticket, now) = (&self.tickets[at as usize], self.millis(now));
        // That a refresh waits for its back-off makes no ticket live longer.
        match ticket.route {
            Some(_) if now >= ticket.expires => Held::Nothing,
            Some(_) if now < ticket.refresh => Held::Fresh,
            Some(_) => Held::Stale,
            None => Held::Nothing,
        }
    }

    /// The password; none without a valid ticket, and for a call to the fallback list alone.
    pub(crate) fn token(&self, at: u32, now: u64) -> Option<&[u8]> {
        let ticket = &self.tickets[at as usize];
        let is_valid = self.held(at, now) != Held::Nothing && ticket.flags & FALLBACK == 0;
        let from = at as usize * self.place;
        (is_valid && ticket.token > 0).then(|| &self.tokens[from..][..usize::from(ticket.token)])
    }

    /// Where to call, by the last ticket.
    pub(crate) fn route(&self, at: u32) -> Option<&Rc<Route>> {
        self.tickets[at as usize].route.as_ref()
    }

    /// Calls that led nowhere.
    pub(crate) fn tried(&self, at: u32) -> u8 {
        self.tickets[at as usize].tried
    }

    /// A call led nowhere, or else the server ended a connection that had been ready, which says nothing against its address.
    pub(crate) fn lost(&mut self, at: u32, was_ready: bool) {
        let ticket = &mut self.tickets[at as usize];
        ticket.tried = ticket.tried.saturating_add(u8::from(!was_ready));
        ticket.flags = ticket.flags & !DUE | LOST;
    }

    /// The phone is ready.
    pub(crate) fn arrived(&mut self, at: u32) {
        let ticket = &mut self.tickets[at as usize];
        (ticket.tried, ticket.flags) = (0, 0);
    }

    /// Its last connection was lost.
    pub(crate) fn is_lost(&self, at: u32) -> bool {
        self.tickets[at as usize].flags & LOST != 0
    }

    /// It calls next, without asking.
    pub(crate) fn set_due(&mut self, at: u32) {
        self.tickets[at as usize].flags |= DUE;
    }

    /// Its time has come; true once.
    pub(crate) fn take_due(&mut self, at: u32) -> bool {
        let flags = &mut self.tickets[at as usize].flags;
        let due = *flags & DUE != 0;
        *flags &= !DUE;
        due
    }

    /// It calls the fallback list alone, or no longer.
    pub(crate) fn set_fallback(&mut self, at: u32, on: bool) {
        let flags = &mut self.tickets[at as usize].flags;
        *flags = *flags & !FALLBACK | if on { FALLBACK } else { 0 };
    }

    /// The lookup puts it off. Returns how often it did so in a row, seven at the most.
    pub(crate) fn put_off(&mut self, at: u32) -> u8 {
        let flags = &mut self.tickets[at as usize].flags;
        if *flags & PUT_OFF != PUT_OFF {
            *flags += PUT_OFF_ONE;
        }
        (*flags & PUT_OFF) / PUT_OFF_ONE
    }

    /// Its ticket is valid, or was, and should be refreshed by now.
    pub(crate) fn is_stale(&self, at: u32, now: u64) -> bool {
        let ticket = &self.tickets[at as usize];
        ticket.route.is_some() && self.millis(now) >= ticket.refresh
    }

    /// It never had a ticket, and isn't to wait before it asks.
    pub(crate) fn lacks(&self, at: u32, now: u64) -> bool {
        let ticket = &self.tickets[at as usize];
        ticket.route.is_none() && self.millis(now) >= ticket.refresh
    }

    /// It does not ask for a ticket, or for another one, before then.
    pub(crate) fn refresh_later(&mut self, at: u32, when: u64) {
        self.tickets[at as usize].refresh = self.millis(when);
    }

    /// User-space bytes beside the phones themselves.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.tickets.capacity() * size_of::<Ticket>() + self.tokens.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SECOND;

    fn answer(token: &str, port: u16) -> Answer {
        Answer {
            route: Rc::new(Route::of_addresses(&[([127, 0, 0, 1], port).into()])),
            token: Some(token.into()),
            ttl: Duration::from_secs(10),
            refresh: Duration::from_secs(5),
            connect_after: Duration::ZERO,
        }
    }

    #[test]
    fn a_ticket_ages() {
        let mut wallet = Wallet::new(2, SECOND);
        assert_eq!(wallet.held(1, SECOND), Held::Nothing);
        wallet.put(1, &answer("secret", 1), 2 * SECOND);
        for (seconds, held) in [
            (2, Held::Fresh),
            (6, Held::Fresh),
            (7, Held::Stale),
            (11, Held::Stale),
            (12, Held::Nothing),
        ] {
            let now = seconds * SECOND;
            assert_eq!(wallet.held(1, now), held, "{seconds}");
            let token = (held != Held::Nothing).then_some(&b"secret"[..]);
            assert_eq!(wallet.token(1, now), token, "{seconds}");
        }
        assert_eq!(wallet.held(0, 2 * SECOND), Held::Nothing);
        assert!(wallet.is_stale(1, 7 * SECOND) && !wallet.lacks(1, 7 * SECOND));
        assert!(wallet.lacks(0, 7 * SECOND) && !wallet.is_stale(0, 7 * SECOND));
        // To call it is still known where.
        assert!(wallet.route(1).is_some());
        wallet.refresh_later(1, 20 * SECOND);
        assert!(!wallet.is_stale(1, 12 * SECOND));
        wallet.refresh_later(0, 20 * SECOND);
        assert!(!wallet.lacks(0, 12 * SECOND));
        assert_eq!(wallet.held(1, 12 * SECOND), Held::Nothing);
        assert_eq!(wallet.held(1, 9 * SECOND), Held::Fresh);
    }

    #[test]
    fn tokens_of_any_length_stay_with_their_phones() {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut wallet = Wallet::new(20, 0);
        let mut tokens = vec![String::new(); 20];
        for _ in 0..2000 {
            let at = rng.usize(0..20);
            let len = rng.usize(1..400);
            tokens[at] = std::iter::repeat_with(|| rng.alphanumeric())
                .take(len)
                .collect();
            wallet.put(at as u32, &answer(&tokens[at], 1), 0);
            for (at, token) in tokens.iter().enumerate() {
                let held = wallet.token(at as u32, 0).unwrap_or_default();
                assert_eq!(held, token.as_bytes());
            }
        }
    }

    /// What the head says: 24 bytes and a token's place, whatever the number of endpoints.
    #[test]
    fn a_phone_with_a_ticket_costs_24_bytes_and_its_token() {
        let mut wallet = Wallet::new(1000, 0);
        assert_eq!(wallet.bytes(), 24_000);
        (0..1000).for_each(|at| wallet.put(at, &answer(&"x".repeat(250), 1), 0));
        assert_eq!(wallet.bytes(), 1000 * (24 + 256));
        assert_eq!(wallet.routes.len(), 1);
    }

    #[test]
    fn routes_that_nobody_uses_go() {
        let mut wallet = Wallet::new(3, 0);
        for port in 1..5000 {
            wallet.put(u32::from(port) % 3, &answer("x", port), 0);
            assert!(wallet.routes.len() <= FEWEST_ROUTES + 1);
        }
    }

    #[test]
    fn what_a_phone_is_about_is_remembered_bit_by_bit() {
        let mut wallet = Wallet::new(1, 0);
        wallet.put(0, &answer("x", 1), 0);
        assert!(!wallet.take_due(0));
        wallet.set_due(0);
        wallet.lost(0, false);
        wallet.lost(0, true);
        // Whoever lost a connection meanwhile asks again.
        assert!(!wallet.take_due(0) && wallet.is_lost(0));
        wallet.set_due(0);
        assert!(wallet.take_due(0) && !wallet.take_due(0));
        assert!(
            (1..=9)
                .map(|_| wallet.put_off(0))
                .eq([1, 2, 3, 4, 5, 6, 7, 7, 7])
        );
        assert!(wallet.is_lost(0));
        wallet.set_fallback(0, true);
        assert_eq!((wallet.token(0, 0), wallet.tried(0)), (None, 1));
        wallet.set_fallback(0, false);
        assert!(wallet.token(0, 0).is_some());
        wallet.put(0, &answer("x", 1), 0);
        assert_eq!((wallet.tried(0), wallet.is_lost(0)), (1, false));
        wallet.put(0, &answer("x", 2), 0);
        assert_eq!(wallet.tried(0), 0);
        wallet.lost(0, false);
        wallet.arrived(0);
        assert!(!wallet.is_lost(0) && wallet.tried(0) == 0);
    }
}
