"""Dialect B of ringgate (room hub, /ws/rooms/{code}) in Python: makes a room by HTTP, two players enter it and talk, one of
them loses the connection in the middle and resumes.

    python3 hub_player.py ws://127.0.0.1:9998 20

Arguments: server, how many messages each says. Both must see every message once and in one order: an event names the
place of the one before it. Ends with exit code 0 and a line of JSON that says what they saw.
"""

import json
import socket
import sys
import time
import urllib.request

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

TIMEOUT = 20


def call(url, path, **body):
    """A call of the rooms API."""
    request = urllib.request.Request(
        "http" + url.removeprefix("ws") + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


class Player:
    def __init__(self, url, ticket):
        self.url = f"{url}/ws/rooms/{ticket['code']}?player_id={ticket['player_id']}&token={ticket['token']}"
        self.id = ticket["player_id"]
        self.heard, self.chain = [], 0
        self._open("")

    def send(self, type, correlation_id, **payload):
        self.last = json.dumps({"type": type, "correlation_id": correlation_id, "payload": payload})
        self.socket.send(self.last)

    def read(self):
        """The next message; those of the room are in their order."""
        message = json.loads(self.socket.recv(timeout=TIMEOUT))
        if message["type"] == "error":
            # Too fast: a little later, under the same id.
            assert message["payload"]["code"] == "rate_limited", message
            assert message["correlation_id"] == json.loads(self.last)["correlation_id"], message
            time.sleep(0.1)
            self.socket.send(self.last)
            return message
        if message["event"] == "chat":
            self.heard.append((message["payload"]["player_id"], message["payload"]["message"]))
        if message.get("at", [None])[0] == self.room:
            _, offset, prev = message["at"]
            assert prev == self.offset < offset, f"{offset} follows {prev}, but we are at {self.offset}"
            self.offset = offset
            self.chain += 1
        return message

    def read_to(self, event, correlation_id=None):
        while True:
            message = self.read()
            if message.get("event") == event and message.get("correlation_id") == correlation_id:
                return message["payload"]

    def hear(self, count):
        while len(self.heard) < count:
            self.read()

    def drop(self):
        """Cuts the connection without a word, as a network that fails does."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)
        try:
            while True:
                self.read()  # what had come before
        except ConnectionClosed:
            pass

    def resume(self):
        self._open(f"&epoch={self.epoch}&offset={self.offset}")

    def _open(self, position):
        # The server pings by itself, so the library need not.
        self.socket = connect(self.url + position, ping_interval=None, compression=None)
        first = json.loads(self.socket.recv(timeout=TIMEOUT))
        assert (first["type"], first["event"]) == ("state", "joined"), first
        self.state = first["payload"]
        assert self.state["recovered"] == bool(position), self.state
        stream = self.state["stream"]
        # Where the events go on; what was before it is in the state, or known from before the cut.
        self.room, self.epoch, self.offset = stream["handle"], stream["epoch"], stream["offset"]


def refusals(url, ticket):
    """Who may not enter is told why."""
    try:
        connect(f"{url}/ws/rooms/NOROOM?token=x")
        raise AssertionError("a room that is not there was entered")
    except InvalidStatus as refused:
        assert refused.response.status_code == 404, refused
    forged = connect(f"{url}/ws/rooms/{ticket['code']}?player_id={ticket['player_id']}&token=forged")
    error = json.loads(forged.recv(timeout=TIMEOUT))
    assert (error["type"], error["payload"]["code"]) == ("error", "auth_failed"), error
    try:
        forged.recv(timeout=TIMEOUT)
        raise AssertionError("a forged token was let in")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 4401, closed


def main(url, count):
    ticket = call(url, "/api/rooms", display_name="Ann", max_players=2)
    refusals(url, ticket)
    ann = Player(url, ticket)
    bob = Player(url, call(url, f"/api/rooms/{ticket['code']}/join", display_name="Bob"))
    while ann.read_to("player_joined")["player_id"] != bob.id:
        pass
    resumed, said = 0, 0
    for n in range(count):
        cut = n == count // 2
        if cut:
            bob.drop()
        for player in (ann, bob):
            if cut and player is bob:
                ann.hear(said)  # it is there for Bob, too
                bob.resume()
                resumed += 1
            player.send("chat", f"say-{n}", message=f"message {n}")
            said += 1
        ann.hear(said)
    bob.hear(said)
    assert ann.heard == bob.heard and len(set(ann.heard)) == said, (ann.heard, bob.heard)
    ann.send("system", "who", op="members")
    members = ann.read_to("members", "who")["members"]
    names = sorted(member["display_name"] for member in members if member["connected"])
    print(json.dumps({"heard": len(bob.heard), "recovered": resumed, "chain": bob.chain, "members": names}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
