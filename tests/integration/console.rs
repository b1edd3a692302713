//! `ringgate connect` on `/ws`, in a pipe.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::node::{Gateway, on_each_driver, token};

/// A conversation typed at once; its output and exit code.
fn converse(gateway: &Gateway, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["connect", &format!("ws://{}/ws", gateway.address)])
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever is refused is gone before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A script of JSON lines goes line by line, each command behind the answer to the one before; what is no message is
/// explained and not sent; every frame is one readable line; the end of input leaves with exit code 0.
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
        let output = converse(gateway, &["--token", &bob, "--linger-ms", "1500"], input);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let at = |line: &str| {
            said.lines().position(|other| other.starts_with(line)).unwrap_or_else(|| panic!("{line} in {said}"))
        };
        let order = [
            at("system.welcome connection_id=\""),
            at("system.authenticated user_id=\"bob\""),
            at("system.ack correlation_id=\"1\""),
            at("that is no JSON object; write e.g. {\"type\""),
            at("system.ack correlation_id=\"mine\""),
            at("a message needs a type; write e.g. {\"type\""),
            at("system.heartbeat_ack timestamp=\""),
        ];
        assert!(order.is_sorted(), "{said}");
        let created = said.lines().find(|line| line.starts_with("games.event.room_created ")).unwrap();
        assert!(created.contains(" room_name=\"Den\"") && created.contains(" at=["), "{created}");
        at("games.event.rooms_listed ");

        let output = converse(gateway, &["--token", "nonsense"], "");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("system.error code=\"auth_failed\""), "{said}");
        let output = converse(gateway, &["--token", &bob, "--publisher"], "");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("leave the path /ws out"));
    });
}
