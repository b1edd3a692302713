// What the connection does: its state, places, resumes, and what happened.

import { byId, clockSeconds, h, keyed, Listeners, setText } from "./dom.js";
import { Ring } from "./ring.js";

const JOURNAL_MAX = 40;

const STATES = {
  idle: "Not connected",
  connecting: "Connecting",
  authenticating: "Signing in",
  open: "Connected",
  waiting: "Reconnecting",
  closed: "Disconnected",
};

export class ConnectionView {
  #game;
  #listeners = new Listeners();
  #ring = new Ring(byId("ring"));
  #replayed = 0; // by the resume under way
  #resumed = false;

  constructor(game) {
    this.#game = game;
    this.#listeners.on(byId("cut"), "click", () => this.#cut());
  }

  end() {
    this.#listeners.end();
    byId("journal").replaceChildren();
    setText(byId("status"), STATES.idle);
    byId("status").dataset.state = "idle";
  }

  #cut() {
    const { client } = this.#game;
    if (client.state === "open") client.dropConnection();
    else client.connect(); // where the button offers to come back
  }

  /** A frame or an event of the client. */
  seen(frame, { stream, replayed }) {
    if (stream && frame.at[2] !== undefined) {
      this.#ring.add(replayed ? "replayed" : "live");
      if (replayed) this.#replayed += 1;
      else this.#told();
    }
    JOURNAL[frame.type]?.call(this, frame);
  }

  /** How many frames the resume brought is known when it is over. */
  #told() {
    if (!this.#resumed) return;
    this.#resumed = false;
    const { last } = this;
    if (last && this.#replayed > 0)
      last.textContent = `Resumed: ${count(this.#replayed, "frame")} came late, none is missing`;
  }

  connected({ recovered, reason }) {
    if (this.#game.client.stats.connections === 1 && !recovered && !reason) return void this.note("Connected");
    if (!recovered) return;
    this.last = this.note("Resumed: nothing is missing", "good");
    this.#replayed = 0;
    this.#resumed = true;
  }

  closed({ reason, label, delay_ms }) {
    this.#ring.add("cut");
    this.#told();
    const why = { connection_lost: "Connection lost", replaced: "This session goes on in another window" }[
      label
    ];
    const then = delay_ms === null ? "" : `; again in ${duration(delay_ms)}`;
    this.note(`${why ?? `Closed: ${reason || label}`}${then}`, "bad");
  }

  note(text, kind = "") {
    const what = h("span", {}, text);
    const journal = byId("journal");
    journal.prepend(h("li", { "data-kind": kind }, h("time", {}, clockSeconds()), what));
    while (journal.children.length > JOURNAL_MAX) journal.lastElementChild.remove();
    return what;
  }

  draw() {
    const { client } = this.#game;
    if (this.#resumed && this.#replayed > 0) {
      setText(this.last, `Resumed: ${count(this.#replayed, "frame")} came late, none is missing`);
    }
    const status = byId("status");
    setText(status, STATES[client.state]);
    status.dataset.state = client.state;
    const cut = byId("cut");
    setText(cut, { open: "Cut my connection", closed: "Connect again" }[client.state] ?? "Retry now");
    cut.className = client.state === "open" ? "danger" : "";
    const { reliable } = client.stats;
    this.#ring.say(String(reliable), reliable === 1 ? "frame, in order" : "frames, in order");
    this.#drawFacts(client);
    this.#drawStreams(client);
  }

  #drawFacts({ stats, session, roundTripMs, lastClose }) {
    const facts = [
      ["Resumed", `${stats.resumed}×`],
      ["Came late", stats.replayed],
      ["Skipped deltas", stats.skipped],
      ["Came twice", stats.duplicates],
      ["Gaps", stats.gaps + stats.lost],
      ["Round trip", roundTripMs === null ? "–" : `${Math.round(roundTripMs)} ms`],
      ["Session", session?.session_id?.slice(0, 8) ?? "–"],
      ["Last close", lastClose ? `${lastClose.code} ${lastClose.reason}` : "–"],
    ];
    keyed(
      byId("facts"),
      facts,
      ([name]) => name,
      fact,
      (element, [, value]) => setText(element.lastElementChild, String(value)),
    );
  }

  #drawStreams({ streams }) {
    const byName = streams.sort((a, b) => a.stream.localeCompare(b.stream));
    keyed(
      byId("streams"),
      byName,
      ({ stream }) => stream,
      streamRow,
      (element, { offset, frames, skipped }) => {
        const [, ...cells] = element.children;
        [offset, frames, skipped].forEach((value, n) => setText(cells[n], String(value)));
      },
    );
  }
}

const JOURNAL = {
  "system.authenticated": ConnectionView.prototype.connected,
  "client.closed": ConnectionView.prototype.closed,
  "client.lost"({ reason }) {
    this.note(`Not resumed (${reason}): what was said meanwhile may be missing`, "bad");
  },
  "client.gap"({ what }) {
    this.note(`Gap: ${what}`, "bad");
  },
  "system.event.announcement"({ text, message }) {
    this.note(`Announcement: ${text ?? message ?? ""}`);
  },
};

const duration = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

const fact = ([name]) => h("div", {}, h("dt", {}, name), h("dd"));

function streamRow({ stream }) {
  // Ids are long; their ends tell little, their beginnings enough.
  const [topic, scope] = stream.split("/");
  const short = scope?.replace(/^(\w+:)(.{8}).+$/, "$1$2…") ?? "";
  const name = h("th", { scope: "row", title: stream }, h("b", {}, short), h("span", {}, topic));
  return h("tr", {}, name, h("td"), h("td"), h("td"));
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
