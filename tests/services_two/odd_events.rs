//! What backends must not do, and may: events said twice, events that nobody can use, a room's events in all partitions,
//! partitions added meanwhile.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::backend::{Backend, values};
use crate::cluster::{Cluster, PARTITIONS};
use crate::json::Json;
use crate::node::{Gateway, until};

/// Ticks by partition, as a client got them.
type Ticks = BTreeSet<u64>;

/// Reads on until tick `last` of the room is there and nothing is missing; each may come once.
fn read_to(client: &mut Json, got: &mut Ticks, last: u64) {
    while got.len() < last as usize {
        let message = client.read();
        if message["type"] == "games.event.tick" {
            let n = message["n"].as_u64().unwrap();
            assert!(got.insert(n), "{n} came twice");
        }
    }
    assert_eq!((got.first(), got.last()), (Some(&1), Some(&last)));
}

/// The envelope of a tick under an id.
fn tick(id: &str, n: u64) -> Vec<u8> {
    let event = json!({"event_id": id, "event_type": "games.event.tick", "target": {"room_id": "arena"},
        "payload": {"room_id": "arena", "n": n}});
    event.to_string().into_bytes()
}

/// Says ticks `from..=to` of the room, each in the partition after that of the one before; every third twice, and a
/// record that is no event behind every fifth. How many of those.
fn scatter(backend: &mut Backend, from: u64, to: u64, partitions: i32) -> usize {
    let mut poison = 0;
    for n in from..=to {
        let (id, partition) = (backend.next_id(), Some((n % partitions as u64) as i32));
        for _ in 0..=u64::from(n.is_multiple_of(3)) {
            backend.put("games.events", partition, "arena", &tick(&id, n));
        }
        if n.is_multiple_of(5) {
            poison += 1;
            backend.put("games.events", partition, "arena", format!("no event {n}").as_bytes());
        }
    }
    backend.flush();
    poison
}

/// A member of the arena.
fn member(gateway: &Gateway, backend: &mut Backend, user: &str) -> Json {
    let mut client = Json::player(gateway, user);
    backend.admit(client.session["session_id"].as_str().unwrap(), "arena");
    client.expect("games.event.lobby_joined");
    client
}

/// A backend that scatters a room over all partitions, says events twice and things that are no events: members on both
/// gateways get every event once, as many streams as there are partitions, also of those that are added meanwhile; they
/// resume on the other gateway, and on one that was started since, with nothing lost or doubled; what is no event is kept
/// in `ringgate.dead`.
#[test]
fn a_room_is_scattered() {
    let mut cluster = Cluster::start();
    let mut gateways = vec![cluster.gateway("gw:0"), cluster.gateway("gw:1")];
    let mut backend = cluster.backend("game");
    let mut members: Vec<(Json, Ticks)> = gateways
        .iter()
        .zip(["ann", "bob"])
        .map(|(gateway, user)| (member(gateway, &mut backend, user), Ticks::new()))
        .collect();
    let mut poison = scatter(&mut backend, 1, 300, PARTITIONS);
    members.iter_mut().for_each(|(client, got)| read_to(client, got, 300));

    poison += scatter(&mut backend, 301, 400, PARTITIONS);
    cluster.broker.add_partitions("games.events", 5);
    until("the backend meets them", || backend.partitions("games.events") == 5);
    poison += scatter(&mut backend, 401, 700, 5);
    members.iter_mut().for_each(|(client, got)| read_to(client, got, 700));

    // Unread by them, and then they change places; one of the gateways is new.
    poison += scatter(&mut backend, 701, 800, 5);
    gateways.push(cluster.gateway("gw:2"));
    for (at, (client, got)) in [2, 0].into_iter().zip(&mut members) {
        let mut next = Json::resumed(&gateways[at], &client.resume(), &client.positions());
        assert_eq!(next.session["recovered"], true, "{}", next.session);
        read_to(&mut next, got, 800);
        *client = next;
    }
    // An event that is said again long after, by a backend that was started again.
    backend.put("games.events", Some(0), "arena", &tick(&first_id(&cluster), 1));
    poison += scatter(&mut backend, 801, 900, 5);
    members.iter_mut().for_each(|(client, got)| read_to(client, got, 900));

    let mut dead = BTreeSet::new();
    until("all poison is kept", || {
        let kept = values(&cluster.broker, "ringgate.dead");
        dead.extend(kept.iter().map(|dead| dead["data_base64"].as_str().unwrap().to_owned()));
        dead.len() == poison
    });
    cluster.tells(&["gw:0", "gw:1", "gw:2"], &[("arena", &["ann", "bob"])], ringgate::limits::GATEWAY_RENEWAL);
    drop(members);
    cluster.ends(gateways);
}

/// The id of the room's first tick.
fn first_id(cluster: &Cluster) -> String {
    let events = crate::backend::texts(&cluster.broker, "games.events");
    let events = events.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let mut first = events.filter(|event| event["payload"]["n"] == 1);
    first.next().unwrap()["event_id"].as_str().unwrap().to_owned()
}
