//! Passwords, apps, revocation, the order of methods, and the way of an identity.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Cheap, for tests alone: argon2 with 8 KiB and one pass, of "right".
fn cheap_hash() -> String {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: argon2::password_hash::phc::PasswordHash = argon2.hash_password(b"right").unwrap();
    hash.to_string()
}

fn passwords(text: &str) -> Result<Passwords, AccessError> {
    Passwords::parse(&PathBuf::from("users"), text)
}

fn revoked(text: &str) -> Result<Revoked, AccessError> {
    Revoked::parse(&PathBuf::from("revoked"), text)
}

fn apps(text: &str) -> Result<Apps, AccessError> {
    Apps::parse(&PathBuf::from("apps"), text)
}

fn with_methods(methods: &[Method]) -> Access {
    let hash = cheap_hash();
    Access {
        methods: methods.to_vec(),
        keys: keys(&key("k1", "HS256", 1, true)).unwrap(),
        passwords: passwords(&format!("ann:shop:{hash}\n")).unwrap(),
        only_known: false,
        ..Access::default()
    }
}

fn ask(access: &Access, user: Option<&str>, password: Option<&[u8]>) -> Decision {
    let c = Credentials {
        user,
        password,
        ..phone(b"")
    };
    access.authenticate(&c, UnixSeconds(NOW))
}

#[track_caller]
fn asked(decision: Decision) -> Question {
    match decision {
        Decision::Ask(question) => question,
        other => panic!("{other:?}"),
    }
}

#[test]
fn open_alone_asks_nobody_and_beside_others_admits_who_has_no_password() {
    let passwords = [&b""[..], b"right", b"\xff", b"a.b.c"];
    let alone = with_methods(&[Method::Open]);
    let beside = with_methods(&[Method::Open, Method::Ticket]);
    for access in [&alone, &beside] {
        assert_eq!(admitted(ask(access, None, None)), Identity::default());
        // A name alone proves nothing.
        assert_eq!(admitted(ask(access, Some("ann"), None)).user, None);
    }
    for password in passwords {
        let admitted = admitted(ask(&alone, Some("ann"), Some(password)));
        assert_eq!(
            admitted,
            Identity::default(),
            "whatever is presented proves nothing"
        );
        let decision = ask(&beside, Some("ann"), Some(password));
        assert_eq!(refused(decision), Denied::BadCredentials);
    }
    let others = with_methods(&[Method::Open, Method::PasswordFile]);
    let token = others.keys.sign(&claims()).unwrap();
    let decision = ask(&others, None, Some(token.as_bytes()));
    assert_eq!(refused(decision), Denied::BadCredentials, "tickets are off");
}

#[test]
fn nothing_admits_without_a_method_for_it() {
    for methods in [
        &[Method::Ticket][..],
        &[Method::Jwt],
        &[Method::PasswordFile],
        &[],
    ] {
        let access = with_methods(methods);
        assert_eq!(refused(ask(&access, None, None)), Denied::BadCredentials);
        assert_eq!(
            refused(ask(&access, Some("x"), None)),
            Denied::BadCredentials
        );
        assert_eq!(
            refused(ask(&access, None, Some(b"x"))),
            Denied::BadCredentials
        );
    }
}

#[test]
fn what_a_method_knows_as_its_own_goes_nowhere_else() {
    use Method::{Http, Jwt, Open, PasswordFile, Ticket};
    let access = with_methods(&[Open, Ticket, PasswordFile, Jwt, Http]);
    let good = access.keys.sign(&claims()).unwrap();
    let expired = access.keys.sign(&Claims { exp: 1, ..claims() });
    let mut forged = good.clone();
    forged.replace_range(good.len() - 4.., "AAAA");
    admitted(ask(&access, Some("ann"), Some(good.as_bytes())));
    let decision = ask(&access, None, Some(expired.unwrap().as_bytes()));
    assert_eq!(refused(decision), Denied::Expired);
    let decision = ask(&access, None, Some(forged.as_bytes()));
    assert_eq!(refused(decision), Denied::BadCredentials);
    assert_eq!(
        asked(ask(&access, Some("ann"), Some(b"x"))).to,
        Asked::Passwords
    );
    assert_eq!(
        refused(ask(&access, Some("ann"), None)),
        Denied::BadCredentials
    );
    admitted(ask(&access, None, None));
    // What nobody knows is the hook's.
    assert_eq!(asked(ask(&access, Some("eve"), Some(b"x"))).to, Asked::Hook);
    assert_eq!(asked(ask(&access, Some("eve"), None)).to, Asked::Hook);
    assert_eq!(asked(ask(&access, None, Some(b"x"))).to, Asked::Hook);
    let alone = with_methods(&[Http]);
    assert_eq!(asked(ask(&alone, None, None)).to, Asked::Hook);
}

