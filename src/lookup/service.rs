//! From a question to a ticket: who may ask, which nodes, which slot, what the answer says. No HTTP here, and no clock is read.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use super::LookupShared;
use super::ask::Ask;
use super::asker::{self, Grant};
use super::labels::Labels;
use super::nodes::{Load, Node, Snapshot, Table};
use super::pacing::{Bounds, Bucket, Full, Pacer, Sample};
use super::policy::{self, Random};
use super::ticket::{Endpoint, KeepAlive, Lasting, Retry, Ticket, VERSION};
use crate::config::resolved;
use crate::ids::ReactorId;
use crate::limits;
use crate::routing::greet;
use crate::topic::TopicHasher;
use crate::topic::scope;

/// What is asked of the service is asked at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// By the clock that nobody sets.
    pub(super) nanos: u64,
    /// By the clock on the wall.
    pub(super) unix_millis: u64,
}

/// An answer that is no error.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// A ticket as JSON, its tag, and the seconds it may be kept without asking again; none: a slot was given, ask before you come again.
    Ticket {
        json: Vec<u8>,
        tag: Tag,
        keep: Option<u64>,
    },
    /// What the client has is still true, for so many seconds.
    Unchanged { tag: Tag, keep: u64 },
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTicket {
    /// Who asks may not, or may not for this client.
    Asker(asker::Refused),
    /// No node takes clients.
    NoNode,
    /// No slot within the horizon, for so many seconds.
    NoSlot(u32),
    /// The token can't be signed.
    NoToken,
}

/// Names what lasts of a ticket, and the second until which that one may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    hash: u64,
    refresh: u64,
}

