// Puts the page together: what is heard becomes a graph, the graph a picture, and keys and clicks lead through it.

import * as detail from "./detail.js";
import { draw, elementOf, mark } from "./draw.js";
import { routes } from "./edges.js";
import { connect } from "./feed.js";
import { place } from "./layout.js";
import { build, carriedAt, matches } from "./model.js";
import * as theme from "./theme.js";
import { ago, clock, passes } from "./words.js";

const byId = (id) => document.getElementById(id);
const [stage, svg, search, time, tip] = ["stage", "map", "search", "time", "tip"].map(byId);
/** Events that are listed. */
const EVENTS = 200;
/** How large all of the map is shown at most. */
const CLOSEST = 1.3;
/** Milliseconds for which what was fetched of the last hour is shown. */
const FRESH = 10_000;

let map = null;
let graph = null;
let shape = "";
let layout = null;
let ways = null;
let chosen = null;
let past = null;
let view = null;
const page = { exec: false, close: closeDetail, history, carriedAt };

// What is heard

const feed = connect((message) => {
  if (message.hello) {
    page.exec = message.hello.exec;
    byId("host").textContent = `on ${message.hello.host}`;
    document.title = `nuncio on ${message.hello.host}`;
  } else if (message.map) {
    map = message.map;
    if (time.value === "0") render(map, null);
    else renderPast();
  } else if (message.event) {
    tellEvent(message.event);
  } else {
    detail.hear(message);
  }
}, (state, words) => {
  document.body.dataset.state = state;
  byId("state").textContent = words;
  if (state === "live") detail.forget();
});

function tellEvent({ kind, action, id, attributes, time }) {
  // Health checks are execs, too: they would push out all else.
  if (action.startsWith("exec_")) return;
  const name = attributes.name ?? id.slice(0, 12);
  const item = document.createElement("li");
  const at = document.createElement("time");
  at.dateTime = new Date(time).toISOString();
  at.textContent = clock(time);
  item.append(at, ` ${kind} ${name}: ${action}`);
  byId("events").prepend(item);
  while (byId("events").childElementCount > EVENTS) byId("events").lastElementChild.remove();
  if (kind !== "container" || !["start", "die", "destroy", "pause", "unpause"].includes(action)) return;
  byId("said").textContent = `${name}: ${action}`;
  if (action === "start" && id === detail.container()) {
    detail.forget();
    feed.again();
  }
}

// What is shown

function render(map, at) {
  graph = build(map, at);
  const now = [...graph.nodes.values()].map((node) => `${node.key} ${node.name} ${node.host?.id ?? node.host ?? ""}`)
    .concat(graph.edges.map((edge) => `${edge.key} ${edge.from} ${edge.to}`)).join("\n");
  if (now !== shape) {
    shape = now;
    layout = place(graph.nodes);
    ways = routes(graph.edges, layout.places);
    if (!view?.moved) fit();
  }
  draw(graph, layout.places, ways);
  byId("empty").hidden = map.containers.length > 0;
  detail.refresh(chosen && thing(chosen), graph);
  markAll();
}

function thing(key) {
  return graph?.nodes.get(key) ?? graph?.edges.find((edge) => edge.key === key) ?? null;
}

function markAll() {
  if (!graph) return;
  const text = search.value.trim().toLowerCase();
  let found = null;
  if (text !== "") {
    const all = [...graph.nodes.values(), ...graph.edges];
    found = new Set(all.filter((one) => matches(text, one, graph.nodes)).map((one) => one.key));
    byId("found").textContent = found.size === 0 ? "nothing found" : `${found.size} found`;
  } else {
    byId("found").textContent = "";
  }
  const near = new Set();
  for (const edge of graph.edges) {
    const ends = [...edge.from, ...edge.to];
    if (edge.key === chosen) ends.forEach((end) => near.add(end));
    if (ends.includes(chosen)) near.add(edge.key);
  }
  mark({ found, chosen, near });
}

function fit() {
  const { x, y, right, bottom } = layout.bounds;
  // Of a few containers it is not made larger than this.
  const least = { width: svg.clientWidth / CLOSEST, height: svg.clientHeight / CLOSEST };
  const [width, height] = [Math.max(right - x, least.width), Math.max(bottom - y, least.height)];
  view = { x: x - (width - right + x) / 2, y: y - (height - bottom + y) / 2, width, height, moved: false };
  look();
}