#[test]
fn a_password_is_checked_and_an_unknown_user_costs_the_same() {
    let access = with_methods(&[Method::PasswordFile]);
    let check = |user, password: &[u8]| {
        access.check_password(&asked(ask(&access, Some(user), Some(password))))
    };
    let identity = check("ann", b"right").unwrap();
    assert_eq!(
        (&*identity.tenant, identity.user.as_deref()),
        ("shop", Some("ann"))
    );
    for (user, password) in [
        ("ann", &b"wrong"[..]),
        ("ann", b""),
        ("ann", b"right\0"),
        ("Ann", b"right"),
        ("eve", b"right"),
        ("", b"right"),
    ] {
        assert_eq!(check(user, password), Err(Denied::BadCredentials), "{user}");
    }
    // It is a hash like others, or a check of it would take no time.
    assert!(argon2::password_hash::phc::PasswordHash::new(passwords::NOBODY).is_ok());
    assert!(passwords(&format!("nobody::{}", passwords::NOBODY)).is_ok());
    assert!(!passwords::verify_nobody(b"right"));
}

#[test]
fn an_empty_password_file_lets_nobody_in() {
    let mut access = with_methods(&[Method::PasswordFile]);
    access.passwords = passwords("\n# nobody\n").unwrap();
    let question = asked(ask(&access, Some("ann"), Some(b"right")));
    assert_eq!(
        access.check_password(&question),
        Err(Denied::BadCredentials)
    );
}

