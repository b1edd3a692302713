//! `ringgate worker` over a real Kafka: one of several is active, and whatever becomes of it the game goes on, each event
//! told once.

#[path = "../bus/broker.rs"]
#[expect(dead_code, reason = "shared with the tests of the bus")]
mod broker;
mod game;
#[path = "../bus/gateway.rs"]
#[expect(dead_code, reason = "shared with the tests of the bus")]
mod gateway;
mod half;
mod history;
#[path = "../services_postgres/server.rs"]
#[expect(dead_code, reason = "shared with the tests of the store")]
mod postgres;
mod store;
mod takeover;
mod worker;

use std::time::{Duration, Instant};

/// Waits for a condition.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
