// The state of the network as one sentence. Pure: a state and the time go in, a sentence comes out.

import { coarse, span } from "./format.js";

/** `{ level, text, steady }`: `steady` leaves out what changes all the time, for those who listen. */
export function sentence(told, now) {
  if (!told) return say("idle", "Waiting for mesh-dashboard …");
  const { snapshot, health, incident } = told;
  if (!snapshot) return say("bad", "mesh-health has not answered yet");
  const { brokers, links, state, primary, balancer } = snapshot;
  const up = brokers.filter((broker) => broker.health === "healthy").length;
  const head = `${up} of ${brokers.length} up`;
  if (!health.reachable) return say("idle", `mesh-health is away; last: ${head}, ${primary} serves`);
  if (up === 0 && state === "no_eligible_broker") return say("bad", "No broker answers");
  if (state === "failing_over") {
    const open = incident && !incident.ended_at && incident.kind === "broker" ? incident : null;
    const who = open?.broker ?? primary;
    const age = open ? `, ${span(now - Date.parse(open.began_at))}` : "";
    return { level: "bad", text: `${head}; ${who} failing over${age}`, steady: `${head}; ${who} failing over` };
  }
  if (state === "no_eligible_broker") return say("bad", `${head}; no broker may serve`);
  const rest = [];
  if (state === "degraded") rest.push(balancer.error ? "the balancer does not follow" : `${primary} serves in need`);
  if (state === "pinned") rest.push(`pinned to ${primary}, too many switches`);
  let running = "";
  const ill = brokers.filter((broker) => broker.health !== "healthy");
  if (ill.length === 1) {
    rest.push(`${ill[0].id} ${ill[0].health}`);
    running = ` for ${coarse(now - Date.parse(ill[0].since))}`;
  } else if (ill.length > 1) rest.push(`${ill.map((broker) => broker.id).join(", ")} not healthy`);
  const down = links.filter((link) => link.state === "down").length;
  const after = down ? `, ${down} ${down === 1 ? "link" : "links"} down` : "";
  const put = brokers.filter((broker) => broker.admin !== "enabled").map((broker) => `${broker.id} ${broker.admin}`);
  const tail = put.length ? `, ${put.join(", ")}` : "";
  const serves = state === "pinned" || rest[0]?.endsWith("in need") ? "" : `; ${primary} serves`;
  const make = (age) => head + rest.map((part) => `; ${part}`).join("") + age + after + tail + serves;
  const level = state === "ok" && rest.length === 0 && !down ? "ok" : state === "ok" ? "warn" : "bad";
  return { level, text: make(running), steady: make("") };
}

const say = (level, text) => ({ level, text, steady: text });
