//! Apps: the tenants of a server, who may ask for tickets in their name, and what each may use.
//!
//! ```toml
//! [[app]]
//! key = "shop"                       # "-" is the default tenant
//! secrets = ["sha256:…", "…"]        # as hex of a hash, or as they are: 16 characters or more
//! max_connections = 100_000          # and connect_rate, publish_rate, publish_bytes, max_subscriptions, max_offline_bytes, max_payload
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use toml::Spanned;

use super::{AccessError, files, is_tenant};

/// The apps of a file.
#[derive(Debug, Default)]
pub struct Apps(HashMap<Box<str>, App>);

/// A tenant.
pub struct App {
    /// Its name; empty: the default one.
    pub key: Arc<str>,
    /// What it may use.
    pub limits: AppLimits,
    /// Hashes of the secrets with which its back end asks for tickets. A secret has too many bits to be guessed, so a fast hash does.
    secrets: Vec<[u8; 32]>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("App")
            .field(&self.key)
            .field(&self.limits)
            .finish()
    }
}

/// What a tenant may use, over all reactors; None: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AppLimits {
    /// Connections at a time.
    pub max_connections: Option<u64>,
    /// Connects a second.
    pub connect_rate: Option<u64>,
    /// Messages published a second.
    pub publish_rate: Option<u64>,
    /// Bytes published a second.
    pub publish_bytes: Option<u64>,
    /// Subscriptions in total.
    pub max_subscriptions: Option<u64>,
    /// Bytes in the queues of sessions that are away.
    pub max_offline_bytes: Option<u64>,
    /// Bytes of one message's payload.
    pub max_payload: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    app: Vec<Spanned<WrittenApp>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenApp {
    key: String,
    #[serde(default)]
    secrets: Vec<String>,
    max_connections: Option<u64>,
    connect_rate: Option<u64>,
    publish_rate: Option<u64>,
    publish_bytes: Option<u64>,
    max_subscriptions: Option<u64>,
    max_offline_bytes: Option<u64>,
    max_payload: Option<u64>,
}

impl Apps {
    /// Reads an apps file.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    /// The same from its text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let written: Written = files::toml(path, text)?;
        let mut apps = Self::default();
        for app in &written.app {
            let at = app.span().start;
            let broken = |what: String| AccessError::broken(path, files::line_at(text, at), what);
            let app = app.get_ref().resolve().map_err(broken)?;
            let key: Box<str> = (*app.key).into();
            if let Some(twice) = apps.0.insert(key, app) {
                return Err(broken(format!("app {:?} stands twice", twice.key)));
            }
        }
        Ok(apps)
    }

    /// One of them; the default tenant has the empty name.
    pub fn get(&self, name: &str) -> Option<&App> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &App> {
        self.0.values()
    }

    /// Whether a secret is one of the app's. How long it takes says nothing about either.
    pub fn check(&self, app: &str, secret: &str) -> bool {
        let hash = hash(secret);
        let secrets = self.get(app).map_or(&[][..], |app| &app.secrets);
        let found = secrets
            .iter()
            .fold(subtle::Choice::from(0), |found, known| {
                found | known.ct_eq(&hash)
            });
        found.into()
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

impl WrittenApp {
    fn resolve(&self) -> Result<App, String> {
        let key = match self.key.as_str() {
            "-" => "",
            key if is_tenant(key) => key,
            other => {
                return Err(format!(
                    "{other:?} is no app key: 1 to 32 letters, digits, dashes and underscores, or \"-\" for the default tenant"
                ));
            }
        };
        let secrets = self
            .secrets
            .iter()
            .map(|secret| match secret.strip_prefix("sha256:") {
                Some(hex) => {
                    unhex(hex).ok_or_else(|| "after sha256: stand 64 hex digits".to_owned())
                }
                None if secret.chars().count() < 16 => Err(
                    "a secret has 16 characters or more; `openssl rand -base64 24` makes one"
                        .to_owned(),
                ),
                None => Ok(hash(secret)),
            });
        let is_limited = [
            self.max_connections,
            self.connect_rate,
            self.publish_rate,
            self.publish_bytes,
            self.max_subscriptions,
            self.max_offline_bytes,
            self.max_payload,
        ]
        .iter()
        .any(Option::is_some);
        if key.is_empty() && is_limited {
            return Err(
                "the default app has no limits of its own; those of [mqtt] hold".to_owned(),
            );
        }
        Ok(App {
            key: key.into(),
            secrets: secrets.collect::<Result<_, _>>()?,
            limits: AppLimits {
                max_connections: self.max_connections,
                connect_rate: self.connect_rate,
                publish_rate: self.publish_rate,
                publish_bytes: self.publish_bytes,
                max_subscriptions: self.max_subscriptions,
                max_offline_bytes: self.max_offline_bytes,
                max_payload: self.max_payload,
            },
        })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|&[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8))
        .collect();
    bytes?.try_into().ok().filter(|_| rest.is_empty())
}
