// Places in streams: resuming, gaps, duplicates, credit (DELIVERY §6, PROTOCOLS "Positions, skips, resume").
import assert from "node:assert/strict";
import { test } from "node:test";
import { withClient } from "./scripted.mjs";

const ROOM = "games.events.0/room:a";

/** Connected, in room a at place 10. */
async function inRoom({ gateway, client, next }) {
  client.connect();
  const { connection } = await gateway.authenticated();
  connection.introduce(7, ROOM, 5, 10);
  await next("system.position");
  return connection;
}

test(
  "a resume names the place behind the last handled frame, and handles on from there",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.event(7, 11, 10);
    first.event(7, 14, 11);
    await next("event");
    assert.equal((await next("event")).n, 14);
    first.terminate();
    assert.equal((await next("client.closed")).label, "connection_lost");
    clock.advance(500);
    const { connection, hello } = await gateway.authenticating();
    assert.deepEqual(hello, {
      type: "system.authenticate",
      token: "t",
      resume: "r",
      positions: { [ROOM]: { epoch: 5, offset: 14 } },
      delta_window: 64,
    });
    connection.authenticated({ recovered: true, rooms: ["a"], resume: "r2" });
    connection.introduce(9, ROOM, 5, 16); // another handle, the head
    connection.event(9, 15, 14);
    connection.event(9, 16, 15);
    connection.event(9, 17, 16);
    const told = [await next("event"), await next("event"), await next("event")];
    assert.deepEqual(
      told.map((frame) => [frame.n, frame.about.replayed]),
      [
        [15, true],
        [16, true],
        [17, false],
      ],
    );
    assert.equal(told[0].about.stream, ROOM);
    assert.deepEqual(client.positions, { [ROOM]: { epoch: 5, offset: 17 } });
    assert.equal(client.resumeToken, "r2");
    assert.deepEqual([client.stats.resumed, client.stats.replayed, client.stats.lost], [1, 2, 0]);
  }),
);

test(
  "a gap is told, not handled, and what is missing comes by a resume",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.event(7, 11, 10);
    first.event(7, 13, 12);
    const gap = await next("client.gap");
    assert.deepEqual([gap.stream, gap.position, gap.at], [ROOM, 11, [7, 13, 12]]);
    await first.ended;
    clock.advance(500);
    const { connection, hello } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    assert.equal(hello.positions[ROOM].offset, 11);
    connection.introduce(7, ROOM, 5, 13);
    connection.event(7, 12, 11);
    connection.event(7, 13, 12);
    assert.deepEqual([(await next("event")).n, (await next("event")).n], [12, 13]);
    assert.equal(client.stats.gaps, 1);
  }),
);

test(
  "a chain that goes back behind our place is a gap, too",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.event(7, 11, 10);
    connection.event(7, 13, 10);
    assert.match((await t.next("client.gap")).what, /13 follows 10, we are at 11/);
  }),
);

test(
  "the first frame behind an introduction may follow an older one, later ones may not know",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.event(7, 11, 3);
    connection.event(7, 12, 0);
    connection.event(7, 13, 12);
    for (const n of [11, 12, 13]) assert.equal((await t.next("event")).n, n);
    assert.equal(t.client.stats.gaps, 0);
  }),
);

test(
  "a frame that comes again is not handled again",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.event(7, 11, 10);
    connection.event(7, 11, 10);
    connection.event(7, 12, 11);
    assert.deepEqual([(await t.next("event")).n, (await t.next("event")).n], [11, 12]);
    assert.equal(t.client.stats.duplicates, 1);
  }),
);

test(
  "a frame of a stream that was not introduced is told as a gap",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.event(8, 1, 0);
    assert.match((await t.next("client.gap")).what, /stream 8, which was not introduced/);
  }),
);

test(
  "an advance moves the place",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.send({ type: "system.advance", at: [7, 11, 10] });
    connection.event(7, 12, 11);
    assert.equal((await t.next("event")).n, 12);
  }),
);

