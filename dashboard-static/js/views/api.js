// The API, as its own description tells it.

import { get } from "../api.js";
import { h, replace } from "../dom.js";

export function apiView(main) {
  const body = h("div", {}, h("p", { class: "empty" }, "Asking …"));
  replace(main,
    h("div", { class: "head" }, h("h1", {}, "API"), h("div", { class: "actions" }, h("a", { class: "button", href: "/api/v1/openapi.json", download: "openapi.json" }, "openapi.json"))),
    h("section", { class: "card", "aria-label": "Operations" }, body));
  get("/api/v1/openapi.json").then(
    (document) => replace(body, h("p", { class: "small" }, document.info.description), operations(document)),
    (error) => replace(body, h("p", { class: "empty" }, h("b", {}, error.title), error.message)),
  );
  return { title: "API" };
}

function operations(document) {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const parameters = (operation.parameters ?? []).map((one) => `${one.in} ${one.name}${one.required ? "" : "?"}: ${one.description ?? ""}`);
      const answers = Object.entries(operation.responses).map(([status, one]) => `${status} ${one.description}: ${Object.entries(one.content ?? {}).map(([kind, of]) => `${kind} ${nameOf(of.schema)}`).join(", ") || "nothing"}`);
      return h("details", { class: "operation" },
        h("summary", {}, h("span", { class: "method" }, method.toUpperCase()), h("code", {}, path), h("span", { class: "small" }, operation.summary ?? "")),
        operation.description ? h("p", { class: "small" }, operation.description) : null,
        h("pre", { tabindex: 0 }, [...parameters, ...answers].join("\n")));
    }));
}

const nameOf = (schema) => schema?.$ref?.split("/").pop() ?? schema?.type ?? "";
