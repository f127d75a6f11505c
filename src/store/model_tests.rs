//! The store against a plain model: random operations, cleaning, full disks, and crashes at any moment. A failure tells its seed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::format::Header;
use super::heap::{Image, Loss};
use super::log::Shape;
use super::*;

const KEY: u64 = 0xfeed_beef_0123_4567;
const LIMIT: u64 = 4 << 20;
const SMALL: Shape = Shape {
    smallest: 4096,
    largest: 16_384,
    payload: 1500,
};
const SESSIONS: u32 = 8;

/// A session's value: what its state and notes add up to.
type Words = Vec<u32>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Waiting {
        body: Vec<u8>,
        meta: Vec<u8>,
        tag: Option<u8>,
    },
    Received,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Peer {
    serial: u32,
    words: Words,
    queue: BTreeMap<u32, Thing>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    peers: BTreeMap<u32, Peer>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn encode(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Words {
    let words = bytes.chunks(4);
    words
        .map(|word| u32::from_le_bytes(word.try_into().expect("whole words")))
        .collect()
}

impl Model {
    /// What a store holds.
    fn of(store: &Store) -> Self {
        let mut model = Self::default();
        for session in store.sessions() {
            let (state, notes) = store.state(session.idx).expect("a state");
            let mut peer = Peer {
                serial: session.serial,
                words: decode(state),
                ..Peer::default()
            };
            peer.words.extend(notes.into_iter().flat_map(decode));
            if let Some(queue) = store.queue(session.idx) {
                let span = queue.tail().wrapping_sub(queue.head());
                for seq in (0..span).map(|at| queue.head().wrapping_add(at)) {
                    let thing = match queue.state(seq) {
                        State::Gone => continue,
                        State::Received => Thing::Received,
                        State::Waiting => {
                            let item = store.item(session.idx, seq).expect("an item");
                            Thing::Waiting {
                                body: item.body.to_vec(),
                                meta: item.meta.to_vec(),
                                tag: item.tag,
                            }
                        }
                    };
                    peer.queue.insert(seq, thing);
                }
            }
            model.peers.insert(session.idx.0, peer);
        }
        for (key, value) in store.values() {
            model.values.insert(key.to_vec(), value.to_vec());
        }
        model
    }

    /// The queues alone: after cleaning a state holds its notes.
    fn queues(&self) -> Vec<(u32, u32, usize)> {
        let peers = self.peers.iter();
        peers
            .map(|(idx, peer)| (*idx, peer.serial, peer.queue.len()))
            .collect()
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(sides)) as u32
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.roll(sides) == 0
    }
}

/// A store, its model, and what happened since the last sync.
struct World {
    dice: Dice,
    store: Store,
    model: Model,
    serial: u32,
    /// Counts whatever has to be told apart.
    next: u32,
    /// Where the next message of each index goes if its queue is empty.
    starts: HashMap<u32, u32>,
    /// The model after each step since the last complete sync, that first.
    past: Vec<Model>,
    /// How much of it the sync that is under way covers.
    wanted: usize,
    /// Bodies by session's serial and number, ever.
    ever: HashMap<(u32, u32), HashSet<Vec<u8>>>,
    moved: u32,
}

fn reopen(image: &Image) -> Recovered {
    let recovered = Recovered::read(Log::from_image(image, LIMIT, KEY, 0, SMALL), KEY);
    recovered.store.check_invariants();
    recovered
}

impl World {
    fn new(seed: u64) -> Self {
        let mut store = Store::new(Log::in_memory(LIMIT, KEY, 0, SMALL), KEY);
        store.set_slack(8192);
        store.log_mut().hold_sync();
        Self {
            dice: Dice(seed),
            store,
            model: Model::default(),
            serial: 0,
            next: 0,
            starts: HashMap::new(),
            past: vec![Model::default()],
            wanted: 0,
            ever: HashMap::new(),
            moved: 0,
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A session that is there.
    fn any(&mut self) -> Option<SessionId> {
        let at = self.dice.roll(SESSIONS);
        let (idx, peer) = self.model.peers.range(at..).next()?;
        Some(SessionId {
            idx: SessionIdx(*idx),
            serial: peer.serial,
        })
    }

    /// One of its entries, one of the first as a rule.
    fn any_entry(&mut self) -> Option<(SessionId, u32)> {
        let session = self.any()?;
        let queue = &self.model.peers[&session.idx.0].queue;
        let many = if self.dice.one_in(4) { 100 } else { 3 };
        let at = self.dice.roll(many.min(queue.len() as u32).max(1)) as usize;
        Some((session, *queue.keys().nth(at)?))
    }

    fn bytes(&mut self, most: u32) -> Vec<u8> {
        let number = self.number();
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(4 + self.dice.roll(most) as usize, number as u8);
        bytes
    }

    fn start(&mut self, session: SessionId) -> u32 {
        // Near the end of all numbers, for some.
        let first = if session.idx.0.is_multiple_of(3) {
            u32::MAX - 40
        } else {
            5
        };
        *self.starts.entry(session.idx.0).or_insert(first)
    }

    fn entered(&mut self, session: SessionId, seq: u32, thing: Thing) {
        self.starts.insert(session.idx.0, Queue::after(seq));
        if let Thing::Waiting { body, .. } = &thing {
            let bodies = self.ever.entry((session.serial, seq)).or_default();
            bodies.insert(body.clone());
        }
        let peer = self
            .model
            .peers
            .get_mut(&session.idx.0)
            .expect("it is there");
        assert_eq!(peer.queue.insert(seq, thing), None);
    }

    fn step(&mut self) {
        match self.dice.roll(25) {
            0 => self.create(),
            1..=3 => self.note(),
            4 => self.remove(),
            5..=8 => self.append(),
            9..=11 => self.fan_out(),
            12 | 13 => {
                if let Some((session, seq)) = self.any_entry() {
                    let queue = &mut self.model.peers.get_mut(&session.idx.0).unwrap().queue;
                    queue.insert(seq, Thing::Received);
                    _ = self.store.received(session, seq);
                }
            }
            14..=18 => {
                if let Some((session, seq)) = self.any_entry() {
                    let queue = &mut self.model.peers.get_mut(&session.idx.0).unwrap().queue;
                    queue.remove(&seq);
                    _ = self.store.done(session, seq);
                }
            }
            19 => {
                let (key, value) = (vec![b'k'; self.dice.roll(6) as usize], self.bytes(100));
                if self.store.keep(&key, &[&value]).is_ok() {
                    self.model.values.insert(key, value);
                }
            }
            20 => {
                let key = vec![b'k'; self.dice.roll(6) as usize];
                if self.store.forget(&key).is_ok() {
                    self.model.values.remove(&key);
                }
            }
            21 => {
                let before = self.store.end();
                let budget = self.dice.roll(2000) as usize;
                let model = &self.model;
                self.store.clean(budget, |session, _, out| {
                    let peer = &model.peers[&session.idx.0];
                    assert_eq!(peer.serial, session.serial);
                    out.extend(encode(&peer.words));
                });
                self.moved += u32::from(self.store.end() != before);
            }
            22 => {
                // Its owner begins to send; and may not have sent anything when it stops.
                if let Some(session) = self.any()
                    && let Some(queue) = self.store.queue_mut(session.idx)
                    && self.dice.one_in(3)
                {
                    queue.sent = Queue::after(queue.head());
                }
            }
            23 => {
                if let Some(session) = self.any() {
                    self.store.rest(session.idx);
                }
            }
            _ => {
                _ = self.store.commit();
            }
        }
        self.store.check_invariants();
        self.past.push(self.model.clone());
    }

    fn create(&mut self) {
        let idx = self.dice.roll(SESSIONS);
        let words = vec![self.number(); self.dice.roll(30) as usize + 1];
        let there = self.model.peers.get(&idx).map(|peer| peer.serial);
        let serial = match there {
            Some(serial) if self.dice.one_in(2) => serial,
            _ => self.serial + 1,
        };
        let session = SessionId {
            idx: SessionIdx(idx),
            serial,
        };
        if self.store.create(session, &encode(&words)).is_err() {
            return;
        }
        self.serial = self.serial.max(serial);
        let peer = self.model.peers.entry(idx).or_default();
        if peer.serial != serial {
            peer.queue.clear();
        }
        (peer.serial, peer.words) = (serial, words);
    }

    fn note(&mut self) {
        let Some(session) = self.any() else { return };
        let number = self.number();
        if self.store.note(session, &encode(&[number])).is_ok() {
            let peer = self.model.peers.get_mut(&session.idx.0).unwrap();
            peer.words.push(number);
        }
    }

    fn remove(&mut self) {
        let Some(session) = self.any() else { return };
        self.store.remove(session);
        self.model.peers.remove(&session.idx.0);
    }

    fn append(&mut self) {
        let Some(session) = self.any() else { return };
        let (meta, body, start) = (self.bytes(10), self.bytes(200), self.start(session));
        let (front, back) = body.split_at(body.len() / 2);
        if let Ok(seq) = self.store.append(session, start, &meta, &[front, back]) {
            let tag = None;
            self.entered(session, seq, Thing::Waiting { body, meta, tag });
        }
    }

    fn fan_out(&mut self) {
        let body = self.bytes(400);
        let Ok(shared) = self.store.share(&[&body]) else {
            return;
        };
        for _ in 0..self.dice.roll(6) {
            let Some(session) = self.any() else { break };
            let start = self.start(session);
            let (meta, tag) = if self.dice.one_in(4) {
                (self.bytes(20), None)
            } else {
                (Vec::new(), Some(self.dice.roll(4) as u8))
            };
            let appended = match tag {
                Some(tag) => self.store.append_shared(session, start, tag, shared),
                None => self.store.append_reference(session, start, &meta, shared),
            };
            if let Ok(seq) = appended {
                let body = body.clone();
                self.entered(session, seq, Thing::Waiting { body, meta, tag });
            }
            // In the middle of it something else may happen.
            if self.dice.one_in(8) {
                self.append();
            }
        }
        self.store.release(shared);
    }

    /// A sync begins or ends.
    fn sync(&mut self) {
        if self.dice.one_in(2) {
            if self.store.commit().is_ok() {
                self.store.want_sync();
                self.wanted = self.past.len() - 1;
            }
        } else {
            self.store.log_mut().complete_sync();
            self.past.drain(..self.wanted);
            self.wanted = 0;
        }
    }

    /// The process goes on with what a crash has left.
    fn restart(&mut self, recovered: Recovered) {
        self.store = recovered.store;
        self.store.set_slack(8192);
        self.store.log_mut().hold_sync();
        self.store.forget_notes();
        self.serial = self.serial.max(recovered.highest_serial);
        self.past = vec![self.model.clone()];
        self.wanted = 0;
        // States that cleaning rewrote count once more as states.
        for session in self.store.sessions().collect::<Vec<_>>() {
            let words = encode(&self.model.peers[&session.idx.0].words);
            _ = self.store.create(session, &words);
        }
        self.store.log_mut().complete_sync();
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    let mut moved = 0;
    for seed in 0..60 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..1500 {
            world.step();
            if world.dice.one_in(20) {
                world.sync();
            }
            if step % 300 == 299 {
                world.store.commit().unwrap();
                let recovered = reopen(&world.store.log().image(Loss::Process));
                assert_eq!((&recovered.damage[..], recovered.orphans), (&[][..], 0));
                assert_eq!(Model::of(&recovered.store), world.model);
                let (before, after) = (world.store.stats(), recovered.store.stats());
                assert_eq!(before.live, after.live);
                assert_eq!(before.bodies, after.bodies);
                world.restart(recovered);
            }
        }
        moved += world.moved;
    }
    assert!(moved > 400, "the cleaner was at work: {moved}");
}

#[test]
fn a_full_disk_loses_nothing_that_was_taken() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..1200 {
            match step % 400 {
                100 => {
                    // A few segments more, and then none.
                    let size = world.store.stats().log;
                    world.store.log_mut().set_limit(size + 20_000);
                }
                300 => world.store.log_mut().set_limit(LIMIT),
                399 => {
                    world.store.commit().unwrap();
                    let recovered = reopen(&world.store.log().image(Loss::Process));
                    assert_eq!(Model::of(&recovered.store), world.model);
                    world.restart(recovered);
                }
                _ => {}
            }
            world.step();
            world.store.log_mut().complete_sync();
        }
    }
}

/// Whether `part` is `whole` with some left out.
fn is_part(part: &[u32], whole: &[u32]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|word| rest.any(|other| other == word))
}

