//! Relays between members on two gateways, over a real Kafka and a real Redis, which `tests/services/` starts.
//!
//! The clients of the tests hold every stream to its chain of `prev`, and every delta to the frame that it follows. Of the
//! keys in Redis those of PROTOCOLS are there after every scenario, and nothing when its gateways have ended.

use ringgate::presence;

#[path = "../bus/broker.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod broker;
#[path = "../integration/client.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod client;
/// The servers and the gateways on them.
mod cluster;
#[path = "../integration/json.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod json;
#[path = "../services_redis/left.rs"]
mod left;
#[path = "../services_redis/listed.rs"]
mod listed;
#[path = "../integration/node.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod node;
/// A broker that stands still.
mod outage;
/// Members, publishers and players on both gateways.
mod relayed;
#[path = "../services_redis/server.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod server;
