//! Verifying JSON Web Tokens (RFC 7519) whose algorithm is fixed by the key, never by the token.
//!
//! A token is believed only if its header names the key's algorithm, its signature holds, and its claims are in
//! bounds and in time. Time is an argument; the grace after `exp` is the session's business, here there is none.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::Header;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::jwks::KeySet;
use super::key::{Algorithm, Key, KeyError};
use crate::limits;
use crate::time::WallMillis;

/// Checks tokens against one key, or the keys of a set (RFC 7517). Shared by all shards.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<Key>,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
}

/// What a valid token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// `sub`: 1 to `limits::USER_ID_BYTES_MAX` bytes without control characters.
    pub user: Arc<str>,
    /// `username` or `name`, else the user id; the same bounds.
    pub username: Arc<str>,
    /// `roles`; at most `limits::ROLES_MAX`.
    pub roles: Arc<[Box<str>]>,
    /// `exp`, seconds since the Unix epoch; `u64::MAX` if the token has none and never expires.
    pub expires_at: u64,
}

/// Why a token is refused, in words fit for the client: nothing of the key or the signature is in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Longer than `limits::TOKEN_BYTES_MAX`.
    TooLong,
    /// Not three parts of base64url with JSON, or an algorithm nobody knows (`none` among them).
    Malformed,
    /// The header names another algorithm than the key's.
    WrongAlgorithm,
    /// The token names a key (`kid`) that is not in the set.
    UnknownKey,
    /// The token names no key, and the set has several of its algorithm.
    UnnamedKey,
    /// The header requires an extension (`crit`, RFC 7515 §4.1.11).
    UnknownExtension,
    /// The signature does not hold.
    BadSignature,
    /// `exp` is reached.
    Expired,
    /// `nbf` is not reached.
    NotYetValid,
    /// `iss` is missing or another.
    WrongIssuer,
    /// `aud` is missing or names others.
    WrongAudience,
    /// The named claim is missing, of the wrong type or out of bounds.
    BadClaim(&'static str),
}

impl Verifier {
    /// HS256 with a shared secret; RFC 7518 §3.2 asks for 32 bytes or more.
    ///
    /// # Errors
    /// `EmptySecret`; `PemAsSecret`, since tokens forged with a public key would pass.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        Key::secret(secret).map(|key| Self::of(vec![key]))
    }

    /// RS256, ES256 or EdDSA, as the PEM public key (`PUBLIC KEY`, `RSA PUBLIC KEY`) says.
    ///
    /// # Errors
    /// `PrivateKey`, `Unsupported`, `ShortRsa`, `LongRsa`.
    pub fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Key::public_pem(pem).map(|key| Self::of(vec![key]))
    }

    /// The keys of a set.
    #[must_use]
    pub fn from_set(set: KeySet) -> Self {
        Self::of(set.keys)
    }

    /// Whether it believes exactly what the other does.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.issuer, &self.audience) == (&other.issuer, &other.audience)
            && self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(|(key, other)| key.is_same(other))
    }

    /// Also requires these `iss` and `aud` claims, in place of those it required before.
    #[must_use]
    pub fn requiring(mut self, issuer: Option<&str>, audience: Option<&str>) -> Self {
        self.issuer = issuer.map(Box::from);
        self.audience = audience.map(Box::from);
        self
    }

    /// The algorithms that the keys fix, in the keys' order.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.keys.iter().map(|key| key.algorithm)
    }

    /// Checks a token and returns what it says.
    ///
    /// # Errors
    /// See [`TokenError`]. The claims of a token whose signature does not hold are never looked at.
    pub fn verify(&self, token: &str, now: WallMillis) -> Result<Claims, TokenError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let key = self.key(&header)?;
        if header.crit.is_some() {
            return Err(TokenError::UnknownExtension);
        }
        let data = jsonwebtoken::decode::<RawClaims>(token, &key.library, &key.validation).map_err(|e| reason(&e))?;
        self.check(data.claims, now)
    }

    /// The algorithm of the key that the token would be checked with, if there is one.
    #[must_use]
    pub fn algorithm_of(&self, token: &str) -> Option<Algorithm> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        self.key(&header).ok().map(|key| key.algorithm)
    }

    fn of(keys: Vec<Key>) -> Self {
        Self { keys, issuer: None, audience: None }
    }

    /// The one key that may have signed the token: that of its name, or the only one of its algorithm, unless both have
    /// names that differ. Never more than one signature is checked, however many keys there are.
    fn key(&self, header: &Header) -> Result<&Key, TokenError> {
        let of_algorithm = || self.keys.iter().filter(|key| key.algorithm.library() == header.alg);
        let name = header.kid.as_deref();
        if let Some(key) = of_algorithm().find(|key| name.is_some() && key.id.as_deref() == name) {
            return Ok(key);
        }
        let is_named = |key: &&Key| key.id.is_some() && name.is_some();
        let mut left = of_algorithm().filter(|key| !is_named(key));
        match (left.next(), left.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(TokenError::UnnamedKey),
            _ if self.lacks(name) => Err(TokenError::UnknownKey),
            _ => Err(TokenError::WrongAlgorithm),
        }
    }

    /// Whether keys have names here, and none has this one.
    fn lacks(&self, name: Option<&str>) -> bool {
        name.is_some()
            && self.keys.iter().any(|key| key.id.is_some())
            && self.keys.iter().all(|key| key.id.as_deref() != name)
    }

    fn check(&self, raw: RawClaims, now: WallMillis) -> Result<Claims, TokenError> {
        let starts_at = raw.nbf.named("nbf")?.map_or(0, NumericDate::seconds);
        let expires_at = raw.exp.named("exp")?.map_or(u64::MAX, NumericDate::seconds);
        if now.0 < starts_at.saturating_mul(1000) {
            return Err(TokenError::NotYetValid);
        }
        if now.0 >= expires_at.saturating_mul(1000) {
            return Err(TokenError::Expired);
        }
        if let Some(issuer) = &self.issuer
            && raw.iss.named("iss")?.as_deref() != Some(issuer)
        {
            return Err(TokenError::WrongIssuer);
        }
        if let Some(audience) = &self.audience
            && !raw.aud.named("aud")?.is_some_and(|names| names.contains(audience))
        {
            return Err(TokenError::WrongAudience);
        }
        let subject = raw.sub.named("sub")?.ok_or(TokenError::BadClaim("sub"))?;
        let user = bounded(subject.text(), "sub")?;
        let given = |claim: Claim<Option<String>>, name: &'static str| {
            let text = claim.named(name)?.flatten().filter(|text| !text.is_empty());
            text.map(|text| bounded(text, name)).transpose()
        };
        let username = match given(raw.username, "username")? {
            Some(username) => username,
            None => given(raw.name, "name")?.unwrap_or_else(|| Arc::clone(&user)),
        };
        // Kept as long as the session, so the same text is kept once.
        let username = if username == user { Arc::clone(&user) } else { username };
        let roles = roles(raw.roles.named("roles")?.flatten().unwrap_or_default())?;
        Ok(Claims { user, username, roles, expires_at })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier").field(&self.algorithms().collect::<Vec<_>>()).finish()
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the token is longer than {} bytes", limits::TOKEN_BYTES_MAX),
            Self::Malformed => f.write_str("this is no signed JSON Web Token of a known algorithm"),
            Self::WrongAlgorithm => f.write_str("the token's algorithm is not the one of this gateway's key"),
            Self::UnknownKey => f.write_str("the token names a key (kid) that this gateway does not have"),
            Self::UnnamedKey => f.write_str("the token does not name its key (kid), and this gateway has several"),
            Self::UnknownExtension => f.write_str("the token's header requires an extension (crit)"),
            Self::BadSignature => f.write_str("the token's signature does not match this gateway's key"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token is not valid yet (nbf)"),
            Self::WrongIssuer => f.write_str("the token's issuer (iss) is not the expected one"),
            Self::WrongAudience => f.write_str("the token is for another audience (aud)"),
            Self::BadClaim(name) => {
                write!(f, "the token's claim {name} is missing, of the wrong type or out of bounds")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// Whether the text may be a user id, name or role: 1 to `limits::USER_ID_BYTES_MAX` bytes, no control characters.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    (1..=limits::USER_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn reason(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidAlgorithm => TokenError::WrongAlgorithm,
        _ => TokenError::Malformed,
    }
}

