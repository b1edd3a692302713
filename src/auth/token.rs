//! Verifying JSON Web Tokens (RFC 7519) whose algorithm is fixed by the key, never by the token.
//!
//! A token is believed only if its header names the key's algorithm, its signature holds, and its claims are in
//! bounds and in time. Time is an argument; the grace after `exp` is the session's business, here there is none.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::limits;
use crate::time::WallMillis;

/// Checks tokens against one key. Shared by all shards.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    algorithm: Algorithm,
    validation: Validation,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
}

/// The algorithms of RFC 7518 §3.1 and RFC 8037 that a key can fix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-256; the key is a shared secret.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; RSA of at least 2048 bits.
    Rs256,
    /// ECDSA with SHA-256 on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
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

/// Why key material cannot be used. Never contains the material.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// An HS256 secret is empty.
    EmptySecret,
    /// An HS256 secret is a PEM file's text: a public key is no secret.
    PemAsSecret,
    /// A private key where the public one belongs.
    PrivateKey,
    /// A public key where the private one belongs.
    PublicKey,
    /// Neither RSA, P-256 nor Ed25519 in PEM form.
    Unsupported,
    /// RSA below 2048 bits (RFC 7518 §3.3).
    ShortRsa,
}

impl Verifier {
    /// HS256 with a shared secret; RFC 7518 §3.2 asks for 32 bytes or more.
    ///
    /// # Errors
    /// `EmptySecret`; `PemAsSecret`, since tokens forged with a public key would pass.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self::new(DecodingKey::from_secret(secret), Algorithm::Hs256))
    }

    /// Whether it believes exactly what the other does.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let names = |verifier: &Self| (verifier.algorithm, verifier.issuer.clone(), verifier.audience.clone());
        names(self) == names(other) && self.key.as_bytes() == other.key.as_bytes()
    }

    /// RS256, ES256 or EdDSA, as the PEM public key (`PUBLIC KEY`, `RSA PUBLIC KEY`) says.
    ///
    /// # Errors
    /// `PrivateKey`, `Unsupported`, `ShortRsa`.
    pub fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::Unsupported)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        if !text.contains("PUBLIC KEY-----") {
            return Err(KeyError::Unsupported);
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            return if key.as_bytes().len() < RSA_2048_DER_BYTES_MIN {
                Err(KeyError::ShortRsa)
            } else {
                Ok(Self::new(key, Algorithm::Rs256))
            };
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            // The library indexes the first 32 bytes unchecked.
            return if key.as_bytes().len() == ED25519_BYTES {
                Self::new(key, Algorithm::EdDsa).tried()
            } else {
                Err(KeyError::Unsupported)
            };
        }
        let key = DecodingKey::from_ec_pem(pem).map_err(|_| KeyError::Unsupported)?;
        Self::new(key, Algorithm::Es256).tried()
    }

    /// Also requires these `iss` and `aud` claims.
    #[must_use]
    pub fn requiring(mut self, issuer: Option<&str>, audience: Option<&str>) -> Self {
        self.issuer = issuer.map(Box::from);
        self.audience = audience.map(Box::from);
        self
    }

    /// The algorithm the key fixes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
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
        if header.alg != self.algorithm.library() {
            return Err(TokenError::WrongAlgorithm);
        }
        if header.crit.is_some() {
            return Err(TokenError::UnknownExtension);
        }
        let data = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation).map_err(|e| reason(&e))?;
        self.check(data.claims, now)
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm.library());
        // The library reads the system clock and treats absent claims as fine; `check` does it with `now`.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { key, algorithm, validation, issuer: None, audience: None }
    }

    /// Whether the library takes the key for the algorithm, found out now rather than at the first client.
    fn tried(self) -> Result<Self, KeyError> {
        match jsonwebtoken::crypto::verify("", b"", &self.key, self.algorithm.library()) {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::Unsupported),
        }
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
        write!(f, "Verifier({:?})", self.algorithm)
    }
}

impl Algorithm {
    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the token is longer than {} bytes", limits::TOKEN_BYTES_MAX),
            Self::Malformed => f.write_str("this is no signed JSON Web Token of a known algorithm"),
            Self::WrongAlgorithm => f.write_str("the token's algorithm is not the one of this gateway's key"),
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

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySecret => "the secret is empty; give 32 random bytes or more, e.g. from `openssl rand -hex 32`",
            Self::PemAsSecret => "the secret is a PEM file; give a public key by its path instead",
            Self::PrivateKey => "this is a private key; give the public one (`openssl pkey -in KEY -pubout`)",
            Self::PublicKey => "this is a public key; signing needs the private one",
            Self::Unsupported => "this is no PEM key of RSA, EC P-256 or Ed25519 (PKCS#8, not encrypted)",
            Self::ShortRsa => "the RSA key is shorter than 2048 bits",
        })
    }
}

impl std::error::Error for KeyError {}

/// Whether the text may be a user id, name or role: 1 to `limits::USER_ID_BYTES_MAX` bytes, no control characters.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    (1..=limits::USER_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.is_empty() {
        Err(KeyError::EmptySecret)
    } else if secret.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
        Err(KeyError::PemAsSecret)
    } else {
        Ok(())
    }
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

/// The DER of a 2048-bit RSA public key (PKCS#1) has at least its modulus, exponent and headers.
const RSA_2048_DER_BYTES_MIN: usize = 256 + 10;
const ED25519_BYTES: usize = 32;
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
