//! What a gateway keeps while Redis hangs, however many come and however often those who are there come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringgate::limits::{MOVES_PER_SECOND, REDIS_WRITES};
use ringgate::protocol::frames::client::{join, leave};
use ringgate::protocol::frames::json::{Hello, Join};
use ringgate::protocol::frames::types;
use serde_json::json;

use crate::binary;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::json::Json;
use crate::left::nothing_is_left;
use crate::limits::RESUME_WINDOW;
use crate::node::{Gateway, token, until};

/// Newcomers with the longest tokens come one behind the other, and are told, while members with records as long come
/// into a room and leave it as often as they may: no record waits for Redis more often than the bound of writes says, so
/// memory grows by those. When Redis is back, it has the truth; at the end, nothing.
#[test]
fn a_storm_while_redis_hangs_is_bounded() {
    let cluster = Cluster::start();
    let gateway = binary::start(&cluster, "gw");
    let mut publisher = Client::publisher(&gateway, "server");
    publisher.join(ROOM);
    let mut members: Vec<_> = (0..MEMBERS).map(|n| member(&gateway, n)).collect();
    come_and_go(&mut members, &AtomicBool::new(true));
    let before = gateway.rss_kib();
    cluster.server.freeze(true);
    let (over, mut most) = (AtomicBool::new(false), 0);
    let moves: usize = std::thread::scope(|scope| {
        let over = &over;
        let moving: Vec<_> =
            members.chunks_mut(MEMBERS / 8).map(|some| scope.spawn(move || come_and_go(some, over))).collect();
        let coming: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let gateway = &gateway;
                    move || newcomers(gateway, n)
                })
            })
            .collect();
        while coming.iter().any(|thread| !thread.is_finished()) {
            most = gateway.rss_kib().max(most);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        over.store(true, Ordering::Release);
        coming.into_iter().for_each(|thread| thread.join().unwrap());
        moving.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("resident KiB before {before}, at most {most}; {moves} moves, {} newcomers", 4 * NEWCOMERS);
    let record = token("m", &[]).len() + ROLES * ROLE;
    assert!(moves > 4 * REDIS_WRITES, "{moves} moves are no storm");
    let bound = before + ((2 * REDIS_WRITES * record + ELSE_BYTES) as u64 >> 10);
    assert!(most < bound, "resident memory grew from {before} to {most} KiB, more than to {bound}");
    cluster.server.freeze(false);
    drop(members);
    drop(publisher);
    let mut control = cluster.server.connect();
    until("Redis knows that all are gone", || {
        redis::cmd("SCARD").arg("presence:online").query::<u64>(&mut control).unwrap() == 0
    });
    nothing_is_left(&mut control, vec![gateway], RESUME_WINDOW);
}

/// They are told that presence is away, and to try again.
fn newcomers(gateway: &Gateway, thread: usize) {
    let token = long_token(&format!("newcomer{thread}"));
    for _ in 0..NEWCOMERS {
        let mut newcomer = Json::open(gateway);
        newcomer.send(&json!({"type": "system.authenticate", "token": token}));
        assert_eq!(newcomer.error().0, "unavailable");
        assert_eq!(newcomer.closed().0, 1013);
    }
}

fn member(gateway: &Gateway, n: usize) -> Client {
    let mut client = Client::open(gateway);
    client.hello(&Hello { token: Some(&long_token(&format!("m{n}"))), ..Hello::default() });
    client
}

/// All of them at once, as often as they may, until it is over or they are closed, for the lease has run out; how often.
fn come_and_go(members: &mut [Client], over: &AtomicBool) -> usize {
    let mut moves = 0;
    loop {
        let began = Instant::now();
        for member in members.iter_mut() {
            member.send(|out| join(out, 7, &Join { room: ROOM, password: None }));
        }
        if !members.iter_mut().all(|member| is_told(member, types::JOINED)) {
            return moves;
        }
        members.iter_mut().for_each(|member| member.send(|out| leave(out, 9, ROOM)));
        if !members.iter_mut().all(|member| is_told(member, types::LEFT)) {
            return moves;
        }
        moves += 2 * members.len();
        if over.load(Ordering::Acquire) {
            return moves;
        }
        std::thread::park_timeout((Duration::from_millis(2100) / MOVES_PER_SECOND).saturating_sub(began.elapsed()));
    }
}

fn is_told(member: &mut Client, what: u8) -> bool {
    loop {
        match member.next() {
            Ok(frame) if frame.header.frame_type == what => return true,
            Ok(frame) => assert_ne!(frame.header.frame_type, types::ERROR),
            Err((code, reason)) => {
                assert_eq!(code, 1013, "{reason}");
                return false;
            }
        }
    }
}

/// Its roles make the record long.
fn long_token(user: &str) -> String {
    let roles: Vec<String> = (0..ROLES).map(|n| format!("{n:0ROLE$}")).collect();
    token(user, &roles.iter().map(String::as_str).collect::<Vec<_>>())
}

const ROOM: &str = "arena";
const MEMBERS: usize = 400;
/// Of each of the threads.
const NEWCOMERS: usize = 500;
/// Roles, and bytes of each.
const ROLES: usize = 30;
/// See [`ROLES`].
const ROLE: usize = 160;
/// Connections' buffers, threads, and what allocators keep beside.
const ELSE_BYTES: usize = 16 << 20;
