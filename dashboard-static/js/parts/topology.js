// The picture: Nginx above, the brokers on a regular polygon, one arc for each direction of a link, and the way of the
// clients from Nginx to the primary. It is made once for a set of brokers; after that only what changed is touched.

import { attrs, h, replace, s, text } from "../dom.js";
import { many, ms, rate } from "../format.js";
import { SIGNS, classOf, shape, short, sign } from "../words.js";

/** Steps of speed: a link that is not used stands still. */
const speedOf = (perS) => (!perS ? 0 : perS < 10 ? 1 : perS < 200 ? 2 : 3);

/** The width of a line for a rate, by its logarithm against the highest of late. */
function widthOf(perS, most) {
  if (!perS) return 1;
  return 1 + 4 * (Math.log1p(perS) / Math.log1p(Math.max(most, 10)));
}

/** Where everything stands in a picture of `width` for `n` brokers. */
export function layout(n, width) {
  const narrow = width < 560;
  const many = n > 8;
  const r = narrow ? (many ? 13 : 17) : many ? 19 : 23;
  const top = narrow ? 50 : 56;
  const label = narrow ? 62 : n > 6 ? 96 : 116;
  const radius = narrow ? Math.max(70, Math.min((width - 110) / 2, 150)) : Math.max(120, Math.min((width - 2 * label - 2 * r) / 2, many ? 260 : 186));
  const centre = { x: width / 2, y: top + 62 + r + radius };
  const nodes = Array.from({ length: n }, (_, i) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * i) / n;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return { x: centre.x + radius * cos, y: centre.y + radius * sin, cos, sin };
  });
  const lowest = Math.max(...nodes.map((node) => node.y));
  return { narrow, many, r, nodes, width, height: lowest + r + (narrow ? 40 : 50), proxy: { x: width / 2, y: 26 } };
}

/** An arc from `a` to `b` that bows to its right, so that the two directions do not meet. */
function arc(a, b, r) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length = Math.hypot(dx, dy) || 1;
  const bow = Math.min(26, 8 + length * 0.06);
  const control = { x: (a.x + b.x) / 2 - (dy / length) * bow, y: (a.y + b.y) / 2 + (dx / length) * bow };
  const trim = (from, to) => {
    const d = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    return { x: from.x + ((to.x - from.x) / d) * (r + 6), y: from.y + ((to.y - from.y) / d) * (r + 6) };
  };
  const [p, q] = [trim(a, control), trim(b, control)];
  const middle = { x: (p.x + 2 * control.x + q.x) / 4, y: (p.y + 2 * control.y + q.y) / 4 };
  // The head points along the last bit of the curve.
  const along = Math.atan2(q.y - control.y, q.x - control.x);
  const wing = (turn) => `${fix(q.x + 7 * Math.cos(along + Math.PI + turn))} ${fix(q.y + 7 * Math.sin(along + Math.PI + turn))}`;
  const head = `M${fix(q.x)} ${fix(q.y)}L${wing(0.42)}L${wing(-0.42)}Z`;
  return { head, d: `M${fix(p.x)} ${fix(p.y)}Q${fix(control.x)} ${fix(control.y)} ${fix(q.x)} ${fix(q.y)}`, middle };
}

/** The way of the clients to a node: straight down, or around the others. */
function way(proxy, node, l) {
  const side = Math.abs(node.cos) < 0.05 ? (node.sin < 0 ? 0 : 1) : Math.sign(node.cos);
  const from = side === 0 ? { x: proxy.x, y: proxy.y + 20 } : { x: proxy.x + side * 92, y: proxy.y };
  const reach = l.r + 8;
  const lowest = node.sin > 0.1;
  const outside = side * (l.narrow ? 26 : 60);
  const to = side === 0 ? { x: node.x, y: node.y - reach } : { x: node.x + side * reach * 0.8, y: node.y - reach * 0.6 };
  const c1 = side === 0 ? { x: from.x, y: from.y + 20 } : { x: l.width / 2 + side * Math.min(l.width * 0.42, 330), y: from.y };
  const c2 = side === 0 ? { x: to.x, y: to.y - 20 } : { x: to.x + outside, y: to.y - (lowest ? 130 : 60) };
  return [from.x, from.y, c1.x, c1.y, c2.x, c2.y, to.x, to.y];
}
const wayPath = (p) => `M${fix(p[0])} ${fix(p[1])}C${p.slice(2).map(fix).join(" ")}`;
const fix = (n) => n.toFixed(1);