function look() {
  svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

function zoom(by) {
  if (!view) return;
  const [width, height] = [view.width * by, view.height * by];
  if (width < 100 || width > 100_000) return;
  view = { x: view.x + (view.width - width) / 2, y: view.y + (view.height - height) / 2, width, height, moved: true };
  look();
}

// The last hour

async function history() {
  if (past && Date.now() - past.fetched < FRESH) return past.map;
  try {
    const answer = await fetch("map?history=1");
    if (!answer.ok) return past?.map ?? null;
    past = { map: await answer.json(), fetched: Date.now() };
  } catch { /* the connection's state says so */ }
  return past?.map ?? null;
}

async function renderPast() {
  const back = -Number(time.value);
  const when = byId("when");
  if (back === 0) return;
  const told = await history();
  if (!told || -Number(time.value) !== back) return;
  const at = Date.parse(told.time) - back * 1000;
  const words = `${ago(back)}, ${clock(at)}`;
  when.textContent = words;
  time.setAttribute("aria-valuetext", words);
  render(told, at);
}

function goTo(value) {
  time.value = String(value);
  const back = time.value !== "0";
  byId("live").hidden = !back;
  document.body.classList.toggle("past", back);
  if (back) {
    renderPast();
  } else {
    byId("when").textContent = "now";
    time.setAttribute("aria-valuetext", "now");
    if (map) render(map, null);
  }
}

// Keys, clicks and hovering

function choose(key) {
  const about = thing(key);
  if (!about || about.quiet) return;
  chosen = key;
  detail.show(about, graph, page);
  feed.watch(about.container?.id ?? null);
  markAll();
  byId("detail").focus();
}

function closeDetail() {
  const before = chosen;
  chosen = null;
  detail.close();
  feed.watch(null);
  markAll();
  elementOf(before)?.focus();
}

const keyAt = (target) => target.closest?.("[data-key]")?.dataset.key ?? null;

function showTip(event) {
  const about = thing(keyAt(event.target));
  tip.hidden = !about;
  if (!about) return;
  const name = (key) => graph.nodes.get(key)?.name ?? key;
  const first = about.from ? `${about.from.map(name).join(", ") || "anybody"} → ${about.to.map(name).join(", ")}` : about.name;
  const rest = about.from ? (about.quiet ? ["is behind it"] : passes(about)) : [elementOf(about.key).getAttribute("aria-label")];
  tip.replaceChildren(...[first, ...rest].map((text) => Object.assign(document.createElement("div"), { textContent: text })));
  const [inside, box] = [stage.getBoundingClientRect(), event.target.getBoundingClientRect()];
  const [x, y] = event.clientX ? [event.clientX, event.clientY] : [box.x + box.width / 2, box.y + box.height / 2];
  tip.style.left = `${Math.max(0, Math.min(x - inside.x + 14, inside.width - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(0, Math.min(y - inside.y + 14, inside.height - tip.offsetHeight - 8))}px`;
}

svg.addEventListener("click", (event) => {
  const key = keyAt(event.target);
  if (key && !view?.dragged) choose(key);
});
svg.addEventListener("pointerover", showTip);
svg.addEventListener("focusin", showTip);
for (const kind of ["pointerleave", "focusout"]) svg.addEventListener(kind, () => { tip.hidden = true; });
svg.addEventListener("keydown", (event) => {
  const key = keyAt(event.target);
  if (key && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(key);
  }
});
svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.1 : 1 / 1.1);
}, { passive: false });
svg.addEventListener("pointerdown", (event) => {
  if (!view || event.button !== 0) return;
  const start = { x: event.clientX, y: event.clientY, view: { ...view } };
  view.dragged = false;
  const scale = Math.max(view.width / svg.clientWidth, view.height / svg.clientHeight);
  const move = ({ clientX, clientY }) => {
    if (Math.hypot(clientX - start.x, clientY - start.y) < 4) return;
    view = { ...view, x: start.view.x - (clientX - start.x) * scale, y: start.view.y - (clientY - start.y) * scale, moved: true, dragged: true };
    look();
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", () => removeEventListener("pointermove", move), { once: true });
});

addEventListener("keydown", (event) => {
  const types = event.target.matches?.("input[type=search], textarea, .xterm *");
  if (event.key === "/" && !types) {
    event.preventDefault();
    search.select();
    search.focus();
  } else if (event.key === "Escape" && !event.target.closest?.(".xterm")) {
    if (event.target === search && search.value !== "") {
      search.value = "";
      markAll();
    } else if (chosen) {
      closeDetail();
    } else if (time.value !== "0") {
      goTo(0);
    }
  }
});
search.addEventListener("input", markAll);
search.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !graph) return;
  const text = search.value.trim().toLowerCase();
  const all = [...graph.nodes.values(), ...graph.edges.filter((edge) => !edge.quiet)];
  const first = text && (all.find((one) => one.name === text) ?? all.find((one) => matches(text, one, graph.nodes)));
  if (first) elementOf(first.key)?.focus();
});
time.addEventListener("input", () => goTo(time.value));
byId("live").addEventListener("click", () => goTo(0));
byId("closer").addEventListener("click", () => zoom(1 / 1.25));
byId("farther").addEventListener("click", () => zoom(1.25));
byId("whole").addEventListener("click", () => layout && fit());
theme.begin(byId("theme"));
