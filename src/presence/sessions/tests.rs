//! Lists, indexes and members of many sessions; and what is forgotten.

use super::*;
use crate::id::{ConnKey, NodeId};

fn owner(slot: u32) -> ConnAddr {
    ConnAddr { shard: NodeId(0), conn: ConnKey { slot, generation: 1 } }
}

fn record(n: u8, user: &str) -> SessionRecord {
    SessionRecord {
        session: SessionId([n; 16]),
        user: user.into(),
        username: user.into(),
        roles: ["user".into()].into(),
        expires_at: u64::MAX,
        scopes: vec![entry("arena")],
        acted: Vec::new(),
        last_close: None,
    }
}

fn entry(room: &str) -> ScopeEntry {
    let stream = format!("relay/room:{room}").into();
    ScopeEntry {
        scope: Scope::Room(room.into()),
        entered: vec![Position { stream, epoch: 1, place: 2 }],
        admitted: false,
    }
}

/// Names and role sets are kept once for all records, and go with the last that has them.
#[test]
fn shared_names_live_as_long_as_a_record_has_them() {
    let mut sessions = Sessions::new(1);
    let slots: Vec<_> = (0..10).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0), 1)).collect();
    assert_eq!((sessions.names.0.len(), sessions.role_sets.0.len()), (2, 1));
    let held = sessions.record(slots[0]);
    assert!(Arc::ptr_eq(&held.user, &sessions.record(slots[9]).user), "one user id for all");
    assert!(Arc::ptr_eq(&sessions.roles(slots[0]), &sessions.record(slots[9]).roles), "one role set for all");
    sessions.enter(slots[3], entry("other"));
    assert_eq!(sessions.names.0.len(), 4);
    for slot in slots {
        sessions.remove(slot);
    }
    assert_eq!((sessions.names.0.len(), sessions.role_sets.0.len(), sessions.len()), (0, 0, 0));
}

/// Looks of any length find each member of a room once, and who has a connection.
#[test]
fn looks_find_every_member_once() {
    let mut sessions = Sessions::new(1);
    let slots: Vec<_> = (0..200).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0), 1)).collect();
    for slot in &slots[..100] {
        sessions.leave(*slot, &Scope::Room("arena".into()));
    }
    sessions.remove(slots[150]);
    sessions.detach(slots[151], Monotonic::ZERO);
    for look in [1, 7, 200, 1000] {
        let (mut found, mut after) = (Vec::new(), Some(0));
        while let Some(from) = after {
            let (members, next) = sessions.members("arena", from, look);
            found.extend(members);
            after = next;
        }
        let expected: Vec<u8> = (100..200).filter(|n| *n != 150).collect();
        assert_eq!(found.iter().map(|member| member.session.0[0]).collect::<Vec<_>>(), expected, "look {look}");
        assert!(found.iter().all(|member| member.connection.is_none() == (member.session.0[0] == 151)));
    }
    assert_eq!(sessions.members("arena", u32::MAX, 10), (Vec::new(), None));
    assert_eq!(Sessions::new(1).members("arena", 0, 10), (Vec::new(), None));
}

/// Of effects only those of streams of the session's scopes are remembered, however many rooms it passes through.
#[test]
fn what_acted_in_rooms_that_were_left_is_forgotten() {
    let mut sessions = Sessions::new(1);
    let slot = sessions.insert(record(1, "u"), TokenHash([1; 16]), owner(0), 0);
    let acted = |stream: String| Position { stream: stream.into(), epoch: 1, place: 7 };
    sessions.acted(slot, acted("games.events.0/session:x".into()));
    sessions.acted(slot, acted("games.events.0/room:arena".into()));
    for n in 0..100 {
        let room = format!("room{n}");
        sessions.enter(slot, entry(&room));
        sessions.acted(slot, acted(format!("games.events.0/room:{room}")));
        sessions.leave(slot, &Scope::Room(room.as_str().into()));
        sessions.acted(slot, acted(format!("chat.events.0/room:{room}")));
    }
    let kept: Vec<_> = sessions.record(slot).acted.into_iter().map(|known| known.stream.to_string()).collect();
    assert_eq!(kept, ["games.events.0/session:x", "games.events.0/room:arena"]);
}

/// All of a user's records are found one after the other, whichever was taken out before.
#[test]
fn a_users_records_are_chained() {
    let mut sessions = Sessions::new(1);
    let slots: Vec<_> = (0..6).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0), 1)).collect();
    sessions.insert(record(9, "other"), TokenHash([9; 16]), owner(0), 1);
    for at in [0, 5, 2] {
        sessions.remove(slots[at]);
    }
    let mut left = Vec::new();
    while let Some(slot) = sessions.by_user("u") {
        left.push(sessions.session(slot).0[0]);
        sessions.remove(slot);
    }
    left.sort_unstable();
    assert_eq!(left, [1, 3, 4]);
    assert_eq!(sessions.len(), 1);
}

/// The detached list keeps its order when records leave it from the front, the middle and the end.
#[test]
fn detached_records_leave_the_list_anywhere() {
    let mut sessions = Sessions::new(1);
    let slots: Vec<_> = (0..5).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0), 1)).collect();
    for (n, slot) in slots.iter().enumerate() {
        sessions.detach(*slot, Monotonic::from_nanos(n as u64));
    }
    for at in [2, 0, 4] {
        sessions.attach(slots[at], owner(7), 2);
    }
    let mut order = Vec::new();
    while let Some((slot, until)) = sessions.oldest_detached() {
        order.push(until.as_nanos());
        sessions.remove(slot);
    }
    assert_eq!((order, sessions.detached(), sessions.len()), (vec![1, 3], 0, 3));
}

/// What others are to be told of a session stays owed when it leaves a room, for that is one of the things.
#[test]
fn leaving_forgets_nothing_that_is_owed() {
    let mut sessions = Sessions::new(1);
    let slot = sessions.insert(record(1, "u"), TokenHash([1; 16]), owner(0), 1);
    let (life, at) = (GatewayLife { nonce: 1, incarnation: 1 }, Monotonic::ZERO);
    let kind = PresenceKind::Left("arena".into());
    sessions.owe(slot, Owed { life, connection: owner(0), number: 1, kind, at });
    sessions.leave(slot, &Scope::Room("arena".into()));
    assert!(sessions.owes(slot));
    assert!(sessions.all_told() && !sessions.owes(slot));
    assert!(sessions.extras.is_empty());
}
