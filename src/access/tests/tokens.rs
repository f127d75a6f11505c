//! Tickets and other issuers' tokens: what is good, and everything that is not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A server that takes tickets of these keys.
fn ticketed(keys: Keys) -> Access {
    Access {
        methods: vec![Method::Ticket],
        keys,
        only_known: false,
        skew: 30,
        ..Access::default()
    }
}

fn one_key() -> Access {
    ticketed(keys(&key("k1", "HS256", 1, true)).unwrap())
}

fn ask(access: &Access, token: &str) -> Decision {
    ask_at(access, token, NOW)
}

fn ask_at(access: &Access, token: &str, now: u64) -> Decision {
    access.authenticate(&phone(token.as_bytes()), UnixSeconds(now))
}

/// A token of any shape, signed with a secret of 32 times a byte.
fn forge(header: &Value, claims: &Value, byte: u8) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(&[byte; 32]).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn as_json(claims: &Claims) -> Value {
    serde_json::to_value(claims).unwrap()
}

#[test]
fn a_ticket_admits_whom_it_was_signed_for() {
    for algorithm in ["HS256", "EdDSA"] {
        let access = ticketed(keys(&key("k1", algorithm, 1, true)).unwrap());
        let token = access.keys().sign(&Claims {
            app: Some("shop".to_owned()),
            jti: Some("t1".to_owned()),
            acl: Some(RightsClaim {
                publish: vec!["up/%c".to_owned()],
                subscribe: vec!["down/#".to_owned()],
            }),
            ..claims()
        });
        let identity = admitted(ask(&access, &token.unwrap()));
        assert_eq!(&*identity.tenant, "shop");
        // Nobody has vouched for the name beside it.
        assert_eq!(identity.user, None);
        assert_eq!(identity.token.as_deref(), Some("t1"));
        assert_eq!(identity.issued, Some(UnixSeconds(NOW)));
        assert_eq!(identity.expires, Some(UnixSeconds(NOW + 3600)));
        let who = Who::new("phone-1", &identity);
        assert!(access.checks(who.rights) && access.may(&who, Action::Publish, "up/phone-1"));
        assert!(!access.may(&who, Action::Publish, "down/1"));
        assert!(access.may_subscribe(&who, "down/+") && !access.may_subscribe(&who, "#"));
    }
}

#[test]
fn a_ticket_of_another_client_is_refused() {
    let access = one_key();
    let token = access.keys().sign(&Claims {
        sub: "phone-2".to_owned(),
        ..claims()
    });
    assert_eq!(
        refused(ask(&access, &token.unwrap())),
        Denied::BadCredentials
    );
}

#[test]
fn time_counts_with_the_skew() {
    let access = one_key();
    let token = access.keys().sign(&claims()).unwrap();
    let at = |now| ask_at(&access, &token, now);
    admitted(at(NOW + 3600 + 29));
    assert_eq!(refused(at(NOW + 3600 + 30)), Denied::Expired);
    assert_eq!(refused(at(u64::MAX)), Denied::Expired);
    // Issued in the future.
    admitted(at(NOW - 30));
    assert_eq!(refused(at(NOW - 31)), Denied::BadCredentials);
    let early = access.keys().sign(&Claims {
        iat: None,
        nbf: Some(NOW + 60),
        ..claims()
    });
    let early = early.unwrap();
    assert_eq!(
        refused(ask_at(&access, &early, NOW + 29)),
        Denied::BadCredentials
    );
    admitted(ask_at(&access, &early, NOW + 30));
    let forever = access.keys().sign(&Claims {
        exp: u64::MAX,
        ..claims()
    });
    admitted(ask(&access, &forever.unwrap()));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let access = one_key();
    let token = access.keys().sign(&claims()).unwrap();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let decision = access.authenticate(&phone(&bytes), UnixSeconds(NOW));
            assert_eq!(refused(decision), Denied::BadCredentials, "{at} {bit}");
        }
        let cut = &token[..at];
        assert_eq!(refused(ask(&access, cut)), Denied::BadCredentials);
    }
    for longer in [
        format!("{token}A"),
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}\n"),
    ] {
        assert_eq!(
            refused(ask(&access, &longer)),
            Denied::BadCredentials,
            "{longer}"
        );
    }
}

