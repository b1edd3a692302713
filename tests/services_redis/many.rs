//! Many gateways on one Redis: takeovers, crashes, reaping.

use std::time::Duration;

use crate::close::CloseReason;
use crate::cluster::{Cluster, conn, detach, enter, open, resume, resumed, session};
use crate::keys::{self, nothing_is_left};
use crate::limits;
use crate::message::{PresenceKind, PresenceReply, PresenceRequest};
use crate::suite::WINDOW;

/// A session goes from a living gateway to another one: its owner is told, and as soon as it has stopped the new one has
/// the record with all that was said last; presence shows the one connection, and each gateway tells of its own.
#[test]
fn a_living_gateway_gives_its_session_up() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, enter(1, "arena", true));
    let now = cluster.now();
    b.say(now, resume(2, 1));
    a.until(now, "a is told", |a| !a.replies.is_empty());
    assert!(matches!(a.replies[..], [PresenceReply::Stop { to, session: s }] if to == conn(1) && s == session(1)));
    assert!(b.replies.is_empty(), "b waits");
    a.say(now, enter(1, "den", false));
    a.say(now, detach(1, 1, CloseReason::Replaced));
    a.settle(now);
    b.until(now, "b has it", |b| !b.replies.is_empty());
    let record = resumed(&b.replies, 2);
    assert_eq!((record.scopes.len(), record.last_close), (2, Some(CloseReason::Replaced)));
    b.settle(now);
    a.until(now, "a forgets it", |a| a.presence.sessions() == 0);
    assert_eq!(cluster.members("user:ann:sockets"), [b.name(2)]);
    assert_eq!(cluster.members("room:arena:sockets"), [b.name(2)]);
    assert_eq!((a.presence.sessions(), b.presence.sessions()), (0, 1));
    let kinds: Vec<_> = a.told().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds[0], PresenceKind::Connected);
    assert_eq!(kinds.last(), Some(&PresenceKind::Disconnected(CloseReason::Replaced)));
    assert_eq!(b.told(), [(b.name(2), PresenceKind::Connected)]);
    nothing_is_left(cluster, vec![a, b]);
}

/// A detached session is another gateway's at once, and the former forgets it: a kick there has no effect here.
#[test]
fn a_detached_session_goes_anywhere() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, detach(1, 1, CloseReason::GoingAway));
    let replies = cluster.ask(&mut b, resume(2, 1));
    assert_eq!(resumed(&replies, 2).last_close, Some(CloseReason::GoingAway));
    let now = cluster.now();
    a.until(now, "a forgets", |a| a.presence.sessions() == 0);
    cluster.ask(&mut a, PresenceRequest::Kick { user: "ann".into(), event: None });
    assert_eq!(cluster.members("presence:online"), ["ann"]);
    cluster.ask(&mut b, PresenceRequest::Kick { user: "ann".into(), event: None });
    assert!(matches!(cluster.ask(&mut a, resume(3, 1))[..], [PresenceReply::Expired { .. }]));
    nothing_is_left(cluster, vec![a, b]);
}

/// An owner that does not answer is waited for one second; when it comes back it is told, says that its connection is
/// gone, and can change the record no more.
#[test]
fn a_silent_gateway_is_waited_for_one_second() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    assert!(cluster.ask(&mut b, resume(2, 1)).is_empty());
    cluster.pass(limits::TAKEOVER_WAIT - Duration::from_millis(100), &mut [&mut b]);
    assert!(b.replies.is_empty(), "{:?}", b.replies);
    cluster.pass(Duration::from_millis(100), &mut [&mut b]);
    assert_eq!(resumed(&std::mem::take(&mut b.replies), 2).last_close, Some(CloseReason::Replaced));
    let now = cluster.now();
    a.say(now, enter(1, "arena", false));
    a.until(now, "a is told", |a| !a.replies.is_empty() && a.presence.sessions() == 0);
    a.settle(now);
    assert!(a.replies.iter().all(|reply| matches!(reply, PresenceReply::Stop { to, .. } if *to == conn(1))));
    assert!(a.told().contains(&(a.name(1), PresenceKind::Disconnected(CloseReason::Replaced))));
    assert_eq!(cluster.members("user:ann:sockets"), [b.name(2)]);
    assert_eq!(cluster.members("room:arena:sockets"), [] as [String; 0]);
    nothing_is_left(cluster, vec![a, b]);
}

