//! A member of a group ends its session while it has messages, and the server dies at each moment until they are with another member: none is
//! lost, and none comes twice at QoS 2.

use std::collections::BTreeMap;
use std::sync::Arc;

use stillwire::clock::Millis;
use stillwire::config::resolved::{Mqtt, QueueFull};
use stillwire::ids::ReactorId;
use stillwire::routing::{Kept, Shard, Shared, Slices, home};
use stillwire::store::Recovered;
use stillwire::store::heap::Loss;
use stillwire::store::log::{Log, Opened};
use stillwire::topic::TopicHasher;
use stillwire::wire::{
    self, Connect, Packet, Qos, ReasonCode, RetainHandling, SubscribeOptions, Version, frame,
};

use super::client::{Client, Dial, Heard};
use super::crash::{EPOCH, LIMIT, shape};
use super::network::{Network, Wires};
use super::random::Random;

const SHARDS: usize = 2;
const MESSAGES: u8 = 5;

/// Two shards, and what is between them.
struct Pair {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    network: Network,
    disk: bool,
    now: Millis,
    /// What the second member has read, by message.
    got: BTreeMap<u8, usize>,
}

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Of the messages, and of the second member's subscription.
    qos: Qos,
    /// Of the first member's subscription.
    first: Qos,
    /// Seconds that the publisher's session outlives its connection.
    publisher: u32,
    disk: bool,
    /// The second member reads while the messages come.
    online: bool,
    /// It has room for one message only.
    tight: bool,
}

fn hasher() -> TopicHasher {
    TopicHasher::fixed(7)
}

fn name(at: usize, role: &str) -> String {
    (0..)
        .map(|n| format!("{role}-{n}"))
        .find(|name| home(&hasher(), name, SHARDS).index() == at)
        .unwrap()
}

impl Pair {
    fn new(case: Case) -> Self {
        let mqtt = Mqtt {
            queue_messages: if case.tight { 1 } else { 1000 },
            queue_full: QueueFull::Refuse,
            sys_interval: 0,
            ..Mqtt::default()
        };
        let mut pair = Self {
            shards: Vec::new(),
            shared: Arc::new(Shared::new(SHARDS, 1000, hasher(), mqtt)),
            network: Network::new(SHARDS, 1000),
            disk: case.disk,
            now: Millis(1000),
            got: BTreeMap::new(),
        };
        let logs = (0..SHARDS).map(|at| {
            let log = Log::in_memory(LIMIT, at as u64, at as u32, shape());
            let damage = Vec::new();
            Recovered::read(Opened { log, damage }, at as u64)
        });
        pair.start(logs.collect());
        pair
    }

    fn start(&mut self, logs: Vec<Recovered>) {
        let restore = |(at, found)| {
            let kept = Kept::new(found, self.disk, EPOCH);
            let shared = Arc::clone(&self.shared);
            let seed = at as u64 ^ self.now.0;
            Shard::restore(ReactorId(at as u16), shared, 64, seed, self.now, kept)
                .with_slices(Slices::default())
        };
        self.shards = logs.into_iter().enumerate().map(restore).collect();
        for shard in &mut self.shards {
            shard.restored();
            if self.disk {
                shard.store_mut().log_mut().hold_sync();
            }
        }
    }

    fn crash(&mut self, random: &mut Random) {
        let image = |shard: &Shard| {
            let loss = match self.disk {
                true => Loss::Power(random.next()),
                false => Loss::Process,
            };
            shard.store().log().image(loss)
        };
        let images: Vec<_> = self.shards.iter().map(image).collect();
        let mqtt = self.shared.mqtt.clone();
        self.shared = Arc::new(Shared::new(SHARDS, 1000, hasher(), mqtt));
        let read = |(at, image): (usize, &_)| {
            let opened = Log::from_image(image, LIMIT, at as u64, at as u32, shape());
            Recovered::read(opened, at as u64)
        };
        let logs = images.iter().enumerate().map(read).collect();
        self.now = self.now.plus_secs(1);
        self.start(logs);
        self.network.crash(random);
    }

    fn connect(&mut self, client: &mut Client, clean: bool) {
        self.connect_for(client, clean, 100_000);
    }

    /// With a session that outlives its connection by so many seconds.
    fn connect_for(&mut self, client: &mut Client, clean: bool, expiry: u32) {
        let reactor = home(&hasher(), &client.name, SHARDS);
        let conn = self.network.open(reactor, 0, client.version, 1 << 20);
        let dial = Dial {
            clean,
            expiry,
            receive_maximum: 100,
            aliases: 0,
            will: None,
        };
        let packet = client.connect(conn, dial);
        self.send(client, &packet);
    }

    fn send(&mut self, client: &Client, packet: &[u8]) {
        let Some(conn) = client.conn else { return };
        let (network, now) = (&mut self.network, self.now);
        let (me, session) = (
            network.conns[conn].reactor.index(),
            network.conns[conn].session,
        );
        let mut wires = Wires { network, me };
        let frame = frame::split(packet, u32::MAX).unwrap().unwrap();
        match session {
            Some(session) => {
                self.shards[me].packet(session, &frame, now, &mut wires);
            }
            None => {
                let connect = Connect::decode(frame.body).unwrap();
                let id = Network::id(conn);
                let attached = self.shards[me].connect(
                    id,
                    &connect,
                    &stillwire::access::Identity::default(),
                    now,
                    &mut wires,
                );
                network.conns[conn].session = Some(attached.unwrap().session);
            }
        }
        self.shards[me].check_invariants();
    }

