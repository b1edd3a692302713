//! The keys, held against PROTOCOLS' list.

use std::time::Duration;

use crate::close::CloseReason;
use crate::cluster::{Cluster, Gateway, detach, enter, leave, open};
use crate::listed;
use crate::message::PresenceRequest;
use crate::suite::WINDOW;

/// See [`listed::check`].
pub fn check(cluster: &mut Cluster) {
    listed::check(&mut cluster.control, WINDOW);
}

/// Ends all sessions of these gateways, and the gateways; fails if anything is left when the last window is over.
pub fn nothing_is_left(mut cluster: Cluster, mut gateways: Vec<Gateway>) {
    check(&mut cluster);
    let mut all: Vec<&mut Gateway> = gateways.iter_mut().collect();
    for n in 0..=40u8 {
        for gateway in &mut all {
            for from in 0..=40 {
                gateway.say(cluster.now(), detach(from, n, CloseReason::Restart));
            }
        }
    }
    cluster.pass(Duration::from_secs(4), &mut all);
    check(&mut cluster);
    let now = cluster.now();
    for gateway in all {
        gateway.until(now, "finished", |gateway| crate::ports::Presence::finish(&mut gateway.presence, now));
    }
    let left: Vec<_> = cluster.keys().into_iter().filter(|key| !listed::lives_on(key)).collect();
    assert_eq!(left, [] as [String; 0], "only what lives on for a window is left");
    cluster.skip(WINDOW * 5 / 4);
    let hubs = |key: &String| !key.starts_with("user:");
    assert!(!cluster.keys().iter().any(hubs), "ways to hubs and kicks are known for longer");
    cluster.skip(WINDOW * 3 / 4);
    assert_eq!(cluster.keys(), [] as [String; 0]);
}

/// A connection, its user, its rooms and its session stand under the keys of PROTOCOLS with the contents it says, and
/// go as they came.
#[test]
fn keys_are_those_of_the_protocol() {
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("gw:1");
    cluster.ask(&mut gateway, open(1, 1, "ann"));
    cluster.ask(&mut gateway, open(2, 2, "ann"));
    cluster.ask(&mut gateway, open(3, 3, "bob"));
    for n in [1, 2, 3] {
        cluster.ask(&mut gateway, enter(n, "arena", false));
    }
    cluster.ask(&mut gateway, enter(1, "den", true));
    check(&mut cluster);
    let [a, b, c] = [1, 2, 3].map(|n| gateway.name(n));
    let sorted = |mut names: Vec<&String>| {
        names.sort();
        names.into_iter().cloned().collect::<Vec<_>>()
    };
    for (field, value) in [("user_id", "ann"), ("username", "Player"), ("gateway_id", "gw:1")] {
        assert_eq!(cluster.field(&format!("socket:{a}"), field).as_deref(), Some(value));
    }
    assert!(cluster.field(&format!("socket:{a}"), "connected_at").unwrap().ends_with('Z'));
    assert_eq!(cluster.members("user:ann:sockets"), sorted(vec![&a, &b]));
    assert_eq!(cluster.members("presence:online"), ["ann", "bob"]);
    assert_eq!(cluster.members("gateway:gw:1:sockets"), sorted(vec![&a, &b, &c]));
    assert_eq!(cluster.members("room:arena:users"), ["ann", "bob"]);
    assert_eq!(cluster.members("room:arena:sockets"), sorted(vec![&a, &b, &c]));
    assert_eq!(cluster.field("room:arena:info", "admission").as_deref(), Some("open"));
    assert_eq!(cluster.field("room:den:info", "admission").as_deref(), Some("service"));

    cluster.ask(&mut gateway, leave(1, "arena"));
    assert_eq!(cluster.members("room:arena:users"), ["ann", "bob"], "ann is there with another connection");
    cluster.ask(&mut gateway, detach(2, 2, CloseReason::Normal));
    assert_eq!(cluster.members("room:arena:users"), ["bob"]);
    assert_eq!(cluster.members("user:ann:sockets"), std::slice::from_ref(&a));
    cluster.ask(&mut gateway, detach(1, 1, CloseReason::Normal));
    assert_eq!(cluster.members("presence:online"), ["bob"]);
    check(&mut cluster);
    cluster.ask(&mut gateway, PresenceRequest::Kick { user: "bob".into(), event: None });
    let kept: Vec<_> = cluster.keys().into_iter().filter(|key| key.starts_with("session:")).collect();
    assert_eq!(kept.len(), 4, "two records, and the ways from their tokens to them: {kept:?}");
    nothing_is_left(cluster, vec![gateway]);
}

/// A session that keeps its connection for longer than the resume window keeps its record.
#[test]
fn records_of_the_connected_do_not_expire() {
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("gw");
    cluster.ask(&mut gateway, open(1, 1, "ann"));
    let before = cluster.keys();
    cluster.pass(WINDOW * 3, &mut [&mut gateway]);
    assert_eq!(cluster.keys(), before);
    nothing_is_left(cluster, vec![gateway]);
}