/// What a power failure left must be, thing by thing, as it was at the last sync or at some time since.
fn check_power(found: &Model, past: &[Model]) {
    for idx in 0..SESSIONS {
        let Some(peer) = found.peers.get(&idx) else {
            let gone = past.iter().any(|model| !model.peers.contains_key(&idx));
            assert!(gone, "session {idx} was synced, and is lost");
            continue;
        };
        let versions: Vec<&Peer> = past
            .iter()
            .filter_map(|model| model.peers.get(&idx))
            .filter(|version| version.serial == peer.serial)
            .collect();
        assert!(!versions.is_empty(), "session {idx} was over, and is back");
        let first = &versions[0].words;
        if versions
            .iter()
            .all(|version| version.words.starts_with(first))
        {
            let is_one = |version: &&Peer| is_part(&peer.words, &version.words);
            assert!(
                versions.iter().any(is_one),
                "session {idx}: {:?}",
                peer.words
            );
            let was_synced = past[0]
                .peers
                .get(&idx)
                .is_some_and(|it| it.serial == peer.serial);
            assert!(
                !was_synced || peer.words.starts_with(first),
                "session {idx} lost a note"
            );
        } else {
            // A state was replaced, and that may be lost while notes behind it are not.
            let any: HashSet<&u32> = versions.iter().flat_map(|it| &it.words).collect();
            assert!(peer.words.iter().all(|word| any.contains(word)));
        }
        let mut seqs: HashSet<u32> = peer.queue.keys().copied().collect();
        seqs.extend(versions.iter().flat_map(|version| version.queue.keys()));
        for seq in seqs {
            let thing = peer.queue.get(&seq);
            assert!(
                versions
                    .iter()
                    .any(|version| version.queue.get(&seq) == thing),
                "session {idx}, {seq}: {thing:?} never was"
            );
        }
    }
    let mut keys: HashSet<&Vec<u8>> = found.values.keys().collect();
    keys.extend(past.iter().flat_map(|model| model.values.keys()));
    for key in keys {
        let value = found.values.get(key);
        let versions = past.iter().map(|model| model.values.get(key));
        assert!(
            versions.into_iter().any(|it| it == value),
            "{key:?}: {value:?}"
        );
    }
}

