// What states are called, their colour and their sign: never a colour alone.

import { s } from "./dom.js";

/** Signs as paths in a square from -6 to 6. */
export const SIGNS = {
  healthy: "M-5 .5 -1.5 4 5-4",
  suspect: "M0-5V1.5M0 5V5.01",
  dead: "M-4.5-4.5 4.5 4.5M4.5-4.5-4.5 4.5",
  recovering: "M4.6-2A5 5 0 1 0 5 1.2M5-5.4V-1.7H1.3",
  unknown: "M-4 0H4",
};

/** Shapes of roles, for a circle of radius 1 around 0: hexagon, diamond, circle. */
export function shape(role, r) {
  if (role === "primary") {
    const corners = [0, 1, 2, 3, 4, 5].map((i) => {
      const angle = (Math.PI / 3) * i - Math.PI / 2;
      return `${(r * 1.08 * Math.cos(angle)).toFixed(1)} ${(r * 1.08 * Math.sin(angle)).toFixed(1)}`;
    });
    return `M${corners.join("L")}Z`;
  }
  if (role === "backup") {
    const d = (r * 1.14).toFixed(1);
    return `M0-${d} ${d} 0 0 ${d}-${d} 0Z`;
  }
  const c = (r * 0.92).toFixed(1);
  return `M-${c} 0A${c} ${c} 0 1 1 ${c} 0A${c} ${c} 0 1 1-${c} 0Z`;
}

const CLASS = { healthy: "is-ok", suspect: "is-warn", recovering: "is-warn", dead: "is-bad", unknown: "is-idle", up: "is-ok", down: "is-bad" };
export const classOf = (word) => CLASS[word] ?? "is-idle";

export const sign = (name) =>
  s("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, s("path", { d: SIGNS[name] ?? SIGNS.unknown, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" }));

/** The colour of a log line's level. */
export const classOfLevel = (level) => ({ error: "is-bad", fatal: "is-bad", warn: "is-warn" })[level] ?? "is-idle";

export const PHASES = {
  first_sign: "first sign",
  confirmed: "taken for dead",
  plan_installed: "new plan installed",
  generation_confirmed: "balancer runs it",
  old_workers_stopped: "old workers closed",
  sessions_cut: "old sessions moved",
  first_client_back: "first client back",
  answering: "clients served",
  recovered: "healthy again",
};

const OTHERWISE = {
  link: { confirmed: "taken for down", recovered: "messages pass again" },
  balancer: { confirmed: "noticed", recovered: "runs the wanted plan" },
};

/** A phase of an incident of this kind, in words. */
export const phaseWords = (kind, phase) => OTHERWISE[kind]?.[phase] ?? PHASES[phase] ?? phase;

/** What an incident is about: `broker1 → broker2` (clients went there), `link broker1 → broker2`, `balancer`. */
export function subject(incident) {
  if (incident.kind === "link") return `link ${incident.from} → ${incident.to}`;
  if (incident.kind === "balancer") return "balancer";
  return incident.to ? `${incident.broker} → ${incident.to}` : incident.broker;
}

/** Whether an incident is about the broker `id` or a link of it. */
export const concerns = (incident, id) => incident.broker === id || (incident.kind === "link" && (incident.from === id || incident.to === id));

/** How a phase is known, in words. */
export const KNOWN_BY = {
  first_sign: "inferred: the last moment at which all was well, or the first refusal",
  first_client_back: "measured: the new primary's own count of clients, told each second",
};
export const knownBy = (phase) => KNOWN_BY[phase] ?? "measured by mesh-health";
export const isInferred = (phase) => phase === "first_sign";

/**
 * What a line of our own programs says beside its name: `reason=connection refused elapsed_ms=12`. Lines of others say all
 * of it in their text.
 */
export function extras(row) {
  if (!row.service.startsWith("mesh-")) return "";
  const known = Object.entries(row.attributes ?? {}).filter(([name, value]) => value !== null && value !== "" && name !== "target");
  return known.map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join("  ");
}

/** A short name where there is little room; the whole one is its title. */
export const short = (name) => (name.startsWith("broker") && name.length < 9 ? `b${name.slice(6)}` : name);