#[test]
fn the_algorithm_is_the_keys_own() {
    let text = key("h", "HS256", 1, true) + &key("e", "EdDSA", 2, false);
    let access = ticketed(keys(&text).unwrap());
    let good = as_json(&claims());
    admitted(ask(
        &access,
        &forge(&json!({"alg": "HS256", "kid": "h"}), &good, 1),
    ));
    // The public key of `e` as the secret of an HMAC.
    let private = ed_pkcs8(2);
    let public = ed_public(&private);
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"e"}"#),
        URL_SAFE_NO_PAD.encode(good.to_string())
    );
    let as_secret = EncodingKey::from_secret(&public).unwrap();
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &as_secret, Algorithm::HS256).unwrap();
    let confused = format!("{message}.{signature}");
    let none = |alg: &str| {
        format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","kid":"h"}}"#)),
            URL_SAFE_NO_PAD.encode(good.to_string())
        )
    };
    for token in [
        confused,
        none("none"),
        none("None"),
        none("HS256"),
        none("EdDSA"),
        forge(&json!({"alg": "HS384", "kid": "h"}), &good, 1),
        forge(&json!({"alg": "EdDSA", "kid": "h"}), &good, 1),
        forge(&json!({"alg": "EdDSA", "kid": "e"}), &good, 2),
        forge(&json!({"alg": "HS256", "kid": "x"}), &good, 1),
        forge(&json!({"alg": "HS256"}), &good, 1),
        forge(&json!({"alg": "HS256", "kid": "h"}), &good, 2),
        forge(
            &json!({"alg": "HS256", "kid": "h", "crit": ["x"], "x": 1}),
            &good,
            1,
        ),
        forge(&json!({"alg": ["HS256"], "kid": "h"}), &good, 1),
        forge(&json!({"alg": "HS256", "kid": ["h"]}), &good, 1),
    ] {
        assert_eq!(
            refused(ask(&access, &token)),
            Denied::BadCredentials,
            "{token}"
        );
    }
}

#[test]
fn claims_are_taken_as_they_must_be_or_not_at_all() {
    let access = one_key();
    let header = json!({"alg": "HS256", "kid": "k1", "typ": "JWT"});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = as_json(&claims());
        change(&mut claims);
        ask(&access, &forge(&header, &claims, 1))
    };
    admitted(with(&|_| ()));
    // What nobody knows is nobody's business.
    admitted(with(&|claims| claims["other"] = json!({"deep": [1]})));
    for (name, value) in [
        ("iss", json!("Stillwire")),
        ("iss", json!(["stillwire"])),
        ("iss", Value::Null),
        ("sub", json!(["phone-1"])),
        ("sub", json!("")),
        ("sub", Value::Null),
        ("app", json!("sh op")),
        ("app", json!("a/b")),
        ("app", json!("x".repeat(33))),
        ("app", json!(1)),
        ("exp", Value::Null),
        ("exp", json!("1900000000")),
        ("exp", json!(-1)),
        ("exp", json!(1.9e9)),
        ("iat", json!("now")),
        ("nbf", json!(1e300)),
        ("acl", json!("all")),
        ("acl", json!({"pub": "a"})),
        ("acl", json!({"pub": ["a#"]})),
        ("acl", json!({"sub": ["$share/g/a"]})),
        ("acl", json!({"sub": vec!["a"; 65]})),
    ] {
        let decision = with(&|claims| claims[name] = value.clone());
        assert_eq!(refused(decision), Denied::BadCredentials, "{name}: {value}");
    }
    for missing in ["iss", "sub", "exp"] {
        let decision = with(&|claims| _ = claims.as_object_mut().unwrap().remove(missing));
        assert_eq!(refused(decision), Denied::BadCredentials, "{missing}");
    }
    // Rights that are there and empty allow nothing.
    let none = admitted(with(&|claims| claims["acl"] = json!({})));
    assert!(!access.may(&Who::new("phone-1", &none), Action::Publish, "a"));
}

#[test]
fn keys_rotate() {
    let (old, new) = (key("k1", "HS256", 1, true), key("k2", "HS256", 2, true));
    let before = ticketed(keys(&old).unwrap());
    let both = ticketed(keys(&(old.clone() + &new)).unwrap());
    let after = ticketed(keys(&new).unwrap());
    let first = before.keys().sign(&claims()).unwrap();
    let second = both.keys().sign(&claims()).unwrap();
    assert_ne!(first, second, "the last key signs");
    admitted(ask(&both, &first));
    admitted(ask(&both, &second));
    admitted(ask(&after, &second));
    assert_eq!(refused(ask(&after, &first)), Denied::BadCredentials);
    assert_eq!(refused(ask(&before, &second)), Denied::BadCredentials);
    let silent = ticketed(keys(&key("k1", "HS256", 1, false)).unwrap());
    assert!(!silent.keys().can_sign());
    assert_eq!(silent.keys().sign(&claims()), Err(SignError::NoKey));
    admitted(ask(&silent, &first));
}

