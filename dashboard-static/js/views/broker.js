// One broker: what is observed apart from what is wanted, its last minutes, its links, and what can be done with it.

import { post } from "../api.js";
import { bandsOf } from "../bands.js";
import { confirm } from "../dialog.js";
import { attrs, h, replace, text } from "../dom.js";
import { UNKNOWN, coarse, count, many, moment, ms, rate } from "../format.js";
import { incidents, onIncidents, refresh } from "../incidents.js";
import { charts } from "../parts/charts.js";
import { fewLines } from "../parts/few-lines.js";
import { incidentRows } from "../parts/incident-rows.js";
import { linkTable, word } from "../parts/tables.js";
import { concerns } from "../words.js";
import { serverNow, shownFrame, state, store } from "../store.js";

export function broker(main, { id }) {
  const facts = h("dl", { class: "facts" });
  const config = h("dl", { class: "facts" });
  const drain = h("button", { type: "button" }, "Drain …");
  const enable = h("button", { type: "button" }, "Enable …");
  const back = h("button", { type: "button" }, "Fail back …");
  const small = charts(() => {});
  const received = linkTable("Links in", (link) => link.to === id);
  const sent = linkTable("Links out", (link) => link.from === id);
  const past = incidentRows();
  const lines = fewLines("Last log lines", `broker:${id}`, { every: 5000 });
  const title = h("span", { class: "small" });
  replace(main,
    h("div", { class: "head" }, h("p", { class: "crumb" }, h("a", { href: "/" }, "Overview"), " /"), h("h1", {}, id), title, h("div", { class: "actions" }, h("a", { class: "button", href: `/clients?q=${id}` }, "Its clients"), drain, enable, back)),
    h("div", { class: "grid two" },
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Observed")), facts),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Wanted and configured")), config),
      h("div", { class: "wide" }, small.element),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Links in"), h("small", {}, "what it fetches from the others")), received.element),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Links out"), h("small", {}, "what the others fetch from it")), sent.element),
      h("section", { class: "card wide" }, h("header", {}, h("h2", {}, "Its incidents")), past.element),
      lines.element));

  const read = (field) => (frame) => frame.brokers.find((one) => one.id === id)?.[field] ?? null;
  const slowest = (way) => (frame) => {
    const known = frame.links.filter((link) => link[way] === id && link.latency_ms !== null).map((link) => link.latency_ms);
    return known.length ? Math.max(...known) : null;
  };
  small.build([
    { title: "Messages", unit: "per second", format: rate, series: [{ name: "in", read: read("in_per_s") }, { name: "out", read: read("out_per_s") }] },
    { title: "Clients", unit: "connected", format: count, least: 4, series: [{ name: "clients", read: read("clients") }] },
    { title: "Probe", unit: "ms to answer a PINGREQ", format: ms, least: 0.5, series: [{ name: "probe", read: read("rtt_ms") }] },
    { title: "Slowest link", unit: "ms", format: ms, least: 0.5, series: [{ name: "in", read: slowest("to") }, { name: "out", read: slowest("from") }] },
  ]);

  const unit = (value, words) => (value === UNKNOWN ? value : `${value}${words}`);
  const fact = (name, value, isLong) => h("div", {}, h("dt", {}, name), h("dd", { class: isLong ? "long" : null }, value));
  const find = () => state()?.snapshot?.brokers.find((one) => one.id === id) ?? null;
  const others = () => (state()?.snapshot?.brokers ?? []).filter((one) => one.id !== id);

  drain.addEventListener("click", () => {
    const now = find();
    const next = others().find((one) => one.health === "healthy" && one.admin === "enabled");
    confirm({
      title: `Drain ${id}?`,
      lines: [
        now?.role === "primary"
          ? `${id} serves now. It takes no new clients, and ${many(now.clients, "session")} ${now.clients === 1 ? "is" : "are"} moved${next ? ` to the next broker in order` : ""}, in slices.`
          : `${id} does not serve now: ${many(now?.clients ?? null, "session")} ${now?.clients === 1 ? "is" : "are"} connected to it directly and ${now?.clients === 1 ? "is" : "are"} not moved. It is not chosen until you enable it.`,
        "It goes on holding its links, and stays drained over a restart.",
      ],
      yes: "Drain",
      act: () => post(`/api/v1/brokers/${id}/drain`),
      force: () => post(`/api/v1/brokers/${id}/drain?force=true`),
    });
  });
  enable.addEventListener("click", () =>
    confirm({
      title: `Enable ${id}?`,
      lines: [`${id} may serve clients again when it is healthy. No session moves now.`],
      yes: "Enable",
      act: () => post(`/api/v1/brokers/${id}/enable`),
    }));
  back.addEventListener("click", () => {
    const snapshot = state()?.snapshot;
    const serving = snapshot?.brokers.find((one) => one.id === snapshot.primary);
    confirm({
      title: "Fail back?",
      lines: [`All clients go back to the most preferred broker that is healthy: ${many(serving?.clients ?? null, "session")} of ${serving?.id ?? "the primary"} ${serving?.clients === 1 ? "is" : "are"} closed and connect${serving?.clients === 1 ? "s" : ""} again there.`],
      yes: "Fail back",
      act: () => post("/api/v1/failback"),
    });
  });

  function update() {
    refresh();
    const told = state();
    const now = find();
    const list = incidents().list;
    past.update(list ? list.filter((incident) => concerns(incident, id)) : null, incidents().error);
    if (!now) {
      const unknown = told?.snapshot;
      text(title, unknown ? "There is no broker of this name." : "Not known yet.");
      for (const button of [drain, enable, back]) button.disabled = true;
      return;
    }
    const { snapshot } = told;
    text(title, now.address);
    const calm = told.health.reachable && !store.paused;
    attrs(drain, { disabled: !calm || now.admin !== "enabled" });
    attrs(enable, { disabled: !calm || now.admin === "enabled" });
    attrs(back, { disabled: !calm || snapshot.brokers[0]?.id === snapshot.primary });
    const { retained } = now;
    const same = retained?.digest ? snapshot.brokers.filter((one) => one.retained?.digest === retained.digest).length : null;
    replace(facts,
      fact("Health", word(now.health)),
      fact("Since", coarse(serverNow() - Date.parse(now.since))),
      fact("Last probe", unit(ms(now.rtt_ms), " ms")),
      fact("Clients", count(now.clients)),
      fact("Messages in", unit(rate(now.in_per_s), "/s")),
      fact("Messages out", unit(rate(now.out_per_s), "/s")),
      fact("Retained", count(retained?.count)),
      fact("Same retained state", same === null ? "–" : `${same} of ${snapshot.brokers.length} brokers`),
      fact("Reason", now.reason ?? "–", true));
    replace(config,
      fact("Wanted", now.admin),
      fact("Role", now.role ?? "–"),
      fact("Priority", `${snapshot.brokers.indexOf(now) + 1} of ${snapshot.brokers.length}`),
      fact("Sessions to move", now.sessions_left === null || now.sessions_left === undefined ? "none" : count(now.sessions_left)),
      fact("Address", now.address, true),
      fact("Health changed", moment(now.since), true));
    const frame = shownFrame();
    received.update(frame);
    sent.update(frame);
    small.update(store.frames, bandsOf(list ?? [], id), store.cursor);
  }

  const unlisten = onIncidents(update);
  return {
    title: id,
    update: (what) => what !== "event" && update(),
    key: (key) => past.key(key),
    stop() {
      unlisten();
      lines.stop();
    },
  };
}
