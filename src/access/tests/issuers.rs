//! JWTs of others.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of thirty-two bytes and more";

/// Keys for these tests alone, made with openssl.
const RSA: (&str, &str) = (include_str!("rsa.pem"), include_str!("rsa.pub.pem"));
const EC: (&str, &str) = (include_str!("ec.pem"), include_str!("ec.pub.pem"));
const ED: (&str, &str) = (include_str!("ed.pem"), include_str!("ed.pub.pem"));

fn issuers(text: &str) -> Result<Issuers, AccessError> {
    Issuers::parse(Path::new("issuers"), text)
}

/// An entry with a public key, or a secret.
fn entry(algorithm: &str, key: &str, more: &str) -> String {
    format!(
        "[[issuer]]\niss = \"https://id\"\nalgorithm = \"{algorithm}\"\nkey = '''{key}'''\n{more}\n"
    )
}

fn access(text: &str) -> Access {
    Access {
        methods: vec![Method::Jwt],
        issuers: issuers(text).unwrap(),
        only_known: false,
        skew: 30,
        ..Access::default()
    }
}

fn claims() -> Value {
    json!({"iss": "https://id", "sub": "phone-1", "exp": NOW + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn signing(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SECRET.as_bytes()).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC.0.as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED.0.as_bytes()).unwrap(),
        _ => EncodingKey::from_rsa_pem(RSA.0.as_bytes()).unwrap(),
    }
}

fn token(algorithm: Algorithm, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &signing(algorithm)).unwrap()
}

fn ask(access: &Access, token: &str) -> Decision {
    access.authenticate(&phone(token.as_bytes()), UnixSeconds(NOW))
}

/// A server with one issuer that signs with a secret, and what it says to such claims.
fn say(more: &str, claims: &Value) -> Decision {
    ask(
        &access(&entry("HS256", SECRET, more)),
        &token(Algorithm::HS256, claims),
    )
}

#[test]
fn each_algorithm_is_taken_with_its_own_key_alone() {
    let kinds = [
        ("HS256", SECRET, Algorithm::HS256),
        ("RS256", RSA.1, Algorithm::RS256),
        ("PS256", RSA.1, Algorithm::PS256),
        ("ES256", EC.1, Algorithm::ES256),
        ("EdDSA", ED.1, Algorithm::EdDSA),
    ];
    for (name, key, algorithm) in kinds {
        let access = access(&entry(name, key, ""));
        for (_, _, other) in kinds {
            let decision = ask(&access, &token(other, &claims()));
            if other == algorithm {
                assert_eq!(admitted(decision).user.as_deref(), Some("phone-1"));
            } else {
                assert_eq!(
                    refused(decision),
                    Denied::BadCredentials,
                    "{name} {other:?}"
                );
            }
        }
        // The public key as the secret of an HMAC.
        let confused = EncodingKey::from_secret(key.as_bytes()).unwrap();
        let header = Header::new(Algorithm::HS256);
        let confused = jsonwebtoken::encode(&header, &claims(), &confused).unwrap();
        if algorithm != Algorithm::HS256 {
            assert_eq!(refused(ask(&access, &confused)), Denied::BadCredentials);
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    for key in [RSA.1, EC.1, ED.1] {
        let error = issuers(&entry("HS256", key, "")).unwrap_err().to_string();
        assert!(
            error.starts_with("issuers:1: a public key is no secret"),
            "{error}"
        );
    }
}

#[test]
fn claims_say_who_it_is() {
    let more = "tenant_claim = \"app\"\nclient_claim = \"device\"\nacl_claim = \"push\"";
    let good = json!({
        "iss": "https://id", "sub": "ann", "app": "shop", "device": "phone-1", "jti": "t1",
        "exp": NOW + 60, "iat": NOW as f64 - 0.5, "push": {"sub": ["a/#"]}
    });
    let identity = admitted(say(more, &good));
    assert_eq!(
        (&*identity.tenant, identity.user.as_deref()),
        ("shop", Some("ann"))
    );
    assert_eq!(
        (identity.token.as_deref(), identity.issued),
        (Some("t1"), Some(UnixSeconds(NOW - 1)))
    );
    assert!(identity.rights.is_some());
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        say(more, &claims)
    };
    for name in ["app", "device", "exp"] {
        assert_eq!(refused(without(name)), Denied::BadCredentials, "{name}");
    }
    // Without its claim, it may do nothing.
    assert_eq!(admitted(without("push")).rights.unwrap().publish.len(), 0);
    for (name, value) in [
        ("app", json!("sh/op")),
        ("app", json!("")),
        ("device", json!("phone-2")),
        ("device", json!(["phone-1"])),
        ("push", json!("#")),
        ("push", json!({"pub": ["#/a"]})),
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("iat", json!(NOW + 31)),
        ("iat", json!("now")),
        ("nbf", json!(NOW + 31)),
        ("iss", json!("https://other")),
    ] {
        let mut claims = good.clone();
        claims[name] = value.clone();
        assert_eq!(
            refused(say(more, &claims)),
            Denied::BadCredentials,
            "{name}: {value}"
        );
    }
    assert_eq!(
        refused(say("", &with("exp", json!(NOW - 30)))),
        Denied::Expired
    );
    admitted(say("", &with("exp", json!(NOW - 29))));
}

#[test]
fn the_client_id_is_the_subject_unless_it_is_said_otherwise() {
    let other = with("sub", json!("ann"));
    assert_eq!(refused(say("", &other)), Denied::BadCredentials);
    admitted(say("client_claim = \"\"", &other));
    assert_eq!(
        &*admitted(say("tenant = \"shop\"", &claims())).tenant,
        "shop"
    );
    assert_eq!(&*admitted(say("", &claims())).tenant, "");
}

#[test]
fn an_audience_must_be_ours() {
    let ours = with("aud", json!(["other", "push"]));
    admitted(say("audience = \"push\"", &ours));
    assert_eq!(
        refused(say("audience = \"push\"", &claims())),
        Denied::BadCredentials
    );
    let theirs = with("aud", json!("other"));
    assert_eq!(
        refused(say("audience = \"push\"", &theirs)),
        Denied::BadCredentials
    );
    // Meant for somebody, and nobody here has said that it is us.
    assert_eq!(refused(say("", &ours)), Denied::BadCredentials);
}

#[test]
fn several_keys_of_one_issuer() {
    let old = "another secret of thirty-two bytes";
    let both = entry("HS256", old, "kid = \"old\"") + &entry("HS256", SECRET, "kid = \"new\"");
    let access = access(&both);
    let sign = |kid: Option<&str>, secret: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let key = EncodingKey::from_secret(secret.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims(), &key).unwrap()
    };
    admitted(ask(&access, &sign(Some("old"), old)));
    admitted(ask(&access, &sign(Some("new"), SECRET)));
    for token in [
        sign(Some("new"), old),
        sign(None, old),
        sign(Some("x"), SECRET),
    ] {
        assert_eq!(refused(ask(&access, &token)), Denied::BadCredentials);
    }
    // Without a kid the key is tried for every token.
    let any = self::access(&entry("HS256", SECRET, ""));
    admitted(ask(&any, &sign(Some("whatever"), SECRET)));
}