fn bounded(text: String, claim: &'static str) -> Result<Arc<str>, TokenError> {
    if is_user_id(&text) { Ok(text.into()) } else { Err(TokenError::BadClaim(claim)) }
}

fn roles(names: Vec<String>) -> Result<Arc<[Box<str>]>, TokenError> {
    if names.len() > limits::ROLES_MAX {
        return Err(TokenError::BadClaim("roles"));
    }
    names.into_iter().map(|name| bounded(name, "roles").map(|name| Box::from(&*name))).collect()
}

/// The claims that matter; others are ignored.
#[derive(Deserialize)]
struct RawClaims {
    #[serde(default)]
    sub: Claim<Subject>,
    #[serde(default)]
    username: Claim<Option<String>>,
    #[serde(default)]
    name: Claim<Option<String>>,
    #[serde(default)]
    roles: Claim<Option<Vec<String>>>,
    #[serde(default)]
    exp: Claim<NumericDate>,
    #[serde(default)]
    nbf: Claim<NumericDate>,
    #[serde(default)]
    iss: Claim<String>,
    #[serde(default)]
    aud: Claim<OneOrMany>,
}

/// A claim that may be of the wrong type without spoiling the others, so that the refusal can name it.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Claim<T> {
    Value(T),
    Wrong(IgnoredAny),
    #[default]
    #[serde(skip)]
    Absent,
}

impl<T> Claim<T> {
    fn named(self, name: &'static str) -> Result<Option<T>, TokenError> {
        match self {
            Self::Value(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Wrong(_) => Err(TokenError::BadClaim(name)),
        }
    }
}

/// Ids are strings; where a backend has numbers, they count as their decimal text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Subject {
    Text(String),
    Number(u64),
    Negative(i64),
}

impl Subject {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Negative(number) => number.to_string(),
        }
    }
}

/// Seconds since the Unix epoch, whole or not (RFC 7519 §2).
#[derive(Deserialize)]
#[serde(untagged)]
enum NumericDate {
    Whole(u64),
    Fraction(f64),
}

impl NumericDate {
    /// Whole seconds, the fraction cut off; a date before the epoch is the epoch.
    fn seconds(self) -> u64 {
        match self {
            Self::Whole(seconds) => seconds,
            Self::Fraction(seconds) => seconds as u64,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|each| each == name),
        }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
