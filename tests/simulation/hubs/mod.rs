//! Room hubs (dialect B) over the shipped gateway and services: players get their places by the HTTP side, connect, talk,
//! take their own connections over, break off and go on, while workers crash and whole gateways start anew with the
//! records of presence.
//!
//! Besides D1, D2, D6 and D7 for what the hubs' streams bring, it proves *once*: what a player says is said once however
//! often it is repeated, and who comes and who goes alternate; *kept*: what was not refused is said; and that an empty hub
//! ends and leaves nothing.

mod census;
mod guest;
mod state;

use std::time::Duration;

use ringgate::shard::driver::simulated::Weather;

use self::census::Census;
use self::guest::{Guest, State};
use crate::services::Trouble;
use crate::services::house::House;
use crate::world::Plan;

/// Everything goes wrong now and then.
pub fn trouble(seed: u64) -> Trouble {
    let restarts_in = if seed.is_multiple_of(2) { 250 } else { 0 };
    Trouble { players: 12, steps: 1200, resets_in: 15, crashes_in: 80, restarts_in }
}

/// The node of a run.
pub fn plan(seed: u64) -> Plan {
    Plan { weather: Weather { send_buffer: 16 << 10, ..Weather::default() }, ..crate::services::plan(seed) }
}

/// A run: trouble, then peace, then judgement, then the end of all hubs.
pub struct Village {
    house: House,
    guests: Vec<Guest>,
    /// By hub, its code once it is made.
    codes: Vec<Option<String>>,
    census: Census,
    trouble: Trouble,
    crashes: u64,
    restarts: u64,
}

impl Village {
    pub fn new(seed: u64, plan: Plan, trouble: Trouble) -> Self {
        let guests = (0..trouble.players).map(|number| Guest::new(number, number as usize % HUBS)).collect();
        let (house, codes, census) = (House::keeping(seed, plan), vec![None; HUBS], Census::new(HUBS));
        Self { house, guests, codes, census, trouble, crashes: 0, restarts: 0 }
    }

    pub fn run(&mut self) -> Result<String, String> {
        for _ in 0..self.trouble.steps {
            self.step();
            self.house.spin(STEP)?;
            self.read()?;
        }
        self.peace()?;
        let said = self.census.judge(&self.house, &self.guests)?;
        let sum = |count: fn(&Guest) -> u64| self.guests.iter().map(count).sum::<u64>();
        let (delivered, hidden) = (sum(|guest| guest.delivered), sum(|guest| guest.hidden));
        let (resumed, replaced) = (sum(|guest| guest.resumed), sum(|guest| guest.replaced));
        self.end()?;
        let (crashes, restarts) = (self.crashes, self.restarts);
        Ok(format!(
            "said {said}, delivered {delivered}, hidden {hidden}, resumed {resumed}, replaced {replaced}, \
             crashes {crashes}, restarts {restarts}"
        ))
    }

    fn step(&mut self) {
        let chance = |house: &House, one_in: u64| one_in > 0 && house.network.below(one_in) == 0;
        let Self { house, guests, trouble, .. } = self;
        if chance(house, trouble.restarts_in) {
            house.restart();
            guests.iter_mut().for_each(|guest| guest.cut_off(house, true));
            self.restarts += 1;
        } else if chance(house, trouble.crashes_in) {
            house.crash();
            self.crashes += 1;
        }
        if chance(house, 6) {
            self.tell_some();
        }
        let Self { house, guests, trouble, codes, census, .. } = self;
        for guest in guests.iter_mut() {
            match guest.state {
                State::Out | State::Idle if !chance(house, 8) => {}
                State::Out => guest.call(house, census, codes[guest.hub].as_deref(), (guest.number as usize) < HUBS),
                State::Idle => guest.connect(house),
                State::Open if chance(house, trouble.resets_in * 10) => guest.reset(house),
                State::Open if chance(house, trouble.resets_in * 10) => guest.take_over(house),
                State::Open => guest.act(house),
                State::Calling | State::Greeting if chance(house, 100) => guest.reset(house),
                State::Calling | State::Greeting | State::Gone => {}
            }
        }
    }

