//! **ringgate**: a WebSocket gateway for real-time games and chat on thread-per-core io_uring shards.
//!
//! > In order, everything, or a disconnect that says why and can be resumed. Only WORLD_DELTA frames may be dropped or
//! > replaced by newer ones, and only for a client that is slow.
//!
//! It never holds a source back for one slow member, never drops a reliable frame silently, never lets a peer's input
//! grow memory without bound, and a shard never takes a lock or calls a bus, a store or HTTP.
//!
//! Start with two types: [`delivery::WriteQueue`], where the promise is kept for one connection, and
//! [`shard::Shard`], whose `turn` is the life of every message.
//!
//! # Map, by layer; imports point down only (`tests/tidy.rs` checks it)
//!
//! | layer | modules |
//! |---|---|
//! | L0 vocabulary, plain data | [`id`] [`frame`] [`class`] [`close`] [`message`] [`packed`] [`ports`] [`time`] [`limits`] [`stats`] |
//! | L1 core, sans-IO | [`websocket`] RFC 6455 · [`protocol`] dialects, envelopes, type table · [`delivery`] write queue · [`streams`] homes, histories, members · [`auth`] · [`services`] rooms, dice, chat, hub, battle · [`log`] the log on disk as bytes |
//! | L1b | [`session`] the life of one connection |
//! | L2 | [`router`] mesh of rings and doorbells · [`shard`] the loop and its drivers uring, monoio, simulated |
//! | L3 peers on their own threads | [`bus`] · [`presence`] · [`store`] · [`keys`] token keys that others publish · [`workers`] · [`admin`] |
//! | L4 assembly | [`config`] · [`server`] · [`cli`] · [`page`] demo page and JavaScript client |

// Tests that the crate shares with `tests/` name it from outside.
#[cfg(test)]
extern crate self as ringgate;

// --- L0 vocabulary
pub mod class;
pub mod close;
pub mod frame;
pub mod id;
pub mod limits;
pub mod message;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod packed;
pub mod ports;
pub mod stats;
pub mod time;
// --- L1 core
pub mod auth;
pub mod delivery;
pub mod log;
pub mod protocol;
pub mod services;
pub mod streams;
pub mod websocket;
// --- L1b
pub mod session;
// --- L2
pub mod router;
pub mod shard;
// --- L3 peers
pub mod admin;
pub mod bus;
pub mod keys;
pub mod presence;
pub mod store;
pub mod workers;
// --- L4 assembly
pub mod cli;
pub mod config;
pub mod page;
pub mod server;
