// Where a token is asked for. A plain form: it works also where nothing else does.

import { h, replace } from "../dom.js";

export function login(main) {
  const why = { "?wrong": "That is not the token.", "?many": "Too many wrong tokens; try again in a minute." }[location.search];
  replace(main, h("section", { class: "card login" },
    h("h1", {}, "Log in"), h("p", { class: "small" }, "The token is in the file that dashboard.token_file in mesh.toml names."),
    h("form", { method: "post", action: "/login" },
      h("label", { for: "token" }, "Token"),
      h("input", { id: "token", name: "token", type: "password", required: true, autofocus: true, autocomplete: "current-password" }),
      why ? h("p", { class: "is-bad", role: "alert" }, why) : null,
      h("button", { type: "submit", class: "strong" }, "Log in"))));
  return { title: "Log in" };
}

export function missing(main) {
  replace(main, h("section", { class: "card" }, h("div", { class: "empty" }, h("h1", {}, "There is no page here"), h("a", { href: "/" }, "Go to the overview"))));
  return { title: "No page" };
}
