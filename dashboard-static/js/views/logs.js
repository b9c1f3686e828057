// Every log line of the network: searched in the language of mesh-store, counted over time, narrowed by fields, read in
// their surroundings, followed live.
//
// The list never holds more than MOST rows; what would be more falls off the far end.

import { Problem, get } from "../api.js";
import { h, replace, text } from "../dom.js";
import { clock, count, moment } from "../format.js";
import { completion } from "../parts/completion.js";
import { histogram } from "../parts/histogram.js";
import { query } from "../router.js";
import { state } from "../store.js";
import { followLogs, unfollowLogs } from "../stream.js";
import { classOfLevel, extras } from "../words.js";

const MOST = 2000;
const MOST_AT_ONCE = 120;
const FACETS = [["level", "Level"], ["broker", "Broker"], ["service", "Program"], ["event", "Event"], ["client", "Client"]];
const SPANS = [["10m", 600], ["1h", 3600], ["6h", 21_600], ["1d", 86_400], ["7d", 604_800]];

const extra = (row) => {
  const words = extras(row);
  return words ? h("span", { class: "extra" }, `  ${words}`) : null;
};

/** A value as the query language takes it. */
const quoted = (value) => (/^[\w.@:-]+$/.test(value) && !value.includes(":") ? value : `"${value.replaceAll('"', '\\"')}"`);

