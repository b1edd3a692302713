//! Clients of other projects against the real binary: Python's `websockets` and Node's `ws` run `tests/examples`, which
//! `tests/services/*.sh` equip. The examples check what they receive and fail by their exit code; the tests check that
//! they received what they should.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use simd_json::prelude::{ValueAsArray, ValueAsScalar, ValueObjectAccess};

const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
const SECRET: &str = "a secret of the services' tests, 32 bytes";
/// Longer than any example needs; a client that hangs fails instead.
const SECONDS: &str = "60";

/// A process that runs until it is dropped, and its output line by line.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line with this text; fails when the output ends before.
    fn line_with(&mut self, text: &str) -> String {
        let found = self.lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(text)));
        found.unwrap_or_else(|| panic!("the output ended without {text:?}")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway of its own for each test.
struct Gateway {
    process: Running,
    /// `HOST:PORT`.
    address: String,
}

impl Gateway {
    fn start(port: &str) -> Self {
        let mut process = Running::start(
            Command::new(RINGGATE)
                .args(["serve", "--host", "127.0.0.1", "--port", port, "--health-port", "0", "--log-level", "warn"])
                .env("JWT_SECRET", SECRET),
        );
        let line = process.line_with("listens on ws://");
        let address = line.split("ws://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { process, address }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends it as an operator does and starts another one on the same port.
    fn restart(mut self) -> Self {
        kill_process(Pid::from_child(&self.process.child), Signal::TERM).unwrap();
        assert!(self.process.child.wait().unwrap().success(), "the drain failed");
        Self::start(self.address.rsplit(':').next().unwrap())
    }
}

/// What an equipping script prints.
fn equip(script: &str) -> String {
    let output = Command::new(path(&format!("tests/services/{script}"))).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn path(relative: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative).to_str().unwrap().to_owned()
}

fn token(user: &str, role: &str) -> String {
    let args = ["token", "mint", "--secret", SECRET, "--sub", user, "--role", role];
    let output = Command::new(RINGGATE).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The example game server, in its room.
fn game_server(python: &str, gateway: &Gateway) -> Running {
    let mut server = Running::start(
        Command::new(python)
            .args([&path("tests/examples/game_server.py"), "--room", "arena", "--url", &gateway.url()])
            .env("RINGGATE_TOKEN", token("server", "publisher")),
    );
    server.line_with("in room arena, 0 reconnects");
    server
}

/// What the example player has seen.
fn play(python: &str, gateway: &Gateway, user: &str, args: &[&str]) -> simd_json::OwnedValue {
    let output = Command::new("timeout")
        .args([SECONDS, python, &path("tests/examples/player.py"), "--room", "arena", "--url", &gateway.url()])
        .args(["--name", user])
        .args(args)
        .env("RINGGATE_TOKEN", token(user, "user"))
        .output()
        .unwrap();
    summary(&output)
}

/// The line of JSON at the end of a client that succeeded.
fn summary(output: &Output) -> simd_json::OwnedValue {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = output.stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap();
    simd_json::to_owned_value(&mut line.to_vec()).unwrap()
}

fn count(summary: &simd_json::OwnedValue, name: &str) -> u64 {
    summary.get(name).and_then(ValueAsScalar::as_u64).unwrap_or_else(|| panic!("{name} is missing: {summary}"))
}

/// Publishes about 1,000 deltas per second into the arena while `act` runs.
fn beside_a_flood<T>(gateway: &Gateway, act: impl FnOnce() -> T) -> T {
    let mut publisher = Command::new(RINGGATE)
        .args(["connect", &gateway.url(), "--publisher", "--room", "arena", "--token", &token("flood", "publisher")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = publisher.stdin.take().unwrap();
    let (over, is_over) = mpsc::channel::<()>();
    let flood = thread::spawn(move || {
        let mut key = 0;
        while is_over.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            key = (key + 1) % 64;
            writeln!(input, "delta {key} {{\"player\": \"flood\", \"x\": {key}}}").expect("the publisher goes on");
        }
    });
    let result = act();
    drop(over);
    flood.join().unwrap();
    assert!(publisher.wait().unwrap().success(), "the flood ended early");
    result
}

/// A Python player gets every event of the Python game server and of a battle once and in order, beside a flood of
/// deltas and across a connection that was cut.
#[test]
fn python_plays_with_the_game_server() {
    let python = equip("python.sh");
    let gateway = Gateway::start("0");
    let _server = game_server(&python, &gateway);
    let seen = beside_a_flood(&gateway, || play(&python, &gateway, "alice", &["--rounds", "20", "--battle", "300"]));
    let counts = ["events", "score", "x", "battle", "recovered"].map(|name| count(&seen, name));
    assert_eq!(counts, [20, 60, 40, 300, 0], "{seen}");
    assert!(count(&seen, "others") > 100, "that was no flood: {seen}");

    let seen = play(&python, &gateway, "bob", &["--rounds", "0", "--battle", "300", "--drop-at", "100"]);
    assert_eq!((count(&seen, "battle"), count(&seen, "recovered")), (300, 1), "{seen}");
}

/// The game server comes back by itself after the gateway's restart, and goes on with its game.
#[test]
fn the_game_server_survives_a_restart_of_the_gateway() {
    let python = equip("python.sh");
    let gateway = Gateway::start("0");
    let mut server = game_server(&python, &gateway);
    assert_eq!(count(&play(&python, &gateway, "alice", &["--rounds", "3"]), "events"), 3);

    let gateway = gateway.restart();
    server.line_with("in room arena, 1 reconnects");
    assert_eq!(count(&play(&python, &gateway, "bob", &["--rounds", "5"]), "events"), 5);
}

/// A Node client whose socket is destroyed in the middle of a battle resumes: nothing is missing, nothing comes twice,
/// every `prev` names the frame before, and what it missed is replayed.
#[test]
fn node_resumes_a_battle() {
    let modules = equip("node.sh");
    let gateway = Gateway::start("0");
    let output = Command::new("timeout")
        .args([SECONDS, "node", &path("tests/examples/client.mjs"), &gateway.url(), "ring", "300"])
        .env("NODE_PATH", modules)
        .env("RINGGATE_TOKEN", token("bob", "publisher"))
        .output()
        .unwrap();
    let seen = summary(&output);
    let counts = ["battle", "destroyedAt", "recovered"].map(|name| count(&seen, name));
    assert_eq!(counts, [300, 75, 1], "{seen}");
    assert!(count(&seen, "replayed") > 0, "nothing was missed, so nothing was shown: {seen}");
    let chain = seen.get("chains").and_then(|chains| chains.get("games.events.0/room:ring"));
    assert_eq!(chain.and_then(ValueAsScalar::as_u64), Some(301), "{seen}");
}

/// Clients of dialect A in Python and in Node open a room, talk, lose their connection in the middle and resume: what they
/// said comes back once and in order, in an unbroken chain, though they say again what was not acknowledged.
#[test]
fn json_clients_resume_their_talk() {
    let (python, modules) = (equip("python.sh"), equip("node.sh"));
    let gateway = Gateway::start("0");
    for (program, script, room) in [(&*python, "chatter.py", "Python's den"), ("node", "chatter.mjs", "Node's den")] {
        let output = Command::new("timeout")
            .args([SECONDS, program, &path(&format!("tests/examples/{script}")), &gateway.url(), room, "20"])
            .env("NODE_PATH", &modules)
            .env("RINGGATE_TOKEN", token(script, "user"))
            .output()
            .unwrap();
        let seen = summary(&output);
        assert_eq!((count(&seen, "heard"), count(&seen, "recovered")), (20, 1), "{script}: {seen}");
        let chains = seen.get("chains").and_then(simd_json::prelude::ValueAsObject::as_object).unwrap();
        let chat: Vec<_> = chains.iter().filter(|(name, _)| name.starts_with("chat.events.0/room:")).collect();
        assert_eq!(chat.len(), 1, "{script}: {seen}");
        assert_eq!(chat[0].1.as_u64(), Some(20), "{script}: {seen}");
    }
}

/// Clients of dialect B in Python and in Node make a room by HTTP, enter it twice and talk, one of them across a connection
/// that was cut: both hear everything once and in one order, the members are both there, and a room that is not there
/// and a forged token are refused as promised.
#[test]
fn hub_players_resume_their_talk() {
    let (python, modules) = (equip("python.sh"), equip("node.sh"));
    let gateway = Gateway::start("0");
    for (program, script) in [(&*python, "hub_player.py"), ("node", "hub_player.mjs")] {
        let output = Command::new("timeout")
            .args([SECONDS, program, &path(&format!("tests/examples/{script}")), &gateway.url(), "20"])
            .env("NODE_PATH", &modules)
            .output()
            .unwrap();
        let seen = summary(&output);
        assert_eq!((count(&seen, "heard"), count(&seen, "recovered")), (40, 1), "{script}: {seen}");
        assert!(count(&seen, "chain") >= 40, "{script}: {seen}");
        let members = seen.get("members").and_then(|names| names.as_array()).unwrap();
        let names: Vec<_> = members.iter().filter_map(ValueAsScalar::as_str).collect();
        assert_eq!(names, ["Ann", "Bob"], "{script}: {seen}");
    }
}
