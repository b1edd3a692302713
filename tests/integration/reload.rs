//! SIGHUP: the type table and the keys change under living connections, or nothing does.

use std::path::PathBuf;

use ringgate::auth::{Grant, Signer};
use ringgate::protocol::frames::json::Hello;
use ringgate::protocol::frames::{client, types};
use rustix::process::Signal;

use crate::client::{BATTLE, Client};
use crate::node::{API_KEY, DRIVERS, Gateway, command, until};

/// The kind that the file gives to a command of its own.
const MOVE: u16 = 300;
const ROW: &str = "[[command]]\ntype = \"games.command.chess.move\"\ntopic = \"games.commands\"\nkey = \"room_id\"\n\
                   require = \"member:room_id\"\nkind = 300\n";

/// A configuration file of a test's own; removed at the end.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn new(name: &str, text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("ringgate-{name}-{}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Sends SIGHUP and waits for what it is answered by; the lines logged since.
fn reload(gateway: &Gateway, answer: &str) -> String {
    let before = gateway.log().len();
    gateway.signal(Signal::HUP);
    until(answer, || gateway.log()[before..].contains(answer));
    gateway.log()[before..].to_owned()
}

/// Sends the command until it gets this answer: a shard sees a new table at its next turn.
fn answered(player: &mut Client, stream: ringgate::id::StreamHandle, kind: u16, wanted: (u8, u16)) {
    let mut correlation = 0;
    until("the command is answered so", || {
        correlation += 1;
        player.command(kind, stream, correlation, b"{}");
        let frame = player.read();
        assert_eq!(frame.header.number, correlation);
        let code = if frame.header.frame_type == types::ERROR { frame.header.kind } else { 0 };
        (frame.header.frame_type, code) == wanted
    });
}

