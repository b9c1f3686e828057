// The header of every page: where one is, how the network is, how the connection is.

import { attrs, h, s, text } from "./dom.js";
import { coarse } from "./format.js";
import { sentence } from "./sentence.js";
import { serverNow, setPaused, staleness, state, store } from "./store.js";
import { showKeys } from "./dialog.js";
import { KEYS } from "./keys.js";
import { SIGNS } from "./words.js";

const AREAS = [["overview", "/", "Overview"], ["clients", "/clients", "Clients"], ["incidents", "/incidents", "Incidents"], ["logs", "/logs", "Logs"], ["flow", "/flow", "Flow"]];
/** What is shown there comes from the database, and is not old because mesh-health is away. */
const STORED = new Set(["clients", "logs"]);
const LEVEL_SIGN = { ok: "healthy", warn: "suspect", bad: "dead", idle: "unknown" };
const stroke = (d, props = {}) => s("path", { d, fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round", ...props });
const icon = (...paths) => s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, paths);

export function header(element, announcer) {
  const links = new Map(AREAS.map(([area, href, name]) => [area, h("a", { href }, name)]));
  const mark = s("path", { fill: "none", stroke: "currentColor", "stroke-width": 2.2, "stroke-linecap": "round", "stroke-linejoin": "round" });
  const spoken = h("span", {});
  const line = h("p", { class: "sentence" }, s("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, mark), spoken);
  const pill = h("span", { class: "pill", role: "status", "aria-live": "off" });
  const pauseMark = stroke("M5.5 3.5v9M10.5 3.5v9");
  const pause = h("button", { type: "button", class: "quiet", "aria-pressed": "false", "aria-label": "Pause updates", title: "Pause updates (space)", onclick: () => setPaused(!store.paused) }, icon(pauseMark));
  const theme = h("button", { type: "button", class: "quiet", onclick: nextTheme }, icon(s("circle", { cx: 8, cy: 8, r: 5.2, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }), s("path", { d: "M8 2.8a5.2 5.2 0 0 1 0 10.4z", fill: "currentColor" })));
  const help = h("button", { type: "button", class: "quiet help", "aria-label": "Keys", title: "Keys (?)", onclick: () => showKeys(KEYS) }, icon(stroke("M5.6 6a2.4 2.4 0 1 1 3.4 2.2c-.7.3-1 .8-1 1.5"), stroke("M8 12.4v.01", { "stroke-width": 2 })));
  element.append(h("div", { class: "bar" },
    h("a", { class: "brand", href: "/", "aria-label": "mqtt-mesh, overview" }, logo(), h("b", {}, "mqtt-mesh")),
    h("nav", { "aria-label": "Areas" }, h("ul", {}, AREAS.map(([area]) => h("li", {}, links.get(area))))),
    line,
    h("div", { class: "tools" }, pill, pause, theme, help)));
  labelTheme();

  let announced = null;
  let here = null;
  let waiting = 0;

  function nextTheme() {
    const order = [null, "light", "dark"];
    const next = order[(order.indexOf(localStorage.getItem("mesh-theme")) + 1) % 3];
    if (next) localStorage.setItem("mesh-theme", next);
    else localStorage.removeItem("mesh-theme");
    dispatchEvent(new Event("mesh-theme"));
    labelTheme();
  }
  function labelTheme() {
    const name = localStorage.getItem("mesh-theme") ?? "as the system";
    attrs(theme, { "aria-label": `Theme: ${name}`, title: `Theme: ${name}` });
  }

  return {
    area(area) {
      here = area;
      for (const [name, link] of links) attrs(link, { "aria-current": name === area ? "page" : null });
    },
    update() {
      const age = staleness();
      const told = state();
      const now = serverNow();
      const said = sentence(told, store.paused && told ? Date.parse(told.at) : now);
      text(spoken, said.text);
      attrs(line, { class: `sentence is-${said.level}`, title: said.text });
      attrs(mark, { d: SIGNS[LEVEL_SIGN[said.level]] });
      const away = told && !told.health.reachable;
      if (store.paused) pillIs("paused", "paused");
      else if (age > 0) pillIs("stale", store.everHeard ? `stale ${coarse(age)}` : "connecting");
      else pillIs("live", "live");
      attrs(pause, { "aria-pressed": store.paused, "aria-label": store.paused ? "Resume updates" : "Pause updates" });
      attrs(document.documentElement, { "data-stale": (store.everHeard && age > 0) || (away && !STORED.has(here)) ? "" : null });
      announce(age > 3000 ? "The connection to the server is lost." : said.steady);
      return { age, away };
    },
  };

  function pillIs(name, words) {
    attrs(pill, { "data-state": name });
    text(pill, words);
  }
  /** Politely, and only what lasts: a state of less than a second is not spoken. */
  function announce(words) {
    if (words === announced) return;
    announced = words;
    clearTimeout(waiting);
    waiting = setTimeout(() => text(announcer, words), 700);
  }
}

function logo() {
  const corner = (i) => [16 + 11.5 * Math.sin((2 * Math.PI * i) / 5), 16.5 - 11.5 * Math.cos((2 * Math.PI * i) / 5)];
  const corners = [0, 1, 2, 3, 4].map(corner);
  const lines = corners.flatMap((a, i) => corners.slice(i + 1).map((b) => `M${a.map((n) => n.toFixed(1)).join(" ")}L${b.map((n) => n.toFixed(1)).join(" ")}`)).join("");
  return s("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
    s("path", { d: lines, stroke: "var(--accent)", "stroke-width": 1.1, opacity: 0.55 }),
    corners.map(([x, y], i) => s("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: i === 0 ? 4.2 : 2.8, fill: i === 0 ? "var(--accent)" : "var(--ink-2)" })));
}