#[test]
fn a_key_can_be_public_alone() {
    let signing = ticketed(keys(&key("e", "EdDSA", 7, true)).unwrap());
    let public = STANDARD.encode(ed_public(&ed_pkcs8(7)));
    let text = format!("[[key]]\nid = \"e\"\nalgorithm = \"EdDSA\"\npublic = \"{public}\"\n");
    let verifying = ticketed(keys(&text).unwrap());
    admitted(ask(&verifying, &signing.keys().sign(&claims()).unwrap()));
    let error = keys(&(text + "sign = true\n")).unwrap_err().to_string();
    assert!(
        error.starts_with("keys.toml:1: a key that is public alone can't sign"),
        "{error}"
    );
}

#[test]
fn a_broken_keys_file_names_its_line() {
    let good = key("k1", "HS256", 1, true);
    let short = STANDARD.encode([0; 31]);
    for (text, expected) in [
        (
            format!("{good}{good}"),
            "keys.toml:6: key \"k1\" stands twice",
        ),
        ("[[key]]\n".to_owned(), "keys.toml:1: missing field `id`"),
        ("\n[[key]\n".to_owned(), "keys.toml:2: "),
        ("key = 3".to_owned(), "keys.toml:1: "),
        (
            "[[kee]]\nid = \"a\"\n".to_owned(),
            "keys.toml:1: unknown field `kee`",
        ),
        (
            good.replace("HS256", "none"),
            "algorithm \"none\" signs no tickets",
        ),
        (
            good.replace("HS256", "RS256"),
            "algorithm \"RS256\" signs no tickets",
        ),
        (good.replace(&secret(1), &short), "32 bytes or more, not 31"),
        (good.replace(&secret(1), "%"), "secret is no base64"),
        (
            good.replace("HS256", "EdDSA").replace(&secret(1), &short),
            "has 32 bytes, not 31",
        ),
        (good.replace("\"k1\"", "\"k 1\""), "an id has 1 to 64"),
        (
            good.replace("secret =", "sekret ="),
            "unknown field `sekret`",
        ),
        (
            format!("{good}secret_file = \"x\"\n"),
            "either secret or secret_file",
        ),
        (
            format!("{}public = \"AAAA\"\n", good.replace("HS256", "EdDSA")),
            "public EdDSA key has 32 bytes, not 3",
        ),
    ] {
        let error = keys(&text).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.starts_with("keys.toml:"),
            "{text}: {error}"
        );
        assert!(
            !error.contains('\n') && !error.contains(&secret(1)),
            "{error}"
        );
    }
    assert!(!keys("").unwrap().can_sign());
}

#[test]
fn a_secret_can_stand_in_a_file_of_its_own() {
    let scratch = Scratch::new("secret-file");
    scratch.file("k1.secret", secret(1) + "\n");
    let path = scratch.file(
        "keys.toml",
        "[[key]]\nid = \"k1\"\nalgorithm = \"HS256\"\nsecret_file = \"k1.secret\"\nsign = true\n",
    );
    let token = Keys::read(&path).unwrap().sign(&claims()).unwrap();
    admitted(ask(&one_key(), &token));
}