impl Tag {
    /// As it stands between the quotes of an `ETag`.
    pub(super) fn text(self) -> String {
        format!("{:016x}-{:x}", self.hash, self.refresh)
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let (hash, refresh) = text.split_once('-')?;
        Some(Self {
            hash: u64::from_str_radix(hash, 16).ok()?,
            refresh: u64::from_str_radix(refresh, 16).ok()?,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    config: resolved::Lookup,
    shared: LookupShared,
    table: Arc<Table>,
    pacing: Mutex<Pacing>,
    /// The same in every process: an `ETag` is good for all nodes and outlives a restart.
    tags: TopicHasher,
}

#[derive(Debug)]
struct Pacing {
    requests: Bucket,
    own: Pacer,
    /// By name; those of nodes that are gone are thrown out when the table is looked at.
    others: HashMap<String, Pacer>,
    looked: Option<Look>,
    /// Different in every process: it spreads those who come again.
    random: Random,
}

/// What the reactors had counted at the last look.
#[derive(Debug)]
struct Look {
    at: u64,
    accepted: u64,
    /// Of each reactor: its turns, those before which it slept, and when it last made one.
    turns: Vec<(u64, u64, u64)>,
}

impl Service {
    pub(super) fn new(
        config: resolved::Lookup,
        shared: LookupShared,
        table: Arc<Table>,
        seed: u64,
    ) -> Self {
        let bounds = Bounds {
            floor: config.pace_floor,
            ceiling: config.pace_ceiling,
            horizon: config.pace_horizon,
        };
        let pacing = Pacing {
            requests: Bucket::new(config.rate),
            own: Pacer::new(bounds),
            others: HashMap::new(),
            looked: None,
            random: Random::seeded(seed),
        };
        Self {
            config,
            shared,
            table,
            pacing: Mutex::new(pacing),
            tags: TopicHasher::fixed(0x5711_1A1E_7100_0001),
        }
    }

    /// This node's name.
    pub(super) fn node(&self) -> &str {
        &self.config.node
    }

    /// This node is on its way out.
    pub(super) fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// The answer to a question. `known`: what the asker has already.
    pub(super) fn ticket(
        &self,
        ask: &Ask,
        credentials: &asker::Credentials<'_>,
        reached: IpAddr,
        known: &[Tag],
        now: Now,
    ) -> Result<Answer, NoTicket> {
        let access = self.shared.access();
        let grant = asker::check(&self.config.ask, &access, ask, credentials, now.unix_millis)
            .map_err(NoTicket::Asker)?;
        let nodes = self.nodes();
        let client = inner_id(&grant, &ask.client_id);
        // The client's own randomness: it is sent to the same nodes each time.
        let mut random = Random::seeded(self.tags.hash(&client).0);
        let most = limits::LOOKUP_ENDPOINT_NODES + limits::LOOKUP_FALLBACK_NODES;
        let mut order = policy::order(&nodes, &ask.labels, most, &mut random);
        if order.is_empty() {
            return Err(NoTicket::NoNode);
        }
        let unknown = |tag: &&Tag| {
            // A tag that was made up can't stretch anything: the client is its own judge of what it has.
            let second = now.unix_millis / 1000;
            (second + 1..=second + u64::from(self.config.ttl)).contains(&tag.refresh)
        };
        let wait = {
            let mut pacing = self.pacing();
            let (first, wait) = pacing
                .slot(&nodes, &order, now.nanos)
                .map_err(|full| NoTicket::NoSlot(pacing.spread(full.retry_after, 30)))?;
            // Whose slot it is comes first.
            order[..=first].rotate_right(1);
            wait
        };
        let lasting = self.lasting(&nodes, &order, &client, reached);
        if lasting.endpoints.is_empty() {
            return Err(NoTicket::NoNode);
        }
        let mut hashed = serde_json::to_vec(&lasting).map_err(|_| NoTicket::NoToken)?;
        hashed.extend_from_slice(client.as_bytes());
        let hash = self.tags.hash_bytes(&hashed).0;
        if wait <= limits::LOOKUP_NOW_MILLIS
            && let Some(tag) = known.iter().filter(unknown).find(|tag| tag.hash == hash)
        {
            let keep = tag.refresh - now.unix_millis / 1000;
            return Ok(Answer::Unchanged { tag: *tag, keep });
        }
        let lives = self.lives();
        let tag = Tag {
            hash,
            refresh: now.unix_millis / 1000 + lives,
        };
        let token = asker::token(&access, ask, &grant, self.config.ttl, now.unix_millis)
            .map_err(|_| NoTicket::NoToken)?;
        let ticket = Ticket {
            v: VERSION,
            server_time: now.unix_millis,
            lasting: &lasting,
            token,
            refresh_at: tag.refresh * 1000,
            connect_after: wait,
        };
        let json = serde_json::to_vec(&ticket).map_err(|_| NoTicket::NoToken)?;
        let keep = (wait <= limits::LOOKUP_NOW_MILLIS).then_some(lives);
        Ok(Answer::Ticket { json, tag, keep })
    }

    /// Whether one more question is answered now.
    pub(super) fn admits(&self, now: Now) -> bool {
        self.pacing().requests.take(now.nanos)
    }

    /// Seconds that somebody should wait who asks too often; others wait another time.
    pub(super) fn patience(&self) -> u32 {
        self.pacing().spread(1, 9)
    }

    /// Where to connect when there is no ticket.
    pub(super) fn fallback(&self, reached: IpAddr) -> Vec<Endpoint> {
        let nodes = self.nodes();
        let mut pacing = self.pacing();
        let most = limits::LOOKUP_FALLBACK_NODES;
        let order = policy::order(&nodes, &Labels::none(), most, &mut pacing.random);
        fallback_of(&nodes, order.iter().copied(), reached)
    }

    /// Looks at what the reactors have counted since the last time.
    pub(super) fn look(&self, now: Now) {
        let counters = &self.shared.shared.counters;
        let reactors = (0..self.shared.reactors).map(|at| counters.of(ReactorId(at as u16)));
        let mut pacing = self.pacing();
        let mut look = Look {
            at: now.nanos,
            accepted: 0,
            turns: Vec::with_capacity(self.shared.reactors),
        };
        let (mut online, mut lag_micros, mut is_busy) = (0, 0, false);
        for (at, counters) in reactors.enumerate() {
            look.accepted += counters.accepted.get();
            online += counters.connections.get();
            let (turns, slept) = (counters.turns.get(), counters.wakeups.get());
            let before = pacing.looked.as_ref().map(|looked| looked.turns[at]);
            let (turns_before, slept_before, since) = before.unwrap_or((0, 0, now.nanos));
            let made = turns.wrapping_sub(turns_before);
            let slept_since = slept.wrapping_sub(slept_before);
            is_busy |= before.is_some() && made > 8 && slept_since < made / 8;
            // A loop that stands still tells nothing; it makes a turn a tick, whatever happens.
            let still = if made > 0 { 0 } else { now.nanos - since };
            let tick = limits::TICK_MILLIS * 1000;
            let still_micros = (still / 1000).saturating_sub(2 * tick);
            lag_micros = lag_micros.max(counters.lag_micros.get()).max(still_micros);
            let moved = if made > 0 { now.nanos } else { since };
            look.turns.push((turns, slept, moved));
        }
        if let Some(before) = pacing.looked.take() {
            pacing.own.observe(Sample {
                nanos: look.at.saturating_sub(before.at),
                accepted: look.accepted.wrapping_sub(before.accepted),
                lag_micros,
                is_busy,
            });
        }
        pacing.looked = Some(look);
        let load = Load {
            online,
            capacity: u64::from(self.shared.max_connections),
            connects: pacing.own.taken(),
            rate: u64::from(pacing.own.rate()),
            lag_micros,
        };
        self.table.set_own(load, self.is_draining());
        let nodes = self.table.snapshot();
        pacing
            .others
            .retain(|name, _| nodes[1..].iter().any(|node| *node.name == **name));
    }

    fn pacing(&self) -> std::sync::MutexGuard<'_, Pacing> {
        self.pacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drain is seen at once, and not with the next look.
    fn nodes(&self) -> Snapshot {
        let nodes = self.table.snapshot();
        if !self.is_draining() || nodes[0].draining {
            return nodes;
        }
        let me = Node {
            draining: true,
            ..Node::clone(&nodes[0])
        };
        std::iter::once(Arc::new(me))
            .chain(nodes[1..].iter().cloned())
            .collect()
    }

    /// What lasts of a ticket for this client, with the nodes in this order.
    fn lasting<'a>(
        &self,
        nodes: &'a [Arc<Node>],
        order: &[usize],
        client: &str,
        reached: IpAddr,
    ) -> Lasting<'a> {
        let (first, rest) = order.split_at(limits::LOOKUP_ENDPOINT_NODES.min(order.len()));
        let mut endpoints = Vec::new();
        let mut priority = 0;
        for at in first {
            let node = &nodes[*at];
            let seen = || seen(node, reached);
            let before = endpoints.len();
            if *at == 0 {
                endpoints.extend(seen().filter_map(|address| {
                    let port = self.home_port(client, &address)?;
                    let home = address.at_port(port);
                    Some(Endpoint::new(home, priority, node.weight, true))
                }));
            }
            priority += u8::from(endpoints.len() > before);
            endpoints
                .extend(seen().map(|address| Endpoint::new(address, priority, node.weight, false)));
            priority += 1;
        }
        let fallback = first[1..].iter().chain(rest).chain(&first[..1]).copied();
        let seconds = |seconds: u32| f64::from(seconds);
        Lasting {
            node: &nodes[order[0]].name,
            endpoints,
            fallback: fallback_of(nodes, fallback, reached),
            ttl: self.config.ttl,
            retry: Retry {
                min: seconds(self.config.retry_min),
                max: seconds(self.config.retry_max),
                jitter: "full",
                retry_after: 0,
            },
            keep_alive: KeepAlive {
                min: self.config.keep_alive_min,
                max: self.config.keep_alive_max,
                default: self.config.keep_alive,
            },
            max_connection_age: self.config.max_connection_age,
        }
    }

    /// The port of the client's home reactor, where an address leads straight to this server's own sockets.
    fn home_port(&self, client: &str, address: &super::endpoint::Address) -> Option<u16> {
        let base = self.shared.home_ports?;
        let is_own = |listen: &std::net::SocketAddr| listen.port() == address.port;
        let is_straight = address.proto == super::endpoint::Proto::Mqtt
            && !address.tls
            && self.shared.listen.iter().any(is_own);
        let home = greet::home(&self.shared.shared.hasher, client, self.shared.reactors);
        is_straight.then(|| base.checked_add(home.0)).flatten()
    }

    /// Seconds after which a client should ask again: seven to eight tenths of its ticket's time, so that those who asked together don't again.
    fn lives(&self) -> u64 {
        let ttl = u64::from(self.config.ttl);
        let spread = self.pacing().random.draw() % 1000;
        (ttl * 7 / 10 + ttl * spread / 10_000).max(1)
    }
}

/// The client identifier as the server carries it, with its tenant.
fn inner_id(grant: &Grant, client_id: &str) -> String {
    scope::prefix(&grant.tenant) + client_id
}

/// The addresses of nodes in this order, each node behind the one before.
fn fallback_of(
    nodes: &[Arc<Node>],
    order: impl Iterator<Item = usize>,
    reached: IpAddr,
) -> Vec<Endpoint> {
    let node = |(rank, at): (usize, usize)| {
        let node = &nodes[at];
        seen(node, reached)
            .map(move |address| Endpoint::new(address, rank as u8, node.weight, false))
    };
    order
        .take(limits::LOOKUP_FALLBACK_NODES)
        .enumerate()
        .flat_map(node)
        .collect()
}

/// A node's addresses, for somebody who has reached this machine at `reached`.
fn seen(node: &Node, reached: IpAddr) -> impl Iterator<Item = super::endpoint::Address> + '_ {
    node.addresses
        .iter()
        .filter_map(move |address| address.seen_at(reached))
}

