// Dialect B of ringgate (room hub, /ws/rooms/{code}) in JavaScript with the `ws` library: what hub_player.py does.
//
//   node hub_player.mjs ws://127.0.0.1:9998 20
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const WebSocket = createRequire(import.meta.url)("ws"); // `require` finds it by NODE_PATH, too

const [url = "ws://127.0.0.1:9998", countText = "20"] = process.argv.slice(2);
const count = Number(countText);
const RETRY_MS = 100;

/** A call of the rooms API. */
async function call(path, body) {
  const answer = await fetch(url.replace(/^ws/, "http") + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  assert(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

class Player {
  heard = [];
  chain = 0; // events of the room in an unbroken row
  #waiting = []; // {wants, resolve}

  constructor(ticket) {
    this.id = ticket.player_id;
    this.url = `${url}/ws/rooms/${ticket.code}?player_id=${ticket.player_id}&token=${ticket.token}`;
  }

  /** Connects; with a position the connection goes on behind it. */
  async open(position = "") {
    const joined = this.next((message) => message.event === "joined");
    this.socket = new WebSocket(this.url + position, { perMessageDeflate: false });
    this.socket.on("message", (data) => this.#received(JSON.parse(data)));
    const { payload } = await joined;
    assert.equal(payload.recovered, position !== "", JSON.stringify(payload));
    return this;
  }

  /** Destroys the TCP connection; no close frame is sent. */
  async drop() {
    const closed = new Promise((resolve) => this.socket.once("close", resolve));
    this.socket.terminate();
    await closed;
  }

  resume() {
    return this.open(`&epoch=${this.epoch}&offset=${this.offset}`);
  }

  send(type, correlation_id, payload) {
    this.last = { type, correlation_id, payload };
    this.socket.send(JSON.stringify(this.last));
  }

  /** The next message that is wanted. */
  next(wants) {
    return new Promise((resolve) => this.#waiting.push({ wants, resolve }));
  }

  async hear(total) {
    if (this.heard.length < total) await this.next(() => this.heard.length >= total);
  }

  #received(message) {
    if (message.type === "error") {
      // Too fast: a little later, under the same id.
      const ours = message.payload.code === "rate_limited" && message.correlation_id === this.last.correlation_id;
      assert(ours, JSON.stringify(message));
      setTimeout(() => this.socket.send(JSON.stringify(this.last)), RETRY_MS);
    }
    if (message.type === "state" && message.event === "joined") {
      // Where the events go on; what was before it is in the state, or known from before the cut.
      ({ handle: this.room, epoch: this.epoch, offset: this.offset } = message.payload.stream);
    }
    if (message.event === "chat") this.heard.push(`${message.payload.player_id} ${message.payload.message}`);
    if (message.at?.[0] === this.room) {
      const [, offset, prev] = message.at;
      assert(prev === this.offset && prev < offset, `${offset} follows ${prev}, but we are at ${this.offset}`);
      this.offset = offset;
      this.chain += 1;
    }
    this.#waiting = this.#waiting.filter(({ wants, resolve }) => !wants(message) || resolve(message));
  }
}

/** Who may not enter is told why. */
async function refusals(ticket) {
  const missing = new WebSocket(`${url}/ws/rooms/NOROOM?token=x`);
  const status = await new Promise((resolve) => {
    missing.on("unexpected-response", (request, { statusCode }) => {
      request.destroy();
      resolve(statusCode);
    });
    missing.on("open", () => resolve(101));
    missing.on("error", () => {}); // the request that is given up
  });
  assert.equal(status, 404);
  const forged = new WebSocket(`${url}/ws/rooms/${ticket.code}?player_id=${ticket.player_id}&token=forged`);
  const said = [];
  forged.on("message", (data) => said.push(JSON.parse(data)));
  assert.equal(await new Promise((resolve) => forged.on("close", resolve)), 4401);
  assert.deepEqual([said.length, said[0].type, said[0].payload.code], [1, "error", "auth_failed"]);
}

const ticket = await call("/api/rooms", { display_name: "Ann", max_players: 2 });
await refusals(ticket);
const ann = await new Player(ticket).open();
const bob = new Player(await call(`/api/rooms/${ticket.code}/join`, { display_name: "Bob" }));
const told = ann.next(({ event, payload }) => event === "player_joined" && payload.player_id === bob.id);
await bob.open();
await told;

let [said, recovered] = [0, 0];
for (let n = 0; n < count; n += 1) {
  const cut = n === Math.floor(count / 2);
  if (cut) await bob.drop();
  for (const player of [ann, bob]) {
    if (cut && player === bob) {
      await ann.hear(said); // it is there for Bob, too
      await bob.resume();
      recovered += 1;
    }
    player.send("chat", `say-${n}`, { message: `message ${n}` });
    said += 1;
  }
  await ann.hear(said);
}
await bob.hear(said);
assert.deepEqual(ann.heard, bob.heard);
assert.equal(new Set(ann.heard).size, said);
const answer = ann.next(({ event, correlation_id }) => event === "members" && correlation_id === "who");
ann.send("system", "who", { op: "members" });
const { members } = (await answer).payload;
const names = members.filter(({ connected }) => connected).map(({ display_name }) => display_name);
console.log(JSON.stringify({ heard: bob.heard.length, recovered, chain: bob.chain, members: names.sort() }));
for (const player of [ann, bob]) player.socket.close(1000);