#[test]
fn a_fresh_key_signs_and_the_older_ones_verify() {
    let scratch = Scratch::new("add-key");
    let path = scratch.path("keys.toml");
    let first = Keys::add(&path, None).unwrap();
    let old = Keys::read(&path).unwrap().sign(&claims()).unwrap();
    assert_eq!(Keys::add(&path, Some("second")).unwrap(), "second");
    assert_ne!(first, "second");
    let access = ticketed(Keys::read(&path).unwrap());
    let new = access.keys().sign(&claims()).unwrap();
    assert_eq!(
        jsonwebtoken::decode_header(&new).unwrap().kid.as_deref(),
        Some("second")
    );
    admitted(ask(&access, &old));
    admitted(ask(&access, &new));
    // What is wrong changes nothing.
    let before = std::fs::read_to_string(&path).unwrap();
    for id in ["second", "", "a b", "a\"\nx = 1"] {
        assert!(Keys::add(&path, Some(id)).is_err(), "{id}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn a_token_that_is_too_long_is_neither_signed_nor_looked_at() {
    let access = one_key();
    let long = Claims {
        jti: Some("x".repeat(limits::TOKEN_BYTES)),
        ..claims()
    };
    assert_eq!(access.keys().sign(&long), Err(SignError::TooLong));
    let token = forge(&json!({"alg": "HS256", "kid": "k1"}), &as_json(&long), 1);
    assert_eq!(refused(ask(&access, &token)), Denied::BadCredentials);
}

#[test]
fn a_tenant_that_is_not_in_the_apps_file_is_refused() {
    let mut access = one_key();
    access.only_known = true;
    let token = |app: Option<&str>| {
        let app = app.map(str::to_owned);
        one_key().keys().sign(&Claims { app, ..claims() }).unwrap()
    };
    assert_eq!(
        refused(ask(&access, &token(Some("shop")))),
        Denied::NotAuthorized
    );
    assert_eq!(refused(ask(&access, &token(None))), Denied::NotAuthorized);
    let apps = "[[app]]\nkey = \"shop\"\n[[app]]\nkey = \"-\"";
    access.apps = Apps::parse(Path::new("apps"), apps).unwrap();
    admitted(ask(&access, &token(None)));
    admitted(ask(&access, &token(Some("shop"))));
    assert_eq!(
        refused(ask(&access, &token(Some("shoq")))),
        Denied::NotAuthorized
    );
}

/// The 48 bytes of a private Ed25519 key.
fn ed_pkcs8(byte: u8) -> Vec<u8> {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend([byte; 32]);
    der
}

fn ed_public(private: &[u8]) -> Vec<u8> {
    let key = EncodingKey::from_ed_der(private);
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
    let jsonwebtoken::jwk::AlgorithmParameters::OctetKeyPair(pair) = jwk.algorithm else {
        panic!("no pair")
    };
    URL_SAFE_NO_PAD.decode(pair.x).unwrap()
}

proptest! {
    /// Whatever comes as a password: no panic, and nobody gets in.
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let decision = one_key().authenticate(&phone(&bytes), UnixSeconds(NOW));
        prop_assert_eq!(refused(decision), Denied::BadCredentials);
    }

    /// Any header and any claims under a good signature: no panic, and whoever gets in has our issuer and its own client id.
    #[test]
    fn any_json_is_read(header in "[{}\\[\\]\":,a-z0-9 ]{0,40}", claims in "\\{(\"(iss|sub|exp|acl)\":(\"stillwire\"|\"phone-1\"|9|null|\\[\\]),?){0,4}\\}") {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&claims));
        let key = EncodingKey::from_secret(&[1; 32]).unwrap();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        // Time stands still at 0, so that 9 has not come.
        if let Decision::Admit(identity) = ask_at(&one_key(), &format!("{message}.{signature}"), 0) {
            prop_assert!(claims.contains("stillwire") && claims.contains("phone-1") && !identity.tenant.contains('/'));
        }
        let good = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k1"}"#);
        let message = format!("{good}.{}", URL_SAFE_NO_PAD.encode(&claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        if let Decision::Admit(_) = ask_at(&one_key(), &format!("{message}.{signature}"), 0) {
            prop_assert!(claims.contains("\"iss\":\"stillwire\"") && claims.contains("\"sub\":\"phone-1\""));
        }
    }

    /// What the library signs and reads, ours takes, and the other way round.
    #[test]
    fn tickets_are_jwts(sub in "[a-z]{1,12}", app in prop::option::of("[a-z]{1,8}"), jti in prop::option::of("[a-z]{1,8}")) {
        let access = one_key();
        let ticket = Claims { sub: sub.clone(), app, jti, ..claims() };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".to_owned());
        let theirs = jsonwebtoken::encode(&header, &ticket, &EncodingKey::from_secret(&[1; 32]).unwrap()).unwrap();
        let ours = access.keys().sign(&ticket).unwrap();
        prop_assert_eq!(&theirs, &ours);
        // Both ways of reading one: with our header, and with any other.
        let foreign = forge(&json!({"kid": "k1", "alg": "HS256"}), &as_json(&ticket), 1);
        prop_assert_eq!(access.keys.verify(ours.as_bytes()), Some(ticket.clone()));
        prop_assert_eq!(access.keys.verify(foreign.as_bytes()), Some(ticket.clone()));
        let c = Credentials { client_id: &sub, ..phone(ours.as_bytes()) };
        let identity = admitted(access.authenticate(&c, UnixSeconds(NOW)));
        prop_assert_eq!(&*identity.tenant, ticket.app.as_deref().unwrap_or_default());
        prop_assert_eq!(identity.token.as_deref(), ticket.jti.as_deref());
    }
}
