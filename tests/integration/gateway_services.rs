//! Dialect A: what the reference services refuse. Each wish has its exact code, names the field that is wrong, brings its
//! correlation id back, and leaves the connection and everybody else as they were.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::json::Json;
use crate::node::{Gateway, on_each_driver, until};

/// Sends a command under a correlation id of its own, again while the gateway finds it too early, and reads on to its
/// refusal: code and text.
fn refused(client: &mut Json, mut message: Value, id: usize) -> (String, String) {
    let id = format!("case-{id}");
    message["correlation_id"] = id.clone().into();
    let mut told = (String::new(), String::new());
    until("the rate allows it", || {
        client.send(&message);
        let (code, text, correlation_id) = client.error();
        assert_eq!(correlation_id.as_deref(), Some(&*id), "{message}: {code} {text}");
        told = (code, text);
        !told.1.contains("at most 5/s") && !told.1.contains("at most 10/s")
    });
    told
}

/// A host in a room of that name, and the room.
fn hosted(gateway: &Gateway, user: &str, fields: &Value) -> (Json, Value) {
    let mut host = Json::player(gateway, user);
    let mut create = json!({"type": "games.command.create_room", "game_type": "bigger_dice"});
    create.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    host.send(&create);
    let room = host.expect("games.event.room_created")["room_id"].clone();
    (host, room)
}

/// Fields that are missing, empty, too long, of another kind or out of range; names that are taken or unknown; turns that
/// are not one's own.
#[test]
fn refusals_of_the_services_have_their_codes() {
    on_each_driver(&[], |gateway| {
        let (mut host, room) = hosted(gateway, "ann", &json!({"room_name": "Den"}));
        let full = json!({"room_name": "Full", "max_players": 2});
        let (_first, _) = hosted(gateway, "cy", &full);
        let mut second = Json::player(gateway, "dan");
        second.send(&json!({"type": "games.command.join_room", "room_name": "Full"}));
        second.expect("games.event.lobby_joined");
        let mut bob = Json::player(gateway, "bob");
        bob.send(&json!({"type": "games.command.join_room", "room_name": "Den"}));
        bob.expect("games.event.lobby_joined");

        let create = |fields: Value| with("games.command.create_room", &json!({"game_type": "x"}), &fields);
        let join = |fields: Value| with("games.command.join_room", &json!({}), &fields);
        let say = |fields: Value| with("chat.command.send_message", &json!({"recipient_id": "ann"}), &fields);
        let lobby = |fields: Value| with("chat.command.send_lobby_message", &json!({"lobby_id": room}), &fields);
        let roll = with("games.command.bigger_dice.roll", &json!({"room_id": room}), &json!({}));
        let cases = [
            (create(json!({})), "bad_request", "room_name"),
            (create(json!({"room_name": " "})), "bad_request", "room_name"),
            (create(json!({"room_name": ["Den"]})), "bad_request", "room_name"),
            (create(json!({"room_name": "r".repeat(65)})), "too_long", "room_name"),
            (create(json!({"room_name": "Den"})), "room_exists", "room_name"),
            (create(json!({"room_name": "a", "game_type": "no such/type"})), "bad_request", "game_type"),
            (create(json!({"room_name": "a", "max_players": "many"})), "bad_request", "max_players"),
            (create(json!({"room_name": "a", "max_players": 1})), "bad_request", "max_players"),
            (create(json!({"room_name": "a", "password": "p".repeat(129)})), "too_long", "password"),
            (create(json!({"room_name": "a", "password": ["open sesame"]})), "bad_request", "password"),
            (join(json!({})), "bad_request", "room_name"),
            (join(json!({"room_name": {}})), "bad_request", "room_name"),
            (join(json!({"room_name": "Nowhere"})), "room_not_found", "room_name"),
            (join(json!({"room_id": "nowhere"})), "room_not_found", "room_id"),
            (join(json!({"room_name": "Full"})), "room_full", "room"),
            (say(json!({})), "bad_request", "content"),
            (say(json!({"content": "\u{7}"})), "bad_request", "content"),
            (say(json!({"content": {"text": "x"}})), "bad_request", "content"),
            (say(json!({"content": "x".repeat(2001)})), "too_long", "content"),
            (say(json!({"content": "x", "recipient_id": null})), "bad_request", "recipient_id"),
            (say(json!({"content": "x", "recipient_id": ["ann"]})), "bad_request", "recipient_id"),
            (lobby(json!({"content": "x".repeat(2001)})), "too_long", "content"),
            (roll, "game_not_started", "host"),
        ];
        let count = cases.len();
        for (id, (message, code, part)) in cases.into_iter().enumerate() {
            let told = refused(&mut bob, message.clone(), id);
            assert_eq!(told.0, code, "{message}: {}", told.1);
            assert!(told.1.contains(part), "{message}: {}", told.1);
            still_there(&mut bob);
        }
        host.send(&json!({"type": "games.command.bigger_dice.roll", "room_id": room}));
        host.expect("games.event.bigger_dice.rolled");
        let again = json!({"type": "games.command.bigger_dice.roll", "room_id": room});
        let told = refused(&mut host, again, count);
        assert!(told.0 == "not_your_turn" && told.1.contains("bob"), "{told:?}");
        bob.send(&json!({"type": "games.command.bigger_dice.roll", "room_id": room}));
        for client in [&mut host, &mut bob] {
            while client.expect("games.event.bigger_dice.rolled")["player_id"] != "bob" {}
        }
        assert!(!gateway.log().contains("sesame"));
        count
    });
}