export function topology(onDetail) {
  const box = h("div", { class: "picture" });
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let picture = null;
  let frame = null;
  let most = 10;

  const observer = new ResizeObserver(() => {
    const width = Math.round(box.clientWidth);
    if (frame && width > 0 && width !== picture?.width) draw();
  });
  observer.observe(box);

  function draw() {
    const width = Math.round(box.clientWidth) || 700;
    picture = build(frame, width, onDetail);
    replace(box, picture.svg);
    change();
  }

  function change() {
    const rates = frame.links.map((link) => link.per_s ?? 0);
    most = Math.max(most * 0.98, ...rates, 10);
    picture.update(frame, most, calm.matches);
  }

  return {
    element: box,
    update(next) {
      frame = next;
      const ids = frame.brokers.map((broker) => broker.id).join();
      if (picture?.ids !== ids || !box.contains(picture.svg)) draw();
      else change();
    },
    stop: () => observer.disconnect(),
  };
}

function build(frame, width, onDetail) {
  const ids = frame.brokers.map((broker) => broker.id);
  const l = layout(ids.length, width);
  const place = new Map(ids.map((id, i) => [id, l.nodes[i]]));
  let current = frame;
  const svg = s("svg", { class: l.many ? "topology crowded" : "topology", viewBox: `0 0 ${width} ${fix(l.height)}`, height: fix(l.height), role: "group", "aria-label": "Topology: Nginx, the brokers and their links. Arrow keys go from link to link." });

  // The way of the clients lies under everything.
  const wayWide = s("path", { class: "way" });
  const wayDash = s("path", { class: "way-dash", "stroke-width": 3 });
  const wayText = s("text", { class: "sub label", "text-anchor": "middle" });
  svg.append(wayWide, wayDash);

  const links = new Map();
  const detailOf = (key) => {
    const link = current.links.find((one) => `${one.from}>${one.to}` === key);
    if (!link) return null;
    return [h("b", {}, `${link.from} → ${link.to}`), ` ${link.state} · ${rate(link.per_s)} msg/s · ${ms(link.latency_ms)} ms`];
  };
  for (const link of frame.links) {
    const [from, to] = [place.get(link.from), place.get(link.to)];
    if (!from || !to) continue;
    const key = `${link.from}>${link.to}`;
    const { d, head, middle } = arc(from, to, l.r);
    const parts = {
      track: s("path", { class: "track", d }),
      dash: s("path", { class: "dash", d }),
    };
    const cross = s("path", { class: "cross", d: `M${fix(middle.x - 5)} ${fix(middle.y - 5)}l10 10m0-10l-10 10` });
    const group = s("g", { class: "link", role: "img", tabindex: -1 }, parts.track, parts.dash, s("path", { class: "head", d: head }), cross, s("path", { class: "hit", d }));
    const show = () => onDetail(key, () => detailOf(key));
    group.addEventListener("pointerenter", show);
    group.addEventListener("focus", () => {
      for (const other of links.values()) other.group.setAttribute("tabindex", -1);
      group.setAttribute("tabindex", 0);
      show();
    });
    group.addEventListener("pointerleave", () => onDetail(null));
    group.addEventListener("blur", () => onDetail(null));
    links.set(key, { group, ...parts, last: "" });
    svg.append(group);
  }
  // One stop for the tab key; arrows go on from there.
  const order = [...links.values()];
  order[0]?.group.setAttribute("tabindex", 0);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = order.findIndex((link) => link.group === document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    order[(at + step + order.length) % order.length].group.focus();
  });

  const proxyTitle = s("text", { class: "name", x: l.proxy.x, y: l.proxy.y - 2, "text-anchor": "middle" }, "nginx");
  const proxyText = s("text", { class: "sub", x: l.proxy.x, y: l.proxy.y + 13, "text-anchor": "middle" });
  const proxy = s("g", { class: "proxy" }, s("rect", { x: l.proxy.x - 92, y: l.proxy.y - 20, width: 184, height: 40, rx: 8 }), proxyTitle, proxyText);
  svg.append(proxy);

  const nodes = new Map();
  frame.brokers.forEach((broker, i) => {
    const at = l.nodes[i];
    const glyph = s("path", { class: "glyph" });
    const mark = s("path", { class: "sign", transform: `scale(${l.r / 15})` });
    const halo = s("circle", { class: "halo", r: l.r + 7 });
    let [x, y, anchor, lines] = [0, l.r + 17, "middle", 2];
    if (!l.narrow) {
      lines = 3;
      if (at.cos > 0.3) [x, y, anchor] = [l.r + 12, -10, "start"];
      else if (at.cos < -0.3) [x, y, anchor] = [-l.r - 12, -10, "end"];
      else if (at.sin < 0) [x, y, anchor] = [l.r + 14, l.many ? -28 : -10, "start"];
    }
    const rows = Array.from({ length: lines }, (_, row) => s("text", { class: row === 0 ? "name label" : "sub label", x, y: y + row * 15, "text-anchor": anchor }));
    const link = s("a", { href: `/brokers/${broker.id}`, class: "node" }, halo, glyph, mark, ...rows);
    const group = s("g", { transform: `translate(${fix(at.x)} ${fix(at.y)})` }, link);
    const focus = (on) => {
      attrs(svg, { "data-focus": on ? broker.id : null });
      for (const [key, one] of links) one.group.classList.toggle("on", on && key.split(">").includes(broker.id));
      onDetail(on ? broker.id : null, on ? () => nodeDetail(current, broker.id) : undefined);
    };
    link.addEventListener("pointerenter", () => focus(true));
    link.addEventListener("pointerleave", () => focus(false));
    link.addEventListener("focus", () => focus(true));
    link.addEventListener("blur", () => focus(false));
    nodes.set(broker.id, { link, glyph, mark, rows, last: "" });
    svg.append(group);
  });
  svg.append(wayText);

  let target = null;
  let animation = 0;
  let drawn = null;
  const drawWay = (points) => {
    drawn = points;
    attrs(wayWide, { d: wayPath(points) });
    attrs(wayDash, { d: wayPath(points) });
    const [x, y] = middleOf(points);
    attrs(wayText, { x: fix(x), y: fix(y + 4) });
  };
  const moveWay = (id, calm) => {
    if (!place.has(id) || id === target) return;
    const goal = way(l.proxy, place.get(id), l);
    const from = drawn;
    target = id;
    cancelAnimationFrame(animation);
    if (!from || calm) return drawWay(goal);
    const start = performance.now();
    const step = (now) => {
      const t = Math.min(1, (now - start) / 700);
      const eased = 1 - (1 - t) ** 3;
      drawWay(goal.map((value, i) => from[i] + (value - from[i]) * eased));
      if (t < 1) animation = requestAnimationFrame(step);
    };
    animation = requestAnimationFrame(step);
  };

  function update(next, most, calm) {
    current = next;
    const { balancer } = next;
    text(proxyText, balancer ? balancerWords(balancer, next.generation) : "");
    proxy.classList.toggle("bad", Boolean(balancer && (balancer.error || balancer.generation === null)));
    for (const broker of next.brokers) updateNode(nodes.get(broker.id), broker, l);
    for (const link of next.links) updateLink(links.get(`${link.from}>${link.to}`), link, most, l.many);
    moveWay(next.primary, calm);
    const clients = next.brokers.find((broker) => broker.id === next.primary)?.clients ?? null;
    attrs(wayWide, { "stroke-width": fix(4 + Math.min(10, 2.4 * Math.log10(1 + (clients ?? 0)))) });
    attrs(wayDash, { "data-speed": clients ? 2 : 0 });
    text(wayText, many(clients, "client"));
  }

  return { svg, ids: ids.join(), width, update };
}