test(
  "a handler that throws gets the frame again; what it did not see is never counted as seen",
  withClient({}, async (t) => {
    const { gateway, client, clock, environment, next } = t;
    let calls = 0;
    client.on("event", () => {
      calls += 1;
      if (calls === 1) throw new Error("not yet");
    });
    const first = await inRoom(t);
    first.event(7, 11, 10);
    first.event(7, 12, 11); // behind the one that failed: not handled on this connection
    const failed = await next("client.handler_failed");
    assert.deepEqual([failed.error.message, failed.passed_over], ["not yet", false]);
    clock.advance(500);
    const { connection, hello } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    assert.equal(hello.positions[ROOM].offset, 10);
    connection.introduce(7, ROOM, 5, 12);
    connection.event(7, 11, 10);
    connection.event(7, 12, 11);
    await next("event");
    assert.equal((await next("event")).n, 12);
    assert.equal(calls, 3);
    assert.equal(environment.reported[0].message, "not yet"); // nobody listens to client.handler_failed
  }),
);

test(
  "a frame whose handler always throws is passed over after its tries, and that is told",
  withClient({ handlerRetries: 1 }, async (t) => {
    const { gateway, client, clock, next } = t;
    client.on("event", (frame) => {
      if (frame.n === 11) throw new Error("never");
    });
    const first = await inRoom(t);
    first.event(7, 11, 10);
    assert.equal((await next("client.handler_failed")).passed_over, false);
    clock.advance(500);
    const { connection } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    connection.introduce(7, ROOM, 5, 11);
    connection.event(7, 11, 10);
    connection.event(7, 12, 11);
    assert.equal((await next("client.handler_failed")).passed_over, true);
    assert.equal((await next("event")).n, 12);
    assert.equal(client.positions[ROOM].offset, 12);
  }),
);

test(
  "a resume that is not recovered is told, and everything starts at the heads",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection } = await gateway.authenticated({
      recovered: false,
      reason: "history_evicted",
      lost: [ROOM],
      rooms: ["a"],
      last_close: { code: 4408, reason: "slow_consumer" },
    });
    const lost = await next("client.lost");
    assert.deepEqual([lost.reason, lost.lost, lost.rooms], ["history_evicted", [ROOM], ["a"]]);
    connection.introduce(7, ROOM, 5, 2000);
    connection.event(7, 2001, 2000);
    const event = await next("event");
    assert.deepEqual([event.n, event.about.replayed], [2001, false]);
    assert.equal(client.stats.lost, 1);
    assert.equal(client.session.last_close.code, 4408);
  }),
);

test(
  "a room that the session came into again goes on from there, and that is told",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    const streams = [{ handle: 7, stream: ROOM, epoch: 5, offset: 40 }];
    connection.send({ type: "system.position", streams, recovered: false, reason: "entered_later" });
    const lost = await next("client.lost");
    assert.deepEqual([lost.reason, lost.lost, lost.rooms], ["entered_later", [ROOM], ["a"]]);
    connection.event(7, 42, 40);
    assert.equal((await next("event")).n, 42);
    assert.equal(client.positions[ROOM].offset, 42);
  }),
);

test(
  "a place beyond the head counts: this node lags behind the one before",
  withClient({}, async (t) => {
    const { gateway, clock, next } = t;
    const first = await inRoom(t);
    first.event(7, 20, 10);
    await next("event");
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    connection.introduce(7, ROOM, 5, 15);
    connection.event(7, 21, 20);
    assert.equal((await next("event")).n, 21);
  }),
);

test(
  "a room that was left and entered again starts at its introduction",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.introduce(7, ROOM, 5, 90); // left and entered on the same connection
    first.event(7, 91, 90);
    assert.equal((await next("event")).n, 91);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection } = await gateway.authenticated({ recovered: true, rooms: [] }); // no longer in it
    connection.introduce(7, ROOM, 5, 200); // and entered again later
    connection.event(7, 201, 200);
    assert.equal((await next("event")).n, 201);
    assert.equal(client.stats.gaps, 0);
  }),
);

