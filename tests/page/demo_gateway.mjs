// A small stand-in for the gateway in dev mode: serves the page and plays rooms, chat and dice in one process, so that
// the page can be worked on without a build. It knows resumes, not slowness.
//
//   NODE_PATH=$(tests/services/node.sh) node tests/page/demo_gateway.mjs [port]
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const { WebSocketServer } = createRequire(import.meta.url)("ws"); // by NODE_PATH
const PAGE = new URL("../../src/page/", import.meta.url);
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const POLICY =
  "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";
const TARGET = 50;
const SEATS = 6;
const JOIN_MS = 100;

/** The server's state: users, sessions, rooms and their streams. */
class World {
  epoch = 4711;
  rooms = new Map();
  sessions = new Map(); // resume token → session
  streams = new Map(); // name → {handle, name, frames}
  place = 0;

  stream(name) {
    if (!this.streams.has(name))
      this.streams.set(name, { handle: this.streams.size + 1, name, frames: [], members: new Set() });
    return this.streams.get(name);
  }

  /** A reliable event of a stream, to all its members. */
  publish(name, event) {
    const stream = this.stream(name);
    const prev = stream.frames.at(-1)?.at[1] ?? 0;
    this.place += 1 + Math.floor(Math.random() * 3);
    const frame = { ...event, at: [stream.handle, this.place, prev] };
    stream.frames.push(frame);
    for (const session of stream.members) session.send(frame);
    return frame;
  }

  toRoom(room, type, payload) {
    return this.publish(`games.events.0/room:${room.room_id}`, {
      type: `games.event.${type}`,
      room_id: room.room_id,
      ...payload,
    });
  }
}

class Session {
  token = randomUUID();
  id = randomUUID();
  rooms = new Set();
  seen = new Set(); // correlation ids that are done
  socket = null;

  constructor(world, user) {
    Object.assign(this, { world, user });
    for (const name of this.names()) world.stream(name).members.add(this);
  }
  names() {
    const rooms = [...this.rooms].flatMap((room) => [`games.events.0/room:${room}`, `chat.events.0/room:${room}`]);
    return [`games.events.0/session:${this.id}`, ...rooms];
  }
  send(frame) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame));
  }
  tell(type, payload) {
    this.world.publish(`games.events.0/session:${this.id}`, { type: `games.event.${type}`, ...payload });
  }
  refuse(code, message, correlation_id) {
    this.world.publish(`games.events.0/session:${this.id}`, { type: "system.error", code, message, correlation_id });
  }
  introduce(names, entered = []) {
    const streams = names.map((name, n) => {
      const { handle, frames } = this.world.stream(name);
      const head = frames.slice(0, entered[n]).at(-1);
      return { handle, stream: name, epoch: this.world.epoch, offset: head?.at[1] ?? 0 };
    });
    this.send({ type: "system.position", streams });
  }
  /** Takes a moment, as a request to the room's home does; what happens meanwhile is not missed. */
  join(room) {
    const names = [`games.events.0/room:${room.room_id}`, `chat.events.0/room:${room.room_id}`];
    const entered = names.map((name) => this.world.stream(name).frames.length);
    setTimeout(() => {
      this.rooms.add(room.room_id);
      this.introduce(names, entered);
      names.forEach((name, n) => {
        const stream = this.world.stream(name);
        for (const frame of stream.frames.slice(entered[n])) this.send(frame);
        stream.members.add(this);
      });
    }, JOIN_MS);
  }
  leave(room) {
    this.rooms.delete(room.room_id);
    for (const kind of ["games", "chat"])
      this.world.stream(`${kind}.events.0/room:${room.room_id}`).members.delete(this);
  }
  attach(socket, positions, recovered, last_close) {
    this.socket?.close(4409, "replaced");
    this.socket = socket;
    this.send({
      type: "system.authenticated",
      user_id: this.user.user_id,
      username: this.user.username,
      roles: ["user"],
      session_id: this.id,
      resume: this.token,
      recovered,
      rooms: [...this.rooms],
      last_close,
    });
    this.introduce(this.names());
    if (!recovered) return;
    for (const name of this.names()) {
      const from = positions?.[name]?.offset ?? 0;
      for (const frame of this.world.stream(name).frames) if (frame.at[1] > from) this.send(frame);
    }
  }
}

