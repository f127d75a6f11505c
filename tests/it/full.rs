//! A disk that is full: nothing is taken that can't be kept, what is kept is delivered, and it heals by itself.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::durable::{Place, lacks, lasting, sleeper};
use super::queue::is_closed_unacknowledged;
use super::support::{Client, Server, eventually, with_one_and_three_reactors};

with_one_and_three_reactors!(
    a_full_disk_refuses_and_heals,
    a_full_disk_refuses_and_heals_where_the_disk_is_waited_for,
);

/// A file system of its own, small enough to fill.
struct Small(PathBuf);

impl Small {
    /// None where this user may not mount one.
    fn mount(name: &str) -> Option<Self> {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory to mount on");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "stillwire-test"])
            .arg(&dir)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("left out: this user may not mount a file system");
            _ = std::fs::remove_dir(&dir);
            return None;
        }
        Some(Self(dir))
    }

    /// Takes all room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may have files there.
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
        _ = std::fs::remove_dir(&self.0);
    }
}

/// Publishes numbered messages, and remembers which were acknowledged.
struct Ledger {
    size: usize,
    next: u32,
    taken: Vec<u32>,
}

impl Ledger {
    fn publish(&mut self, publisher: &mut Client) -> u8 {
        let number = self.next;
        let code = publisher.publish("full", &self.payload(), 1 + (number % 2) as u8);
        if code == 0 {
            self.taken.push(number);
        }
        code
    }

    fn payload(&mut self) -> Vec<u8> {
        let mut payload = self.next.to_le_bytes().to_vec();
        payload.resize(self.size, b'x');
        self.next += 1;
        payload
    }

    /// All that was acknowledged since so many comes, once and in order. What was refused may have found room with one of them.
    fn check(&self, server: &Server, name: &str, since: usize) {
        let taken = &self.taken[since..];
        let (mut client, present) = server.connect(&lasting(5, name));
        assert!(present);
        let (mut last, mut got) = (None, Vec::new());
        while got.len() < taken.len() {
            let message = client.take();
            let number = u32::from_le_bytes(message.payload[..4].try_into().unwrap());
            assert!(last < Some(number), "in order, and once");
            assert!(message.payload[4..].iter().all(|byte| *byte == b'x'));
            last = Some(number);
            if taken.binary_search(&number).is_ok() {
                got.push(number);
            }
        }
        assert_eq!(got, taken);
        client.fence();
        client.disconnect();
    }
}

fn a_full_disk_refuses_and_heals(reactors: usize) {
    fills("full-process", reactors, &[]);
}

fn a_full_disk_refuses_and_heals_where_the_disk_is_waited_for(reactors: usize) {
    fills("full-disk", reactors, &["--durability", "disk"]);
}

fn fills(name: &str, reactors: usize, flags: &[&'static str]) {
    if lacks() {
        return;
    }
    let Some(small) = Small::mount(&format!("{name}-{reactors}")) else {
        return;
    };
    let mut place = Place::new(reactors);
    place.dir = small.0.join("data");
    place.flags = flags.to_vec();
    place.mqtt = vec![("queue_bytes", 1 << 30)];
    let server = place.start();
    for name in ["reads", "waits"] {
        sleeper(&server, 5, name, "full");
    }
    let ballast = small.fill();
    let mut publisher = server.client(5, "publisher");
    let mut ledger = Ledger {
        size: 100_000,
        next: 0,
        taken: Vec::new(),
    };
    for size in [100_000, 4_000] {
        ledger.size = size;
        while ledger.publish(&mut publisher) == 0 {
            assert!(ledger.next < 1000, "a full disk takes no end");
        }
    }
    assert!(ledger.taken.len() > 3, "what was prepared is used");
    for _ in 0..3 {
        assert_eq!(ledger.publish(&mut publisher), 0x97);
    }
    is_closed_unacknowledged(&server, "full", &ledger.payload());
    eventually("it is said", || {
        server.log().contains("cannot prepare the next segment")
    });
    // A session that couldn't be kept is refused; one that need not be kept is not.
    if reactors == 1 {
        let refused = (0..1000).find(|n| {
            let mut fresh = server.open(5);
            let code = fresh.connack(&lasting(5, &format!("fresh-{n}"))).1;
            assert!(code == 0 || code == 0x97, "{code}");
            code != 0
        });
        assert!(refused.is_some());
    }
    let mut guest = server.client(5, "guest");
    guest.subscribe("guests", 1);
    assert_eq!(publisher.publish("guests", b"hello", 1), 0);
    assert_eq!(guest.take().text(), "hello");
    // What is stored is delivered, and stays with who was not there.
    ledger.check(&server, "reads", 0);
    let read = ledger.taken.len();
    std::fs::remove_file(ballast).expect("room again");
    eventually("it heals", || ledger.publish(&mut publisher) == 0);
    for _ in 0..20 {
        ledger.publish(&mut publisher);
    }
    eventually("that is said too", || {
        server.log().contains("there is room again")
    });
    sleeper(&server, 5, "fresh", "other");
    ledger.check(&server, "waits", 0);
    let server = place.kill_and_start(server);
    ledger.check(&server, "reads", read);
}
