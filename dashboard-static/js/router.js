// Addresses and views. Links are ordinary links; those to pages of ours are followed without loading anything.

const routes = [];
let current = null;
let turns = 0;
let main = null;
let onShow = () => {};

/** `pattern` has `:name` parts; `view()` gives, at once or later, what draws: `(main, params)` to `{ title, update?, stop? }`. */
export function route(pattern, view, area) {
  const names = [];
  const source = pattern.replace(/:(\w+)/g, (_, name) => {
    names.push(name);
    return "([^/]+)";
  });
  routes.push({ test: new RegExp(`^${source}$`), names, view, area });
}

export function startRouter(element, missing, shown) {
  main = element;
  onShow = shown;
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const href = link?.getAttribute("href") ?? link?.getAttributeNS(null, "href");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || !href.startsWith("/") || link.hasAttribute("download") || href.startsWith("/api/v1/")) return;
    event.preventDefault();
    go(href);
  });
  addEventListener("popstate", () => show(missing));
  go.missing = missing;
  show(missing);
}

/** Goes to `path`. */
export function go(path) {
  if (path !== location.pathname + location.search) history.pushState(null, "", path);
  show(go.missing);
  scrollTo(0, 0);
  // A reader of the screen goes on where the new page begins.
  main.focus({ preventScroll: true });
}

async function show(missing) {
  const turn = (turns += 1);
  current?.stop?.();
  current = null;
  const path = location.pathname.length > 1 ? location.pathname.replace(/\/$/, "") : location.pathname;
  for (const { test, names, view, area } of routes) {
    const match = test.exec(path);
    if (!match) continue;
    const params = Object.fromEntries(names.map((name, i) => [name, decode(match[i + 1])]));
    // Views that are not on the first page are fetched when somebody goes there.
    const draw = await view();
    if (turn === turns) present(draw(main, params), area);
    return;
  }
  present(missing(main), null);
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function present(view, area) {
  current = view;
  document.title = `${view.title} · mqtt-mesh`;
  onShow(area);
  view.update?.("show");
}

/** Tells the view that something changed. */
export const updateView = (what) => current?.update?.(what);
export const currentView = () => current;

/** A value of the address after `?`, and setting one without a new entry in the history. */
export const query = (name) => new URLSearchParams(location.search).get(name);
export function setQuery(name, value) {
  const params = new URLSearchParams(location.search);
  if (value === null) params.delete(name);
  else params.set(name, value);
  const text = params.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
}
