//! Dialect A with the reference services: a room's life as the demo page sees it, and what the gateway itself answers of
//! a room, its members and its newest events.

use ringgate::protocol::frames::types;
use serde_json::{Value, json};

use crate::client::{Client, EVENT};
use crate::json::Json;
use crate::node::{Gateway, on_each_driver, token, until};
use crate::raw::{Raw, masked};

/// A room of the rooms service: its host, and its id.
fn hosted(gateway: &Gateway, user: &str, name: &str, password: Option<&str>) -> (Json, String) {
    let mut host = Json::player(gateway, user);
    host.send(&json!({
        "type": "games.command.create_room", "game_type": "bigger_dice", "room_name": name, "password": password,
        "correlation_id": "create",
    }));
    let created = host.expect("games.event.room_created");
    (host, created["room_id"].as_str().unwrap().to_owned())
}

/// Another player of the room.
fn guest(gateway: &Gateway, user: &str, name: &str, password: Option<&str>) -> Json {
    let mut guest = Json::player(gateway, user);
    guest.send(&json!({"type": "games.command.join_room", "room_name": name, "password": password}));
    guest.expect("games.event.lobby_joined");
    guest
}

/// Asks until it is answered: the gateway lets a session in a moment after the event that says so.
fn ask(client: &mut Json, command: &str, room: &str) -> Value {
    let mut answer = Value::Null;
    until("the room answers", || {
        client.send(&json!({"type": format!("rooms.command.{command}"), "room_id": room, "correlation_id": command}));
        loop {
            answer = client.read();
            if answer["correlation_id"] == command && answer["type"] != "system.ack" {
                break;
            }
        }
        assert!(answer["type"] != "system.error" || answer["code"] == "not_in_room", "{answer}");
        answer["type"] == format!("rooms.event.{command}")
    });
    answer
}

/// Whole messages that wait behind an authentication are carried out, though the client ends its side at once; then the
/// connection ends.
#[test]
fn what_came_before_the_end_is_read() {
    on_each_driver(&[], |gateway| {
        let rooms: Vec<String> = (0..10).map(|n| format!("Last words {n}")).collect();
        for (n, name) in rooms.iter().enumerate() {
            let mut raw = Raw::upgraded(gateway, "/ws");
            let authenticate = json!({"type": "system.authenticate", "token": token(&format!("user-{n}"), &[])});
            let create = json!({"type": "games.command.create_room", "game_type": "bigger_dice", "room_name": name});
            let said: Vec<u8> = [authenticate, create]
                .iter()
                .flat_map(|message| masked(0x81, message.to_string().as_bytes()))
                .collect();
            raw.write(&said);
            raw.shut();
            assert!(raw.ended());
        }
        until("the rooms are there", || {
            let mut watcher = Json::player(gateway, "watcher");
            watcher.send(&json!({"type": "games.command.list_rooms"}));
            let listed = watcher.expect("games.event.rooms_listed").to_string();
            rooms.iter().all(|name| listed.contains(name))
        });
    });
}

