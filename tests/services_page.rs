//! The JavaScript of `src/page`: its close table is the server's, and `tests/page` passes on Node, which
//! `tests/services/page.sh` equips.

use std::process::Command;

use ringgate::close::{CloseReason, Reconnect};

/// The client follows the close table that the server has, row by row.
#[test]
fn the_clients_close_table_is_the_servers() {
    let client = include_str!("../src/page/ringgate.js");
    let (_, table) = client.split_once("export const CLOSE_TABLE = [\n").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    let found: Vec<&str> = table.lines().map(|row| row.trim().trim_end_matches(',')).collect();
    let expected: Vec<String> = CloseReason::ALL
        .iter()
        .map(|row| {
            let reconnect = match row.reconnect {
                Reconnect::Resume => "resume",
                Reconnect::Delayed => "delayed",
                Reconnect::No => "no",
            };
            let (code, text, label) = (row.code, row.text, row.label);
            format!(r#"{{ "code": {code}, "text": "{text}", "reconnect": "{reconnect}", "label": "{label}" }}"#)
        })
        .collect();
    assert_eq!(found, expected);
}

/// The client keeps its promises against scripted gateways, the page makes the right state of what it receives.
#[test]
fn the_pages_tests_pass() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/page.sh");
    let output = Command::new(script).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
