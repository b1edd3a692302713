// What the page knows, as plain JSON, made of frames alone: the client stores it beside its places, so a reload goes on
// here. Frames may be replayed and a room's frames may come before the answer that let us in; neither may matter.

export const TARGET = 50;
const LINES_MAX = 200;
const RECENT_MAX = 7;

export function newState() {
  return { me: null, listed: null, here: null, rooms: {} };
}

/** Applies a frame; returns a sentence worth saying aloud, if it made one. */
export function apply(state, frame, about = {}) {
  const act = ACTS[frame.type] ?? (frame.room_id && frame.at ? ignored : undefined);
  return act?.(state, frame, about);
}

/** The player whose turn it is, if it can be told. */
export function turnOf(room) {
  return room.started ? room.turn : null;
}

/** What the roll button means to this user now; without a label there is nothing to press. */
export function rollOf(room, me) {
  if (room.started) {
    const mine = room.turn === me;
    return { may: mine, label: "Roll", hint: mine ? "Your turn" : `${nameOf(room, room.turn)} is to roll` };
  }
  const host = room.host_id === me;
  const may = host && room.players.length > 1;
  if (room.winner !== null) {
    return { may, label: may ? "Play again" : "", hint: `${nameOf(room, room.winner) || "Somebody"} wins!` };
  }
  if (room.players.length < 2) return { may, label: "Roll", hint: "Waiting for a second player" };
  if (host) return { may, label: "Start with a roll", hint: "Everybody here? The first roll starts the game" };
  return { may, label: "Roll", hint: `${nameOf(room, room.host_id) || "The host"} starts the game` };
}

export function nameOf(room, id) {
  return room.players.find((player) => player.user_id === id)?.username ?? room.names[id] ?? "";
}

const ignored = () => undefined;

const ACTS = {
  "system.authenticated"(state, { user_id, username, rooms = [], recovered }) {
    if (state.me && state.me.user_id !== user_id) Object.assign(state, newState());
    state.me = { user_id, username };
    const ids = rooms.map((room) => room.room_id ?? room);
    for (const id of Object.keys(state.rooms)) if (!ids.includes(id)) delete state.rooms[id];
    for (const id of ids) roomOf(state, id);
    if (!recovered) for (const id of ids) state.rooms[id].incomplete = true;
    if (state.here && !state.rooms[state.here]) state.here = null;
  },

  "games.event.rooms_listed"(state, { rooms }) {
    state.listed = rooms.map((room) => ({ ...room, room_id: String(room.room_id) }));
  },

  "games.event.room_created"(state, frame, about) {
    const room = enter(state, frame, about);
    room.host_id = asId(frame.host_id);
    seat(room, { user_id: frame.host_id, username: frame.host_name });
    return `You opened ${room.room_name}`;
  },

  "games.event.lobby_joined"(state, frame, about) {
    const room = enter(state, frame, about);
    if (frame.host_id !== undefined) room.host_id = asId(frame.host_id);
    for (const player of frame.players ?? []) seat(room, player);
    if (frame.player) seat(room, frame.player);
    room.host_id ??= room.players[0]?.user_id ?? null;
    setScores(room, frame.scores);
    // Behind an event of the room we know more.
    if (room.place === 0) Object.assign(room, { started: frame.turn != null, turn: asId(frame.turn) });
    return `You joined ${room.room_name}`;
  },

  "games.event.room_left"(state, { room_id }) {
    const room = state.rooms[room_id];
    delete state.rooms[room_id];
    if (state.here === room_id) state.here = null;
    return room && `You left ${room.room_name}`;
  },

  "games.event.player_joined": inRoom((room, { player }, fresh) => {
    if (fresh) seat(room, player);
    return fresh && `${player.username} joined`;
  }),

  "games.event.player_left": inRoom((room, frame, fresh) => {
    const id = asId(frame.player?.user_id ?? frame.player_id);
    const name = nameOf(room, id);
    if (!fresh) return undefined;
    room.players = room.players.filter((player) => player.user_id !== id);
    room.host_id = asId(frame.host_id ?? room.players[0]?.user_id);
    return `${name || "A player"} left`;
  }),

  "games.event.game_started": inRoom((room, frame, fresh) => {
    if (!fresh) return undefined;
    Object.assign(room, { started: true, winner: null, recent: [] });
    for (const player of frame.players ?? []) seat(room, player);
    for (const player of room.players) player.score = 0;
    room.turn = asId(frame.players?.[0]?.user_id ?? room.host_id);
    return "The game has started";
  }),

  "games.event.turn_changed": inRoom((room, frame, fresh, me) => {
    if (!fresh) return undefined;
    Object.assign(room, { started: true, winner: null, turn: asId(frame.player_id) });
    return room.turn === me ? "Your turn" : undefined;
  }),

  "games.event.bigger_dice.rolled": inRoom((room, frame, fresh, me) => {
    if (!fresh) return undefined;
    const id = asId(frame.player_id);
    const player = room.players.find((other) => other.user_id === id);
    if (player) player.score = frame.new_score;
    room.rolls += 1;
    room.recent.push({ n: room.rolls, player_id: id, roll: frame.roll });
    if (room.recent.length > RECENT_MAX) room.recent.shift();
    const who = id === me ? "You" : nameOf(room, id) || "A player";
    return `${who} rolled ${frame.roll}, ${frame.new_score} points`;
  }),

  "games.event.game_ended": inRoom((room, frame, fresh) => {
    if (!fresh) return undefined;
    Object.assign(room, { started: false, turn: null, winner: asId(frame.winner_id) });
    setScores(room, frame.scores);
    return `${nameOf(room, room.winner) || "Somebody"} wins the game`;
  }),

  "chat.event.message_received"(state, frame) {
    const room = frame.lobby_id && state.rooms[frame.lobby_id];
    if (room) line(room, frame);
  },

  "rooms.event.history"(state, { room_id, events }) {
    const room = state.rooms[room_id];
    if (!room) return;
    for (const event of events) if (event.type === "chat.event.message_received") line(room, event);
    const games = events.filter((event) => event.type.startsWith("games.event.") && event.at);
    const newest = games.at(-1)?.at[1] ?? 0;
    // The past of a room in which nothing has happened since we came, or whose course has a hole: tell it from there.
    if (!room.incomplete && (room.place > 0 || room.restored)) return;
    if (newest < room.place) return;
    room.place = 0;
    for (const event of games) apply(state, event);
    seat(room, state.me); // whatever our own comings and goings were, we are here
    Object.assign(room, { incomplete: false, restored: true });
  },
};

