// The room one is in: dice, turn, players.

import { avatar, byId, h, keyed, Listeners, setText } from "./dom.js";
import { die } from "./dice.js";
import { nameOf, rollOf, TARGET, turnOf } from "./state.js";

export class TableView {
  #game;
  #listeners = new Listeners();
  #rolling = false;
  #shown = ""; // the room and the roll that the die shows

  constructor(game) {
    this.#game = game;
    const on = (id, act) => this.#listeners.on(byId(id), "click", act);
    on("roll", () => this.#roll());
    on("to-lobby", () => game.show(null));
    on("leave", () => {
      game.command("games.command.leave_room", { room_id: game.state.here }, this.#error);
    });
  }

  end() {
    this.#listeners.end();
    byId("table").hidden = true;
    byId("announcer").textContent = "";
  }

  #error = (text) => setText(byId("table-error"), text);

  async #roll() {
    const { state } = this.#game;
    const room = state.rooms[state.here];
    if (this.#rolling || !rollOf(room, state.me.user_id).may) return;
    this.#rolling = true;
    await this.#game.command("games.command.bigger_dice.roll", { room_id: state.here }, this.#error);
    this.#rolling = false;
    this.draw();
  }

  /** For those who do not see it. */
  tell(text) {
    byId("announcer").textContent = text;
  }

  draw() {
    const { state } = this.#game;
    const room = state.here && state.rooms[state.here];
    byId("table").hidden = !room;
    if (!room) return;
    const me = state.me.user_id;
    const { may, label, hint } = rollOf(room, me);
    setText(byId("table-title"), room.room_name);
    setText(byId("turn"), hint);
    byId("turn").dataset.kind = room.winner !== null && !room.started ? "won" : may ? "mine" : "";
    const roll = byId("roll");
    setText(roll, this.#rolling ? "Rolling …" : label);
    // Not `disabled`: the button keeps the focus from turn to turn.
    roll.setAttribute("aria-disabled", String(!may || this.#rolling));
    roll.hidden = label === "";
    byId("invite").hidden = room.started || room.players.length > 1;
    this.#drawDie(room);
    this.#drawPlayers(room, me);
  }

  #drawDie(room) {
    const shown = `${room.room_id} ${room.rolls}`;
    if (shown === this.#shown) return;
    const inPlay = this.#shown.startsWith(`${room.room_id} `);
    this.#shown = shown;
    const newest = room.recent.at(-1);
    const face = die(newest?.roll ?? 0);
    if (inPlay && newest) face.classList.add("thrown");
    byId("dice").replaceChildren(face);
    keyed(
      byId("recent"),
      room.recent,
      ({ n, player_id }) => `${room.room_id} ${n} ${player_id}`,
      ({ player_id, roll }) => {
        const name = nameOf(room, player_id);
        return h("li", { title: `${name}: ${roll}` }, avatar(player_id, name), die(roll));
      },
    );
  }

  #drawPlayers(room, me) {
    const turn = turnOf(room);
    keyed(
      byId("players"),
      room.players,
      ({ user_id }) => user_id,
      player,
      (element, { user_id, username, score }) => {
        element.classList.toggle("turn-now", user_id === turn);
        element.classList.toggle("winner", user_id === room.winner);
        setText(element.querySelector(".name"), user_id === me ? `${username} (you)` : username);
        setText(element.querySelector(".tag"), tagOf(room, user_id, turn));
        setText(element.querySelector(".score"), String(score));
        const bar = element.querySelector("progress");
        bar.value = Math.min(score, TARGET);
        bar.setAttribute("aria-label", `${username}: ${score} of ${TARGET} points`);
      },
    );
  }
}

function player({ user_id, username }) {
  return h(
    "li",
    {},
    avatar(user_id, username),
    h("span", { class: "name" }),
    h("span", { class: "tag" }),
    h("span", { class: "score" }),
    h("progress", { max: TARGET }),
  );
}

function tagOf(room, id, turn) {
  if (turn === id) return "to roll";
  if (room.winner === id) return "won";
  return !room.started && room.host_id === id ? "host" : "";
}
