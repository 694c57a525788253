// Draws nodes and edges. Elements stay for as long as what they show, so that focus and hovering do, too.

import { passes, spoken } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const layers = Object.fromEntries(["boxes", "edges", "nodes", "labels"].map((id) => [id, document.getElementById(id)]));
const drawn = new Map();

function make(name, attributes = {}, parent = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    const text = String(value);
    if (element.getAttribute(key) !== text) element.setAttribute(key, text);
  }
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** As much of a text as fits; all of it is in the label that is read out, and in the tip. */
function fitting(text, letters) {
  return text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
}

function under(node) {
  switch (node.kind) {
    case "host": return `${node.host.address}${node.own ? " · this host" : node.host.alive ? "" : " · not heard of"}`;
    case "container": return node.container.state;
    case "service": return `${node.service.network} · ${node.service.members.length} behind it`;
    case "missing": return "not there now";
    default: return "by published ports";
  }
}

function describe(node) {
  const what = { host: "Host", container: "Container", service: "Service", missing: "Missing", outside: "From" };
  return `${what[node.kind]} ${node.name}, ${under(node)}`;
}

function drawNode(node, rect) {
  const isHost = node.kind === "host";
  let group = drawn.get(node.key)?.group;
  if (!group) {
    group = make("g", { tabindex: 0, role: "button", "data-key": node.key }, isHost ? layers.boxes : layers.nodes);
    make("rect", { rx: isHost ? 14 : 9 }, group);
    make("circle", { r: 4.5 }, group);
    make("text", { class: "name" }, group);
    make("text", { class: "under" }, group);
    drawn.set(node.key, { group });
  }
  const [shape, dot, name, more] = group.children;
  const state = node.kind === "container" ? node.container.state : node.kind === "host" && !node.host.alive ? "away" : "";
  set(group, { class: `node ${node.kind} ${state}`, "aria-label": describe(node) });
  set(shape, { x: rect.x, y: rect.y, width: rect.width, height: rect.height });
  set(dot, { cx: rect.x + 15, cy: rect.y + (isHost ? 23 : rect.height / 2) });
  set(name, { x: rect.x + 28, y: rect.y + (isHost ? 20 : 17) });
  set(more, { x: rect.x + 28, y: rect.y + (isHost ? 36 : 32) });
  say(name, fitting(node.name, Math.floor((rect.width - 36) / 8)));
  say(more, fitting(under(node), Math.floor((rect.width - 36) / 6)));
}

/** Wider with what passes, by powers of ten. */
function width(figures) {
  const rate = figures?.rate ? figures.rate.bytes_in + figures.rate.bytes_out : 0;
  return 1.5 + Math.min(5, Math.log10(1 + rate / 100));
}

function drawEdge(edge, route, name) {
  let known = drawn.get(edge.key);
  if (!known) {
    const group = make("g", edge.quiet ? {} : { tabindex: 0, role: "button", "data-key": edge.key }, layers.edges);
    known = { group, ways: [], label: null };
    drawn.set(edge.key, known);
  }
  const { figures } = edge;
  const moves = Boolean(figures?.rate && figures.rate.bytes_in + figures.rate.bytes_out + figures.rate.flows > 0);
  const state = [edge.kind, edge.way ?? "", moves ? "moves" : "idle", figures?.failing ? "failing" : ""].join(" ");
  set(known.group, { class: `edge ${state}` });
  if (!edge.quiet) set(known.group, { "aria-label": spoken(edge, name) });
  while (known.ways.length > route.ways.length * 2) known.ways.pop().remove();
  route.ways.forEach((d, index) => {
    if (!known.ways[index * 2]) {
      known.ways[index * 2] = make("path", { class: "way", "marker-end": "url(#arrow)" }, known.group);
      known.ways[index * 2 + 1] = make("path", { class: "reach" }, known.group);
    }
    set(known.ways[index * 2], { d, "stroke-width": width(figures).toFixed(2) });
    set(known.ways[index * 2 + 1], { d });
  });
  if (route.label) drawLabel(known, edge, route.label, state);
}

function drawLabel(known, edge, rect, state) {
  if (!known.label) {
    known.label = make("g", { "data-key": edge.key, "aria-hidden": "true" }, layers.labels);
    make("rect", { rx: 8 }, known.label);
    make("text", { class: "rate" }, known.label);
    make("text", { class: "rest" }, known.label);
  }
  const [shape, first, second] = known.label.children;
  const [rate, rest = ""] = passes(edge);
  const high = rest === "" ? 20 : rect.height;
  const middle = rect.x + rect.width / 2;
  set(known.label, { class: `label ${state}` });
  set(shape, { x: rect.x, y: rect.y, width: rect.width, height: high });
  set(first, { x: middle, y: rect.y + 14 });
  set(second, { x: middle, y: rect.y + 29 });
  say(first, rate);
  say(second, rest);
}

/** Draws all of it, and takes away what is no more. */
export function draw(graph, places, ways) {
  const name = (key) => graph.nodes.get(key)?.name ?? key;
  const there = new Set();
  for (const node of graph.nodes.values()) {
    there.add(node.key);
    drawNode(node, places.get(node.key));
  }
  for (const edge of graph.edges) {
    const route = ways.get(edge.key);
    if (!route) continue;
    there.add(edge.key);
    drawEdge(edge, route, name);
  }
  for (const [key, { group, label }] of drawn) {
    if (there.has(key)) continue;
    group.remove();
    label?.remove();
    drawn.delete(key);
  }
}

/** Marks what was found, what is chosen, and what these have to do with. */
export function mark({ found, chosen, near }) {
  for (const [key, { group, label }] of drawn) {
    for (const element of [group, label]) {
      if (!element) continue;
      element.classList.toggle("faded", found !== null && !found.has(key));
      element.classList.toggle("found", found !== null && found.has(key));
      element.classList.toggle("chosen", key === chosen);
      element.classList.toggle("near", near.has(key));
    }
  }
}

/** The element that can have focus. */
export function elementOf(key) {
  return drawn.get(key)?.group ?? null;
}
