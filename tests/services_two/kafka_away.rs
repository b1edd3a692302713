//! Kafka away under load: it hangs, is stopped, is killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringgate::limits::{GATEWAY_LEASE, KAFKA_QUEUE_BYTES};
use serde_json::json;

use crate::backend::Backend;
use crate::cluster::{Cluster, Directory};
use crate::json::Json;
use crate::killed::check;
use crate::node::{Gateway, token};
use crate::player::Player;

const IDS: [&str; 2] = ["gw:0", "gw:1"];
const USERS: [&str; 6] = ["u0", "u1", "u2", "u3", "u4", "u5"];

/// While Kafka is away commands are answered `unavailable` in time, nobody's connection ends, newcomers come and go, and
/// memory stays within bounds however much is sent; when it is back everything goes on by itself. All that was
/// acknowledged is there, and everybody got every event once, though each of them came after an outage or before it.
#[test]
fn kafka_hangs_and_stops_and_dies() {
    let mut cluster = Cluster::start();
    let gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let mut backend = cluster.backend("game");
    let mut players: Vec<Player> =
        (0..6).map(|n| Player::enter(&directory, &mut backend, n, USERS[n], "arena")).collect();
    let floods: Vec<_> = (0..12).map(|n| flood(&gateways[n % 2], &mut backend, n)).collect();
    let (load, over) = (backend.load(&["arena"], 50), AtomicBool::new(false));
    let before: Vec<u64> = gateways.iter().map(Gateway::rss_kib).collect();
    let most = std::thread::scope(|scope| {
        players.iter_mut().for_each(|player| _ = scope.spawn(|| player.play(&directory)));
        floods.into_iter().for_each(|flood| _ = scope.spawn(|| flood.run(&directory, &over)));
        let _over = Over(&over);
        load.goes_on(50);
        cluster.broker.freeze();
        refused(&directory);
        gateways.iter().for_each(come_and_go);
        let hanging: Vec<u64> = gateways.iter().map(Gateway::rss_kib).collect();
        cluster.broker.thaw();
        load.goes_on(100);
        for away in [|cluster: &Cluster| cluster.broker.stop(), |cluster: &Cluster| cluster.broker.kill()] {
            away(&cluster);
            refused(&directory);
            cluster.broker.again();
            load.goes_on(100);
        }
        over.store(true, Ordering::Release);
        load.end();
        hanging
    });
    assert_eq!(directory.closes.read(), 0, "nobody's connection ended");
    check(&cluster, &players);
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);
    let after: Vec<u64> = gateways.iter().map(Gateway::rss_kib).collect();
    println!("resident KiB before {before:?}, at the end of an outage {most:?}, at last {after:?}");
    // What comes within the time that a command may wait; see `bounded` for more.
    let bound = KAFKA_QUEUE_BYTES as u64 >> 10;
    for (before, now) in before.iter().chain(&before).zip(most.iter().chain(&after)) {
        assert!(*now < before + bound, "resident memory grew from {before} to {now} KiB");
    }
    drop(players);
    cluster.ends(gateways.into());
}

/// A Kafka that gets to work for a tenth of the time only: nobody's connection ends, newcomers come in, commands are
/// acknowledged and events come, late, once and in order, and presence tells the truth all the while.
#[test]
fn kafka_is_slow() {
    let mut cluster = Cluster::start();
    let gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let mut backend = cluster.backend("game");
    let mut players: Vec<Player> =
        (0..6).map(|n| Player::enter(&directory, &mut backend, n, USERS[n], "arena")).collect();
    let (load, over) = (backend.load(&["arena"], 25), AtomicBool::new(false));
    std::thread::scope(|scope| {
        players.iter_mut().for_each(|player| _ = scope.spawn(|| player.play(&directory)));
        load.goes_on(25);
        let slowed = scope.spawn(|| slow_down(&cluster, &over));
        let _over = Over(&over);
        for _ in 0..3 {
            directory.acknowledgements.reaches(directory.acknowledgements.read() + 2 * USERS.len() as u64);
            gateways.iter().for_each(come_and_go);
            load.goes_on(75);
        }
        over.store(true, Ordering::Release);
        assert!(slowed.join().unwrap() > 10, "it was slow for a while");
        load.goes_on(25);
        load.end();
    });
    assert_eq!(directory.closes.read(), 0, "nobody's connection ended");
    check(&cluster, &players);
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);
    drop(players);
    cluster.ends(gateways.into());
}

/// Lets Kafka work for a moment now and then until it is over; how often.
fn slow_down(cluster: &Cluster, over: &AtomicBool) -> u32 {
    let mut times = 0;
    while !over.load(Ordering::Acquire) {
        cluster.broker.freeze();
        std::thread::park_timeout(Duration::from_millis(360));
        cluster.broker.thaw();
        std::thread::park_timeout(Duration::from_millis(40));
        times += 1;
    }
    times
}

/// Some commands are refused from now on, and what waited was refused before.
fn refused(directory: &Directory) {
    directory.refusals.reaches(directory.refusals.read() + USERS.len() as u64);
}

/// Newcomers authenticate and leave, Kafka or not.
fn come_and_go(gateway: &Gateway) {
    for n in 0..20 {
        Json::player(gateway, &format!("passer-by-{n}")).is_alive();
    }
}

/// A member that sends as many of the largest commands as it may.
struct Flood {
    json: Json,
    body: String,
}

fn flood(gateway: &Gateway, backend: &mut Backend, n: usize) -> Flood {
    let mut json = Json::open(gateway);
    json.authenticate(&json!({"token": token(&format!("flood{n}"), &[])}));
    backend.admit(json.session["session_id"].as_str().unwrap(), "flooded");
    json.expect("games.event.lobby_joined");
    let body = "x".repeat(60 << 10);
    Flood { json, body }
}

impl Flood {
    fn run(mut self, directory: &Directory, over: &AtomicBool) {
        self.json.stream().set_read_timeout(Some(PAUSE)).unwrap();
        for number in 0.. {
            if over.load(Ordering::Acquire) {
                return;
            }
            let command = json!({"type": "games.command.test.flood", "room_id": "flooded", "body": self.body,
                "correlation_id": number.to_string()});
            self.json.send_message(tungstenite::Message::text(command.to_string()));
            // An answer, if any; the wait is what keeps to the rate.
            if self.json.attempt().is_ok_and(|message| message["code"] == "unavailable") {
                directory.refusals.add();
            }
        }
    }
}

/// Says that it is over when a test has failed, too.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Between two commands of a connection: 20 a second.
const PAUSE: Duration = Duration::from_millis(50);
