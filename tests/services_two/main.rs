//! Many gateways on a real Kafka and a real Redis: sessions that go from one gateway to another under load, outages of
//! either server, presence that tells the truth. The test itself is the backend, so that it knows what everybody must get.
//!
//! Verdicts: every reliable event once, in order, the chains of `prev` whole; what was acknowledged is on Kafka, under one
//! id; every `connected` has its `disconnected`; of the keys in Redis those of PROTOCOLS, and at the end none.

use ringgate::presence;

/// A backend on Kafka, and what it finds there.
mod backend;
#[path = "../bus/broker.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod broker;
#[path = "../integration/client.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod client;
/// The servers and the gateways on them.
mod cluster;
#[path = "../integration/hub.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod hub;
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
/// Clients under load, which resume wherever somebody listens.
mod player;
#[path = "../services_redis/server.rs"]
mod server;

/// Memory while Kafka takes nothing.
mod bounded;
/// The demo page in a real browser, on two gateways.
mod browsers;
/// Kafka hanging, stopped, killed, under load.
mod kafka_away;
/// Gateways killed under load, twenty times.
mod killed;
/// A partition that has no leader.
mod leaderless;
/// Repeated, useless and scattered events.
mod odd_events;
/// Redis stopped, flushed, hanging, under load.
mod redis_away;
/// Sessions taken over from gateways that live, hang or are gone.
mod taken;

/// The reference services, run by workers, for players on different gateways.
mod services;
#[path = "../services_worker/worker.rs"]
#[expect(dead_code, reason = "most of it is for other targets")]
mod worker;
