//! The keys, held against PROTOCOLS' list.

use std::time::Duration;

use crate::close::CloseReason;
use crate::cluster::{Cluster, Gateway, detach, enter, leave, open};
use crate::message::PresenceRequest;
use crate::suite::WINDOW;

/// PROTOCOLS "Redis keys", as far as gateways write them: name and type.
const LIST: [(&str, &str); 11] = [
    ("socket:{id}", "hash"),
    ("user:{id}:sockets", "set"),
    ("user:{id}:hub", "string"),
    ("user:{id}:kicked", "string"),
    ("presence:online", "set"),
    ("room:{id}:info", "hash"),
    ("room:{id}:users", "set"),
    ("room:{id}:sockets", "set"),
    ("room:code:{code}", "string"),
    ("session:{id}", "hash"),
    ("gateway:{id}:sockets", "set"),
];
/// The lease; its id may have colons.
const LEASE: (&str, &str) = ("gateway:{id}", "string");

/// Fails if there is a key that PROTOCOLS does not know, or one without the time to live that it says.
pub fn check(cluster: &mut Cluster) {
    for key in cluster.keys() {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut cluster.control).unwrap();
        let row = LIST.iter().chain([&LEASE]).find(|(name, row_kind)| *row_kind == kind && matches(name, &key));
        let (name, _) = row.unwrap_or_else(|| panic!("{key}, a {kind}, is not in PROTOCOLS' list"));
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut cluster.control).unwrap();
        let bounds = match *name {
            "session:{id}" => 1..=WINDOW.as_millis() as i64,
            "gateway:{id}" => 1..=15_000,
            "user:{id}:hub" => 1..=WINDOW.as_millis() as i64 * 3 / 2,
            "user:{id}:kicked" => 1..=WINDOW.as_millis() as i64 * 2,
            "room:code:{code}" => 1..=WINDOW.as_millis() as i64 * 5 / 4,
            "room:{id}:info" => -1..=WINDOW.as_millis() as i64 * 5 / 4,
            _ => -1..=-1,
        };
        assert!(bounds.contains(&left), "{key} lives for {left} ms");
    }
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
    let passing = |key: &&String| {
        let ends = [":info", ":hub", ":kicked"];
        key.starts_with("session:") || key.starts_with("room:code:") || ends.iter().any(|end| key.ends_with(end))
    };
    let left: Vec<_> = cluster.keys().into_iter().filter(|key| !passing(&key)).collect();
    assert_eq!(left, [] as [String; 0], "only what lives on for a window is left");
    cluster.skip(WINDOW * 5 / 4);
    let hubs = |key: &String| !key.starts_with("user:");
    assert!(!cluster.keys().iter().any(hubs), "ways to hubs and kicks are known for longer");
    cluster.skip(WINDOW * 3 / 4);
    assert_eq!(cluster.keys(), [] as [String; 0]);
}

fn matches(name: &str, key: &str) -> bool {
    match name.split_once('{') {
        None => name == key,
        Some((head, rest)) => {
            let tail = rest.split_once('}').map_or("", |(_, tail)| tail);
            key.len() > head.len() + tail.len() && key.starts_with(head) && key.ends_with(tail)
        }
    }
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
