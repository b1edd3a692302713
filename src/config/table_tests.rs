//! Tests of the type table in the file: rows, error texts, what is printed.

use super::*;
use crate::class::Class;
use crate::frame::FrameKind;
use crate::protocol::envelope::PayloadForm;
use crate::protocol::routes::{Destination, EventRoute, PartitionKey, Require, RouteEffect, Source, To};
use crate::time::Rate;

fn file(text: &str) -> Result<Loaded, Vec<String>> {
    load(&Sources { file: Some(("f.toml", text)), ..Sources::default() })
}

fn routes(text: &str) -> Arc<Routes> {
    file(text).unwrap().config.routes
}

fn event(text: &str, name: &str) -> EventRoute {
    let routes = routes(text);
    routes.event(name).unwrap().clone()
}

/// The tables that DESIGN §8 prints are read as it says.
#[test]
fn the_documented_rows_are_read() {
    let text = r#"
[[command]]                      # client → backend
type = "games.command.*"         # longest pattern wins
topic = "games.commands"
key = "room_id"                  # message field; falls back to the user
require = "member:room_id"       # or "authenticated", "role:admin", "none"
rate = "20/s"                    # per connection
payload = "enriched"             # or "raw": byte for byte
[[command]]
type = "party.position"
relay = "room"                   # straight to the members, in the room's relay stream (DELIVERY §7)
[[event]]                        # backend → clients
type = "games.event.lobby_joined"
to = "session"                   # room | user | session | everyone
effect = "join:room_id"          # join | leave | forget | kick
[[event]]
type = "world.delta"
to = "room"
class = "delta"                  # the only class that may be dropped; everything else is reliable
coalesce = "entity_id"
"#;
    let (read, built_in) = (routes(text), Routes::default());
    for name in ["games.command.chess.move", "games.command.join_room"] {
        assert_eq!(read.command(name), built_in.command(name), "{name}");
    }
    for name in ["games.event.lobby_joined", "world.delta"] {
        assert_eq!(read.event(name), built_in.event(name), "{name}: also its numbers in dialect D");
    }
    let relayed = read.command("party.position").unwrap().1;
    assert_eq!((&relayed.destination, &relayed.require), (&Destination::Relay, &Require::Member("room_id".into())));
    assert_eq!(read.relayed("party.position").unwrap().class, Class::Reliable);
    assert_eq!(read.commands().len(), built_in.commands().len() + 1);
}

/// Every field of a command has its meaning, and the documented one where it is left out.
#[test]
fn commands_have_their_fields() {
    let text = r#"
[[command]]
type = "chess.move"
topic = "chess"
key = "game"
require = "role:admin"
rate = "600/m"
payload = "raw"
kind = 300
[[command]]
type = "chess.resign"
topic = "chess"
[[command]]
type = "games.command.join_room"
topic = "lobby"
"#;
    let routes = routes(text);
    let (_, row) = routes.command_of_kind(300).unwrap();
    assert_eq!((&*row.pattern, &row.destination), ("chess.move", &Destination::Topic("chess".into())));
    assert_eq!((&row.key, &row.require), (&PartitionKey::Field("game".into()), &Require::Role("admin".into())));
    assert_eq!((row.rate, row.payload), (Rate::per_minute(600), PayloadForm::Raw));
    let (_, row) = routes.command("chess.resign").unwrap();
    assert_eq!((&row.key, &row.require), (&PartitionKey::User, &Require::Authenticated));
    assert_eq!((row.rate, row.payload, row.d_kind), (Rate::per_second(20), PayloadForm::Raw, None));
    let (_, row) = routes.command_of_kind(4).unwrap();
    assert_eq!((&*row.pattern, row.payload), ("games.command.join_room", PayloadForm::Enriched), "it keeps its kind");
    assert_eq!(row.destination, Destination::Topic("lobby".into()));
}

