// The demo page: signs in, keeps one client, hands its frames to the state and draws what changed.
import { connect } from "/ringgate.js";
import { ChatView } from "./app/chat.js";
import { ConnectionView } from "./app/connection.js";
import { byId } from "./app/dom.js";
import { LobbyView } from "./app/lobby.js";
import { SignIn } from "./app/signin.js";
import { apply, newState } from "./app/state.js";
import { TableView } from "./app/table.js";

const UNAUTHORIZED = 4401;
const TRIES = 10;
const TRY_AGAIN_MS = 200;
const ANSWERS_MAX = 100;

let game = null;

/** Everything that lives as long as somebody is signed in. */
class Game {
  constructor(credentials) {
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
    this.client = connect({ url, ...credentials, heartbeatMs: 5_000, storage: sessionStorage, keep: () => this.state });
    this.state = this.client.restored ?? newState();
    this.lobby = new LobbyView(this);
    this.table = new TableView(this);
    this.chat = new ChatView(this);
    this.connection = new ConnectionView(this);
    this.answers = new Map(); // correlation id → what shows an error that comes behind the acknowledgement
    this.#listen();
    this.draw();
  }

  #listen() {
    const { client } = this;
    client.on("*", (frame, about) => {
      const news = apply(this.state, frame, about);
      this.connection.seen(frame, about);
      if (!about.replayed) this.#tell(frame, news);
      this.#schedule();
    });
    client.on("system.authenticated", (frame) => {
      const { user_id, username } = frame;
      signIn.hide({ user_id, username });
      this.lobby.list();
    });
    client.on("client.lost", ({ rooms }) => rooms.forEach((room) => this.fetchHistory(room)));
    client.on("client.closed", ({ code, delay_ms }) => {
      if (code !== UNAUTHORIZED || delay_ms !== null) return;
      this.end(client.session ? "Your session has ended. Sign in again." : "The server did not accept the token.");
    });
    for (const type of ["games.event.room_created", "games.event.lobby_joined"]) {
      client.on(type, (frame, about) => about.replayed || this.fetchHistory(frame.room_id));
    }
  }

  #tell(frame, news) {
    if (frame.type === "system.error") {
      const show = this.answers.get(frame.correlation_id);
      const later = Array.isArray(frame.at); // else the promise says it
      if (show && later) show(frame.message || frame.code);
      else if (!show && frame.code !== "auth_failed")
        this.connection.note(`Refused: ${frame.message || frame.code}`, "bad");
    }
    if (news) this.table.tell(news);
  }

  /** Sends a command. `show` gets the text of a refusal, whether it comes instead of the acknowledgement or later. */
  async command(type, fields, show) {
    show("");
    try {
      return await this.#ask(type, fields, show);
    } catch (error) {
      show(error.code === "timeout" || error.code === "session_gone" ? "No answer came; try again." : error.message);
      return null;
    } finally {
      this.#schedule();
    }
  }

  /** What a room that is new to us, or whose frames are missing, was about. */
  async fetchHistory(room) {
    try {
      apply(this.state, await this.#ask("rooms.command.history", { room_id: room }));
      this.#schedule();
    } catch {
      // The room goes on without its past.
    }
  }

  /** The gateway lets us in a moment after the event that says so; what it refuses meanwhile is asked again. */
  async #ask(type, fields, show = () => {}) {
    for (let tries = 1; ; tries += 1) {
      const answer = this.client.send(type, fields, { ack: true });
      this.answers.set(answer.correlationId, show);
      if (this.answers.size > ANSWERS_MAX) this.answers.delete(this.answers.keys().next().value);
      this.#schedule();
      try {
        return await answer;
      } catch (error) {
        const ours = this.state.rooms[fields.room_id ?? fields.lobby_id] !== undefined;
        if (error.code !== "not_in_room" || !ours || tries === TRIES) throw error;
        await new Promise((wake) => setTimeout(wake, TRY_AGAIN_MS));
      }
    }
  }

  show(room) {
    this.state.here = room;
    this.draw();
    if (!room) this.lobby.list();
  }

  /** Draws once, however many frames came. */
  #schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      if (game === this) this.draw();
    });
  }

  draw() {
    for (const view of [this.lobby, this.table, this.chat, this.connection]) view.draw();
    const { here, rooms } = this.state;
    document.title = here && rooms[here] ? `${rooms[here].room_name} – ringgate` : "ringgate";
    // What had the focus is gone with the view: go on at the top of the new one.
    if (this.shown !== undefined && this.shown !== here) byId(here ? "table-title" : "lobby-title").focus();
    this.shown = here;
  }

  end(why = "") {
    this.client.close();
    this.client.forget();
    for (const view of [this.lobby, this.table, this.chat, this.connection]) view.end();
    game = null;
    signIn.show(why);
  }
}

const signIn = new SignIn({
  enter(credentials) {
    game?.end();
    game = new Game(credentials);
  },
});

byId("sign-out").addEventListener("click", () => game?.end());
signIn.start();

// For the curious, in the browser's console.
Object.defineProperty(globalThis, "ringgate", { get: () => game?.client });
