// Client of ringgate's gateway JSON dialect (`/ws`), for browsers and Node. One file, no dependency, no build step.
//
//   import { connect } from "/ringgate.js";
//   const client = connect({ url: "wss://example.net/ws", getToken });
//   client.on("games.event.bigger_dice.rolled", (frame) => show(frame.roll));
//   await client.send("games.command.bigger_dice.roll", { room_id }, { ack: true });
//
// What it keeps for you: every reliable frame of every stream reaches the handlers once and in order, also when the
// connection breaks in between. It knows its place in each stream, checks that each frame follows the one before it,
// resumes behind the last frame whose handlers have run, and follows the server's close table. What it can not keep it
// tells: `client.gap`, `client.lost`, `client.closed`. It never passes over a gap silently and never repeats a command
// whose first sending may have been done in a session that is gone.

// Why a connection ends, and what to do then; the same rows as the server's table. `reconnect` is "resume" (after a
// short delay, the session goes on), "delayed" (after a longer one) or "no". Code 0: there was no close frame.
// The literal is JSON, so that a test can hold it against the server's.
export const CLOSE_TABLE = [
  { "code": 1000, "text": "", "reconnect": "no", "label": "normal" },
  { "code": 1001, "text": "going away", "reconnect": "resume", "label": "going_away" },
  { "code": 1002, "text": "protocol error", "reconnect": "no", "label": "protocol" },
  { "code": 1003, "text": "unsupported data", "reconnect": "no", "label": "unsupported_data" },
  { "code": 1007, "text": "invalid UTF-8", "reconnect": "no", "label": "invalid_utf8" },
  { "code": 1008, "text": "policy violation", "reconnect": "no", "label": "policy" },
  { "code": 1009, "text": "message too big", "reconnect": "no", "label": "too_big" },
  { "code": 1011, "text": "internal error", "reconnect": "resume", "label": "internal" },
  { "code": 1012, "text": "service restart", "reconnect": "resume", "label": "restart" },
  { "code": 1013, "text": "try again later", "reconnect": "resume", "label": "try_again_later" },
  { "code": 4400, "text": "bad_request", "reconnect": "no", "label": "bad_request" },
  { "code": 4401, "text": "unauthorized", "reconnect": "no", "label": "unauthorized" },
  { "code": 4401, "text": "authentication timeout", "reconnect": "delayed", "label": "authentication_timeout" },
  { "code": 4401, "text": "token expired", "reconnect": "no", "label": "token_expired" },
  { "code": 4403, "text": "forbidden", "reconnect": "no", "label": "forbidden" },
  { "code": 4403, "text": "kicked", "reconnect": "no", "label": "kicked" },
  { "code": 4404, "text": "room_not_found", "reconnect": "no", "label": "room_not_found" },
  { "code": 4408, "text": "slow_consumer", "reconnect": "resume", "label": "slow_consumer" },
  { "code": 4409, "text": "replaced", "reconnect": "no", "label": "replaced" },
  { "code": 4410, "text": "idle_timeout", "reconnect": "resume", "label": "idle_timeout" },
  { "code": 4429, "text": "rate_limited", "reconnect": "delayed", "label": "rate_limited" },
  { "code": 0, "text": "handshake timeout", "reconnect": "delayed", "label": "handshake_timeout" },
  { "code": 0, "text": "connection lost", "reconnect": "resume", "label": "connection_lost" },
  { "code": 0, "text": "refused", "reconnect": "no", "label": "refused" },
  { "code": 4408, "text": "history_evicted", "reconnect": "resume", "label": "history_evicted" }
];

const LOST = CLOSE_TABLE.find((row) => row.label === "connection_lost");
const SLOW = 4408;
const TRY_AGAIN_LATER = 1013;
const UNAUTHORIZED = 4401;
const POSITIONS_MAX = 1024; // of one `system.authenticate`

/** What every time means is in ringgate.d.ts; all in milliseconds. */
const DEFAULTS = {
  deltaWindow: 64,
  heartbeatMs: 20_000,
  replyMs: 10_000,
  openMs: 15_000,
  backoffMs: 500,
  backoffMaxMs: 30_000,
  delayedMs: 1_000,
  stableMs: 5_000,
  commandMs: 300_000,
  saveMs: 250,
  handlerRetries: 2,
};