/// Every field of an event has its meaning, and the documented one where it is left out.
#[test]
fn events_have_their_fields() {
    let text = r#"
[[command]]
type = "party.*"
relay = "room"
require = "member:party"
[[event]]
type = "party.position"
to = "room"
class = "delta"
coalesce = "who"
[[event]]
type = "party.left"
to = "room"
effect = "forget:who"
d_type = 35
kind = 301
[[event]]
type = "chat.event.whisper"
to = "user"
target = "listener"
[[event]]
type = "chess.event.moved"
to = "room_or_user"
d_type = 0
"#;
    let delta = event(text, "party.position");
    assert_eq!((&delta.source, delta.coalesce.as_deref()), (&Source::Relay, Some("who")));
    assert_eq!(delta.kind, Some(FrameKind { frame_type: 32, kind: 0 }));
    let left = event(text, "party.left");
    assert_eq!(left.effect, Some(RouteEffect::Forget("who".into())));
    assert_eq!(left.kind, Some(FrameKind { frame_type: 35, kind: 301 }));
    let whisper = event(text, "chat.event.whisper");
    assert_eq!((&whisper.source, whisper.to), (&Source::Topic("chat.events".into()), To::User));
    assert_eq!((whisper.target.as_deref(), whisper.class), (Some("listener"), Class::Reliable));
    let moved = event(text, "chess.event.moved");
    assert_eq!((&moved.source, moved.to, moved.kind), (&Source::Topic("games.events".into()), To::RoomOrUser, None));
    let routes = routes(text);
    assert_eq!(routes.relayed("party.left").unwrap().forget, Some("who"));
    assert_eq!(routes.relayed("party.position").unwrap().room, "party");
}

const COMMAND: &str = "[[command]]\ntype = \"a.b\"\ntopic = \"t\"\n";
const EVENT: &str = "[[event]]\ntype = \"a.e\"\nto = \"room\"\n";

/// Rows with one more field each have exactly this error.
fn expect_errors(cases: &[(&str, &str, &str)]) {
    for (row, field, expected) in cases {
        let errors = file(&format!("{row}{field}\n")).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{row}{field}\n{}\n{expected}", errors[0]);
        assert!(!errors[0].contains('\n'));
    }
}

/// Every error of a command names file, line, row, field, value and remedy.
#[test]
fn command_errors_name_line_row_field_value_and_remedy() {
    expect_errors(&[
        (
            COMMAND,
            "rate = \"20\"",
            "f.toml:4: [[command]] \"a.b\": rate = \"20\": expected a rate by second or minute; write rate = \"20/s\"",
        ),
        (COMMAND, "rate = 20", "rate = 20: expected a rate"),
        (COMMAND, "rat = \"20/s\"", "f.toml:4: [[command]] \"a.b\": rat: unknown field; did you mean rate?"),
        (COMMAND, "colour = 1", "colour: unknown field; [[command]] has type, topic,"),
        (
            COMMAND,
            "relay = \"room\"",
            "f.toml:4: [[command]] \"a.b\": relay = \"room\": a second destination beside topic; remove one",
        ),
        (COMMAND, "require = \"member\"", "require = \"member\": expected authenticated, member:<field>"),
        (COMMAND, "require = \"none\"", "require = \"none\": before authentication there is nobody"),
        (COMMAND, "payload = \"rich\"", "payload = \"rich\": expected enriched or raw"),
        (
            COMMAND,
            "kind = 12",
            "f.toml:4: [[command]] \"a.b\": kind = 12: 12 belongs to ringgate's own types; write one from 256",
        ),
        (COMMAND, "kind = 40000", "kind = 40000: 40000 is outside 1-32767; write"),
        (COMMAND, "kind = \"x\"", "kind = \"x\": expected a number 256-32767; write kind = 300"),
        (COMMAND, "key = \"a.b\"", "key = \"a.b\": \"a.b\" cannot name a field"),
    ]);
}

