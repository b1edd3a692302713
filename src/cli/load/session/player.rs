//! A player of a run: two sit in a room of their own and roll dice in turn, by the run's rate or as soon as they may. This
//! is the way of a command: gateway, bus, service, bus, gateway. Time is an argument; what to send is returned.
//!
//! Law: a player has at most one roll that was not told, and `rolled` under its correlation id tells it, once.

use crate::protocol::envelope::members::member;
use crate::protocol::envelope::put_string;

/// See the module.
#[derive(Debug)]
pub struct Player {
    /// User id, as JSON.
    id: String,
    host: bool,
    /// The room's name, as JSON.
    room_name: String,
    /// Its id, as JSON; empty until the player is in it.
    room: String,
    /// Rolls that the room has seen.
    rolls: u64,
    turn: bool,
    /// Number of this player's last command.
    number: u64,
    /// When the roll that was not told yet was due, ns.
    asked: Option<u64>,
    /// Not before this, ns.
    wait_until_ns: u64,
}

/// What an event means for the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing that counts.
    Nothing,
    /// The player is in the room now.
    InRoom,
    /// The roll that was due then, ns, is told.
    Told(u64),
    /// A roll is told that was not asked for, or again.
    Twice,
}

/// When the rolls of a room are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first one is, ns.
    pub from_ns: f64,
    /// Between two, ns; 0 = as soon as it may be.
    pub interval_ns: f64,
}

/// From a refusal to the next attempt: joining is allowed 5 times a second.
const RETRY_NS: u64 = 250_000_000;

impl Player {
    /// A player who is not in the room yet; the host makes it.
    #[must_use]
    pub fn new(user_id: &str, room_name: &str, host: bool) -> Self {
        Self {
            id: quoted(user_id),
            host,
            room_name: quoted(room_name),
            room: String::new(),
            rolls: 0,
            turn: false,
            number: 0,
            asked: None,
            wait_until_ns: 0,
        }
    }

