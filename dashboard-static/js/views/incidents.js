// All incidents: those that mesh-health remembers, and older ones from the database.

import { h, replace, text } from "../dom.js";
import { incidents, older, onIncidents, refresh } from "../incidents.js";
import { incidentRows } from "../parts/incident-rows.js";

export function incidentList(main) {
  const rows = incidentRows();
  const note = h("p", { class: "small is-warn", role: "status" });
  const more = h("button", { type: "button", hidden: true, onclick: older }, "Older");
  replace(main,
    h("div", { class: "head" }, h("h1", {}, "Incidents"), h("p", { class: "small" }, "Every fault of a broker, a link or the balancer, from its first sign to its end.")),
    h("section", { class: "card", "aria-label": "List of incidents" }, note, rows.element, more));
  function update() {
    refresh();
    const { list, error } = incidents();
    // What is known stays, also where it cannot be asked for again.
    text(note, list ? (incidents().note ?? "") : "");
    rows.update(list, error);
    more.hidden = !incidents().next;
  }
  const unlisten = onIncidents(update);
  return { title: "Incidents", update: (what) => what !== "event" && update(), key: (key) => rows.key(key), stop: unlisten };
}
