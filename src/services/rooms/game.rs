//! bigger_dice in a room: who may roll, and what the members hear.

use super::room::{DiceRolled, GameEnded, GameStarted, Room, TurnChanged};
use crate::message::ErrorCode;
use crate::services::bigger_dice::{Dice, GAME_TYPE, Left, die};
use crate::services::{Caller, Outbox, Refused};

/// A player rolls; the host's first roll starts the game.
pub(super) fn roll(room: &mut Room, caller: &Caller<'_>, secret: &[u8; 16], out: &mut Outbox) -> Result<(), Refused> {
    if *room.game_type != *GAME_TYPE {
        let text = format!("the room's game is {}; roll in a room of {GAME_TYPE}", room.game_type);
        return Err(Refused::bad(text));
    }
    if room.game.is_none() {
        start(room, caller, out)?;
    }
    let game = room.game.as_mut().expect("it has just been started, or was running");
    if game.turn() != caller.user {
        return Err(Refused(ErrorCode::NotYourTurn, format!("it is the turn of {}; wait for yours", game.turn())));
    }
    let value = die(secret, caller.sender.command);
    let rolled = game.roll(value);
    let shown = DiceRolled {
        room_id: &room.id,
        player_id: caller.user,
        roll: value,
        new_score: rolled.score,
        correlation_id: caller.sender.correlation,
    };
    out.tell("games.event.bigger_dice.rolled", &room.id, &shown);
    if rolled.won {
        end(room, caller.user, out);
    } else {
        turn_changed(room, out);
    }
    Ok(())
}

/// A player has left the room, and with it the game.
pub(super) fn player_left(room: &mut Room, user: &str, out: &mut Outbox) {
    let Some(game) = &mut room.game else { return };
    match game.leave(user) {
        Left::Nothing => {}
        Left::TurnPassed => turn_changed(room, out),
        Left::LastOne => {
            let last = game.scores().next().map(|(user, _)| user.to_owned());
            match last {
                Some(winner) => end(room, &winner, out),
                None => room.game = None,
            }
        }
    }
}

fn start(room: &mut Room, caller: &Caller<'_>, out: &mut Outbox) -> Result<(), Refused> {
    let host = &room.players[0].user;
    let not_yet = |text: String| Refused(ErrorCode::GameNotStarted, text);
    if **host != *caller.user {
        return Err(not_yet(format!("the game starts with the first roll of the host, {host}; wait for it")));
    }
    let game = Dice::start(room.players.iter().map(|player| &*player.user));
    let game = game.ok_or_else(|| not_yet("a game needs two players; wait for another".into()))?;
    let started = GameStarted { room_id: &room.id, game_type: GAME_TYPE, players: room.people() };
    out.tell("games.event.game_started", &room.id, &started);
    room.game = Some(game);
    Ok(())
}

fn turn_changed(room: &Room, out: &mut Outbox) {
    let Some(game) = &room.game else { return };
    let changed = TurnChanged { room_id: &room.id, player_id: game.turn() };
    out.tell("games.event.turn_changed", &room.id, &changed);
}

fn end(room: &mut Room, winner_id: &str, out: &mut Outbox) {
    let ended = GameEnded { room_id: &room.id, winner_id, scores: room.scores() };
    out.tell("games.event.game_ended", &room.id, &ended);
    room.game = None;
}
