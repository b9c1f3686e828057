// The incidents that this page has asked for; asked again when the stream shows that there is something new.

import { get } from "./api.js";
import { state } from "./store.js";

const known = { list: null, next: null, error: null, of: "", asking: false };
const listeners = new Set();

const signature = (incident) => (incident ? `${incident.id}/${incident.phases.length}/${incident.ended_at}` : "none");

/** What is known: `{ list, next, error }`; `list` is `null` until something is. */
export const incidents = () => known;
export function onIncidents(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Asks again if the latest incident is not the one that is known. */
export async function refresh() {
  const live = state();
  const now = signature(live?.incident);
  if (known.asking || !live || (now === known.of && !known.error)) return;
  if (known.error && performance.now() - known.asked < 2000) return;
  known.asking = true;
  known.asked = performance.now();
  try {
    const page = await get("/api/v1/incidents?limit=100");
    Object.assign(known, { list: page.incidents, next: page.next, error: null, of: now });
  } catch (error) {
    known.error = error;
  }
  known.asking = false;
  for (const listener of listeners) listener();
}