/** The row of a close frame: by code and text, else by code. Codes that no row names are told by their range. */
export function closeRow(code, text = "") {
  if (code === 1005 || code === 1006) return LOST; // the browser's own: no close frame, or one without a code
  const rows = CLOSE_TABLE.filter((row) => row.code === code);
  const known = rows.find((row) => row.text === text) ?? rows[0];
  return known ?? { code, text, reconnect: code >= 4000 ? "no" : "resume", label: `code_${code}` };
}

/** A command that was refused, or whose outcome nobody knows. */
export class CommandError extends Error {
  constructor(code, message, correlationId, frame) {
    super(message || code);
    this.name = "CommandError";
    this.code = code;
    this.correlationId = correlationId;
    this.frame = frame;
  }
}

/** A client that connects at once. */
export function connect(options) {
  const client = new Ringgate(options);
  client.connect();
  return client;
}

export class Ringgate {
  #options;
  #environment;
  #handlers = new Map();
  #streams = new Streams();
  #pending = new Map(); // correlation id → command that waits for its acknowledgement, in the order of sending
  #socket = null;
  #state = "idle";
  #timers = new Map();
  #token;
  #resume;
  #attempt = 0; // closes since the last connection that lasted
  #authentication = 0; // attempts on this connection
  #refused = false; // 4401 since the last success
  #heldUntil = 0; // the server asked not to come back before
  #deltas = 0;
  #deltasAcknowledged = 0;
  #heartbeatSentAt = 0;
  #poison = { key: "", failures: 0 };
  #dirty = false;
  #unlisten = () => {};

  constructor(options) {
    const given = typeof options === "string" ? { url: options } : options;
    this.#options = { ...DEFAULTS, ...given };
    this.#environment = { ...browser(), ...given.environment };
    this.#token = given.token;
    this.#restore();
  }

  /** Who the server says we are: user, session, rooms; and what became of the connection so far. */
  session = null;
  lastClose = null;
  roundTripMs = null;
  stats = {
    connections: 0,
    resumed: 0,
    lost: 0,
    reliable: 0,
    replayed: 0,
    duplicates: 0,
    gaps: 0,
    deltas: 0,
    skipped: 0,
  };

  get state() {
    return this.#state;
  }
  get positions() {
    return this.#streams.positions();
  }
  get streams() {
    return this.#streams.list();
  }
  /** Commands that wait for their acknowledgement. */
  get pending() {
    return this.#pending.size;
  }
  get resumeToken() {
    return this.#resume;
  }

  /** Calls the handler with every frame of this type; "*" is every type. Returns what takes it off again. */
  on(type, handler) {
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  /** Connects, also after a close that ended the reconnecting. A new token replaces the old one. */
  connect({ token } = {}) {
    if (token !== undefined) this.#token = token;
    if (this.#socket) return this;
    this.#clear("retry");
    this.#unlisten();
    this.#unlisten = this.#environment.listen({
      awake: () => this.#awake(),
      hidden: () => this.#save(),
    });
    this.#refused = false;
    this.#heldUntil = 0;
    this.#open();
    return this;
  }

  /** Sends a command, `send(type, fields, options)` or `send(message, options)`. Without `ack` it returns whether the
   * message was handed to a connection; with it, a promise of the answer, which outlives connections. */
  send(type, fields = {}, options = {}) {
    if (typeof type === "object") [type, fields, options] = [type.type, type, fields];
    const message = { ...fields, type };
    if (!options.ack) return this.#state === "open" && this.#write(message);
    message.correlation_id ??= options.correlationId ?? this.#environment.id();
    return this.#command(message, options);
  }

  /** Ends the connection with a goodbye. The session stays resumable by `connect` for the server's resume window. */
  close() {
    this.#save();
    this.#stop({ code: 1000, text: "" }, closeRow(1000));
  }

  /** Drops what would resume the session, here and in the storage, and gives up commands that wait. */
  forget() {
    this.#resume = undefined;
    this.#streams.clear();
    this.#giveUp("session_gone", "the session was left", () => true);
    this.#options.storage?.removeItem(this.#storageKey());
    this.#dirty = false;
  }

