// Dialect A of ringgate (JSON, /ws) in JavaScript with the `ws` library: what chatter.py does. Browsers and larger
// programs take src/page/ringgate.js, which does all of this by itself.
//
//   RINGGATE_TOKEN=$(ringgate token mint --sub bob) node chatter.mjs ws://127.0.0.1:9998 "Bob's den" 20
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const WebSocket = createRequire(import.meta.url)("ws"); // `require` finds it by NODE_PATH, too

const [url = "ws://127.0.0.1:9998", roomName = "den", countText = "20"] = process.argv.slice(2);
const count = Number(countText);
const RETRY_MS = 100;

// What outlives a connection.
let resume; // token of the last system.authenticated
const positions = {}; // stream name -> {epoch, offset}: how far we are
const fresh = new Set(); // streams without a frame: their first may name an older one
const chains = {}; // stream name -> frames in an unbroken chain
let room;
let said = 0; // messages that are acknowledged
let recovered = 0;
let dropped = false;
const heard = [];

function connect() {
  const socket = new WebSocket(`${url}/ws`, { perMessageDeflate: false });
  const names = {}; // handle -> stream name, of this connection
  const send = (type, fields) => socket.readyState === 1 && socket.send(JSON.stringify({ type, ...fields }));

  const introduce = ({ handle, stream, epoch, offset }) => {
    names[handle] = stream;
    // After a resume the place we know counts: what is between it and the head is on its way.
    if (positions[stream]?.epoch === epoch) return;
    positions[stream] = { epoch, offset };
    fresh.add(stream);
  };

  const advance = ([handle, offset, prev]) => {
    const name = names[handle];
    const known = positions[name].offset;
    const whole = prev === known || (fresh.has(name) && prev < known);
    assert(whole && offset > known, `${name}: ${offset} follows ${prev}, but we are at ${known}`);
    positions[name].offset = offset;
    fresh.delete(name);
    chains[name] = (chains[name] ?? 0) + 1;
  };

  const end = () => {
    assert.deepEqual(
      heard,
      Array.from({ length: count }, (_, n) => `message ${n + 1}`),
    );
    console.log(JSON.stringify({ heard: heard.length, recovered, chains }));
    socket.removeAllListeners("close");
    socket.close(1000);
  };

  // The next thing that has no acknowledgement; sent again under the same correlation id, it is done once.
  const goOn = () => {
    if (!room) {
      send("games.command.create_room", { game_type: "bigger_dice", room_name: roomName, correlation_id: "create" });
    } else if (said < count) {
      const content = `message ${said + 1}`;
      send("chat.command.send_lobby_message", { lobby_id: room, content, correlation_id: `say-${said + 1}` });
      if (said >= count / 2 && !dropped) {
        dropped = true;
        socket.removeAllListeners("message");
        socket.terminate(); // destroys the TCP connection; no close frame is sent
      }
    } else if (heard.length >= count) {
      end();
    }
  };

  const received = (message) => {
    if (message.at?.length === 3) advance(message.at);
    if (message.type === "system.welcome") {
      send("system.authenticate", resume ? { resume, positions } : { token: process.env.RINGGATE_TOKEN });
    } else if (message.type === "system.authenticated") {
      if (resume) assert(message.recovered, JSON.stringify(message));
      recovered += resume ? 1 : 0;
      resume = message.resume;
      goOn();
    } else if (message.type === "system.position") {
      message.streams.forEach(introduce);
    } else if (message.type === "games.event.room_created") {
      room = message.room_id;
      goOn();
    } else if (message.type === "chat.event.message_received") {
      heard.push(message.content);
      if (said === count) goOn();
    } else if (message.type === "system.ack" && message.correlation_id === `say-${said + 1}`) {
      said += 1;
      goOn();
    } else if (message.type === "system.error") {
      // Too fast, or not quite in the room yet: a little later.
      assert(["rate_limited", "not_in_room"].includes(message.code), JSON.stringify(message));
      setTimeout(goOn, RETRY_MS);
    }
  };

  socket.on("message", (data) => received(JSON.parse(data)));
  socket.on("close", (code, reason) => {
    assert.equal(code, 1006, `closed: ${code} ${reason}`); // lost, here by our own doing
    setTimeout(connect, RETRY_MS);
  });
}

connect();