    /// The command that leads into the room, if it is time; call again until it has worked.
    pub fn enter(&mut self, now: u64) -> Option<String> {
        if now < self.wait_until_ns {
            return None;
        }
        self.wait_until_ns = u64::MAX;
        // The gateway does a command once under one id.
        self.number += 1;
        let Self { room_name, number, .. } = self;
        Some(match self.host {
            true => format!(
                r#"{{"type":"games.command.create_room","game_type":"bigger_dice","room_name":{room_name},"correlation_id":"{number}"}}"#
            ),
            false => {
                format!(r#"{{"type":"games.command.join_room","room_name":{room_name},"correlation_id":"{number}"}}"#)
            }
        })
    }

    /// The next roll, if it is this player's and due; else when to ask again, ns.
    ///
    /// # Errors
    /// The time; `u64::MAX` if an event must come first.
    pub fn roll(&mut self, schedule: Schedule, now: u64) -> Result<String, u64> {
        if !self.turn || self.asked.is_some() {
            return Err(u64::MAX);
        }
        let due = match schedule.interval_ns {
            0.0 => now,
            interval => (schedule.from_ns + self.rolls as f64 * interval) as u64,
        };
        let earliest = due.max(self.wait_until_ns);
        if earliest > now {
            return Err(earliest);
        }
        self.number += 1;
        (self.asked, self.turn) = (Some(due), false);
        let Self { room, number, .. } = self;
        Ok(format!(r#"{{"type":"games.command.bigger_dice.roll","room_id":{room},"correlation_id":"{number}"}}"#))
    }

    /// Takes an event or an error in.
    pub fn see(&mut self, event_type: &str, text: &str, now: u64) -> Seen {
        let own = |name| member(text, name) == Some(&*self.id);
        match event_type {
            "games.event.room_created" | "games.event.lobby_joined" => {
                self.room = member(text, "room_id").unwrap_or_default().to_owned();
                self.wait_until_ns = 0;
                return Seen::InRoom;
            }
            "games.event.player_joined" => {
                let who = member(text, "player").and_then(|player| member(player, "user_id"));
                self.turn |= self.host && who != Some(&*self.id);
            }
            "games.event.bigger_dice.rolled" => {
                self.rolls += 1;
                if own("player_id") {
                    let told = member(text, "correlation_id").map(|id| id.trim_matches('"'));
                    let asked = self.asked.take_if(|_| told == Some(&*self.number.to_string()));
                    return asked.map_or(Seen::Twice, Seen::Told);
                }
            }
            "games.event.turn_changed" => self.turn = own("player_id"),
            "games.event.game_ended" => self.turn = self.host,
            "system.error" => self.refused(text, now),
            _ => {}
        }
        Seen::Nothing
    }

    /// Whether a roll was not told yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// What was refused is tried again: there is no room yet, or the gateway has not let us in quite.
    fn refused(&mut self, text: &str, now: u64) {
        let id = member(text, "correlation_id").map(|id| id.trim_matches('"'));
        if id != Some(&*self.number.to_string()) || (!self.room.is_empty() && self.asked.is_none()) {
            return;
        }
        self.turn |= self.asked.take().is_some();
        self.wait_until_ns = now + RETRY_NS;
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    put_string(&mut out, text);
    String::from_utf8(out).expect("a string of UTF-8 is written as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Schedule = Schedule { from_ns: 0.0, interval_ns: 0.0 };
    const CREATED: &str = r#"{"type":"games.event.room_created","room_id":"r","at":[1,1,0]}"#;
    const JOINED: &str = r#"{"type":"games.event.player_joined","player":{"user_id":"bob"},"at":[2,2,1]}"#;

    fn host() -> Player {
        let mut host = Player::new("ann", "den", true);
        assert!(host.enter(0).unwrap().contains(r#""room_name":"den""#));
        assert_eq!(host.see("games.event.room_created", CREATED, 1), Seen::InRoom);
        assert_eq!(host.roll(AT_ONCE, 2), Err(u64::MAX), "nobody to play with");
        host.see("games.event.player_joined", JOINED, 3);
        host
    }

    fn rolled(player: &str, id: &str) -> String {
        format!(r#"{{"type":"games.event.bigger_dice.rolled","player_id":"{player}","correlation_id":"{id}"}}"#)
    }

    /// A player rolls in turn, one roll at a time; the one that is told was due when it was sent; a second telling, or one
    /// of another roll, is seen.
    #[test]
    fn players_take_turns() {
        let mut host = host();
        assert!(host.roll(AT_ONCE, 5).unwrap().contains(r#""room_id":"r","correlation_id":"2""#));
        assert_eq!((host.roll(AT_ONCE, 6), host.waits()), (Err(u64::MAX), true));
        let own = rolled("ann", "2");
        assert_eq!(host.see("games.event.bigger_dice.rolled", &rolled("ann", "1"), 7), Seen::Twice);
        assert_eq!(host.see("games.event.bigger_dice.rolled", &own, 7), Seen::Told(5));
        assert_eq!(host.see("games.event.bigger_dice.rolled", &own, 7), Seen::Twice);
        host.see("games.event.turn_changed", r#"{"player_id":"bob"}"#, 8);
        assert_eq!(host.roll(AT_ONCE, 9), Err(u64::MAX));
        host.see("games.event.bigger_dice.rolled", &rolled("bob", "1"), 10);
        host.see("games.event.game_ended", "{}", 11);
        assert!(host.roll(AT_ONCE, 12).is_ok(), "the host begins anew");
    }

    /// At a rate each roll of the room has its time, and one that could not be sent then is late from that time on.
    #[test]
    fn rolls_are_due_by_the_schedule() {
        let schedule = Schedule { from_ns: 1_000.0, interval_ns: 100.0 };
        let mut host = host();
        assert_eq!(host.roll(schedule, 10), Err(1_000));
        assert!(host.roll(schedule, 1_500).is_ok());
        assert_eq!(host.see("games.event.bigger_dice.rolled", &rolled("ann", "2"), 1_600), Seen::Told(1_000));
        host.see("games.event.turn_changed", r#"{"player_id":"ann"}"#, 1_600);
        host.rolls = 50;
        assert_eq!(host.roll(schedule, 1_600), Err(6_000));
    }

    /// What is refused is tried again a little later, a roll under a new id.
    #[test]
    fn refusals_are_tried_again() {
        let mut guest = Player::new("bob", "den", false);
        assert!(guest.enter(0).is_some() && guest.enter(u64::MAX - 1).is_none());
        guest.see("system.error", r#"{"correlation_id":"1","code":"room_not_found"}"#, 10);
        assert!(guest.enter(11).is_none() && guest.enter(10 + RETRY_NS).is_some());
        let mut host = host();
        assert!(host.roll(AT_ONCE, 5).is_ok());
        host.see("system.error", r#"{"correlation_id":"7"}"#, 6);
        assert!(host.waits(), "that was another's");
        host.see("system.error", r#"{"correlation_id":"2"}"#, 6);
        assert_eq!(host.roll(AT_ONCE, 7), Err(6 + RETRY_NS));
        assert!(host.roll(AT_ONCE, 6 + RETRY_NS).unwrap().contains(r#""correlation_id":"3""#));
    }
}
