//! Players of one room, and what they must see.

use std::time::Duration;

use serde_json::{Value, json};

use super::broker::Broker;
use super::gateway::{Client, Gateway, ringgate};

/// A broker with the topics of a deployment, of so many partitions, and a gateway.
pub fn table(partitions: u32) -> (Broker, Gateway) {
    let broker = Broker::start();
    let (fine, _, complaints) = ringgate(
        broker.address(),
        &["topics", "create", "--partitions", &partitions.to_string(), "--retention-s", "3600"],
    );
    assert!(fine, "{complaints}");
    let gateway = Gateway::start(broker.address());
    (broker, gateway)
}

/// Two players in a room with a password.
pub struct Game {
    players: [Client; 2],
    /// Its id.
    pub room: String,
    /// Whose turn it is.
    turn: usize,
    /// Whether a round has begun.
    begun: bool,
    /// Places of events that each player has seen, by stream.
    places: [Vec<(Value, u64)>; 2],
}

impl Game {
    /// The first makes the room, the second joins it, once with a wrong password.
    pub fn open(gateway: &Gateway) -> Self {
        let mut players = ["ann", "bob"].map(|user| Client::open_as(gateway, user, json!({})));
        players[0].send(&json!({
            "type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "Den", "password": "sesame"
        }));
        let room = players[0].until("games.event.room_created")["room_id"].as_str().unwrap().to_owned();
        let mut game = Self { players, room, turn: 0, begun: false, places: Default::default() };
        game.try_password("wrong", "wrong_password");
        game.players[1].send(&json!({"type": "games.command.join_room", "room_name": "Den", "password": "sesame"}));
        game.until(1, "games.event.lobby_joined");
        game.until(0, "games.event.player_joined");
        game
    }

    /// A third one tries a password and is refused.
    pub fn try_password(&mut self, password: &str, code: &str) {
        let join = json!({"type": "games.command.join_room", "room_name": "Den", "password": password});
        self.players[1].send(&join);
        assert_eq!(self.until(1, "system.error")["code"], code);
    }

    /// Whose turn it is rolls; both see it, once. Starts a game if none is under way.
    pub fn roll(&mut self) {
        self.ask_to_roll();
        self.see_roll();
    }

    /// Whose turn it is sends the command, which the gateway accepts.
    pub fn ask_to_roll(&mut self) {
        let at = if self.begun { self.turn } else { 0 };
        let roll = json!({
            "type": "games.command.bigger_dice.roll", "room_id": self.room, "correlation_id": "roll"
        });
        self.players[at].send(&roll);
        self.until(at, "system.ack");
    }

    /// Both see what came of it.
    pub fn see_roll(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            for at in 0..2 {
                self.until(at, "games.event.game_started");
            }
            self.turn = 0;
            return;
        }
        let mut rolled = Value::Null;
        for at in 0..2 {
            let seen = self.until(at, "games.event.bigger_dice.rolled");
            assert!(at == 0 || seen["roll"] == rolled["roll"], "{seen} {rolled}");
            rolled = seen;
        }
        let total = rolled["total"].as_u64().or(rolled["score"].as_u64());
        self.turn = 1 - self.turn;
        self.begun = total.is_none_or(|total| total < 50);
    }

    /// A battle of so many events begins.
    pub fn battle(&mut self, events: u32, interval_ms: u32) {
        let start = json!({
            "type": "battle.command.start", "room_id": self.room, "events": events, "interval_ms": interval_ms
        });
        self.players[0].send(&start);
    }

    /// Both see the next event of the battle: its number, `None` for its end.
    pub fn see_battle(&mut self) -> Option<u64> {
        let mut numbers = [0, 1].map(|at| {
            loop {
                let message = self.next(at);
                match message["type"].as_str().unwrap() {
                    "battle.event.timeline" => break Some(message["n"].as_u64().unwrap()),
                    "battle.event.end" => break None,
                    _ => {}
                }
            }
        });
        numbers.sort_unstable();
        assert_eq!(numbers[0], numbers[1]);
        numbers[0]
    }

    /// A player's next message of this type.
    pub fn until(&mut self, at: usize, wanted: &str) -> Value {
        loop {
            let message = self.next(at);
            if message["type"] == wanted {
                return message;
            }
            assert_ne!(message["type"], "system.error", "{message}");
        }
    }

    /// A player's next message; its place must be behind the one before in its stream, and nothing be missing between.
    fn next(&mut self, at: usize) -> Value {
        let message = self.players[at].read().unwrap();
        assert_ne!(message["type"], "close", "{message}");
        if let Some(place) = message["at"].as_array() {
            let (stream, offset, prev) = (&place[0], place[1].as_u64().unwrap(), place[2].as_u64());
            match self.places[at].iter_mut().find(|(known, _)| known == stream) {
                Some((_, last)) => {
                    assert!(offset > *last && prev == Some(*last), "{message} behind {last}");
                    *last = offset;
                }
                None => self.places[at].push((stream.clone(), offset)),
            }
        }
        message
    }
}

/// How long two workers may take to change places when one vanishes.
pub const TAKEOVER: Duration = Duration::from_secs(25);
