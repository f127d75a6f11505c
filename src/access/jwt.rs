//! JWTs of others: issuers whose tokens are taken, each with its key, its one algorithm, and what its claims mean here.
//!
//! ```toml
//! [[issuer]]
//! iss = "https://id.example.com"
//! audience = "push"              # a token with an audience is refused where none stands here
//! algorithm = "RS256"            # HS256, HS384, HS512, RS…, PS…, ES256, ES384, EdDSA
//! key_file = "id.pem"            # or key = "…": a public key as PEM; HS…: the secret, or "base64:…"
//! kid = "2026"                   # taken for tokens with this key id alone; several keys of one issuer stand as several [[issuer]]
//! tenant = "shop"                # or tenant_claim = "app"; neither: the default tenant
//! client_claim = "device"        # the claim that must be the client id [default: "sub"]; "": any client id
//! acl_claim = "push"             # a claim with {"pub": [filters], "sub": [filters]}; its rights are the client's
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::acl::{Rights, RightsClaim};
use super::keys::{signature_only, try_key};
use super::token::Times;
use super::{AccessError, Denied, Identity, UnixSeconds, files, is_tenant};

/// The issuers of a file.
#[derive(Debug, Default)]
pub(super) struct Issuers(Vec<Issuer>);

struct Issuer {
    iss: String,
    kid: Option<String>,
    verify: DecodingKey,
    rules: Validation,
    tenant: Tenant,
    client_claim: Option<String>,
    acl_claim: Option<String>,
}

/// Which tenant a token is of.
enum Tenant {
    Fixed(Arc<str>),
    Claim(String),
}

/// Who a token speaks for, before it is asked whether that may connect.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) identity: Identity,
    /// The client id that may connect; None: any.
    pub(super) client_id: Option<String>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Issuer")
            .field(&self.iss)
            .field(&self.kid)
            .finish()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    issuer: Vec<Spanned<WrittenIssuer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIssuer {
    iss: String,
    audience: Option<String>,
    algorithm: String,
    key: Option<String>,
    key_file: Option<PathBuf>,
    kid: Option<String>,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    client_claim: Option<String>,
    acl_claim: Option<String>,
}

impl Issuers {
    /// Reads an issuers file.
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let written: Written = files::toml(path, text)?;
        let issuers = written.issuer.iter().map(|issuer| {
            let broken =
                |what| AccessError::broken(path, files::line_at(text, issuer.span().start), what);
            issuer.get_ref().resolve(path).map_err(broken)
        });
        Ok(Self(issuers.collect::<Result<_, _>>()?))
    }

    /// Whether any of them is called so.
    pub(super) fn knows(&self, iss: &str) -> bool {
        self.0.iter().any(|issuer| issuer.iss == iss)
    }

    /// Whom a token of `iss` speaks for.
    pub(super) fn verify(
        &self,
        token: &[u8],
        iss: &str,
        now: UnixSeconds,
        skew: u64,
    ) -> Result<Bearer, Denied> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::BadCredentials)?;
        let with_key = |issuer: &&Issuer| {
            issuer.iss == iss && (issuer.kid.is_none() || issuer.kid == header.kid)
        };
        let (issuer, claims) = self
            .0
            .iter()
            .filter(with_key)
            .find_map(|issuer| {
                let token = jsonwebtoken::decode::<Map<String, Value>>(
                    token,
                    &issuer.verify,
                    &issuer.rules,
                )
                .ok()?;
                Some((issuer, token.claims))
            })
            .ok_or(Denied::BadCredentials)?;
        issuer.admit(&claims, now, skew)
    }
}

