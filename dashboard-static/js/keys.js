// The keyboard: single keys, and `g` followed by another one. Never while somebody types, nor with Ctrl, Alt or Meta.

import { showKeys } from "./dialog.js";
import { currentView, go } from "./router.js";
import { setPaused, store } from "./store.js";

export const KEYS = [
  [["/"], "Search"],
  [["g", "o"], "Overview"],
  [["g", "c"], "Clients"],
  [["g", "i"], "Incidents"],
  [["g", "l"], "Logs"],
  [["g", "f"], "Flow"],
  [["j", "k"], "Next and previous row"],
  [["t"], "Picture or table"],
  [["space"], "Pause and resume updates"],
  [["Esc"], "Back to now"],
  [["?"], "This list"],
];
const PLACES = { o: "/", c: "/clients", i: "/incidents", l: "/logs", f: "/flow" };
let prefix = 0;

export function startKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target;
    if (target.closest?.("input:not([type=range]), textarea, select, dialog, [contenteditable]")) return;
    const { key } = event;
    const after = performance.now() - prefix < 1500;
    prefix = 0;
    if (after && PLACES[key]) go(PLACES[key]);
    else if (key === "g") prefix = performance.now();
    else if (key === "?") showKeys(KEYS);
    else if (key === " " && !target.closest?.("button, a, summary, input, [tabindex='0']")) setPaused(!store.paused);
    else if (!currentView()?.key?.(key)) {
      if (key !== "/") return;
      go("/logs?search");
    }
    event.preventDefault();
  });
}
