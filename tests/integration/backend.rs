//! `tests/examples/chess_backend.py` runs a game over the server API alone; the players are dialect D clients, and those of the
//! README's page.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use ringgate::id::StreamHandle;
use ringgate::protocol::frames::types;
use simd_json::prelude::*;

use crate::client::Client;
use crate::http::parse;
use crate::node::{API_KEY, Gateway, command, until};

/// `chess.command.play`.
const PLAY: u16 = 300;
/// The row of it.
const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/chess.toml");

/// The script, ended on drop.
struct Backend(Child);

impl Backend {
    fn start(gateway: &Gateway) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/chess_backend.py");
        let mut python = Command::new("python3");
        python.arg(script).arg(format!("http://{}", gateway.health)).env("API_KEY", API_KEY);
        Self(python.spawn().expect("python3 is installed"))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Player {
    client: Client,
    relay: StreamHandle,
    correlation: u64,
}

impl Player {
    fn new(gateway: &Gateway, user: &str) -> Self {
        let mut client = Client::player(gateway, user);
        let relay = client.join("board")[0];
        Self { client, relay, correlation: 0 }
    }

    fn send(&mut self, wish: &str) {
        self.correlation += 1;
        let (relay, correlation) = (self.relay, self.correlation);
        self.client.command(PLAY, relay, correlation, wish.as_bytes());
    }

    /// The next event or refusal: its type, and its player or message. A refusal names the last command.
    fn hears(&mut self) -> (String, String) {
        loop {
            let frame = self.client.read();
            let text = String::from_utf8_lossy(&frame.payload).into_owned();
            match frame.header.frame_type {
                types::ERROR => {
                    assert_eq!(frame.header.number, self.correlation, "{text}");
                    return heard("system.error", &text);
                }
                types::EVENT => {
                    let body = parse(&text);
                    let who = ["player_id", "user_id"].iter().find_map(|name| body.get_str(*name));
                    return heard(body.get_str("type").unwrap(), who.unwrap_or_default());
                }
                _ => {}
            }
        }
    }
}

fn heard(event_type: &str, who: &str) -> (String, String) {
    (event_type.to_owned(), who.to_owned())
}

/// Two players sit and move in turns; who moves out of turn or nonsense is told so alone. A backend that is killed and
/// started anew goes on with the game, and shows nothing twice.
#[test]
fn a_game_in_python() {
    let gateway = &Gateway::start(&["--config", TYPES]);
    let mut publisher = Client::publisher(gateway, "server");
    publisher.join("board");
    let (mut white, mut black) = (Player::new(gateway, "white"), Player::new(gateway, "black"));
    let backend = Backend::start(gateway);
    for (n, user) in ["white", "black"].into_iter().enumerate() {
        [&mut white, &mut black][n].send(r#"{"do":"sit"}"#);
        for player in [&mut white, &mut black] {
            assert_eq!(player.hears(), heard("games.event.player_joined", user));
        }
    }
    black.send(r#"{"do":"move","from":"e7","to":"e5"}"#);
    assert_eq!(black.hears(), heard("system.error", "wait for your turn"));
    white.send(r#"{"do":"move","from":"e2","to":"e4"}"#);
    for player in [&mut white, &mut black] {
        assert_eq!(player.hears(), heard("games.event.chess.moved", "white"));
    }
    drop(backend);
    black.send(r#"{"do":"move","from":"e7","to":"e5"}"#);
    let _backend = Backend::start(gateway);
    for player in [&mut white, &mut black] {
        assert_eq!(player.hears(), heard("games.event.chess.moved", "black"), "the game goes on, nothing comes twice");
    }
    white.send(r#"{"do":"move","from":"e9","to":"e4"}"#);
    assert_eq!(white.hears(), heard("system.error", "sit, or move from one square to another"));
    until("all was said", || gateway.get("/api/presence/board").json().get_u64("total") == Some(3));
}

/// The README's page "Add a game", word for word: its first two lines started as they are, its JavaScript run block by block by
/// Node with the page's own client, each window's console for itself; the second window sees the first one's move.
#[test]
fn the_readmes_game_is_played() {
    let page =
        include_str!("../../README.md").split("\n## Add a game\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = |language: &str| {
        let fence = format!("\n```{language}\n");
        let all = page.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned());
        all.collect::<Vec<_>>()
    };
    let shell = blocks("sh").pop().unwrap();
    assert!(shell.contains("--dev --config tests/examples/chess.toml") && TYPES.ends_with("tests/examples/chess.toml"));
    assert!(shell.contains("python3 tests/examples/chess_backend.py http://127.0.0.1:9997"), "{shell}");
    let mut command = command(&["--dev", "--config", TYPES]);
    command.env_remove("JWT_SECRET");
    let mut gateway = Gateway::spawn(command);
    let _backend = Backend::start(&gateway);
    let player = gateway.line_with("open in a browser:").split_once("#token=").unwrap().1.to_owned();
    let client = concat!("file://", env!("CARGO_MANIFEST_DIR"), "/src/page/ringgate.js");
    let here = |code: &str| {
        let code = code.replace("/ringgate.js", client).replace("<the printed token of a player>", &player);
        code.replace("127.0.0.1:9998", &gateway.address.to_string())
    };
    let [first, second] = <[String; 2]>::try_from(blocks("js")).unwrap().map(|code| here(&code));
    let play = page.split('`').find(|text| text.contains(r#"do: "move""#)).unwrap();
    let script = format!(
        r#"
        import {{ createRequire }} from "node:module";
        globalThis.WebSocket ??= createRequire(process.cwd() + "/x.js")("ws");
        const load = globalThis.fetch;
        globalThis.fetch = (path) => load(new URL(path, "http://{}"));
        const named = (name) => ({{ log: (type) => globalThis.console.log(name, type) }});
        await (async (console) => {{ {first}
            await (async (console) => {{ {second} }})(named("second"));
            {play}
        }})(named("first"));
        "#,
        gateway.address
    );
    let equipped = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/node.sh")).output().unwrap();
    assert!(equipped.status.success(), "{equipped:?}");
    let mut node = Command::new("timeout")
        .args(["60", "node", "--input-type=module", "--eval", &script])
        .env("NODE_PATH", String::from_utf8(equipped.stdout).unwrap().trim())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    let _node = Backend(node);
    let mut heard = Vec::new();
    let moved = ["first", "second"].map(|window| format!("{window} games.event.chess.moved"));
    for line in lines {
        heard.push(line);
        if moved.iter().all(|line| heard.contains(line)) {
            return;
        }
    }
    panic!("no window may miss the move: {heard:?}");
}
