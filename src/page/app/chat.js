// The chat of the room one is in. What is sent while there is no connection waits, and is sent once there is one.

import { avatar, byId, clock, h, keyed, Listeners, setText } from "./dom.js";

export class ChatView {
  #game;
  #listeners = new Listeners();
  #room = null;
  #waiting = 0;

  constructor(game) {
    this.#game = game;
    this.#listeners.on(byId("chat-form"), "submit", (event) => this.#send(event));
  }

  end() {
    this.#listeners.end();
    byId("chat").hidden = true;
    byId("lines").replaceChildren();
  }

  async #send(event) {
    event.preventDefault();
    const input = byId("message");
    const content = input.value.trim();
    if (!content) return;
    const fields = { lobby_id: this.#game.state.here, content };
    input.value = "";
    this.#waiting += 1;
    const done = await this.#game.command("chat.command.send_lobby_message", fields, (text) => {
      setText(byId("chat-error"), text);
    });
    this.#waiting -= 1;
    if (!done && !input.value) input.value = content;
    this.draw();
  }

  draw() {
    const { state, client } = this.#game;
    const room = state.here && state.rooms[state.here];
    byId("chat").hidden = !room;
    const waits = this.#waiting > 0 && client.state !== "open";
    setText(
      byId("chat-waiting"),
      waits ? `${count(this.#waiting, "message")} will be sent when the connection is back` : "",
    );
    if (!room) return;
    const [list, log] = [byId("lines"), byId("chat-log")];
    if (this.#room !== state.here) list.replaceChildren();
    this.#room = state.here;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const before = list.lastElementChild;
    keyed(
      list,
      room.lines,
      ({ key }) => key,
      (line) => row(line, state.me.user_id),
    );
    if (list.lastElementChild !== before && (atEnd || before === null)) log.scrollTop = log.scrollHeight;
  }
}

function row({ sender_id, sender_name, content, timestamp }, me) {
  return h(
    "li",
    { class: sender_id === me ? "mine" : "" },
    avatar(sender_id, sender_name),
    h("p", { class: "by" }, h("b", {}, sender_name), " ", h("time", { datetime: timestamp }, clock(timestamp))),
    h("p", { class: "said" }, content),
  );
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
