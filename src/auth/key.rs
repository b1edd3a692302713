//! A key that tokens are checked with. It fixes the algorithm; no token does. Nothing here prints material.

use std::fmt;

use jsonwebtoken::{DecodingKey, DecodingKeyKind, Validation};

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
    /// RSA above 4096 bits, which no signature would be checked with.
    LongRsa,
}

/// A key with its algorithm, and the name that tokens may have for it.
#[derive(Clone)]
pub(super) struct Key {
    /// `kid`.
    pub id: Option<Box<str>>,
    pub algorithm: Algorithm,
    pub library: DecodingKey,
    pub validation: Validation,
}

impl Key {
    /// HS256 with a shared secret.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self::new(DecodingKey::from_secret(secret), Algorithm::Hs256))
    }

    /// What the PEM file of a public key says.
    pub fn public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::Unsupported)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        if !text.contains("PUBLIC KEY-----") {
            return Err(KeyError::Unsupported);
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            return match key.as_bytes().len() {
                bytes if bytes < RSA_2048_DER_BYTES_MIN => Err(KeyError::ShortRsa),
                bytes if bytes > RSA_4096_DER_BYTES_MAX => Err(KeyError::LongRsa),
                _ => Ok(Self::new(key, Algorithm::Rs256)),
            };
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Self::ed25519(key.as_bytes());
        }
        let key = DecodingKey::from_ec_pem(pem).map_err(|_| KeyError::Unsupported)?;
        Self::new(key, Algorithm::Es256).tried()
    }

    /// RSA by modulus and exponent, big-endian without leading zeros.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        // The library takes exponents from 3 to below 2^33.
        let odd = exponent.last().is_some_and(|last| last & 1 == 1) && exponent != [1] && exponent.len() <= 4;
        match bits {
            ..2048 => Err(KeyError::ShortRsa),
            2048..=4096 if odd => {
                Ok(Self::new(DecodingKey::from_rsa_raw_components(modulus, exponent), Algorithm::Rs256))
            }
            2048..=4096 => Err(KeyError::Unsupported),
            _ => Err(KeyError::LongRsa),
        }
    }

    /// P-256 by the coordinates of its point, 32 bytes each (RFC 7518 §6.2.1.2).
    pub fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        if (x.len(), y.len()) != (P256_BYTES, P256_BYTES) {
            return Err(KeyError::Unsupported);
        }
        // SEC 1 §2.3.3: an uncompressed point.
        let point = [&[4], x, y].concat();
        Self::new(DecodingKey::from_ec_der(&point), Algorithm::Es256).tried()
    }

    /// Ed25519 by its 32 bytes; the library indexes them unchecked.
    pub fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        if key.len() != ED25519_BYTES {
            return Err(KeyError::Unsupported);
        }
        Self::new(DecodingKey::from_ed_der(key), Algorithm::EdDsa).tried()
    }

    /// Whether tokens could not tell it from the other.
    pub fn clashes(&self, other: &Self) -> bool {
        self.id.is_some() && (self.algorithm, &self.id) == (other.algorithm, &other.id)
    }

    /// Whether it is the same key under the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent as Rsa, SecretOrDer};
        let same = match (self.library.kind(), other.library.kind()) {
            (SecretOrDer(one), SecretOrDer(other)) => one == other,
            (Rsa { n, e }, Rsa { n: modulus, e: exponent }) => (n, e) == (modulus, exponent),
            _ => false,
        };
        same && (self.algorithm, &self.id) == (other.algorithm, &other.id)
    }

    fn new(library: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm.library());
        // The library reads the system clock and treats absent claims as fine; the verifier does it with `now`.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self { id: None, algorithm, library, validation }
    }

    /// Whether the library takes the key for the algorithm, found out now rather than at the first client.
    fn tried(self) -> Result<Self, KeyError> {
        match jsonwebtoken::crypto::verify("", b"", &self.library, self.algorithm.library()) {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::Unsupported),
        }
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

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySecret => "the secret is empty; give 32 random bytes or more, e.g. from `openssl rand -hex 32`",
            Self::PemAsSecret => "the secret is a PEM file; give a public key by its path instead",
            Self::PrivateKey => "this is a private key; give the public one (`openssl pkey -in KEY -pubout`)",
            Self::PublicKey => "this is a public key; signing needs the private one",
            Self::Unsupported => "this is no PEM key of RSA, EC P-256 or Ed25519 (PKCS#8, not encrypted)",
            Self::ShortRsa => "the RSA key is shorter than 2048 bits",
            Self::LongRsa => "the RSA key is longer than 4096 bits",
        })
    }
}

impl std::error::Error for KeyError {}

pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.is_empty() {
        Err(KeyError::EmptySecret)
    } else if secret.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
        Err(KeyError::PemAsSecret)
    } else {
        Ok(())
    }
}

/// The DER of a 2048-bit RSA public key (PKCS#1) has at least its modulus, exponent and headers.
const RSA_2048_DER_BYTES_MIN: usize = 256 + 10;
/// That of a 4096-bit one has at most as much, with an exponent of 32 bits.
const RSA_4096_DER_BYTES_MAX: usize = 512 + 16;
const P256_BYTES: usize = 32;
const ED25519_BYTES: usize = 32;
const PEM_BEGIN: &[u8] = b"-----BEGIN ";
