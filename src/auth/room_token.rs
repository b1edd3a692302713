//! Room tokens (PROTOCOLS B): who holds one is that player of that room, wherever and whenever it is shown. HMAC-SHA256
//! (RFC 2104) over both ids; a token says them itself, so that one of another room is told from a forged one.
//!
//! The same key seals the passwords of rooms, so that no log has one in clear.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::id::TokenHash;
use crate::limits;

/// Signs and checks room tokens. Its `Debug` form hides the key.
#[derive(Clone)]
pub struct RoomKey(Hmac<Sha256>);

/// What a room token that is valid says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomClaims {
    /// Room id.
    pub room: Box<str>,
    /// Player id.
    pub player: Box<str>,
}

/// Why a text is no room token of ours; it says nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomTokenError {
    /// No such text was ever given out.
    Malformed,
    /// Not signed with this key.
    Signature,
}

impl fmt::Display for RoomTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "token is not one of a room; send that of POST /api/rooms or of its join",
            Self::Signature => "token has no valid signature; ask POST /api/rooms/{code}/join for one",
        })
    }
}

impl std::error::Error for RoomTokenError {}

impl RoomKey {
    /// Bytes that a key should have at least: those of the hash.
    pub const BYTES: usize = 32;

    /// The key of these bytes, of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// The token of a player of a room; both ids are 1–255 bytes.
    #[must_use]
    pub fn mint(&self, room: &str, player: &str) -> String {
        let mut bytes = self.signature(room, player).finalize().into_bytes().to_vec();
        bytes.push(u8::try_from(room.len()).expect("a room id is 64 bytes at most"));
        bytes.extend_from_slice(room.as_bytes());
        bytes.extend_from_slice(player.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Who holds this token. The signature is compared in constant time.
    ///
    /// # Errors
    /// If this key did not mint it.
    pub fn verify(&self, token: &str) -> Result<RoomClaims, RoomTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(RoomTokenError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| RoomTokenError::Malformed)?;
        let (signature, room, player) = parts(&bytes).ok_or(RoomTokenError::Malformed)?;
        let made = self.signature(room, player);
        made.verify_slice(signature).map_err(|_| RoomTokenError::Signature)?;
        Ok(RoomClaims { room: room.into(), player: player.into() })
    }

    /// What stands for a room's password, or for a text that has one in it, everywhere behind the gateway: the same for
    /// the same, so that it is held against a hash like the password itself, and of no use to who does not have the key.
    #[must_use]
    pub fn seal(&self, secret: &[u8]) -> String {
        let mut mac = self.0.clone();
        // No room's id is that long: no seal is a token's signature.
        mac.update(&u64::MAX.to_be_bytes());
        mac.update(secret);
        format!("hmac:{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn signature(&self, room: &str, player: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // The length keeps the border between the two: ("1", "23") is not ("12", "3").
        mac.update(&(room.len() as u64).to_be_bytes());
        mac.update(room.as_bytes());
        mac.update(player.as_bytes());
        mac
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomKey(…)")
    }
}

/// What presence knows the session of a room token's player by. No resume token has it: their texts differ in length.
#[must_use]
pub fn room_token_hash(token: &str) -> TokenHash {
    let digest = Sha256::digest(token.as_bytes());
    TokenHash(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

/// Signature, room id and player id.
fn parts(bytes: &[u8]) -> Option<(&[u8], &str, &str)> {
    let (signature, rest) = bytes.split_at_checked(RoomKey::BYTES)?;
    let (len, rest) = rest.split_first()?;
    let (room, player) = rest.split_at_checked(usize::from(*len))?;
    let (room, player) = (std::str::from_utf8(room).ok()?, std::str::from_utf8(player).ok()?);
    (!room.is_empty() && !player.is_empty()).then_some((signature, room, player))
}

/// Base64 of a signature, a length and the longest ids.
const TOKEN_BYTES_MAX: usize = (RoomKey::BYTES + 1 + limits::ROOM_ID_BYTES_MAX + limits::USER_ID_BYTES_MAX) * 4 / 3 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A token says room and player under its own key; another key, and a text that is none, are told apart.
    #[test]
    fn tokens_belong_to_their_key() {
        let (key, other) = (RoomKey::new(b"key"), RoomKey::new(b"other"));
        let token = key.mint("room", "player");
        assert_eq!(key.verify(&token), Ok(RoomClaims { room: "room".into(), player: "player".into() }));
        assert_eq!(other.verify(&token), Err(RoomTokenError::Signature));
        assert_ne!(room_token_hash(&token), room_token_hash(&key.mint("room", "player2")));
        let long = "A".repeat(1 << 16);
        for bad in ["", "a", "a.b.c", &token[1..], &long] {
            assert!(key.verify(bad).is_err(), "{bad:.40}");
        }
        assert!(!format!("{key:?}").contains("key"));
    }

    /// A seal is the same for the same secret and key alone, and tells nothing of either.
    #[test]
    fn seals_stand_for_secrets() {
        let (key, other) = (RoomKey::new(b"key"), RoomKey::new(b"other"));
        let seal = key.seal(b"open sesame");
        assert_eq!(seal, key.seal(b"open sesame"));
        assert!(
            seal != key.seal(b"open says me")
                && seal != other.seal(b"open sesame")
                && seal != key.seal(seal.as_bytes())
        );
        assert!(!seal.contains("sesame") && seal.len() <= limits::PASSWORD_BYTES);
    }

    proptest! {
        /// Every token reads back; no change of a character, and no other pair of ids, passes for it.
        #[test]
        fn no_token_passes_for_another(
            room in "[a-z0-9-]{1,64}", player in "[a-z0-9-]{1,64}", at: prop::sample::Index, with in "[A-Za-z0-9_-]",
            text in ".{0,200}",
        ) {
            let key = RoomKey::new(&[7; 32]);
            let token = key.mint(&room, &player);
            let claims = key.verify(&token).unwrap();
            prop_assert_eq!((&*claims.room, &*claims.player), (&*room, &*player));
            let at = at.index(token.len());
            let forged = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(key.verify(&forged).is_ok(), forged == token);
            prop_assert!(key.verify(&text).is_err());
        }
    }
}