#[test]
fn no_issuer_signs_tickets() {
    let forged = with("iss", json!("stillwire"));
    assert_eq!(refused(say("", &forged)), Denied::BadCredentials);
    let mut both = access(&entry("HS256", SECRET, ""));
    both.methods.push(Method::Ticket);
    both.keys = keys(&key("k1", "HS256", 1, true)).unwrap();
    assert_eq!(
        refused(ask(&both, &token(Algorithm::HS256, &forged))),
        Denied::BadCredentials
    );
    admitted(ask(&both, &token(Algorithm::HS256, &claims())));
    let error =
        issuers(&entry("HS256", SECRET, "").replace("https://id", "stillwire")).unwrap_err();
    assert!(error.to_string().contains("that of tickets"), "{error}");
}

#[test]
fn the_lookup_learns_whom_a_token_speaks_for() {
    let mut access = access(&entry("HS256", SECRET, "tenant = \"shop\""));
    let ours = token(Algorithm::HS256, &claims());
    let (identity, client_id) = access.bearer_of(ours.as_bytes(), UnixSeconds(NOW)).unwrap();
    assert_eq!(
        (&*identity.tenant, client_id.as_deref()),
        ("shop", Some("phone-1"))
    );
    let late = access.bearer_of(ours.as_bytes(), UnixSeconds(NOW + 100));
    assert_eq!(late.unwrap_err(), Denied::Expired);
    assert!(access.bearer_of(b"a.b.c", UnixSeconds(NOW)).is_err());
    access.revoked = Revoked::parse(Path::new("r"), "client shop/phone-1").unwrap();
    let revoked = access.bearer_of(ours.as_bytes(), UnixSeconds(NOW));
    assert_eq!(revoked.unwrap_err(), Denied::Revoked);
}

#[test]
fn a_broken_issuer_names_its_line_and_no_key() {
    let good = entry("HS256", SECRET, "");
    for (text, expected) in [
        (entry("none", SECRET, ""), "algorithm \"none\" is not known"),
        (entry("RS256", SECRET, ""), "no public key as PEM"),
        (entry("RS256", EC.1, ""), "no public key as PEM"),
        (entry("RS256", RSA.0, ""), ""),
        (entry("ES256", ED.1, ""), "no public key as PEM"),
        (entry("EdDSA", EC.1, ""), "no public key as PEM"),
        (entry("HS256", "short", ""), "32 bytes or more, not 5"),
        (entry("HS256", "base64:AAAA", ""), "32 bytes or more, not 3"),
        (entry("HS256", "base64:%", ""), "no base64"),
        (
            entry("HS256", SECRET, "tenant = \"a b\""),
            "\"a b\" is no app key",
        ),
        (
            entry("HS256", SECRET, "tenant = \"a\"\ntenant_claim = \"b\""),
            "either tenant or tenant_claim",
        ),
        (
            entry("HS256", SECRET, "key_file = \"x\""),
            "either key or key_file",
        ),
        (good.replace("https://id", ""), "iss is empty"),
        (good.replace("iss =", "isss ="), "unknown field `isss`"),
    ] {
        let text = format!("\n{text}");
        match issuers(&text) {
            Ok(_) => assert!(expected.is_empty(), "{text}"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.starts_with("issuers:") && error.contains(expected),
                    "{text}: {error}"
                );
                assert!(!error.contains(SECRET), "{error}");
            }
        }
    }
    let scratch = Scratch::new("issuers");
    scratch.file("id.pem", ED.1);
    let named = |file: &str| {
        entry("EdDSA", "", "").replace("key = ''''''", &format!("key_file = \"{file}\""))
    };
    let path = scratch.file("issuers", named("id.pem"));
    assert!(Issuers::read(&path).is_ok());
    let path = scratch.file("issuers", named("other.pem"));
    let error = Issuers::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("issuers:1: ") && error.contains("other.pem: cannot be read"),
        "{error}"
    );
}
