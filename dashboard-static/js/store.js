// What the page knows: the live state, the last minutes, the connection, and which instant is shown.
//
// Two clocks: `heard` is this machine's and tells how old the connection is; everything from the server is compared with
// `serverNow()`, so a wrong clock here makes no wrong ages.

import { connect } from "./stream.js";

const KEPT_MS = 15 * 60 * 1000;
const MOST_FRAMES = 1500;

export const store = {
  /** The latest state, as the server told it. */
  live: null,
  /** Frames of the last minutes, the oldest first. */
  frames: [],
  /** Whether the stream is open; when something was heard last. */
  open: false,
  heard: performance.now(),
  everHeard: false,
  /** Whether updates are held back, and the state that is shown then. */
  paused: false,
  held: null,
  /** The instant that is replayed, in milliseconds since 1970; `null` is now. */
  cursor: null,
  /** Events told since the page was opened, newest first. */
  events: [],
};

const listeners = new Set();
let skew = null;

/** Calls `listener(what)` upon each change; returns how to stop that. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed(what) {
  for (const listener of listeners) listener(what);
}

/** The server's clock, in milliseconds since 1970. */
export const serverNow = () => Date.now() + (skew ?? 0);

/** The state to show: what is live, or what was when the page was paused. */
export const state = () => (store.paused ? store.held : store.live);

/** How old the connection is, in milliseconds; 0 while it is well. */
export function staleness() {
  const age = performance.now() - store.heard;
  return store.open && age < 7000 ? 0 : age;
}

/** The frame to show: that of the cursor, else the live one. */
export function shownFrame() {
  if (store.cursor === null) {
    const now = state();
    return now?.snapshot ? frameOf(now) : null;
  }
  return frameAt(store.cursor);
}

/** The last frame at or before `at`. */
export function frameAt(at) {
  let [low, high] = [0, store.frames.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (store.frames[middle].at <= at) low = middle + 1;
    else high = middle;
  }
  return store.frames[low - 1] ?? store.frames[0] ?? null;
}

export function setPaused(paused) {
  store.paused = paused;
  store.held = paused ? store.live : null;
  changed("state");
}

export function setCursor(at) {
  store.cursor = at;
  changed("cursor");
}

/** Turns a state of the server into a frame. */
export function frameOf(told) {
  const { snapshot } = told;
  return {
    at: Date.parse(told.at),
    state: snapshot.state,
    primary: snapshot.primary,
    brokers: snapshot.brokers,
    links: snapshot.links,
    balancer: snapshot.balancer,
    generation: snapshot.generation,
  };
}

function compact(frame) {
  const pick = (from, names) => Object.fromEntries(names.map((name) => [name, from[name]]));
  return {
    at: frame.at,
    state: frame.state,
    primary: frame.primary,
    brokers: frame.brokers.map((b) => pick(b, ["id", "health", "role", "rtt_ms", "clients", "in_per_s", "out_per_s"])),
    links: frame.links.map((l) => pick(l, ["from", "to", "state", "latency_ms", "per_s"])),
  };
}

function remember(told) {
  const at = Date.parse(told.at);
  const last = store.frames.at(-1);
  if (last && at <= last.at) return;
  if (told.health.reachable && told.snapshot) store.frames.push(compact(frameOf(told)));
  else store.frames.push({ at, state: null, primary: null, brokers: [], links: [] });
  const old = at - KEPT_MS;
  let drop = Math.max(0, store.frames.length - MOST_FRAMES);
  while (store.frames[drop]?.at < old) drop += 1;
  store.frames.splice(0, drop);
}

/** Gets the minutes before the page was opened, and those that a lost connection left out. */
export async function loadHistory() {
  try {
    const response = await fetch("/api/v1/history");
    if (!response.ok) return;
    const told = await response.json();
    const frames = told.at.map((at, i) => ({
      at,
      state: told.state[i],
      primary: told.primary[i],
      brokers: told.state[i] === null ? [] : told.brokers.map((b) => ({
        id: b.id, health: b.health[i], role: b.role[i], rtt_ms: b.rtt_ms[i], clients: b.clients[i], in_per_s: b.in_per_s[i], out_per_s: b.out_per_s[i],
      })),
      links: told.state[i] === null ? [] : told.links.map((l) => ({ from: l.from, to: l.to, state: l.state[i], latency_ms: l.latency_ms[i], per_s: l.per_s[i] })),
    }));
    // Own frames are denser; the server's fill what they do not cover.
    const own = new Set(store.frames.map((frame) => Math.round(frame.at / 5000)));
    const missing = frames.filter((frame) => !own.has(Math.round(frame.at / 5000)));
    // Events have no names of their own; those that came by the stream meanwhile are in the list already.
    store.events = [...told.events].reverse();
    store.frames = [...missing, ...store.frames].sort((a, b) => a.at - b.at);
    changed("history");
  } catch {
    // The server is away; the stream will say when it is back, and this is asked again then.
  }
}

/** Takes in a state that the server told. */
function know(told) {
  const now = Date.parse(told.at) - Date.now();
  // Messages come late, never early: of several differences the largest is nearest to the truth.
  skew = skew === null ? now : Math.max(now, skew - 0.5);
  store.live = told;
  remember(told);
  changed("state");
}

/** The state for the first picture: the shell has the browser fetch it beside the modules, before there is a stream. */
export async function loadState() {
  const response = await fetch("/api/v1/status").catch(() => null);
  const told = response?.ok ? await response.json() : null;
  if (told && !store.live) know(told);
}

export function start() {
  connect((name, data) => {
    if (name === "lost") {
      store.open = false;
      changed("connection");
      return;
    }
    const wasLost = !store.open;
    // What was before the page was opened is asked for by itself.
    const isBack = wasLost && store.everHeard;
    store.open = true;
    store.heard = performance.now();
    if (name === "state") {
      store.everHeard = true;
      if (isBack) loadHistory();
      know(data);
    } else if (name === "event") {
      store.events.unshift(data.event);
      store.events.length = Math.min(store.events.length, 100);
      changed("event");
    } else {
      // What happened meanwhile is in the history.
      if (name === "gap" || name === "reset") loadHistory();
      if (wasLost) changed("connection");
    }
  });
}
