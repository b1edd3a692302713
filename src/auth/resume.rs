//! Resume tokens (DELIVERY §6): 128 random bits, shown to the client once, kept only as a hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::id::TokenHash;

/// The token as text: always 22 characters of base64url. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken([u8; Self::LEN]);

impl ResumeToken {
    /// Characters of the text.
    pub const LEN: usize = 22;

    /// From 128 bits of the driver's entropy.
    #[must_use]
    pub fn new(high: u64, low: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        let mut text = [0; Self::LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(Self::LEN));
        Self(text)
    }

    /// The text for the client.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64url is ASCII")
    }

    /// What presence keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        token_hash(self.as_str()).expect("the text of a token is well formed")
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

/// The hash of a token a client sent; `None` if the text cannot be a token of ours. The text is canonical: two texts
/// never have one hash.
#[must_use]
pub fn token_hash(text: &str) -> Option<TokenHash> {
    if text.len() != ResumeToken::LEN {
        return None;
    }
    let mut bytes = [0; 18];
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    let digest = Sha256::digest(bytes.get(..len)?);
    digest.first_chunk().copied().map(TokenHash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is not exactly 22 canonical base64url characters has no hash.
    #[test]
    fn only_well_formed_tokens_have_a_hash() {
        let token = ResumeToken::new(1, 2);
        assert_eq!(token.as_str(), "AAAAAAAAAAEAAAAAAAAAAg");
        assert!(token_hash(token.as_str()).is_some());
        let long = "A".repeat(1 << 20);
        for bad in [
            "",
            "A",
            "AAAAAAAAAAEAAAAAAAAAA",
            "AAAAAAAAAAEAAAAAAAAAAgA",
            "AAAAAAAAAAEAAAAAAAAAAh",
            "AAAAAAAAAAE+AAAAAAAAAg",
            &long,
        ] {
            assert_eq!(token_hash(bad), None, "{bad:.40}");
        }
        assert!(!format!("{token:?}").contains("AAAA"));
    }

    proptest! {
        /// Every token's text leads to its hash, and different tokens have different ones.
        #[test]
        fn tokens_and_hashes_correspond(a: (u64, u64), b: (u64, u64), text in ".{0,30}") {
            let (x, y) = (ResumeToken::new(a.0, a.1), ResumeToken::new(b.0, b.1));
            prop_assert_eq!(token_hash(x.as_str()), Some(x.hash()));
            prop_assert_eq!(x.hash() == y.hash(), a == b);
            let _ = token_hash(&text);
        }
    }
}