const scoresOf = (room) => Object.fromEntries(room.scores);

/** What each command does; a throw of [code, message] refuses it. */
const COMMANDS = {
  "games.command.list_rooms"(world, session) {
    const rooms = [...world.rooms.values()].reverse().map((room) => ({
      room_id: room.room_id,
      room_name: room.room_name,
      game_type: "bigger_dice",
      host: room.players[0],
      players: room.players.length,
      max_players: SEATS,
      is_password_protected: room.password !== null,
      started: room.turn !== null,
    }));
    session.tell("rooms_listed", { rooms, more: false });
  },
  "games.command.create_room"(world, session, { room_name, password }) {
    const taken = [...world.rooms.values()].some((room) => room.room_name === room_name);
    if (taken) throw ["room_exists", `there is a room named ${room_name}; choose another name`];
    const host = session.user;
    const room = { room_id: randomUUID(), room_name, password: password || null, players: [host] };
    Object.assign(room, { scores: new Map(), turn: null });
    world.rooms.set(room.room_id, room);
    session.tell("room_created", {
      room_id: room.room_id,
      room_name,
      game_type: "bigger_dice",
      host_id: host.user_id,
      host_name: host.username,
      is_password_protected: room.password !== null,
      max_players: SEATS,
    });
    session.join(room);
  },
  "games.command.join_room"(world, session, { room_name, password }) {
    const room = [...world.rooms.values()].find((other) => other.room_name === room_name);
    if (!room) throw ["room_not_found", "there is no such room"];
    if (room.password !== null && room.password !== password) throw ["wrong_password", "this is not the password"];
    if (room.players.length >= SEATS) throw ["room_full", "the room has its 6 players; join another"];
    room.players.push(session.user);
    world.toRoom(room, "player_joined", { player: session.user, host_id: room.players[0].user_id });
    session.tell("lobby_joined", {
      room_id: room.room_id,
      room_name,
      game_type: "bigger_dice",
      host_id: room.players[0].user_id,
      player: session.user,
      players: room.players,
      max_players: SEATS,
      turn: room.turn,
      scores: scoresOf(room),
    });
    session.join(room);
  },
  "games.command.leave_room"(world, session, { room_id }) {
    const room = world.rooms.get(room_id);
    session.tell("room_left", { room_id });
    session.leave(room);
    room.players = room.players.filter((user) => user !== session.user);
    if (room.players.length === 0) world.rooms.delete(room_id);
    else world.toRoom(room, "player_left", { player: session.user, host_id: room.players[0].user_id, reason: "left" });
  },
  "games.command.bigger_dice.roll"(world, session, { room_id }) {
    const room = world.rooms.get(room_id);
    const { user_id } = session.user;
    if (room.turn === null) {
      const starts = room.players[0] === session.user && room.players.length > 1;
      if (!starts) throw ["game_not_started", "the game starts with the first roll of the host"];
      Object.assign(room, { turn: user_id, scores: new Map(room.players.map((user) => [user.user_id, 0])) });
      world.toRoom(room, "game_started", { game_type: "bigger_dice", players: room.players });
    }
    if (room.turn !== user_id) throw ["not_your_turn", "it is another's turn; wait for yours"];
    const roll = 1 + Math.floor(Math.random() * 6);
    const new_score = room.scores.get(user_id) + roll;
    room.scores.set(user_id, new_score);
    world.toRoom(room, "bigger_dice.rolled", { player_id: user_id, roll, new_score });
    if (new_score >= TARGET) {
      world.toRoom(room, "game_ended", { winner_id: user_id, scores: scoresOf(room) });
      room.turn = null;
      return;
    }
    const players = [...room.scores.keys()];
    room.turn = players[(players.indexOf(user_id) + 1) % players.length];
    world.toRoom(room, "turn_changed", { player_id: room.turn });
  },
  "chat.command.send_lobby_message"(world, session, { lobby_id, content }) {
    world.publish(`chat.events.0/room:${lobby_id}`, {
      type: "chat.event.message_received",
      sender_id: session.user.user_id,
      sender_name: session.user.username,
      content,
      timestamp: new Date().toISOString(),
      lobby_id,
    });
  },
};