function middleOf(p) {
  const at = (i) => (p[i] + 3 * p[i + 2] + 3 * p[i + 4] + p[i + 6]) / 8;
  return [at(0), at(1)];
}

function balancerWords(balancer, generation) {
  if (balancer.generation === null) return "does not answer";
  if (balancer.error) return "does not follow";
  return balancer.confirmed ? `runs plan ${balancer.generation}` : `plan ${balancer.generation}, ${generation} wanted`;
}

function updateNode(node, broker, { narrow, many: crowded, r }) {
  if (!node) return;
  const admin = broker.admin && broker.admin !== "enabled" ? broker.admin : null;
  const words = [broker.role ?? "–", admin ?? broker.health ?? "–"].join(" · ");
  const figures = `${many(broker.clients, "client")} · ${rate(broker.in_per_s)} in/s`;
  const key = [words, figures, broker.health, broker.role].join("|");
  if (node.last === key) return;
  node.last = key;
  attrs(node.link, {
    class: `node role-${broker.role ?? "standby"} health-${broker.health}`,
    "aria-label": `${broker.id}, ${broker.role ?? "no role"}, ${broker.health}${admin ? `, ${admin}` : ""}, ${many(broker.clients, "client")}`,
  });
  attrs(node.mark, { d: SIGNS[broker.health] ?? SIGNS.unknown });
  attrs(node.glyph, { d: shape(broker.role, r) });
  // Where names would lie over each other they are short, and the shape alone tells the role.
  text(node.rows[0], narrow && crowded ? short(broker.id) : broker.id);
  text(node.rows[1], narrow && crowded ? (broker.health === "healthy" ? "" : broker.health) : narrow ? (admin ?? (broker.health === "healthy" ? (broker.role ?? "–") : broker.health)) : words);
  attrs(node.rows[1], { class: `sub label ${classOf(broker.health)}` });
  if (node.rows[2]) text(node.rows[2], figures);
}

