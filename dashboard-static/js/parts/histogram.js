// How many lines there were when: errors, warnings, others. A brush over it narrows the time.

import { attrs, h, s, text } from "../dom.js";
import { clock, count, moment } from "../format.js";

const H = 64;

/** `onBrush(from, to)` is told a span in milliseconds since 1970. */
export function histogram(onBrush) {
  const svg = s("svg", { class: "histogram", viewBox: `0 0 600 ${H}`, preserveAspectRatio: "none", role: "img" });
  const brush = s("rect", { class: "brush", y: 0, height: H, visibility: "hidden" });
  const read = h("small", { class: "readout" });
  const ends = h("div", { class: "times", "aria-hidden": "true" });
  let told = null;
  let began = null;

  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  const time = (share) => Math.round(told.from + share * told.width_ms * told.bars.length);
  svg.addEventListener("pointerdown", (event) => {
    if (!told) return;
    began = place(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!told) return;
    const now = place(event);
    const bar = told.bars[Math.min(told.bars.length - 1, Math.floor(now * told.bars.length))];
    text(read, `${moment(time(now))}: ${count(bar[0])} errors, ${count(bar[1])} warnings, ${count(bar[2])} others`);
    if (began !== null) attrs(brush, { x: Math.min(began, now) * 600, width: Math.abs(now - began) * 600, visibility: null });
  });
  svg.addEventListener("pointerup", (event) => {
    if (began === null) return;
    const now = place(event);
    attrs(brush, { visibility: "hidden" });
    if (Math.abs(now - began) > 0.01) onBrush(time(Math.min(began, now)), time(Math.max(began, now)));
    began = null;
  });

  return {
    element: h("div", { class: "histogram-box" }, svg, ends, read),
    draw(next) {
      told = next;
      const most = Math.max(1, ...told.bars.map(([a, b, c]) => a + b + c));
      const width = 600 / told.bars.length;
      const pieces = told.bars.flatMap((bar, i) => {
        let base = H;
        return bar.map((lines, kind) => {
          if (!lines) return null;
          const height = Math.max(1.5, (lines / most) * (H - 4));
          base -= height;
          return s("rect", { class: `kind-${kind}`, x: (i * width).toFixed(2), y: base.toFixed(1), width: Math.max(0.6, width - 0.8).toFixed(2), height: height.toFixed(1) });
        });
      });
      svg.replaceChildren(...pieces.filter(Boolean), brush);
      const total = told.bars.reduce((all, bar) => all + bar[0] + bar[1] + bar[2], 0);
      const to = told.from + told.width_ms * told.bars.length;
      attrs(svg, { "aria-label": `${count(total)} lines from ${moment(told.from)} to ${moment(to)}; drag to narrow` });
      const name = to - told.from > 86_400_000 ? (at) => moment(at).slice(0, 16) : clock;
      ends.replaceChildren(h("span", {}, name(told.from)), h("span", {}, `${count(total)} lines${told.is_complete ? "" : " or more"}`), h("span", {}, name(to)));
    },
  };
}
