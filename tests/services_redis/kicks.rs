//! Kicks: of an event all gateways hear, each in its own time, and a process that starts anew once more.

use crate::close::CloseReason;
use crate::cluster::{Cluster, Gateway, conn, detach, open, resume, resumed, session};
use crate::keys::nothing_is_left;
use crate::message::{Kick, PresenceReply, PresenceRequest};
use crate::ports::Presence as _;

fn kick(user: &str, place: u64) -> PresenceRequest {
    PresenceRequest::Kick { user: user.into(), event: Some(("system.events".into(), place)) }
}

fn is_expired(cluster: &mut Cluster, gateway: &mut Gateway, from: u32, n: u8) -> bool {
    let replies = cluster.ask(gateway, resume(from, n));
    matches!(replies[..], [PresenceReply::Expired { to }] if to == conn(from))
}

/// A kick ends what was opened before it on any gateway, and nothing that was opened behind it, however late and however
/// often a gateway hears of it.
#[test]
fn a_kick_is_carried_out_once() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut b, open(2, 2, "ann"));
    cluster.ask(&mut b, detach(2, 2, CloseReason::GoingAway));
    cluster.ask(&mut a, kick("ann", 7));
    assert!(is_expired(&mut cluster, &mut a, 9, 1));
    cluster.ask(&mut b, open(3, 3, "ann"));
    for _ in 0..2 {
        cluster.ask(&mut b, kick("ann", 7));
        cluster.ask(&mut a, kick("ann", 7));
        cluster.ask(&mut a, kick("ann", 6));
    }
    assert!(is_expired(&mut cluster, &mut b, 9, 2));
    assert_eq!(cluster.members("user:ann:sockets"), [b.name(3)]);
    cluster.ask(&mut b, detach(3, 3, CloseReason::GoingAway));
    resumed(&cluster.ask(&mut a, resume(4, 3)), 4);
    cluster.ask(&mut a, kick("ann", 7));
    assert_eq!(cluster.members("user:ann:sockets"), [a.name(4)], "it is known of a session that moved too");
    cluster.ask(&mut a, kick("ann", 8));
    assert!(is_expired(&mut cluster, &mut b, 9, 3));
    nothing_is_left(cluster, vec![a, b]);
}

/// A kick ends the sessions of a gateway that is gone, whether they are asked for or taken over.
#[test]
fn a_kick_ends_what_nobody_remembers() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    for n in 1..=3u8 {
        cluster.ask(&mut a, open(u32::from(n), n, if n == 3 { "bob" } else { "ann" }));
    }
    cluster.ask(&mut a, detach(2, 2, CloseReason::GoingAway));
    drop(a);
    cluster.ask(&mut b, kick("ann", 7));
    assert!(is_expired(&mut cluster, &mut b, 9, 1));
    for _ in 0..20 {
        cluster.pass(std::time::Duration::from_secs(4), &mut [&mut b]);
    }
    assert_eq!(b.presence.sessions(), 1, "bob's was taken over, no other");
    assert!(is_expired(&mut cluster, &mut b, 9, 2));
    resumed(&cluster.ask(&mut b, resume(4, 3)), 4);
    nothing_is_left(cluster, vec![b]);
}

/// A process that starts anew carries out the kicks of late that its former life did not live to, and no other.
#[test]
fn a_restart_carries_out_what_was_not() {
    let mut cluster = Cluster::start();
    let mut a = cluster.gateway("a");
    cluster.ask(&mut a, open(1, 1, "ann"));
    for (n, was_carried_out) in [(1, false), (2, true)] {
        drop(a);
        a = cluster.unready_gateway("a", 1000);
        let kicks = vec![Kick { user: "ann".into(), topic: "system.events".into(), place: 7 }];
        a.presence.carry_out(cluster.now(), kicks);
        a.settle(cluster.now());
        assert_eq!(a.presence.sessions(), usize::from(was_carried_out));
        assert_eq!(is_expired(&mut cluster, &mut a, 9, n), !was_carried_out);
        cluster.ask(&mut a, open(u32::from(n) + 1, n + 1, "ann"));
    }
    nothing_is_left(cluster, vec![a]);
}

/// A kick ends a session that is on its way here, too.
#[test]
fn a_kick_ends_what_is_being_given() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut a, detach(1, 1, CloseReason::GoingAway));
    let now = cluster.now();
    b.say(now, resume(2, 1));
    let replies = cluster.ask(&mut b, kick("ann", 7));
    assert!(matches!(replies[..], [PresenceReply::Expired { to }] if to == conn(2)), "{replies:?}");
    assert_eq!(cluster.field(&format!("session:{}", session(1)), "user_id"), None);
    assert_eq!(b.presence.sessions(), 0);
    nothing_is_left(cluster, vec![a, b]);
}
