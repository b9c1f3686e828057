// Incidents as bands of time, for charts.

import { concerns } from "./words.js";

/** The bands of `incidents`, only those of `broker` if it is given. */
export const bandsOf = (incidents, broker) =>
  incidents
    .filter((incident) => !broker || concerns(incident, broker))
    .map((incident) => ({ from: Date.parse(incident.began_at), to: incident.ended_at ? Date.parse(incident.ended_at) : null }));
