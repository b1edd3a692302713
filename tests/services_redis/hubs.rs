//! Room hubs in Redis: codes and places that all gateways know.

use std::sync::Arc;

use crate::close::CloseReason;
use crate::cluster::{Cluster, Gateway, conn, detach, enter, session};
use crate::id::{RoomCode, TokenHash};
use crate::keys::nothing_is_left;
use crate::message::{
    CreateHub, ErrorCode, Hub, HubChange, HubMessage, HubState, JoinHub, PresenceReply, PresenceRequest, SessionRecord,
};
use crate::ports::Presence as _;
use crate::suite::WINDOW;

type Place = Result<(Arc<str>, RoomCode), ErrorCode>;

fn create(cluster: &mut Cluster, gateway: &mut Gateway, n: u64, max_players: u32) -> Place {
    let codes = std::array::from_fn(|k| RoomCode::of(n + k as u64));
    let (room, player) = (format!("r{n}").into(), format!("p{n}").into());
    let hub = CreateHub { from: conn(1), room, player, name: "Ann the 1st".into(), max_players, codes };
    place(cluster.ask(gateway, PresenceRequest::CreateHub(Box::new(hub))))
}

fn join(cluster: &mut Cluster, gateway: &mut Gateway, code: RoomCode, player: &str) -> Place {
    let join = JoinHub { from: conn(1), code, player: player.into(), name: format!("name of {player}").into() };
    place(cluster.ask(gateway, PresenceRequest::JoinHub(Box::new(join))))
}

fn place(mut replies: Vec<PresenceReply>) -> Place {
    match replies.pop() {
        Some(PresenceReply::Enrolled { outcome, .. }) if replies.is_empty() => outcome,
        other => panic!("{other:?} behind {replies:?}"),
    }
}

fn find(cluster: &mut Cluster, gateway: &mut Gateway, code: RoomCode) -> Option<Hub> {
    match cluster.ask(gateway, PresenceRequest::FindHub { from: conn(1), code }).pop() {
        Some(PresenceReply::Hub { hub, .. }) => hub.map(|hub| *hub),
        other => panic!("{other:?}"),
    }
}

fn state(cluster: &mut Cluster, gateway: &mut Gateway, room: &str) -> HubState {
    match cluster.ask(gateway, PresenceRequest::HubState { from: conn(1), room: room.into() }).pop() {
        Some(PresenceReply::HubState { state, .. }) => *state,
        other => panic!("{other:?}"),
    }
}

fn attach(from: u32, n: u8, room: &str, player: &str) -> PresenceRequest {
    let record = SessionRecord {
        session: session(n),
        user: player.into(),
        username: player.into(),
        roles: [].into(),
        expires_at: u64::MAX,
        scopes: Vec::new(),
        acted: Vec::new(),
        last_close: None,
    };
    let token = TokenHash(*b"of the player  \0");
    PresenceRequest::Attach { from: conn(from), room: room.into(), record: Box::new(record), token }
}

/// A hub made by one gateway is joined, found and entered by another; who is in it and connected is the same on both, and
/// the rooms service is told by the one that was asked, before the caller is.
#[test]
fn a_hub_is_everybodys() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    a.announces = false;
    let codes = std::array::from_fn(|k| RoomCode::of(k as u64));
    let hub =
        CreateHub { from: conn(1), room: "r1".into(), player: "p1".into(), name: "Ann".into(), max_players: 2, codes };
    assert!(cluster.ask(&mut a, PresenceRequest::CreateHub(Box::new(hub))).is_empty(), "the bus does not have it");
    assert!(matches!(&a.hub_changes[..], [HubChange::Opened { max_players: 2, .. }, HubChange::Enrolled { .. }]));
    a.announces = true;
    a.turn(cluster.now());
    let (room, code) = place(std::mem::take(&mut a.replies)).unwrap();
    assert_eq!((&*room, code), ("r1", codes[0]));
    assert_eq!(join(&mut cluster, &mut b, code, "bob").unwrap().0, room);
    assert_eq!(join(&mut cluster, &mut b, code, "eve"), Err(ErrorCode::RoomFull));
    assert_eq!(join(&mut cluster, &mut b, RoomCode::of(77), "eve"), Err(ErrorCode::RoomNotFound));
    let players = vec![("p1".into(), "Ann".into()), ("bob".into(), "name of bob".into())];
    let expected = Hub { room: room.clone(), code, max_players: 2, players };
    assert_eq!(find(&mut cluster, &mut a, code), Some(expected));

    assert!(matches!(cluster.ask(&mut a, attach(1, 1, "r1", "nobody"))[..], [PresenceReply::Expired { .. }]));
    assert!(matches!(cluster.ask(&mut a, attach(1, 1, "r1", "bob"))[..], [PresenceReply::Opened { .. }]));
    cluster.ask(&mut a, enter(1, "r1", true));
    let connected: Vec<_> =
        state(&mut cluster, &mut b, "r1").members.into_iter().map(|m| (m.player, m.connected)).collect();
    assert_eq!(connected, [("p1".into(), false), ("bob".into(), true)]);
    cluster.ask(&mut a, detach(1, 1, CloseReason::GoingAway));
    let replies = cluster.ask(&mut b, attach(2, 2, "r1", "bob"));
    assert!(
        matches!(&replies[..], [PresenceReply::Resumed { record, .. }] if record.session == session(1)),
        "{replies:?}"
    );
    assert_eq!(cluster.members("room:r1:users"), ["bob"]);
    nothing_is_left(cluster, vec![a, b]);
}