/** Acts of a room's own stream. `fresh`: not one whose effect is in the room already. */
function inRoom(act) {
  return (state, frame) => {
    const room = roomOf(state, frame.room_id);
    const place = frame.at?.[1];
    const fresh = place === undefined || place > room.place;
    if (place !== undefined && fresh) room.place = place;
    const said = act(room, frame, fresh, state.me?.user_id);
    return said && state.here === room.room_id ? said : undefined;
  };
}

function roomOf(state, id) {
  state.rooms[id] ??= {
    room_id: id,
    room_name: state.listed?.find((room) => room.room_id === id)?.room_name ?? "Room",
    host_id: null,
    players: [],
    names: {}, // of everybody who was here: chat lines and rolls stay theirs
    started: false,
    turn: null,
    winner: null,
    recent: [], // the last rolls, newest last
    rolls: 0,
    place: 0, // of the last event of the game that is in this record
    lines: [],
  };
  return state.rooms[id];
}

function enter(state, frame, { replayed } = {}) {
  const room = roomOf(state, String(frame.room_id));
  room.room_name = frame.room_name;
  if (!replayed || !state.here) state.here = room.room_id;
  return room;
}

function seat(room, { user_id, username, score }) {
  const id = String(user_id);
  if (username) room.names[id] = username;
  const known = room.players.find((player) => player.user_id === id);
  if (known) Object.assign(known, username ? { username } : {}, score === undefined ? {} : { score });
  else room.players.push({ user_id: id, username: username ?? room.names[id] ?? id, score: score ?? 0 });
}

function setScores(room, scores = {}) {
  for (const player of room.players) player.score = scores[player.user_id] ?? player.score;
}

/** Ids are strings; a backend may send a number. */
function asId(id) {
  return id == null ? null : String(id);
}

function line(room, { at, sender_id, sender_name, content, timestamp }) {
  const place = at?.[1] ?? 0;
  const key = place ? `at ${place}` : `${timestamp} ${sender_id} ${content}`;
  if (room.lines.some((other) => other.key === key)) return;
  const after = room.lines.findLastIndex((other) => other.place <= place || place === 0);
  room.lines.splice(after + 1, 0, { key, place, sender_id: String(sender_id), sender_name, content, timestamp });
  if (room.lines.length > LINES_MAX) room.lines.shift();
}
