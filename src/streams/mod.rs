//! Streams: who orders them, what is kept of them, who receives them (DELIVERY §1, §4).
//!
//! - [`Homes`]: the scopes a shard orders. It gives places, keeps histories and the newest delta values, and decides
//!   where a join or a resume starts. It knows shards, never connections.
//! - [`Members`]: the connections of a shard by scope and stream. It never orders anything.
//! - [`Cursor`]: one member's way through a stream's history until it meets the head.
//!
//! Law: after every call into [`Homes`], its outputs are delivered in order before the call's own answer.

mod cursor;
mod deltas;
mod evicted;
mod history;
mod home;
mod home_stream;
#[cfg(test)]
mod home_tests;
mod members;
#[cfg(test)]
mod own_tests;

pub use cursor::Cursor;
pub use home::{HomeConfig, HomeOutput, Homes, Placed};
pub use members::{Members, Seat};