#[test]
fn a_broken_password_file_names_its_line_and_no_hash() {
    let hash = cheap_hash();
    for (line, expected) in [
        ("ann", "a line is user:app:hash"),
        ("ann:shop", "a line is user:app:hash"),
        (&format!(":shop:{hash}"), "a user has a name"),
        (
            &format!("eve:sh op:{hash}"),
            "between the colons stands no app key",
        ),
        (&format!("ann::{hash}"), "user \"ann\" stands twice"),
        ("eve::plain", "no password hash"),
        ("eve::", "no password hash"),
        (
            "eve::$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ",
            "not a whole argon2id hash",
        ),
        (
            &format!("eve::{}", hash.replace("argon2id", "argon2i")),
            "not a whole argon2id hash",
        ),
        (
            &format!("eve::{}", hash.replace("m=8", "m=99999999")),
            "KiB and 16 passes at most",
        ),
        (
            &format!("eve::{}", hash.replace("t=1", "t=4000000")),
            "KiB and 16 passes at most",
        ),
        (
            &format!("eve::{}", hash.replace("m=8", "m=0")),
            "no argon2id hash",
        ),
    ] {
        let error = passwords(&format!("# users\nann:shop:{hash}\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("users:3: ") && error.contains(expected),
            "{line}: {error}"
        );
        assert!(!error.contains(&hash[30..]), "{error}");
    }
}

#[test]
fn a_password_is_set_where_it_stands() {
    let scratch = Scratch::new("set-password");
    let hash = cheap_hash();
    let path = scratch.file("users", format!("# users\n\nann:shop:{hash}\nbob::{hash}"));
    assert!(passwords::set(&path, "ann", "", b"new").unwrap());
    assert!(!passwords::set(&path, "eve", "shop", b"hers").unwrap());
    let text = files::text(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(
        (lines[0], lines[1], lines[3]),
        ("# users", "", &*format!("bob::{hash}"))
    );
    let users = Passwords::read(&path).unwrap();
    let is = |user: &str, password: &[u8]| users.get(user).unwrap().verify(password);
    assert!(is("ann", b"new") && !is("ann", b"right") && is("bob", b"right") && is("eve", b"hers"));
    assert_eq!(&*users.get("ann").unwrap().tenant, "");
    assert_eq!(&*users.get("eve").unwrap().tenant, "shop");
    // A file that is broken is left as it is.
    let broken = scratch.file("broken", "nonsense");
    assert!(passwords::set(&broken, "ann", "", b"x").is_err());
    assert_eq!(files::text(&broken).unwrap(), "nonsense");
    for (user, app) in [
        ("", ""),
        ("a:b", ""),
        ("#a", ""),
        (" a", ""),
        ("a\nb", ""),
        ("a", "sh op"),
    ] {
        assert!(passwords::check_names(user, app).is_err(), "{user:?}");
    }
}

#[test]
fn apps_have_secrets_and_limits() {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(b"another long secret");
    // As `sha256sum` prints it, but for the case, which does not matter.
    let hex = hash
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02X}"));
    let apps = apps(&format!(
        "[[app]]\nkey = \"shop\"\nsecrets = [\"a very long secret\", \"sha256:{hex}\"]\nmax_connections = 5\n\
         [[app]]\nkey = \"-\"\n"
    ))
    .unwrap();
    for secret in ["a very long secret", "another long secret"] {
        assert!(apps.check("shop", secret));
    }
    for (app, secret) in [
        ("shop", ""),
        ("shop", "a very long secreT"),
        ("shop", "a very long secret "),
        ("shop", &hex),
        ("shop", &format!("sha256:{hex}")),
        ("", "a very long secret"),
        ("shoq", "a very long secret"),
        ("-", ""),
        ("", ""),
    ] {
        assert!(!apps.check(app, secret), "{app} {secret}");
    }
    let limits = apps.get("shop").unwrap().limits;
    assert_eq!(
        (limits.max_connections, limits.connect_rate),
        (Some(5), None)
    );
    assert_eq!(apps.get("").unwrap().limits.max_payload, None);
    let limited =
        Apps::parse(Path::new("apps"), "[[app]]\nkey = \"-\"\nmax_payload = 9\n").unwrap_err();
    assert!(
        limited.to_string().contains("those of [mqtt] hold"),
        "{limited}"
    );
    assert_eq!(apps.iter().count(), 2);
}

#[test]
fn a_broken_apps_file_names_its_line_and_no_secret() {
    for (entry, expected) in [
        ("key = \"a b\"", "\"a b\" is no app key"),
        ("key = \"\"", "\"\" is no app key"),
        ("key = \"shop\"", "app \"shop\" stands twice"),
        ("", "missing field `key`"),
        (
            "key = \"x\"\nsecrets = [\"too short\"]",
            "16 characters or more",
        ),
        ("key = \"x\"\nsecrets = [\"sha256:12\"]", "64 hex digits"),
        ("key = \"x\"\nmax_conns = 3", "unknown field `max_conns`"),
        ("key = \"x\"\nmax_connections = -3", "invalid value"),
    ] {
        let error = apps(&format!("[[app]]\nkey = \"shop\"\n[[app]]\n{entry}\n"))
            .unwrap_err()
            .to_string();
        let line: usize = error.split(':').nth(1).unwrap().parse().unwrap();
        assert!(
            (3..=5).contains(&line) && error.contains(expected),
            "{entry}: {error}"
        );
        assert!(
            !error.contains("too short") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn who_is_revoked_stays_out() {
    let list = "token t1\nclient shop/phone-1\nclient -/a/b before 100\napp gone\napp old before 100\napp old before 50\nclient -/\"x\n";
    assert!(
        revoked(list).is_ok(),
        "a quote inside of a word is a part of it"
    );
    let revoked = revoked(list).unwrap();
    let at = |time| Some(UnixSeconds(time));
    for (tenant, client, token, issued, expected) in [
        ("", "x", Some("t1"), None, true),
        ("", "x", Some("t2"), None, false),
        ("shop", "phone-1", None, at(u64::MAX), true),
        ("", "phone-1", None, None, false),
        ("shop", "phone-2", None, None, false),
        ("", "a/b", None, at(99), true),
        ("", "a/b", None, at(100), false),
        // What does not say when it was issued is older.
        ("", "a/b", None, None, true),
        ("gone", "x", None, at(u64::MAX), true),
        ("old", "x", None, at(99), true),
        ("old", "x", None, at(100), false),
        ("", "gone", None, None, false),
    ] {
        assert_eq!(
            revoked.has(tenant, client, token, issued),
            expected,
            "{tenant} {client}"
        );
    }
    let mut access = with_methods(&[Method::Open, Method::Ticket, Method::PasswordFile]);
    access.revoked = self::revoked("client -/phone-1\napp shop\n").unwrap();
    assert_eq!(refused(ask(&access, None, None)), Denied::Revoked);
    let ticket = access.keys.sign(&claims()).unwrap();
    assert_eq!(
        refused(ask(&access, None, Some(ticket.as_bytes()))),
        Denied::Revoked
    );
    let question = asked(ask(&access, Some("ann"), Some(b"right")));
    assert_eq!(access.check_password(&question), Err(Denied::Revoked));
    let hooked = Hooked {
        tenant: Some("shop".to_owned()),
        ..Hooked::default()
    };
    assert_eq!(
        access.admit_hooked(&question, &hooked, UnixSeconds(NOW)),
        Err(Denied::Revoked)
    );
}

#[test]
fn a_broken_revoked_file_names_its_line() {
    for line in [
        "token",
        "token a b",
        "token a before 3",
        "client phone-1",
        "client sh op/x",
        "client shop/x after 3",
        "client shop/x before soon",
        "client shop/x before -1",
        "client /x",
        "app",
        "app a/b",
        "user ann",
        "client shop/\"x y\" before",
        "client \"shop/x",
    ] {
        let error = revoked(&format!("\ntoken a\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("revoked:3: write `token JTI`"),
            "{line}: {error}"
        );
    }
}

#[test]
fn all_files_are_one_snapshot() {
    let scratch = Scratch::new("snapshot");
    let mut config = resolved::Access {
        keys: scratch.file("keys.toml", key("k1", "HS256", 1, true)),
        apps: scratch.file("apps.toml", "[[app]]\nkey = \"shop\"\n"),
        passwords: scratch.file("users", format!("ann:shop:{}\n", cheap_hash())),
        acl: scratch.file("acl", "allow all %c/#\n"),
        revoked: scratch.file("revoked", "token t9\n"),
        ..resolved::Access::default()
    };
    let methods = [Method::Ticket, Method::PasswordFile];
    let access = Access::load(&config, &methods).unwrap();
    let sign = |app: &str, jti: &str| {
        access.keys().sign(&Claims {
            app: Some(app.to_owned()),
            jti: Some(jti.to_owned()),
            ..claims()
        })
    };
    let ticket =
        |app: &str, jti: &str| ask(&access, None, Some(sign(app, jti).unwrap().as_bytes()));
    let identity = admitted(ticket("shop", "t1"));
    assert!(access.tenant(&identity.tenant).is_some() && access.apps().get("shop").is_some());
    assert_eq!(refused(ticket("shop", "t9")), Denied::Revoked);
    assert_eq!(refused(ticket("other", "t1")), Denied::NotAuthorized);
    let who = Who::new("phone-1", &identity);
    assert!(access.may_subscribe(&who, "phone-1/#") && !access.may_subscribe(&who, "phone-2/#"));
    // One that is broken or missing is an error, whatever the others are.
    for (file, text) in [
        ("acl", "alow all #"),
        ("users", "x"),
        ("revoked", "x"),
        ("apps.toml", "x"),
        ("keys.toml", "x"),
    ] {
        let path = scratch.path(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let error = Access::load(&config, &methods).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}:1: ", path.display())),
            "{error}"
        );
        std::fs::write(&path, before).unwrap();
    }
    config.acl = scratch.path("missing");
    assert!(matches!(
        Access::load(&config, &methods),
        Err(AccessError::Unreadable(..))
    ));
}

#[test]
fn what_the_hook_says_is_checked() {
    let access = with_methods(&[Method::Http]);
    let question = asked(ask(&access, Some("eve"), Some(b"x")));
    let said = |json: &str| {
        let hooked: Hooked = serde_json::from_str(json).unwrap();
        access.admit_hooked(&question, &hooked, UnixSeconds(NOW))
    };
    assert_eq!(said("{}").unwrap().user.as_deref(), Some("eve"));
    let identity =
        said(r#"{"tenant":"shop","user":"e","expires":1800000001,"acl":{"sub":["a"]}}"#).unwrap();
    assert_eq!(
        (&*identity.tenant, identity.user.as_deref()),
        ("shop", Some("e"))
    );
    assert_eq!(identity.expires, Some(UnixSeconds(NOW + 1)));
    assert!(access.may(&Who::new("phone-1", &identity), Action::Receive, "a"));
    assert_eq!(said(r#"{"expires":1800000000}"#), Err(Denied::Expired));
    assert_eq!(said(r#"{"tenant":"a/b"}"#), Err(Denied::Unavailable));
    assert_eq!(said(r#"{"acl":{"pub":["a#"]}}"#), Err(Denied::Unavailable));
    let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(limits::IDENTITY_BYTES));
    assert_eq!(said(&long), Err(Denied::NotAuthorized));
}

#[test]
fn no_password_is_printed() {
    let credentials = phone(b"geheim");
    let question = Question::new(&credentials, Asked::Hook);
    assert!(!format!("{credentials:?}{question:?}").contains("geheim"));
    let hash = cheap_hash();
    let access = with_methods(&[]);
    assert!(!format!("{access:?}").contains(&hash[20..40]));
    assert!(!format!("{access:?}").contains(&secret(1)));
}

fn name() -> impl Strategy<Value = String> {
    "[a-z/+#é\\PC]{0,20}"
}

fn identity() -> impl Strategy<Value = Identity> {
    let filters = || prop::collection::vec("[a-z]{1,5}(/\\+)?(/%c)?(/#)?", 0..5);
    let rights = (filters(), filters()).prop_map(|(publish, subscribe)| {
        let claim = RightsClaim { publish, subscribe };
        std::sync::Arc::new(Rights::from_claim(&claim).unwrap())
    });
    let time = || prop::option::of(any::<u64>().prop_map(UnixSeconds));
    (
        prop::option::of("[a-zA-Z0-9_-]{1,32}"),
        prop::option::of(name()),
        prop::option::of(rights),
        prop::option::of(name()),
        time(),
        time(),
    )
        .prop_map(|(tenant, user, rights, token, issued, expires)| Identity {
            tenant: tenant.unwrap_or_default().into(),
            user: user.map(Into::into),
            rights,
            token: token.map(Into::into),
            issued,
            expires,
        })
}

proptest! {
    #[test]
    fn an_identity_arrives_as_it_left(identity in identity(), rest in prop::collection::vec(any::<u8>(), 0..5)) {
        let mut bytes = Vec::new();
        identity.encode(&mut bytes);
        prop_assert_eq!(Identity::decode(&bytes), Some(identity.clone()));
        for end in 0..bytes.len() {
            prop_assert_eq!(Identity::decode(&bytes[..end]), None);
        }
        if identity == Identity::default() {
            prop_assert_eq!(&bytes, &[0]);
        }
        prop_assert!(identity.fits());
        bytes.extend(&rest);
        prop_assert_eq!(Identity::decode_from(&bytes), Some((identity, &*rest)));
    }

    #[test]
    fn any_bytes_are_an_identity_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(identity) = Identity::decode(&bytes) {
            let mut again = Vec::new();
            identity.encode(&mut again);
            prop_assert_eq!(Identity::decode(&again), Some(identity));
        }
    }

    #[test]
    fn any_text_is_a_file_or_an_error(text in "((ann|:|shop|\\$argon2id|\\$v=19|token|client|app|before|-|/|\\[\\[app\\]\\]|key|=|\"|[0-9])[ \\n]?){0,12}") {
        for error in [passwords(&text).err(), revoked(&text).err(), apps(&text).err(), keys(&text).err()].into_iter().flatten() {
            let is_broken = matches!(error, AccessError::Broken { .. });
            prop_assert!(is_broken);
        }
    }
}

#[test]
fn what_fits_is_what_encode_writes() {
    let with = |len: usize| Identity {
        user: Some("u".repeat(len).into()),
        issued: Some(UnixSeconds(1)),
        expires: Some(UnixSeconds(2)),
        tenant: "t".into(),
        ..Identity::default()
    };
    let mut bytes = Vec::new();
    let most = limits::IDENTITY_BYTES - 1 - 3 - 2 - 16;
    with(most).encode(&mut bytes);
    assert_eq!(bytes.len(), limits::IDENTITY_BYTES);
    assert!(with(most).fits() && !with(most + 1).fits());
}
