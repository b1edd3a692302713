//! Sessions taken over from gateways that live, hang or are gone.

use rustix::process::Signal;
use serde_json::json;

use ringgate::limits::{GATEWAY_LEASE, GATEWAY_RENEWAL};

use crate::backend::values;
use crate::cluster::{Cluster, Directory, again};
use crate::killed::check;
use crate::node::until_within;
use crate::player::Player;

const IDS: [&str; 2] = ["gw:0", "gw:1"];
const USERS: [&str; 3] = ["ann", "bob", "cid"];
/// A history keeps 1,024 events: more than come while somebody is away here.
const PER_SECOND: u32 = 30;

/// Players of one room at the first gateway.
fn players(cluster: &Cluster, directory: &Directory) -> (Vec<Player>, crate::backend::Backend) {
    let mut backend = cluster.backend("game");
    let players = USERS.map(|user| Player::enter(directory, &mut backend, 0, user, "arena"));
    (players.into(), backend)
}

/// Under load sessions go to and fro between two gateways that live: each time the former connection is closed 4409, and
/// what comes on both together is every event once, and every command is done once though it was said on both.
#[test]
fn a_living_gateway_gives_sessions_up() {
    let mut cluster = Cluster::start();
    let gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let (mut players, backend) = players(&cluster, &directory);
    let load = backend.load(&["arena"], PER_SECOND);
    for round in 1..=6 {
        for player in &mut players {
            player.plays(&directory, 20);
            let mut former = player.moves(&directory, round);
            assert_eq!(former.closed().0, 4409, "{}", player.user);
            player.plays(&directory, 5);
        }
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);
        assert_eq!(cluster.members(&format!("gateway:{}:sockets", IDS[round % 2])).len(), 3);
    }
    load.end();
    players.iter_mut().for_each(|player| player.play(&directory));
    check(&cluster, &players);
    assert!(players.iter().all(|player| player.resumed == 6 && player.closes.is_empty()));
    drop(players);
    cluster.ends(gateways.into());
}

/// A gateway that is frozen for longer than its lease: its sessions go on at the other one, which says that their former
/// connections are gone. Woken it closes them before it reads what was written to them meanwhile, and has sessions again.
/// One that is frozen for less gives its sessions up when it wakes.
#[test]
fn a_frozen_gateway_closes_what_was_taken() {
    let mut cluster = Cluster::start();
    let gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let (mut players, backend) = players(&cluster, &directory);
    let load = backend.load(&["arena"], PER_SECOND);
    players.iter_mut().for_each(|player| player.plays(&directory, 20));

    gateways[0].signal(Signal::STOP);
    let mut former: Vec<_> = players.iter_mut().map(|player| player.moves(&directory, 1)).collect();
    gateways[0].signal(Signal::CONT);
    assert!(former.iter_mut().all(|former| former.closed().0 == 4409));
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);
    players.iter_mut().for_each(|player| player.plays(&directory, 20));

    gateways[1].signal(Signal::STOP);
    let mut former: Vec<_> = players.iter_mut().map(|player| player.moves(&directory, 0)).collect();
    for (n, former) in former.iter_mut().enumerate() {
        let unread =
            json!({"type": "games.command.test.move", "room_id": "arena", "correlation_id": format!("unread-{n}")});
        former.try_send(&unread).unwrap();
    }
    // Both the lease's end and the reaping of what it held are seen by the keys.
    until_within(GATEWAY_LEASE + GATEWAY_RENEWAL, "the frozen one is reaped", || {
        players.iter_mut().for_each(|player| player.plays(&directory, 5));
        cluster.members("gateway:gw:1:sockets").is_empty()
    });
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);
    gateways[1].signal(Signal::CONT);
    let codes: Vec<_> = former.iter_mut().map(|former| former.closed().0).collect();
    assert!(codes.iter().all(|code| [1013, 4409].contains(code)), "{codes:?}");
    players.iter_mut().for_each(|player| player.plays(&directory, 20));
    let mut former: Vec<_> = players.iter_mut().map(|player| player.moves(&directory, 1)).collect();
    assert!(former.iter_mut().all(|former| former.closed().0 == 4409));
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);

    load.end();
    players.iter_mut().for_each(|player| player.play(&directory));
    check(&cluster, &players);
    let said = values(&cluster.broker, "games.commands");
    let unread =
        |record: &serde_json::Value| record["correlation_id"].as_str().is_some_and(|id| id.starts_with("unread"));
    assert!(!said.iter().any(unread), "what was written to a connection that was taken away was read");
    drop((players, former));
    cluster.ends(gateways.into());
}

/// A gateway that is gone for good: its sessions are taken at once, and within a lease presence knows of those that did
/// not come back too; a gateway that starts under its id later has nothing of them.
#[test]
fn a_dead_gateway_is_reaped() {
    let mut cluster = Cluster::start();
    let mut gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let (mut players, backend) = players(&cluster, &directory);
    let load = backend.load(&["arena"], PER_SECOND);
    players.iter_mut().for_each(|player| player.plays(&directory, 20));
    gateways[0].signal(Signal::KILL);
    directory.set(0, None);
    let _ = gateways[0].ended();
    for player in &mut players[..2] {
        drop(player.moves(&directory, 1));
        player.plays(&directory, 20);
    }
    cluster.tells(&IDS, &[("arena", &USERS[..2])], GATEWAY_LEASE + GATEWAY_RENEWAL);
    // The one who stayed away all the time still has a session.
    drop(players[2].moves(&directory, 1));
    players[2].plays(&directory, 20);
    gateways[0] = again(&cluster, &directory, 0, IDS[0]);
    players.iter_mut().for_each(|player| drop(player.moves(&directory, 0)));
    cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);
    load.end();
    players.iter_mut().for_each(|player| player.play(&directory));
    check(&cluster, &players);
    drop(players);
    cluster.ends(gateways.into());
}
