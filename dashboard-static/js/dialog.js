// Questions before something is done, and the list of keys.

import { freshId, h, text } from "./dom.js";

function open(title, ...content) {
  const id = freshId("dialog");
  const dialog = h("dialog", { "aria-labelledby": id }, h("h2", { id }, title), ...content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Asks, and does `act()` upon yes. What `act` throws is shown, and where that can be forced, `force()` is offered.
 */
export function confirm({ title, lines, yes, act, force }) {
  const problem = h("p", { class: "problem", role: "alert" });
  const cancel = h("button", { type: "button" }, "Cancel");
  const go = h("button", { type: "button", class: "strong" }, yes);
  const row = h("div", { class: "row" }, cancel, go);
  const dialog = open(title, ...lines.map((line) => h("p", {}, line)), problem, row);
  const attempt = async (doing) => {
    go.disabled = true;
    try {
      await doing();
      dialog.close();
    } catch (error) {
      text(problem, error.message);
      go.disabled = false;
      if (force && error.status === 409 && row.childElementCount === 2) {
        row.append(h("button", { type: "button", onclick: () => attempt(force) }, `${yes} all the same`));
      }
    }
  };
  cancel.addEventListener("click", () => dialog.close());
  go.addEventListener("click", () => attempt(act));
}

export function showKeys(keys) {
  if (document.querySelector("dialog")) return;
  const rows = keys.flatMap(([names, meaning]) => [h("span", {}, names.flatMap((name, i) => [i ? " " : null, h("kbd", {}, name)])), h("span", {}, meaning)]);
  const close = h("button", { type: "button", class: "strong", onclick: () => dialog.close() }, "Close");
  const dialog = open("Keys", h("div", { class: "keys" }, rows), h("div", { class: "row" }, close));
}
