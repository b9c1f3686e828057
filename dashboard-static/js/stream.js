// The one event stream of this browser. Browsers allow six connections to a server, so ten open pages must not have ten
// streams: the page that holds a lock has the stream and passes everything on; when it goes, the next one takes over.
// Each page may follow log lines by a query of its own; the stream follows all of them, and is opened anew, without loss,
// when they change. Where there are no locks (plain http on a name that is not localhost) each page has its own stream.

const EVENTS = ["state", "event", "logs", "gap", "reset", "tick"];
const LOCK = "mesh-stream";
/** Queries that the server follows for one stream. */
const MOST_FOLLOWED = 16;
const ME = `${Date.now().toString(36)}${Math.random().toString(36).slice(2)}`;

/** The query whose lines this page wants; `null` for none. Lines of others' queries are not told here. */
let wanted = null;
/** What every page wants, by the page. Only the one that has the stream needs it. */
const wishes = new Map();
let channel = null;
let leads = false;
let source = null;
let following = "";
let lastId = null;
let lastState = null;
let lastEvent = 0;
let tell = () => {};
let tellLines = () => {};

/** Calls `listener(name, data)` for each event, and `listener("lost")` when the connection breaks. */
export function connect(listener) {
  tell = listener;
  if (!navigator.locks || !window.BroadcastChannel) {
    lead();
    return;
  }
  channel = new BroadcastChannel(LOCK);
  channel.onmessage = ({ data: message }) => {
    if (message.wish !== undefined) {
      if (leads) heed(message.page, message.wish);
    } else if (message.hello) {
      // A page that comes later must not wait for the next change.
      if (leads && lastState) channel.postMessage({ name: "state", data: lastState });
    } else if (message.who) wish();
    else if (!leads) take(message.name, message.data);
  };
  channel.postMessage({ hello: true });
  navigator.locks.request(LOCK, () => {
    lead();
    // The one that had the stream took with it what it knew.
    channel.postMessage({ who: true });
    // The lock is held until this page is gone.
    return new Promise(() => {});
  });
  addEventListener("pagehide", () => channel.postMessage({ page: ME, wish: null }));
  addEventListener("pageshow", (event) => event.persisted && wish());
}

/**
 * Follows the log lines that `query` asks for instead of those before; `listener("logs" | "gap" | "full", data)` is told.
 * `full`: other pages follow as many queries as there may be; it begins by itself when one of them ends.
 */
export function followLogs(query, listener) {
  wanted = query;
  tellLines = listener;
  wish();
}

export function unfollowLogs() {
  wanted = null;
  wish();
}

function wish() {
  if (leads) heed(ME, wanted);
  else channel?.postMessage({ page: ME, wish: wanted });
}

function heed(page, query) {
  if (query === null) wishes.delete(page);
  else wishes.set(page, query);
  open();
}

function lead() {
  leads = true;
  if (wanted !== null) wishes.set(ME, wanted);
  open(true);
}

function take(name, data, id) {
  if (id) lastId = id;
  if (name === "state") lastState = data;
  if (name === "event") {
    // After a break something may be told twice.
    if (data.seq <= lastEvent) return;
    lastEvent = data.seq;
  }
  if (name === "reset") lastEvent = 0;
  if (data?.q === undefined) tell(name, data);
  else if (data.q === wanted) tellLines(name, data);
}

function pass(name, data, id) {
  take(name, data, id);
  if (channel && (data?.q === undefined || [...wishes].some(([page, query]) => page !== ME && query === data.q))) channel.postMessage({ name, data });
}

/** Opens the stream, or opens it anew if it shall follow something else. */
function open(force) {
  // In the order in which pages asked: who is followed stays so.
  const queries = [...new Set(wishes.values())];
  for (const q of queries.slice(MOST_FOLLOWED)) pass("full", { q });
  const parameters = new URLSearchParams(queries.slice(0, MOST_FOLLOWED).sort().map((query) => ["follow", query]));
  if (!force && parameters.toString() === following) return;
  following = parameters.toString();
  if (lastId) parameters.set("after", lastId);
  source?.close();
  const own = new EventSource(`/api/v1/events?${parameters}`);
  source = own;
  document.documentElement.dataset.stream = "own";
  for (const name of EVENTS) own.addEventListener(name, (event) => pass(name, JSON.parse(event.data), event.lastEventId));
  own.onerror = () => {
    pass("lost", null);
    // The browser itself comes back from a broken connection, but not from an answer that is no stream.
    if (own.readyState === EventSource.CLOSED && own === source) setTimeout(() => own === source && open(true), 1000 + Math.random() * 1000);
  };
}
