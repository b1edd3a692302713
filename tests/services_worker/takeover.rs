//! What becomes of a game when its worker ends, vanishes, freezes, or loses Kafka.

use std::time::Instant;

use super::game::{Game, TAKEOVER, table};
use super::until;
use super::worker::Worker;

fn active(workers: &[&Worker]) -> usize {
    workers.iter().filter(|worker| worker.is_active()).count()
}

/// The active one of two, and the other.
pub fn ranked(workers: [Worker; 2]) -> (Worker, Worker) {
    let [a, b] = workers;
    until("one of them is active", || active(&[&a, &b]) > 0);
    assert_eq!(active(&[&a, &b]), 1, "no more than one");
    if a.is_active() { (a, b) } else { (b, a) }
}

/// Of two workers one is active. It ends as an operator ends it, and the other goes on at once; then that one vanishes in
/// the middle of a battle, and a third goes on: a player sees every event once, in order, whichever partition it is in, and
/// the password is still the password.
#[test]
fn a_game_survives_its_workers() {
    let (broker, gateway) = table(3);
    let (first, second) = ranked([Worker::start(broker.address()), Worker::start(broker.address())]);
    let mut game = Game::open(&gateway);
    (0..4).for_each(|_| game.roll());
    until("it has counted them", || first.metric("ringgate_worker_commands_total") >= 6);
    assert_eq!(second.metric("ringgate_worker_commands_total"), 0, "who stands by does nothing");
    let began = Instant::now();
    first.stop();
    until("the other is active", || second.is_active());
    assert!(began.elapsed() < TAKEOVER / 2, "{:?}", began.elapsed());
    let third = Worker::start(broker.address());
    game.try_password(&gateway, "wrong again");
    (0..3).for_each(|_| game.roll());
    game.battle(150, 20);
    assert_eq!(game.see_battle(), Some(1));
    for n in 2..40 {
        assert_eq!(game.see_battle(), Some(n));
    }
    let began = Instant::now();
    second.kill();
    for n in 40..=150 {
        assert_eq!(game.see_battle(), Some(n));
    }
    assert_eq!(game.see_battle(), None);
    assert!(began.elapsed() < TAKEOVER, "{:?}", began.elapsed());
    assert!(third.is_active());
    (0..3).for_each(|_| game.roll());
}

/// A worker that is frozen loses its place to the other; when it wakes in the middle of its work it finds that out, and
/// stands by: nothing is lost, nothing comes twice, and it can take over again.
#[test]
fn a_frozen_worker_wakes_to_stand_by() {
    let (broker, gateway) = table(1);
    let (first, second) = ranked([Worker::start(broker.address()), Worker::start(broker.address())]);
    let mut game = Game::open(&gateway);
    game.battle(200, 20);
    assert_eq!(game.see_battle(), Some(1));
    first.freeze();
    until("the other is active", || second.is_active());
    let mut n = 1;
    while n < 60 {
        n += 1;
        assert_eq!(game.see_battle(), Some(n));
    }
    first.thaw();
    until("it stands by", || !first.is_active());
    while n < 200 {
        n += 1;
        assert_eq!(game.see_battle(), Some(n));
    }
    assert_eq!(game.see_battle(), None);
    assert!(second.is_active() && !first.is_active());
    second.stop();
    until("it takes over again", || first.is_active());
    (0..4).for_each(|_| game.roll());
}

/// Kafka goes away and comes back in the middle of a battle and with a command under way: the worker goes on by itself.
#[test]
fn a_broker_comes_back() {
    let (broker, gateway) = table(3);
    let worker = Worker::start(broker.address());
    let mut game = Game::open(&gateway);
    game.roll();
    game.battle(60, 20);
    assert_eq!(game.see_battle(), Some(1));
    game.ask_to_roll();
    broker.stop();
    broker.again();
    // The roll is somewhere among the battle's events: both are in the room's stream.
    let mut n = 1;
    while n < 60 {
        n += 1;
        assert_eq!(game.see_battle(), Some(n));
    }
    assert_eq!(game.see_battle(), None);
    until("it is active", || worker.is_active());
}
