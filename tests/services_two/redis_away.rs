//! Redis away under load: stopped and empty when it is back, flushed, hanging for longer than a lease.

use rustix::process::Signal;
use serde_json::json;

use ringgate::limits::{GATEWAY_LEASE, GATEWAY_RENEWAL};

use crate::cluster::{Cluster, Directory, again};
use crate::json::Json;
use crate::killed::check;
use crate::node::{Gateway, token};
use crate::player::Player;

const IDS: [&str; 2] = ["gw:0", "gw:1"];
const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// A Redis that is restarted or flushed within a lease is noticed by newcomers only, and has all again; one that hangs for
/// longer ends every connection, and every session goes on when it is back, though a gateway was killed meanwhile.
/// Everybody got every event once, and presence tells the truth within a lease each time.
#[test]
fn redis_stops_and_forgets_and_hangs() {
    let mut cluster = Cluster::start();
    let mut gateways = [cluster.gateway(IDS[0]), cluster.gateway(IDS[1])];
    let directory = Directory::of(&[&gateways[0], &gateways[1]]);
    let mut backend = cluster.backend("game");
    let mut players: Vec<Player> =
        (0..4).map(|n| Player::enter(&directory, &mut backend, n, USERS[n], "arena")).collect();
    // A history keeps 1,024 events: more than come while Redis is away.
    let load = backend.load(&["arena"], 25);
    std::thread::scope(|scope| {
        players.iter_mut().for_each(|player| _ = scope.spawn(|| player.play(&directory)));
        load.goes_on(25);
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_RENEWAL);

        cluster.redis.stop();
        gateways.iter().for_each(told);
        load.goes_on(25);
        cluster.redis.restart();
        cluster.redis_is_back();
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);
        cluster.flush();
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);
        assert_eq!(directory.closes.read(), 0, "nobody's connection ended");

        // What Redis was told anew is what a session needs.
        gateways[0].signal(Signal::KILL);
        directory.set(0, None);
        let _ = gateways[0].ended();
        directory.resumes.reaches(2);
        gateways[0] = again(&cluster, &directory, 0, IDS[0]);
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);

        cluster.redis.freeze(true);
        gateways.iter().for_each(told);
        assert_eq!(directory.closes.read(), 2, "Redis is away for less than a lease");
        directory.closes.reaches(6);
        gateways[1].signal(Signal::KILL);
        directory.set(1, None);
        let _ = gateways[1].ended();
        cluster.redis.freeze(false);
        directory.resumes.reaches(6);
        gateways[1] = again(&cluster, &directory, 1, IDS[1]);
        cluster.tells(&IDS, &[("arena", &USERS)], GATEWAY_LEASE);
        load.goes_on(25);
        load.end()
    });
    check(&cluster, &players);
    assert!(players.iter().flat_map(|player| &player.closes).all(|code| *code == 1013));
    drop(players);
    cluster.ends(gateways.into());
}

/// A newcomer is told that it cannot be served now, and to try again.
fn told(gateway: &Gateway) {
    let mut newcomer = Json::open(gateway);
    newcomer.send(&json!({"type": "system.authenticate", "token": token("eve", &[])}));
    assert_eq!(newcomer.error().0, "unavailable");
    assert_eq!(newcomer.closed().0, 1013);
}
