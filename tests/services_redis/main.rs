//! Presence in a real Redis, which `tests/services/redis.sh` installs and starts: the suite of every presence, many
//! gateways on one Redis, takeovers, crashes and their reaping, outages, and the keys, compared with PROTOCOLS' list after
//! every scenario.
//!
//! Time is virtual: all gateways of a test have one clock, and Redis's times to live are moved along with it.

use ringgate::{close, id, limits, message, ports, presence, router, time};

mod cluster;
mod hubs;
mod keys;
mod many;
mod outage;
mod server;
mod shared;
mod stress;
#[path = "../../src/presence/tests.rs"]
mod suite;
