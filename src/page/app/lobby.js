// The list of rooms, opening one, joining one.

import { byId, h, keyed, Listeners, setText } from "./dom.js";

const REFRESH_MS = 10_000;

export class LobbyView {
  #game;
  #listeners = new Listeners();
  #timer;
  #joining = null; // the room that the password dialog is about

  constructor(game) {
    this.#game = game;
    const on = (id, type, act) => this.#listeners.on(byId(id), type, act);
    on("refresh", "click", () => this.list());
    on("create-form", "submit", (event) => this.#create(event));
    on("password-form", "submit", () => this.#join(this.#joining, byId("join-password").value));
    on("password-cancel", "click", () => byId("password-dialog").close());
    on("password-dialog", "close", () => (byId("join-password").value = ""));
    this.#timer = setInterval(() => {
      if (document.visibilityState === "visible" && !game.state.here) this.list();
    }, REFRESH_MS);
  }

  end() {
    clearInterval(this.#timer);
    this.#listeners.end();
    byId("password-dialog").close();
    byId("rooms").replaceChildren();
    byId("create-error").textContent = "";
  }

  list() {
    this.#game.client.send("games.command.list_rooms", { game_type: "bigger_dice" });
  }

  #create(event) {
    event.preventDefault();
    const [name, password] = [byId("room-name"), byId("room-password")];
    const fields = { game_type: "bigger_dice", room_name: name.value.trim(), password: password.value || null };
    this.#game.command("games.command.create_room", fields, (text) => setText(byId("create-error"), text));
    name.value = password.value = "";
  }

  #ask(room) {
    if (this.#game.state.rooms[room.room_id]) return this.#game.show(room.room_id);
    if (!room.is_password_protected) return this.#join(room, null);
    this.#joining = room;
    byId("join-password-label").textContent = `“${room.room_name}” asks for one`;
    byId("password-dialog").showModal();
  }

  #join(room, password) {
    const fields = { room_name: room.room_name, password };
    this.#game.command("games.command.join_room", fields, (text) => setText(byId("create-error"), text));
  }

  draw() {
    const { state } = this.#game;
    byId("lobby").hidden = state.here !== null;
    if (state.here !== null) return;
    const listed = state.listed ?? [];
    const mine = Object.values(state.rooms).filter((room) => !listed.some(({ room_id }) => room_id === room.room_id));
    const rooms = [...mine, ...listed];
    keyed(
      byId("rooms"),
      rooms,
      (room) => room.room_id,
      (room) => this.#row(room),
      (element, room) => {
        const here = state.rooms[room.room_id] !== undefined;
        setText(element.querySelector(".name"), room.room_name);
        setText(element.querySelector(".about"), aboutRoom(room));
        const button = element.querySelector("button");
        setText(button, here ? "Return" : "Join");
        button.setAttribute("aria-label", `${here ? "Return to" : "Join"} ${room.room_name}`);
        element.querySelector(".lock").hidden = !room.is_password_protected;
      },
    );
    byId("rooms-empty").hidden = state.listed === null || rooms.length > 0;
  }

  #row(room) {
    // The newest row of this room counts, not the one the button was made for.
    const newest = () => this.#game.state.listed?.find(({ room_id }) => room_id === room.room_id) ?? room;
    return h(
      "li",
      {},
      h("span", { class: "name" }),
      h("span", { class: "lock", hidden: true }, "password"),
      h("span", { class: "about" }),
      h("button", { type: "button", onclick: () => this.#ask(newest()) }),
    );
  }
}

function aboutRoom(room) {
  const players = Array.isArray(room.players) ? room.players.length : room.players;
  const parts = [`${players} of ${room.max_players ?? 6} players`];
  if (room.host) parts.push(`opened by ${room.host.username}`);
  if (room.started) parts.push("playing");
  return parts.join(" · ");
}
