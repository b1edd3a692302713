"""Dialect D of ringgate (binary frames, /ws/frames) in Python: what a client needs so that it loses no event.

A WebSocket message is one frame: a 24-byte little-endian header, then the payload. `Session` connects, joins a room,
remembers how far it is in every stream, checks that nothing is missing, and resumes when a connection ends.
"""

import json
import random
import socket
import struct
import time
from typing import Iterator, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HELLO, WELCOME, ERROR, PING, PONG, JOIN, JOINED = 1, 2, 3, 4, 5, 6, 7
POSITION, ADVANCE, COMMAND, ACK, PLAYER_COMMAND = 10, 11, 16, 17, 18
WORLD_DELTA, BATTLE_TIMELINE, BATTLE_END, EVENT, SKIPPED = 32, 33, 34, 35, 36

# These have a place in their stream: they arrive once and in order, or the connection closes and says why.
RELIABLE = {PLAYER_COMMAND, BATTLE_TIMELINE, BATTLE_END, EVENT}
# Close codes after which the session can be resumed; 1006 = the connection was lost without a close frame.
RESUMABLE = {1001, 1006, 1011, 1012, 1013, 4408, 4410}
JOIN_NUMBER = 1  # the correlation of our JOIN
NO_SUCH_ROOM = 6  # an ERROR's kind; whoever opens the room is perhaps just starting, so it is asked for again
JOINS = 50

HEADER = struct.Struct("<BBHIQQ")


class Frame(NamedTuple):
    type: int
    flags: int
    kind: int
    stream: int  # a handle; its name comes with JOINED or POSITION
    number: int  # the place in the stream; in answers the correlation
    prev: int  # the place of the stream's previous reliable frame, 0 = not known
    payload: bytes


class Session:
    def __init__(self, url: str, token: str, room: str):
        self.url, self.token, self.room = url + "/ws/frames", token, room
        self.resume = None  # the resume token of the last WELCOME
        self.names = {}  # handle -> stream name, of this connection
        self.positions = {}  # stream name -> {"epoch", "offset"}: how far we are
        self.relay = 0  # the handle publishers publish on and players send commands on
        self.reconnects = 0
        self.recovered = 0  # reconnects without a gap
        self.joins = 0  # tries to enter the room, since the last connect
        self._open()

    def send(self, type, payload=b"", kind=0, stream=0, number=0):
        """Sends a frame. What a lost connection swallowed gets no ACK: send it again if it matters."""
        try:
            self.socket.send(HEADER.pack(type, 0, kind, stream, number, 0) + payload)
        except ConnectionClosed:
            pass  # frames() notices, too, and resumes

    def drop(self):
        """Cuts the connection without a word, as a network that fails does."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def frames(self) -> Iterator[Frame]:
        """Yields the room's frames, across reconnects; every reliable frame once and in order."""
        while True:
            try:
                message = self.socket.recv()
            except ConnectionClosed as closed:
                self._reopen(closed)
                continue
            frame = Frame(*HEADER.unpack_from(message), message[HEADER.size :])
            if frame.type == PING:
                self.send(PONG, frame.payload)
            elif frame.type == WELCOME:
                self._welcome(json.loads(frame.payload))
            elif frame.type == JOINED:
                for stream in json.loads(frame.payload)["streams"]:
                    self._introduce(stream["handle"], stream["stream"], stream["epoch"], stream["offset"])
                yield frame
            elif frame.type == POSITION:
                stream = json.loads(frame.payload)
                self._introduce(frame.stream, stream["stream"], stream["epoch"], frame.number)
            elif self.joins < JOINS and (frame.type, frame.kind, frame.number) == (ERROR, NO_SUCH_ROOM, JOIN_NUMBER):
                time.sleep(0.2)
                self._join()
            else:
                if frame.type in RELIABLE or frame.type == ADVANCE:
                    self._advance(frame)
                yield frame

    def _open(self):
        self.names.clear()
        # The server pings by itself, so the library need not.
        self.socket = connect(self.url, subprotocols=["ringgate.frames.v1"], ping_interval=None, compression=None)
        hello = {"token": self.token}
        if self.resume:
            hello |= {"resume": self.resume, "positions": self.positions}
        self.send(HELLO, json.dumps(hello).encode())

    def _reopen(self, closed):
        code = closed.rcvd.code if closed.rcvd else 1006
        reason = closed.rcvd.reason if closed.rcvd else ""
        if code not in RESUMABLE:
            raise closed
        # A restarting server (1012) says how many milliseconds to wait. Others: a little, and not all at once.
        delay = int(reason) / 1000 if code == 1012 and reason.isdigit() else random.uniform(0.1, 0.5)
        while True:
            time.sleep(delay)
            try:
                self._open()
                self.reconnects += 1
                return
            except OSError:
                delay = min(delay * 2, 10)

    def _welcome(self, welcome):
        self.resume = welcome["resume"]
        self.recovered += welcome["recovered"]
        if not welcome["recovered"]:
            # A new session, or a resume that could not close the gap: begin where the streams are now. An application
            # whose state depends on every event asks for a snapshot here.
            self.positions.clear()
        if self.room not in welcome.get("rooms", []):
            self.joins = 0
            self._join()

    def _join(self):
        self.joins += 1
        self.send(JOIN, json.dumps({"room": self.room}).encode(), number=JOIN_NUMBER)

    def _introduce(self, handle, name, epoch, head):
        self.names[handle] = name
        if name.startswith("relay/"):
            self.relay = handle
        # After a resume the place we know counts: what is between it and the head is on its way.
        if self.positions.get(name, {}).get("epoch") != epoch:
            self.positions[name] = {"epoch": epoch, "offset": head}

    def _advance(self, frame):
        position = self.positions[self.names[frame.stream]]
        # The chain of `prev` proves that nothing is missing; the first frame after joining may name an older one.
        if frame.number <= position["offset"] or frame.prev > position["offset"]:
            raise RuntimeError(f"the stream broke: at {position['offset']}, got {frame}")
        position["offset"] = frame.number