    /// A client reads and answers one packet. False: there is none.
    fn hear(&mut self, client: &mut Client) -> bool {
        let Some(conn) = client.conn else {
            return false;
        };
        let Some((bytes, _)) = self.network.read(conn) else {
            return false;
        };
        let frame = frame::split(&bytes, u32::MAX).unwrap().unwrap();
        let packet: Packet<'_> = wire::decode(&frame, client.version).unwrap();
        if let Heard::Message { payload, again, .. } = client.hear(&packet)
            && !again
        {
            *self.got.entry(payload[0]).or_default() += 1;
        }
        while let Some(reply) = client.replies.pop_front() {
            self.send(client, &reply);
        }
        true
    }

    /// One letter, slice or sync. False: there is nothing to do.
    fn step(&mut self) -> bool {
        for at in 0..SHARDS {
            if self.shards[at].has_work() {
                let mut wires = Wires {
                    network: &mut self.network,
                    me: at,
                };
                self.shards[at].work(self.now, &mut wires);
                self.shards[at].check_invariants();
                return true;
            }
        }
        if let Some((from, to)) = self.network.busy_pair(0) {
            let mail = self.network.letter(from, to).unwrap();
            let mut wires = Wires {
                network: &mut self.network,
                me: to,
            };
            self.shards[to].mail(mail, self.now, &mut wires);
            self.shards[to].check_invariants();
            return true;
        }
        let sync = |shard: &mut Shard| {
            let before = shard.store().synced();
            shard.store_mut().log_mut().complete_sync();
            shard.store().synced() > before
        };
        self.disk && self.shards.iter_mut().any(sync)
    }

    /// Until nothing is left to do, for some seconds.
    fn settle(&mut self, clients: &mut [&mut Client]) {
        for _ in 0..20 {
            while self.step() || clients.iter_mut().any(|client| self.hear(client)) {}
            self.now = self.now.plus_secs(1);
            for at in 0..SHARDS {
                let mut wires = Wires {
                    network: &mut self.network,
                    me: at,
                };
                self.shards[at].tick(self.now, &mut wires);
            }
        }
    }
}

/// The server dies after so many steps. False: it was done before.
fn run(case: Case, moment: usize) -> bool {
    let mut random = Random::new(moment as u64);
    let mut pair = Pair::new(case);
    let client = |at, role| Client::new(name(at, role), Version::V5);
    let (mut first, mut second) = (client(0, "first"), client(1, "second"));
    let mut publisher = client(1, "publisher");
    let options = |qos| SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    pair.connect_for(&mut publisher, true, case.publisher);
    for (member, qos) in [(&mut first, case.first), (&mut second, case.qos)] {
        pair.connect(member, true);
        pair.settle(&mut [member]);
        let name = member.name.clone();
        let filters = [("$share/g/s", options(qos)), (&*name, options(qos))];
        let packet = member.subscribe(&filters, None);
        pair.send(member, &packet);
        pair.settle(&mut [member]);
        let packet = member.disconnect(ReasonCode::SUCCESS);
        pair.send(member, &packet);
        member.conn = None;
        if member.name.starts_with("first") {
            for number in 0..MESSAGES {
                // The first of a queue is always taken.
                let packet = publisher.publish("s", &[number], case.qos, false, None);
                pair.send(&publisher, &packet);
                pair.settle(&mut [&mut publisher]);
            }
            assert!(case.tight || publisher.out.is_empty(), "acknowledged");
        }
    }
    let acknowledged: Vec<u8> = (0..MESSAGES)
        .filter(|number| publisher.out.iter().all(|out| out.payload[0] != *number))
        .filter(|number| !case.tight || *number == 0)
        .collect();
    if case.tight {
        // Then the second has no room until it is back.
        let packet = publisher.publish(&second.name, &[MESSAGES], case.qos, false, None);
        pair.send(&publisher, &packet);
        pair.settle(&mut [&mut publisher]);
    }
    if case.online {
        pair.connect(&mut second, false);
        pair.settle(&mut [&mut second]);
    }
    // The first member's session ends.
    pair.connect(&mut first, true);
    let mut done = true;
    for _ in 0..moment {
        if !(pair.step() || pair.hear(&mut second)) {
            done = false;
            break;
        }
    }
    pair.crash(&mut random);
    pair.settle(&mut []);
    pair.connect(&mut second, false);
    pair.settle(&mut [&mut second]);
    // After a power failure the end may not have been recorded, and nobody was told of it.
    pair.connect(&mut first, true);
    pair.settle(&mut [&mut first, &mut second]);
    for number in acknowledged {
        let times = pair.got.get(&number).copied().unwrap_or(0);
        let right = match case.qos {
            Qos::ExactlyOnce => times == 1,
            _ => times >= 1,
        };
        assert!(
            right,
            "{case:?}, crash after {moment}: message {number} came {times} times"
        );
    }
    done
}

#[test]
fn what_waited_for_a_member_that_is_gone_outlives_a_crash() {
    let mut moments = 0;
    for (qos, first, publisher) in [
        (Qos::AtLeastOnce, Qos::AtLeastOnce, 100_000),
        (Qos::ExactlyOnce, Qos::ExactlyOnce, 100_000),
        // Who has such a message is known by a name of its own.
        (Qos::ExactlyOnce, Qos::AtLeastOnce, 0),
    ] {
        for n in 0..8 {
            let case = Case {
                qos,
                first,
                publisher,
                disk: n & 1 != 0,
                online: n & 2 != 0,
                tight: n & 4 != 0,
            };
            let mut moment = 0;
            while run(case, moment) {
                moment += 1;
            }
            moments += moment;
        }
    }
    println!("{moments} moments");
    assert!(moments > 100, "{moments} moments only");
}
