// Commands: acknowledgements as promises over any number of connections (PROTOCOLS A, DELIVERY §7 "Once").
import assert from "node:assert/strict";
import { test } from "node:test";
import { withClient } from "./scripted.mjs";

async function open({ gateway, client, next }, answer) {
  client.connect();
  const { connection } = await gateway.authenticated(answer);
  await next("system.authenticated");
  return connection;
}

test(
  "the promise resolves with the acknowledgement",
  withClient({}, async (t) => {
    const connection = await open(t);
    const done = t.client.send("games.command.bigger_dice.roll", { room_id: "a" }, { ack: true });
    assert.deepEqual(await connection.receive("games.command.bigger_dice.roll"), {
      type: "games.command.bigger_dice.roll",
      room_id: "a",
      correlation_id: done.correlationId,
    });
    connection.send({ type: "system.ack", correlation_id: done.correlationId });
    assert.equal((await done).type, "system.ack");
    assert.equal(t.client.pending, 0);
  }),
);

test(
  "a query resolves with its answer",
  withClient({}, async (t) => {
    const connection = await open(t);
    const done = t.client.send({ type: "rooms.command.members", room_id: "a" }, { ack: true });
    const { correlation_id } = await connection.receive("rooms.command.members");
    connection.send({ type: "rooms.event.members", room_id: "a", members: [], correlation_id });
    assert.equal((await done).type, "rooms.event.members");
  }),
);

test(
  "an error rejects with its code",
  withClient({}, async (t) => {
    const connection = await open(t);
    const done = t.client.send("games.command.join_room", { room_name: "x" }, { ack: true });
    const { correlation_id } = await connection.receive("games.command.join_room");
    connection.send({ type: "system.error", code: "rate_limited", message: "slower", correlation_id });
    await assert.rejects(done, {
      name: "CommandError",
      code: "rate_limited",
      message: "slower",
      correlationId: correlation_id,
    });
  }),
);

test(
  "a command without its acknowledgement is repeated byte for byte after a resume, in order",
  withClient({}, async (t) => {
    const first = await open(t);
    const one = t.client.send("chat.command.send_lobby_message", { lobby_id: "a", content: "1" }, { ack: true });
    const texts = [await first.receiveText()];
    first.terminate();
    await t.next("client.closed");
    const two = t.client.send("chat.command.send_lobby_message", { lobby_id: "a", content: "2" }, { ack: true });
    t.clock.advance(500);
    const { connection } = await t.gateway.authenticated({ recovered: true });
    texts.push(await connection.receiveText());
    assert.equal(texts[1], texts[0]);
    assert.equal((await connection.receive("chat.command.send_lobby_message")).content, "2");
    for (const { correlationId } of [one, two]) connection.send({ type: "system.ack", correlation_id: correlationId });
    await Promise.all([one, two]);
  }),
);

test(
  "a repeated command that meets a busy server is asked again",
  withClient({}, async (t) => {
    const first = await open(t);
    const done = t.client.send("games.command.list_rooms", {}, { ack: true });
    await first.receive("games.command.list_rooms");
    first.terminate();
    await t.next("client.closed");
    t.clock.advance(500);
    const { connection } = await t.gateway.authenticated({ recovered: true });
    const { correlation_id } = await connection.receive("games.command.list_rooms");
    connection.send({ type: "system.error", code: "unavailable", message: "", correlation_id });
    await t.next("system.error");
    t.clock.advance(2000);
    await connection.receive("games.command.list_rooms");
    connection.send({ type: "system.ack", correlation_id });
    await done;
  }),
);

test(
  "a command that another session may have done is not repeated; one that was never sent is",
  withClient({}, async (t) => {
    const first = await open(t);
    const sent = t.client.send("games.command.create_room", { room_name: "1" }, { ack: true });
    await first.receive("games.command.create_room");
    first.terminate();
    await t.next("client.closed");
    const kept = t.client.send("games.command.create_room", { room_name: "2" }, { ack: true });
    t.clock.advance(500);
    const refused = assert.rejects(sent, { code: "session_gone" });
    const { connection } = await t.gateway.authenticated({ recovered: false, reason: "expired", session_id: "other" });
    await refused;
    assert.equal((await connection.receive("games.command.create_room")).room_name, "2");
    connection.send({ type: "system.ack", correlation_id: kept.correlationId });
    await kept;
  }),
);

test(
  "a command is repeated if the same session goes on, though streams were lost",
  withClient({}, async (t) => {
    const first = await open(t);
    const sent = t.client.send("games.command.create_room", {}, { ack: true });
    await first.receive("games.command.create_room");
    first.terminate();
    await t.next("client.closed");
    t.clock.advance(500);
    const { connection } = await t.gateway.authenticated({ recovered: false, reason: "history_evicted", lost: ["x"] });
    await connection.receive("games.command.create_room");
    connection.send({ type: "system.ack", correlation_id: sent.correlationId });
    await sent;
  }),
);

test(
  "a command that nobody answers is given up in the end",
  withClient({ heartbeatMs: 1e9 }, async (t) => {
    const connection = await open(t);
    const done = t.client.send("games.command.list_rooms", {}, { ack: true, timeoutMs: 9000 });
    await connection.receive("games.command.list_rooms");
    const refused = assert.rejects(done, { code: "timeout" });
    t.clock.advance(9000);
    await refused;
    assert.equal(t.client.pending, 0);
  }),
);

test(
  "a token that is refused ends the wait for answers",
  withClient({}, async (t) => {
    const answer = t.client.send("games.command.list_rooms", {}, { ack: true });
    const refused = assert.rejects(answer, { code: "unauthorized" });
    t.client.connect();
    const { connection } = await t.gateway.authenticating();
    connection.close(4401, "unauthorized");
    await refused;
    assert.equal(t.client.pending, 0);
  }),
);

test(
  "without ack, send says whether there was a connection to send on",
  withClient({}, async (t) => {
    assert.equal(t.client.send({ type: "games.command.list_rooms" }), false);
    const connection = await open(t);
    assert.equal(t.client.send("games.command.list_rooms", { game_type: "bigger_dice" }), true);
    assert.deepEqual(await connection.receive("games.command.list_rooms"), {
      type: "games.command.list_rooms",
      game_type: "bigger_dice",
    });
  }),
);

test(
  "a correlation id is used for one command at a time",
  withClient({}, async (t) => {
    await open(t);
    const first = t.client.send("a", {}, { ack: true, correlationId: "same" });
    assert.throws(() => t.client.send("b", {}, { ack: true, correlationId: "same" }), /same is in use/);
    const given = assert.rejects(first, { code: "session_gone" });
    t.client.forget();
    await given;
  }),
);
