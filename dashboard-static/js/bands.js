// Incidents as bands of time, for charts.

/** The bands of `incidents`, only those of `broker` if it is given. */
export const bandsOf = (incidents, broker) =>
  incidents
    .filter((incident) => !broker || incident.broker === broker)
    .map((incident) => ({ from: Date.parse(incident.began_at), to: incident.ended_at ? Date.parse(incident.ended_at) : null }));
