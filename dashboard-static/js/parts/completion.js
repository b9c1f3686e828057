// Completes the names of fields and their usual values while somebody types a query.

import { freshId, h } from "../dom.js";
import { state } from "../store.js";

const FIELDS = ["broker:", "client:", "event:", "from:", "generation:", "incident:", "level>=", "level:", "node:", "reason:", "service:", "since:", "target:", "to:", "until:", "user:"];
const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"];
const EVENTS = ["broker.dead", "broker.healthy", "broker.recovering", "broker.suspect", "client.connected", "client.disconnected", "failover.completed", "failover.started", "failover.switched", "link.down", "link.up"];
const SERVICES = ["mosquitto", "nginx", "mesh-dashboard", "mesh-health", "mesh-logs"];

/** What the word under the cursor may become. */
export function candidates(word, brokers) {
  const negated = word.startsWith("-") ? "-" : "";
  const bare = word.slice(negated.length);
  const [, field, begun] = bare.match(/^(\w+(?::|>=|<=|>|<))(.*)$/) ?? [];
  if (!field) return bare ? FIELDS.filter((name) => name.startsWith(bare)).map((name) => negated + name) : [];
  const values = { broker: brokers, from: brokers, to: brokers, event: EVENTS, service: SERVICES, since: ["10m", "1h", "6h", "1d", "7d"], level: LEVELS }[field.replace(/[:<>=]+$/, "")] ?? [];
  return values.filter((value) => value.startsWith(begun) && value !== begun).map((value) => negated + field + value);
}

/** A combobox as ARIA describes it: arrows choose, Tab and Enter take, Escape closes. */
export function completion(input) {
  const id = freshId("completion");
  const list = h("ul", { class: "completion", id, role: "listbox", "aria-label": "Completions", hidden: true });
  input.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": id, "aria-expanded": "false" })) input.setAttribute(name, value);
  let chosen = -1;

  const begin = () => input.value.slice(0, input.selectionStart).search(/\S*$/);
  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const take = (word) => {
    const [from, to] = [begin(), input.selectionStart];
    const end = /[:=<>]$/.test(word) ? "" : " ";
    input.value = input.value.slice(0, from) + word + end + input.value.slice(to).trimStart();
    input.selectionStart = input.selectionEnd = from + word.length + end.length;
    close();
    if (!end) show();
  };
  const mark = () => {
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
    const item = list.children[chosen];
    if (item) input.setAttribute("aria-activedescendant", item.id);
  };
  function show() {
    const brokers = (state()?.snapshot?.brokers ?? []).map((broker) => broker.id);
    const found = candidates(input.value.slice(begin(), input.selectionStart), brokers).slice(0, 8);
    if (!found.length) return close();
    list.replaceChildren(...found.map((word, i) => h("li", { role: "option", id: `${id}-${i}`, "aria-selected": "false", onpointerdown: (event) => {
      event.preventDefault();
      take(word);
    } }, word)));
    list.hidden = false;
    chosen = -1;
    input.setAttribute("aria-expanded", "true");
  }
  input.addEventListener("input", show);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (steps[event.key]) {
      chosen = (chosen + steps[event.key] + list.childElementCount) % list.childElementCount;
      mark();
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(list.children[chosen].textContent);
    else if (event.key === "Tab" && list.childElementCount === 1) take(list.children[0].textContent);
    else if (event.key === "Escape") close();
    else {
      if (event.key === "Enter") close();
      return;
    }
    event.preventDefault();
  });
}
