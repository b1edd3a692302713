"""Dialect A of ringgate (JSON, /ws) in Python: opens a room, talks in it, loses its connection in the middle and resumes.

    RINGGATE_TOKEN=$(ringgate token mint --sub bob) python3 chatter.py ws://127.0.0.1:9998 "Bob's den" 20

Arguments: server, the room's name, how many messages. Every message must come back once and in order: an event names the
place of the one before it in its stream, and a command that is sent again under its correlation id is done once. Ends
with exit code 0 and a line of JSON that says what it saw.
"""

import json
import os
import socket
import sys
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TIMEOUT = 20


class Session:
    def __init__(self, url, token):
        self.url, self.token = url + "/ws", token
        self.resume = None  # the resume token of the last system.authenticated
        self.positions = {}  # stream name -> {"epoch", "offset"}: how far we are
        self.names = {}  # handle -> stream name, of this connection
        self.fresh = set()  # streams without a frame: their first may name an older one
        self.chains = {}  # stream name -> frames in an unbroken chain
        self.recovered = 0
        self._open()

    def send(self, type, **fields):
        try:
            self.socket.send(json.dumps({"type": type, **fields}))
        except ConnectionClosed:
            pass  # read() notices, too, and resumes

    def drop(self):
        """Cuts the connection without a word, as a network that fails does."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def read(self):
        """The next message, across a reconnect; None if the connection was made anew: what has no answer is to be sent
        again."""
        try:
            message = json.loads(self.socket.recv(timeout=TIMEOUT))
        except ConnectionClosed:
            self._open()
            return None
        if message["type"] == "system.position":
            for stream in message["streams"]:
                self._introduce(**stream)
        elif len(message.get("at", [])) == 3:
            self._advance(*message["at"])
        return message

    def _open(self):
        self.names.clear()
        # The server pings by itself, so the library need not.
        self.socket = connect(self.url, ping_interval=None, compression=None)
        assert json.loads(self.socket.recv(timeout=TIMEOUT))["type"] == "system.welcome"
        known = {"resume": self.resume, "positions": self.positions} if self.resume else {"token": self.token}
        self.send("system.authenticate", **known)
        answer = json.loads(self.socket.recv(timeout=TIMEOUT))
        assert answer["type"] == "system.authenticated", answer
        if self.resume:
            assert answer["recovered"], answer
            self.recovered += 1
        self.resume = answer["resume"]

    def _introduce(self, handle, stream, epoch, offset):
        self.names[handle] = stream
        # After a resume the place we know counts: what is between it and the head is on its way.
        if self.positions.get(stream, {}).get("epoch") != epoch:
            self.positions[stream] = {"epoch": epoch, "offset": offset}
            self.fresh.add(stream)

    def _advance(self, handle, offset, prev):
        name = self.names[handle]
        known = self.positions[name]["offset"]
        whole = prev == known or (name in self.fresh and prev < known)
        assert whole and offset > known, f"{name}: {offset} follows {prev}, but we are at {known}"
        self.positions[name]["offset"] = offset
        self.fresh.discard(name)
        self.chains[name] = self.chains.get(name, 0) + 1


def main(url, room_name, count):
    session = Session(url, os.environ["RINGGATE_TOKEN"])
    session.send("games.command.create_room", game_type="bigger_dice", room_name=room_name, correlation_id="create")
    room, heard, resent = None, [], 0
    while room is None:
        message = session.read()
        assert message["type"] != "system.error", message
        room = message["room_id"] if message["type"] == "games.event.room_created" else None

    for n in range(1, count + 1):
        acknowledged, dropped = False, False
        while not acknowledged or len(heard) < n:
            if not acknowledged:
                session.send(
                    "chat.command.send_lobby_message", lobby_id=room, content=f"message {n}", correlation_id=f"say-{n}"
                )
            if n == count // 2 and not dropped:
                dropped = True
                session.drop()
            answered = False
            while not answered:
                message = session.read()
                answered = message is None
                if message is None:
                    resent += 1
                elif message["type"] == "chat.event.message_received":
                    heard.append(message["content"])
                    answered = acknowledged
                elif message.get("correlation_id") == f"say-{n}" and message["type"] == "system.ack":
                    acknowledged = answered = True
                elif message["type"] == "system.error":
                    # Too fast, or not quite in the room yet: a little later, under the same id.
                    assert message["code"] in ("rate_limited", "not_in_room"), message
                    time.sleep(0.1)
                    answered = True
    assert heard == [f"message {n}" for n in range(1, count + 1)], heard
    print(json.dumps({"heard": len(heard), "recovered": session.recovered, "resent": resent, "chains": session.chains}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