/// A frozen gateway's sessions are free when its lease has ended, at once, and what it has is reaped. Woken, it knows so by
/// its own clock before it asks anybody, gets another lease behind the reaping, and stops all its connections.
#[test]
fn a_frozen_gateway_finds_its_sessions_taken() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, open(3, 3, "cid"));
    let life: u64 = redis::cmd("GET").arg("gateway:a").query(&mut cluster.control).unwrap();
    cluster.skip(limits::GATEWAY_LEASE - Duration::from_secs(4));
    b.settle(cluster.now());
    cluster.skip(Duration::from_secs(4));
    let now = cluster.now();
    assert_eq!((a.lease.lapses(now), b.lease.lapses(now)), (1, 0));
    b.say(now, resume(2, 1));
    b.until(now, "b has it at once", |b| !b.replies.is_empty());
    assert_eq!(resumed(&b.replies, 2).session, session(1));
    for _ in 0..100 {
        cluster.skip(Duration::from_millis(50));
        let now = cluster.now();
        b.settle(now);
        a.turn(now);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let now = cluster.now();
    a.until(now, "a has another lease, and nothing else", |a| a.presence.is_ready() && a.presence.sessions() == 0);
    a.settle(now);
    b.settle(now);
    for n in [1, 3] {
        assert!(a.replies.iter().any(|reply| matches!(reply, PresenceReply::Stop { to, .. } if *to == conn(n))));
    }
    let of_a = |change: &&crate::message::PresenceChange| change.life.nonce == a.nonce;
    let lives: Vec<_> = b.changes.iter().filter(of_a).map(|change| change.life.incarnation).collect();
    let own: Vec<_> = a.changes.iter().map(|change| change.life.incarnation).collect();
    assert!(lives.iter().chain(&own).all(|life| *life == own[0]), "ids are made of it: {lives:?}, {own:?}");
    let told = b.told();
    for n in [1, 3] {
        assert!(told.contains(&(a.name(n), PresenceKind::Disconnected(CloseReason::ConnectionLost))), "{told:?}");
    }
    assert_eq!(a.lease.lapses(now), 1, "shards that look only now close what they have");
    let after: u64 = redis::cmd("GET").arg("gateway:a").query(&mut cluster.control).unwrap();
    assert!(after > life);
    assert_eq!(cluster.members("presence:online"), ["ann"]);
    assert_eq!(cluster.members("user:ann:sockets"), [b.name(2)]);
    a.replies.clear();
    assert_eq!(resumed(&cluster.ask(&mut a, resume(4, 3)), 4).user.as_ref(), "cid");
    nothing_is_left(cluster, vec![a, b]);
}

/// What a crashed gateway left is reaped by another one within a lease and a look: `disconnected` first, keys when the
/// bus has it; its sessions can be resumed, and end when nobody does.
#[test]
fn a_crashed_gateway_is_reaped() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    for n in 1..=30u8 {
        cluster.ask(&mut a, open(u32::from(n), n, &format!("u{n}")));
        cluster.ask(&mut a, enter(n, "arena", n % 2 == 0));
    }
    cluster.ask(&mut a, detach(30, 30, CloseReason::Normal));
    let names: Vec<_> = (1..=29).map(|n| a.name(n)).collect();
    drop(a);
    b.announces = false;
    // Looked at without waiting for the end of the reaping, which waits for the bus.
    for _ in 0..17 {
        cluster.skip(Duration::from_secs(1));
        let now = cluster.now();
        b.until(now, "a lease", |b| b.presence.is_ready());
    }
    let now = cluster.now();
    b.until(now, "a's departures", |b| b.changes.len() >= 29);
    assert_eq!(cluster.members("gateway:a:sockets").len(), 29, "keys stay until the bus has the departures");
    b.announces = true;
    b.settle(now);
    let mut told: Vec<_> = b
        .told()
        .into_iter()
        .map(|(name, kind)| {
            assert_eq!(kind, PresenceKind::Disconnected(CloseReason::ConnectionLost));
            name
        })
        .collect();
    told.sort();
    let mut expected = names.clone();
    expected.sort();
    assert_eq!(told, expected);
    let rest: Vec<_> = cluster.keys().into_iter().filter(|key| !key.starts_with("session:")).collect();
    assert_eq!(rest, ["gateway:b", "room:arena:detached", "room:arena:info"]);
    assert_eq!(b.presence.detached(), 30, "b remembers them, that which was detached before too");
    keys::check(&mut cluster);
    let replies = cluster.ask(&mut b, resume(50, 7));
    assert_eq!(resumed(&replies, 50).last_close, Some(CloseReason::ConnectionLost));
    cluster.ask(&mut b, PresenceRequest::Kick { user: "u30".into(), event: None });
    assert!(matches!(cluster.ask(&mut b, resume(51, 30))[..], [PresenceReply::Expired { .. }]));
    cluster.ask(&mut b, detach(50, 7, CloseReason::Normal));
    nothing_is_left(cluster, vec![b]);
}

