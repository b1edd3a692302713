//! Who may connect and how often: tokens, resume and room tokens, origins, rates, the client's address behind proxies.
//!
//! Everything here is a function of its arguments; time and entropy are passed in. Nothing here keeps state of a
//! connection except [`Bucket`], which the session owns, and [`Newcomers`] and [`Visits`], which the shard owns. No key
//! material is ever printed.

mod forwarded;
mod jwks;
mod key;
mod newcomers;
mod origin;
mod rate;
mod resume;
mod room_token;
mod signer;
mod token;
mod visits;

pub use forwarded::{Cidr, client_address};
pub use jwks::{KeySet, KeySetError};
pub use key::{Algorithm, KeyError};
pub use newcomers::Newcomers;
pub use origin::{allowed, is_address, is_origin};
pub use rate::Bucket;
pub use resume::{ResumeToken, token_hash};
pub use room_token::{RoomClaims, RoomKey, RoomTokenError, room_token_hash};
pub use signer::{Grant, Signer};
pub use token::{Claims, TokenError, Verifier, is_user_id};
pub use visits::Visits;

/// Keys of tests as a provider publishes them, here and for [`crate::keys`].
#[cfg(test)]
#[path = "../../tests/keys/jwk.rs"]
pub(crate) mod published;
