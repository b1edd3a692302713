//! What does a storm cost presence per client, in memory and with the records in SQLite? µs of the presence thread, µs the
//! longest group of requests took, and µs per session for the start that reads them back. Goals: a resume ≤ 50 µs with
//! SQLite, so that 5,000 at once take a quarter of a second; 16 × the clients cost no more than 2.5 × per client, for a
//! storm must not be quadratic in anything.
//!
//! `cargo bench --bench presence [-- DIRECTORY]`; without `--bench`, as under `cargo test --benches`, a smoke run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate::close::CloseReason;
use ringgate::id::{ConnAddr, ConnKey, NodeId, Scope, SessionId, TokenHash};
use ringgate::limits;
use ringgate::message::{GatewayLife, Position, PresenceReply, PresenceRequest, ScopeEntry, SessionRecord};
use ringgate::ports::Presence;
use ringgate::presence::EmbeddedPresence;
use ringgate::store::{SqliteStore, StoreSettings};
use ringgate::time::{Monotonic, WallMillis};

const WINDOW: Duration = Duration::from_secs(300);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let folder = arguments.iter().find(|argument| !argument.starts_with("--"));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let storms: &[u32] = if measured { &[1_250, 5_000, 20_000] } else { &[16] };
    println!(
        "{:>8} {:>8} {:>10} {:>10} {:>12} {:>10} {:>10}",
        "clients", "records", "open", "lose", "resume", "longest", "read"
    );
    for clients in storms {
        for stored in [false, true] {
            let file = folder.join(format!("ringgate-bench-presence-{}.sqlite", std::process::id()));
            let line = storm(*clients, stored.then_some(&file));
            println!("{clients:>8} {:>8} {line}", if stored { "SQLite" } else { "memory" });
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
            }
        }
    }
}

fn storm(clients: u32, file: Option<&PathBuf>) -> String {
    let mut presence = start(file.map(PathBuf::as_path), 1);
    let opened = each(&mut presence, clients, |n| {
        let mut requests = vec![PresenceRequest::Open { from: conn(n), record: record(n), token: token(n) }];
        requests.extend(entries(n).map(|entry| PresenceRequest::Entered { session: session(n), entry }));
        requests
    });
    let lost = each(&mut presence, clients, |n| {
        let last_close = CloseReason::ConnectionLost;
        vec![PresenceRequest::Detached { from: conn(n), session: session(n), last_close }]
    });
    // With a store, the storm meets the process that was started anew.
    let mut read = Duration::ZERO;
    if let Some(file) = file {
        drop(presence);
        let began = Instant::now();
        presence = start(Some(file), 2);
        presence.settle(Monotonic::ZERO, true);
        read = began.elapsed();
        assert_eq!(presence.sessions(), clients as usize);
    }
    let resumed = each(&mut presence, clients, |n| {
        vec![PresenceRequest::Resume { from: conn(clients + n), user: None, token: token(n) }]
    });
    assert_eq!(presence.detached(), 0);
    let per = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(clients);
    let longest = resumed.1.as_micros();
    let [opened, lost, resumed] = [opened, lost, resumed].map(|(span, _)| per(span));
    format!("{opened:>10.1} {lost:>10.1} {resumed:>12.1} {longest:>10} {:>10.1}", per(read))
}

/// Makes requests of every client in groups, as the peer does; the time it took, and that of the longest group.
fn each(
    presence: &mut EmbeddedPresence,
    clients: u32,
    requests: impl Fn(u32) -> Vec<PresenceRequest>,
) -> (Duration, Duration) {
    let (mut replies, mut changes) = (Vec::new(), Vec::new());
    let (mut sum, mut longest, now) = (Duration::ZERO, Duration::ZERO, Monotonic::ZERO);
    let all: Vec<_> = (0..clients).flat_map(requests).collect();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let group: Vec<_> = all.by_ref().take(limits::PRESENCE_GROUP).collect();
        let began = Instant::now();
        group.into_iter().for_each(|request| presence.handle(now, request, &mut replies));
        presence.changes(&mut changes);
        presence.settle(now, true);
        let took = began.elapsed();
        (sum, longest) = (sum + took, longest.max(took));
        changes.clear();
        assert!(replies.drain(..).all(|reply| !matches!(reply, PresenceReply::Expired { .. })));
    }
    (sum, longest)
}

fn start(file: Option<&Path>, nonce: u64) -> EmbeddedPresence {
    let life = GatewayLife { nonce, incarnation: nonce };
    let presence = EmbeddedPresence::new(WINDOW, limits::DETACHED_SESSIONS, 1).announcing(life);
    let Some(file) = file else { return presence };
    let store = SqliteStore::open(&StoreSettings { file: Some(file.into()), messages_max: 1 });
    let store = Box::new(store.expect("the folder can be used"));
    let now = (Monotonic::ZERO, WallMillis(1_700_000_000_000));
    presence.keeping_sessions_in(now, 1, store).expect("it reads what it wrote")
}

fn conn(slot: u32) -> ConnAddr {
    ConnAddr { shard: NodeId(0), conn: ConnKey { slot, generation: 1 } }
}

/// Ids are random: here spread by a multiplication.
fn spread(n: u32) -> [u8; 16] {
    (u128::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
}

fn session(n: u32) -> SessionId {
    SessionId(spread(n))
}

fn token(n: u32) -> TokenHash {
    TokenHash(spread(!n))
}

fn record(n: u32) -> Box<SessionRecord> {
    Box::new(SessionRecord {
        session: session(n),
        user: format!("user-{n}").into(),
        username: format!("Player {n}").into(),
        roles: ["user".into()].into(),
        expires_at: 1_800_000_000,
        scopes: Vec::new(),
        acted: Vec::new(),
        last_close: None,
    })
}

/// A room of 50 and the session's own scope.
fn entries(n: u32) -> impl Iterator<Item = ScopeEntry> {
    let entry = |scope: Scope| {
        let stream: Arc<str> = format!("games.events.0/{scope}").into();
        ScopeEntry { scope, entered: vec![Position { stream, epoch: 1 << 50, place: n.into() }], admitted: true }
    };
    [entry(Scope::Room(format!("room-{}", n / 50).into())), entry(Scope::Session(session(n)))].into_iter()
}
