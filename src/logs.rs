//! The logs of a server: where they are, who writes which, and what happens when there are to be more or fewer of them.
//!
//! The data directory holds a manifest, with the keys that give each client its home, and one log a reactor. With another number of reactors the
//! homes are others: all logs are read and written anew, beside the old ones, before any reactor starts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::resolved::Config;
use crate::data_dir::DataDir;
use crate::ids::{ReactorId, SessionId, SessionIdx};
use crate::limits;
use crate::routing::home;
use crate::session::durable::{self, Body};
use crate::store::files::OpenError;
use crate::store::log::{Log, Shape};
use crate::store::manifest::{Manifest, ManifestError};
use crate::store::rehome::Moved;
use crate::store::syncer::{Syncer, Trouble};
use crate::store::{Recovered, Refused, Store};
use crate::topic::TopicHasher;

/// Why the stored sessions can't be had. The operator's to solve.
#[derive(Debug)]
pub enum LogsError {
    /// The manifest.
    Manifest(ManifestError),
    /// A log.
    Open(OpenError),
    /// No thread for the disk.
    Thread(io::Error),
    /// The logs can't be written anew for another number of reactors.
    Rewrite(PathBuf, String),
}

impl fmt::Display for LogsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Thread(error) => write!(
                f,
                "no thread for the disk: {error}; raise the limits of threads and memory"
            ),
            Self::Rewrite(path, why) => write!(
                f,
                "{}: cannot write the stored sessions anew for another number of reactors: {why}; make room on the disk, or start with as many reactors as before",
                path.display()
            ),
        }
    }
}

impl std::error::Error for LogsError {}

impl From<ManifestError> for LogsError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<OpenError> for LogsError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// See the module. Dropped after all reactors have ended: what was asked for is synced then.
#[derive(Debug)]
pub struct Logs {
    data: PathBuf,
    manifest: Manifest,
    shape: Shape,
    syncer: Syncer,
}

impl Logs {
    /// Finds the logs of a data directory, and makes them those of so many reactors. Blocks for as long as that takes.
    pub fn open(data: &DataDir, config: &Config, reactors: usize) -> Result<Arc<Self>, LogsError> {
        let data = data.path().to_owned();
        let reactors = reactors as u32;
        let delay = Duration::from_millis(u64::from(config.commit_delay));
        // A packet, with what stands around a message in the log.
        let payload = config.mqtt.max_packet_size as usize + limits::RECORD_MARGIN;
        let shape = Shape {
            payload,
            ..Shape::default()
        };
        let manifest = match Manifest::read(&data)? {
            Some(manifest) if manifest.reactors == reactors => {
                manifest.tidy(&data)?;
                manifest
            }
            Some(old) => {
                old.tidy(&data)?;
                let new = Manifest {
                    generation: old.generation + 1,
                    reactors,
                    ..old
                };
                info!(
                    "the stored sessions are of {} reactors, and are written anew for {reactors}",
                    old.reactors
                );
                rewrite(&data, &old, &new, shape)?;
                new.write(&data)?;
                new.tidy(&data)?;
                new
            }
            None => {
                let new = Manifest::new(reactors);
                new.write(&data)?;
                new
            }
        };
        let syncer = Syncer::start(delay).map_err(LogsError::Thread)?;
        Ok(Arc::new(Self {
            data,
            manifest,
            shape,
            syncer,
        }))
    }

    /// The hash that gives each client its home.
    pub fn hasher(&self) -> TopicHasher {
        TopicHasher::fixed(self.manifest.hash_key)
    }

