// Small charts of the last minutes with one shared cursor. A line breaks where nothing was known; red bands are
// incidents, grey ones times in which mesh-health did not answer.

import { attrs, h, replace, s, text } from "../dom.js";
import { clock, coarse } from "../format.js";
import { frameAt, serverNow, store } from "../store.js";

const WINDOW = 15 * 60 * 1000;
const LEAST = 3 * 60 * 1000;
const [W, H, TOP, BOTTOM, RIGHT] = [400, 104, 10, 16, 2];

/** A round number at or above `value` for the end of an axis. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((one) => one * power >= value * 0.999);
  return step * power;
}

/** Which colour and dash a series has: eight colours, then the same dashed. */
export const seriesClass = (i) => `s${(i % 8) + 1}${i >= 8 ? " alt" : ""}`;

/**
 * A group of charts. `specs` are `{ title, unit, format, series: [{ name, read(frame) }] }`; `onCursor(at | null)` is told
 * where the pointer is.
 */
export function charts(onCursor) {
  const grid = h("div", { class: "grid charts" });
  let parts = [];
  let pointer = null;
  let last = { frames: [], bands: [], to: 0, at: null };

  function build(specs) {
    parts = specs.map((spec) => one(spec, (at) => {
      pointer = at;
      onCursor?.(at);
      for (const part of parts) part.cursor(pointer ?? last.at);
    }));
    replace(grid, parts.map((part) => part.element));
  }

  return {
    element: grid,
    build,
    /** Draws `frames` up to `to`, with the cursor at `at` or at the end. */
    update(frames, bands, at) {
      last = { frames, bands, to: serverNow(), at };
      for (const part of parts) part.draw(last.frames, bands, last.to, pointer ?? at);
    },
  };
}

function one(spec, point) {
  const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": `${spec.title}, last 15 minutes; the values are listed below` });
  const backdrop = s("g", {});
  const lines = spec.series.map((series, i) => s("path", { class: `line ${seriesClass(series.colour ?? i)}`, "vector-effect": "non-scaling-stroke" }));
  const cursor = s("line", { class: "cursor", y1: TOP, y2: H - BOTTOM, "vector-effect": "non-scaling-stroke" });
  svg.append(backdrop, ...lines, cursor);
  const most = h("span", { class: "tick" });
  const values = h("ul", { class: "values" });
  const cells = spec.series.map((series, i) => {
    const value = h("b", {}, "–");
    values.append(h("li", {}, h("i", { class: `swatch ${seriesClass(series.colour ?? i)}`, "aria-hidden": "true" }), series.name, value));
    return value;
  });
  const when = h("small", { class: "right" });
  const first = h("span", {});
  const times = h("div", { class: "times", "aria-hidden": "true" }, first, h("span", {}, "now"));
  const element = h("section", { class: "card chart" }, h("header", {}, h("h2", {}, spec.title), h("small", {}, spec.unit), when), h("div", { class: "plot" }, most, svg, times), values);
  let drawn = { from: 0, to: 1 };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    point(drawn.from + ((event.clientX - box.left) / box.width) * (drawn.to - drawn.from));
  });
  svg.addEventListener("pointerleave", () => point(null));

  function moveCursor(at) {
    const frame = at === null ? store.frames.at(-1) : frameAt(at);
    const x = at === null || !frame ? null : ((at - drawn.from) / (drawn.to - drawn.from)) * W;
    attrs(cursor, { x1: x, x2: x, visibility: x === null ? "hidden" : null });
    text(when, at === null || !frame ? "" : clock(frame.at));
    spec.series.forEach((series, i) => text(cells[i], spec.format(frame ? series.read(frame) : null)));
  }

  return {
    element,
    cursor: moveCursor,
    draw(frames, bands, to, at) {
      // Not before the first thing that is known, but never less than three minutes.
      const from = Math.max(to - WINDOW, Math.min(frames[0]?.at ?? to, to - LEAST));
      text(first, `−${coarse(to - from)}`);
      drawn = { from, to };
      const x = (time) => Math.max(0, ((time - from) / (to - from)) * (W - RIGHT));
      let top = spec.least ?? 1;
      const points = spec.series.map((series) => frames.map((frame) => series.read(frame)));
      for (const column of points) for (const value of column) if (value > top) top = value;
      top = roundUp(top);
      const y = (value) => H - BOTTOM - (value / top) * (H - BOTTOM - TOP);
      points.forEach((column, i) => attrs(lines[i], { d: path(frames, column, from, x, y) }));
      text(most, spec.format(top));
      backdrop.replaceChildren(...grid(x, from, to), ...bandRects(bands, x, from, to), ...blind(frames, x, from));
      moveCursor(at);
    },
  };
}

function path(frames, column, from, x, y) {
  let d = "";
  let pen = false;
  let drawn = -Infinity;
  frames.forEach((frame, i) => {
    const value = column[i];
    if (frame.at < from) return;
    if (value === null || value === undefined) pen = false;
    else {
      // More than 20 s without a frame is a gap, not a straight line.
      if (i > 0 && frame.at - frames[i - 1].at > 20_000) pen = false;
      // Points closer than half a pixel are not told apart.
      if (pen && x(frame.at) - drawn < 0.5 && i < frames.length - 1) return;
      drawn = x(frame.at);
      d += `${pen ? "L" : "M"}${x(frame.at).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = true;
    }
  });
  return d;
}

function grid(x, from, to) {
  const marks = [s("line", { class: "axis", x1: 0, x2: W, y1: H - BOTTOM, y2: H - BOTTOM, "vector-effect": "non-scaling-stroke" })];
  const step = to - from > 6 * 60 * 1000 ? 5 * 60 * 1000 : 60 * 1000;
  for (let at = Math.ceil(from / step) * step; at < to; at += step) {
    marks.push(s("line", { class: "axis", x1: x(at), x2: x(at), y1: TOP, y2: H - BOTTOM, "vector-effect": "non-scaling-stroke" }));
  }
  return marks;
}

const rect = (name, x, from, to) => s("rect", { class: name, x: x(from).toFixed(1), y: TOP, width: Math.max(1.5, x(to) - x(from)).toFixed(1), height: H - BOTTOM - TOP });

const bandRects = (bands, x, from, to) =>
  bands.filter((band) => (band.to ?? to) > from && band.from < to).map((band) => rect("band", x, Math.max(from, band.from), band.to ?? to));

function blind(frames, x, from) {
  const rects = [];
  frames.forEach((frame, i) => {
    if (frame.state !== null || frame.at < from) return;
    rects.push(rect("blind", x, frame.at, frames[i + 1]?.at ?? frame.at + 1000));
  });
  return rects;
}
