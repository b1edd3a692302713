//! The shipped services behind shipped shards: rooms, dice and chat, spoken to in dialect A, with workers that crash in
//! the middle of a batch and gateways that start anew.
//!
//! Besides D1, D2 and D6 for what the bus brings, it proves *kept*: an acknowledged command is in the log and its answer,
//! too, and *once*: however often a client repeats a command and a worker crashes, it is answered and done once.

pub mod books;
pub mod house;
mod player;

use std::time::Duration;

use house::House;
use player::{Player, State};
use ringgate::delivery;
use ringgate::router::Bounds;
use ringgate::shard::driver::simulated::Weather;

use crate::world::Plan;

/// What a run varies beyond the node's plan.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub players: u32,
    pub steps: usize,
    /// One step in this many breaks a connection, one in this many a worker, one in this many the whole gateway; 0 = none.
    pub resets_in: u64,
    pub crashes_in: u64,
    pub restarts_in: u64,
}

/// Everything goes wrong now and then.
pub fn trouble(seed: u64) -> Trouble {
    let restarts_in = if seed.is_multiple_of(2) { 300 } else { 0 };
    Trouble { players: 10, steps: 1200, resets_in: 20, crashes_in: 60, restarts_in }
}

/// The node of a run.
pub fn plan(seed: u64) -> Plan {
    let tiny = seed.is_multiple_of(3);
    Plan {
        weather: Weather { send_buffer: 8 << 10, ..Weather::default() },
        bounds: if tiny { Bounds { slots: 1, outbox: 1 } } else { Bounds { slots: 64, outbox: 16 } },
        queue: delivery::Limits::default(),
        ..crate::plan(seed)
    }
}

/// A run: trouble, then peace, then judgement.
pub struct Town {
    house: House,
    players: Vec<Player>,
    trouble: Trouble,
    crashes: u64,
    restarts: u64,
}

impl Town {
    pub fn new(seed: u64, plan: Plan, trouble: Trouble) -> Self {
        let house = House::new(seed, plan);
        let players = (0..trouble.players).map(|number| Player::new(number, house.token(number))).collect();
        Self { house, players, trouble, crashes: 0, restarts: 0 }
    }

    pub fn run(&mut self) -> Result<String, String> {
        for _ in 0..self.trouble.steps {
            self.step()?;
            for _ in 0..self.house.network.below(GLIMPSES) {
                self.house.glimpse()?;
                self.players.iter_mut().try_for_each(|player| player.read(&mut self.house))?;
            }
            self.house.spin(STEP)?;
            self.players.iter_mut().try_for_each(|player| player.read(&mut self.house))?;
        }
        self.peace()?;
        let books = &mut self.house.books;
        books.complete(self.players.iter().flat_map(Player::sent))?;
        let delivered: u64 = self.players.iter().map(|player| player.delivered).sum();
        let resumed: u64 = self.players.iter().map(|player| player.resumed).sum();
        let (crashes, restarts) = (self.crashes, self.restarts);
        Ok(format!(
            "{}, delivered {delivered}, resumed {resumed}, crashes {crashes}, restarts {restarts}",
            books.summary()
        ))
    }

    fn step(&mut self) -> Result<(), String> {
        let Self { house, players, trouble, .. } = self;
        let chance = |house: &House, one_in: u64| one_in > 0 && house.network.below(one_in) == 0;
        if chance(house, trouble.restarts_in) {
            house.restart();
            players.iter_mut().for_each(Player::cut_off);
            self.restarts += 1;
        } else if chance(house, trouble.crashes_in) {
            house.crash();
            self.crashes += 1;
        }
        for player in players.iter_mut() {
            match player.state {
                State::Idle if house.network.below(8) == 0 => player.connect(house),
                State::Idle | State::Greeting => {}
                State::Open if chance(house, trouble.resets_in * 10) => {
                    player.reset(house);
                }
                State::Open => player.act(house),
            }
        }
        Ok(())
    }

    /// Everybody connects and waits; what passwords and late answers take is over in the end.
    fn peace(&mut self) -> Result<(), String> {
        self.house.mend();
        for _ in 0..ROUNDS_OF_PEACE {
            for player in &mut self.players {
                if player.state == State::Idle {
                    player.connect(&mut self.house);
                }
                player.read(&mut self.house)?;
            }
            self.house.spin(STEP * 2)?;
        }
        self.players.iter().try_for_each(|player| player.settled(&self.house.books))
    }
}

const STEP: Duration = Duration::from_millis(10);
/// So many times, at most, players read and answer in the middle of the node's work.
const GLIMPSES: u64 = 12;
const ROUNDS_OF_PEACE: usize = 300;

/// Runs one seed; a panic of an assertion is a breach too.
pub fn run(seed: u64, plan: Plan, trouble: Trouble) -> Result<String, String> {
    crate::caught(|| Town::new(seed, plan, trouble).run())
}

/// No command is done twice and no acknowledged command is lost, over the shipped services, while connections break and
/// resume, clients repeat themselves, workers crash anywhere in a batch and whole gateways start anew.
#[test]
fn commands_are_done_once_and_kept() {
    let seeds = crate::environment("RINGGATE_SIM_SEED").map_or(1..=4, |seed| seed..=seed);
    for seed in seeds {
        match run(seed, plan(seed), trouble(seed)) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(breach) => {
                panic!(
                    "seed {seed}: {breach}\nreplay: RINGGATE_SIM_SEED={seed} cargo test --test simulation commands_are"
                )
            }
        }
    }
}
