// Puts the page together.

import { header } from "./header.js";
import { startKeys } from "./keys.js";
import { noticeBox } from "./parts/notices.js";
import { route, startRouter, updateView } from "./router.js";
import { loadHistory, loadState, onChange, staleness, start, state, store } from "./store.js";
import { login, missing } from "./views/login.js";
import { overview } from "./views/overview.js";

const main = document.getElementById("main");
const isLogin = location.pathname === "/login";

route("/", () => overview, "overview");
route("/brokers/:id", async () => (await import("./views/broker.js")).broker, "overview");
route("/incidents", async () => (await import("./views/incidents.js")).incidentList, "incidents");
route("/incidents/:id", async () => (await import("./views/incident.js")).incidentView, "incidents");
route("/clients", async () => (await import("./views/clients.js")).clients, "clients");
route("/clients/:id", async () => (await import("./views/client.js")).client, "clients");
route("/logs", async () => (await import("./views/logs.js")).logs, "logs");
route("/flow", async () => (await import("./views/flow.js")).flow, "flow");
route("/api", async () => (await import("./views/api.js")).apiView, null);
route("/login", () => login, null);

if (isLogin) startRouter(main, missing, () => {});
else {
  const top = header(document.getElementById("header"), document.getElementById("announcer"));
  const box = noticeBox();
  main.before(box.element);
  const frame = () => box.update(top.update().age);

  // The browser has asked for the state beside the modules, and mostly has it by now: then everything is drawn once.
  await Promise.race([loadState(), new Promise((go) => setTimeout(go, 100))]);
  startKeys();
  startRouter(main, missing, (area) => top.area(area));
  onChange((what) => {
    // A picture that stands still is what a pause is for.
    if (!(store.paused && what === "event")) updateView(what);
    frame();
  });
  frame();
  start();
  loadHistory();
  // Ages go on without news: often while every tenth of a second counts, else once a second.
  const beat = () => {
    frame();
    if (staleness() > 0) updateView("age");
    setTimeout(beat, state()?.snapshot?.state === "failing_over" ? 100 : 1000);
  };
  beat();
}
