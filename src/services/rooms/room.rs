//! A room as it is kept, and how events show it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::SessionId;
use crate::limits;
use crate::services::bigger_dice::Dice;
use crate::services::seats::Player;
use crate::services::{NEVER, after};
use crate::time::WallMillis;

/// A room's state: its record.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Room {
    pub(super) id: Box<str>,
    /// When its creation was asked for.
    pub(super) made: WallMillis,
    pub(super) name: Box<str>,
    pub(super) game_type: Box<str>,
    pub(super) capacity: u32,
    /// Argon2, in PHC form; `None` = open to all.
    pub(super) password: Option<Box<str>>,
    /// In the order in which they joined; the first is the host.
    pub(super) players: Vec<Player>,
    /// When it ends if nobody comes.
    pub(super) empty_until: Option<WallMillis>,
    pub(super) game: Option<Dice>,
    guesses: Vec<Guesses>,
}

/// Passwords a user tried.
#[derive(Serialize, Deserialize, Debug)]
struct Guesses {
    user: Box<str>,
    count: u32,
    until: WallMillis,
}

impl Room {
    pub(super) fn new(id: &str, made: WallMillis, name: &str, game_type: &str, capacity: u32) -> Self {
        Self {
            id: id.into(),
            made,
            name: name.into(),
            game_type: game_type.into(),
            capacity,
            password: None,
            players: Vec::new(),
            empty_until: None,
            game: None,
            guesses: Vec::new(),
        }
    }

    pub(super) fn player(&self, user: &str) -> Option<&Player> {
        self.players.iter().find(|player| *player.user == *user)
    }

    pub(super) fn player_mut(&mut self, user: &str) -> Option<&mut Player> {
        self.players.iter_mut().find(|player| *player.user == *user)
    }

    /// The player of this session.
    pub(super) fn player_of(&mut self, session: SessionId) -> Option<&mut Player> {
        self.players.iter_mut().find(|player| player.sessions().any(|other| other == session))
    }

    pub(super) fn is_full(&self) -> bool {
        self.players.len() >= self.capacity as usize
    }

    /// When something happens in it by itself.
    pub(super) fn deadline(&self) -> WallMillis {
        let seats = self.players.iter().map(Player::deadline).min().unwrap_or(NEVER);
        seats.min(self.empty_until.unwrap_or(NEVER))
    }

    /// Counts a password that the user tries; `false` if that is one too many.
    pub(super) fn may_guess(&mut self, user: &str, now: WallMillis) -> bool {
        self.guesses.retain(|guesses| guesses.until > now);
        let all: u32 = self.guesses.iter().map(|guesses| guesses.count).sum();
        let own = self.guesses.iter_mut().find(|guesses| *guesses.user == *user);
        match own {
            Some(own) if own.count >= limits::GUESSES_PER_USER => return false,
            _ if all >= limits::GUESSES_PER_ROOM => return false,
            Some(own) => own.count += 1,
            None => {
                let until = after(now, limits::GUESS_WINDOW);
                self.guesses.push(Guesses { user: user.into(), count: 1, until });
            }
        }
        true
    }

    /// The user knows the password.
    pub(super) fn forget_guesses(&mut self, user: &str) {
        self.guesses.retain(|guesses| *guesses.user != *user);
    }

    pub(super) fn people(&self) -> Vec<Person<'_>> {
        self.players.iter().map(Person::of).collect()
    }

    pub(super) fn scores(&self) -> BTreeMap<&str, u32> {
        self.game.iter().flat_map(Dice::scores).collect()
    }

    /// As `rooms_listed` shows it.
    pub(super) fn listed(&self) -> Listed<'_> {
        Listed {
            room_id: &self.id,
            room_name: &self.name,
            game_type: &self.game_type,
            host: self.players.first().map(Person::of),
            players: self.players.len(),
            max_players: self.capacity,
            is_password_protected: self.password.is_some(),
            started: self.game.is_some(),
        }
    }
}

/// A player as events show it.
#[derive(Clone, Copy, Serialize, Debug)]
pub(super) struct Person<'a> {
    pub(super) user_id: &'a str,
    pub(super) username: &'a str,
}

impl<'a> Person<'a> {
    pub(super) fn of(player: &'a Player) -> Self {
        Self { user_id: &player.user, username: &player.name }
    }
}

/// See [`Room::listed`].
#[derive(Serialize, Debug)]
pub(super) struct Listed<'a> {
    room_id: &'a str,
    room_name: &'a str,
    game_type: &'a str,
    host: Option<Person<'a>>,
    players: usize,
    max_players: u32,
    is_password_protected: bool,
    started: bool,
}

/// Payload of `games.event.rooms_listed`.
#[derive(Serialize, Debug)]
pub(super) struct RoomsListed<'a> {
    pub(super) rooms: Vec<Listed<'a>>,
    /// Whether there are older ones.
    pub(super) more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
}

/// Payload of `games.event.room_created`.
#[derive(Serialize, Debug)]
pub(super) struct RoomCreated<'a> {
    pub(super) room_id: &'a str,
    pub(super) room_name: &'a str,
    pub(super) game_type: &'a str,
    pub(super) host_id: &'a str,
    pub(super) host_name: &'a str,
    pub(super) is_password_protected: bool,
    pub(super) max_players: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
}

/// Payload of `games.event.lobby_joined`.
#[derive(Serialize, Debug)]
pub(super) struct LobbyJoined<'a> {
    pub(super) room_id: &'a str,
    pub(super) room_name: &'a str,
    pub(super) game_type: &'a str,
    pub(super) host_id: &'a str,
    pub(super) player: Person<'a>,
    pub(super) players: Vec<Person<'a>>,
    pub(super) max_players: u32,
    /// Whose turn it is while a game runs.
    pub(super) turn: Option<&'a str>,
    pub(super) scores: BTreeMap<&'a str, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
}

/// Payload of `games.event.player_joined` and `player_left`.
#[derive(Serialize, Debug)]
pub(super) struct PlayerMoved<'a> {
    pub(super) room_id: &'a str,
    pub(super) player: Person<'a>,
    /// The host now; absent if nobody is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host_id: Option<&'a str>,
    /// Why the player left: `left`, `disconnected`, `kicked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
}

/// Payload of `games.event.room_left`.
#[derive(Serialize, Debug)]
pub(super) struct RoomLeft<'a> {
    pub(super) room_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
}

/// Payload of `games.event.game_started`.
#[derive(Serialize, Debug)]
pub(super) struct GameStarted<'a> {
    pub(super) room_id: &'a str,
    pub(super) game_type: &'a str,
    /// In the order of their turns.
    pub(super) players: Vec<Person<'a>>,
}

/// Payload of `games.event.bigger_dice.rolled`.
#[derive(Serialize, Debug)]
pub(super) struct DiceRolled<'a> {
    pub(super) room_id: &'a str,
    pub(super) player_id: &'a str,
    pub(super) roll: u32,
    pub(super) new_score: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<&'a str>,
}

/// Payload of `games.event.turn_changed`.
#[derive(Serialize, Debug)]
pub(super) struct TurnChanged<'a> {
    pub(super) room_id: &'a str,
    pub(super) player_id: &'a str,
}

/// Payload of `games.event.game_ended`.
#[derive(Serialize, Debug)]
pub(super) struct GameEnded<'a> {
    pub(super) room_id: &'a str,
    pub(super) winner_id: &'a str,
    pub(super) scores: BTreeMap<&'a str, u32>,
}
