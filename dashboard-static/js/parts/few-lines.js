// A few log lines beside something else, with the way to all of them.

import { get } from "../api.js";
import { h, replace } from "../dom.js";
import { clock, moment } from "../format.js";
import { classOfLevel, extras } from "../words.js";

/** A card with the newest `limit` lines that `q` asks for, or the oldest; asked again every `every` milliseconds, if given. */
export function fewLines(title, q, { every, limit = 14, oldest = false } = {}) {
  const body = h("div", {}, h("p", { class: "empty" }, "Asking …"));
  const element = h("section", { class: "card wide" }, h("header", {}, h("h2", {}, title), h("a", { class: "right", href: `/logs?q=${encodeURIComponent(q)}` }, "All of them")), body);
  let timer = 0;
  let shown = "";

  async function load() {
    try {
      const { rows } = await get(`/api/v1/logs?limit=${limit}&oldest=${oldest}&q=${encodeURIComponent(q)}`);
      const key = rows.map((row) => row.id).join();
      if (key !== shown || !rows.length) draw(rows);
      shown = key;
    } catch (error) {
      replace(body, h("p", { class: "empty" }, h("b", {}, error.title), error.message));
    }
    if (every && element.isConnected) timer = setTimeout(load, every);
  }

  function draw(rows) {
    if (!rows.length) return replace(body, h("p", { class: "empty" }, h("b", {}, "No line"), "is stored of this."));
    replace(body, h("ol", { class: "few" }, rows.map((row) => h("li", { class: `line ${classOfLevel(row.severity_text)}` },
      h("time", { datetime: row.time, title: moment(row.time, true) }, clock(row.time)), h("b", { class: "level" }, row.severity_text), h("span", { class: "who" }, row.broker ?? row.service), h("a", { class: "body", href: `/logs?line=${row.id}` }, row.body, extras(row) ? h("span", { class: "extra" }, `  ${extras(row)}`) : null)))));
  }

  setTimeout(load);
  return { element, stop: () => clearTimeout(timer) };
}