/// Who is kicked, with a session or without, has no place any more on any gateway: its token opens nothing. The place is free
/// for one who joins, and the rooms service is told whose it was.
#[test]
fn a_kicked_player_has_no_place() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (room, code) = create(&mut cluster, &mut a, 1, 2).unwrap();
    join(&mut cluster, &mut b, code, "bob").unwrap();
    cluster.ask(&mut a, attach(1, 1, &room, "bob"));
    cluster.ask(&mut a, enter(1, &room, true));
    cluster.pass(WINDOW * 2, &mut [&mut a, &mut b]);
    for (kicked, next) in [("bob", "eve"), ("p1", "cid")] {
        assert_eq!(join(&mut cluster, &mut b, code, next), Err(ErrorCode::RoomFull));
        let kick = || PresenceRequest::Kick { user: kicked.into(), event: None };
        cluster.ask(&mut b, kick());
        cluster.ask(&mut a, kick());
        for gateway in [&mut a, &mut b] {
            let replies = cluster.ask(gateway, attach(2, 2, &room, kicked));
            assert!(matches!(replies[..], [PresenceReply::Expired { .. }]), "{kicked}: {replies:?}");
        }
        a.hub_changes.clear();
        join(&mut cluster, &mut a, code, next).unwrap();
        let [HubChange::Enrolled { in_place_of, .. }] = &a.hub_changes[..] else { panic!("{:?}", a.hub_changes) };
        assert_eq!(in_place_of.as_deref(), Some(kicked));
    }
    let players = find(&mut cluster, &mut b, code).unwrap().players;
    assert_eq!(players.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["eve", "cid"]);
    assert_eq!(join(&mut cluster, &mut b, code, "dan"), Err(ErrorCode::RoomFull));
    nothing_is_left(cluster, vec![a, b]);
}

/// Codes that are taken are passed over; when all are, nothing is made.
#[test]
fn codes_name_one_hub() {
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("a");
    let mut codes: Vec<_> = (0..4)
        .map(|n| {
            let (room, codes) = (format!("x{n}").into(), std::array::from_fn(|k| RoomCode::of(k as u64)));
            let hub = CreateHub { from: conn(1), room, player: "p".into(), name: "P".into(), max_players: 2, codes };
            place(cluster.ask(&mut gateway, PresenceRequest::CreateHub(Box::new(hub)))).unwrap().1
        })
        .collect();
    codes.dedup();
    assert_eq!(codes.len(), 4);
    assert_eq!(create(&mut cluster, &mut gateway, 0, 2), Err(ErrorCode::Unavailable));
    nothing_is_left(cluster, vec![gateway]);
}

/// A hub lives while a player of it is connected, longer than any window, and behind that for more than the player's
/// session and less than two windows; one that nobody enters ends within one.
#[test]
fn unused_hubs_end() {
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("a");
    let (room, code) = create(&mut cluster, &mut gateway, 1, 4).unwrap();
    let (_, unused) = create(&mut cluster, &mut gateway, 20, 4).unwrap();
    cluster.ask(&mut gateway, attach(1, 1, &room, "p1"));
    cluster.ask(&mut gateway, enter(1, &room, true));
    cluster.pass(WINDOW * 2, &mut [&mut gateway]);
    assert_eq!(find(&mut cluster, &mut gateway, unused), None);
    assert!(find(&mut cluster, &mut gateway, code).is_some());
    cluster.ask(&mut gateway, detach(1, 1, CloseReason::ConnectionLost));
    cluster.pass(WINDOW, &mut [&mut gateway]);
    assert!(find(&mut cluster, &mut gateway, code).is_some());
    cluster.pass(WINDOW, &mut [&mut gateway]);
    assert_eq!(find(&mut cluster, &mut gateway, code), None);
    nothing_is_left(cluster, vec![gateway]);
}

/// What is said in a hub is kept in order, once, the newest of it.
#[test]
fn messages_are_kept() {
    let mut cluster = Cluster::start();
    let mut gateway = cluster.gateway("a");
    create(&mut cluster, &mut gateway, 1, 4).unwrap();
    for place in (1..=60).chain([3, 60]) {
        gateway.presence.said("r1", HubMessage { place, payload: format!("{{\"n\":{place}}}").into() });
    }
    let places: Vec<_> = state(&mut cluster, &mut gateway, "r1").messages.iter().map(|message| message.place).collect();
    assert_eq!(places, (11..=60).collect::<Vec<_>>());
    nothing_is_left(cluster, vec![gateway]);
}
