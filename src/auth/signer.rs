//! Making tokens: for development, tests and `ringgate token mint`. Production tokens come from the users' own service.

use std::fmt;

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::key::{Algorithm, KeyError, check_secret};

/// Signs tokens with one key.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
}

/// The claims to sign; absent ones are left out of the token. Times are seconds since the Unix epoch.
#[derive(Clone, Copy, Default, Serialize, Debug)]
pub struct Grant<'a> {
    /// The user id.
    pub sub: &'a str,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<&'a str>,
    /// Roles.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub roles: &'a [&'a str],
    /// When it ends; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// Audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
}

impl Signer {
    /// HS256 with a shared secret.
    ///
    /// # Errors
    /// `EmptySecret`, `PemAsSecret`.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self { key: EncodingKey::from_secret(secret), algorithm: Algorithm::Hs256, key_id: None })
    }

    /// RS256, ES256 or EdDSA, as the PEM private key (`PRIVATE KEY`, `RSA PRIVATE KEY`) says.
    ///
    /// # Errors
    /// `PublicKey`, `Unsupported`.
    pub fn from_private_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::Unsupported)?;
        if text.contains("PUBLIC KEY-----") {
            return Err(KeyError::PublicKey);
        }
        let (key, algorithm) = EncodingKey::from_rsa_pem(pem)
            .map(|key| (key, Algorithm::Rs256))
            .or_else(|_| EncodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDsa)))
            .or_else(|_| EncodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::Es256)))
            .map_err(|_| KeyError::Unsupported)?;
        jsonwebtoken::crypto::sign(b"", &key, algorithm.library()).map_err(|_| KeyError::Unsupported)?;
        Ok(Self { key, algorithm, key_id: None })
    }

    /// The tokens name the key so (`kid`), as verifiers with a set of keys want it.
    #[must_use]
    pub fn named(mut self, key_id: Option<&str>) -> Self {
        self.key_id = key_id.map(Box::from);
        self
    }

    /// The algorithm the key fixes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signed token.
    #[must_use]
    pub fn mint(&self, grant: &Grant<'_>) -> String {
        let mut header = Header::new(self.algorithm.library());
        header.kid = self.key_id.as_deref().map(str::to_owned);
        jsonwebtoken::encode(&header, grant, &self.key).expect("the key has signed when it was loaded")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.algorithm)
    }
}
