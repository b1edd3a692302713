//! bigger_dice (PROTOCOLS A): players in the order in which they joined take turns, a roll adds 1–6 to the score, the
//! first to reach 50 wins. Pure rules; the rooms service says who plays and tells the members.
//!
//! Invariants: while a game runs there are two players or more, and exactly one of them has the turn; a score is the sum
//! of its player's rolls, and below 50.

use serde::{Deserialize, Serialize};

use crate::id::EventId;

/// A running game.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Dice {
    players: Vec<(Box<str>, u32)>,
    turn: usize,
}

/// What a roll has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rolled {
    /// The player's score now.
    pub score: u32,
    /// Whether that wins the game, which is then over.
    pub won: bool,
}

/// What a player's leaving has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing that others see.
    Nothing,
    /// The turn is another's.
    TurnPassed,
    /// One player is left, and has won.
    LastOne,
}

impl Dice {
    /// A game of these players, the first of whom begins; `None` if they are fewer than two.
    #[must_use]
    pub fn start<'a>(players: impl Iterator<Item = &'a str>) -> Option<Self> {
        let players: Vec<_> = players.map(|user| (user.into(), 0)).collect();
        (players.len() >= 2).then_some(Self { players, turn: 0 })
    }

    /// Whose turn it is.
    #[must_use]
    pub fn turn(&self) -> &str {
        &self.players[self.turn].0
    }

    /// The players in the order of their turns, with their scores.
    pub fn scores(&self) -> impl Iterator<Item = (&str, u32)> {
        self.players.iter().map(|(user, score)| (&**user, *score))
    }

    /// The player whose turn it is rolls; the turn passes unless that wins.
    pub fn roll(&mut self, value: u32) -> Rolled {
        let score = &mut self.players[self.turn].1;
        *score += value;
        let rolled = Rolled { score: *score, won: *score >= GOAL };
        if !rolled.won {
            self.turn = (self.turn + 1) % self.players.len();
        }
        rolled
    }

    /// A player leaves, with the score.
    pub fn leave(&mut self, user: &str) -> Left {
        let Some(at) = self.players.iter().position(|(player, _)| **player == *user) else { return Left::Nothing };
        self.players.remove(at);
        let had_turn = at == self.turn;
        if at < self.turn {
            self.turn -= 1;
        }
        self.turn %= self.players.len().max(1);
        match (self.players.len(), had_turn) {
            (0 | 1, _) => Left::LastOne,
            (_, true) => Left::TurnPassed,
            (_, false) => Left::Nothing,
        }
    }
}

/// What the die shows, 1–6: seeded by the command's id, and by a secret, since a client chooses what its command's id is
/// made of and could else look for one that wins. (2^64 is no multiple of 6; the difference is beyond measure.)
#[must_use]
pub fn die(secret: &[u8; 16], command: EventId) -> u32 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(secret).chain_update(command.0).finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&hash[..8]);
    (u64::from_be_bytes(head) % 6) as u32 + 1
}

/// Whom the rules are for: `game_type`.
pub const GAME_TYPE: &str = "bigger_dice";
/// Players of a game.
pub const PLAYERS_MAX: u32 = 6;
/// The score that wins.
const GOAL: u32 = 50;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A game needs two, begins with the first, and goes round.
    #[test]
    fn turns_go_round() {
        assert_eq!(Dice::start(["a"].into_iter()), None);
        let mut game = Dice::start(["a", "b", "c"].into_iter()).unwrap();
        for user in ["a", "b", "c", "a"] {
            assert_eq!(game.turn(), user);
            assert!(!game.roll(6).won);
        }
        assert_eq!(game.leave("b"), Left::TurnPassed);
        assert_eq!(game.turn(), "c");
        assert_eq!(game.leave("x"), Left::Nothing);
        assert_eq!(game.leave("a"), Left::LastOne);
        assert_eq!(game.scores().collect::<Vec<_>>(), [("c", 6)]);
    }

    /// A die shows each of its sides, the same for the same command, another for another secret.
    #[test]
    fn dice_are_fair_enough_and_repeat() {
        let mut sides = [0; 7];
        for n in 0..6000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let value = die(&[1; 16], EventId(id));
            assert_eq!(value, die(&[1; 16], EventId(id)));
            sides[value as usize] += 1;
        }
        assert_eq!(sides[0], 0);
        assert!(sides[1..].iter().all(|count| (850..1150).contains(count)), "{sides:?}");
        assert!((0..20).any(|n| die(&[1; 16], EventId([n; 16])) != die(&[2; 16], EventId([n; 16]))));
    }

    proptest! {
        /// Whatever is rolled and whoever leaves: one player has the turn, scores are sums, who wins has 50.
        #[test]
        fn the_rules_hold(steps in proptest::collection::vec((1u32..=6, 0usize..20), 1..200)) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let mut game = Dice::start(names.into_iter()).unwrap();
            let mut sums = std::collections::BTreeMap::new();
            for (value, leaver) in steps {
                let user = game.turn().to_owned();
                let rolled = game.roll(value);
                *sums.entry(user).or_insert(0) += value;
                let all: Vec<_> = game.scores().map(|(user, score)| (user.to_owned(), score)).collect();
                prop_assert!(all.iter().all(|(user, score)| sums.get(user).copied().unwrap_or(0) == *score));
                prop_assert_eq!(rolled.won, all.iter().any(|(_, score)| *score >= 50));
                if rolled.won {
                    return Ok(());
                }
                if let Some(name) = names.get(leaver) {
                    let (turn, had) = (game.turn().to_owned(), all.iter().any(|(user, _)| user == name));
                    match game.leave(name) {
                        Left::LastOne => return Ok(()),
                        Left::TurnPassed => prop_assert_eq!(&turn, name),
                        Left::Nothing => prop_assert!(game.turn() == turn && (turn != *name || !had)),
                    }
                }
            }
        }
    }
}