/// A wrong password is answered a second late, whether there is one or not, while everybody else is served; after five of
/// a user it is not even tried, and the right one of somebody else opens the room still.
#[test]
fn wrong_passwords_are_late_and_few() {
    on_each_driver(&[], |gateway| {
        let (mut host, _) = hosted(gateway, "ann", &json!({"room_name": "Den", "password": "open sesame"}));
        let mut eve = Json::player(gateway, "eve");
        let guess = |n: usize| {
            let password = if n == 0 { Value::Null } else { format!("guess {n}").into() };
            json!({"type": "games.command.join_room", "room_name": "Den", "password": password, "correlation_id": n.to_string()})
        };
        let begun = Instant::now();
        (0..5).for_each(|n| eve.send(&guess(n)));
        host.send(&json!({"type": "games.command.list_rooms"}));
        host.expect("games.event.rooms_listed");
        let listed = begun.elapsed();
        let mut told: Vec<_> = (0..5).map(|_| eve.error()).collect();
        let late = begun.elapsed();
        told.sort_by(|one, other| one.2.cmp(&other.2));
        for (n, (code, text, correlation_id)) in told.iter().enumerate() {
            assert_eq!((&**code, correlation_id.as_deref()), ("wrong_password", Some(&*n.to_string())), "{text}");
            assert!(text.contains("password"), "{text}");
        }
        // The command's time is taken a moment behind its sending, in whole milliseconds.
        assert!(late >= Duration::from_millis(999), "{late:?}");
        assert!(listed < late, "others wait for a wrong password: {listed:?}");
        let (code, text) = refused(&mut eve, guess(6), 6);
        assert_eq!(code, "rate_limited", "{text}");
        assert!(text.contains("password"), "{text}");
        let mut bob = Json::player(gateway, "bob");
        bob.send(&json!({"type": "games.command.join_room", "room_name": "Den", "password": "open sesame"}));
        bob.expect("games.event.lobby_joined");
        assert!(!gateway.log().contains("sesame") && !gateway.log().contains("guess"));
        told.len()
    });
}

/// It is served as before; what others of the room are told may come between.
fn still_there(client: &mut Json) {
    client.send(&json!({"type": "system.heartbeat"}));
    while client.read()["type"] != "system.heartbeat_ack" {}
}

fn with(event_type: &str, usual: &Value, fields: &Value) -> Value {
    let mut message = json!({"type": event_type});
    for fields in [usual, fields] {
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    message
}
