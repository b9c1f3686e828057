// The picture as tables: the same data, for those who rather read.

import { h, replace } from "../dom.js";
import { coarse, count, many, ms, rate } from "../format.js";
import { serverNow } from "../store.js";
import { classOf, sign } from "../words.js";

/** A state as sign, colour and word. */
export function word(name) {
  return h("span", { class: `word ${classOf(name)}` }, sign(name === "up" ? "healthy" : name === "down" ? "dead" : name), name ?? "–");
}

const num = (value) => h("td", { class: "num" }, value);
const col = (name, isNumber) => h("th", { scope: "col", class: isNumber ? "num" : null }, name);

export function brokerTable() {
  const body = h("tbody", {});
  const table = h("table", { class: "rows" },
    h("caption", { class: "unseen" }, "Brokers"),
    h("thead", {}, h("tr", {}, col("Broker"), col("Role"), col("Health"), col("Since", true), col("Probe ms", true), col("Clients", true), col("In/s", true), col("Out/s", true), col("Remarks"))),
    body);
  return {
    element: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Brokers" }, table),
    update(frame) {
      replace(body, frame.brokers.map((b) => {
        const admin = b.admin && b.admin !== "enabled" ? (b.sessions_left ? `${b.admin}, ${many(b.sessions_left, "session")} left` : b.admin) : null;
        return h("tr", {},
          h("th", { scope: "row" }, h("a", { href: `/brokers/${b.id}` }, b.id)),
          h("td", {}, b.role ?? "–"),
          h("td", {}, word(b.health)),
          num(b.since ? coarse(serverNow() - Date.parse(b.since)) : "–"),
          num(ms(b.rtt_ms)), num(count(b.clients)), num(rate(b.in_per_s)), num(rate(b.out_per_s)),
          h("td", { class: "reason" }, [admin, b.reason].filter(Boolean).join("; ")));
      }));
    },
  };
}

export function linkTable(name = "Links", only = null) {
  const body = h("tbody", {});
  const table = h("table", { class: "rows" },
    h("caption", { class: "unseen" }, name),
    h("thead", {}, h("tr", {}, col("From"), col("To"), col("State"), col("Latency ms", true), col("Msg/s", true), col("Received", true))),
    body);
  return {
    element: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, table),
    update(frame) {
      const links = only ? frame.links.filter(only) : frame.links;
      if (links.length === 0) return replace(body, h("tr", {}, h("td", { colspan: 6 }, "There are no links.")));
      replace(body, links.map((l) => h("tr", {},
        h("th", { scope: "row" }, l.from), h("td", {}, l.to), h("td", {}, word(l.state)),
        num(ms(l.latency_ms)), num(rate(l.per_s)), num(count(l.received)))));
    },
  };
}

