// Dialect D of ringgate (binary frames, /ws/frames) in JavaScript with the `ws` library: starts a battle in a room,
// destroys its own socket in the middle without a word, resumes, and checks that no event is missing.
//
//   RINGGATE_TOKEN=$(ringgate token mint --sub bob --role publisher) node client.mjs ws://127.0.0.1:9998 ring 200
//
// Arguments: server, room, events of the battle. Ends with exit code 0 and a line of JSON that says what it saw.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const WebSocket = createRequire(import.meta.url)("ws"); // `require` finds it by NODE_PATH, too

const [url = "ws://127.0.0.1:9998", room = "ring", eventsText = "200"] = process.argv.slice(2);
const events = Number(eventsText);
const token = process.env.RINGGATE_TOKEN;

const [HELLO, WELCOME, ERROR, PING, PONG, JOIN, JOINED] = [1, 2, 3, 4, 5, 6, 7];
const [POSITION, ADVANCE, COMMAND, ACK, PLAYER_COMMAND] = [10, 11, 16, 17, 18];
const [WORLD_DELTA, BATTLE_TIMELINE, BATTLE_END, EVENT, SKIPPED] = [32, 33, 34, 35, 36];
const RELIABLE = new Set([PLAYER_COMMAND, BATTLE_TIMELINE, BATTLE_END, EVENT]);
const START_BATTLE = 10; // COMMAND kind of battle.command.start
const HEADER = 24;

// What outlives a connection.
let resume; // token of the last WELCOME
const positions = {}; // stream name -> {epoch, offset}: how far we are
const chains = {}; // stream name -> length of the unbroken chain of `prev`
let started = false;
let battle = 0;
let destroyedAt = 0;
let recovered = 0;
let replayed = 0; // events that came by the resume: older than the head when we came back

function frame(type, { kind = 0, stream = 0, number = 0, payload = "" } = {}) {
  const body = Buffer.from(payload);
  const out = Buffer.alloc(HEADER + body.length);
  out.writeUInt8(type, 0);
  out.writeUInt16LE(kind, 2);
  out.writeUInt32LE(stream, 4);
  out.writeBigUInt64LE(BigInt(number), 8);
  body.copy(out, HEADER);
  return out;
}

function connect() {
  const socket = new WebSocket(`${url}/ws/frames`, ["ringgate.frames.v1"], { perMessageDeflate: false });
  const names = {}; // handle -> stream name, of this connection
  const heads = {};

  const introduce = (handle, name, epoch, head) => {
    names[handle] = name;
    heads[name] = head;
    // After a resume the place we know counts: what is between it and the head is on its way.
    if (positions[name]?.epoch !== epoch) positions[name] = { epoch, offset: head };
    chains[name] ??= 0;
  };

  const advance = (stream, number, prev) => {
    const name = names[stream];
    assert(name, `a frame of stream ${stream}, which was not introduced`);
    const position = positions[name];
    assert(number > position.offset, `${name}: ${number} comes again, we are at ${position.offset}`);
    // The first frame behind an introduction may name an older one or none; every other names the one before it.
    const whole = chains[name] === 0 ? prev <= position.offset : prev === position.offset;
    assert(whole, `${name}: ${number} follows ${prev}, but we are at ${position.offset}`);
    chains[name] += 1;
    if (number <= heads[name] && destroyedAt > 0) replayed += 1;
    position.offset = number;
  };

  const received = (message) => {
    const [type, kind, stream] = [message.readUInt8(0), message.readUInt16LE(2), message.readUInt32LE(4)];
    // Places are below 2^53, so a JavaScript number holds them.
    const [number, prev] = [Number(message.readBigUInt64LE(8)), Number(message.readBigUInt64LE(16))];
    const payload = message.subarray(HEADER);
    const json = () => JSON.parse(payload.toString());
    if (RELIABLE.has(type) || type === ADVANCE) advance(stream, number, prev);

    if (type === PING) {
      socket.send(frame(PONG, { payload }));
    } else if (type === WELCOME) {
      const welcome = json();
      if (resume) {
        assert.equal(welcome.recovered, true, `the resume left a gap: ${welcome.reason}`);
        recovered += 1;
      }
      resume = welcome.resume;
      if (!welcome.rooms?.includes(room)) socket.send(frame(JOIN, { number: 1, payload: JSON.stringify({ room }) }));
    } else if (type === JOINED) {
      const { streams } = json();
      for (const { handle, stream, epoch, offset } of streams) introduce(handle, stream, epoch, offset);
      if (!started) {
        started = true;
        const payload = JSON.stringify({ events, interval_ms: 2 });
        socket.send(frame(COMMAND, { kind: START_BATTLE, stream: streams[0].handle, number: 2, payload }));
      }
    } else if (type === POSITION) {
      introduce(stream, json().stream, json().epoch, number);
    } else if (type === BATTLE_TIMELINE) {
      battle += 1;
      assert.equal(json().n, battle, "a battle event is missing, double or early");
      if (!destroyedAt && battle >= events / 4) {
        destroyedAt = battle;
        socket.removeAllListeners("message");
        socket.terminate(); // destroys the TCP connection; no close frame is sent
      }
    } else if (type === BATTLE_END) {
      assert.equal(json().events, events);
      assert.equal(battle, events);
      console.log(JSON.stringify({ battle, destroyedAt, recovered, replayed, chains }));
      socket.removeAllListeners("close");
      socket.close(1000);
    } else if (type === ERROR) {
      throw new Error(`error ${kind}: ${payload}`);
    } else {
      // Nothing to do for these.
      assert([ACK, WORLD_DELTA, EVENT, SKIPPED, ADVANCE, PLAYER_COMMAND].includes(type), `type ${type}`);
    }
  };

  // HELLO again says how far we are; the server goes on from there.
  socket.on("open", () => socket.send(frame(HELLO, { payload: JSON.stringify({ token, resume, positions }) })));
  socket.on("message", received);
  socket.on("close", (code, reason) => {
    // 1006: the connection was lost without a close frame, here by our own doing.
    if (![1001, 1006, 1011, 1012, 1013, 4408, 4410].includes(code)) throw new Error(`closed: ${code} ${reason}`);
    setTimeout(connect, 100);
  });
}

connect();