export function logs(main) {
  const input = h("input", { type: "search", name: "q", value: query("q") ?? "", placeholder: 'broker:broker3 level>=warn "broken pipe" since:10m', autocomplete: "off", spellcheck: "false", "aria-label": "Search", "aria-describedby": "query-problem" });
  const problem = h("p", { class: "query-problem", id: "query-problem", role: "alert" });
  const live = h("button", { type: "button", "aria-pressed": "false" }, "Follow");
  const links = { ndjson: h("a", { class: "button", download: true }, "NDJSON"), csv: h("a", { class: "button", download: true }, "CSV") };
  const form = h("form", { class: "search", role: "search" }, h("div", { class: "box" }, input), h("button", { type: "submit", class: "strong" }, "Search"), live, links.ndjson, links.csv);
  const spans = h("div", { class: "spans", role: "group", "aria-label": "Span of time" }, SPANS.map(([name]) => h("button", { type: "button", "data-span": name, onclick: () => span(name) }, name)));
  const bars = histogram((from, to) => {
    const rest = input.value.replace(/\b(since|until):\S+/g, "").trim();
    search(`${rest} since:${new Date(from).toISOString()} until:${new Date(to).toISOString()}`.trim());
  });
  const facetBox = h("div", { class: "facet-box" });
  const list = h("ol", { class: "lines", tabindex: 0, "aria-label": "Log lines" });
  const fresh = h("button", { type: "button", class: "fresh strong", hidden: true });
  const gap = h("p", { class: "small", role: "status" });
  const more = h("button", { type: "button", hidden: true }, "Older");
  replace(main,
    h("h1", { class: "unseen" }, "Logs"),
    h("section", { class: "card", "aria-label": "Search" }, form, problem, spans, bars.element),
    h("div", { class: "grid log-grid" },
      h("section", { class: "card facets", "aria-label": "Fields" }, h("h2", { class: "unseen" }, "Fields"), facetBox),
      h("section", { class: "card", "aria-label": "Lines" }, h("h2", { class: "unseen" }, "Lines"), gap, h("div", { class: "lines-box" }, fresh, list), more)));
  completion(input);

  let asked = 0;
  let next = null;
  let following = false;
  let waiting = [];
  const told = new Set();
  let selected = -1;
  let pouring = 0;
  let missed = 0;
  let full = false;
  let failed = false;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search(input.value);
  });
  live.addEventListener("click", () => (following ? unfollow() : follow()));
  fresh.addEventListener("click", () => {
    list.scrollTop = 0;
    pour();
  });
  list.addEventListener("scroll", () => list.scrollTop < 8 && pour());
  more.addEventListener("click", () => load(next));

  function span(name) {
    const rest = input.value.replace(/\b(since|until):\S+/g, "").trim();
    search(`${rest} since:${name}`.trim());
  }

  function search(words) {
    input.value = words;
    const path = words.trim() ? `/logs?q=${encodeURIComponent(words.trim())}` : "/logs";
    // A step that the back button leads back from.
    if (path !== location.pathname + location.search) history.pushState(null, "", path);
    start();
  }

  /** Narrows the search by a field, or the other way round with `not`. */
  function narrow(field, value, not) {
    const term = `${not ? "-" : ""}${field}:${quoted(value)}`;
    if (!input.value.includes(term)) search(`${input.value} ${term}`.trim());
  }

  async function start() {
    asked += 1;
    failed = false;
    const q = encodeURIComponent(input.value.trim());
    for (const [format, link] of Object.entries(links)) link.setAttribute("href", `/api/v1/logs/export?format=${format}&q=${q}`);
    next = null;
    waiting = [];
    told.clear();
    selected = -1;
    replace(list);
    if (!(await load(null))) return;
    const turn = asked;
    const [from, to] = timeOf(input.value);
    get(`/api/v1/logs/histogram?q=${q}&from=${from}&to=${to}&bars=${Math.max(20, Math.min(120, Math.round(main.clientWidth / 11)))}`).then((told) => turn === asked && bars.draw(told), () => {});
    get(`/api/v1/logs/facets?q=${q}`).then((told) => turn === asked && drawFacets(told), () => {});
    if (following) follow();
  }

  async function load(before) {
    const turn = asked;
    const q = encodeURIComponent(input.value.trim());
    text(problem, "");
    more.disabled = true;
    try {
      const page = await get(`/api/v1/logs?limit=200&q=${q}${before ? `&before=${before}` : ""}`);
      if (turn !== asked) return false;
      list.append(...page.rows.filter(isNew).map((row) => line(row)));
      // Reading on towards the past, the newest fall off.
      while (list.childElementCount > MOST) list.firstElementChild.remove();
      next = page.next;
      more.hidden = !next;
      if (list.childElementCount === 0) list.append(h("li", { class: "empty" }, h("b", {}, "No line"), input.value.trim() ? "All conditions must hold; try fewer, or a longer span." : "mesh-logs has stored nothing yet."));
      return true;
    } catch (error) {
      if (turn !== asked) return false;
      complain(error);
      return false;
    } finally {
      more.disabled = false;
    }
  }

  function complain(error) {
    if (!(error instanceof Problem)) throw error;
    failed = error.status === 503;
    if (error.at === undefined) {
      replace(list, h("li", { class: "empty" }, h("b", {}, error.title), error.message));
      return;
    }
    const words = input.value;
    replace(problem, h("code", { "aria-hidden": "true" }, words.slice(0, error.at), h("mark", {}, words.slice(error.at, error.at + Math.max(1, error.length)) || " "), words.slice(error.at + Math.max(1, error.length))), ` ${error.message}`);
    replace(list, h("li", { class: "empty" }, h("b", {}, "Nothing was searched"), "The query has an error, which is marked below it."));
    replace(facetBox);
  }

  function drawFacets(told) {
    const groups = FACETS.filter(([field]) => told[field].length).map(([field, name]) =>
      h("section", {}, h("h3", {}, name), h("ul", {}, told[field].slice(0, 8).map(({ value, lines }) =>
        h("li", {}, h("button", { type: "button", class: "quiet", title: `Only ${value}`, onclick: () => narrow(field, value) }, h("span", {}, value), h("small", {}, count(lines))))))));
    replace(facetBox, groups, h("p", { class: "small" }, `of the newest ${count(told.lines)}`));
  }

  function line(row, isContext) {
    const level = classOfLevel(row.severity_text);
    const summary = h("button", { type: "button", class: `line ${level}`, "aria-expanded": "false" },
      h("time", { datetime: row.time, title: moment(row.time, true) }, clock(row.time), h("i", {}, new Date(row.time).toISOString().slice(19, 23))),
      h("b", { class: "level" }, row.severity_text), h("span", { class: "who" }, row.broker ?? row.service), h("span", { class: "body" }, row.body, extra(row)));
    const item = h("li", { class: isContext ? "around" : null, "data-id": row.id }, summary);
    summary.addEventListener("click", () => {
      const details = item.querySelector(".fields");
      summary.setAttribute("aria-expanded", details ? "false" : "true");
      if (details) details.remove();
      else item.append(fields(row));
    });
    return item;
  }

  function fields(row) {
    const known = [["time", moment(row.time, true)], ["level", row.severity_text], ["service", row.service], ["broker", row.broker], ["node", row.node], ["client", row.client_id], ["event", row.event_name], ["source", row.source], ...Object.entries(row.attributes ?? {})];
    const searchable = new Set(["level", "service", "broker", "node", "client", "event", "from", "to", "generation", "incident", "reason", "error", "target"]);
    const rows = known.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => {
      const words = typeof value === "string" ? value : JSON.stringify(value);
      return [h("dt", {}, name), h("dd", {}, searchable.has(name) ? [
        h("button", { type: "button", class: "quiet", "aria-label": `Only lines with this ${name}`, onclick: () => narrow(name, words) }, "+"),
        h("button", { type: "button", class: "quiet", "aria-label": `No lines with this ${name}`, onclick: () => narrow(name, words, true) }, "−")] : null, h("span", {}, words))];
    });
    const around = h("ol", { class: "lines inner" });
    const show = h("button", { type: "button" }, "Lines around it");
    show.addEventListener("click", async () => {
      try {
        const page = await get(`/api/v1/logs/${row.id}/context?limit=10`);
        replace(around, page.rows.map((one) => (one.id === row.id ? h("li", { class: "this" }, line(one, true)) : line(one, true))));
      } catch (error) {
        replace(around, h("li", { class: "empty" }, error.message));
      }
    });
    const link = h("a", { class: "button", href: `/logs?line=${row.id}` }, "Link to it");
    return h("div", { class: "fields" }, h("dl", {}, rows), h("div", { class: "row" }, show, link, row.client_id ? h("a", { class: "button", href: `/clients/${encodeURIComponent(row.client_id)}` }, "Its client") : null), around);
  }

  /** One line with those around it, from a link to it. */
  async function single(id) {
    try {
      const page = await get(`/api/v1/logs/${encodeURIComponent(id)}/context?limit=40`);
      replace(list, page.rows.reverse().map((row) => line(row, row.id !== id)));
      const own = list.querySelector(`[data-id="${CSS.escape(id)}"]`);
      own?.classList.add("this");
      own?.querySelector("button").click();
      own?.scrollIntoView({ block: "center" });
    } catch (error) {
      replace(list, h("li", { class: "empty" }, h("b", {}, error.title), error.message));
    }
  }

  function follow() {
    following = true;
    live.setAttribute("aria-pressed", "true");
    text(live, "Following");
    followLogs(input.value.trim(), (name, news) => {
      if (name === "gap") return leftOut(news.missed);
      if (name === "full" || full) sayFull(name === "full");
      if (full) return;
      // From here on nothing is missed; what came since the search was, and is asked for again.
      if (!news.rows.length) return catchUp();
      waiting.push(...news.rows.filter(isNew));
      if (waiting.length > MOST) waiting.splice(0, waiting.length - MOST);
      if (list.scrollTop < 8) pouring ||= setTimeout(pour, 400);
      else {
        fresh.hidden = false;
        text(fresh, `${waiting.length === MOST ? `${MOST} or more` : waiting.length} new ↑`);
      }
    });
  }

  function sayFull(isFull) {
    full = isFull;
    text(gap, full ? "These lines do not come by themselves: other pages of this browser follow 16 searches already. When one of them ends, this one begins." : "");
  }

  async function catchUp() {
    const turn = asked;
    const page = await get(`/api/v1/logs?limit=200&q=${encodeURIComponent(input.value.trim())}`).catch(() => null);
    if (turn !== asked || !page) return;
    waiting.unshift(...page.rows.reverse().filter(isNew));
    pouring ||= setTimeout(pour);
  }

  /** Notes that a line was told. After a break it may be told twice, and the search may have found it already. */
  function isNew({ id }) {
    if (told.has(id)) return false;
    told.add(id);
    if (told.size > 2 * MOST) told.delete(told.values().next().value);
    return true;
  }

  function unfollow() {
    following = false;
    if (full) sayFull(false);
    unfollowLogs();
    live.setAttribute("aria-pressed", "false");
    text(live, "Follow");
  }

  function leftOut(lines) {
    missed += lines;
    text(gap, `${count(missed)} lines were left out until ${clock(Date.now())}: more came than can be shown. The search finds them.`);
  }

  /** Puts what waits at the top, once a frame at most. */
  function pour() {
    clearTimeout(pouring);
    pouring = 0;
    fresh.hidden = true;
    if (!waiting.length) return;
    list.querySelector(":scope > .empty")?.remove();
    const rows = document.createDocumentFragment();
    // Nobody reads more than that at a glance; making rows is what costs.
    const over = waiting.length - MOST_AT_ONCE;
    if (over > 0) {
      waiting.splice(0, over);
      leftOut(over);
    }
    for (const row of waiting.reverse()) rows.append(line(row));
    waiting = [];
    list.prepend(rows);
    while (list.childElementCount > MOST) list.lastElementChild.remove();
  }

  if (query("line")) single(query("line"));
  else start();
  if (query("search") !== null) input.focus();
  return {
    title: "Logs",
    update() {
      // A database that was missing and is there now is searched at once.
      if (failed && state()?.logs.reachable) start();
    },
    key(key) {
      if (key === "/") input.focus();
      else if (key === "j" || key === "k") {
        selected = Math.max(0, Math.min(list.childElementCount - 1, selected + (key === "j" ? 1 : -1)));
        list.children[selected]?.querySelector("button")?.focus();
      } else return false;
      return true;
    },
    stop: unfollow,
  };
}

/** From when to when a query asks, in milliseconds since 1970, for the histogram. */
function timeOf(words) {
  const now = Date.now();
  const value = (name) => words.match(new RegExp(`\\b${name}:(\\S+)`))?.[1];
  const read = (name, otherwise) => {
    const told = value(name);
    const parts = told?.match(/^(?:\d+(?:ms|s|m|h|d|w|min|days?)?)+$/) ? [...told.matchAll(/(\d+)(ms|s|min|m|h|days?|d|w)/g)] : null;
    if (parts?.length) return now - parts.reduce((all, [, n, unit]) => all + n * { ms: 1, s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5, day: 864e5, days: 864e5, w: 6048e5 }[unit], 0);
    const at = Date.parse(told);
    return Number.isNaN(at) ? otherwise : at;
  };
  const to = Math.round(read("until", now));
  return [Math.min(Math.round(read("since", to - 3_600_000)), to - 1000), to];
}
