//! Presence: who is connected, and what survives a reconnect (DELIVERY §6). The embedded implementation keeps session
//! records in memory, and in a store if it is given one, and has no clock and no thread; the one in Redis shares them
//! among gateways. The peer drives either from the mesh, and says on the bus who comes and goes.

mod announce;
mod embedded;
mod herald;
mod hubs;
mod keeper;
mod listener;
mod peer;
mod reaping;
mod redis;
mod sessions;

pub use announce::Announcer;
pub use embedded::EmbeddedPresence;
pub use herald::{Herald, Neighbours, Standing, Verdict};
pub use hubs::SERVICE as HUB_RECORDS;
pub use listener::{Heard, Listener};
pub use peer::PresencePeer;
pub use reaping::Reaping;
pub use redis::{GatewaySettings, RedisPresence, RedisSettings};

#[cfg(test)]
mod tests;
