//! Takeovers of many gateways at once, each on a thread of its own, in real time: the scripts are atomic, so nobody ever
//! has a session that another one has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::close::CloseReason;
use crate::cluster::{Cluster, detach, gateway_on, open, resume};
use crate::id::{ConnAddr, SessionId};
use crate::keys;
use crate::message::{PresenceReply, PresenceRequest};
use crate::time::Monotonic;

const GATEWAYS: u64 = 4;
const SESSIONS: u8 = 5;
const ROUNDS: u32 = 150;

/// Who has which session, as the gateways' clients see it.
type Owners = Arc<Mutex<HashMap<SessionId, (u64, ConnAddr)>>>;

/// Four gateways take five sessions from each other six hundred times. Whoever is told to stop has stopped before the
/// next one starts; at the end each session has one owner, which all agree on.
#[test]
fn concurrent_takeovers_have_one_winner() {
    let mut cluster = Cluster::start();
    let mut first = cluster.gateway("seed");
    for n in 0..SESSIONS {
        cluster.ask(&mut first, open(u32::from(n), n, "u"));
        cluster.ask(&mut first, detach(u32::from(n), n, CloseReason::Normal));
    }
    drop(first);
    let owners = Owners::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for gateway in 1..=GATEWAYS {
            let (server, owners) = (&cluster.server, Arc::clone(&owners));
            scope.spawn(move || takes(gateway, server, &owners, began));
        }
    });
    for n in 0..SESSIONS {
        let session = format!("session:{}", crate::cluster::session(n));
        assert_eq!(cluster.field(&session, "connection_id").as_deref(), Some(""), "all have stopped");
        assert_eq!(cluster.field(&session, "next_connection"), None);
    }
    assert_eq!(cluster.members("presence:online"), [] as [String; 0]);
    assert!(owners.lock().unwrap().is_empty());
    keys::check(&mut cluster);
}

/// A gateway whose clients resume one session after the other; each is given up when that is asked for, or soon.
fn takes(number: u64, server: &crate::server::Server, owners: &Owners, began: Instant) {
    let now = || Monotonic::from_nanos(began.elapsed().as_nanos() as u64);
    let mut gateway = gateway_on(server, &format!("g{number}"), number + 100, 1000);
    gateway.settle(now());
    let mut mine: Vec<(SessionId, ConnAddr)> = Vec::new();
    let (mut asked, mut answered, mut late) = (0, 0, 0);
    let mut waiting = HashSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while answered < ROUNDS || !mine.is_empty() {
        assert!(Instant::now() < deadline, "gateway {number}: {answered} of {ROUNDS} answered");
        if asked < ROUNDS && asked - answered < 3 {
            asked += 1;
            waiting.insert(crate::cluster::conn(asked));
            gateway.say(now(), resume(asked, ((asked as u64 * 7 + number) % u64::from(SESSIONS)) as u8));
        } else if asked == ROUNDS && answered == ROUNDS {
            mine.clone()
                .into_iter()
                .for_each(|(session, to)| stop((&mut gateway, number), now(), owners, &mut mine, session, to));
        }
        gateway.turn(now());
        for reply in std::mem::take(&mut gateway.replies) {
            match reply {
                PresenceReply::Resumed { to, record } => {
                    answered += u32::from(waiting.remove(&to));
                    let before = owners.lock().unwrap().insert(record.session, (number, to));
                    // On a machine that is busy elsewhere an owner may be too slow to stop; then it is not waited for.
                    let seized = record.last_close == Some(CloseReason::Replaced);
                    late += u32::from(seized);
                    assert!(before.is_none() || seized, "{:?} has two owners: {before:?}", record.session);
                    mine.push((record.session, to));
                }
                PresenceReply::Stop { to, session } => match mine.contains(&(session, to)) {
                    true => stop((&mut gateway, number), now(), owners, &mut mine, session, to),
                    // It waited, and another one took its turn over.
                    false => answered += u32::from(waiting.remove(&to)),
                },
                other => panic!("gateway {number}: {other:?}"),
            }
        }
        std::thread::park_timeout(Duration::from_micros(200));
    }
    assert!(late <= ROUNDS / 10, "{late} of {ROUNDS} owners were not waited for");
    gateway.settle(now());
    let finish = now();
    gateway.until(finish, "finished", |gateway| crate::ports::Presence::finish(&mut gateway.presence, finish));
}

fn stop(
    (gateway, number): (&mut crate::cluster::Gateway, u64),
    now: Monotonic,
    owners: &Owners,
    mine: &mut Vec<(SessionId, ConnAddr)>,
    session: SessionId,
    to: ConnAddr,
) {
    mine.retain(|entry| *entry != (session, to));
    owners.lock().unwrap().retain(|other, owner| *other != session || *owner != (number, to));
    gateway.say(now, PresenceRequest::Detached { from: to, session, last_close: CloseReason::GoingAway });
}