/// A command type of a new row is usable on a living connection after SIGHUP, a broken file leaves that table as it is
/// with a line per error, and a row that is taken out is unknown again; the connection and its stream go on.
#[test]
fn a_reload_changes_the_table_under_living_connections() {
    const UNKNOWN_TYPE: u16 = 4;
    for driver in DRIVERS {
        let file = ConfigFile::new(&format!("table-{driver}.toml"), "");
        let gateway = Gateway::start(&["--driver", driver, "--config", file.path()]);
        let mut publisher = Client::publisher(&gateway, "server");
        publisher.join("arena");
        let mut player = Client::player(&gateway, "bob");
        let relay = player.join("arena")[0];
        answered(&mut player, relay, MOVE, (types::ERROR, UNKNOWN_TYPE));

        file.write(ROW);
        let said = reload(&gateway, "SIGHUP: reloaded");
        assert!(said.contains("[[command]] +games.command.chess.move"), "{said}");
        answered(&mut player, relay, MOVE, (types::ACK, 0));

        file.write(&format!("{ROW}rate = \"often\"\nkey_ = 1\n"));
        let said = reload(&gateway, "key_: unknown field");
        let line = "SIGHUP: nothing is reloaded: ";
        assert_eq!(said.matches(line).count(), 2, "{said}");
        let rate =
            format!("{line}{}:7: [[command]] \"games.command.chess.move\": rate = \"often\": expected", file.path());
        assert!(said.contains(&rate) && said.contains("write rate = \"20/s\""), "{said}");
        answered(&mut player, relay, MOVE, (types::ACK, 0));

        player.command(BATTLE, relay, 7, br#"{"events":1,"interval_ms":1}"#);
        assert_eq!(player.expect(types::ACK).header.number, 7);
        file.write("# nothing\n");
        let said = reload(&gateway, "SIGHUP: reloaded");
        assert!(said.contains("[[command]] -games.command.chess.move"), "{said}");
        player.expect(types::BATTLE_END);
        answered(&mut player, relay, MOVE, (types::ERROR, UNKNOWN_TYPE));
        assert!(reload(&gateway, "SIGHUP: nothing changed").lines().count() == 1);
        player.send(|out| client::ping(out, b"here"));
        assert_eq!(player.expect(types::PONG).payload, b"here");
        assert_eq!(gateway.metric("ringgate_connections_accepted_total").iter().sum::<u64>(), 2);
    }
}

/// The server API takes the types and follows the topics of a new table, and opens to new keys alone.
#[test]
fn a_reload_changes_the_server_api() {
    const NEW_KEY: &str = "the-next-key-of-the-server-api";
    let with = |key: &str, rows: &str| format!("[admin]\napi_keys = [\"{key}\"]\n{rows}");
    let file = ConfigFile::new("api.toml", &with(API_KEY, ""));
    let mut start = command(&["--config", file.path()]);
    start.env_remove("API_KEY");
    let gateway = Gateway::spawn(start);
    let publish = || {
        let event = r#"{"event_type":"chess.moved","payload":{"room_id":"a"}}"#;
        gateway.post("/api/events", "application/json", event).status
    };
    assert_eq!((publish(), gateway.get("/api/log/chess.commands?from=9").status), (400, 404));
    let rows = "[[event]]\ntype = \"chess.moved\"\nto = \"room\"\nkind = 300\n\
                [[command]]\ntype = \"chess.move\"\ntopic = \"chess.commands\"\nkind = 300\n";
    file.write(&with(API_KEY, rows));
    reload(&gateway, "SIGHUP: reloaded");
    assert_eq!((publish(), gateway.get("/api/log/chess.commands?from=9").status), (200, 409));
    file.write(&with(NEW_KEY, rows));
    let said = reload(&gateway, "SIGHUP: reloaded");
    assert!(said.contains("1 API keys") && !said.contains(NEW_KEY), "{said}");
    assert_eq!(publish(), 401);
    let head = format!("GET /api/connections HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {NEW_KEY}\r\n\r\n");
    assert_eq!(gateway.ask(&head, b"").status, 200);
}

/// What a connection has used of a row's rate stays used when other rows come before it, and a new row's is its own.
#[test]
fn a_reload_keeps_rates_with_their_rows() {
    const RATE_LIMITED: u16 = 15;
    let row = |name: &str, kind| {
        format!("[[command]]\ntype = \"chess.{name}\"\ntopic = \"chess\"\nrate = \"1/m\"\nkind = {kind}\n")
    };
    let file = ConfigFile::new("rates.toml", &row("move", MOVE));
    let gateway = Gateway::start(&["--config", file.path()]);
    let mut publisher = Client::publisher(&gateway, "server");
    let relay = publisher.join("arena")[0];
    let mut answer = |kind| {
        publisher.command(kind, relay, 7, b"{}");
        let header = publisher.read().header;
        (header.frame_type, if header.frame_type == types::ERROR { header.kind } else { 0 })
    };
    assert_eq!(answer(MOVE), (types::ACK, 0));
    assert_eq!(answer(MOVE), (types::ERROR, RATE_LIMITED));
    file.write(&(row("castle", MOVE + 1) + &row("resign", MOVE + 2) + &row("move", MOVE)));
    reload(&gateway, "SIGHUP: reloaded");
    until("the new row is there", || answer(MOVE + 1) == (types::ACK, 0));
    assert_eq!(answer(MOVE), (types::ERROR, RATE_LIMITED));
    assert_eq!(answer(MOVE + 2), (types::ACK, 0));
    assert_eq!(answer(MOVE + 2), (types::ERROR, RATE_LIMITED));
}

/// A new key file counts for new tokens at once, the former key's are refused, and who is connected stays; a file that
/// holds no key changes nothing.
#[test]
fn a_reload_changes_the_key() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");
    let read = |name: &str| std::fs::read_to_string(format!("{keys}{name}")).unwrap();
    let token = |private: &str| {
        let signer = Signer::from_private_pem(read(private).as_bytes()).unwrap();
        signer.mint(&Grant { sub: "bob", ..Grant::default() })
    };
    let (former, newer) = (token("es256_private.pem"), token("eddsa_private.pem"));
    let file = ConfigFile::new("key.pem", &read("es256_public.pem"));
    let mut start = command(&["--jwt-public-key-path", file.path()]);
    start.env_remove("JWT_SECRET");
    let gateway = Gateway::spawn(start);
    let hello = |token: &str| {
        let mut client = Client::open(&gateway);
        client.send(|out| client::hello(out, &Hello { token: Some(token), ..Hello::default() }));
        let frame = client.read();
        (client, frame.header.frame_type)
    };
    let (mut stays, welcome) = hello(&former);
    assert_eq!(welcome, types::WELCOME);
    assert_eq!(hello(&newer).1, types::ERROR);

    file.write("no key at all\n");
    let said = reload(&gateway, "SIGHUP: nothing is reloaded: ");
    assert!(said.contains("auth.jwt_public_key_path"), "{said}");
    assert_eq!(hello(&former).1, types::WELCOME);

    file.write(&read("eddsa_public.pem"));
    assert!(reload(&gateway, "SIGHUP: reloaded").contains("the token key"));
    until("the new key counts", || hello(&newer).1 == types::WELCOME);
    until("the former key does not", || hello(&former).1 == types::ERROR);
    stays.send(|out| client::ping(out, b"here"));
    assert_eq!(stays.expect(types::PONG).payload, b"here");
}
