// One incident: what happened when, how that is known, and how it compares with earlier ones.

import { get } from "../api.js";
import { h, replace, text } from "../dom.js";
import { coarse, median, moment, span } from "../format.js";
import { incidents, onIncidents, refresh } from "../incidents.js";
import { fewLines } from "../parts/few-lines.js";
import { gantt, phasesOf } from "../parts/gantt.js";
import { go } from "../router.js";
import { knownBy, phaseWords, subject } from "../words.js";

/** The medians of the phases of earlier incidents of the same kind: of a primary, of another broker, of a link. */
export function mediansOf(list, incident) {
  const earlier = list.filter((one) => Date.parse(one.began_at) < Date.parse(incident.began_at) && one.kind === incident.kind && Boolean(one.to) === Boolean(incident.to));
  const medians = {};
  for (const { phase } of incident.phases) {
    const values = earlier.flatMap((one) => one.phases.filter((step) => step.phase === phase).map((step) => step.elapsed_ms));
    if (values.length) medians[phase] = median(values);
  }
  return { medians, count: earlier.length };
}

export function incidentView(main, { id }) {
  const address = `/api/v1/incidents/${encodeURIComponent(id)}`;
  const body = h("div", { class: "grid" });
  const title = h("h1", {}, "Incident");
  replace(main,
    h("div", { class: "head" }, h("p", { class: "crumb" }, h("a", { href: "/incidents" }, "Incidents"), " /"), title, h("small", {}, id),
      h("div", { class: "actions" },
        h("a", { class: "button", href: address, download: `incident-${id}.json` }, "JSON"),
        h("a", { class: "button", href: `${address}?format=markdown`, download: `incident-${id}.md` }, "Markdown"))),
    body);
  let drawn = "";
  let lines = null;
  let linesOf = "";
  let fetched = null;

  async function fetchOne() {
    try {
      fetched = await get(address);
    } catch (error) {
      replace(body, h("section", { class: "card" }, h("p", { class: "empty" }, h("b", {}, error.title), error.message)));
    }
    if (fetched) update();
  }

  function update() {
    refresh();
    const list = incidents().list ?? [];
    const incident = list.find((one) => one.id === id) ?? fetched;
    if (!incident) return;
    const key = `${incident.phases.length}${incident.ended_at}${list.length}`;
    if (key === drawn) return;
    drawn = key;
    text(title, subject(incident));
    const { medians, count } = mediansOf(list, incident);
    const fact = (name, value, isLong) => h("div", {}, h("dt", {}, name), h("dd", { class: isLong ? "long" : null }, value));
    const ended = incident.ended_at ? coarse(Date.parse(incident.ended_at) - Date.parse(incident.began_at)) : "lasts";
    const rows = phasesOf(incident).map((step) => h("tr", {},
      h("th", { scope: "row" }, phaseWords(incident.kind, step.phase)),
      h("td", { class: "mono" }, moment(step.at, true)),
      h("td", { class: "num" }, span(step.to)),
      h("td", { class: "num" }, step.to === step.from ? "–" : `+${span(step.to - step.from)}`),
      h("td", { class: "num" }, medians[step.phase] === undefined ? "–" : span(medians[step.phase])),
      h("td", { class: "reason" }, knownBy(step.phase))));
    const col = (name, isNumber) => h("th", { scope: "col", class: isNumber ? "num" : null }, name);
    const began = Date.parse(incident.began_at);
    // What matters lies close to the beginning; the end may come minutes later, when nothing is heard any more.
    const served = Math.max(...incident.phases.filter((step) => step.phase !== "recovered").map((step) => step.elapsed_ms), 0);
    const interval = `since:${new Date(began - 500).toISOString()} until:${new Date(began + served + 500).toISOString()}`;
    if (interval !== linesOf) {
      linesOf = interval;
      lines = fewLines("Log lines of that time", interval, { limit: 40, oldest: true });
    }
    replace(body,
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "What happened")), h("dl", { class: "facts" },
        fact("What", incident.broker ? h("a", { href: `/brokers/${incident.broker}` }, incident.broker) : subject(incident)),
        incident.kind === "broker" ? fact("Clients were sent to", incident.to ?? "nowhere else") : null,
        fact("Plan", incident.generation ?? "–"),
        fact("Began", moment(incident.began_at), true),
        fact("Over after", ended),
        fact("Reason", incident.reason ?? "–", true))),
      h("section", { class: "card" },
        h("header", {}, h("h2", {}, "Phases"), h("small", {}, count ? `dotted: median of ${count} earlier` : "no earlier one to compare with"), h("small", { class: "right" }, "hatched: begins at an inferred instant")),
        gantt(incident, medians)),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Step by step")),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Steps" }, h("table", {}, h("caption", { class: "unseen" }, "Steps"),
          h("thead", {}, h("tr", {}, col("Step"), col("At"), col("After", true), col("Took", true), col("Median", true), col("Known"))), h("tbody", {}, rows)))),
      lines.element);
  }

  const unlisten = onIncidents(update);
  fetchOne();
  return {
    title: `Incident ${id}`,
    update: (what) => what !== "event" && update(),
    key(key) {
      const list = incidents().list ?? [];
      const at = list.findIndex((one) => one.id === id);
      const next = key === "j" ? list[at + 1] : key === "k" ? list[at - 1] : null;
      if (!next || at < 0) return false;
      go(`/incidents/${encodeURIComponent(next.id)}`);
      return true;
    },
    stop: unlisten,
  };
}