impl Issuer {
    fn admit(
        &self,
        claims: &Map<String, Value>,
        now: UnixSeconds,
        skew: u64,
    ) -> Result<Bearer, Denied> {
        let (issued, begins) = (time(claims, "iat")?, time(claims, "nbf")?);
        let expires = time(claims, "exp")?.ok_or(Denied::BadCredentials)?;
        Times {
            expires,
            issued,
            begins,
        }
        .check(now, skew)?;
        let tenant = match &self.tenant {
            Tenant::Fixed(tenant) => tenant.clone(),
            Tenant::Claim(name) => text(claims, name)
                .filter(|tenant| is_tenant(tenant))
                .ok_or(Denied::BadCredentials)?
                .into(),
        };
        let client_id = match &self.client_claim {
            Some(name) => Some(text(claims, name).ok_or(Denied::BadCredentials)?.to_owned()),
            None => None,
        };
        let rights = match &self.acl_claim {
            Some(name) => {
                // Without the claim it has no rights: the issuer is known to say what they are.
                let claim = claims
                    .get(name)
                    .map_or(Ok(RightsClaim::default()), RightsClaim::deserialize);
                let rights = claim.ok().and_then(|claim| Rights::from_claim(&claim));
                Some(rights.ok_or(Denied::BadCredentials)?.into())
            }
            None => None,
        };
        let identity = Identity {
            tenant,
            user: text(claims, "sub").map(Into::into),
            rights,
            token: text(claims, "jti").map(Into::into),
            issued: issued.map(UnixSeconds),
            expires: Some(UnixSeconds(expires)),
        };
        Ok(Bearer {
            identity,
            client_id,
        })
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// A time; some issuers write it with a fraction. What is there and is none is refused.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Denied> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let whole = value.as_u64();
    let fraction = || {
        value
            .as_f64()
            .filter(|time| (0.0..1e18).contains(time))
            .map(|time| time as u64)
    };
    whole
        .or_else(fraction)
        .map(Some)
        .ok_or(Denied::BadCredentials)
}

impl WrittenIssuer {
    fn resolve(&self, path: &Path) -> Result<Issuer, String> {
        if self.iss.is_empty() || super::token::is_ours(&self.iss) {
            return Err(
                "iss is empty, or that of tickets; write what the issuer writes into its tokens"
                    .to_owned(),
            );
        }
        let algorithm: Algorithm = self.algorithm.parse().map_err(|_| {
            format!("algorithm {:?} is not known; write one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA", self.algorithm)
        })?;
        let verify = key(algorithm, &self.key(path)?)?;
        let mut rules = signature_only(algorithm);
        rules.validate_aud = true;
        rules.set_issuer(&[&self.iss]);
        let mut required = vec!["iss"];
        if let Some(audience) = &self.audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        rules.set_required_spec_claims(&required);
        let tenant = match (&self.tenant, &self.tenant_claim) {
            (None, None) => Tenant::Fixed("".into()),
            (Some(tenant), None) if is_tenant(tenant) => Tenant::Fixed(tenant.as_str().into()),
            (Some(tenant), None) => return Err(format!("{tenant:?} is no app key")),
            (None, Some(claim)) => Tenant::Claim(claim.clone()),
            (Some(_), Some(_)) => {
                return Err("an issuer has either tenant or tenant_claim".to_owned());
            }
        };
        let client_claim = self
            .client_claim
            .clone()
            .unwrap_or_else(|| "sub".to_owned());
        Ok(Issuer {
            iss: self.iss.clone(),
            kid: self.kid.clone(),
            verify,
            rules,
            tenant,
            client_claim: Some(client_claim).filter(|claim| !claim.is_empty()),
            acl_claim: self.acl_claim.clone(),
        })
    }

    fn key(&self, path: &Path) -> Result<Vec<u8>, String> {
        match (&self.key, &self.key_file) {
            (Some(key), None) => Ok(key.clone().into_bytes()),
            (None, Some(file)) => {
                let file = path.parent().unwrap_or(Path::new("")).join(file);
                let mut bytes = files::bytes(&file).map_err(|error| error.to_string())?;
                // An editor's newline is not a part of a secret.
                while bytes
                    .last()
                    .is_some_and(|&byte| byte == b'\n' || byte == b'\r')
                {
                    bytes.pop();
                }
                Ok(bytes)
            }
            _ => Err("an issuer has either key or key_file".to_owned()),
        }
    }
}

fn key(algorithm: Algorithm, written: &[u8]) -> Result<DecodingKey, String> {
    let pem = |error: jsonwebtoken::errors::Error| {
        format!("no public key as PEM for this algorithm: {error}")
    };
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => {
            let secret = match written.strip_prefix(b"base64:") {
                Some(text) => base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|error| format!("no base64: {error}"))?,
                None => written.to_vec(),
            };
            if secret.starts_with(b"-----BEGIN") {
                // It would verify what anybody signs who has the public key.
                return Err("a public key is no secret; name the algorithm of the key".to_owned());
            }
            if secret.len() < 32 {
                return Err(format!(
                    "an HMAC secret has 32 bytes or more, not {}",
                    secret.len()
                ));
            }
            DecodingKey::from_secret(&secret).map_err(|error| error.to_string())?
        }
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(written).map_err(pem)?,
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(written).map_err(pem)?,
        AlgorithmFamily::Ed => {
            let key = DecodingKey::from_ed_pem(written).map_err(pem)?;
            if key.try_get_as_bytes().map_or(0, <[u8]>::len) != 32 {
                return Err("no Ed25519 key".to_owned());
            }
            key
        }
    };
    try_key(&key, algorithm)?;
    Ok(key)
}
