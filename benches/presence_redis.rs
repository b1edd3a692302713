//! How many changes of presence a second one gateway and one Redis carry at a storm of 5,000 clients: they open their
//! sessions, enter a room, lose their connections and resume, each step as fast as it goes, pipelined.
//!
//! Goal: a storm is over within a second, so that nobody runs into the authentication time-out. Unit: changes/s, from the
//! first request to the last answer. `cargo bench --features real-services --bench presence_redis`; Redis is the one that
//! `tests/services/redis.sh` installs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate::close::CloseReason;
use ringgate::id::{ConnAddr, ConnKey, NodeId, Scope, SessionId, TokenHash};
use ringgate::message::{
    GatewayLife, Position, PresenceChange, PresenceReply, PresenceRequest, ScopeEntry, SessionRecord,
};
use ringgate::ports::{Lease, Presence};
use ringgate::presence::{EmbeddedPresence, GatewaySettings, RedisPresence, RedisSettings};
use ringgate::router::ThreadWaker;
use ringgate::shard::driver::syscall;
use ringgate::time::Monotonic;

/// What client `n` asks.
type Request = fn(u32) -> PresenceRequest;

const WINDOW: Duration = Duration::from_secs(300);

fn main() {
    let is_smoke = !std::env::args().any(|arg| arg == "--bench");
    let clients = if is_smoke { 50 } else { 5000 };
    let folder = std::env::temp_dir().join(format!("ringgate-bench-redis-{}", std::process::id()));
    let port = script("start", &folder).parse().expect("redis.sh prints a port");
    let gateway = GatewaySettings {
        gateway_id: "bench".into(),
        nonce: 1,
        incarnation: 1,
        resume_window: WINDOW,
        history_time: WINDOW,
        detached_max: 1 << 18,
        seed: 1,
        wall: syscall::wall,
    };
    let wake = Arc::new(ThreadWaker::new(std::thread::current()));
    let settings = RedisSettings::new("127.0.0.1", port);
    let mut redis = RedisPresence::start(&settings, gateway, Arc::new(Lease::endless()), wake);
    storm("redis", &mut redis, clients, RedisPresence::is_settled);
    let mut embedded = EmbeddedPresence::new(WINDOW, 1 << 18, 1).announcing(GatewayLife::default());
    storm("embedded", &mut embedded, clients, |_| true);
    drop(redis);
    script("stop", &folder);
    let _ = std::fs::remove_dir_all(&folder);
}

/// Carries the storm out step by step and prints each one's rate.
fn storm<P: Presence>(name: &str, presence: &mut P, clients: u32, is_settled: impl Fn(&P) -> bool) {
    let steps: [(&str, Request, bool); 4] =
        [("open", open, true), ("enter", enter, false), ("detach", detach, false), ("resume", resume, true)];
    settle(presence, &is_settled, 0);
    for (step, request, is_answered) in steps {
        let began = Instant::now();
        let mut replies = Vec::new();
        for n in 0..clients {
            presence.handle(now(), request(n), &mut replies);
        }
        let expected = if is_answered { clients as usize } else { 0 };
        let given = replies.iter().filter(|reply| is_good(reply)).count();
        let answered = given + settle(presence, &is_settled, expected - given);
        assert_eq!(answered, expected, "{name} {step}");
        let took = began.elapsed();
        let rate = f64::from(clients) / took.as_secs_f64();
        println!("{name:8} {step:6} {clients} clients: {:7.1} ms, {rate:9.0}/s", took.as_secs_f64() * 1000.0);
    }
}

/// Turns until so many good answers came and nothing is on its way.
fn settle<P: Presence>(presence: &mut P, is_settled: &impl Fn(&P) -> bool, answers: usize) -> usize {
    let (mut found, mut replies, mut changes) = (0, Vec::new(), Vec::<PresenceChange>::new());
    let began = Instant::now();
    loop {
        presence.poll(now(), &mut replies);
        presence.changes(&mut changes);
        presence.announced(&mut replies);
        changes.clear();
        found += replies.drain(..).filter(is_good).count();
        if found >= answers && is_settled(presence) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found} of {answers} answers");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn is_good(reply: &PresenceReply) -> bool {
    matches!(reply, PresenceReply::Opened { .. } | PresenceReply::Resumed { .. })
}

fn now() -> Monotonic {
    syscall::monotonic()
}

fn conn(slot: u32) -> ConnAddr {
    ConnAddr { shard: NodeId(0), conn: ConnKey { slot, generation: 1 } }
}

fn id(n: u32) -> [u8; 16] {
    u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
}

fn open(n: u32) -> PresenceRequest {
    let record = SessionRecord {
        session: SessionId(id(n)),
        user: format!("user-{n}").into(),
        username: format!("Player {n}").into(),
        roles: ["user".into()].into(),
        expires_at: u64::MAX,
        scopes: Vec::new(),
        acted: Vec::new(),
        last_close: None,
    };
    PresenceRequest::Open { from: conn(n), record: Box::new(record), token: TokenHash(id(n)) }
}

fn enter(n: u32) -> PresenceRequest {
    // Rooms of ten.
    let room = format!("room-{}", n / 10);
    let entered = vec![Position { stream: format!("games.events.0/room:{room}").into(), epoch: 1 << 40, place: 7 }];
    let entry = ScopeEntry { scope: Scope::Room(room.into()), entered, admitted: true };
    PresenceRequest::Entered { session: SessionId(id(n)), entry }
}

fn detach(n: u32) -> PresenceRequest {
    let (session, last_close) = (SessionId(id(n)), CloseReason::ConnectionLost);
    PresenceRequest::Detached { from: conn(n), session, last_close }
}

fn resume(n: u32) -> PresenceRequest {
    PresenceRequest::Resume { from: conn(1_000_000 + n), user: None, token: TokenHash(id(n)) }
}

fn script(command: &str, folder: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/redis.sh");
    let output = Command::new(script).arg(command).arg(folder).output().expect("redis.sh runs");
    assert!(output.status.success(), "redis.sh {command} failed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
