//! What events of backends do to sessions, as clients see it.

use serde_json::json;

use crate::json::Json;
use crate::node::{Gateway, on_each_driver, until};

const NDJSON: &str = "application/x-ndjson";

/// An event of the room for its members.
fn said(room: &str, n: usize) -> String {
    format!(r#"{{"event_type":"games.event.test.step","target":{{"room_id":"{room}"}},"payload":{{"n":{n}}}}}"#)
}

/// An event that makes whom it reaches join or leave the room.
fn moves(event_type: &str, target: &str, room: &str) -> String {
    format!(r#"{{"event_type":"games.event.{event_type}","target":{target},"payload":{{"room_id":"{room}"}}}}"#)
}

fn publish(gateway: &Gateway, events: &[String]) {
    let answer = gateway.post("/api/events", NDJSON, &events.join("\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A session that joins, leaves and joins again while its first join is on its way hears nothing of what was said
/// between.
#[test]
fn a_join_that_was_undone_does_not_count() {
    on_each_driver(&[], |gateway| {
        let client = Json::player(gateway, "bob");
        let target = format!(r#"{{"session_id":{}}}"#, client.session["session_id"]);
        let (joins, leaves) = (moves("lobby_joined", &target, "board"), moves("room_left", &target, "board"));
        let (resume, positions) = (client.resume(), client.positions());
        drop(client);
        until("it is detached", || gateway.metric("ringgate_sessions").iter().sum::<u64>() == 0);
        publish(gateway, &[joins.clone(), said("board", 1), leaves, said("board", 2), joins, said("board", 3)]);
        // What it missed comes as one page: the three act before the room's home has answered.
        let mut client = Json::resumed(gateway, &resume, &positions);
        assert_eq!(client.expect("games.event.test.step")["n"], 3);
        publish(gateway, &[said("board", 4)]);
        assert_eq!(client.expect("games.event.test.step")["n"], 4);
        client.reliable
    });
}

/// Nothing behind the frame of a room that ended the membership is for the session, also when it hears of it in a
/// resume.
#[test]
fn a_resume_ends_where_the_session_left() {
    on_each_driver(&[], |gateway| {
        let mut client = Json::player(gateway, "bob");
        let target = format!(r#"{{"session_id":{}}}"#, client.session["session_id"]);
        publish(gateway, &[moves("lobby_joined", &target, "board"), said("board", 1)]);
        client.expect("games.event.test.step");
        let (resume, positions) = (client.resume(), client.positions());
        drop(client);
        until("it is detached", || gateway.metric("ringgate_sessions").iter().sum::<u64>() == 0);
        publish(gateway, &[moves("room_left", r#"{"room_id":"board"}"#, "board")]);
        for n in 2..6 {
            publish(gateway, &[said("board", n)]);
        }
        let mut client = Json::resumed(gateway, &resume, &positions);
        assert_eq!(client.session["rooms"], json!(["board"]));
        client.expect("games.event.room_left");
        client.send(&json!({"type": "system.heartbeat"}));
        loop {
            let message = client.read();
            assert_ne!(message["type"], "games.event.test.step", "{message}");
            if message["type"] == "system.heartbeat_ack" {
                break;
            }
        }
    });
}
