// The last frames around a ring, one mark each: a cut is a hole that the resume fills.

import { svg } from "./dom.js";

const MARKS = 72;
const DEGREES = 360 / MARKS;

export class Ring {
  #marks = [];
  #next = 0;
  #number = svg("text", { x: 100, y: 100, class: "number" });
  #caption = svg("text", { x: 100, y: 122, class: "caption" });

  constructor(parent) {
    for (let n = 0; n < MARKS; n += 1) {
      this.#marks.push(svg("line", { x1: 100, y1: 12, x2: 100, y2: 28, transform: `rotate(${n * DEGREES} 100 100)` }));
    }
    parent.replaceChildren(
      svg("svg", { viewBox: "0 0 200 200", class: "ring" }, ...this.#marks, this.#number, this.#caption),
    );
  }

  /** A show of what happens: frames, a cut, and those that were missed. Returns what ends it. */
  play() {
    const script = [...Array(34).fill("live"), "cut", ...Array(9).fill(null), ...Array(7).fill("replayed")];
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      script.forEach((kind) => kind && this.add(kind));
      return () => {};
    }
    let at = 28; // it begins in the middle of the story
    for (const kind of script.slice(0, at)) this.add(kind);
    const timer = setInterval(() => {
      const kind = script[at];
      if (kind) this.add(kind);
      at = (at + 1) % script.length;
    }, 110);
    return () => clearInterval(timer);
  }

  /** `live`, `replayed` or `cut`. The next marks are cleared, so that one sees where the ring is written. */
  add(kind) {
    this.#marks[this.#next].setAttribute("class", kind);
    this.#next = (this.#next + 1) % MARKS;
    for (let n = 0; n < 3; n += 1) this.#marks[(this.#next + n) % MARKS].setAttribute("class", "");
  }

  say(number, caption) {
    this.#number.textContent = number;
    this.#caption.textContent = caption;
  }
}
