//! (map follows)

// --- L0 vocabulary
pub mod class;
pub mod close;
pub mod frame;
pub mod id;
pub mod limits;
pub mod message;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod ports;
pub mod stats;
pub mod time;
// --- L1 core
pub mod auth;
pub mod delivery;
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
pub mod presence;
pub mod workers;
// --- L4 assembly
pub mod cli;
pub mod config;
pub mod server;
