// Who is connected where, and since when: all of them, sorted and filtered here, since fifty thousand are not too many.

import { get } from "../api.js";
import { h, replace, text } from "../dom.js";
import { coarse, count, moment } from "../format.js";
import { virtualTable } from "../parts/virtual.js";
import { query, setQuery } from "../router.js";
import { serverNow, state } from "../store.js";

const COLUMNS = [["client_id", "Client"], ["broker", "Broker"], ["remote_addr", "Address"], ["username", "User"], ["protocol", "MQTT"], ["connected_at", "Since", true], ["reconnects", "Reconnects", true], ["last_reason", "Last left because"]];
const path = (id) => `/clients/${encodeURIComponent(id)}`;

export function clients(main) {
  const filter = h("input", { type: "search", value: query("q") ?? "", placeholder: "name, broker, address, user", "aria-label": "Filter", spellcheck: "false", autocomplete: "off" });
  const badge = h("span", { class: "badge" });
  const note = h("p", { class: "small", role: "status" });
  let [sort, falling] = [query("sort") ?? "connected_at", query("order") !== "up"];
  const heads = new Map(COLUMNS.map(([field, name, isNumber]) => [field, h("th", { scope: "col", class: isNumber ? "num" : null }, h("button", { type: "button", class: "quiet", onclick: () => sortBy(field) }, name))]));
  const cell = (value, kind) => h("td", { class: kind, title: value }, value ?? "–");
  const table = virtualTable("Connected clients", [...heads.values()], (one) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: path(one.client_id), title: one.client_id }, one.client_id)),
    cell(one.broker), cell(one.remote_addr), cell(one.username), cell(one.protocol),
    h("td", { class: "num", title: moment(one.connected_at) }, coarse(serverNow() - one.since)), cell(count(one.reconnects), "num"), cell(one.last_reason)));
  const box = h("div", {}, table.element);
  replace(main,
    h("div", { class: "head" }, h("h1", {}, "Clients"), badge, note, h("div", { class: "actions" }, h("div", { class: "box" }, filter))),
    h("div", { class: "card" }, box));

  let all = [];
  let stopped = false;
  let timer = 0;
  filter.addEventListener("input", () => {
    setQuery("q", filter.value || null);
    draw();
  });

  function sortBy(field) {
    falling = sort === field ? !falling : field === "connected_at" || field === "reconnects";
    sort = field;
    setQuery("sort", field);
    setQuery("order", falling ? null : "up");
    draw();
  }

  function draw() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = words.length ? all.filter((one) => words.every((word) => one.text.includes(word))) : [...all];
    const key = sort === "connected_at" ? (one) => one.since : sort === "reconnects" ? (one) => one.reconnects : (one) => one[sort] ?? "";
    const way = falling ? -1 : 1;
    shown.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return way * (x < y ? -1 : x > y ? 1 : 0);
    });
    for (const [field, head] of heads) head.setAttribute("aria-sort", field === sort ? (falling ? "descending" : "ascending") : "none");
    table.set(shown);
    text(note, words.length ? `${count(shown.length)} of ${count(all.length)}` : "");
  }

  async function load() {
    try {
      const open = [];
      let before = "";
      do {
        const page = await get(`/api/v1/clients?open=true&limit=5000${before}`);
        if (stopped) return;
        open.push(...page.sessions);
        before = page.next === null ? "" : `&before=${page.next}`;
      } while (before);
      all = open.map((one) => ({ ...one, since: Date.parse(one.connected_at), text: [one.client_id, one.broker, one.remote_addr, one.username].join(" ").toLowerCase() }));
      if (!box.contains(table.element)) replace(box, table.element);
      if (all.length === 0) replace(box, h("p", { class: "empty" }, h("b", {}, "No client"), "is connected, as far as the logs of the brokers tell."));
      draw();
      update();
    } catch (error) {
      replace(box, h("p", { class: "empty" }, h("b", {}, error.title ?? "Error"), error.message));
    }
    if (!stopped) timer = setTimeout(load, all.length > 5000 ? 15_000 : 3_000);
  }

  function update() {
    const told = state()?.snapshot?.brokers ?? [];
    const known = told.map((broker) => broker.clients).filter((value) => value !== null);
    const byBrokers = known.length ? known.reduce((sum, value) => sum + value, 0) : null;
    text(badge, `${count(all.length)} tracked / ${count(byBrokers)} by the brokers`);
    badge.classList.toggle("is-warn", byBrokers !== null && Math.abs(byBrokers - all.length) > Math.max(1, 0.02 * byBrokers));
  }

  load();
  return {
    title: "Clients",
    update: (what) => what !== "event" && update(),
    key(key) {
      if (key !== "/") return false;
      filter.focus();
      return true;
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      table.stop();
    },
  };
}
