// The phases of an incident on one scale. What comes much later than the rest (a broker that proves itself for ten
// seconds after clients were back within one) would leave nothing of the rest, so the scale ends with the last phase that
// concerns clients; what is beyond it has its figure only.

import { h } from "../dom.js";
import { span } from "../format.js";
import { isInferred, knownBy, phaseWords } from "../words.js";

/** How long each phase took: from the one before it. */
export function phasesOf(incident) {
  return incident.phases.map((step, i) => ({
    phase: step.phase,
    at: step.at,
    from: i === 0 ? 0 : incident.phases[i - 1].elapsed_ms,
    to: step.elapsed_ms,
  }));
}

/** Where the scale ends: in milliseconds after the first sign. */
function scaleOf(phases) {
  const served = phases.filter((phase) => phase.phase !== "recovered");
  const last = Math.max(...served.map((phase) => phase.to), 1);
  const all = Math.max(...phases.map((phase) => phase.to), 1);
  return all > last * 4 ? last * 1.04 : all;
}

/** `medians` has the median of earlier incidents for each phase, in milliseconds after the first sign. */
export function gantt(incident, medians = {}) {
  const phases = phasesOf(incident).filter((phase) => phase.phase !== "first_sign" || incident.phases.length === 1);
  const scale = scaleOf(phases.length ? phases : [{ phase: "first_sign", to: 1 }]);
  const part = (value) => `${(100 * Math.min(1, value / scale)).toFixed(2)}%`;
  const rows = phases.flatMap((phase) => {
    const isCut = phase.to > scale;
    const piece = h("div", { class: `piece${isCut ? " cut" : isInferred(phase.phase) || phase.from === 0 ? " inferred" : ""}` });
    const isBeyond = phase.from >= scale;
    piece.style.left = part(Math.min(phase.from, scale));
    piece.style.width = isBeyond ? "0" : `calc(${part(phase.to)} - ${part(phase.from)})`;
    const median = medians[phase.phase];
    const mark = median !== undefined && median <= scale ? h("div", { class: "median", title: `median of earlier ones: ${span(median)}` }) : null;
    if (mark) mark.style.left = part(median);
    return [
      h("div", { class: "phase", title: knownBy(phase.phase) }, phaseWords(incident.kind, phase.phase)),
      h("div", { class: "lane", "aria-hidden": "true" }, isBeyond ? null : piece, mark),
      h("div", { class: "figure" }, h("b", {}, span(phase.to)), phase.to - phase.from < phase.to ? h("small", {}, ` +${span(phase.to - phase.from)}`) : null),
    ];
  });
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => h("span", {}, share === 0 ? "first sign" : span(scale * share)));
  return h("div", { class: "gantt" }, rows, h("div", { class: "scale", "aria-hidden": "true" }, marks));
}
