// Puts the page together.

import { header } from "./header.js";
import { startKeys } from "./keys.js";
import { noticeBox } from "./parts/notices.js";
import { route, startRouter, updateView } from "./router.js";
import { loadHistory, onChange, staleness, start, state, store } from "./store.js";
import { apiView } from "./views/api.js";
import { broker } from "./views/broker.js";
import { client } from "./views/client.js";
import { clients } from "./views/clients.js";
import { flow } from "./views/flow.js";
import { incidentView } from "./views/incident.js";
import { incidentList } from "./views/incidents.js";
import { logs } from "./views/logs.js";
import { login, missing } from "./views/login.js";
import { overview } from "./views/overview.js";

const main = document.getElementById("main");
const isLogin = location.pathname === "/login";

route("/", overview, "overview");
route("/brokers/:id", broker, "overview");
route("/incidents", incidentList, "incidents");
route("/incidents/:id", incidentView, "incidents");
route("/clients", clients, "clients");
route("/clients/:id", client, "clients");
route("/logs", logs, "logs");
route("/flow", flow, "flow");
route("/api", apiView, null);
route("/login", login, null);

if (isLogin) startRouter(main, missing, () => {});
else {
  const top = header(document.getElementById("header"), document.getElementById("announcer"));
  const box = noticeBox();
  main.before(box.element);
  box.element.className = "notices";
  const frame = () => box.update(top.update().age);

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