  /** Drops the connection as a dead network would, without waiting for anything; what is under way is lost. */
  dropConnection() {
    if (this.#socket) this.#lost(LOST, { code: 1006, text: "" });
  }

  // --- the life of a connection

  #open() {
    const { url, openMs } = this.#options;
    this.#authentication = 0;
    this.#deltas = 0;
    this.#deltasAcknowledged = 0;
    this.#streams.newConnection();
    this.#set("connecting");
    let socket;
    try {
      socket = new this.#environment.WebSocket(url);
    } catch (error) {
      this.#set("idle");
      throw error; // the url is no WebSocket url: the caller's mistake
    }
    this.#socket = socket;
    this.#after("open", openMs, () => this.#lost(LOST, { code: 1006, text: "no answer" }));
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    socket.onerror = () => {}; // a close follows and says as much
  }

  #closed(code, text) {
    const row = closeRow(code, text);
    if (code !== UNAUTHORIZED || row.reconnect !== "no") {
      return row.reconnect === "no" ? this.#stop({ code, text }, row) : this.#lost(row, { code, text });
    }
    // Without another token the answer would be the same.
    if (!this.#options.getToken || this.#refused) return this.#stop({ code, text }, row);
    this.#refused = true;
    this.#token = undefined;
    this.#lost(row, { code, text });
  }