    /// Reads the log of a reactor. `wake` is called in another thread when a sync is done.
    pub fn read(
        &self,
        reactor: ReactorId,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Recovered, OpenError> {
        let number = u32::from(reactor.0);
        let (directory, key) = (
            self.manifest.log(&self.data, number),
            self.manifest.key(number),
        );
        let opened = Log::open(&directory, key, number, self.shape, &self.syncer, wake)?;
        sync_directories(&self.data, &self.manifest)?;
        let found = Recovered::read(opened, key);
        report(&found);
        await_room(&found.store);
        Ok(found)
    }
}

/// The directories above the logs stay, whatever happens to the power: the logs see to their own files alone.
fn sync_directories(data: &Path, manifest: &Manifest) -> Result<(), OpenError> {
    for directory in [&*Manifest::directory(data, manifest.generation), data] {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
    }
    Ok(())
}

/// The first segment is being prepared: nobody is refused because of that. A full disk is no reason to wait, for what is stored can be read.
fn await_room(store: &Store) {
    while store.refuses() == Some(Refused::Full) {
        if let Some(trouble) = store.log().trouble() {
            warn!("{trouble}");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What could not be read is said, each stretch by file and offset.
fn report(found: &Recovered) {
    for damage in &found.damage {
        if damage.is_loss() {
            warn!("{damage}");
        } else {
            info!("{damage}");
        }
    }
    if found.orphans > 0 {
        warn!(
            "{} stored messages have lost their session or their text and are gone",
            found.orphans
        );
    }
}

// ---- another number of reactors ----

/// One of the new logs.
struct Target {
    store: Store,
    next: u32,
}

/// Sessions of one client: the newest is right.
fn newest(found: &[Recovered]) -> HashMap<String, (usize, SessionId)> {
    let mut newest: HashMap<String, (usize, SessionId)> = HashMap::new();
    for (from, recovered) in found.iter().enumerate() {
        for id in recovered.store.sessions() {
            let Some((state, notes)) = recovered.store.state(id.idx) else {
                continue;
            };
            let Ok(core) = durable::read_core(state, &notes) else {
                continue;
            };
            let known = newest
                .entry(core.client_id.to_owned())
                .or_insert((from, id));
            if known.0 == from && known.1.serial < id.serial {
                *known = (from, id);
            }
        }
    }
    newest
}

/// What the sessions of a log had of the messages that are in doubt.
type Hads = HashMap<SessionId, Vec<(u64, Option<(Box<str>, Box<str>)>)>>;

/// The same for each log. Records of what is done are not written anew, so this goes into the states.
fn had(found: &[Recovered]) -> Vec<Hads> {
    let mut doubts = HashSet::new();
    for recovered in found {
        for id in recovered.store.sessions() {
            if let Some((state, notes)) = recovered.store.state(id.idx)
                && let Ok(core) = durable::read_core(state, &notes)
            {
                doubts.extend(core.incoming.iter().filter_map(|(_, token)| *token));
            }
        }
    }
    let of = |recovered: &Recovered| {
        let mut had = Hads::new();
        if !doubts.is_empty() {
            recovered.store.walk_entries(|session, _, item| {
                let token = Body::token_of(item.body).filter(|token| doubts.contains(token));
                if let Some(token) = token {
                    let meta = durable::Meta::read(item.meta).ok();
                    let group = meta.and_then(|meta| meta.group);
                    had.entry(session).or_default().push((token, group));
                }
            });
        }
        had
    };
    found.iter().map(of).collect()
}

fn rewrite(data: &Path, old: &Manifest, new: &Manifest, shape: Shape) -> Result<(), LogsError> {
    let hasher = TopicHasher::fixed(new.hash_key);
    let syncer = Syncer::start(Duration::ZERO).map_err(LogsError::Thread)?;
    let mut found = Vec::with_capacity(old.reactors as usize);
    for reactor in 0..old.reactors {
        let directory = old.log(data, reactor);
        // A server that ended before its reactors had started, say because its address was taken, has left a manifest and nothing else.
        if !directory.try_exists().unwrap_or(true) {
            continue;
        }
        let Some(opened) = Log::view(&directory)? else {
            continue;
        };
        let recovered = Recovered::read(opened, old.key(reactor));
        report(&recovered);
        found.push(recovered);
    }
    let (wake, woken) = mpsc::channel::<()>();
    let mut targets = Vec::with_capacity(new.reactors as usize);
    for reactor in 0..new.reactors {
        let key = new.key(reactor);
        let wake = wake.clone();
        let directory = new.log(data, reactor);
        let opened = Log::open(&directory, key, reactor, shape, &syncer, move || {
            // Nobody listens when all is done.
            let _ = wake.send(());
        })?;
        targets.push(Target {
            store: Store::new(opened.log, key),
            next: 0,
        });
    }
    let mut places: Vec<Vec<(SessionId, String)>> = found.iter().map(|_| Vec::new()).collect();
    for (client_id, (from, id)) in newest(&found) {
        places[from].push((id, client_id));
    }
    let reactors = new.reactors as usize;
    let had = had(&found);
    for ((recovered, sessions), had) in found.iter().zip(places).zip(&had) {
        let mut moved: Vec<Moved> = targets.iter().map(|_| Moved::default()).collect();
        for (id, client_id) in sessions {
            let at = home(&hasher, &client_id, reactors).index();
            let target = &mut targets[at];
            until_room(data, |moved: &mut Moved, target: &mut Target| {
                move_session(&recovered.store, id, had, moved, target)
            })(&mut moved[at], target)?;
        }
        for (key, value) in recovered.store.values() {
            let Ok(body) = Body::read(value) else {
                continue;
            };
            let at = (hasher.hash(body.topic).0 % reactors as u64) as usize;
            until_room(data, |_: &mut Moved, target: &mut Target| {
                target.store.keep(key, &[value])
            })(&mut Moved::default(), &mut targets[at])?;
        }
        for (mut moved, target) in moved.into_iter().zip(&mut targets) {
            until_room(data, |_: &mut Moved, target: &mut Target| {
                target.store.commit()
            })(&mut moved, target)?;
            moved
                .finish(&mut target.store)
                .map_err(|_| full(data, &target.store))?;
        }
    }
    for target in &mut targets {
        target.store.want_sync();
        while target.store.synced() < target.store.end() {
            if let Some(Trouble::Failed(..)) = target.store.log().trouble() {
                return Err(full(data, &target.store));
            }
            match woken.recv_timeout(limits::DISK_RETRY) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }
    sync_directories(data, new)?;
    Ok(())
}

fn full(data: &Path, store: &Store) -> LogsError {
    let why = store
        .log()
        .trouble()
        .map_or_else(|| "no room".to_owned(), |trouble| trouble.to_string());
    LogsError::Rewrite(data.to_owned(), why)
}

/// Tries again as long as the next segment is only on its way.
fn until_room<'a>(
    data: &'a Path,
    mut run: impl FnMut(&mut Moved, &mut Target) -> Result<(), Refused> + 'a,
) -> impl FnMut(&mut Moved, &mut Target) -> Result<(), LogsError> + 'a {
    move |moved, target| {
        loop {
            match run(moved, target) {
                Ok(()) => return Ok(()),
                Err(Refused::Failed) => return Err(full(data, &target.store)),
                Err(Refused::Full) if target.store.log().trouble().is_some() => {
                    return Err(full(data, &target.store));
                }
                // Its thread works on it; there is nothing else to do here.
                Err(Refused::Full) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// One session with its queue. One that finds no room on the way is taken out again, to be tried anew.
fn move_session(
    from: &Store,
    old: SessionId,
    had: &Hads,
    moved: &mut Moved,
    target: &mut Target,
) -> Result<(), Refused> {
    let Some((state, notes)) = from.state(old.idx) else {
        return Ok(());
    };
    let (Ok(mut core), Ok(subscriptions)) = (
        durable::read_core(state, &notes),
        durable::read_subscriptions(state, &notes),
    ) else {
        return Ok(());
    };
    for (token, group) in had.get(&old).map_or(&[][..], Vec::as_slice) {
        let group = group.as_ref().map(|(group, path)| (&**group, &**path));
        let had = durable::Had {
            token: *token,
            group,
        };
        if !core.had.contains(&had) {
            core.had.push(had);
        }
    }
    let mut merged = Vec::new();
    durable::write_core(&mut merged, &core);
    for subscription in &subscriptions {
        durable::put_subscription(&mut merged, subscription);
    }
    let new = SessionId {
        idx: SessionIdx(target.next),
        serial: NonZeroU32::MIN.get() + target.next,
    };
    target.next += 1;
    target.store.create(new, &merged)?;
    let done = moved.queue(from, old.idx, &mut target.store, new);
    if done.is_err() {
        target.store.remove(new);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_never_began_may_begin_with_other_reactors() {
        let path = std::env::temp_dir().join(format!("stillwire-logs-{}", std::process::id()));
        let data = DataDir::lock(&path).unwrap();
        // As far as this a server comes whose address is taken.
        drop(Logs::open(&data, &Config::new(2, 10), 2).unwrap());
        let logs = Logs::open(&data, &Config::new(3, 10), 3);
        let reactors = logs.map(|logs| logs.manifest.reactors);
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(reactors.unwrap(), 3);
    }
}
