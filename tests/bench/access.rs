//! What admission costs in microseconds: `cargo bench --bench access`. `cargo test --bench access` does each a few times, to see that it works.
//!
//! Each is called on one core as a reactor calls it, with what a phone presents: a ticket, a filter against a file of rules. The plain
//! `jsonwebtoken::decode` of the same ticket stands beside, with the library's own checks of claims. The best of many short rounds counts: what
//! else the machine does only adds.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use stillwire::access::{
    Access, Action, Claims, Credentials, Decision, RightsClaim, Throttle, UnixSeconds, Who,
    passwords,
};
use stillwire::clock::Millis;
use stillwire::config::resolved::{self, Method};

// As the server has it.
#[global_allocator]
static ALLOCATOR: stillwire::sys::memory::Allocator = stillwire::sys::memory::Allocator;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const SECRET: [u8; 32] = [7; 32];
const PHONE: &str = "phone-123456";

fn main() -> ExitCode {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let name = format!("access-{}", std::process::id());
    let bench = Bench {
        rounds: if is_bench { 1_000 } else { 2 },
        each: if is_bench { 100 } else { 2 },
        directory: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name),
    };
    std::fs::create_dir_all(&bench.directory).expect("a directory");
    bench.tickets();
    bench.rules();
    bench.throttles();
    bench.passwords();
    std::fs::remove_dir_all(&bench.directory).expect("the directory again");
    ExitCode::SUCCESS
}

struct Bench {
    rounds: u32,
    each: u32,
    directory: PathBuf,
}

impl Bench {
    /// Says how long one takes: in the best of many rounds, each shorter than what the scheduler gives at a time.
    fn time(&self, what: &str, mut once: impl FnMut()) {
        let round = |_| {
            let start = Instant::now();
            for _ in 0..self.each {
                once();
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(self.each)
        };
        let best = (0..self.rounds).map(round).fold(f64::INFINITY, f64::min);
        println!("{what:<56} {best:>10.3} us");
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A server that takes tickets of one key.
    fn ticketed(&self, algorithm: &str) -> Access {
        let secret = base64::engine::general_purpose::STANDARD.encode(SECRET);
        let keys = format!(
            "[[key]]\nid = \"k1\"\nalgorithm = \"{algorithm}\"\nsecret = \"{secret}\"\nsign = true\n"
        );
        let config = resolved::Access {
            keys: self.file("keys.toml", &keys),
            apps: self.file("apps.toml", "[[app]]\nkey = \"shop\"\n"),
            ..resolved::Access::default()
        };
        load(&config, Method::Ticket)
    }

    fn tickets(&self) {
        let claims = Claims {
            sub: PHONE.to_owned(),
            app: Some("shop".to_owned()),
            exp: NOW.0 + 3600,
            iat: Some(NOW.0),
            jti: Some("AAAAAAAAAAAAAAAA".to_owned()),
            ..Claims::default()
        };
        let open = load(&resolved::Access::default(), Method::Open);
        self.time("open, no password", || admit(&open, None));
        let access = self.ticketed("HS256");
        let sign = |claims: &Claims| access.keys().sign(claims).expect("a key");
        let token = sign(&claims);
        println!("a ticket has {} bytes", token.len());
        self.time("ticket, HS256: signed", || {
            black_box(sign(black_box(&claims)));
        });
        self.time("ticket, HS256: verified", || {
            admit(&access, Some(token.as_bytes()));
        });
        let key = DecodingKey::from_secret(&SECRET).expect("a secret");
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_issuer(&["stillwire"]);
        rules.sub = Some(PHONE.to_owned());
        // The library takes the time of day, and NOW is not today.
        rules.validate_exp = false;
        self.time("  the same token by the library alone", || {
            let decoded = jsonwebtoken::decode::<Claims>(black_box(&token), &key, &rules);
            black_box(decoded.expect("a good token"));
        });
        let filters = |filters: &[&str]| filters.iter().map(|&filter| filter.to_owned()).collect();
        let with_rights = sign(&Claims {
            acl: Some(RightsClaim {
                publish: filters(&["up/%c/#"]),
                subscribe: filters(&["down/%c/#", "news/#"]),
            }),
            ..claims.clone()
        });
        self.time("ticket, HS256, with three filters: verified", || {
            admit(&access, Some(with_rights.as_bytes()));
        });
        let mut forged = token.into_bytes();
        let last = forged.len() - 10;
        forged[last] ^= 1;
        self.time("ticket, HS256, forged: refused", || {
            let decision = present(&access, Some(&forged));
            assert!(matches!(decision, Decision::Refuse(_)));
        });
        let access = self.ticketed("EdDSA");
        let token = access.keys().sign(&claims).expect("a key");
        self.time("ticket, EdDSA: verified", || {
            admit(&access, Some(token.as_bytes()));
        });
    }

    fn rules(&self) {
        let mut rules =
            "deny all secret/#\nallow subscribe news/#\nallow all phones/%c/#\n".to_owned();
        for user in 0..10_000 {
            // Writing to a String can't fail.
            _ = writeln!(rules, "allow all user u{user} users/{user}/#");
        }
        let config = resolved::Access {
            acl: self.file("acl", &rules),
            ..resolved::Access::default()
        };
        let access = load(&config, Method::Open);
        let who = Who {
            tenant: "",
            client_id: PHONE,
            user: None,
            rights: None,
        };
        self.time("a topic against rules, 10,000 of them for others", || {
            let topic = black_box("phones/phone-123456/up");
            assert!(access.may(black_box(&who), Action::Publish, topic));
        });
        let none = Access::default();
        self.time("the question whether there are rules, and none", || {
            assert!(!black_box(&none).checks(None));
        });
    }

    fn throttles(&self) {
        let throttle = Throttle::new(&resolved::Access {
            address_connects: 1_000_000,
            client_connects: 1_000_000,
            ..resolved::Access::default()
        });
        let mut now = 0;
        self.time("throttles of an address and a client id", || {
            now += 1;
            let address = [127, 0, 0, 1].into();
            assert!(throttle.admit(address, Millis(now)).is_ok());
            assert!(throttle.admit_client(PHONE, Millis(now)).is_ok());
        });
    }

    fn passwords(&self) {
        let users = self.directory.join("users");
        passwords::set(&users, "phone", "", b"right").expect("a file");
        let config = resolved::Access {
            passwords: users,
            ..resolved::Access::default()
        };
        let access = load(&config, Method::PasswordFile);
        let Decision::Ask(question) = present(&access, Some(b"right")) else {
            panic!("no question")
        };
        let few = Self {
            rounds: self.rounds.div_ceil(50),
            each: 1,
            directory: PathBuf::new(),
        };
        few.time("password, on the gate's thread", || {
            assert!(access.check_password(&question).is_ok());
        });
    }
}

fn load(config: &resolved::Access, method: Method) -> Access {
    Access::load(config, &[method]).expect("good files")
}

fn present(access: &Access, password: Option<&[u8]>) -> Decision {
    let credentials = Credentials {
        client_id: PHONE,
        user: password.map(|_| "phone"),
        password,
        address: [127, 0, 0, 1].into(),
    };
    black_box(access.authenticate(black_box(&credentials), NOW))
}

fn admit(access: &Access, password: Option<&[u8]>) {
    assert!(matches!(present(access, password), Decision::Admit(_)));
}
