// The little of the DOM that the views share.

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Makes the list's children those of the items, keeping the elements of items that were there, and with them focus. */
export function keyed(list, items, keyOf, create, update = () => {}) {
  const kept = new Map([...list.children].map((element) => [element.dataset.key, element]));
  let before = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = kept.get(key);
    kept.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    update(element, item);
    if (element === before) before = before.nextElementSibling;
    else list.insertBefore(element, before);
  }
  for (const element of kept.values()) element.remove();
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function initial(name) {
  return ([...(name ?? "")][0] ?? "?").toUpperCase();
}

/** One of six colours, the same for a user in every window. */
export function hue(id) {
  let sum = 0;
  for (const character of String(id)) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return String(sum % 6);
}

export function avatar(id, name) {
  return h("span", { class: "avatar", "data-hue": hue(id), "aria-hidden": "true" }, initial(name));
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export function clock(timestamp) {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? "" : CLOCK.format(date);
}

export const clockSeconds = () => SECONDS.format(new Date());

/** Listeners that come off together. */
export class Listeners {
  #controller = new AbortController();
  on(target, type, handler) {
    target.addEventListener(type, handler, { signal: this.#controller.signal });
  }
  end() {
    this.#controller.abort();
  }
}
