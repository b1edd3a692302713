//! `ringgate connect` on `/ws` and `/ws/rooms`, in a pipe.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::json;

use crate::node::{Gateway, on_each_driver, token};

fn console(gateway: &Gateway, path: &str, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["connect", &format!("ws://{}{path}", gateway.address)])
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A conversation typed at once; its output and exit code.
fn converse(gateway: &Gateway, path: &str, args: &[&str], input: &str) -> Output {
    let mut child = console(gateway, path, args);
    // Whoever is refused is gone before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The same, but the input ends when all these lines were said, so that nothing depends on how soon they are.
fn converse_until(
    gateway: &Gateway,
    path: &str,
    args: &[&str],
    input: &str,
    wanted: &[&str],
) -> (Vec<String>, ExitStatus) {
    let mut child = console(gateway, path, args);
    let mut typing = child.stdin.take().unwrap();
    typing.write_all(input.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said: Vec<String> = Vec::new();
    while !wanted.iter().all(|text| said.iter().any(|line| line.starts_with(text))) {
        said.push(lines.next().unwrap_or_else(|| panic!("{wanted:?} in {said:?}")));
    }
    drop(typing);
    said.extend(lines);
    (said, child.wait().unwrap())
}

/// A script of JSON lines goes line by line, each command behind the answer to the one before, be it the acknowledgement
/// or the event; what is no message is explained and not sent; every frame is one readable line; the end of input leaves
/// with exit code 0.
#[test]
fn a_script_speaks_json() {
    on_each_driver(&[], |gateway| {
        let bob = token("bob", &[]);
        let input = concat!(
            r#"{"type":"games.command.create_room","game_type":"bigger_dice","room_name":"Den"}"#,
            "\nlist rooms\n",
            r#"{"type":"games.command.list_rooms","correlation_id":"mine"}"#,
            "\n{\"no\":\"type\"}\n",
            r#"{"type":"system.heartbeat"}"#,
            "\n",
        );
        let wanted = [
            "system.welcome connection_id=\"",
            "system.authenticated user_id=\"bob\"",
            "system.ack correlation_id=\"1\"",
            "games.event.room_created ",
            "system.ack correlation_id=\"mine\"",
            "games.event.rooms_listed ",
            "system.heartbeat_ack timestamp=\"",
        ];
        let (said, status) = converse_until(gateway, "/ws", &["--token", &bob], input, &wanted);
        assert_eq!(status.code(), Some(0), "{said:?}");
        let at = |text: &str| {
            said.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text} in {said:?}"))
        };
        // A command's event may come before its acknowledgement: they take different ways.
        let order = [
            at(wanted[0]),
            at(wanted[1]),
            at(" correlation_id=\"1\""),
            at("that is no JSON object; write e.g. {\"type\""),
            at(" correlation_id=\"mine\""),
            at("a message needs a type; write e.g. {\"type\""),
            at(wanted[6]),
        ];
        assert!(order.is_sorted(), "{said:?}");
        let created = &said[at(wanted[3])];
        assert!(created.contains(" room_name=\"Den\"") && created.contains(" at=["), "{created}");

        let output = converse(gateway, "/ws", &["--token", "nonsense"], "");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("system.error code=\"auth_failed\""), "{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        let output = converse(gateway, "/ws", &["--token", &bob, "--publisher"], "");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("leave the path /ws out"));
    });
}

/// Who is given no session and leaves exits with code 1, in binary frames, too; one that a second token brings is a
/// session. `/echo` needs none and says what it is told.
#[test]
fn exit_codes_tell_who_was_let_in() {
    on_each_driver(&["--dev"], |gateway| {
        let refused = converse(gateway, "", &["--token", "nonsense"], "");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let second = json!({"type": "system.authenticate", "token": token("bob", &[])}).to_string();
        let let_in = converse(gateway, "/ws", &["--token", "nonsense"], &second);
        assert_eq!(let_in.status.code(), Some(0), "{let_in:?}");
        let echo = converse(gateway, "/echo", &[], "hello\nworld\n");
        assert_eq!((echo.status.code(), &*echo.stdout), (Some(0), &b"hello\nworld\n"[..]), "{echo:?}");
        let known = converse(gateway, "/echo", &["--room", "arena"], "");
        assert_eq!(known.status.code(), Some(2));
        assert!(String::from_utf8(known.stderr).unwrap().contains("/echo knows nobody"));
    });
}

/// Two consoles in the hub: one makes a room by its name, the other enters it by the printed code; what is said reaches
/// both as one readable line, what the gateway is asked is answered, what is no command is explained; refusals say why.
#[test]
fn consoles_meet_in_the_hub() {
    on_each_driver(&[], |gateway| {
        let mut ann = console(gateway, "/ws/rooms", &["--name", "Ann"]);
        let mut typing = ann.stdin.take().unwrap();
        let mut said = BufReader::new(ann.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut until = |text: &str| said.find(|line| line.starts_with(text)).unwrap_or_else(|| panic!("no {text}"));
        let room = until("room ");
        let code = room.split([' ', ';']).nth(1).unwrap().to_owned();
        assert!(room.ends_with(&format!("ringgate connect ws://{}/ws/rooms/{code} --name NAME", gateway.address)));
        assert!(until("state joined ").contains(&format!(" code=\"{code}\"")));

        let path = format!("/ws/rooms/{}", code.to_lowercase());
        let input = "dance\nmembers\nping\nvote yes\nvote {\"approve\":true}\nchat hi \"there\"\n";
        let order = [
            "state joined room_id=",
            "\"dance\" is no command; write help",
            "state members members=[",
            "state pong ",
            "write: vote JSON, an object",
            "event vote player_id=",
            "event chat player_id=",
        ];
        let (bob, status) = converse_until(gateway, &path, &["--name", "Bob"], input, &order);
        assert_eq!(status.code(), Some(0), "{bob:?}");
        let lines: Vec<_> = order.iter().map(|text| bob.iter().position(|line| line.starts_with(text))).collect();
        assert!(lines.is_sorted(), "{lines:?} {bob:?}");
        let chat = until("event chat ");
        assert!(chat.contains(r#" display_name="Bob" message="hi \"there\"""#) && chat.contains(" at=["), "{chat}");
        typing.write_all(b"history\nquit\n").unwrap();
        assert!(until("state history ").contains(r#"hi \"there\""#));
        assert!(ann.wait().unwrap().success());

        let refused = |path: &str, args: &[&str], reason: &str| {
            let output = converse(gateway, path, args, "");
            let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(all.contains(reason), "{all}");
            output.status.code().unwrap()
        };
        let codes = [
            refused("/ws/rooms/NOROOM", &["--name", "Cy"], "404 Not Found"),
            refused("/ws/rooms/NOROOM", &["--token", "x"], "404 Not Found"),
            refused(&path, &["--token", "x"], "closed 4401"),
            refused(&path, &[], "who are you?"),
        ];
        assert_eq!(codes, [2, 2, 1, 2]);
    });
}
