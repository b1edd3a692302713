// The life of connections: the close table, backoff, credentials, heartbeats, what a reload survives.
import assert from "node:assert/strict";
import { test } from "node:test";
import { closeRow } from "../../src/page/ringgate.js";
import { Gateway, clientOf, jwt, withClient } from "./scripted.mjs";

async function open({ gateway, client, next }, answer) {
  client.connect();
  const { connection } = await gateway.authenticated(answer);
  await next("system.authenticated");
  return connection;
}

/** The delay the client chooses behind a close, null if it stays away. */
const delayAfter = (code, reason, dice = 0.5) =>
  withClientResult(async (t) => {
    t.environment.dice = dice;
    const connection = await open(t);
    connection.close(code, reason);
    return (await t.next("client.closed")).delay_ms;
  });

async function withClientResult(act, options = {}) {
  let result;
  await withClient(options, async (t) => {
    result = await act(t);
  })();
  return result;
}

test("each close code gets the delay its row asks for", async () => {
  const delays = [
    [1000, "", null],
    [1001, "going away", 250], // half of 500 ms
    [1002, "protocol error", null],
    [1008, "policy violation", null],
    [1011, "internal error", 250],
    [1012, "reconnect in 4321 ms", 4321],
    [1013, "try again later", 1500], // a second and half of another
    [4400, "bad_request", null],
    [4401, "unauthorized", null],
    [4401, "token expired", null],
    [4401, "authentication timeout", 1500],
    [4403, "kicked", null],
    [4404, "room_not_found", null],
    [4408, "slow_consumer", 0],
    [4409, "replaced", null],
    [4410, "idle_timeout", 250],
    [4429, "rate_limited", 1500],
  ];
  for (const [code, reason, delay] of delays) assert.equal(await delayAfter(code, reason), delay, `${code} ${reason}`);
});

test("codes no row names are told by their range", () => {
  assert.deepEqual([closeRow(1006).label, closeRow(1005).label], ["connection_lost", "connection_lost"]);
  assert.deepEqual([closeRow(1014).reconnect, closeRow(4999).reconnect], ["resume", "no"]);
  assert.equal(closeRow(1012, "reconnect in 7 ms").label, "restart");
  assert.equal(closeRow(4401, "token expired").label, "token_expired");
});

test(
  "the backoff doubles up to its bound, jitter takes any part of it, and a lasting connection resets it",
  withClient({ backoffMaxMs: 4000 }, async (t) => {
    t.environment.dice = 1;
    t.client.connect();
    for (const delay of [500, 1000, 2000, 4000, 4000]) {
      (await t.gateway.connection()).terminate();
      assert.equal((await t.next("client.closed")).delay_ms, delay);
      t.clock.advance(delay - 1);
      assert.equal(t.client.state, "waiting");
      t.environment.dice = 1;
      t.clock.advance(1);
      assert.equal(t.client.state, "connecting");
    }
    t.environment.dice = 0;
    (await t.gateway.connection()).terminate();
    assert.equal((await t.next("client.closed")).delay_ms, 0);
    t.environment.dice = 1;
    t.clock.advance(0);
    const { connection } = await t.gateway.authenticated();
    await t.next("system.authenticated");
    t.clock.advance(5000);
    connection.terminate();
    assert.equal((await t.next("client.closed")).delay_ms, 500);
  }),
);

test(
  "a client that is always too slow backs off",
  withClient({}, async (t) => {
    const first = await open(t);
    first.close(4408, "slow_consumer");
    assert.equal((await t.next("client.closed")).delay_ms, 0);
    t.clock.advance(0);
    const { connection } = await t.gateway.authenticated({ recovered: true });
    await t.next("system.authenticated");
    connection.close(4408, "slow_consumer");
    assert.equal((await t.next("client.closed")).delay_ms, 500);
  }),
);

test(
  "a replaced client stays away until it is told to connect",
  withClient({}, async (t) => {
    const first = await open(t);
    first.close(4409, "replaced");
    assert.equal((await t.next("client.closed")).label, "replaced");
    assert.equal(t.client.state, "closed");
    t.page.awake();
    t.clock.advance(1e6);
    assert.equal(t.client.state, "closed");
    t.client.connect();
    const { hello } = await t.gateway.authenticated({ recovered: true });
    assert.equal(hello.resume, "r");
  }),
);

test("behind 4401 only a new token helps, and it is tried once", async () => {
  const tokens = ["old", "new", "never"];
  await withClient({ token: undefined, getToken: async () => tokens.shift() }, async (t) => {
    t.client.connect();
    const first = await t.gateway.authenticated();
    assert.equal(first.hello.token, "old");
    await t.next("system.authenticated");
    first.connection.close(4401, "token expired");
    assert.equal((await t.next("client.closed")).delay_ms, 250);
    t.clock.advance(250);
    const second = await t.gateway.authenticating();
    assert.deepEqual([second.hello.token, second.hello.resume], ["new", "r"]);
    second.connection.close(4401, "unauthorized");
    assert.equal((await t.next("client.closed")).delay_ms, null);
    assert.deepEqual([t.client.state, tokens], ["closed", ["never"]]);
  })();
});

