//! The reference services end to end: commands of dialect D, answers and events in the session's and the user's streams.

use ringgate::id::StreamHandle;
use ringgate::message::ErrorCode;
use ringgate::protocol::frames::types;

use crate::client::Client;
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