#[test]
fn a_power_failure_takes_nothing_that_was_synced_and_mixes_nothing_up() {
    let mut lost = 0;
    for seed in 0..120 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..900 {
            world.step();
            if world.dice.one_in(15) {
                world.sync();
            }
            if step % 50 == 49 {
                let loss = Loss::Power(seed * 1000 + step);
                let recovered = reopen(&world.store.log().image(loss));
                let found = Model::of(&recovered.store);
                check_power(&found, &world.past);
                lost += usize::from(found.queues() != world.model.queues());
                if step % 300 == 299 {
                    world.model = found;
                    world.restart(recovered);
                }
            }
        }
    }
    assert!(lost > 100, "something was lost at all: {lost}");
}

#[test]
fn a_flipped_bit_is_reported_and_contained() {
    let mut seen = HashMap::new();
    for seed in 0..40 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.store.commit().unwrap();
        world.store.log_mut().complete_sync();
        let image = world.store.log().image(Loss::Process);
        let opened = Log::from_image(&image, LIMIT, KEY, 0, SMALL);
        let places: Vec<(Position, u64, Header)> = opened
            .log
            .records()
            .map(|record| record.unwrap())
            .map(|record| (record.at, record.end().0, record.header))
            .collect();
        for _ in 0..100 {
            let (at, end, header) = places[world.dice.roll(places.len() as u32) as usize];
            let byte = at.0 + u64::from(world.dice.roll((end - at.0) as u32));
            let mut image = image.clone();
            let (mut base, mut flipped) = (0, false);
            let mut files: Vec<_> = image.files.iter_mut().collect();
            files.sort_by_key(|file| file.number);
            for file in files {
                base = u64::from_le_bytes(file.bytes[24..32].try_into().unwrap());
                let offset = byte.wrapping_sub(base) as usize;
                if offset < file.bytes.len() {
                    file.bytes[offset] ^= 1 << world.dice.roll(8);
                    flipped = true;
                }
            }
            assert!(flipped, "{byte} is not in the log, which ends in {base}");
            let recovered = Recovered::read(Log::from_image(&image, LIMIT, KEY, 0, SMALL), KEY);
            recovered.store.check_invariants();
            assert_eq!(
                recovered.damage.len(),
                1,
                "{header:?}: {:?}",
                recovered.damage
            );
            let found = Model::of(&recovered.store);
            // What is there is as it was at some time.
            for (idx, peer) in &found.peers {
                for (seq, thing) in &peer.queue {
                    if let Thing::Waiting { body, .. } = thing {
                        let bodies = &world.ever[&(peer.serial, *seq)];
                        assert!(bodies.contains(body), "{idx}, {seq}");
                    }
                }
            }
            // And nobody else's changed.
            let differ = (0..SESSIONS)
                .filter(|idx| found.peers.get(idx) != world.model.peers.get(idx))
                .collect::<Vec<_>>();
            let values = found.values != world.model.values;
            match header.kind {
                Kind::Body | Kind::Fan => assert!(!values),
                Kind::Value | Kind::Forget => assert!(differ.is_empty()),
                _ => assert!(!values && differ.iter().all(|idx| *idx == header.session)),
            }
            *seen.entry(header.kind).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 11, "every kind was hit: {seen:?}");
}