test("a refused session asks for a token, then goes without the session, then ends", async () => {
  let fetched = 0;
  const options = { token: undefined, resume: { token: "r" }, getToken: () => `t${++fetched}` };
  await withClient(options, async (t) => {
    const failed = { type: "system.error", code: "auth_failed", message: "" };
    t.client.connect();
    const { connection, hello } = await t.gateway.authenticating();
    assert.deepEqual([hello.token, hello.resume], [undefined, "r"]);
    connection.send(failed);
    const second = await connection.receive("system.authenticate");
    assert.deepEqual([second.token, second.resume], ["t1", "r"]);
    connection.send(failed);
    const third = await connection.receive("system.authenticate");
    assert.deepEqual([third.token, third.resume], ["t1", undefined]);
    assert.equal((await t.next("client.lost")).reason, "refused");
    connection.send(failed);
    assert.equal((await t.next("client.closed")).label, "unauthorized");
    assert.equal(t.client.state, "closed");
  })();
});

test(
  "a fixed token that has ended is left out of a resume",
  withClient(
    () => ({ token: jwt({ exp: 1 }), resume: { token: "r" } }),
    async (t) => {
      t.client.connect();
      const { hello } = await t.gateway.authenticating();
      assert.deepEqual([hello.token, hello.resume], [undefined, "r"]);
    },
  ),
);

test("a token is refreshed on the living connection before it ends", async () => {
  let fetched = 0;
  const getToken = () => jwt({ exp: 1_000 + 100 * ++fetched });
  await withClient({ token: undefined, getToken, heartbeatMs: 1e9 }, async (t) => {
    const connection = await open(t);
    t.clock.advance(70_000); // 30 s before the end
    const again = await connection.receive("system.authenticate");
    assert.deepEqual([again.token, again.resume], [jwt({ exp: 1_200 }), undefined]);
    connection.authenticated({ username: "renamed" });
    connection.send({ type: "event" });
    await t.next("event");
    assert.deepEqual([t.client.session.username, t.client.stats.connections, t.client.stats.lost], ["renamed", 1, 0]);
  })();
});

test("a token that comes when its connection is gone is used on the next one", async () => {
  const fetches = [];
  const getToken = () => new Promise((fetched) => fetches.push(fetched));
  await withClient({ token: undefined, getToken }, async (t) => {
    t.client.connect();
    const first = await t.gateway.connection();
    first.send({ type: "system.welcome" });
    await t.next("system.welcome");
    t.client.dropConnection();
    await t.next("client.closed");
    t.clock.advance(500);
    fetches[0]("t");
    const { hello } = await t.gateway.authenticated();
    assert.equal(hello.token, "t");
    await t.next("system.authenticated");
    assert.deepEqual([t.client.state, fetches.length], ["open", 1]);
  })();
});

test("a token that cannot be fetched is told and tried again", async () => {
  let calls = 0;
  const getToken = async () => {
    calls += 1;
    if (calls === 1) throw new Error("offline");
    return "t";
  };
  await withClient({ token: undefined, getToken }, async (t) => {
    t.client.connect();
    (await t.gateway.connection()).send({ type: "system.welcome" });
    assert.equal((await t.next("client.error")).error.message, "offline");
    t.clock.advance(500);
    assert.equal((await t.gateway.authenticated()).hello.token, "t");
  })();
});

test(
  "heartbeats measure the round trip, and without an answer the connection is dead",
  withClient({}, async (t) => {
    const connection = await open(t);
    t.clock.advance(20_000);
    await connection.receive("system.heartbeat");
    t.clock.advance(30);
    connection.send({ type: "system.heartbeat_ack", timestamp: "" });
    await t.next("system.heartbeat_ack");
    assert.equal(t.client.roundTripMs, 30);
    t.clock.advance(19_970);
    await connection.receive("system.heartbeat");
    t.clock.advance(10_000);
    assert.equal((await t.next("client.closed")).reason, "no sign of life");
  }),
);

test(
  "a server that does not answer the attempt is given up",
  withClient({}, async (t) => {
    t.client.connect();
    await t.gateway.connection(); // and says nothing
    t.clock.advance(15_000);
    assert.equal((await t.next("client.closed")).reason, "no answer");
  }),
);

