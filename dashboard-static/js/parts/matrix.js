// Latency from each broker to each other one, as canaries measure it.

import { attrs, h, replace, text } from "../dom.js";
import { ms } from "../format.js";
import { short } from "../words.js";

export function matrix() {
  const table = h("table", { class: "matrix" });
  let ids = "";
  let cells = new Map();

  function build(brokers) {
    cells = new Map();
    // So many columns are narrow, and what does not fit is scrolled to and not cut.
    table.classList.toggle("crowded", brokers.length > 7);
    table.style.minWidth = brokers.length > 7 ? `${70 + 37 * brokers.length}px` : "";
    const names = brokers.map((broker) => broker.id);
    const head = h("thead", {}, h("tr", {}, h("td", { class: "small self corner" }, h("span", {}, "from ↓ to →")), names.map((name) => h("th", { scope: "col", title: name }, short(name)))));
    const rows = names.map((from) =>
      h("tr", {}, h("th", { scope: "row", title: from }, h("span", { class: "full" }, from), h("span", { class: "brief" }, short(from))), names.map((to) => {
        if (from === to) return h("td", { class: "self" }, h("span", { "aria-hidden": "true" }, "·"));
        const cell = h("td", {});
        cells.set(`${from}>${to}`, cell);
        return cell;
      })),
    );
    replace(table, h("caption", { class: "unseen" }, "Latency of each link in milliseconds"), head, h("tbody", {}, rows));
  }

  return {
    element: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Link latency" }, table),
    update(frame) {
      const now = frame.brokers.map((broker) => broker.id).join();
      if (now !== ids) {
        ids = now;
        build(frame.brokers);
      }
      for (const link of frame.links) {
        const cell = cells.get(`${link.from}>${link.to}`);
        if (!cell) continue;
        text(cell, link.state === "down" ? (table.classList.contains("crowded") ? "✕" : "✕ down") : ms(link.latency_ms));
        // Heat from 0.1 ms to 1 s, by the logarithm; the text stays legible on all of it.
        const heat = link.latency_ms === null || link.latency_ms === undefined ? 0 : Math.max(0, Math.min(30, 8 * (Math.log10(link.latency_ms) + 1)));
        attrs(cell, { "data-state": link.state, title: `${link.from} → ${link.to}: ${link.state}` });
        cell.style.setProperty("--heat", heat.toFixed(0));
      }
    },
  };
}
