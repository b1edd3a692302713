//! Presence in a real Redis, which `tests/services/redis.sh` installs and starts: the suite of every presence, many
//! gateways on one Redis, takeovers, crashes and their reaping, outages, and the keys, compared with PROTOCOLS' list after
//! every scenario.
//!
//! Time is virtual: all gateways of a test have one clock, and Redis's times to live are moved along with it.

use ringgate::{close, id, limits, message, ports, presence, router, time};

mod binary;
#[path = "../integration/client.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod client;
mod cluster;
mod everywhere;
mod hubs;
#[path = "../integration/json.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod json;
mod keys;
mod kicks;
mod left;
mod listed;
mod many;
#[path = "../integration/node.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod node;
mod outage;
mod server;
mod shared;
mod storm;
mod stress;
#[path = "../../src/presence/tests.rs"]
mod suite;
