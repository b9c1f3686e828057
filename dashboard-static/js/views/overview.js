// The first page: the picture, the latency of links, the last minutes, the latest incident.

import { bandsOf } from "../bands.js";
import { h, replace, text } from "../dom.js";
import { clock, coarse, count, moment, ms, rate, span } from "../format.js";
import { incidents, onIncidents, refresh } from "../incidents.js";
import { charts } from "../parts/charts.js";
import { matrix } from "../parts/matrix.js";
import { news } from "../parts/news.js";
import { scrubber } from "../parts/scrubber.js";
import { strips } from "../parts/strips.js";
import { brokerTable, linkTable } from "../parts/tables.js";
import { legend, topology } from "../parts/topology.js";
import { phasesOf } from "../parts/gantt.js";
import { query, setQuery } from "../router.js";
import { serverNow, setCursor, shownFrame, state, store } from "../store.js";
import { phaseWords, subject } from "../words.js";

export function overview(main) {
  const detail = h("p", { class: "detail", "aria-live": "off" });
  let showDetail = null;
  const picture = topology((_key, show) => {
    showDetail = show ?? null;
    drawDetail();
  });
  const brokers = brokerTable();
  const links = linkTable();
  const tables = h("div", { hidden: true }, brokers.element, h("h3", {}, "Links"), links.element);
  const toggle = h("button", { type: "button", title: "Picture or table (t)", onclick: () => flip() }, "View as table");
  const when = h("small", { class: "right" });
  const latency = matrix();
  const why = h("span", {});
  const blank = h("p", { class: "empty", hidden: true }, h("b", {}, "Nothing is known of the brokers yet"), why);
  const latest = h("div", {});
  const happened = news();
  const small = charts(() => {});
  const replay = scrubber();
  const day = strips();
  const grid = h("div", { class: "grid overview" },
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Topology"), legend(), h("div", { class: "right" }, when, toggle)), picture.element, tables, blank, detail),
    h("div", { class: "stack" },
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Latest incident"), h("a", { class: "right", href: "/incidents" }, "All incidents")), latest),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Link latency"), h("small", {}, "ms, by a canary each second")), latency.element),
      happened.element),
    h("section", { class: "card wide" }, h("header", {}, h("h2", {}, "Last 15 minutes"), h("small", {}, "drag to replay what was")), replay.element),
    h("div", { class: "wide" }, small.element),
    day.element);
  replace(main, h("h1", { class: "unseen" }, "Overview"), grid);

  let ids = "";
  let asTable = query("view") === "table";
  apply();

  function flip() {
    asTable = !asTable;
    setQuery("view", asTable ? "table" : null);
    apply();
    update();
  }
  function apply() {
    picture.element.hidden = asTable;
    detail.hidden = asTable;
    tables.hidden = !asTable;
    text(toggle, asTable ? "View as picture" : "View as table");
  }
  function drawDetail() {
    const content = showDetail?.();
    if (content) replace(detail, content);
    else text(detail, "Point at a line or a broker, or reach it with the keyboard, for its figures.");
  }

  function buildCharts(frame) {
    const now = frame.brokers.map((broker) => broker.id).join();
    if (now === ids) return;
    ids = now;
    const each = (field) => frame.brokers.map((broker, i) => ({
      name: broker.id, colour: i, read: (one) => one.brokers.find((b) => b.id === broker.id)?.[field] ?? null,
    }));
    small.build([
      { title: "Published", unit: "msg/s into the brokers", format: rate, series: each("in_per_s") },
      { title: "Delivered", unit: "msg/s out of the brokers", format: rate, series: each("out_per_s") },
      { title: "Clients", unit: "connected", format: count, least: 4, series: each("clients") },
      { title: "Probe", unit: "ms to answer a PINGREQ", format: ms, least: 0.5, series: each("rtt_ms") },
    ]);
  }

  function update() {
    const frame = shownFrame();
    drawLatest(latest);
    happened.update();
    day.update();
    refresh();
    if (!frame || frame.brokers.length === 0) {
      text(when, frame ? "mesh-health did not answer then" : "");
      blank.hidden = Boolean(frame) || !state();
      detail.hidden = !blank.hidden || asTable;
      text(why, `${state()?.health.error ?? "It was not asked yet"}. Where it runs as a service: systemctl status mesh-health`);
      replay.update();
      return;
    }
    if (!blank.hidden) {
      blank.hidden = true;
      apply();
    }
    buildCharts(frame);
    if (asTable) {
      brokers.update(frame);
      links.update(frame);
    } else picture.update(frame);
    latency.update(frame);
    drawDetail();
    text(when, store.cursor === null ? "" : `at ${clock(frame.at)}`);
    replay.update();
    small.update(store.frames, bandsOf(incidents().list ?? []), store.cursor);
  }

  const unlisten = onIncidents(update);
  return {
    title: "Overview",
    update(what) {
      if (what === "event") happened.update();
      else update();
    },
    key(key) {
      if (key === "t") flip();
      else if (key === "Escape" && store.cursor !== null) setCursor(null);
      else return false;
      return true;
    },
    stop() {
      unlisten();
      picture.stop();
      replay.stop();
      setCursor(null);
    },
  };
}

let drawn = "";
function drawLatest(box) {
  const told = state();
  // Without mesh-health the latest one is in the database.
  const incident = told?.incident ?? incidents().list?.[0];
  const open = incident && !incident.ended_at;
  const age = incident ? coarse(serverNow() - Date.parse(incident.began_at)) : "";
  const key = incident ? `${incident.id}${incident.phases.length}${incident.ended_at}${age}` : `none${Boolean(told)}`;
  if (key === drawn && box.childElementCount) return;
  drawn = key;
  if (!incident) {
    replace(box, h("p", { class: "empty" }, h("b", {}, told?.snapshot ? "No incident" : "Not known"), told?.snapshot ? "is known." : "Neither mesh-health nor the database tells."));
    return;
  }
  const phases = phasesOf(incident).slice(1).filter((phase) => phase.phase !== "recovered");
  const served = phases.at(-1)?.to ?? 0;
  const bar = h("div", { class: "stages", "aria-hidden": "true" }, phases.map((phase) => {
    const piece = h("i", { title: phaseWords(incident.kind, phase.phase) });
    piece.style.flexGrow = String(Math.max(phase.to - phase.from, served / 200));
    return piece;
  }));
  const find = (name) => incident.phases.find((phase) => phase.phase === name)?.elapsed_ms;
  const step = (name, words) => (find(name) === undefined ? null : h("span", {}, `${words} `, h("b", {}, span(find(name)))));
  replace(box,
    h("p", { class: "incident-line" },
      h("a", { href: `/incidents/${encodeURIComponent(incident.id)}` }, h("b", {}, subject(incident))),
      h("span", { class: open ? "is-bad" : "is-ok" }, open ? "lasts" : `over after ${coarse(Date.parse(incident.ended_at) - Date.parse(incident.began_at))}`),
      h("small", { title: moment(incident.began_at) }, `${age} ago`),
      incident.reason ? h("small", {}, incident.reason) : null),
    phases.length ? bar : null,
    h("p", { class: "stage-list" }, step("confirmed", "noticed"), step("generation_confirmed", "switched"), step("sessions_cut", "moved"), step("first_client_back", "client back"), step("answering", "served"), step("recovered", incident.kind === "broker" ? "healthy" : "over")));
}
