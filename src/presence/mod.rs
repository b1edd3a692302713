//! Presence: who is connected, and what survives a reconnect (DELIVERY §6). The embedded implementation keeps session
//! records in memory and has no clock and no thread; the peer drives it from the mesh.

mod embedded;
mod peer;
mod sessions;

pub use embedded::EmbeddedPresence;
pub use peer::PresencePeer;