  /** The connection is gone and another one will be tried. */
  #lost(row, { code, text }) {
    const delay = this.#delay(row, text);
    this.#attempt += 1;
    this.#detach();
    this.#save();
    this.#closing(row, code, text, delay);
    this.#set("waiting", { delay_ms: delay });
    this.#after("retry", delay, () => this.#open());
  }

  /** The connection is gone and it makes no sense to try another one. */
  #stop({ code, text }, row) {
    const socket = this.#socket;
    this.#detach(code === 1000 ? 1000 : undefined);
    this.#clear("retry");
    this.#unlisten();
    if (socket) this.#closing(row, code, text, null);
    if (code === UNAUTHORIZED) this.#giveUp("unauthorized", "the server did not accept the token", () => true);
    this.#set("closed");
  }

  #closing(row, code, text, delay) {
    this.lastClose = { code, reason: text || row.text, label: row.label };
    this.#emit({ type: "client.closed", ...this.lastClose, reconnect: row.reconnect, delay_ms: delay });
  }

  #detach(code) {
    const socket = this.#socket;
    this.#socket = null;
    for (const timer of ["open", "heartbeat", "reply", "refresh", "stable"]) this.#clear(timer);
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    if (code) socket.close(code);
    else if (socket.terminate) socket.terminate();
    else socket.close();
  }

  /** Full jitter: anything up to the bound, so that many clients come back spread out; what the server names counts
   * more. */
  #delay(row, text) {
    const { backoffMs, backoffMaxMs, delayedMs } = this.#options;
    const { random, now } = this.#environment;
    const jitter = (base) => Math.round(random() * Math.min(backoffMaxMs, base * 2 ** this.#attempt));
    const named = /\bin (\d+) ms\b/.exec(text ?? "");
    const held = named !== null || row.reconnect === "delayed" || row.code === TRY_AGAIN_LATER;
    let delay = jitter(backoffMs);
    if (named) delay = Number(named[1]) + (this.#attempt > 0 ? delay : 0);
    else if (held) delay = delayedMs + jitter(delayedMs);
    else if (row.code === SLOW && this.#attempt === 0) delay = 0;
    this.#heldUntil = held ? now() + delay : 0;
    return delay;
  }

  /** The page is visible again or the network is back. */
  #awake() {
    if (this.#state === "open") this.#heartbeat();
    if (this.#state !== "waiting" || this.#heldUntil > this.#environment.now()) return;
    this.#clear("retry");
    this.#open();
  }

  #set(state, more = {}) {
    const previous = this.#state;
    this.#state = state;
    if (state !== previous) this.#emit({ type: "client.state", state, previous, ...more });
  }

  // --- authentication

  /** Credentials by attempt: what we have; a new token; the token without the session, which may be another user's. */
  async #authenticate() {
    const socket = this.#socket;
    const { getToken, deltaWindow } = this.#options;
    const attempt = this.#authentication++;
    const expired = expiryMs(this.#token) <= this.#environment.now();
    const fresh = attempt === 1 || (attempt === 0 && (expired || this.#refused || (!this.#token && !this.#resume)));
    if (fresh && getToken) {
      try {
        this.#token = await getToken();
      } catch (error) {
        if (socket !== this.#socket) return;
        this.#emit({ type: "client.error", error });
        return this.#lost(LOST, { code: 1006, text: "no token" });
      }
      if (socket !== this.#socket) return;
    }
    const alone = attempt >= (getToken ? 2 : 1);
    if (alone && !(this.#resume && this.#token)) return this.#unauthorized();
    if (alone) this.#sessionGone("refused");
    this.#write({
      type: "system.authenticate",
      token: attempt === 0 && expired && !getToken && this.#resume ? undefined : this.#token,
      resume: this.#resume,
      positions: this.#resume && this.#streams.positions(),
      delta_window: deltaWindow || undefined,
    });
  }

  #unauthorized() {
    this.#sessionGone("refused");
    this.#stop({ code: UNAUTHORIZED, text: "unauthorized" }, closeRow(UNAUTHORIZED, "unauthorized"));
  }

  #authenticated(frame) {
    if (this.#state === "open") return this.#identity(frame); // the answer to a refreshed token
    const resuming = this.#resume !== undefined;
    const recovered = resuming && frame.recovered === true;
    const goesOn = this.session?.session_id === frame.session_id;
    this.#identity(frame);
    this.#clear("open");
    this.#refused = false;
    this.stats.connections += 1;
    const rooms = this.session.rooms;
    if (recovered) {
      this.stats.resumed += 1;
      this.#streams.resume(rooms);
    } else {
      this.#streams.clear();
      const unknown = "the session is gone; whether the command was done is not known";
      if (!goesOn) this.#giveUp("session_gone", unknown, (command) => command.sent);
    }
    this.#touch();
    this.#after("stable", this.#options.stableMs, () => (this.#attempt = 0));
    this.#scheduleHeartbeat();
    this.#scheduleRefresh();
    this.#set("open");
    this.#dispatch(frame);
    if (resuming && !recovered) {
      this.stats.lost += 1;
      this.#emit({ type: "client.lost", reason: frame.reason ?? "expired", lost: frame.lost ?? [], rooms });
    }
    for (const command of this.#pending.values()) this.#transmit(command);
    this.#save(); // at once: a reload before the next save would begin a new session
  }

  #identity(frame) {
    this.#resume = frame.resume ?? this.#resume;
    const rooms = (frame.rooms ?? this.session?.rooms ?? []).map((room) => room.room_id ?? room);
    this.session = { ...this.session, ...frame, rooms };
  }

  #sessionGone(reason) {
    if (!this.#resume) return;
    this.forget();
    this.#emit({ type: "client.lost", reason, lost: [], rooms: [] });
  }

  /** A new token before the old one ends, on the living connection. */
  #scheduleRefresh() {
    const { getToken } = this.#options;
    const left = expiryMs(this.#token) - this.#environment.now();
    if (!getToken || !Number.isFinite(left)) return;
    const delay = Math.min(Math.max(left - 30_000, 1_000), 2 ** 31 - 1); // the longest a timer can wait
    this.#after("refresh", delay, async () => {
      const socket = this.#socket;
      try {
        this.#token = await getToken();
        if (socket !== this.#socket) return;
        this.#write({ type: "system.authenticate", token: this.#token });
        this.#scheduleRefresh();
      } catch (error) {
        this.#emit({ type: "client.error", error }); // the server closes in time; the reconnect asks again
      }
    });
  }

  // --- receiving

  #receive(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#fault({ type: "client.fault", what: "a message is not JSON" });
    }
    this.#clear("reply");
    if (Array.isArray(frame.at)) this.#placed(frame);
    else this.#control(frame);
  }

  /** A frame of a stream: in its turn, or again, or not the one that follows. */
  #placed(frame) {
    const [handle, offset, prev] = frame.at;
    const verdict = this.#streams.check(handle, offset, prev);
    if (verdict.kind === "duplicate") {
      this.stats.duplicates += 1;
    } else if (verdict.kind === "fault") {
      this.stats.gaps += 1;
      const { what, stream, position } = verdict;
      this.#fault({ type: "client.gap", what, stream, position, at: frame.at });
    } else if (prev === undefined) {
      this.#handle(frame, verdict);
      this.#deltaReceived();
    } else if (this.#handle(frame, verdict)) {
      // Only now: what a handler has not seen is sent again after a resume.
      this.#streams.advance(verdict.at, offset);
      if (frame.type === "games.event.room_left") this.#streams.leave(frame.room_id);
      this.stats.reliable += 1;
      if (verdict.replayed) this.stats.replayed += 1;
      this.#touch();
    }
  }

  #control(frame) {
    switch (frame.type) {
      case "system.welcome":
        this.#set("authenticating");
        this.#dispatch(frame);
        return void this.#authenticate();
      case "system.authenticated":
        return this.#authenticated(frame);
      case "system.position":
        for (const introduction of frame.streams) this.#streams.introduce(introduction, frame.recovered === false);
        this.#touch();
        if (frame.recovered === false) this.#startedAnew(frame);
        break;
      case "system.skipped":
        this.stats.skipped += frame.count;
        this.#streams.skipped(frame.stream, frame.count);
        break;
      case "system.heartbeat_ack":
        if (this.#heartbeatSentAt) this.roundTripMs = this.#environment.now() - this.#heartbeatSentAt;
        this.#heartbeatSentAt = 0;
        break;
    }
    this.#dispatch(frame);
    const authentication = frame.type === "system.error" && frame.code === "auth_failed";
    if (authentication && this.#state === "authenticating") return void this.#authenticate();
    if (frame.correlation_id !== undefined) this.#answered(frame);
  }

  /** A room that does not go on where the client stood: it came in there again, or part of it is gone. */
  #startedAnew({ streams, reason }) {
    const lost = streams.map(({ stream }) => stream);
    const rooms = [...new Set(lost.map((stream) => stream.split("/room:")[1]).filter(Boolean))];
    this.#emit({ type: "client.lost", reason, lost, rooms });
  }

  /** Runs a frame's handlers. One that throws gets the frame again by a resume, and after some tries it is told that
   * the frame is passed over. */
  #handle(frame, { stream, replayed, delta }) {
    const error = this.#dispatch(frame, { stream, replayed });
    if (frame.type === "system.error" && frame.correlation_id !== undefined) this.#answered(frame);
    if (error === undefined || delta) return true;
    const key = `${stream} ${frame.at[1]}`;
    this.#poison = { key, failures: this.#poison.key === key ? this.#poison.failures + 1 : 1 };
    const passedOver = this.#poison.failures > this.#options.handlerRetries;
    this.#emit({ type: "client.handler_failed", error, frame, stream, passed_over: passedOver });
    if (!passedOver && this.#socket) this.#lost(LOST, { code: 1006, text: "a handler failed" });
    return passedOver;
  }

  /** The server broke the contract. What is missing comes again by a resume; it is told, whatever comes of it. */
  #fault(event) {
    this.#emit(event);
    if (this.#socket) this.#lost(LOST, { code: 1006, text: event.what });
  }

  #deltaReceived() {
    this.stats.deltas += 1;
    this.#deltas += 1;
    const { deltaWindow } = this.#options;
    if (!deltaWindow || this.#deltas - this.#deltasAcknowledged < Math.max(1, Math.floor(deltaWindow / 2))) return;
    this.#deltasAcknowledged = this.#deltas;
    this.#write({ type: "system.delta_ack", count: this.#deltas });
  }

  /** Calls all handlers; returns the first error one of them throws. */
  #dispatch(frame, about = {}) {
    let failure;
    for (const type of [frame.type, "*"]) {
      for (const handler of [...(this.#handlers.get(type) ?? [])]) {
        try {
          handler(frame, about);
        } catch (error) {
          failure ??= error ?? new Error("a handler threw nothing");
        }
      }
    }
    if (failure !== undefined && !Array.isArray(frame.at)) this.#environment.report(failure);
    return failure;
  }

  #emit(event) {
    this.#dispatch(event);
    if (event.error !== undefined && !this.#handlers.get(event.type)?.size) this.#environment.report(event.error);
  }

  // --- commands

  #command(message, { timeoutMs = this.#options.commandMs }) {
    const id = message.correlation_id;
    if (this.#pending.has(id)) throw new TypeError(`correlation id ${id} is in use`);
    const command = { id, text: JSON.stringify(message), sent: false };
    const promise = new Promise((resolve, reject) => Object.assign(command, { resolve, reject }));
    this.#pending.set(id, command);
    command.timer = this.#environment.setTimeout(() => {
      this.#giveUp("timeout", `no answer in ${timeoutMs} ms`, (other) => other === command);
    }, timeoutMs);
    if (this.#state === "open") this.#transmit(command);
    promise.correlationId = id;
    return promise;
  }

  /** The same bytes every time: by them, the id and the session the server knows the command again. */
  #transmit(command) {
    command.again = command.sent;
    command.sent = true;
    this.#socket?.send(command.text);
  }

  #answered(frame) {
    const command = this.#pending.get(frame.correlation_id);
    if (!command) return;
    const refused = frame.type === "system.error";
    // A repeated command may have been done already, so a busy server is asked again, not believed.
    if (refused && command.again && (frame.code === "rate_limited" || frame.code === "unavailable")) {
      const wait = this.#options.delayedMs * (1 + this.#environment.random());
      const again = () => this.#state === "open" && this.#pending.has(command.id) && this.#transmit(command);
      this.#environment.setTimeout(again, wait);
      return;
    }
    this.#pending.delete(command.id);
    this.#environment.clearTimeout(command.timer);
    if (refused) command.reject(new CommandError(frame.code, frame.message, command.id, frame));
    else command.resolve(frame);
  }

  #giveUp(code, message, which) {
    for (const command of [...this.#pending.values()].filter(which)) {
      this.#pending.delete(command.id);
      this.#environment.clearTimeout(command.timer);
      command.reject(new CommandError(code, message, command.id));
    }
  }

  #write(message) {
    if (!this.#socket) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // --- heartbeat

  #scheduleHeartbeat() {
    this.#after("heartbeat", this.#options.heartbeatMs, () => this.#heartbeat());
  }

  /** Asks for a sign of life; without one the connection is dead, whatever the browser believes. */
  #heartbeat() {
    this.#heartbeatSentAt = this.#environment.now();
    this.#write({ type: "system.heartbeat" });
    this.#after("reply", this.#options.replyMs, () => this.#lost(LOST, { code: 1006, text: "no sign of life" }));
    this.#scheduleHeartbeat();
  }

  // --- what a reload survives

  #storageKey() {
    return `ringgate ${this.#options.url}`;
  }

  #restore() {
    const { storage, resume, keep } = this.#options;
    let saved = resume ?? {};
    try {
      if (!resume) saved = JSON.parse(storage?.getItem(this.#storageKey()) ?? "{}");
    } catch {
      saved = {}; // not ours or cut off: begin anew
    }
    this.#resume = saved.token;
    // Places are worth as much as what was made of the frames before them: without that, the server starts over.
    if (resume || (keep && saved.kept !== undefined)) this.#streams.restore(saved.positions ?? {});
    this.restored = saved.kept;
  }

  /** Something to save has changed. */
  #touch() {
    if (!this.#options.storage || this.#dirty) return;
    this.#dirty = true;
    this.#after("save", this.#options.saveMs, () => this.#save());
  }

  /** Token, places and what the page made of the frames up to there, in one write. */
  #save() {
    const { storage, keep } = this.#options;
    this.#clear("save");
    if (!storage || !this.#dirty || !this.#resume) return;
    this.#dirty = false;
    try {
      const kept = keep?.();
      const positions = keep && this.#streams.positions();
      storage.setItem(this.#storageKey(), JSON.stringify({ token: this.#resume, positions, kept }));
    } catch (error) {
      this.#emit({ type: "client.error", error }); // full or forbidden; the connection does not need it
    }
  }

  // --- timers by name, one each

  #after(name, ms, act) {
    this.#clear(name);
    const fire = () => {
      this.#timers.delete(name);
      act();
    };
    this.#timers.set(name, this.#environment.setTimeout(fire, ms));
  }

  #clear(name) {
    if (!this.#timers.has(name)) return;
    this.#environment.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** Our places in the streams, by name, and what the connection's handles stand for. */
class Streams {
  #byName = new Map(); // name → {stream, epoch, offset, frames, skipped}
  #byHandle = new Map(); // handle → {entry, head, first}
  #resumed = null; // the rooms of a resumed session, until the connection ends

  newConnection() {
    this.#byHandle.clear();
  }

  clear() {
    this.#byName.clear();
    this.#byHandle.clear();
    this.#resumed = null;
  }

  restore(positions) {
    for (const [stream, { epoch, offset }] of Object.entries(positions)) this.#entry(stream, epoch, offset);
  }

  /** The session goes on. Places in rooms that it is no longer in mean nothing if it enters them again. */
  resume(rooms) {
    this.#resumed = new Set(rooms.map((room) => `room:${room}`));
    for (const name of [...this.#byName.keys()]) if (!this.#goesOn(name)) this.#byName.delete(name);
  }

  /** A stream's handle and head. If the session was resumed and has been in it, our own place counts, and without one
   * the server starts where the session entered; otherwise we begin at the head. */
  introduce({ handle, stream, epoch, offset }, anew = false) {
    const again = [...this.#byHandle.values()].some(({ entry }) => entry.stream === stream);
    const known = this.#byName.get(stream);
    const goesOn = this.#resumed !== null && !again && !anew && this.#goesOn(stream);
    let entry = known;
    if (!goesOn || known?.epoch !== epoch) entry = this.#entry(stream, epoch, goesOn ? 0 : offset);
    this.#byHandle.set(handle, { entry, head: offset, goesOn, first: true });
  }

  /** Whether a frame of this place may be handled now. */
  check(handle, offset, prev) {
    const at = this.#byHandle.get(handle);
    if (!at) return { kind: "fault", what: `a frame of stream ${handle}, which was not introduced` };
    const { entry, head, goesOn, first } = at;
    const about = { at, stream: entry.stream, position: entry.offset };
    if (prev === undefined) return { kind: "next", delta: true, replayed: false, ...about };
    if (offset <= entry.offset) return { kind: "duplicate", ...about };
    // 0: not known. The first frame behind an introduction may follow an older one than our place.
    const follows = prev === 0 || prev === entry.offset || (first && (prev < entry.offset || entry.offset === 0));
    const what = `${entry.stream}: ${offset} follows ${prev}, we are at ${entry.offset}`;
    if (!follows) return { kind: "fault", what, ...about };
    return { kind: "next", replayed: goesOn && offset <= head, ...about };
  }

  /** `at` is what `check` said, for a handler may have ended the connection. */
  advance(at, offset) {
    at.first = false;
    at.entry.offset = offset;
    at.entry.frames += 1;
  }

  /** The session has left the room: no place to resume from. What is still under way has its handle. */
  leave(room) {
    for (const name of [...this.#byName.keys()]) if (name.endsWith(`/room:${room}`)) this.#byName.delete(name);
  }

  skipped(handle, count) {
    const at = this.#byHandle.get(handle);
    if (at) at.entry.skipped += count;
  }

  positions() {
    const known = [...this.#byName.values()].filter(({ offset }) => offset > 0).slice(-POSITIONS_MAX);
    return Object.fromEntries(known.map(({ stream, epoch, offset }) => [stream, { epoch, offset }]));
  }

  list() {
    return [...this.#byName.values()].map((entry) => ({ ...entry }));
  }

  #entry(stream, epoch, offset) {
    const { frames = 0, skipped = 0 } = this.#byName.get(stream) ?? {};
    const entry = { stream, epoch, offset, frames, skipped };
    this.#byName.set(stream, entry);
    return entry;
  }

  /** Streams of rooms go on if the session is still in the room, all others with the session. */
  #goesOn(name) {
    const scope = name.slice(name.indexOf("/") + 1);
    return !scope.startsWith("room:") || this.#resumed.has(scope);
  }
}

/** When a JWT ends, ms since 1970; never if it does not say so or is none. Not checked: that is the server's part. */
function expiryMs(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(part));
    return typeof exp === "number" ? exp * 1000 : Infinity;
  } catch {
    return Infinity;
  }
}

/** What the client needs from where it runs; tests give their own. */
function browser() {
  return {
    WebSocket: globalThis.WebSocket,
    setTimeout: (act, ms) => globalThis.setTimeout(act, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    id: uuid,
    report: (error) => (globalThis.reportError ? globalThis.reportError(error) : console.error(error)),
    listen: listenToPage,
  };
}

function uuid() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID();
  // Pages without TLS, except from localhost, have no randomUUID.
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function listenToPage({ awake, hidden }) {
  const { document } = globalThis;
  if (!document || !globalThis.addEventListener) return () => {};
  const visibility = () => (document.visibilityState === "visible" ? awake() : hidden());
  globalThis.addEventListener("online", awake);
  globalThis.addEventListener("pagehide", hidden);
  document.addEventListener("visibilitychange", visibility);
  return () => {
    globalThis.removeEventListener("online", awake);
    globalThis.removeEventListener("pagehide", hidden);
    document.removeEventListener("visibilitychange", visibility);
  };
}
