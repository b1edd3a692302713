//! Two brokers, of which one goes: partitions without leader, beside others that have one.

use std::collections::BTreeSet;
use std::process::Command;

use ringgate::bus::kafka::KafkaBus;
use ringgate::limits::GATEWAY_LEASE;
use ringgate::ports::{Bus as _, partition_name};

use crate::broker::Broker;
use crate::cluster::{Cluster, Directory};
use crate::killed::check;
use crate::node::until;
use crate::player::Player;

const IDS: [&str; 2] = ["gw:0", "gw:1"];
const USERS: [&str; 8] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"];
const ROOMS: [&str; 8] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];

/// A partition of commands and another one of events lose their leader under load: commands for the rooms of the one are
/// answered `unavailable`, events of the rooms of the other wait, and `config check --connect` says which they are; all else
/// goes on as if nothing had happened. When the leader is back nothing is missing anywhere, and nothing was told twice.
#[test]
fn a_partition_has_no_leader() {
    let mut cluster = Cluster::start();
    let second = cluster.broker.beside();
    for (topic, brokers) in [("games.commands", [1, 2, 1]), ("games.events", [1, 1, 2])] {
        cluster.broker.delete(topic);
        cluster.broker.create_on(topic, &brokers);
    }
    let gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let mut backend = cluster.backend("game");
    let mut players: Vec<Player> =
        (0..8).map(|n| Player::enter(&directory, &mut backend, n, USERS[n], ROOMS[n])).collect();
    let load = backend.load(&ROOMS, 80);
    let away = std::thread::scope(|scope| {
        players.iter_mut().for_each(|player| _ = scope.spawn(|| player.play(&directory)));
        directory.acknowledgements.reaches(4 * USERS.len() as u64);
        let away = rooms_of(&cluster, 1);
        assert!(!away.is_empty() && !rooms_of(&cluster, 0).is_empty(), "rooms are in both partitions: {away:?}");
        for _ in 0..2 {
            without(&cluster, &directory, &second, away.len() as u64);
            load.goes_on(160);
        }
        load.end();
        away
    });
    for player in &players {
        assert_eq!(
            player.refused > 0,
            away.contains(&player.room),
            "{} in {}: {}",
            player.user,
            player.room,
            player.refused
        );
    }
    assert_eq!(directory.closes.read(), 0, "nobody's connection ended");
    check(&cluster, &players);
    let present: Vec<(&str, &[&str])> = (0..8).map(|n| (ROOMS[n], &USERS[n..=n])).collect();
    cluster.tells(&IDS, &present, GATEWAY_LEASE);
    drop(players);
    cluster.ends(gateways.into());
}

/// The second broker goes, and comes back when those who need it have been refused and others have gone on.
fn without(cluster: &Cluster, directory: &Directory, second: &Broker, rooms: u64) {
    second.stop();
    until("the partition has no leader", || !cluster.broker.has_leader("games.commands", 1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    let said = cluster.on_servers(command.env_clear().args(["config", "check", "--connect"])).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for (topic, partition) in [("games.commands", 1), ("games.events", 2)] {
        let words = format!("warning: kafka topic {topic}: partition {partition} has no leader");
        assert!(said.contains(&words), "{words}: {said}");
    }
    directory.refusals.reaches(directory.refusals.read() + 2 * rooms);
    // Only others are acknowledged now.
    directory.acknowledgements.reaches(directory.acknowledgements.read() + 20);
    second.again();
    until("the partition has a leader", || cluster.broker.has_leader("games.commands", 1));
}

/// The rooms whose commands are in this partition.
fn rooms_of(cluster: &Cluster, partition: u32) -> BTreeSet<String> {
    let mut bus = KafkaBus::open(&cluster.broker.config(&["games.commands"])).unwrap();
    let (name, mut page) = (partition_name("games.commands", partition), Vec::new());
    let (end, mut next) = (bus.range(&name).1, 0);
    until("the partition is read", || {
        next = bus.read(&name, next, 1000, &mut page);
        next >= end
    });
    page.iter().map(|record| String::from_utf8(record.key.to_vec()).unwrap()).collect()
}
