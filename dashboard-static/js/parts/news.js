// What happened, newest first.

import { h, replace } from "../dom.js";
import { clock, moment } from "../format.js";
import { store } from "../store.js";

const BAD = /\.(dead|blocked|down|rejected|out_of_sync)$/;
const GOOD = /\.(healthy|completed|up|restored|in_sync|enabled|drained)$/;

// A broker that was late for a moment and is well again has one line, not two: nothing was done about it.
function worthTelling(events) {
  return events.filter((event, i) => {
    // The steps of an incident stand with the incident.
    if (event.name === "incident.step") return false;
    if (event.name !== "broker.healthy") return true;
    const before = events.slice(i + 1).find((one) => one.broker === event.broker && one.name.startsWith("broker."));
    return before?.name !== "broker.suspect";
  });
}

/** An event in words: `broker1 dead: connection refused`, `failover switched, broker1 → broker2`. */
export function wordsOf(event) {
  const [what, how] = event.name.split(".");
  const subject = what === "broker" ? event.broker : what === "link" ? `link ${event.from} → ${event.to}` : what;
  const between = what !== "link" && event.from && event.to ? `, ${event.from} → ${event.to}` : what !== "broker" && event.broker ? `, ${event.broker}` : "";
  if (how === "suspect") return `${subject} late: ${event.reason ?? "no answer"}`;
  return `${subject} ${how.replaceAll("_", " ")}${between}${event.reason ? `: ${event.reason}` : ""}`;
}

export function news() {
  const list = h("ol", { tabindex: 0, "aria-label": "What happened, newest first" });
  const box = h("section", { class: "card news" }, h("header", {}, h("h2", {}, "What happened")), list);
  let shown = null;
  return {
    element: box,
    update() {
      const newest = store.events[0];
      const key = newest ? `${newest.at}${newest.name}${store.events.length}` : "none";
      if (key === shown) return;
      shown = key;
      if (!newest) {
        replace(list, h("li", { class: "empty" }, h("span", {}), "Nothing of late."));
        return;
      }
      replace(list, worthTelling(store.events).map((event) => {
        const level = BAD.test(event.name) ? "is-bad" : GOOD.test(event.name) ? "is-ok" : "is-idle";
        const words = event.incident ? h("a", { class: level, href: `/incidents/${encodeURIComponent(event.incident)}` }, wordsOf(event)) : h("span", { class: level }, wordsOf(event));
        return h("li", {}, h("time", { datetime: event.at, title: moment(event.at, true) }, clock(event.at)), words);
      }));
    },
  };
}
