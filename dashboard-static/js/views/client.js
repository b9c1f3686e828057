// One client's way from broker to broker.

import { get } from "../api.js";
import { h, replace } from "../dom.js";
import { coarse, count, moment } from "../format.js";
import { serverNow } from "../store.js";
import { sign } from "../words.js";

export function client(main, { id }) {
  const body = h("div", { class: "grid" }, h("p", { class: "empty" }, "Asking …"));
  replace(main, h("div", { class: "head" }, h("p", { class: "crumb" }, h("a", { href: "/clients" }, "Clients"), " /"), h("h1", { class: "hostile" }, id), h("div", { class: "actions" }, h("a", { class: "button", href: `/logs?q=${encodeURIComponent(`client:"${id.replaceAll('"', '\\"')}"`)}` }, "Its log lines"))), body);
  let stopped = false;
  let timer = 0;
  let last = "";

  async function load() {
    try {
      const told = await get(`/api/v1/clients/${encodeURIComponent(id)}`);
      if (stopped) return;
      const key = JSON.stringify(told);
      if (key !== last) draw(told);
      last = key;
    } catch (error) {
      if (!stopped) replace(body, h("section", { class: "card" }, h("p", { class: "empty" }, h("b", {}, error.title), error.message)));
    }
    if (!stopped) timer = setTimeout(load, 3000);
  }

  function draw(told) {
    const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
    const latest = told.sessions.at(-1);
    const col = (name, isNumber) => h("th", { scope: "col", class: isNumber ? "num" : null }, name);
    const rows = [...told.sessions].reverse().map((one) => {
      const end = one.disconnected_at === null ? serverNow() : Date.parse(one.disconnected_at);
      return h("tr", {}, h("th", { scope: "row" }, h("a", { href: `/brokers/${encodeURIComponent(one.broker)}` }, one.broker)), h("td", { class: "when" }, moment(one.connected_at)),
        h("td", { class: "when" }, one.disconnected_at === null ? h("span", { class: "is-ok" }, "connected") : moment(one.disconnected_at)), h("td", { class: "num" }, coarse(end - Date.parse(one.connected_at))),
        h("td", {}, one.remote_addr ?? "–"), h("td", { class: "reason" }, one.reason ?? "–"));
    });
    replace(body,
      h("section", { class: "card" }, h("dl", { class: "facts" },
        fact("Connected to", told.live_on.length > 1 ? h("span", { class: "is-warn" }, sign("suspect"), ` ${told.live_on.join(" and ")} at once`) : told.live_on[0] ?? "no broker"), fact("Reconnects", count(told.reconnects)), fact("Address", latest.remote_addr ?? "–"), fact("User", latest.username ?? "–"), fact("MQTT", latest.protocol ?? "–"))),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Its way"), h("small", {}, "where it was, when, and why it left")), way(told.sessions)),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Its sessions"), h("small", {}, "latest first")),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Sessions" }, h("table", { class: "rows" }, h("caption", { class: "unseen" }, "Sessions"),
          h("thead", {}, h("tr", {}, col("Broker"), col("From"), col("To"), col("For", true), col("Address"), col("Left because"))), h("tbody", {}, rows)))));
  }

  load();
  return {
    title: `Client ${id}`,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** Lanes of brokers over the time from the first of the latest sessions until now. */
function way(sessions) {
  const latest = sessions.slice(-60);
  const from = Date.parse(latest[0].connected_at);
  const to = Math.max(serverNow(), from + 1000);
  const brokers = [...new Set(latest.map((one) => one.broker))].sort();
  const share = (at) => `${(100 * (at - from)) / (to - from)}%`;
  return h("div", { class: "gantt" }, brokers.flatMap((broker) => {
    const pieces = latest.filter((one) => one.broker === broker).map((one) => {
      const piece = h("div", { class: "piece" });
      const end = one.disconnected_at === null ? to : Date.parse(one.disconnected_at);
      piece.style.left = share(Date.parse(one.connected_at));
      piece.style.width = `calc(${share(end)} - ${share(Date.parse(one.connected_at))})`;
      return piece;
    });
    const all = latest.filter((one) => one.broker === broker).length;
    return [h("div", { class: "phase" }, broker), h("div", { class: "lane", "aria-hidden": "true" }, pieces), h("div", { class: "figure" }, h("small", {}, `${all}×`))];
  }), h("div", { class: "scale", "aria-hidden": "true" }, h("span", {}, moment(from)), h("span", {}, "now")));
}
