"""A player of game_server.py: moves and scores, and checks that every event arrives once and in order.

    RINGGATE_TOKEN=$(ringgate token mint --sub alice) python player.py --room arena --rounds 20

With --battle N it starts a battle of N events in the room and checks that it gets all of them; with --drop-at M it cuts
its connection at the battle's event M and resumes. It ends with exit code 0
and a line of JSON that says what it saw, or with a traceback that says what was wrong.
"""

import argparse
import json
import os
import sys

from frames import BATTLE_END, BATTLE_TIMELINE, COMMAND, ERROR, EVENT, JOINED, SKIPPED, WORLD_DELTA, Session

TO_GAME_SERVER = 0x8000  # COMMANDs of this kind and above go to the room's publishers
START_BATTLE = 10  # battle.command.start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:9998")
    parser.add_argument("--token", default=os.environ.get("RINGGATE_TOKEN"))
    parser.add_argument("--room", default="arena")
    parser.add_argument("--name", default="alice", help="the token's user id")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--battle", type=int, default=0, metavar="EVENTS")
    parser.add_argument("--drop-at", type=int, metavar="EVENT")
    options = parser.parse_args()

    session = Session(options.url, options.token, options.room)
    seen = {"events": 0, "x": 0, "score": 0, "deltas": 0, "others": 0, "skipped": 0, "battle": 0}
    sent, newest, battle_ended = 0, 0, options.battle == 0

    def command(kind, body):
        nonlocal sent
        sent += 1
        session.send(COMMAND, json.dumps(body).encode(), kind=kind, stream=session.relay, number=sent)

    for frame in session.frames():
        if frame.type == JOINED and not sent:
            for _ in range(options.rounds):
                command(TO_GAME_SERVER, {"do": "move", "by": 2})
                command(TO_GAME_SERVER, {"do": "score", "points": 3})
            if options.battle:
                command(START_BATTLE, {"events": options.battle, "interval_ms": 1})
        elif frame.type == EVENT:
            event = json.loads(frame.payload)
            if event["n"] <= newest:
                continue  # the game server resumed and was not sure that this one had arrived
            newest = event["n"]
            if event["player"] != options.name:
                continue
            seen["events"] += 1
            seen["score"] += 3
            assert event["score"] == seen["score"], f"an event is missing, double or early: {event}, {seen}"
        elif frame.type == WORLD_DELTA:
            delta = json.loads(frame.payload[8:])  # the key comes first
            if delta["player"] != options.name:
                seen["others"] += 1
                continue
            # A resume may repeat the newest value; an older one would be wrong.
            assert delta["x"] >= seen["x"], f"an old value after a newer one: {delta}, {seen}"
            seen["deltas"] += 1
            seen["x"] = delta["x"]
        elif frame.type == BATTLE_TIMELINE:
            seen["battle"] += 1
            event = json.loads(frame.payload)
            assert event["n"] == seen["battle"], f"a battle event is missing, double or early: {event}, {seen}"
            if seen["battle"] == options.drop_at:
                session.drop()
        elif frame.type == BATTLE_END:
            assert json.loads(frame.payload)["events"] == seen["battle"] == options.battle, (frame, seen)
            battle_ended = True
        elif frame.type == SKIPPED:
            seen["skipped"] += frame.number  # deltas, and only deltas, were left out because we were slow
        elif frame.type == ERROR:
            sys.exit(f"error {frame.kind}: {frame.payload.decode()}")
        moved, scored = seen["x"] == 2 * options.rounds, seen["events"] == options.rounds
        if battle_ended and moved and scored:
            print(json.dumps(seen | {"recovered": session.recovered}), flush=True)
            return


if __name__ == "__main__":
    main()
