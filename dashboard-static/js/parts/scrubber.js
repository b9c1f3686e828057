// Goes back into the last minutes and replays them: the picture, the matrix and the charts follow.

import { h, text } from "../dom.js";
import { clock, coarse } from "../format.js";
import { serverNow, setCursor, store } from "../store.js";

/** How much faster than life it is replayed. */
const SPEED = 10;

export function scrubber() {
  const range = h("input", { type: "range", min: 0, max: 0, step: 250, value: 0, "aria-label": "Instant that is shown" });
  const output = h("output", {}, "now");
  const play = h("button", { type: "button", title: "Replay from here, ten times as fast" }, "Replay");
  const now = h("button", { type: "button" }, "Now");
  let timer = 0;

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    text(play, "Replay");
  };
  range.addEventListener("input", () => {
    stop();
    const at = Number(range.value);
    setCursor(at >= Number(range.max) ? null : at);
  });
  now.addEventListener("click", () => {
    stop();
    setCursor(null);
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (store.cursor === null) setCursor(Number(range.min));
    text(play, "Stop");
    let before = performance.now();
    timer = setInterval(() => {
      const at = store.cursor + (performance.now() - before) * SPEED;
      before = performance.now();
      if (store.cursor === null || at >= serverNow() - 500) {
        stop();
        setCursor(null);
      } else setCursor(at);
    }, 100);
  });

  return {
    element: h("div", { class: "scrub" }, play, range, output, now),
    update() {
      const last = store.frames.at(-1)?.at ?? Date.now();
      range.min = store.frames[0]?.at ?? last;
      range.max = last;
      range.value = store.cursor ?? last;
      const spoken = store.cursor === null ? "now" : `${clock(store.cursor)}, ${coarse(serverNow() - store.cursor)} ago`;
      text(output, spoken);
      range.setAttribute("aria-valuetext", spoken);
      now.disabled = store.cursor === null;
    },
    stop,
  };
}
