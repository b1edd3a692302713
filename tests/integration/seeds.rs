//! The reference documents' own messages, as they print them, over real sockets: what they show as sent is sent byte for
//! byte, and what they show as received comes with every field that they name, of the kind that they show.
//!
//! Where a document has a placeholder (`uuid`, `...`, `jwt...`) a client has something of its own; nothing else differs.

use ringgate::auth::Grant;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::hub::{Player, call, open};
use crate::json::Json;
use crate::node::{Gateway, on_each_driver, signer};

/// What clients send, as the gateway's two documents print it: the text, and what stands for its placeholders.
mod sent {
    pub const AUTHENTICATE: [&str; 3] = [
        r#"{ "type": "system.authenticate", "token": "jwt..." }"#,
        r#"{ "type": "system.authenticate", "token": "jwt_token_here" }"#,
        r#"{"type":"system.authenticate","token":"your_jwt_token"}"#,
    ];
    pub const TOKENS: [&str; 3] = ["jwt...", "jwt_token_here", "your_jwt_token"];
    pub const HEARTBEAT: &str = r#"{ "type": "system.heartbeat" }"#;
    pub const CREATE: &str = r#"{
    "type": "games.command.create_room",
    "game_type": "bigger_dice",
    "room_name": "My Room",
    "password": null
}"#;
    pub const CREATE_SHORT: &str =
        r#"{ "type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "..." }"#;
    pub const JOIN: &str = r#"{
    "type": "games.command.join_room",
    "room_name": "My Room",
    "password": null
}"#;
    pub const JOIN_SHORT: &str = r#"{ "type": "games.command.join_room", "room_name": "..." }"#;
    pub const LEAVE: &str = r#"{ "type": "games.command.leave_room", "room_id": "uuid" }"#;
    pub const ROLL: [&str; 2] = [
        r#"{ "type": "games.command.bigger_dice.roll", "room_id": "uuid" }"#,
        r#"{ "type": "games.command.bigger_dice.roll", "room_id": "..." }"#,
    ];
    pub const SEND: &str = r#"{
    "type": "chat.command.send_message",
    "recipient_id": "123",
    "content": "Hello!"
}"#;
    pub const SEND_SHORT: &str = r#"{ "type": "chat.command.send_message", "recipient_id": "...", "content": "..." }"#;
    pub const LOBBY: &str = r#"{ "type": "chat.command.send_lobby_message", "lobby_id": "...", "content": "..." }"#;
    /// Of the room hub.
    pub const HUB_CHAT: &str = r#"{ "type": "chat", "correlation_id": "...", "payload": { "message": "..." } }"#;
}

/// What the same documents show as received; what is a placeholder there may be any text.
mod received {
    pub const WELCOME: [&str; 2] = [
        r#"{ "type": "system.welcome", "connection_id": "uuid", "timestamp": "..." }"#,
        r#"{ "type": "system.welcome", "connection_id": "...", "timestamp": "..." }"#,
    ];
    pub const AUTHENTICATED: &str = r#"{
    "type": "system.authenticated",
    "user_id": "123",
    "username": "player1",
    "roles": ["user"]
}"#;
    pub const ERROR: &str = r#"{ "type": "system.error", "code": "auth_failed", "message": "..." }"#;
    pub const CREATED: &str = r#"{
    "type": "games.event.room_created",
    "room_id": "uuid",
    "room_name": "My Room",
    "game_type": "bigger_dice",
    "host_id": "123",
    "host_name": "player1",
    "is_password_protected": false
}"#;
    pub const JOINED: &str = r#"{
    "type": "games.event.lobby_joined",
    "room_id": "uuid",
    "room_name": "My Room",
    "player": { "user_id": "...", "username": "..." }
}"#;
    pub const ROLLED: &str = r#"{
    "type": "games.event.bigger_dice.rolled",
    "room_id": "uuid",
    "player_id": "123",
    "roll": 5,
    "new_score": 25
}"#;
    pub const SAID: &str = r#"{ "type": "chat.event.message_received", "sender_id": "...", "content": "..." }"#;
    /// Of the room hub.
    pub const HUB_SAID: &str =
        r#"{ "type": "event", "event": "chat", "payload": { "display_name": "...", "message": "..." } }"#;
}

/// The user of the documents.
fn player1(gateway: &Gateway, authenticate: usize) -> Json {
    let grant = Grant { sub: "123", username: Some("player1"), roles: &["user"], ..Grant::default() };
    let token = signer().mint(&grant);
    let mut client = Json::open(gateway);
    for welcome in received::WELCOME {
        is_like(&client.welcome, welcome);
    }
    say(&mut client, &sent::AUTHENTICATE[authenticate].replace(sent::TOKENS[authenticate], &token));
    client.authenticated();
    client
}

fn say(client: &mut Json, text: &str) {
    client.send_message(Message::text(text));
}