test(
  "a page that comes back retries at once, unless the server asked for a delay",
  withClient({}, async (t) => {
    const first = await open(t);
    first.terminate();
    await t.next("client.closed");
    t.page.awake();
    const { connection } = await t.gateway.authenticated({ recovered: true });
    await t.next("system.authenticated");
    t.clock.advance(1000);
    assert.equal(t.client.state, "open"); // the retry that was planned is off
    t.page.awake(); // while connected: asks for a sign of life
    await connection.receive("system.heartbeat");
    connection.close(1012, "reconnect in 4000 ms");
    await t.next("client.closed");
    t.page.awake();
    assert.equal(t.client.state, "waiting");
  }),
);

test(
  "a cut connection is resumed; nothing of the old one is heard any more",
  withClient({}, async (t) => {
    const first = await open(t);
    t.client.dropConnection();
    assert.equal((await t.next("client.closed")).label, "connection_lost");
    await first.ended;
    t.clock.advance(500);
    assert.equal((await t.gateway.authenticated({ recovered: true })).hello.resume, "r");
    assert.equal((await t.next("system.authenticated")).recovered, true);
  }),
);

/** What a tab keeps. */
function tab() {
  const items = new Map();
  return {
    items,
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => items.set(key, value),
    removeItem: (key) => items.delete(key),
  };
}

test("a reload goes on where the page's own state stands", async () => {
  const gateway = await Gateway.start();
  const storage = tab();
  const seen = [];
  const before = clientOf(gateway, { storage, keep: () => seen });
  before.client.on("event", (frame) => seen.push(frame.n));
  const connection = await open({ gateway, ...before });
  connection.introduce(7, "x/room:a", 5, 10);
  connection.event(7, 11, 10);
  await before.next("event");
  before.clock.advance(250);
  connection.event(7, 12, 11);
  await before.next("event");
  before.page.hidden(); // sooner than the next save
  before.client.dropConnection();

  const after = clientOf(gateway, { storage, keep: () => [], token: undefined });
  assert.deepEqual(after.client.restored, [11, 12]);
  after.client.connect();
  const { hello } = await gateway.authenticated({ recovered: true });
  assert.deepEqual([hello.resume, hello.positions], ["r", { "x/room:a": { epoch: 5, offset: 12 } }]);
  for (const { client } of [before, after]) client.close();
  await gateway.stop();
});

test("a reload of a page that keeps nothing starts where the session began", async () => {
  const gateway = await Gateway.start();
  const storage = tab();
  const before = clientOf(gateway, { storage });
  const connection = await open({ gateway, ...before });
  connection.introduce(7, "x/room:a", 5, 10);
  await before.next("system.position");
  before.client.close();
  const after = clientOf(gateway, { storage });
  after.client.connect();
  const { hello } = await gateway.authenticating();
  assert.deepEqual([hello.resume, hello.positions], ["r", {}]);
  after.client.forget();
  assert.equal(storage.items.size, 0);
  after.client.close();
  await gateway.stop();
});

test("a session is kept from its first answer on, and places without the page's state count for nothing", async () => {
  const gateway = await Gateway.start();
  const storage = tab();
  const before = clientOf(gateway, { storage });
  await open({ gateway, ...before });
  const [key, saved] = [...storage.items][0];
  assert.equal(JSON.parse(saved).token, "r");
  before.client.close();
  storage.setItem(key, JSON.stringify({ token: "r", positions: { x: { epoch: 5, offset: 9 } } }));
  const after = clientOf(gateway, { storage, keep: () => [] });
  after.client.connect();
  assert.deepEqual((await gateway.authenticating()).hello.positions, {});
  after.client.close();
  await gateway.stop();
});

test("a storage that holds nonsense or throws does not matter", async () => {
  const gateway = await Gateway.start();
  const storage = {
    getItem: () => "{cut off",
    setItem: () => {
      throw new Error("full");
    },
    removeItem: () => {},
  };
  const t = clientOf(gateway, { storage });
  await open({ gateway, ...t });
  t.clock.advance(250);
  assert.equal((await t.next("client.error")).error.message, "full");
  assert.equal(t.client.state, "open");
  t.client.close();
  await gateway.stop();
});

test(
  "an error in a handler of something that has no place is reported and changes nothing",
  withClient({}, async (t) => {
    t.client.on("system.welcome", () => {
      throw new Error("mine");
    });
    await open(t);
    assert.equal(t.environment.reported[0].message, "mine");
  }),
);

test(
  "handlers come off, and the seed's shape works: on, connect, send",
  withClient({}, async (t) => {
    const seen = [];
    const off = t.client.on("event", (frame) => seen.push(frame.n));
    const connection = await open(t);
    connection.send({ type: "event", n: 1 });
    await t.next("event");
    off();
    connection.send({ type: "event", n: 2 });
    await t.next("event");
    assert.deepEqual(seen, [1]);
  }),
);
