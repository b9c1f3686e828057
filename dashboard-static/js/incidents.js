// The incidents that this page has asked for; asked again when the stream shows that there is something new.

import { get } from "./api.js";
import { state } from "./store.js";

const known = { list: null, next: null, note: null, error: null, of: "", asking: false };
const listeners = new Set();

const signature = ({ incident, health, logs }) => `${incident ? `${incident.id}/${incident.phases.length}/${incident.ended_at}` : "none"}/${health.reachable}/${logs.reachable}`;

/** What is to be said of where a page of them comes from; `null` where all is well. */
function noteOf({ is_live, archive_error }) {
  if (!is_live) return "mesh-health is away: these are the ones that were stored, and one that lasts here may be over.";
  return archive_error ? `Only those that mesh-health remembers: ${archive_error}.` : null;
}

/** What is known: `{ list, next, note, error }`; `list` is `null` until something is. */
export const incidents = () => known;
export function onIncidents(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Asks again if the latest incident is not the one that is known. */
export async function refresh() {
  const live = state();
  if (known.asking || !live) return;
  const now = signature(live);
  if (now === known.of && !known.error) return;
  if (known.error && performance.now() - known.asked < 2000) return;
  known.asking = true;
  known.asked = performance.now();
  try {
    const page = await get("/api/v1/incidents?limit=100");
    Object.assign(known, { list: page.incidents, next: page.next, note: noteOf(page), error: null, of: now });
  } catch (error) {
    known.error = error;
  }
  known.asking = false;
  for (const listener of listeners) listener();
}

/** Asks for those before the oldest that is known. */
export async function older() {
  if (!known.next || known.asking) return;
  known.asking = true;
  try {
    const page = await get(`/api/v1/incidents?limit=100&after=${encodeURIComponent(known.next)}`);
    Object.assign(known, { list: [...known.list, ...page.incidents], next: page.next, error: null });
  } catch (error) {
    known.error = error;
  }
  known.asking = false;
  for (const listener of listeners) listener();
}
