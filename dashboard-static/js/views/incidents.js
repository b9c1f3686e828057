// All incidents that mesh-health remembers.

import { h, replace } from "../dom.js";
import { incidents, onIncidents, refresh } from "../incidents.js";
import { incidentRows } from "../parts/incident-rows.js";

export function incidentList(main) {
  const rows = incidentRows();
  replace(main,
    h("div", { class: "head" }, h("h1", {}, "Incidents"), h("p", { class: "small" }, "Every fault of a broker, a link or the balancer, from its first sign to its end.")),
    h("section", { class: "card", "aria-label": "List of incidents" }, rows.element));
  function update() {
    refresh();
    rows.update(incidents().list, incidents().error);
  }
  const unlisten = onIncidents(update);
  return { title: "Incidents", update: (what) => what !== "event" && update(), key: (key) => rows.key(key), stop: unlisten };
}
