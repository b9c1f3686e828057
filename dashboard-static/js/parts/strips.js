// A day of each broker in slots of five minutes: answered, partly, not, or nobody watched.

import { get } from "../api.js";
import { h, replace, s } from "../dom.js";
import { clock } from "../format.js";

const WORDS = { up: "answered", partly: "partly", down: "did not answer", unwatched: "not watched" };

export function strips() {
  const body = h("div", { class: "strips" });
  let asked = -Infinity;
  let pause = 0;

  async function load() {
    asked = performance.now();
    pause = 60_000;
    try {
      draw(await get("/api/v1/availability"));
    } catch (error) {
      pause = 5_000;
      replace(body, h("p", { class: "empty" }, h("b", {}, error.title), error.message));
    }
  }

  function draw(told) {
    const rows = told.strips.flatMap(({ broker, slots, share }) => {
      const runs = [];
      slots.forEach((slot, i) => {
        if (runs.at(-1)?.slot === slot) runs.at(-1).length += 1;
        else runs.push({ slot, start: i, length: 1 });
      });
      const words = share === null ? "–" : share === 1 ? "100 %" : `${(100 * share).toFixed(share > 0.9995 ? 3 : 2)} %`;
      const label = `${broker}: answered ${share === null ? "not known" : words} of the watched time`;
      const svg = s("svg", { viewBox: `0 0 ${slots.length} 10`, preserveAspectRatio: "none", role: "img", "aria-label": label },
        runs.map((run) => s("rect", { class: run.slot, x: run.start, y: run.slot === "down" ? 0 : run.slot === "partly" ? 2 : 3, width: run.length, height: run.slot === "down" ? 10 : run.slot === "partly" ? 8 : 5 },
          s("title", {}, `${clock(told.from + run.start * told.slot_ms)} to ${clock(told.from + (run.start + run.length) * told.slot_ms)}: ${WORDS[run.slot]}`))));
      return [h("a", { href: `/brokers/${broker}` }, broker), svg, h("b", { class: "num" }, words)];
    });
    replace(body, rows, h("span", {}), h("div", { class: "times", "aria-hidden": "true" }, h("span", {}, "24 h ago"), h("span", {}, "now")), h("span", {}));
  }

  return {
    element: h("section", { class: "card wide" }, h("header", {}, h("h2", {}, "Last 24 hours"), h("div", { class: "legend" }, h("span", {}, h("i", { class: "key up" }), "answered"), h("span", {}, h("i", { class: "key down" }), "did not"), h("span", {}, h("i", { class: "key unwatched" }), "nobody watched"))), body),
    /** Asks again once in a while. */
    update() {
      if (performance.now() - asked > pause) load();
    },
  };
}
