"""A minimal game server: players move, everybody sees it. It is a client of ringgate with the role `publisher`.

    RINGGATE_TOKEN=$(ringgate token mint --sub server --role publisher) python game_server.py --room arena

A player sends a command (JSON, kind 0x8000). This server keeps the game's state and publishes two kinds of frames:
  WORLD_DELTA  where a player is. Only the newest value counts, so a slow client may miss older ones.
  EVENT        what happened. Nobody misses one.
"""

import argparse
import hashlib
import json
import os
import struct

from frames import ACK, ERROR, EVENT, JOINED, PLAYER_COMMAND, WORLD_DELTA, Session

SCORED = 1  # our own kind of EVENT


def player_key(user: str) -> int:
    """The coalescing key of a player's deltas: a hash of the name in 64 bits."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "little")


class Game:
    def __init__(self, session: Session):
        self.session = session
        self.players = {}  # user id -> {"x", "score"}
        self.events = 0
        self.correlation = 0
        self.unanswered = {}  # correlation -> the frame's arguments, until its ACK

    def on_command(self, user: str, command: dict):
        """The rules: `move` changes a place, `score` is an event for all."""
        player = self.players.setdefault(user, {"x": 0, "score": 0})
        if command["do"] == "move":
            player["x"] += command["by"]
            self.publish_delta(user)
        elif command["do"] == "score":
            player["score"] += command["points"]
            self.publish_event(SCORED, {"player": user, "score": player["score"]})

    def publish_delta(self, user: str):
        body = json.dumps({"player": user, "x": self.players[user]["x"]}).encode()
        payload = struct.pack("<Q", player_key(user)) + body  # a delta's payload begins with its key
        self.session.send(WORLD_DELTA, payload, stream=self.session.relay)  # number 0: no ACK wanted

    def publish_event(self, kind: int, event: dict):
        self.events += 1
        self.correlation += 1
        event["n"] = self.events  # so that players can count for themselves
        self.unanswered[self.correlation] = (kind, json.dumps(event).encode())
        self.send_event(self.correlation)

    def send_event(self, correlation: int):
        kind, payload = self.unanswered[correlation]
        self.session.send(EVENT, payload, kind=kind, stream=self.session.relay, number=correlation)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:9998")
    parser.add_argument("--token", default=os.environ.get("RINGGATE_TOKEN"))
    parser.add_argument("--room", default="arena")
    options = parser.parse_args()

    session = Session(options.url, options.token, options.room)
    game = Game(session)
    for frame in session.frames():
        if frame.type == JOINED:
            # The room is ours; a publisher's first JOIN makes it. After a resume this comes again: what was not
            # acknowledged may be lost, so it is sent again (players tell a double by `n`).
            for correlation in list(game.unanswered):
                game.send_event(correlation)
            print(f"in room {options.room}, {session.reconnects} reconnects", flush=True)
        elif frame.type == PLAYER_COMMAND:
            # payload: the player's correlation (u64), length of the user id (u16), user id, what the player sent
            _, length = struct.unpack_from("<QH", frame.payload)
            user, command = frame.payload[10 : 10 + length].decode(), frame.payload[10 + length :]
            try:
                game.on_command(user, json.loads(command))
            except (ValueError, KeyError, TypeError) as error:
                print(f"ignored {command!r} of {user}: {error!r}", flush=True)  # players send what they like
        elif frame.type == ACK:
            game.unanswered.pop(frame.number, None)
        elif frame.type == ERROR:
            print(f"error {frame.kind}: {frame.payload.decode()}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
