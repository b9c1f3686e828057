// A list of incidents, one a row; `j` and `k` go through it, Enter opens one.

import { h, replace } from "../dom.js";
import { coarse, moment, span } from "../format.js";
import { go } from "../router.js";
import { serverNow } from "../store.js";
import { subject } from "../words.js";

const col = (name, isNumber) => h("th", { scope: "col", class: isNumber ? "num" : null }, name);
const path = (incident) => `/incidents/${encodeURIComponent(incident.id)}`;

export function incidentRows() {
  const body = h("tbody", {});
  const table = h("table", { class: "rows" },
    h("caption", { class: "unseen" }, "Incidents, newest first"),
    h("thead", {}, h("tr", {}, col("Began"), col("What"), col("Noticed", true), col("Switched", true), col("Client back", true), col("Over after", true), col("Reason"))), body);
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Incidents" }, table);
  const box = h("div", {});
  let list = [];
  let selected = -1;
  let shown = null;

  function mark() {
    [...body.rows].forEach((row, i) => row.classList.toggle("selected", i === selected));
    body.rows[selected]?.scrollIntoView({ block: "nearest" });
    body.rows[selected]?.querySelector("a")?.focus({ preventScroll: true });
  }

  return {
    element: box,
    update(next, error) {
      if (!next) {
        shown = null;
        return replace(box, h("p", { class: "empty" }, h("b", {}, error ? (error.title ?? "Error") : "Asking …"), error ? error.message : ""));
      }
      if (next.length === 0) {
        shown = null;
        return replace(box, h("p", { class: "empty" }, h("b", {}, "No incident"), "is known. To see one in the lab: meshctl lab fault kill broker1"));
      }
      const key = next.map((incident) => `${incident.id}/${incident.phases.length}/${incident.ended_at ?? coarse(serverNow() - Date.parse(incident.began_at))}`).join();
      if (key === shown) return;
      shown = key;
      list = next;
      const focused = body.contains(document.activeElement);
      replace(body, next.map((incident) => {
        const after = (name) => {
          const step = incident.phases.find((one) => one.phase === name);
          return h("td", { class: "num" }, step ? span(step.elapsed_ms) : "–");
        };
        const end = incident.ended_at
          ? h("td", { class: "num" }, coarse(Date.parse(incident.ended_at) - Date.parse(incident.began_at)))
          : h("td", { class: "num is-bad" }, `lasts, ${coarse(serverNow() - Date.parse(incident.began_at))}`);
        return h("tr", {},
          h("td", {}, h("a", { href: path(incident) }, moment(incident.began_at))),
          h("th", { scope: "row" }, subject(incident)),
          after("confirmed"), after("generation_confirmed"), after("first_client_back"), end,
          h("td", { class: "reason" }, incident.reason ?? "–"));
      }));
      if (!box.contains(table)) replace(box, scroll);
      if (focused || selected >= 0) mark();
    },
    key(key) {
      if (!list.length || (key !== "j" && key !== "k" && key !== "Enter")) return false;
      if (key === "Enter") {
        if (selected < 0) return false;
        go(path(list[selected]));
        return true;
      }
      selected = Math.max(0, Math.min(list.length - 1, selected + (key === "j" ? 1 : -1)));
      mark();
      return true;
    },
  };
}
