// Signing in: as a guest, for whom the server in dev mode makes a token, or with a token. The tab remembers which.

import { byId, hue, initial } from "./dom.js";
import { Ring } from "./ring.js";

const KEPT = "ringgate.demo";

export class SignIn {
  #enter;
  #ring = new Ring(byId("show"));
  #endShow = () => {};

  constructor({ enter }) {
    this.#enter = enter;
    byId("guest-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#guest(byId("guest-name").value.trim());
    });
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin({ token: byId("token").value.trim() });
    });
  }

  /** A reload goes on; a link with `#token=…` fills the form in and leaves the address bar without it. */
  start() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (token) {
      history.replaceState(null, "", location.pathname + location.search);
      byId("token").value = token;
      byId("token-details").open = true;
    }
    const kept = sessionStorage.getItem(KEPT);
    if (kept && !token) this.#begin(JSON.parse(kept));
    else this.show();
    if (token) byId("token-form").querySelector("button").focus();
  }

  show(why = "") {
    sessionStorage.removeItem(KEPT);
    byId("signin-error").textContent = why;
    byId("signin").hidden = false;
    byId("desk").hidden = true;
    byId("who").hidden = true;
    document.title = "ringgate";
    this.#endShow();
    this.#endShow = this.#ring.play();
    byId("guest-name").focus();
  }

  hide({ user_id, username }) {
    this.#endShow();
    byId("signin").hidden = true;
    byId("token").value = "";
    byId("token-details").open = false;
    byId("desk").hidden = false;
    byId("who").hidden = false;
    byId("who-name").textContent = username;
    const avatar = byId("who-avatar");
    avatar.textContent = initial(username);
    avatar.dataset.hue = hue(user_id);
  }

  async #guest(name) {
    if (!name) return;
    byId("signin-error").textContent = "";
    try {
      const token = await guestToken(name); // here, so that the form can say what is wrong
      this.#begin({ name }, token);
    } catch (error) {
      byId("signin-error").textContent = `${error.message} Sign in with a token instead.`;
      byId("token-details").open = true;
    }
  }

  #begin(who, token = who.token) {
    this.#enter({ token, getToken: who.name ? () => guestToken(who.name) : undefined });
    sessionStorage.setItem(KEPT, JSON.stringify(who));
  }
}

async function guestToken(name) {
  let answer;
  try {
    answer = await fetch(`/dev/token?name=${encodeURIComponent(name)}`, { headers: { accept: "application/json" } });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (!answer.ok) throw new Error("This server takes no guests.");
  return (await answer.json()).token;
}