impl Pacing {
    /// A slot at the first of these nodes that has one; the position in `order`, and milliseconds. None has: the shortest wait.
    fn slot(
        &mut self,
        nodes: &[Arc<Node>],
        order: &[usize],
        now: u64,
    ) -> Result<(usize, u64), Full> {
        let mut soonest = None::<Full>;
        for (position, at) in order.iter().enumerate() {
            let given = if *at == 0 {
                self.own.slot(now)
            } else {
                let node = &nodes[*at];
                let share = u64::from(node.weight) * u64::from(self.own.rate());
                let rate = u32::try_from(share / u64::from(nodes[0].weight.max(1)));
                let own = &self.own;
                let pacer = self
                    .others
                    .entry_ref(&*node.name)
                    .or_insert_with(|| own.fresh());
                pacer.set_rate(rate.unwrap_or(u32::MAX));
                pacer.slot(now)
            };
            match given {
                Ok(wait) => return Ok((position, wait)),
                Err(full) => {
                    let sooner = |known: Full| known.retry_after <= full.retry_after;
                    soonest = soonest.filter(|known| sooner(*known)).or(Some(full));
                }
            }
        }
        Err(soonest.unwrap_or(Full { retry_after: 1 }))
    }

    /// So many seconds, and up to `more` on top.
    fn spread(&mut self, seconds: u32, more: u32) -> u32 {
        seconds.saturating_add((self.random.draw() % u64::from(more + 1)) as u32)
    }
}
