"""A turn game as a backend of ringgate, with nothing but Python's standard library: two seats, white moves first.

    API_KEY=... python3 chess_backend.py http://127.0.0.1:9997 [topic, default chess.commands]

The gateway runs with --config chess.toml. Players send {"do": "sit"} and {"do": "move", "from": "e2", "to": "e4"}. The commands are the state: a backend that starts
anew reads the topic from its beginning and publishes again, and ringgate shows no event twice, because an event's id
follows from its command's. (What is legal for a piece is left to a chess library.)
"""

import json, os, re, sys, time, urllib.error, urllib.request, uuid

URL, TOPIC = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "chess.commands"
HEADERS = {"Authorization": "apikey " + os.environ["API_KEY"], "Content-Type": "application/json"}


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    while True:
        try:
            return urllib.request.urlopen(urllib.request.Request(URL + path, data, HEADERS), timeout=40)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # anything else does not get better by itself
                sys.exit(f"{path}: {error.code} {error.read().decode()}")
            time.sleep(0.2)


def publish(command, event_type, target, payload):
    event_id = str(uuid.uuid5(uuid.UUID(command["event_id"]), event_type))
    call("/api/events", {"event_id": event_id, "event_type": event_type, "target": target, "payload": payload}).close()


def play(games, command):
    wish, user = command["payload"], command["user"]["user_id"]
    room = {"room_id": wish["room_id"]}
    game = games.setdefault(wish["room_id"], {"seats": [], "moves": 0})
    seats, squares = game["seats"], f"{wish.get('from')}{wish.get('to')}"
    if wish.get("do") == "sit" and user not in seats and len(seats) < 2:
        seats.append(user)
        publish(command, "games.event.player_joined", room, room | {"user_id": user, "seat": len(seats)})
    elif wish.get("do") != "move" or not re.fullmatch("([a-h][1-8]){2}", squares) or squares[:2] == squares[2:]:
        refuse(command, "bad_request", "sit, or move from one square to another")
    elif len(seats) < 2 or seats[game["moves"] % 2] != user:
        refuse(command, "not_your_turn", "wait for your turn" if user in seats else "you have no seat")
    else:
        game["moves"] += 1
        move = {"player_id": user, "from": wish["from"], "to": wish["to"], "n": game["moves"]}
        publish(command, "games.event.chess.moved", room, room | move)


def refuse(command, code, message):
    answer = {"code": code, "message": message, "correlation_id": command.get("correlation_id")}
    publish(command, "games.event.error", {"session_id": command["session_id"]}, answer)

games, place = {}, 0
while True:
    with call(f"/api/log/{TOPIC}?from={place}") as log:  # when the gateway ends the stream, go on behind the last command
        for line in map(json.loads, log):
            place = line.get("place", place)
            if line.get("event_type") == "chess.command.play":
                play(games, line)