/// A room with a password is created, refused with another one, joined; chat reaches both; the members are both users
/// once each, whatever sessions they have; the history has what was said and done, in order, with its places.
#[test]
fn rooms_know_their_members_and_their_past() {
    on_each_driver(&[], |gateway| {
        let (mut host, room) = hosted(gateway, "ann", "My Room", Some("open sesame"));
        let mut stranger = Json::player(gateway, "eve");
        stranger.send(&json!({"type": "games.command.join_room", "room_name": "My Room", "password": "open",
            "correlation_id": "j"}));
        let refused = stranger.error();
        assert_eq!((&*refused.0, refused.2.as_deref()), ("wrong_password", Some("j")));
        let mut bob = guest(gateway, "bob", "My Room", Some("open sesame"));
        for n in 1..=3 {
            ask(&mut bob, "members", &room);
            bob.send(&json!({"type": "chat.command.send_lobby_message", "lobby_id": room, "content": format!("m{n}")}));
            for client in [&mut host, &mut bob] {
                let said = client.expect("chat.event.message_received");
                assert_eq!((&said["content"], &said["sender_id"]), (&json!(format!("m{n}")), &json!("bob")));
            }
        }
        let members = ask(&mut host, "members", &room);
        let both = json!([{"user_id": "ann", "username": "ann"}, {"user_id": "bob", "username": "bob"}]);
        let expected = json!({"type": "rooms.event.members", "room_id": room, "members": both,
            "correlation_id": "members"});
        assert_eq!(members, expected);

        let history = ask(&mut host, "history", &room);
        assert_eq!((&history["type"], &history["room_id"]), (&json!("rooms.event.history"), &json!(room)));
        let events = history["events"].as_array().unwrap();
        let said: Vec<_> = events.iter().filter(|event| event["type"] == "chat.event.message_received").collect();
        assert_eq!(said.iter().map(|event| event["content"].as_str().unwrap()).collect::<Vec<_>>(), ["m1", "m2", "m3"]);
        assert!(events.iter().any(|event| event["type"] == "games.event.player_joined"), "{history}");
        assert!(said.windows(2).all(|two| two[1]["at"][2] == two[0]["at"][1]), "{said:?}");
        assert!(!history.to_string().contains("sesame"));

        for command in ["members", "history"] {
            stranger.send(&json!({"type": format!("rooms.command.{command}"), "room_id": room, "correlation_id": "s"}));
            let refused = stranger.error();
            assert_eq!((&*refused.0, refused.2.as_deref()), ("not_in_room", Some("s")));
            assert!(refused.1.contains("room_id"), "{}", refused.1);
        }
        events.len()
    });
}

/// A history answer has the newest fifty events, or as many as fit 64 KiB; both kinds of question are rate limited; what
/// is asked at once is answered in order.
#[test]
fn lookups_are_bounded() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Json::member(gateway, "ann", "arena");
        let publish = |publisher: &mut Client, count: u64, padding: &str| {
            for n in 1..=count {
                let text = format!("{{\"type\":\"test.event\",\"n\":{n},\"x\":\"{padding}\"}}");
                publisher.publish(EVENT, relay, n, text.as_bytes());
            }
            while publisher.expect(types::ACK).header.number != count {}
        };
        publish(&mut publisher, 120, "");
        let numbers = |history: &Value| -> Vec<u64> {
            history["events"].as_array().unwrap().iter().map(|event| event["n"].as_u64().unwrap()).collect()
        };
        let history = ask(&mut member, "history", "arena");
        assert_eq!(numbers(&history), (71..=120).collect::<Vec<_>>());
        publish(&mut publisher, 20, &"y".repeat(10_000));
        let history = ask(&mut member, "history", "arena");
        assert_eq!(numbers(&history), (15..=20).collect::<Vec<_>>());
        assert!(history.to_string().len() <= 64 << 10);

        let ids: Vec<String> = (0..12).map(|n| format!("m{n}")).collect();
        for id in &ids {
            member.send(&json!({"type": "rooms.command.members", "room_id": "arena", "correlation_id": id}));
        }
        let (mut answered, mut refused) = (Vec::new(), 0);
        while answered.len() + refused < ids.len() {
            let message = member.read();
            match message["type"].as_str().unwrap() {
                "rooms.event.members" => answered.push(message["correlation_id"].as_str().unwrap().to_owned()),
                "system.error" => {
                    assert_eq!(message["code"], "rate_limited", "{message}");
                    refused += 1;
                }
                _ => {}
            }
        }
        assert_eq!(answered, ids[..5], "five a second");
        for room in [json!(null), json!(""), json!("no such/room"), json!("r".repeat(65))] {
            member.send(&json!({"type": "rooms.command.history", "room_id": room, "correlation_id": "b"}));
            let (code, text, _) = member.error();
            assert!(matches!(&*code, "bad_request" | "not_in_room") && text.contains("room_id"), "{code} {text}");
        }
        answered.len()
    });
}