    /// A backend says something that some of a hub's players may not see.
    fn tell_some(&mut self) {
        let Self { house, guests, .. } = self;
        let hub = house.network.below(HUBS as u64) as usize;
        let members: Vec<_> = guests.iter().filter(|guest| guest.hub == hub).filter_map(Guest::ticket).collect();
        let Some(room) = members.first().map(|ticket| ticket.room.clone()) else { return };
        let some = members.iter().filter(|_| house.network.below(2) == 0);
        let some: Vec<&str> = some.map(|ticket| ticket.player.as_str()).collect();
        let audience = match house.network.below(3) {
            0 => format!(",\"only\":{}", serde_json::json!(some)),
            1 if !some.is_empty() => format!(",\"except\":{}", serde_json::json!(some)),
            _ => String::new(),
        };
        house.tell(&room, "rooms.event.role", &audience, "{\"role\":\"wolf\"}");
    }

    fn read(&mut self) -> Result<(), String> {
        let Self { house, guests, census, codes, .. } = self;
        census.take(house.network.now(), guests);
        for guest in guests.iter_mut() {
            guest.read(house, census)?;
            if let Some(ticket) = guest.ticket().filter(|_| codes[guest.hub].is_none()) {
                codes[guest.hub] = Some(ticket.code.clone());
            }
        }
        Ok(())
    }

    /// Everybody gets a place, connects and waits.
    fn peace(&mut self) -> Result<(), String> {
        self.house.mend();
        for _ in 0..ROUNDS_OF_PEACE {
            let Self { house, guests, codes, census, .. } = self;
            for guest in guests.iter_mut() {
                match guest.state {
                    State::Out => {
                        guest.call(house, census, codes[guest.hub].as_deref(), (guest.number as usize) < HUBS);
                    }
                    State::Idle => guest.connect(house),
                    _ => {}
                }
            }
            self.house.spin(STEP * 2)?;
            self.read()?;
        }
        self.guests.iter().try_for_each(|guest| guest.settled(&self.house.books))
    }

    /// Everybody leaves for good: then nothing of the hubs is left, and their codes open nothing.
    fn end(&mut self) -> Result<(), String> {
        self.guests.iter_mut().for_each(|guest| guest.leave(&self.house));
        for _ in 0..ROUNDS_OF_END {
            self.house.spin(Duration::from_secs(5))?;
        }
        self.census.all_left(&self.house, &self.guests)?;
        let left = self.house.left();
        if left != (0, 0, 0) {
            return Err(format!("kept: {left:?} hubs, sessions and records are left of empty hubs"));
        }
        for guest in &mut self.guests {
            guest.connect(&mut self.house);
            self.house.spin(Duration::from_millis(100))?;
            guest.finds_nothing(&self.house)?;
        }
        Ok(())
    }
}

const HUBS: usize = 3;
const STEP: Duration = Duration::from_millis(10);
const ROUNDS_OF_PEACE: usize = 300;
/// Longer than seats are held, and hubs behind them.
const ROUNDS_OF_END: usize = 250;

/// Runs one seed; a panic of an assertion is a breach too.
pub fn run(seed: u64, plan: Plan, trouble: Trouble) -> Result<String, String> {
    crate::caught(|| Village::new(seed, plan, trouble).run())
}

/// Every member of a hub sees every event once and in order, and of those that are not for it the place; states say who
/// is there and what was said; a player has one connection, nothing is said twice or lost, who comes and who goes
/// alternate, and empty hubs end: while connections break, resume and replace each other, workers crash and gateways
/// start anew.
#[test]
fn hubs_keep_their_word() {
    let seeds = crate::environment("RINGGATE_SIM_SEED").map_or(1..=4, |seed| seed..=seed);
    for seed in seeds {
        match run(seed, plan(seed), trouble(seed)) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(breach) => {
                panic!("seed {seed}: {breach}\nreplay: RINGGATE_SIM_SEED={seed} cargo test --test simulation hubs_keep")
            }
        }
    }
}
