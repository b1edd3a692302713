//! What one gateway asks of all of them: who is in a room, and that connections close.

use std::time::Duration;

use crate::close::CloseReason;
use crate::cluster::{Cluster, Gateway, conn, detach, enter, leave, open, resume, resumed};
use crate::id::ConnectionId;
use crate::keys::nothing_is_left;
use crate::limits;
use crate::message::{Disconnect, Elsewhere, PresenceReply, PresenceRequest, RoomMember};
use crate::suite::WINDOW;

/// All members that a gateway finds, by session, and in how many looks.
fn look(cluster: &mut Cluster, gateway: &mut Gateway, room: &str) -> (Vec<RoomMember>, usize) {
    let (mut found, mut after, mut looks) = (Vec::new(), Some(0), 0);
    while let Some(at) = after {
        let ask = PresenceRequest::Members { from: conn(9), room: room.into(), after: at };
        let replies = cluster.ask(gateway, ask);
        let [PresenceReply::Members { members, next, .. }] = &replies[..] else { panic!("{replies:?}") };
        found.extend(members.clone());
        (after, looks) = (*next, looks + 1);
    }
    found.sort_by_key(|member| member.session);
    (found, looks)
}

fn users(members: &[RoomMember]) -> Vec<&str> {
    members.iter().map(|member| &*member.user).collect()
}

fn disconnect(cluster: &mut Cluster, gateway: &mut Gateway, whom: Elsewhere) -> usize {
    let disconnect = Disconnect { from: conn(9), whom, code: 4000, reason: "bye  now".into() };
    let replies = cluster.ask(gateway, PresenceRequest::Disconnect(Box::new(disconnect)));
    let [PresenceReply::Disconnected { to, connections }] = replies[..] else { panic!("{replies:?}") };
    assert_eq!(to, conn(9));
    connections
}

/// Members of a room are found on all gateways, each with the name of its connection; those that may resume have none,
/// whichever gateway had them, and are no members any more when they have left, come back or ended.
#[test]
fn members_are_found_on_all_gateways() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    for n in 1..=5u8 {
        let gateway = if n == 1 { &mut a } else { &mut b };
        cluster.ask(gateway, open(u32::from(n), n, &format!("u{n}")));
        cluster.ask(gateway, enter(n, "arena", false));
    }
    cluster.ask(&mut b, leave(5, "arena"));
    for n in 3..=5u8 {
        cluster.ask(&mut b, detach(u32::from(n), n, CloseReason::GoingAway));
    }
    let (found, looks) = look(&mut cluster, &mut a, "arena");
    let [here, there, third, fourth] = &found[..] else { panic!("{found:?}") };
    assert_eq!((here.connection, here.elsewhere), (Some(conn(1)), None));
    assert_eq!(there.connection, None);
    assert_eq!(there.elsewhere.map(|name| name.to_string()), Some(b.name(2)));
    for member in [third, fourth] {
        assert_eq!((member.connection, member.elsewhere), (None, None), "{member:?}");
    }
    assert_eq!((users(&found), looks), (vec!["u1", "u2", "u3", "u4"], 1));

    resumed(&cluster.ask(&mut a, resume(6, 3)), 6);
    cluster.ask(&mut b, PresenceRequest::Kick { user: "u4".into(), event: None });
    let (found, _) = look(&mut cluster, &mut b, "arena");
    assert_eq!(users(&found), ["u1", "u2", "u3"]);
    assert_eq!(found[2].elsewhere.map(|name| name.to_string()), Some(a.name(6)));
    assert_eq!(cluster.members("room:arena:detached"), [] as [String; 0]);

    cluster.ask(&mut a, detach(6, 3, CloseReason::GoingAway));
    cluster.pass(WINDOW / 2, &mut [&mut a, &mut b]);
    assert_eq!(users(&look(&mut cluster, &mut b, "arena").0), ["u1", "u2", "u3"]);
    cluster.pass(WINDOW / 2, &mut [&mut a, &mut b]);
    assert_eq!(users(&look(&mut cluster, &mut b, "arena").0), ["u1", "u2"]);
    nothing_is_left(cluster, vec![a, b]);
}

/// Who had a connection of a gateway that crashed is a member until the session ends; of many, each is found once.
#[test]
fn members_of_a_crashed_gateway_are_found() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    for n in 0..200u8 {
        cluster.ask(&mut a, open(u32::from(n), n, &format!("u{n:03}")));
        cluster.ask(&mut a, enter(n, "arena", false));
    }
    drop(a);
    cluster.pass(limits::GATEWAY_LEASE + Duration::from_secs(30), &mut [&mut b]);
    assert_eq!(cluster.members("room:arena:sockets"), [] as [String; 0]);
    let (found, looks) = look(&mut cluster, &mut b, "arena");
    assert!(looks >= 1 && found.iter().all(|member| member.connection.is_none() && member.elsewhere.is_none()));
    assert_eq!(users(&found), (0..200).map(|n| format!("u{n:03}")).collect::<Vec<_>>());
    cluster.pass(WINDOW, &mut [&mut b]);
    assert_eq!(look(&mut cluster, &mut b, "arena").0, []);
    nothing_is_left(cluster, vec![b]);
}

/// Other gateways are told to close a user's connections, or one, with code and reason; who asks closes its own itself, and
/// nobody is told of connections of a gateway that is gone.
#[test]
fn connections_of_other_gateways_are_closed() {
    let mut cluster = Cluster::start();
    let (mut a, mut b, mut c) = (cluster.gateway("a"), cluster.gateway("b"), cluster.gateway("c"));
    cluster.ask(&mut a, open(1, 1, "ann"));
    cluster.ask(&mut b, open(2, 2, "ann"));
    cluster.ask(&mut b, open(3, 3, "bob"));
    cluster.ask(&mut c, open(4, 4, "ann"));
    drop(c);
    let now = cluster.now();
    let told = |b: &mut Gateway| {
        b.until(now, "b is told", |b| !b.replies.is_empty());
        let replies = std::mem::take(&mut b.replies);
        let [PresenceReply::Close { to, code, reason }] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!((*code, &**reason), (4000, "bye  now"));
        *to
    };
    assert_eq!(disconnect(&mut cluster, &mut a, Elsewhere::User("ann".into())), 2, "c has its lease still");
    assert_eq!(told(&mut b), conn(2));
    let id = ConnectionId::parse(&b.name(3)).unwrap();
    assert_eq!(disconnect(&mut cluster, &mut a, Elsewhere::Connection(id)), 1);
    assert_eq!(told(&mut b), conn(3));
    assert_eq!(disconnect(&mut cluster, &mut b, Elsewhere::Connection(id)), 0, "it is b's own");
    let unknown = ConnectionId::of(77, conn(1));
    assert_eq!(disconnect(&mut cluster, &mut a, Elsewhere::Connection(unknown)), 0);
    assert_eq!(disconnect(&mut cluster, &mut a, Elsewhere::User("cid".into())), 0);
    cluster.pass(limits::GATEWAY_LEASE, &mut [&mut a, &mut b]);
    assert_eq!(disconnect(&mut cluster, &mut a, Elsewhere::User("ann".into())), 1, "c's lease is gone");
    assert_eq!(told(&mut b), conn(2));
    cluster.pass(Duration::from_secs(30), &mut [&mut a, &mut b]);
    nothing_is_left(cluster, vec![a, b]);
}
