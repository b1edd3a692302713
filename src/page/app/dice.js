// A die, drawn.

import { svg } from "./dom.js";

const PIPS = {
  1: [[2, 2]],
  2: [
    [1, 1],
    [3, 3],
  ],
  3: [
    [1, 1],
    [2, 2],
    [3, 3],
  ],
  4: [
    [1, 1],
    [1, 3],
    [3, 1],
    [3, 3],
  ],
  5: [
    [1, 1],
    [1, 3],
    [2, 2],
    [3, 1],
    [3, 3],
  ],
  6: [
    [1, 1],
    [1, 2],
    [1, 3],
    [3, 1],
    [3, 2],
    [3, 3],
  ],
};

/** 0 is a die that nobody has rolled yet. */
export function die(face) {
  const label = face ? `A die that shows ${face}` : "A die that waits";
  const pips = (PIPS[face] ?? []).map(([column, row]) => svg("circle", { cx: 25 * column, cy: 25 * row, r: 8.5 }));
  const body = svg("rect", { x: 3, y: 3, width: 94, height: 94, rx: 22 });
  return svg(
    "svg",
    { viewBox: "0 0 100 100", class: face ? "die" : "die idle", role: "img", "aria-label": label },
    body,
    ...pips,
  );
}