test(
  "a session resumed without places is replayed from where it entered",
  withClient({ resume: { token: "r" } }, async (t) => {
    const { gateway, client, next } = t;
    client.connect();
    const { connection, hello } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    assert.deepEqual(hello.positions, {});
    connection.introduce(7, ROOM, 5, 3);
    connection.event(7, 2, 1);
    connection.event(7, 3, 2);
    const event = await next("event");
    assert.deepEqual([event.n, event.about.replayed], [2, true]);
    assert.equal((await next("event")).n, 3);
  }),
);

test(
  "deltas are acknowledged by half windows, counted per connection",
  withClient({ deltaWindow: 4 }, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    for (let n = 0; n < 5; n += 1) first.send({ type: "world.delta", at: [7, 10] });
    assert.equal((await first.receive("system.delta_ack")).count, 2);
    assert.equal((await first.receive("system.delta_ack")).count, 4);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection, hello } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    assert.equal(hello.delta_window, 4);
    connection.introduce(7, ROOM, 5, 10);
    for (let n = 0; n < 2; n += 1) connection.send({ type: "world.delta", at: [7, 10] });
    assert.equal((await connection.receive("system.delta_ack")).count, 2);
    assert.equal(client.stats.deltas, 7);
  }),
);

test(
  "left-out deltas are counted per stream",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.send({ type: "system.skipped", stream: 7, count: 3 }, { type: "system.skipped", stream: 7, count: 2 });
    await t.next("system.skipped");
    await t.next("system.skipped");
    assert.equal(t.client.stats.skipped, 5);
    assert.equal(t.client.streams.find(({ stream }) => stream === ROOM).skipped, 5);
  }),
);

test(
  "a message that is not JSON ends the connection and is told",
  withClient({}, async (t) => {
    const connection = await inRoom(t);
    connection.send("{");
    assert.match((await t.next("client.fault")).what, /JSON/);
    await connection.ended;
  }),
);

test(
  "what comes of a room behind its leaving is no gap, and its places are not sent",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.introduce(8, "games.events.0/session:s", 5, 0);
    first.event(8, 3, 0, { type: "games.event.room_left", room_id: "a" });
    first.event(7, 11, 10); // was under way
    await next("event");
    assert.equal(client.stats.gaps, 0);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { hello } = await gateway.authenticating();
    assert.deepEqual(Object.keys(hello.positions), ["games.events.0/session:s"]);
  }),
);

test(
  "a room that a resumed session leaves and enters again starts at its introduction, not at the old place",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    const first = await inRoom(t);
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { connection } = await gateway.authenticated({ recovered: true, rooms: ["a"] });
    connection.introduce(7, ROOM, 5, 10);
    connection.introduce(7, ROOM, 5, 90);
    connection.event(7, 91, 90);
    assert.equal((await next("event")).n, 91);
    assert.equal(client.stats.gaps, 0);
  }),
);

test(
  "no more places are sent than the server takes, the newest streams' first",
  withClient({}, async (t) => {
    const { gateway, clock, next } = t;
    const first = await inRoom(t);
    const streams = Array.from({ length: 1100 }, (_, n) => ({
      handle: 100 + n,
      stream: `s${n}/x`,
      epoch: 5,
      offset: 1,
    }));
    first.send({ type: "system.position", streams });
    await next("system.position");
    first.terminate();
    await next("client.closed");
    clock.advance(500);
    const { hello } = await gateway.authenticating();
    assert.equal(Object.keys(hello.positions).length, 1024);
    assert.ok(hello.positions["s1099/x"]);
  }),
);

test(
  "behind a loss everything starts at the heads, also if the session was resumed well before",
  withClient({}, async (t) => {
    const { gateway, client, clock, next } = t;
    let connection = await inRoom(t);
    for (const recovered of [true, false]) {
      connection.terminate();
      await next("client.closed");
      clock.advance(1000);
      ({ connection } = await gateway.authenticated({ recovered, rooms: ["a"] }));
      connection.introduce(7, ROOM, 5, recovered ? 10 : 2000);
      await next("system.position");
    }
    assert.equal(client.positions[ROOM].offset, 2000);
  }),
);