/// Every field that the document shows is there, with its value unless that is a placeholder, of its kind anyway.
fn is_like(message: &Value, shown: &str) {
    fn compare(told: &Value, shown: &Value, whole: &Value) {
        match shown {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| compare(&told[name], value, whole));
            }
            Value::String(text) if text == "..." || text == "uuid" => {
                let told = told.as_str().unwrap_or_else(|| panic!("{shown} is no text in {whole}"));
                assert!(text != "uuid" || told.len() == 36 && told.matches('-').count() == 4, "{told} in {whole}");
            }
            Value::Number(_) => assert!(told.is_u64(), "{told} is no number in {whole}"),
            shown => assert_eq!(told, shown, "in {whole}"),
        }
    }
    compare(message, &serde_json::from_str(shown).unwrap(), message);
}

/// The gateway's documents from beginning to end: sign in in every way that they print, heartbeat, a room, a guest, a
/// game, chat in both ways, leave.
#[test]
fn the_gateways_messages_are_spoken_literally() {
    on_each_driver(&[], |gateway| {
        let mut refused = Json::open(gateway);
        say(&mut refused, sent::AUTHENTICATE[1]);
        is_like(&refused.read(), received::ERROR);
        for way in 0..sent::AUTHENTICATE.len() {
            is_like(&player1(gateway, way).session, received::AUTHENTICATED);
        }
        let mut host = player1(gateway, 0);
        say(&mut host, sent::HEARTBEAT);
        host.expect("system.heartbeat_ack");
        say(&mut host, sent::CREATE);
        let created = host.expect("games.event.room_created");
        is_like(&created, received::CREATED);
        let room = created["room_id"].as_str().unwrap().to_owned();

        let mut guest = Json::player(gateway, "456");
        say(&mut guest, sent::JOIN);
        is_like(&guest.expect("games.event.lobby_joined"), received::JOINED);
        host.expect("games.event.player_joined");

        for roll in sent::ROLL.map(|roll| roll.replace("uuid", &room).replace("\"...\"", &json!(room).to_string())) {
            say(&mut host, &roll);
            for client in [&mut host, &mut guest] {
                let rolled = client.expect("games.event.bigger_dice.rolled");
                is_like(&rolled, received::ROLLED);
                assert!((1..=6).contains(&rolled["roll"].as_u64().unwrap()), "{rolled}");
            }
            // The other one's turn, in the same words.
            say(&mut guest, &roll);
            for client in [&mut host, &mut guest] {
                assert_eq!(client.expect("games.event.bigger_dice.rolled")["player_id"], "456");
            }
        }

        say(&mut guest, sent::SEND);
        for client in [&mut host, &mut guest] {
            let said = client.expect("chat.event.message_received");
            is_like(&said, received::SAID);
            assert_eq!((&said["sender_id"], &said["content"]), (&json!("456"), &json!("Hello!")));
        }
        // As it is printed: three dots are somebody's id, and say something.
        say(&mut guest, sent::SEND_SHORT);
        assert_eq!(guest.expect("chat.event.message_received")["content"], "...");
        say(&mut guest, &sent::LOBBY.replace(r#""lobby_id": "...""#, &format!(r#""lobby_id": "{room}""#)));
        for client in [&mut host, &mut guest] {
            let said = client.expect("chat.event.message_received");
            is_like(&said, received::SAID);
            assert_eq!((&said["lobby_id"], &said["content"]), (&json!(room), &json!("...")));
        }
        say(&mut guest, &sent::LEAVE.replace("uuid", &room));
        guest.expect("games.event.room_left");

        // The shorter forms, as they are printed.
        say(&mut guest, sent::CREATE_SHORT);
        assert_eq!(guest.expect("games.event.room_created")["room_name"], "...");
        say(&mut host, sent::JOIN_SHORT);
        assert_eq!(host.expect("games.event.lobby_joined")["room_name"], "...");
        room.len()
    });
}

/// The hub's document: the token of create or join opens `GET /ws/rooms/{code}` and `…/connect`, in the query or in a
/// header; chat in its envelope reaches everybody with the name of who said it.
#[test]
fn the_hubs_messages_are_spoken_literally() {
    on_each_driver(&[], |gateway| {
        let (status, made) = call(gateway, "/api/rooms", r#"{"display_name":"player1"}"#);
        assert_eq!(status, 201, "{made}");
        let [code, player, token] = ["code", "player_id", "token"].map(|name| made[name].as_str().unwrap());
        for path in [format!("/ws/rooms/{code}"), format!("/ws/rooms/{code}/connect")] {
            for (path, header) in [
                (format!("{path}?player_id={player}&token={token}"), None),
                (path.clone(), Some(format!("Bearer {token}"))),
            ] {
                let mut socket = open(gateway, &path, header.as_deref()).unwrap();
                let Message::Text(state) = socket.read().unwrap() else { panic!("{path}") };
                let state: Value = serde_json::from_str(&state).unwrap();
                assert_eq!((&state["type"], &state["event"]), (&json!("state"), &json!("joined")), "{state}");
            }
        }
        let mut ann = Player::host(gateway, "Ann");
        let mut bob = ann.guest(gateway, "Bob");
        ann.send_text(sent::HUB_CHAT);
        for player in [&mut ann, &mut bob] {
            let said = loop {
                let message = player.read();
                if message["event"] == "chat" {
                    break message;
                }
            };
            is_like(&said, received::HUB_SAID);
            assert_eq!((&said["payload"]["display_name"], &said["payload"]["message"]), (&json!("Ann"), &json!("...")));
        }
        ann.position().1 > 0
    });
}