function command(world, session, message) {
  const { type, correlation_id } = message;
  if (type === "system.heartbeat")
    return session.send({ type: "system.heartbeat_ack", timestamp: new Date().toISOString() });
  const room_id = message.room_id ?? message.lobby_id;
  if (room_id !== undefined && !session.rooms.has(room_id))
    return session.send({
      type: "system.error",
      code: "not_in_room",
      message: "you are not in this room",
      correlation_id,
    });
  if (type === "rooms.command.history") {
    const names = [`games.events.0/room:${message.room_id}`, `chat.events.0/room:${message.room_id}`];
    const events = names.flatMap((name) => world.stream(name).frames).slice(-50);
    return session.send({ type: "rooms.event.history", room_id: message.room_id, events, correlation_id });
  }
  if (!COMMANDS[type])
    return session.send({ type: "system.error", code: "unknown_type", message: type, correlation_id });
  if (correlation_id) session.send({ type: "system.ack", correlation_id });
  if (session.seen.has(correlation_id)) return undefined;
  if (correlation_id) session.seen.add(correlation_id);
  try {
    COMMANDS[type](world, session, message);
  } catch (refusal) {
    if (!Array.isArray(refusal)) throw refusal;
    session.refuse(...refusal, correlation_id);
  }
  return undefined;
}

/** `guest:<name>` is a token here. */
function userOf(token) {
  const name = /^guest:(.+)$/.exec(token ?? "")?.[1];
  return name && { user_id: `u-${name.toLowerCase()}`, username: name };
}

function connection(world, socket) {
  let session = null;
  const send = (frame) => socket.send(JSON.stringify(frame));
  send({
    type: "system.welcome",
    connection_id: randomUUID(),
    timestamp: new Date().toISOString(),
    durability: "memory",
  });
  socket.on("message", (data) => {
    const message = JSON.parse(String(data));
    if (session) return command(world, session, message);
    if (message.type !== "system.authenticate") return socket.close(4401, "unauthorized");
    const known = world.sessions.get(message.resume);
    const user = userOf(message.token);
    if (!known && !user) return send({ type: "system.error", code: "auth_failed", message: "Invalid token" });
    session = known ?? new Session(world, user);
    world.sessions.set(session.token, session);
    session.attach(socket, message.positions, known !== undefined, known && { code: 0, reason: "connection lost" });
    return undefined;
  });
}

function serve(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (pathname === "/dev/token") {
    const token = `guest:${searchParams.get("name")}`;
    response.writeHead(200, { "content-type": "application/json" });
    return response.end(JSON.stringify({ token, user_id: userOf(token).user_id }));
  }
  const path = pathname === "/" ? "index.html" : pathname.slice(1);
  try {
    const body = readFileSync(fileURLToPath(new URL(path, PAGE)));
    const type = TYPES[path.split(".").at(-1)];
    response.writeHead(200, {
      "content-type": `${type}; charset=utf-8`,
      "content-security-policy": POLICY,
      "cache-control": "no-cache",
    });
    return response.end(body);
  } catch {
    response.writeHead(404);
    return response.end();
  }
}

const world = new World();
const server = createServer(serve);
new WebSocketServer({ server, path: "/ws" }).on("connection", (socket) => connection(world, socket));
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${server.address().port}/`),
);
