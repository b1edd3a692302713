//! What a gateway keeps while Kafka takes nothing, however much clients send.

use std::time::Duration;

use ringgate::limits::{COMMANDS_UNANSWERED, KAFKA_QUEUE_BYTES};
use serde_json::json;

use crate::cluster::Cluster;
use crate::json::Json;
use crate::node::{DEADLINE, Gateway, until};

/// Players send many times more than the queue for Kafka holds, as fast as the gateway reads, and nothing in it ends by
/// its age: what it holds is that queue, the rest is refused at once, and nobody's connection ends. When Kafka is back,
/// what was taken is accepted, all of it, and commands are again.
#[test]
fn commands_for_a_standing_kafka_are_bounded() {
    let cluster = Cluster::start();
    let gateway = cluster.gateway_with("gw:0", &["--config", TABLE, "--kafka-delivery-timeout-ms", "600000"]);
    let mut players: Vec<Json> = (0..PLAYERS).map(|n| Json::player(&gateway, &format!("p{n}"))).collect();
    players.iter_mut().for_each(acknowledged);
    let before = gateway.rss_kib();
    cluster.broker.freeze();
    let (most, limited) = while_they_send(&gateway, &mut players);
    cluster.broker.thaw();
    let ended = || ["commands", "refused"].map(|end| metric(&gateway, &format!("ringgate_bus_{end}_total")));
    until("each has ended", || ended().iter().sum::<u64>() + limited == (COMMANDS + PLAYERS) as u64);
    let [accepted, refused] = ended();
    let taken = (accepted as usize - PLAYERS) * BODY;
    println!(
        "resident KiB before {before}, at most {most}; {taken} B were taken; {refused} and {limited} were refused"
    );
    let bound = before + ((KAFKA_QUEUE_BYTES + ELSE_BYTES) as u64 >> 10);
    assert!(most < bound, "resident memory grew from {before} to {most} KiB");
    assert!(taken <= KAFKA_QUEUE_BYTES && taken > KAFKA_QUEUE_BYTES / 2, "the queue is used, to its end: {taken} B");
    players.iter_mut().for_each(acknowledged);
    drop(players);
    cluster.ends(vec![gateway]);
}

/// Each sends its share, and is alive behind it: the most memory meanwhile, KiB, and how many commands were refused
/// before the bus, for so many of their player's waited for an answer.
fn while_they_send(gateway: &Gateway, players: &mut [Json]) -> (u64, u64) {
    let mut most = 0;
    let limited = std::thread::scope(|scope| {
        let sending: Vec<_> = players.iter_mut().map(|player| scope.spawn(|| send(player))).collect();
        while sending.iter().any(|thread| !thread.is_finished()) {
            most = gateway.rss_kib().max(most);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        sending.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    (most.max(gateway.rss_kib()), limited)
}

fn send(player: &mut Json) -> u64 {
    let command = json!({"type": "flood.command", "body": "x".repeat(BODY)}).to_string();
    let mut limited = 0;
    player.stream().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    for _ in 0..COMMANDS / PLAYERS {
        player.send_message(tungstenite::Message::text(&command));
        // Whoever does not read is not read from.
        while let Ok(answer) = player.attempt() {
            limited += u64::from(answer["code"] == "rate_limited");
        }
    }
    player.stream().set_read_timeout(Some(DEADLINE)).unwrap();
    player.send(&json!({"type": "system.heartbeat"}));
    loop {
        let answer = player.read();
        limited += u64::from(answer["code"] == "rate_limited");
        if answer["type"] == "system.heartbeat_ack" {
            return limited;
        }
    }
}

/// A command of the player's is accepted; refusals of former ones may come before.
fn acknowledged(player: &mut Json) {
    player.send(&json!({"type": "flood.command", "correlation_id": "c"}));
    while player.read()["type"] != "system.ack" {}
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let page = gateway.page("/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services_two/flood.toml");
/// Each may have so many commands under way that together they would fill the queue more than twice.
const PLAYERS: usize = 16;
/// Six times the queue, in all.
const COMMANDS: usize = 6 * KAFKA_QUEUE_BYTES / BODY / PLAYERS * PLAYERS;
/// Nearly the longest command.
const BODY: usize = 60 << 10;
/// Connections' buffers, commands between shards and the bus, and what librdkafka and allocators keep beside.
const ELSE_BYTES: usize = 40 << 20;
const _: () = assert!(PLAYERS * COMMANDS_UNANSWERED * BODY > 2 * (KAFKA_QUEUE_BYTES + ELSE_BYTES));
