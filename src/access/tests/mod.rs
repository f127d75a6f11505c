//! What the parts promise together: tokens, rules and files as clients and operators bring them.

mod tokens;

use std::path::Path;

use super::files::tests::Scratch;
use super::*;

/// When these tests are.
const NOW: u64 = 1_800_000_000;

/// The base64 of 32 bytes, all the same.
fn secret(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

fn keys(text: &str) -> Result<Keys, AccessError> {
    Keys::parse(Path::new("keys.toml"), text)
}

/// An entry of a keys file.
fn key(id: &str, algorithm: &str, byte: u8, sign: bool) -> String {
    format!(
        "[[key]]\nid = \"{id}\"\nalgorithm = \"{algorithm}\"\nsecret = \"{}\"\nsign = {sign}\n",
        secret(byte)
    )
}

/// Claims of a ticket for `phone-1`, good for an hour.
fn claims() -> Claims {
    Claims {
        sub: "phone-1".to_owned(),
        exp: NOW + 3600,
        iat: Some(NOW),
        ..Claims::default()
    }
}

/// A client called `phone-1` with a password.
fn phone(password: &[u8]) -> Credentials<'_> {
    Credentials {
        client_id: "phone-1",
        user: Some("whoever"),
        password: Some(password),
        address: [127, 0, 0, 1].into(),
    }
}

#[track_caller]
fn admitted(decision: Decision) -> Identity {
    match decision {
        Decision::Admit(identity) => identity,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(decision: Decision) -> Denied {
    match decision {
        Decision::Refuse(denied) => denied,
        other => panic!("{other:?}"),
    }
}
