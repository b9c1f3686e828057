// A table of very many rows of one height, of which only those in sight are in the document.

import { h, replace } from "../dom.js";

const ROW = 30;
const MARGIN = 12;

/** `columns` are header cells; `row(item)` returns a `tr`. */
export function virtualTable(name, columns, row) {
  const body = h("tbody", {});
  const above = h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { colspan: columns.length })));
  const below = h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { colspan: columns.length })));
  const table = h("table", { class: "rows virtual" }, h("caption", { class: "unseen" }, name), h("thead", {}, h("tr", {}, columns)), above, body, below);
  const box = h("div", { class: "virtual-box", tabindex: 0, role: "region", "aria-label": name }, table);
  let items = [];
  let shown = "";

  function draw(force) {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
    const last = Math.min(items.length, first + Math.ceil((box.clientHeight || 600) / ROW) + 2 * MARGIN);
    const key = `${first}-${last}`;
    if (!force && key === shown) return;
    shown = key;
    above.rows[0].style.height = `${first * ROW}px`;
    below.rows[0].style.height = `${(items.length - last) * ROW}px`;
    above.hidden = first === 0;
    below.hidden = last === items.length;
    table.setAttribute("aria-rowcount", String(items.length + 1));
    replace(body, items.slice(first, last).map((item, i) => {
      const line = row(item);
      line.setAttribute("aria-rowindex", String(first + i + 2));
      return line;
    }));
  }
  box.addEventListener("scroll", () => draw(false), { passive: true });
  const observer = new ResizeObserver(() => draw(false));
  observer.observe(box);
  return {
    element: box,
    set(next) {
      items = next;
      draw(true);
    },
    stop: () => observer.disconnect(),
  };
}
