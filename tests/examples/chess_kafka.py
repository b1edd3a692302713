"""A turn game as a backend of ringgate over Kafka: reads games.commands, publishes to games.events.

    python3 chess_kafka.py 127.0.0.1:9092 [instance, default chess-1]

The gateways run with --config chess_kafka.toml. A player sends games.command.chess.join {"room_id": "chess.<any name>"}, .move
{"room_id", "from": "e2", "to": "e4"} and .leave {"room_id"}: the first two to join have the seats, others watch, who takes
the king wins. (What else is legal for a piece is left to a chess library.)

Nothing is lost or doubled, whenever this is killed. A game's record in the compacted topic chess.state holds the game, where its last command
stands and the ids of the last ones. It is written after the events of that command are accepted, the offset is committed after
the record: one that starts anew repeats at most what was half done, which yields the same events under the same ids (uuid v5 of
the command's id and a counter), and gateways show no event twice. More instances, each with a name of its own, share the partitions.
"""

import json, re, sys, uuid
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

KAFKA = {"bootstrap.servers": sys.argv[1]}
INSTANCE = sys.argv[2] if len(sys.argv) > 2 else "chess-1"
COMMANDS, EVENTS, STATE, PREFIX = "games.commands", "games.events", "chess.state", "games.command.chess."
NEW_BOARD = "rnbqkbnrpppppppp" + "." * 32 + "PPPPPPPPRNBQKBNR"  # a8 to h1, white in capitals
DONE_MAX = 32  # ids kept of a game's last commands: a client that repeats one, repeats it soon


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


def new_game():
    return {"seats": [], "board": NEW_BOARD, "moves": 0}


def read(record):
    """The command of a record; None if it is not for this game. A record that cannot be read must not stop the others."""
    try:
        command = json.loads(record.value())
        if not command["event_type"].startswith(PREFIX):
            return None
        uuid.UUID(command["event_id"]), command["session_id"], command["timestamp"], command["user"]["username"]
        if not re.fullmatch("[A-Za-z0-9._-]{1,64}", command["payload"]["room_id"]):
            raise ValueError("payload.room_id is no room's id")
        return command
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        print(f"passed over {record.partition()}/{record.offset()}: {error!r}", file=sys.stderr, flush=True)


def load(_consumer, partitions):
    """Reads the games' records, at the start and whenever partitions come from another instance."""
    games.clear()
    reader = Consumer(KAFKA | {"group.id": "chess", "enable.auto.commit": False, "enable.partition.eof": True})
    reader.assign([TopicPartition(STATE, 0, OFFSET_BEGINNING)])
    while not ((record := reader.poll(1)) and record.error()):
        if record:
            games[record.key()] = json.loads(record.value())
    if record.error().code() != KafkaError._PARTITION_EOF:
        raise KafkaException(record.error())
    reader.close()
    print(f"{len(partitions)} partitions, {len(games)} games", flush=True)


def send(topic, key, *values):
    """Returns when all replicas in sync have them."""
    for value in values:
        producer.produce(topic, json.dumps(value, sort_keys=True, separators=(",", ":")), key, on_delivery=accepted)
    producer.flush()


def accepted(error, _record):
    if error:
        raise KafkaException(error)  # ends this backend; nothing is committed, so the next start repeats the command


admin = AdminClient(KAFKA)
try:
    admin.create_topics([NewTopic(STATE, 1, config={"cleanup.policy": "compact"})])[STATE].result()
except KafkaException as error:
    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
        raise
games = {}
# murmur2, as Java's and Go's clients and ringgate itself have it: all events of a room are in one partition, in order.
producer = Producer(KAFKA | {"enable.idempotence": True, "acks": "all", "linger.ms": 0, "partitioner": "murmur2_random"})
# A name that stays: one that starts anew takes the place of the dead one at once instead of waiting for its session's end.
group = {"group.id": "chess", "group.instance.id": INSTANCE, "session.timeout.ms": 10000, "auto.offset.reset": "earliest"}
consumer = Consumer(KAFKA | group | {"enable.auto.commit": False})
consumer.subscribe([COMMANDS], on_assign=load)
while True:
    record = consumer.poll(1)
    if record is None:
        continue
    if record.error():  # what does not get better by itself: no such topic, another instance of this name
        raise KafkaException(record.error())
    command, place = read(record), [record.partition(), record.offset()]
    if command:
        room, command_id = command["payload"]["room_id"].encode(), command["event_id"]
        game = games.setdefault(room, new_game() | {"done": [], "place": [-1, -1]})
        was_read = place[0] == game["place"][0] and place[1] <= game["place"][1]
        if not was_read and command_id not in game["done"]:
            events = [
                {"event_id": str(uuid.uuid5(uuid.UUID(command_id), str(n))), "event_type": event_type,
                 "timestamp": command["timestamp"], "target": target, "payload": payload}
                for n, (event_type, target, payload) in enumerate(play(game, command))
            ]
            game["done"], game["place"] = [*game["done"], command_id][-DONE_MAX:], place
            send(EVENTS, room, *events)
            send(STATE, room, game)
    consumer.commit(record)