/// Two gateways that see a third one crash: one reaps. If that crashes in the middle, the other says the same departures
/// again, under the same names of connection, gateway and life, of which event ids are made.
#[test]
fn a_reaper_may_crash() {
    let mut cluster = Cluster::start();
    let (mut a, mut b, mut c) = (cluster.gateway("a"), cluster.gateway("b"), cluster.gateway("c"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    drop(a);
    b.announces = false;
    for _ in 0..17 {
        cluster.skip(Duration::from_secs(1));
        b.until(cluster.now(), "a lease", |b| b.presence.is_ready());
        if cluster.now().as_nanos() < 10_000_000_000 {
            c.settle(cluster.now());
        }
    }
    b.until(cluster.now(), "the departure", |b| !b.changes.is_empty());
    let first = std::mem::take(&mut b.changes);
    drop(b);
    cluster.pass(Duration::from_secs(34), &mut [&mut c]);
    let mut again = std::mem::take(&mut c.changes);
    again.retain(|change| change.user.as_ref() == "ann");
    assert_eq!(first, again);
    assert_eq!(cluster.members("presence:online"), [] as [String; 0]);
    nothing_is_left(cluster, vec![c]);
}

/// A gateway that starts anew under its id takes the lease over at once, says what its former life did not, and its
/// former life's sessions go on, those without connection too.
#[test]
fn a_gateway_starts_anew_under_its_id() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, open(2, 2, "bob"));
    cluster.ask(&mut a, detach(2, 2, CloseReason::Normal));
    let former = a.name(1);
    drop(a);
    let mut a = cluster.gateway("a");
    assert_eq!(a.told(), [(former, PresenceKind::Disconnected(CloseReason::ConnectionLost))]);
    assert_eq!(a.presence.detached(), 2);
    resumed(&cluster.ask(&mut a, resume(1, 1)), 1);
    cluster.ask(&mut a, PresenceRequest::Kick { user: "bob".into(), event: None });
    assert!(matches!(cluster.ask(&mut a, resume(2, 2))[..], [PresenceReply::Expired { .. }]));
    nothing_is_left(cluster, vec![a]);
}

/// Two living processes under one id: the one that came last has the lease, the other tells its clients that presence is
/// away, and changes nothing.
#[test]
fn an_id_is_one_process() {
    let mut cluster = Cluster::start();
    let mut first = cluster.gateway("a");
    cluster.ask(&mut first, open(1, 1, "ann"));
    let mut second = cluster.gateway("a");
    let now = cluster.now();
    first.say(now, open(2, 2, "bob"));
    first.until(now, "it is told", |first| !first.replies.is_empty());
    assert!(matches!(first.replies[..], [PresenceReply::Unavailable { to }] if to == conn(2)), "{:?}", first.replies);
    assert!(!first.presence.is_ready());
    drop(first);
    cluster.ask(&mut second, open(3, 3, "cid"));
    assert_eq!(cluster.members("presence:online"), ["cid"]);
    nothing_is_left(cluster, vec![second]);
}

/// A waiter that gives up, and one whom a third gateway overtakes, leave nothing behind.
#[test]
fn waiters_of_many_gateways_take_turns() {
    let mut cluster = Cluster::start();
    let (mut a, mut b, mut c) = (cluster.gateway("a"), cluster.gateway("b"), cluster.gateway("c"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut b, resume(2, 1));
    cluster.ask(&mut b, detach(2, 1, CloseReason::ConnectionLost));
    assert_eq!(cluster.field(&format!("session:{}", session(1)), "next_connection"), None);
    cluster.ask(&mut b, resume(3, 1));
    cluster.ask(&mut c, resume(4, 1));
    let now = cluster.now();
    b.until(now, "b is told to stop", |b| !b.replies.is_empty());
    assert!(matches!(b.replies[..], [PresenceReply::Stop { to, .. }] if to == conn(3)));
    cluster.pass(limits::TAKEOVER_WAIT, &mut [&mut b, &mut c]);
    resumed(&c.replies, 4);
    assert_eq!(b.replies.len(), 1);
    cluster.pass(WINDOW, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(cluster.members("user:ann:sockets"), [c.name(4)]);
    nothing_is_left(cluster, vec![a, b, c]);
}

/// A process without clients reaps too: when the only gateway has crashed, a worker's watch says so on the bus, once.
#[test]
fn a_worker_reaps_the_last_gateway() {
    use ringgate::bus::{EmbeddedBus, TopicBounds};
    use ringgate::ports::Bus as _;
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("a");
    cluster.ask(&mut gateway, open(1, 1, "ann"));
    let name = gateway.name(1);
    drop(gateway);
    let bus = EmbeddedBus::new(1, TopicBounds::default());
    let wake: std::sync::Arc<dyn crate::router::Wake> =
        std::sync::Arc::new(crate::router::ThreadWaker::new(std::thread::current()));
    let mut reader = bus.reader(&["gateway.presence"], std::sync::Arc::clone(&wake));
    let announcer = crate::presence::Announcer::new(Box::new(bus.reader(&[], wake)), "worker".into(), 1);
    let worker = cluster.unready_gateway("worker", 1000).presence;
    let mut worker = crate::presence::Reaping::new(worker, announcer);
    let mut seconds = 0;
    while !cluster.members("presence:online").is_empty() {
        seconds += 1;
        assert!(seconds < 120, "ann is still online");
        cluster.skip(Duration::from_secs(1));
        for _ in 0..20 {
            worker.turn(cluster.now(), crate::time::WallMillis(1));
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    let began = std::time::Instant::now();
    while !worker.finish(cluster.now(), crate::time::WallMillis(1)) {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    let mut records = Vec::new();
    reader.read("gateway.presence", 0, 100, &mut records);
    let said: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&name) && said[0].contains("\"type\":\"disconnected\""), "{said:?}");
    let left: Vec<_> = cluster.keys().into_iter().filter(|key| !key.starts_with("session:")).collect();
    assert_eq!(left, [] as [String; 0]);
}
