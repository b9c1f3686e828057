// Numbers and times for people. Unknown is "–", never 0.

export const UNKNOWN = "–";
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** Messages a second and other rates: 0, 0.4, 12, 1,234, 12.3k. */
export function rate(value) {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0";
  if (value < 9.95) return value.toFixed(1);
  if (value < 9999.5) return Math.round(value).toLocaleString("en");
  return `${(value / 1000).toFixed(value < 99_950 ? 1 : 0)}k`;
}

export function count(value) {
  return known(value) ? value.toLocaleString("en") : UNKNOWN;
}

/** Milliseconds as a bare number with three meaningful digits: 0.42, 12.3, 1,017. */
export function ms(value) {
  if (!known(value)) return UNKNOWN;
  if (value < 9.995) return value.toFixed(2);
  if (value < 99.95) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

/** A length of time given in milliseconds: 12 ms, 1.02 s, 3 min 12 s, 2 h 5 min, 3 d 4 h. */
export function span(value) {
  if (!known(value)) return UNKNOWN;
  const v = Math.max(0, value);
  if (v < 1) return v === 0 ? "0 ms" : `${v.toFixed(1)} ms`;
  if (v < 999.5) return `${v < 9.95 ? v.toFixed(1) : Math.round(v)} ms`;
  if (v < 9_995) return `${(v / 1000).toFixed(2)} s`;
  if (v < 59_500) return `${(v / 1000).toFixed(1)} s`;
  return coarse(v);
}

/** The same in whole seconds and above, for what keeps running: 0 s, 12 s, 3 min 12 s. */
export function coarse(value) {
  if (!known(value)) return UNKNOWN;
  const total = Math.max(0, Math.round(value / 1000));
  const parts = [
    [Math.floor(total / 86_400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "min"],
    [total % 60, "s"],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
}

const two = (n) => String(n).padStart(2, "0");

/** The time of day, in the reader's zone: 14:03:09. */
export function clock(at) {
  const date = new Date(at);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** 2026-11-23 14:03:09.120, in the reader's zone. */
export function moment(at, millis = false) {
  if (at === null || at === undefined) return UNKNOWN;
  const d = new Date(at);
  const day = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  return `${day} ${clock(at)}${millis ? `.${String(d.getMilliseconds()).padStart(3, "0")}` : ""}`;
}

/** `1 client`, `2 clients`; `– clients` where it is not known. */
export const many = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** The median of numbers; `null` of none. */
export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
