// Asking the server, with its problem documents as errors.

export class Problem extends Error {
  constructor({ title, detail, status, at, length }) {
    super(detail);
    // The status in words means something to programs only.
    this.title = status === 503 ? "Not available now" : title;
    this.status = status;
    // Where in a query, if it is about one.
    Object.assign(this, { at, length });
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem({ title: "Server away", detail: "mesh-dashboard does not answer.", status: 0 });
  }
  if (response.status === 401) location.assign("/login");
  if (response.ok) return response.json();
  const told = await response.json().catch(() => null);
  throw new Problem(told ?? { title: response.statusText || "Error", detail: `The server answered ${response.status}.`, status: response.status });
}

export const get = (path) => ask(path, {});
/** Does something. The header says that it was this page: others cannot set it. */
export const post = (path) => ask(path, { method: "POST", headers: { "x-mesh-action": "1" } });
