//! Redis away, frozen, flushed, back; wrong passwords, TLS, clusters.

use std::time::{Duration, Instant};

use crate::close::CloseReason;
use crate::cluster::{Cluster, conn, detach, enter, leave, open, resume, resumed};
use crate::keys::nothing_is_left;
use crate::limits;
use crate::message::{PresenceReply, PresenceRequest};
use crate::presence::RedisSettings;
use crate::server::Server;

/// A flushed Redis has all that its gateways know again within a renewal, under a greater life of the same process, and
/// no client notices: sessions go on, detached ones can be resumed.
#[test]
fn a_flush_is_mended() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, enter(1, "arena", true));
    cluster.ask(&mut a, open(2, 2, "bob"));
    cluster.ask(&mut a, detach(2, 2, CloseReason::IdleTimeout));
    cluster.ask(&mut b, open(3, 3, "cid"));
    let before = cluster.keys();
    let life: u64 = redis::cmd("GET").arg("gateway:a").query(&mut cluster.control).unwrap();
    let () = redis::cmd("FLUSHALL").query(&mut cluster.control).unwrap();
    let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut cluster.control).unwrap();
    cluster.pass(limits::GATEWAY_RENEWAL, &mut [&mut a, &mut b]);
    assert_eq!(cluster.keys(), before);
    let after: u64 = redis::cmd("GET").arg("gateway:a").query(&mut cluster.control).unwrap();
    assert!(after > life);
    assert_eq!((a.lease.lapses(cluster.now()), a.replies.len(), b.replies.len()), (0, 0, 0));
    assert_eq!(resumed(&cluster.ask(&mut b, resume(4, 2)), 4).last_close, Some(CloseReason::IdleTimeout));
    nothing_is_left(cluster, vec![a, b]);
}

/// Somebody asks just after a flush, before anybody has noticed: the call finds out, and is carried out behind the mending.
#[test]
fn a_question_behind_a_flush_is_answered() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, detach(1, 1, CloseReason::Normal));
    for request in [open(2, 2, "bob"), resume(1, 1)] {
        let () = redis::cmd("FLUSHALL").query(&mut cluster.control).unwrap();
        let replies = cluster.ask(&mut a, request);
        assert!(matches!(replies[..], [PresenceReply::Opened { .. } | PresenceReply::Resumed { .. }]), "{replies:?}");
    }
    assert_eq!(cluster.members("presence:online"), ["ann", "bob"]);
    nothing_is_left(cluster, vec![a]);
}

/// While Redis is away whoever asks is told so at once; what is said meanwhile is there when it is back, though it has
/// forgotten all, and what the outage outlived is not.
#[test]
fn an_outage_is_told_and_mended() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    for n in 1..=4u8 {
        cluster.ask(&mut a, open(u32::from(n), n, &format!("u{n}")));
        cluster.ask(&mut a, enter(n, "arena", false));
    }
    cluster.server.stop();
    let now = cluster.now();
    // The first to ask may be the one that finds out.
    a.say(now, open(8, 8, "x"));
    a.until(now, "an answer", |a| !a.replies.is_empty());
    a.until(now, "it is known", |a| !a.presence.is_ready());
    let hub = ringgate::message::CreateHub {
        from: conn(9),
        room: "r".into(),
        player: "p".into(),
        name: "P".into(),
        max_players: 2,
        codes: std::array::from_fn(|n| ringgate::id::RoomCode::of(n as u64)),
    };
    let members = PresenceRequest::Members { from: conn(9), room: "arena".into(), after: 1 << 31 };
    for request in [resume(9, 1), members, PresenceRequest::CreateHub(Box::new(hub))] {
        a.say(now, request);
    }
    let told = std::mem::take(&mut a.replies);
    assert_eq!(told.len(), 4, "{told:?}");
    let unavailable = |reply: &PresenceReply| match reply {
        PresenceReply::Unavailable { .. } => true,
        PresenceReply::Enrolled { outcome, .. } => outcome == &Err(ringgate::message::ErrorCode::Unavailable),
        _ => false,
    };
    assert!(told.iter().all(unavailable), "{told:?}");
    a.say(now, leave(1, "arena"));
    a.say(now, detach(2, 2, CloseReason::ConnectionLost));
    a.say(now, PresenceRequest::Kick { user: "u3".into(), event: None });
    a.say(now, enter(4, "den", true));
    cluster.server.restart();
    cluster.control = cluster.server.connect();
    a.settle(now);
    assert_eq!(cluster.members("presence:online"), ["u1", "u4"]);
    assert_eq!(cluster.members("room:arena:users"), ["u4"]);
    assert_eq!(cluster.members("room:den:users"), ["u4"]);
    assert_eq!(cluster.keys().iter().filter(|key| key.starts_with("session:")).count(), 6);
    resumed(&cluster.ask(&mut a, resume(5, 2)), 5);
    nothing_is_left(cluster, vec![a]);
}

