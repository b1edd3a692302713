//! The reference services end to end: commands of dialect D, answers and events in the session's and the user's streams.

use ringgate::id::StreamHandle;
use ringgate::message::ErrorCode;
use ringgate::protocol::frames::json::Join;
use ringgate::protocol::frames::{client, types};

use rustix::process::Signal;
use simd_json::prelude::*;

use crate::client::Client;
use crate::disk::DataDir;
use crate::hub::create as create_hub;
use crate::node::on_each_driver;

const SEND_MESSAGE: u16 = 1;
const CREATE_ROOM: u16 = 3;
const JOIN_ROOM: u16 = 4;
const LIST_ROOMS: u16 = 5;

/// The payload of the next event of this type.
fn event(client: &mut Client, event_type: &str) -> String {
    loop {
        let frame = client.expect(types::EVENT);
        let text = String::from_utf8(frame.payload).unwrap();
        if text.starts_with(&format!("{{\"type\":\"{event_type}\"")) {
            return text;
        }
    }
}

/// A room with a password is created, listed, guarded and joined; each answer reaches the session that asked, with its
/// correlation; a private message reaches both users.
#[test]
fn rooms_and_chat_answer_their_sessions() {
    on_each_driver(&[], |gateway| {
        let (mut host, mut guest) = (Client::player(gateway, "ann"), Client::player(gateway, "bob"));
        let create = br#"{"game_type":"bigger_dice","room_name":"My Room","password":"open sesame"}"#;
        host.command(CREATE_ROOM, StreamHandle::NONE, 1, create);
        let created = event(&mut host, "games.event.room_created");
        let told = r#""host_id":"ann","host_name":"ann","is_password_protected":true,"max_players":6"#;
        assert!(created.contains(told) && created.contains(r#""correlation_id":"1""#), "{created}");
        guest.command(LIST_ROOMS, StreamHandle::NONE, 2, b"{}");
        let listed = event(&mut guest, "games.event.rooms_listed");
        assert!(listed.contains(r#""room_name":"My Room""#) && listed.contains(r#""players":1"#), "{listed}");
        guest.command(JOIN_ROOM, StreamHandle::NONE, 3, br#"{"room_name":"My Room","password":"open says me"}"#);
        let refused = loop {
            let frame = guest.read();
            if frame.header.frame_type == types::ERROR {
                break (frame.header.kind, frame.header.number, String::from_utf8(frame.payload).unwrap());
            }
        };
        let text = "the room has another password".to_owned();
        assert_eq!(refused, (ErrorCode::WrongPassword.index(), 3, text));
        guest.command(JOIN_ROOM, StreamHandle::NONE, 4, br#"{"room_name":"My Room","password":"open sesame"}"#);
        let joined = event(&mut guest, "games.event.lobby_joined");
        let players = r#""players":[{"user_id":"ann","username":"ann"},{"user_id":"bob","username":"bob"}]"#;
        assert!(joined.contains(players), "{joined}");
        host.command(SEND_MESSAGE, StreamHandle::NONE, 5, br#"{"recipient_id":"bob","content":"hi\u0007"}"#);
        for client in [&mut host, &mut guest] {
            let said = event(client, "chat.event.message_received");
            assert!(said.contains(r#""sender_id":"ann","sender_name":"ann","content":"hi""#), "{said}");
        }
        assert!(![created, listed, joined].concat().contains("sesame") && !gateway.log().contains("sesame"));
        true
    });
}

/// A password opens its room before and after a crash, in either dialect's JOIN, and stands in clear in no file of
/// `data_dir` and in nothing that the server API shows.
#[test]
fn passwords_stay_within_the_gateway() {
    let dir = DataDir::new();
    let mut gateway = dir.start(&[]);
    let mut host = Client::player(&gateway, "ann");
    let create = br#"{"game_type":"bigger_dice","room_name":"My Room","password":"open sesame"}"#;
    host.command(CREATE_ROOM, StreamHandle::NONE, 1, create);
    event(&mut host, "games.event.room_created");
    let long = format!(r#"{{"game_type":"x","room_name":"y","password":"sesame{}"}}"#, "x".repeat(128));
    host.command(CREATE_ROOM, StreamHandle::NONE, 2, long.as_bytes());
    assert_eq!(host.expect(types::ERROR).header.kind, ErrorCode::TooLong.index());
    for name in ["bob", "cleo"] {
        let mut guest = Client::player(&gateway, name);
        guest.command(JOIN_ROOM, StreamHandle::NONE, 1, br#"{"room_name":"My Room","password":"open says me"}"#);
        assert_eq!(guest.expect(types::ERROR).header.kind, ErrorCode::WrongPassword.index());
        guest.command(JOIN_ROOM, StreamHandle::NONE, 2, br#"{"room_name":"My Room","password":"open \u0073esame"}"#);
        event(&mut guest, "games.event.lobby_joined");
        let mut log = gateway.follow("games.commands?from=0&heartbeat_ms=100");
        let mut lines =
            std::iter::from_fn(|| Some(log.line().unwrap().encode())).take_while(|l| !l.contains("heartbeat"));
        assert!(lines.all(|line| !line.contains("sesame") && !line.contains("says me")));
        gateway.signal(Signal::KILL);
        gateway.ended();
        for entry in std::fs::read_dir(&dir.0).unwrap().chain(std::fs::read_dir(dir.0.join("log")).unwrap()) {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            assert!(!bytes.windows(6).any(|window| window == b"sesame"), "{}", path.display());
        }
        gateway = dir.start(&[]);
    }
}

/// Rooms of the service and hubs are closed to who has neither their password nor their token, also when a game server
/// joins them first: before anybody was there, and behind a crash.
#[test]
fn a_game_server_opens_no_room_of_a_service() {
    let dir = DataDir::new();
    let mut gateway = dir.start(&[]);
    let mut host = Client::player(&gateway, "ann");
    let create = br#"{"game_type":"bigger_dice","room_name":"My Room","password":"open sesame"}"#;
    host.command(CREATE_ROOM, StreamHandle::NONE, 1, create);
    let created = event(&mut host, "games.event.room_created");
    let room = created.split(r#""room_id":""#).nth(1).unwrap().split('"').next().unwrap();
    let hub = create_hub(&gateway, "Ann").room;
    for _ in 0..2 {
        let mut publisher = Client::publisher(&gateway, "server");
        let mut stranger = Client::player(&gateway, "bob");
        for (room, refused) in [(room, ErrorCode::WrongPassword), (&*hub, ErrorCode::Forbidden)] {
            publisher.join(room);
            stranger.send(|out| client::join(out, 9, &Join { room, password: Some("x") }));
            assert_eq!(stranger.expect(types::ERROR).header.kind, refused.index());
        }
        gateway.signal(Signal::KILL);
        gateway.ended();
        gateway = dir.start(&[]);
    }
    let mut guest = Client::player(&gateway, "cleo");
    guest.send(|out| client::join(out, 9, &Join { room, password: Some("open sesame") }));
    guest.joined();
}