function updateLink(parts, link, most, isCrowded) {
  if (!parts) return;
  const width = (widthOf(link.per_s, most) * (isCrowded ? 0.5 : 1)).toFixed(1);
  const speed = link.state === "up" ? speedOf(link.per_s) : 0;
  const key = `${link.state}|${width}|${speed}|${rate(link.per_s)}|${ms(link.latency_ms)}`;
  if (parts.last === key) return;
  parts.last = key;
  attrs(parts.group, {
    "data-state": link.state,
    "aria-label": `Link ${link.from} to ${link.to}: ${link.state}, ${rate(link.per_s)} messages per second, ${ms(link.latency_ms)} milliseconds`,
  });
  attrs(parts.track, { "stroke-width": width });
  attrs(parts.dash, { "stroke-width": Math.min(3.2, Number(width)), "data-speed": speed });
}

function nodeDetail(frame, id) {
  const broker = frame.brokers.find((one) => one.id === id);
  if (!broker) return null;
  const of = (way) => frame.links.filter((link) => link[way] === id);
  const sum = (links) => (links.every((link) => link.per_s === null) ? null : links.reduce((all, link) => all + (link.per_s ?? 0), 0));
  return [
    h("b", {}, id),
    ` ${many(broker.clients, "client")} · ${rate(broker.in_per_s)} in/s · ${rate(broker.out_per_s)} out/s · probe ${ms(broker.rtt_ms)} ms · links ${rate(sum(of("to")))} in/s`,
  ];
}

/** What the shapes mean. */
export function legend() {
  const item = (role) => h("span", {}, s("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { d: shape(role, 6), fill: role === "primary" ? "var(--accent)" : "none", stroke: role === "standby" ? "var(--ink-2)" : "var(--accent)", "stroke-width": 1.8 })), role);
  const down = h("span", { class: "is-bad" }, sign("dead"), "link down");
  return h("div", { class: "legend" }, item("primary"), item("backup"), item("standby"), down);
}
