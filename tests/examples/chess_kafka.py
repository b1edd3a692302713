"""A turn game as a backend of ringgate over Kafka: reads games.commands, publishes to games.events.

    python3 chess_kafka.py 127.0.0.1:9092 [instance, default chess-1]

The gateways run with --config chess_kafka.toml. A player sends games.command.chess.join {"room_id": "chess.<any name>"}, .move
{"room_id", "from": "e2", "to": "e4"} and .leave {"room_id"}. The rules are in chess_rules.py.

Nothing is lost or doubled, whenever this is killed. A game's record in the compacted topic chess.state holds the game, the place
of its last command and the ids of the last ones. It is written after the events of that command are accepted, the offset is
committed after the record: one that starts anew repeats at most what was half done, which yields the same events under the
same ids (uuid v5 of the command's id and a counter), and gateways show no event twice. More instances, each with a name of
its own, share the partitions.
"""

import json, re, sys, uuid
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from chess_rules import PREFIX, new_game, play

KAFKA = {"bootstrap.servers": sys.argv[1]}
INSTANCE = sys.argv[2] if len(sys.argv) > 2 else "chess-1"
COMMANDS, EVENTS, STATE = "games.commands", "games.events", "chess.state"
DONE_MAX = 32  # ids kept of a game's last commands: a client that repeats one, repeats it soon


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
    while True:
        record = reader.poll(1)
        if record and record.error():
            break
        if record:
            games[record.key()] = json.loads(record.value())
    if record.error().code() != KafkaError._PARTITION_EOF:
        raise KafkaException(record.error())
    reader.close()
    print(f"{len(partitions)} partitions, {len(games)} games", flush=True)


def step(command, place):
    """Plays a command, unless it was played."""
    room, command_id = command["payload"]["room_id"].encode(), command["event_id"]
    game = games.setdefault(room, new_game() | {"done": [], "place": [-1, -1]})
    was_read = place[0] == game["place"][0] and place[1] <= game["place"][1]
    if was_read or command_id in game["done"]:
        return
    for n, (event_type, target, payload) in enumerate(play(game, command)):
        event_id = str(uuid.uuid5(uuid.UUID(command_id), str(n)))
        event = {"event_id": event_id, "event_type": event_type, "timestamp": command["timestamp"]}
        send(EVENTS, room, event | {"target": target, "payload": payload})
    producer.flush()  # returns when all replicas in sync have them
    game["done"], game["place"] = [*game["done"], command_id][-DONE_MAX:], place
    send(STATE, room, game)
    producer.flush()


def send(topic, key, value):
    producer.produce(topic, json.dumps(value, sort_keys=True, separators=(",", ":")), key, on_delivery=accepted)


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
    command = read(record)
    if command:
        step(command, [record.partition(), record.offset()])
    consumer.commit(record)
