//! Gateways killed under load.

use std::collections::BTreeMap;

use ringgate::limits::GATEWAY_LEASE;
use rustix::process::Signal;
use serde_json::Value;

use crate::backend::values;
use crate::cluster::{Cluster, Directory, again};
use crate::player::Player;

/// Twenty times a gateway is killed under load: its sessions go on at the other one within seconds, and it is started
/// again. Everybody got every event once and in order, was told `recovered: true` each time, and what was acknowledged is
/// on Kafka, under one id; presence tells the truth, and nothing of it is left.
#[test]
fn sessions_go_on_at_the_other_gateway_twenty_times() {
    let mut cluster = Cluster::start();
    let mut gateways = [cluster.gateway("gw:0"), cluster.gateway("gw:1")];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let (mut backend, rooms) = (cluster.backend("game"), ["r0", "r1", "r2"]);
    let mut players: Vec<Player> =
        (0..12).map(|n| Player::enter(&directory, &mut backend, n, &format!("u{n:02}"), rooms[n % 3])).collect();
    let users: Vec<Vec<String>> =
        (0..3).map(|room| (room..12).step_by(3).map(|n| format!("u{n:02}")).collect()).collect();
    let users: Vec<Vec<&str>> = users.iter().map(|room| room.iter().map(String::as_str).collect()).collect();
    let present: Vec<(&str, &[&str])> = rooms.iter().zip(&users).map(|(room, users)| (*room, &users[..])).collect();
    let ids = ["gw:0", "gw:1"];
    let load = backend.load(&rooms, 300);
    std::thread::scope(|scope| {
        for player in &mut players {
            scope.spawn(|| player.play(&directory));
        }
        for round in 0..20 {
            let at = round % 2;
            load.goes_on(50);
            gateways[at].signal(Signal::KILL);
            directory.set(at, None);
            let _ = gateways[at].ended();
            // Half of them were there at first, later all.
            directory.resumes.reaches(6 + 12 * round as u64);
            gateways[at] = again(&cluster, &directory, at, ids[at]);
            cluster.tells(&ids, &present, GATEWAY_LEASE);
        }
        load.end()
    });
    check(&cluster, &players);
    assert!(
        players.iter().all(|player| player.resumed >= 19),
        "{:?}",
        players.iter().map(|p| p.resumed).collect::<Vec<_>>()
    );
    drop(players);
    cluster.ends(gateways.into());
}

/// What was acknowledged is on Kafka under one id, and nobody was refused.
pub fn check(cluster: &Cluster, players: &[Player]) {
    let mut ids: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in values(&cluster.broker, "games.commands") {
        let Some(correlation) = record["correlation_id"].as_str() else { continue };
        let of = ids.entry(correlation.to_owned()).or_default();
        if !of.contains(&record["event_id"]) {
            of.push(record["event_id"].clone());
        }
    }
    for player in players {
        assert!(!player.acknowledged.is_empty(), "{} said nothing", player.user);
        for correlation in &player.acknowledged {
            assert_eq!(
                ids.get(correlation).map(Vec::len),
                Some(1),
                "{correlation} is acknowledged, and lost or doubled"
            );
        }
    }
}
