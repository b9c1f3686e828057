// What stands above the content when something is away.

import { h } from "../dom.js";
import { clock, coarse } from "../format.js";
import { serverNow, setCursor, setPaused, state, store } from "../store.js";

/** The notices for now; empty if all is well. A source that was not asked yet is no trouble. `age` is how long the server was not heard, in milliseconds. */
export function notices(age) {
  const found = [];
  const told = state();
  if (store.everHeard && age > 0) {
    found.push(["bad", "server", "No connection to mesh-dashboard.", `What you see is ${coarse(age)} old. It reconnects by itself.`]);
  } else if (told?.health.error) {
    const since = told.health.answered_at ? `What you see is ${coarse(serverNow() - Date.parse(told.health.answered_at))} old. ` : "";
    found.push(["bad", "health", "mesh-health does not answer.", `${since}${told.health.error}. Messages flow and plain crashes still fail over without it.`]);
  }
  if (told?.logs.error && !(store.everHeard && age > 0)) {
    found.push(["warn", "logs", "The database of mesh-logs cannot be read.", `Log lines, clients and the last 24 hours are missing: ${told.logs.error}.`]);
  }
  const balancer = told?.snapshot?.balancer;
  if (!found.length && balancer?.error) found.push(["bad", "balancer", "The balancer does not do as it is told.", balancer.error]);
  if (!found.length && balancer?.move_error) found.push(["warn", "move", "Sessions cannot be moved off a broker.", balancer.move_error]);
  if (store.cursor !== null) {
    found.push(["warn", "cursor", `Replaying ${clock(store.cursor)}.`, "The picture, the matrix and the values are those of that instant.", ["Back to now", () => setCursor(null)]]);
  } else if (store.paused) {
    found.push(["warn", "paused", "Paused.", "Nothing is updated until you resume.", ["Resume", () => setPaused(false)]]);
  }
  return found;
}

/** A box above the content that holds them; only what changed is touched, so that a button keeps its focus. */
export function noticeBox() {
  const box = h("section", { class: "notices", "aria-label": "Notices", hidden: true });
  let shown = "";
  let texts = [];
  return {
    element: box,
    update(age) {
      const list = notices(age);
      const names = list.map(([, name]) => name).join();
      if (names !== shown) {
        shown = names;
        box.hidden = list.length === 0;
        texts = list.map(() => [h("b", {}), h("span", {})]);
        box.replaceChildren(...list.map(([level, , , , action], i) =>
          h("div", { class: `notice ${level}` }, ...texts[i], action ? h("button", { type: "button", onclick: action[1] }, action[0]) : null)));
      }
      list.forEach(([, , title, words], i) => {
        if (texts[i][0].textContent !== title) texts[i][0].textContent = title;
        if (texts[i][1].textContent !== words) texts[i][1].textContent = words;
      });
    },
  };
}
