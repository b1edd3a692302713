"""The rules of the turn game of chess_kafka.py: what follows from a command, without clock, dice or Kafka.

The same command on the same game says the same, so that what a backend repeats after it was killed is the same again.
The first two to join have the seats, others watch, who takes the king wins. (What else is legal for a piece is left to a chess library.)
"""

import re

PREFIX = "games.command.chess."
NEW_BOARD = "rnbqkbnrpppppppp" + "." * 32 + "PPPPPPPPRNBQKBNR"  # a8 to h1, white in capitals


def new_game():
    return {"seats": [], "board": NEW_BOARD, "moves": 0}


def play(game, command):
    """What follows from a command, as (type, target, payload), in order; changes the game."""
    me, wish, verb = command["user"]["user_id"], command["payload"], command["event_type"].removeprefix(PREFIX)
    sender, room = {"session_id": command["session_id"]}, {"room_id": wish["room_id"]}
    player = {"user_id": me, "username": command["user"]["username"]}
    seats = game["seats"]
    if not wish["room_id"].startswith("chess."):  # nobody comes into another's room by joining a game there
        return refusal(command, "forbidden", "rooms of this game are named chess.<any name>")
    if verb == "join":
        came = me not in seats and len(seats) < 2
        seats += [me] if came else []
        # The type table's row of lobby_joined lets the session into the room: what the room hears behind it, the session hears.
        now = {"player": player, "players": list(seats), "board": game["board"]}
        events = [("games.event.lobby_joined", sender, room | {"room_name": wish["room_id"]} | now)]
        return events + ([("games.event.player_joined", room, room | player | {"seat": len(seats)})] if came else [])
    if verb == "leave":
        events = [("games.event.room_left", sender, room)]  # and this row lets it out
        return events + (ended(game, room, me) if me in seats else [])
    squares = [wish.get("from"), wish.get("to")]
    if verb != "move" or not all(isinstance(name, str) and re.fullmatch("[a-h][1-8]", name) for name in squares):
        return refusal(command, "bad_request", "join, leave, or move from one square to another")
    if len(seats) < 2 or me != seats[game["moves"] % 2]:
        return refusal(command, "not_your_turn", "wait for your turn" if me in seats else "you have no seat")
    start, end = (8 * (8 - int(name[1])) + "abcdefgh".index(name[0]) for name in squares)
    piece, taken, white = game["board"][start], game["board"][end], game["moves"] % 2 == 0
    if not mine(piece, white) or mine(taken, white):
        return refusal(command, "bad_request", "move a piece of yours to where you have none")
    board = list(game["board"])
    board[start], board[end] = ".", piece
    game["board"], game["moves"] = "".join(board), game["moves"] + 1
    move = {"player_id": me, "from": squares[0], "to": squares[1], "piece": piece, "n": game["moves"]}
    moved = ("games.event.chess.moved", room, room | move)
    if taken in "Kk":
        return [moved] + ended(game, room, seats[white])
    # Only the other player sees this one; the others are told its place, so that nobody suspects a loss.
    other = seats[game["moves"] % 2]
    return [moved, ("games.event.chess.your_turn", room | {"only": [other]}, room | {"n": game["moves"] + 1})]


def mine(piece, white):
    return piece.isupper() if white else piece.islower()


def ended(game, room, loser):
    """The other one has won; seats are free again."""
    winner = next((user for user in game["seats"] if user != loser), None)
    game.update(new_game())
    return [("games.event.game_ended", room, room | {"winner_id": winner})]


def refusal(command, code, message):
    answer = {"code": code, "message": message, "correlation_id": command.get("correlation_id")}
    return [("games.event.error", {"session_id": command["session_id"]}, answer)]
