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
    rolls: u32,
    /// What they have rolled, together; a game ends with 50.
    scores: [u64; 2],
    /// What came before what was waited for.
    kept: [Vec<Value>; 2],
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
        let mut game = Self {
            players,
            room,
            turn: 0,
            rolls: 0,
            scores: [0; 2],
            kept: Default::default(),
            places: Default::default(),
        };
        game.try_password(gateway, "wrong");
        game.players[1].send(&json!({"type": "games.command.join_room", "room_name": "Den", "password": "sesame"}));
        game.until(1, "games.event.lobby_joined");
        game.until(0, "games.event.player_joined");
        game
    }

    /// A third one tries a password and is refused.
    pub fn try_password(&self, gateway: &Gateway, password: &str) {
        let mut stranger = Client::open_as(gateway, "cay", json!({}));
        stranger.send(&json!({"type": "games.command.join_room", "room_name": "Den", "password": password}));
        assert_eq!(stranger.until("system.error")["code"], "wrong_password");
    }

    /// Whose turn it is rolls; both see it, once. The first roll begins the game.
    pub fn roll(&mut self) {
        self.ask_to_roll();
        self.see_roll();
    }

    /// Whose turn it is sends the command, which the gateway accepts.
    pub fn ask_to_roll(&mut self) {
        // Of its own: the same command again would be done once.
        self.rolls += 1;
        let roll = json!({
            "type": "games.command.bigger_dice.roll", "room_id": self.room, "correlation_id": self.rolls.to_string()
        });
        self.players[self.turn].send(&roll);
        self.until(self.turn, "system.ack");
    }

    /// Both see what came of it.
    pub fn see_roll(&mut self) {
        let roller = ["ann", "bob"][self.turn];
        let rolled = [0, 1].map(|at| self.until(at, "games.event.bigger_dice.rolled"));
        for seen in &rolled {
            let score = self.scores[self.turn] + seen["roll"].as_u64().unwrap();
            assert_eq!((&seen["player_id"], &seen["new_score"]), (&json!(roller), &json!(score)), "{seen}");
        }
        self.scores[self.turn] += rolled[0]["roll"].as_u64().unwrap();
        self.turn = 1 - self.turn;
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
        let [a, b] = [0, 1].map(|at| {
            let event = self.first(at, &["battle.event.timeline", "battle.event.end"]);
            (event["type"] == "battle.event.timeline").then(|| event["n"].as_u64().unwrap())
        });
        assert_eq!(a, b);
        a
    }

    /// A player's next message of this type.
    pub fn until(&mut self, at: usize, wanted: &str) -> Value {
        self.first(at, &[wanted])
    }

    /// A player's next message of one of these types; others are kept, for an answer may come behind its events.
    fn first(&mut self, at: usize, wanted: &[&str]) -> Value {
        let fits = |message: &Value| wanted.iter().any(|wanted| message["type"] == *wanted);
        if let Some(found) = self.kept[at].iter().position(fits) {
            return self.kept[at].remove(found);
        }
        loop {
            let message = self.next(at);
            if fits(&message) {
                return message;
            }
            assert_ne!(message["type"], "system.error", "{message}");
            self.kept[at].push(message);
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
