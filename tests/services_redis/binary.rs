//! The real binary with presence in Redis, its clients of dialect A.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::json::Json;
use crate::keys;
use crate::node::{self, Gateway, command, until};

const ROOM_KEY: &str = "a room token key of the tests, of 32 bytes or more";

/// A gateway on this Redis.
pub fn start(cluster: &Cluster, id: &str) -> Gateway {
    Gateway::spawn(with_redis(cluster, &["--gateway-id", id]))
}

fn with_redis(cluster: &Cluster, flags: &[&str]) -> std::process::Command {
    let mut command = command(flags);
    command.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", cluster.server.settings().port.to_string());
    command.env("RINGGATE_AUTH_ROOM_TOKEN_KEY", ROOM_KEY);
    command
}

/// Who authenticates and joins a room is in Redis when the answer comes; a drain takes everything out at once but the
/// sessions, which the next life of the gateway gives back.
#[test]
fn a_drain_leaves_sessions_alone() {
    let mut cluster = Cluster::start();
    let mut gateway = start(&cluster, "gw");
    let mut publisher = crate::client::Client::publisher(&gateway, "server");
    publisher.join("arena");
    let player = Json::member(&gateway, "ann", "arena");
    let name = player.welcome["connection_id"].as_str().unwrap().to_owned();
    until("the room is written", || cluster.members("room:arena:users") == ["ann", "server"]);
    assert_eq!(cluster.field(&format!("socket:{name}"), "user_id").as_deref(), Some("ann"));
    assert_eq!(cluster.members("presence:online"), ["ann", "server"]);
    keys::check(&mut cluster);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    let left: Vec<_> = cluster.keys().into_iter().filter(|key| !key.starts_with("session:")).collect();
    assert_eq!(left, ["room:arena:detached", "room:arena:info"]);
    let again = start(&cluster, "gw");
    let mut back = Json::open(&again);
    back.authenticate(&json!({"resume": player.resume()}));
    assert_eq!(back.session["session_id"], player.session["session_id"]);
    assert_eq!(back.session["last_close"]["code"], 1012);
}

/// A killed gateway's sessions are resumed on its next life, which says that their connections are gone.
#[test]
fn a_killed_gateway_is_reaped_by_its_next_life() {
    let mut cluster = Cluster::start();
    let gateway = start(&cluster, "gw");
    let player = Json::player(&gateway, "ann");
    gateway.signal(Signal::KILL);
    drop(gateway);
    assert_eq!(cluster.members("presence:online"), ["ann"]);
    let again = start(&cluster, "gw");
    until("ann is not online", || cluster.members("presence:online").is_empty());
    let mut back = Json::open(&again);
    back.authenticate(&json!({"resume": player.resume()}));
    assert_eq!(back.session["session_id"], player.session["session_id"]);
    assert_eq!(cluster.members("presence:online"), ["ann"]);
    assert_eq!(cluster.members("gateway:gw:sockets").len(), 1);
}

/// While Redis is away newcomers are told `unavailable` and to try again, those who are there talk on; when it is back so
/// are they.
#[test]
fn clients_are_told_of_an_outage() {
    let mut cluster = Cluster::start();
    let gateway = start(&cluster, "gw");
    let mut player = Json::player(&gateway, "ann");
    cluster.server.stop();
    let mut newcomer = Json::open(&gateway);
    newcomer.send(&json!({"type": "system.authenticate", "token": node::token("bob", &[])}));
    assert_eq!(newcomer.error().0, "unavailable");
    assert_eq!(newcomer.closed().0, 1013);
    player.send(&json!({"type": "system.heartbeat"}));
    assert_eq!(player.read()["type"], "system.heartbeat_ack");
    let (status, body) = post_rooms(&gateway);
    assert_eq!((status, body["error"]["code"].as_str()), (503, Some("unavailable")), "{body}");

    cluster.server.restart();
    cluster.control = cluster.server.connect();
    until("ann is written again", || cluster.members("presence:online") == ["ann"]);
    let back = Json::player(&gateway, "bob");
    assert_eq!(cluster.members("presence:online"), ["ann", "bob"]);
    let (status, body) = post_rooms(&gateway);
    assert_eq!(status, 201, "{body}");
    let code = format!("room:code:{}", body["code"].as_str().unwrap());
    assert!(cluster.keys().contains(&code));
    keys::check(&mut cluster);
    drop(back);
}

/// A process that was stopped for longer than its lease closes its clients before it reads what they wrote meanwhile.
#[test]
fn a_woken_process_closes_its_clients() {
    let cluster = Cluster::start();
    let gateway = start(&cluster, "gw");
    let mut player = Json::player(&gateway, "ann");
    gateway.signal(Signal::STOP);
    player.send(&json!({"type": "system.heartbeat"}));
    // The one condition is the time: a lease runs out by the clock of the process alone.
    let woken = std::time::Instant::now() + ringgate::limits::GATEWAY_LEASE + Duration::from_secs(1);
    while let Some(left) = woken.checked_duration_since(std::time::Instant::now()) {
        std::thread::park_timeout(left);
    }
    gateway.signal(Signal::CONT);
    assert_eq!(player.closed().0, 1013, "and the heartbeat was not answered");
    // Until it has a lease again it tells them to come again.
    until("the session is resumed", || {
        let mut back = Json::open(&gateway);
        back.ask_in(&json!({"resume": player.resume()})).unwrap();
        let answer = back.read();
        if answer["type"] != "system.authenticated" {
            assert_eq!((&answer["code"], back.closed().0), (&json!("unavailable"), 1013));
            return false;
        }
        assert_eq!(back.session["session_id"], player.session["session_id"]);
        true
    });
}

/// Without Kafka a second gateway on the same Redis does not start, and says what to do; nor does one that Redis refuses.
#[test]
fn what_cannot_work_does_not_start() {
    let cluster = Cluster::start();
    let _first = start(&cluster, "gw:1");
    let output = with_redis(&cluster, &["--gateway-id", "gw:2"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("gw:1 is here already") && text.contains("Kafka"), "{text}");
    let mut keyless = with_redis(&cluster, &["--gateway-id", "gw:3"]);
    let output = keyless.env_remove("RINGGATE_AUTH_ROOM_TOKEN_KEY").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("auth.room_token_key"), "{output:?}");
}

/// `config check --connect` says that Redis is there, or what is wrong with it, by its exit code too.
#[test]
fn config_check_connects() {
    let cluster = Cluster::start();
    let check = |password: Option<&str>, port: u16| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env_clear().args(["config", "check", "--connect"]).env("REDIS_HOST", "127.0.0.1");
        command.env("RINGGATE_AUTH_ROOM_TOKEN_KEY", ROOM_KEY).env("REDIS_PORT", port.to_string());
        if let Some(password) = password {
            command.env("RINGGATE_REDIS_PASSWORD", password);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let port = cluster.server.settings().port;
    let (good, text) = check(None, port);
    assert!(good && text.contains("reached, version 7."), "{text}");
    let (good, text) = check(Some("a secret one"), port);
    assert!(!good && text.contains("redis.password") && !text.contains("a secret one"), "{text}");
    let (good, text) = check(None, 1);
    assert!(!good && text.contains("REDIS_HOST"), "{text}");
}

fn post_rooms(gateway: &Gateway) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(node::DEADLINE)).unwrap();
    let body = r#"{"display_name": "Ann"}"#;
    write!(stream, "POST /api/rooms HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}