/// Every error of an event, and of a row that cannot be read, names the same.
#[test]
fn event_errors_name_line_row_field_value_and_remedy() {
    expect_errors(&[
        (EVENT, "to_ = 1", "to_: unknown field; did you mean to?"),
        (
            EVENT,
            "class = \"delta\"",
            "f.toml:1: [[event]] \"a.e\": coalesce (left out): a delta needs a key; write coalesce =",
        ),
        (EVENT, "class = \"drop\"", "class = \"drop\": expected reliable or delta"),
        (EVENT, "coalesce = \"id\"", "f.toml:4: [[event]] \"a.e\": coalesce = \"id\": only deltas are coalesced"),
        (
            EVENT,
            "effect = \"explode\"",
            "effect = \"explode\": expected join:<field>, leave:<field>, forget:<field> or kick",
        ),
        (EVENT, "effect = \"kick\"", "effect = \"kick\": only a user is kicked; write to = \"user\""),
        (EVENT, "effect = \"forget:id\"", "effect = \"forget:id\": no delta comes from the same topic"),
        (
            EVENT,
            "topic = \"a.events\"",
            "topic = \"a.events\": the gateway reads no events from this topic; write one of games.events,",
        ),
        (EVENT, "d_type = 36", "d_type = 36: expected 0, 32, 33, 34 or 35"),
        (EVENT, "kind = 14", "kind = 14: 14 belongs to ringgate's own types"),
        (EVENT, "kind = 70000", "kind = 70000: expected a number 256-65535"),
        (
            "[[event]]\ntype = \"a.e\"\n",
            "to = \"nobody\"",
            "f.toml:3: [[event]] \"a.e\": to = \"nobody\": expected room, user, session",
        ),
        (
            "[[event]]\ntype = \"a.e\"\n",
            "",
            "f.toml:1: [[event]] \"a.e\": to (left out): nobody would get it; write to =",
        ),
        ("[[command]]\n", "topic = \"t\"", "f.toml:1: [[command]]: type is missing; write type ="),
        ("[[command]]\n", "type = 1", "f.toml:2: [[command]]: type = 1: expected a text"),
        (
            "[[command]]\ntype = \"a.b\"\n",
            "",
            "f.toml:1: [[command]] \"a.b\": topic (left out): the command goes nowhere; write topic =",
        ),
        (
            "[[command]]\ntype = \"a b\"\ntopic = \"t\"\n",
            "",
            "f.toml:2: [[command]] \"a b\": type = \"a b\": neither a full type name",
        ),
        (
            "[[command]]\ntype = \"a.b\"\nrelay = \"room\"\n",
            "key = \"k\"",
            "key = \"k\": it says how a topic's records",
        ),
        ("[command]\n", "type = \"a.b\"", "f.toml:1: command: expected rows of the type table; write [[command]]"),
        ("[[comand]]\n", "", "f.toml:1: [comand]: unknown section; did you mean [command]?"),
    ]);
}

/// All errors of a file come at once, in the order of its lines, with those of its keys.
#[test]
fn all_errors_come_at_once() {
    let text = r#"[server]
port = 70000
prot = 1
[[event]]
type = "a.e"
to = "rooms"
class = "delt"
[[command]]
type = "a.b"
topic = "games.events"
rate = "x"
kind = 300
[[command]]
type = "a.c"
topic = "games.events"
kind = 300
"#;
    let errors = file(text).unwrap_err();
    let lines: Vec<&str> = errors.iter().map(|error| error.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "3", "6", "7", "10", "11", "15", "16"], "{errors:#?}");
}

/// `config check` prints the file's rows with their lines, and the law of deltas with the types it binds.
#[test]
fn the_rows_and_the_law_of_deltas_are_explained() {
    let text = "[[event]]\ntype = \"a.e\"\nto = \"room\"\nclass = \"delta\"\ncoalesce = \"id\"\n";
    let explained = explain(&file(text).unwrap());
    let row = "[[event]] type = \"a.e\", topic = \"games.events\", to = \"room\", class = \"delta\", coalesce = \"id\", d_type = 32  # f.toml:1";
    assert!(explained.lines().any(|line| line == row), "{explained}");
    let law = explained.lines().find(|line| line.starts_with("# class delta: a.e, world.delta. ")).unwrap();
    assert!(law.contains("applying only the newest value of a key equals applying all"), "{law}");
    assert!(!explain(&file("").unwrap()).contains("[["));
    assert!(default_file().contains("applying only the newest value of a key equals applying all"));
}
