//! The keys that sign tickets: a file of several, of which the last one that signs does, and all verify.
//!
//! ```toml
//! [[key]]
//! id = "2026-11"
//! algorithm = "HS256"        # or "EdDSA"
//! secret = "…"               # base64 of 32 bytes or more; EdDSA: of the 32 bytes of a private key
//! sign = true
//! ```
//!
//! The algorithm is the key's, never the token's: a header that names another is refused before anything is computed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use toml::Spanned;

use super::token::Claims;
use super::{AccessError, files};
use crate::limits;

/// The keys of a file. Without a file there are none.
#[derive(Debug, Default)]
pub struct Keys {
    /// By age, the newest last.
    keys: Vec<Key>,
    signer: Option<Signer>,
}

struct Key {
    id: Box<str>,
    verify: DecodingKey,
    /// Pins the algorithm, and leaves the claims to us: the library reads a clock of its own.
    rules: Validation,
}

struct Signer {
    header: Header,
    key: EncodingKey,
}

/// No ticket was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The operator has named no key that signs.
    NoKey,
    /// It would be longer than [`limits::TOKEN_BYTES`], with so many rights.
    TooLong,
}

impl std::fmt::Display for SignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoKey => {
                f.write_str("no key of the keys file signs; add one with `stillwire key FILE`")
            }
            Self::TooLong => write!(
                f,
                "the token is longer than {} bytes; name fewer filters in it",
                limits::TOKEN_BYTES
            ),
        }
    }
}

impl std::error::Error for SignError {}

impl Keys {
    /// Reads a keys file.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    /// The same from its text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let written: Written = files::toml(path, text)?;
        let mut keys = Self::default();
        for key in &written.key {
            let at = key.span().start;
            let key = key.get_ref();
            let broken = |what: String| AccessError::broken(path, files::line_at(text, at), what);
            if keys.keys.iter().any(|other| *other.id == *key.id) {
                return Err(broken(format!(
                    "key {:?} stands twice; give each an id of its own",
                    key.id
                )));
            }
            let (new, signing) = key.resolve(path).map_err(broken)?;
            if key.sign {
                let mut header = Header::new(new.rules.algorithms[0]);
                header.kid = Some(key.id.clone());
                let key = signing.ok_or_else(|| {
                    broken("a key that is public alone can't sign; take sign = true out".to_owned())
                })?;
                keys.signer = Some(Signer { header, key });
            }
            keys.keys.push(new);
        }
        Ok(keys)
    }

    /// Whether there is a key that signs.
    pub fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    /// Signs a ticket.
    pub fn sign(&self, claims: &Claims) -> Result<String, SignError> {
        let signer = self.signer.as_ref().ok_or(SignError::NoKey)?;
        let token = jsonwebtoken::encode(&signer.header, claims, &signer.key)
            .expect("claims are JSON, and the key has signed when it was read");
        if token.len() > limits::TOKEN_BYTES {
            return Err(SignError::TooLong);
        }
        Ok(token)
    }

    /// The claims of a ticket, if one of the keys has signed it. Nothing else of it is looked at.
    pub(super) fn verify(&self, token: &[u8]) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let id = header.kid?;
        let key = self.keys.iter().rfind(|key| *key.id == *id)?;
        let ticket = jsonwebtoken::decode(token, &key.verify, &key.rules).ok()?;
        Some(ticket.claims)
    }

    /// Adds a fresh HMAC key that signs from now on, the file along with it if there is none; the older ones go on verifying. Returns the
    /// key's id.
    pub fn add(path: &Path, id: Option<&str>) -> Result<String, AccessError> {
        let mut text = match files::text(path) {
            Ok(text) => text,
            Err(AccessError::Unreadable(_, error))
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                String::new()
            }
            Err(error) => return Err(error),
        };
        // What is there must be right, or the server would not read the new one either.
        Self::parse(path, &text)?;
        let id = match id {
            Some(id) => id.to_owned(),
            None => format!("k-{}", URL_SAFE_NO_PAD.encode(random::<6>()?)),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // Writing to a String can't fail.
        _ = write!(
            text,
            "{}[[key]]\nid = \"{id}\"\nalgorithm = \"HS256\"\nsecret = \"{}\"\nsign = true\n",
            if text.is_empty() { "" } else { "\n" },
            STANDARD.encode(random::<32>()?)
        );
        Self::parse(path, &text)?;
        files::replace(path, &text)?;
        Ok(id)
    }
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], AccessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| AccessError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A fresh id for a token (`jti`): 16 characters, 96 random bits.
pub fn token_id() -> Result<String, AccessError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<12>()?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: Vec<Spanned<WrittenKey>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    id: String,
    algorithm: String,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    public: Option<String>,
    #[serde(default)]
    sign: bool,
}

