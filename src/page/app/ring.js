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
    parent.replaceChildren(svg("svg", { viewBox: "0 0 200 200", class: "ring" }, ...this.#marks, this.#number, this.#caption));
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
