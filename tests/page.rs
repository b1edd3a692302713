//! The page's client against the server's own code; what it does is tested in `tests/page` (`tests/services_page.rs`).

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
