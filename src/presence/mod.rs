//! Presence: who is connected, and what survives a reconnect (DELIVERY §6). The embedded implementation keeps session
//! records in memory and has no clock and no thread; the peer drives it from the mesh, and says on
//! the bus who comes and goes.

mod announce;
mod embedded;
mod hubs;
mod listener;
mod peer;
mod sessions;

pub use announce::Announcer;
pub use embedded::EmbeddedPresence;
pub use listener::Listener;
pub use peer::PresencePeer;

#[cfg(test)]
mod tests;
