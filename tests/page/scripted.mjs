// A gateway that does what a test says, message by message, and a clock and dice that a test moves. Nothing here waits
// for time to pass: tests wait for messages.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Ringgate } from "../../src/page/ringgate.js";

const { WebSocket, WebSocketServer } = createRequire(import.meta.url)("ws"); // by NODE_PATH

/** A queue that is read by awaiting. */
class Inbox {
  #items = [];
  #readers = [];
  put(item) {
    const reader = this.#readers.shift();
    if (reader) reader(item);
    else this.#items.push(item);
  }
  take() {
    return this.#items.length ? Promise.resolve(this.#items.shift()) : new Promise((done) => this.#readers.push(done));
  }
  get size() {
    return this.#items.length;
  }
}

export class Gateway {
  #server;
  #connections = new Inbox();

  static async start() {
    const gateway = new Gateway();
    gateway.#server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    gateway.#server.on("connection", (socket) => gateway.#connections.put(new Connection(socket)));
    await new Promise((listening) => gateway.#server.once("listening", listening));
    return gateway;
  }
  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}/ws`;
  }
  /** Connections that nobody has taken yet. */
  get waiting() {
    return this.#connections.size;
  }
  connection() {
    return this.#connections.take();
  }
  /** The next connection, up to the message with the client's credentials. */
  async authenticating() {
    const connection = await this.connection();
    connection.send({ type: "system.welcome", connection_id: "c", timestamp: "", durability: "memory" });
    const hello = await connection.receive("system.authenticate");
    return { connection, hello };
  }
  /** The next connection, authenticated. */
  async authenticated(answer = {}) {
    const { connection, hello } = await this.authenticating();
    connection.authenticated(answer);
    return { connection, hello };
  }
  stop() {
    for (const socket of this.#server.clients) socket.terminate();
    return new Promise((stopped) => this.#server.close(stopped));
  }
}

class Connection {
  #inbox = new Inbox();
  #socket;
  ended;

  constructor(socket) {
    this.#socket = socket;
    socket.on("message", (data) => this.#inbox.put(String(data)));
    this.ended = new Promise((ended) => socket.once("close", (code) => ended(code)));
  }
  send(...frames) {
    for (const frame of frames) this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }
  authenticated(answer = {}) {
    const who = { user_id: "1", username: "ann", roles: ["user"], session_id: "s", resume: "r", recovered: false };
    this.send({ type: "system.authenticated", ...who, rooms: [], ...answer });
  }
  introduce(handle, stream, epoch, offset) {
    this.send({ type: "system.position", streams: [{ handle, stream, epoch, offset }] });
  }
  /** Reliable frames `offset` ← `prev` of a stream. */
  event(handle, offset, prev, more = {}) {
    this.send({ type: "event", n: offset, at: [handle, offset, prev], ...more });
  }
  async receiveText() {
    return this.#inbox.take();
  }
  async receive(type) {
    const message = JSON.parse(await this.#inbox.take());
    assert.equal(message.type, type);
    return message;
  }
  close(code, reason) {
    this.#socket.close(code, reason);
  }
  terminate() {
    this.#socket.terminate();
  }
}

/** Time that moves when told to. */
export class Clock {
  time = 1_000_000;
  #timers = new Set();
  setTimeout = (act, ms) => {
    const timer = { at: this.time + ms, ms, act };
    this.#timers.add(timer);
    return timer;
  };
  clearTimeout = (timer) => this.#timers.delete(timer);
  now = () => this.time;
  /** Runs what is due, in order. */
  advance(ms) {
    const until = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.time = due.at;
      this.#timers.delete(due);
      due.act();
    }
    this.time = until;
  }
}

/** A client with a clock of its own, and everything it tells in an inbox. */
export function clientOf(gateway, options = {}) {
  const clock = new Clock();
  let ids = 0;
  const page = {};
  const environment = {
    WebSocket,
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    now: clock.now,
    random: () => environment.dice,
    dice: 0.5,
    id: () => `id-${++ids}`,
    reported: [],
    report: (error) => environment.reported.push(error),
    listen: (calls) => {
      Object.assign(page, calls);
      return () => {};
    },
  };
  const client = new Ringgate({ url: gateway.url, token: "t", ...options, environment });
  const told = new Inbox();
  client.on("*", (frame, about) => told.put({ ...frame, about }));
  /** The next thing told of this type; others before it are left out. */
  const next = async (type) => {
    for (;;) {
      const frame = await told.take();
      if (frame.type === type) return frame;
    }
  };
  return { client, clock, environment, page, next };
}

/** Runs a test with a gateway and a client, and ends both. */
export const withClient = (options, test) => async () => {
  const gateway = await Gateway.start();
  const given = typeof options === "function" ? options() : options;
  const parts = clientOf(gateway, given);
  try {
    await test({ gateway, ...parts });
  } finally {
    parts.client.close();
    await gateway.stop();
  }
};

/** A JWT nobody signed. */
export function jwt(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none" })}.${part(claims)}.`;
}