/// A Redis that hangs is away when it has not answered in time; what was on its way and is carried out all the same when
/// it wakes leaves nothing behind that nobody knows of.
#[test]
fn a_hanging_redis_is_away() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, open(2, 2, "bob"));
    cluster.ask(&mut a, detach(2, 2, CloseReason::Normal));
    cluster.server.freeze(true);
    let (now, began) = (cluster.now(), Instant::now());
    a.say(now, open(3, 3, "cid"));
    a.say(now, resume(4, 2));
    a.until(now, "both are told", |a| a.replies.len() == 2);
    assert!(began.elapsed() < limits::REDIS_TIMEOUT + Duration::from_secs(3));
    assert!(a.replies.iter().all(|reply| matches!(reply, PresenceReply::Unavailable { .. })));
    a.replies.clear();
    cluster.server.freeze(false);
    a.settle(now);
    assert_eq!(cluster.members("presence:online"), ["ann"]);
    assert_eq!(cluster.members("gateway:a:sockets"), [a.name(1)]);
    assert_eq!(resumed(&cluster.ask(&mut a, resume(5, 2)), 5).user.as_ref(), "bob");
    nothing_is_left(cluster, vec![a]);
}

/// Redis away for longer than the lease: the gateway knows by its own clock that its sessions are not its own any more.
#[test]
fn an_outage_longer_than_the_lease_ends_it() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.server.stop();
    let later = cluster.now() + limits::GATEWAY_LEASE;
    a.until(later, "it is known", |a| !a.presence.is_ready());
    assert_eq!((a.lease.lapses(cluster.now()), a.lease.lapses(later)), (0, 1));
    a.say(later, detach(1, 1, CloseReason::TryAgainLater));
    cluster.server.restart();
    cluster.control = cluster.server.connect();
    cluster.skip(limits::GATEWAY_LEASE);
    a.settle(later);
    assert_eq!(a.lease.lapses(later), 1, "the next one does not undo that");
    assert_eq!(resumed(&cluster.ask(&mut a, resume(2, 1)), 2).last_close, Some(CloseReason::TryAgainLater));
    nothing_is_left(cluster, vec![a]);
}

/// Nobody is there, the password is wrong or missing, TLS is expected or not spoken, the authority is another one: each is
/// said with the key that mends it.
#[test]
fn faults_are_named() {
    let server = Server::with(&["--password", "right"]);
    let settings = |change: &dyn Fn(&mut RedisSettings)| {
        let mut settings = server.settings().clone();
        change(&mut settings);
        settings
    };
    assert!(server.settings().check().unwrap().starts_with("7."));
    for wrong in [Some("wrong".to_owned()), None] {
        let error = settings(&|settings| settings.password.clone_from(&wrong)).check().unwrap_err();
        assert!(error.refused && error.text.contains("redis.password"), "{error}");
        assert!(!error.text.contains("wrong\""), "{error}");
    }
    let error = settings(&|settings| settings.username = Some("nobody".into())).check().unwrap_err();
    assert!(error.refused && error.text.contains("redis.username"), "{error}");
    let error = settings(&|settings| settings.tls = true).check().unwrap_err();
    assert!(error.text.contains("by TLS"), "{error}");
    let error = settings(&|settings| settings.port = 1).check().unwrap_err();
    assert!(!error.refused && error.text.contains("REDIS_HOST"), "{error}");

    let secret = Server::with(&["--tls"]);
    assert!(secret.settings().check().unwrap().starts_with("7."));
    let error = RedisSettings { ca_path: None, ..secret.settings().clone() }.check().unwrap_err();
    assert!(error.text.contains("redis.ca_path"), "{error}");
    let error = RedisSettings { tls: false, ..secret.settings().clone() }.check().unwrap_err();
    assert!(error.text.contains("redis.tls"), "{error}");

    let cluster = Server::with(&["--cluster-enabled", "yes"]);
    let error = cluster.settings().check().unwrap_err();
    assert!(error.refused && error.text.contains("Redis Cluster"), "{error}");
    let replica = Server::with(&["--replicaof", "127.0.0.1 1"]);
    let error = replica.settings().check().unwrap_err();
    assert!(error.refused && error.text.contains("replica"), "{error}");
}

/// By TLS and with a password presence is what it is without.
#[test]
fn a_session_by_tls() {
    let server = Server::with(&["--tls", "--password", "right"]);
    let mut gateway = crate::cluster::gateway_on(&server, "a", 1, 1000);
    let now = crate::time::Monotonic::ZERO;
    gateway.settle(now);
    assert!(matches!(gateway.ask(now, open(1, 1, "ann"))[..], [PresenceReply::Opened { .. }]));
    gateway.ask(now, detach(1, 1, CloseReason::Normal));
    resumed(&gateway.ask(now, resume(2, 1)), 2);
}