impl WrittenKey {
    /// The key as it verifies, and as it signs where it is not public alone; or what is wrong.
    fn resolve(&self, path: &Path) -> Result<(Key, Option<EncodingKey>), String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(plain) {
            return Err(
                "an id has 1 to 64 letters, digits, dots, dashes and underscores".to_owned(),
            );
        }
        let (algorithm, verify, sign) = match self.algorithm.as_str() {
            "HS256" => {
                let secret = self.secret(path)?;
                if secret.len() < 32 {
                    return Err(format!(
                        "an HS256 secret has 32 bytes or more, not {}; `stillwire key` makes one",
                        secret.len()
                    ));
                }
                let verify =
                    DecodingKey::from_secret(&secret).map_err(|error| error.to_string())?;
                (
                    Algorithm::HS256,
                    verify,
                    EncodingKey::from_secret(&secret).ok(),
                )
            }
            "EdDSA" if self.public.is_some() => {
                let verify = ed_public(&decode(
                    "public",
                    self.public.as_deref().unwrap_or_default(),
                )?)?;
                (Algorithm::EdDSA, verify, None)
            }
            "EdDSA" => {
                let sign = ed_private(&self.secret(path)?)?;
                let public = Jwk::from_encoding_key(&sign, Algorithm::EdDSA)
                    .map_err(|error| error.to_string())?;
                let AlgorithmParameters::OctetKeyPair(pair) = public.algorithm else {
                    return Err("no Ed25519 key".to_owned());
                };
                let public = URL_SAFE_NO_PAD
                    .decode(pair.x)
                    .map_err(|error| error.to_string())?;
                (Algorithm::EdDSA, ed_public(&public)?, Some(sign))
            }
            other => {
                return Err(format!(
                    "algorithm {other:?} signs no tickets; write \"HS256\" or \"EdDSA\""
                ));
            }
        };
        let key = Key {
            id: self.id.as_str().into(),
            verify,
            rules: signature_only(algorithm),
        };
        Ok((key, sign))
    }

    fn secret(&self, path: &Path) -> Result<Vec<u8>, String> {
        match (&self.secret, &self.secret_file) {
            (Some(secret), None) => decode("secret", secret),
            (None, Some(file)) => {
                // Beside the keys file, where it is not said from the root.
                let file = path.parent().unwrap_or(Path::new("")).join(file);
                let text = files::text(&file).map_err(|error| error.to_string())?;
                decode("secret_file", &text)
            }
            _ => Err("a key has either secret or secret_file".to_owned()),
        }
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text.trim())
        .map_err(|error| format!("{what} is no base64: {error}"))
}

/// What precedes the 32 bytes of a private Ed25519 key in PKCS #8 (RFC 8410 section 7).
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

fn ed_private(seed: &[u8]) -> Result<EncodingKey, String> {
    if seed.len() != 32 {
        return Err(format!("an EdDSA secret has 32 bytes, not {}", seed.len()));
    }
    let key = EncodingKey::from_ed_der(&[&ED25519_PKCS8, seed].concat());
    // A key that can't sign is found here, and never when somebody asks for a ticket.
    jsonwebtoken::crypto::sign(b"", &key, Algorithm::EdDSA).map_err(|error| error.to_string())?;
    Ok(key)
}

fn ed_public(key: &[u8]) -> Result<DecodingKey, String> {
    // The library takes the first 32 bytes, and ends the process where there are fewer.
    if key.len() != 32 {
        return Err(format!(
            "a public EdDSA key has 32 bytes, not {}",
            key.len()
        ));
    }
    let key = DecodingKey::from_ed_der(key);
    try_key(&key, Algorithm::EdDSA)?;
    Ok(key)
}

/// Whether a key can verify at all.
pub(super) fn try_key(key: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
    let tried = jsonwebtoken::crypto::verify("", b"", key, algorithm);
    tried.map(drop).map_err(|error| error.to_string())
}

/// Rules for the library that leave all claims to us.
pub(super) fn signature_only(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.header.kid).finish()
    }
}
