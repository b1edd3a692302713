// What the demo page makes of frames: whatever is replayed, doubled or early, the room ends up the same.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, newState, rollOf, turnOf } from "../../src/page/app/state.js";

const ROOM = "r";
const ANN = { user_id: "1", username: "Ann" };
const BOB = { user_id: "2", username: "Bob" };

/** A frame of the room's stream of games. */
const event = (place, type, fields) => ({ type: `games.event.${type}`, room_id: ROOM, at: [1, place, 0], ...fields });
const rolled = (place, player_id, roll, new_score) =>
  event(place, "bigger_dice.rolled", { player_id, roll, new_score });
const said = (place, sender_id, content) => ({
  type: "chat.event.message_received",
  lobby_id: ROOM,
  sender_id,
  sender_name: "",
  content,
  timestamp: `t${place}`,
  at: [2, place, 0],
});

const OPENED = {
  type: "games.event.room_created",
  room_id: ROOM,
  room_name: "Table",
  host_id: 1, // backends may send numbers
  host_name: "Ann",
};
const GAME = [
  event(10, "player_joined", { player: BOB }),
  event(11, "game_started", { players: [ANN, BOB] }),
  rolled(12, "1", 6, 6),
  event(13, "turn_changed", { player_id: "2" }),
  rolled(14, "2", 3, 3),
  event(15, "turn_changed", { player_id: "1" }),
];

function signedIn(user = ANN, rooms = []) {
  const state = newState();
  apply(state, { type: "system.authenticated", ...user, rooms, recovered: false });
  return state;
}

function after(frames, state = signedIn()) {
  for (const frame of frames) apply(state, frame);
  return state.rooms[ROOM];
}

const scores = (room) => room.players.map(({ username, score }) => [username, score]);

test("a game is followed from the opening to the end", () => {
  const room = after([OPENED, ...GAME]);
  assert.deepEqual(scores(room), [
    ["Ann", 6],
    ["Bob", 3],
  ]);
  assert.equal(turnOf(room), "1");
  apply({ rooms: { [ROOM]: room }, me: ANN }, event(20, "game_ended", { winner_id: 1, scores: { 1: 52, 2: 40 } }));
  assert.deepEqual([room.winner, turnOf(room), scores(room)[0][1]], ["1", null, 52]);
});

test("frames that come again change nothing", () => {
  const once = after([OPENED, ...GAME, said(5, "1", "hi")]);
  const twice = after([OPENED, ...GAME, said(5, "1", "hi"), ...GAME, said(5, "1", "hi")]);
  assert.deepEqual(twice, once);
});

test("a room's frames may come before the answer that let us in", () => {
  const joined = {
    type: "games.event.lobby_joined",
    room_id: ROOM,
    room_name: "Table",
    player: BOB,
    players: [ANN, BOB],
  };
  const state = signedIn(BOB);
  const room = after([...GAME.slice(1), { ...joined, host_id: "1" }], state);
  assert.deepEqual([room.room_name, room.host_id, turnOf(room)], ["Table", "1", "1"]);
  assert.deepEqual(scores(room), [
    ["Ann", 6],
    ["Bob", 3],
  ]);
  assert.equal(state.here, ROOM);
});

test("history tells a room that is new to us, chat in its order and without doubles", () => {
  const joined = {
    type: "games.event.lobby_joined",
    room_id: ROOM,
    room_name: "Table",
    player: BOB,
    players: [ANN, BOB],
  };
  const events = [...GAME, said(5, "1", "one"), said(7, "1", "two")];
  const room = after(
    [joined, said(7, "1", "two"), said(9, "2", "three")].concat({ type: "rooms.event.history", room_id: ROOM, events }),
    signedIn(BOB),
  );
  assert.deepEqual(
    room.lines.map((line) => line.content),
    ["one", "two", "three"],
  );
  assert.deepEqual([turnOf(room), scores(room)[0][1]], ["1", 6]);
});

test("history never takes a room back behind what is known", () => {
  const room = after([OPENED, ...GAME, { type: "rooms.event.history", room_id: ROOM, events: GAME.slice(0, 3) }]);
  assert.equal(turnOf(room), "1");
});

test("history fills a room whose frames were lost", () => {
  const state = signedIn();
  after([OPENED, ...GAME.slice(0, 3)], state);
  apply(state, { type: "system.authenticated", ...ANN, rooms: [ROOM], recovered: false });
  const room = after([{ type: "rooms.event.history", room_id: ROOM, events: GAME }], state);
  assert.deepEqual([turnOf(room), scores(room)[1][1], room.incomplete], ["1", 3, false]);
});

test("only the one whose turn it is may roll, and the host starts", () => {
  const room = after([OPENED]);
  assert.deepEqual([rollOf(room, "1").may, rollOf(room, "1").hint], [false, "Waiting for a second player"]);
  const two = after([OPENED, GAME[0]]);
  assert.deepEqual([rollOf(two, "1").may, rollOf(two, "2").may], [true, false]);
  const turn = after([OPENED, ...GAME.slice(0, 4)]);
  assert.deepEqual([rollOf(turn, "1").may, rollOf(turn, "2").may], [false, true]);
  assert.equal(rollOf(turn, "1").hint, "Bob is to roll");
});

test("behind the end the host may play again, with scores of zero", () => {
  const over = [...GAME, event(20, "game_ended", { winner_id: "2", scores: { 1: 40, 2: 52 } })];
  const room = after([OPENED, ...over]);
  assert.deepEqual([rollOf(room, "1").label, rollOf(room, "2").label], ["Play again", ""]);
  assert.equal(rollOf(room, "1").hint, "Bob wins!");
  const again = after([OPENED, ...over, event(21, "game_started", { players: [ANN, BOB] }), rolled(22, "1", 2, 2)]);
  assert.deepEqual(
    [again.winner, scores(again)],
    [
      null,
      [
        ["Ann", 2],
        ["Bob", 0],
      ],
    ],
  );
});

test("who joins a running game sees whose turn it is and the scores", () => {
  const joined = { type: "games.event.lobby_joined", room_id: ROOM, room_name: "Table", host_id: "1" };
  const room = after([{ ...joined, player: BOB, players: [ANN, BOB], turn: "1", scores: { 1: 12 } }], signedIn(BOB));
  assert.deepEqual([turnOf(room), scores(room)[0]], ["1", ["Ann", 12]]);
});

test("who leaves is gone, and names stay with what they did", () => {
  const room = after([OPENED, ...GAME, event(16, "player_left", { player: ANN, host_id: "2", reason: "left" })]);
  assert.deepEqual(scores(room), [["Bob", 3]]);
  assert.deepEqual([room.host_id, room.names["1"]], ["2", "Ann"]);
});

test("a room that was left, or is no longer ours, is forgotten; another user starts anew", () => {
  const state = signedIn();
  after([OPENED], state);
  apply(state, { type: "games.event.room_left", room_id: ROOM });
  assert.deepEqual([state.rooms, state.here], [{}, null]);
  after([OPENED], state);
  apply(state, { type: "system.authenticated", ...ANN, rooms: [], recovered: true });
  assert.deepEqual([state.rooms, state.here], [{}, null]);
  after([OPENED], state);
  apply(state, { type: "system.authenticated", ...BOB, rooms: [ROOM], recovered: true });
  assert.equal(state.rooms[ROOM].room_name, "Room");
});

test("the state is plain JSON", () => {
  const state = signedIn();
  after([OPENED, ...GAME, said(5, "1", "hi")], state);
  assert.deepEqual(JSON.parse(JSON.stringify(state)), state);
});
