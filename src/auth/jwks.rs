//! A set of public keys (JWK Set, RFC 7517), as identity providers publish it.
//!
//! Laws: what cannot be used is left out and told of, as RFC 7517 §5 wants it, but never guessed at: a key counts only
//! with the algorithm its type fixes. A secret (`oct`) is never taken from a set, and a set that shows the private half
//! of a key is refused as a whole. Never prints material.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use simd_json::OwnedValue;

use super::key::{Key, KeyError};
use crate::limits;

/// One or more keys that can be used.
#[derive(Clone)]
pub struct KeySet {
    pub(super) keys: Vec<Key>,
    skipped: Vec<String>,
}

/// Why a set cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySetError {
    /// More than `limits::KEY_SET_BYTES_MAX`.
    TooLong,
    /// No JSON object with a list `keys`, or nested without need.
    Malformed,
    /// The key at this place of the list shows its private half.
    PrivateKey(usize),
    /// No key can be used; what is wrong with each.
    NoKey(Vec<String>),
}

impl KeySet {
    /// Reads a JWK Set.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > limits::KEY_SET_BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        if limits::is_deep_json(json) {
            return Err(KeySetError::Malformed);
        }
        let raw: RawSet = simd_json::from_slice(&mut json.to_vec()).map_err(|_| KeySetError::Malformed)?;
        let mut set = Self { keys: Vec::new(), skipped: Vec::new() };
        for (place, value) in raw.keys.into_iter().enumerate() {
            let raw = match simd_json::serde::from_owned_value::<RawKey>(value) {
                Ok(raw) => raw,
                Err(_) => {
                    set.skipped.push(format!("key {place} is none"));
                    continue;
                }
            };
            if raw.is_private() {
                return Err(KeySetError::PrivateKey(place));
            }
            let skip = match raw.key() {
                Ok(_) if set.keys.len() >= limits::KEY_SET_KEYS_MAX => {
                    format!("there are more than {} keys", limits::KEY_SET_KEYS_MAX)
                }
                Ok(key) if set.keys.iter().any(|other| key.clashes(other)) => "an earlier key has its name".to_owned(),
                Ok(key) => {
                    set.keys.push(key);
                    continue;
                }
                Err(skip) => skip,
            };
            let name = raw.kid.as_deref().map(|kid| format!(" (kid {kid:?})")).unwrap_or_default();
            set.skipped.push(format!("key {place}{name}: {skip}"));
        }
        if set.keys.is_empty() { Err(KeySetError::NoKey(set.skipped)) } else { Ok(set) }
    }

    /// What it has, in words: each key's algorithm and name.
    #[must_use]
    pub fn words(&self) -> String {
        let word = |key: &Key| match &key.id {
            Some(id) => format!("{} {id:?}", key.algorithm.name()),
            None => key.algorithm.name().to_owned(),
        };
        self.keys.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// Keys, one or more.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Which keys were left out, and why.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({})", self.words())
    }
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it is longer than {} bytes", limits::KEY_SET_BYTES_MAX),
            Self::Malformed => {
                f.write_str("it is no JWK Set: a JSON object with a list \"keys\" (RFC 7517) is expected")
            }
            Self::PrivateKey(place) => write!(
                f,
                "key {place} shows its private half; publish public keys only, and make that one anew: whoever has \
                 read it can make tokens"
            ),
            Self::NoKey(skipped) if skipped.is_empty() => f.write_str("it has no keys"),
            Self::NoKey(skipped) => write!(f, "none of its keys can be used: {}", skipped.join("; ")),
        }
    }
}

impl std::error::Error for KeySetError {}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<OwnedValue>,
}

/// The members of a JWK that matter (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<OwnedValue>,
    k: Option<OwnedValue>,
}

impl RawKey {
    fn is_private(&self) -> bool {
        self.d.is_some() && self.kty != "oct"
    }

    fn key(&self) -> Result<Key, String> {
        if self.kty == "oct" || self.k.is_some() {
            return Err("a secret that is published is none; give one by JWT_SECRET".to_owned());
        }
        if let Some(purpose) = self.r#use.as_deref().filter(|purpose| *purpose != "sig") {
            return Err(format!("its use is {purpose:?}, not sig"));
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("its key_ops are without verify".to_owned());
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::rsa(&number(&part(&self.n, "n")?), &number(&part(&self.e, "e")?)),
            ("EC", Some("P-256")) => Key::p256(&part(&self.x, "x")?, &part(&self.y, "y")?),
            ("OKP", Some("Ed25519")) => Key::ed25519(&part(&self.x, "x")?),
            (kty, crv) => {
                let crv = crv.map(|crv| format!(" {crv:?}")).unwrap_or_default();
                return Err(format!("{kty:?}{crv} is not RSA, EC P-256 or OKP Ed25519"));
            }
        };
        let mut key = key.map_err(|error| match error {
            KeyError::Unsupported => "its numbers make no key".to_owned(),
            error => error.to_string(),
        })?;
        // RFC 9864 names what EdDSA with Ed25519 is.
        let names = |alg: &str| alg == key.algorithm.name() || (alg == "Ed25519" && key.algorithm.name() == "EdDSA");
        if let Some(alg) = self.alg.as_deref().filter(|alg| !names(alg)) {
            return Err(format!("its alg is {alg:?}, and here a key of its kind means {}", key.algorithm.name()));
        }
        key.id = self.kid.as_deref().map(Box::from);
        Ok(key)
    }
}

/// The bytes of a member; padding, which RFC 7515 §2 leaves out, is forgiven.
fn part(text: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let text = text.as_deref().ok_or_else(|| format!("it has no {name:?}"))?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| format!("its {name:?} is no base64url"))
}

/// A number without the zeros that some write before it.
fn number(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().skip_while(|byte| **byte == 0).copied().collect()
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
