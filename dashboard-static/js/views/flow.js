// One test message through the balancer, watched at every broker; and what the brokers count of all others.

import { post } from "../api.js";
import { h, replace, text } from "../dom.js";
import { count, moment, ms, rate } from "../format.js";
import { shownFrame } from "../store.js";

export function flow(main) {
  const send = h("button", { type: "button", class: "strong" }, "Send a test message");
  const outcome = h("div", { "aria-live": "polite" }, h("p", { class: "empty" }, h("b", {}, "Nothing sent yet"), "The message goes in where clients connect, and is awaited at every broker. Subscribers do not see it."));
  const past = h("ol", { class: "stage-list" });
  const body = h("tbody", {});
  const num = (name) => h("th", { scope: "col", class: "num" }, name);
  const counts = h("table", { class: "rows" }, h("caption", { class: "unseen" }, "Counters of the brokers"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Broker"), num("Published to it /s"), num("Delivered by it /s"), num("Fetched over links /s"), num("Fetched in all"), num("Duplicates dropped"), num("Stale dropped"))), body);
  replace(main,
    h("div", { class: "head" }, h("h1", {}, "Flow"), h("p", { class: "small" }, "Does a message reach every broker, and how fast?"), h("div", { class: "actions" }, send)),
    h("div", { class: "grid two" },
      h("section", { class: "card wide" }, h("header", {}, h("h2", {}, "Test message")), outcome, past),
      h("section", { class: "card wide" }, h("header", {}, h("h2", {}, "What the brokers count"), h("small", {}, "from $SYS and the plugin; nobody subscribes to your topics")),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Counters" }, counts))));

  send.addEventListener("click", async () => {
    send.disabled = true;
    text(send, "On its way …");
    try {
      const journey = await post("/api/v1/flow");
      replace(outcome, show(journey));
      const arrived = journey.arrivals.map((one) => one.latency_ms).filter((latency) => latency !== null);
      const all = journey.arrivals.length;
      past.prepend(h("li", {}, moment(journey.sent_at).slice(11), " ", h("b", {}, arrived.length === all ? `${ms(Math.max(...arrived))} ms to the last` : `at ${arrived.length} of ${all} brokers`)));
      while (past.childElementCount > 8) past.lastElementChild.remove();
    } catch (error) {
      replace(outcome, h("p", { class: "empty" }, h("b", { class: "is-bad" }, error.title), error.message));
    }
    send.disabled = false;
    text(send, "Send a test message");
  });

  function update() {
    const frame = shownFrame();
    if (!frame) return;
    const add = (links, field) => (links.some((link) => Number.isFinite(link[field])) ? links.reduce((all, link) => all + (link[field] ?? 0), 0) : null);
    replace(body, frame.brokers.map((broker) => {
      const links = frame.links.filter((link) => link.to === broker.id);
      const cell = (value) => h("td", { class: "num" }, value);
      return h("tr", {}, h("th", { scope: "row" }, h("a", { href: `/brokers/${broker.id}` }, broker.id)), cell(rate(broker.in_per_s)), cell(rate(broker.out_per_s)),
        cell(rate(add(links, "per_s"))), cell(count(add(links, "received"))), cell(count(add(links, "duplicates_dropped"))), cell(count(add(links, "stale_dropped"))));
    }));
  }
  return { title: "Flow", update: (what) => what !== "event" && update() };
}

function show(journey) {
  const known = journey.arrivals.map((one) => one.latency_ms).filter((value) => value !== null);
  const most = Math.max(...known, journey.acknowledged_ms ?? 0, 0.1);
  const row = (name, latency, error) => {
    const bar = h("i", {});
    bar.style.width = `${(100 * (latency ?? 0)) / most}%`;
    return [h("span", {}, name), h("span", { class: error ? "is-bad" : "track", "aria-hidden": error ? null : "true" }, error ?? bar), h("b", { class: "num" }, latency === null ? "–" : `${ms(latency)} ms`)];
  };
  return [
    h("p", { class: "small" }, `sent ${moment(journey.sent_at, true)} through the balancer, QoS 1, topic `, h("code", {}, journey.topic)),
    h("div", { class: "arrivals" }, journey.arrivals.flatMap((one) => row(one.broker, one.latency_ms, one.error)), row("PUBACK to the sender", journey.acknowledged_ms, journey.acknowledged_ms === null ? "it was not acknowledged" : null)),
  ];
}
