// The panel about one container, link, host or service.

import { open as openTerminal } from "./terminal.js";
import { clock, milliseconds, plural, size } from "./words.js";

const panel = document.getElementById("detail");
/** Lines that are kept of what a container writes. */
const LINES = 2000;
let shown = null;
let closeTerminal = null;

/** Makes an element with attributes, and texts or elements within. */
function tag(name, attributes = {}, ...within) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...within);
  return element;
}

function facts(pairs) {
  const list = tag("dl");
  for (const [term, value] of pairs) {
    if (value === "" || value === null || value === undefined) continue;
    list.append(tag("dt", {}, term), tag("dd", {}, value));
  }
  return list;
}

function fill(element, ...within) {
  element.replaceChildren(...within);
}

function endTerminal() {
  closeTerminal?.();
  closeTerminal = null;
}

/** Which container is shown, if one is. */
export function container() {
  return shown?.container ?? null;
}

export function close() {
  endTerminal();
  shown = null;
  panel.hidden = true;
  fill(panel);
}

/** Shows a node or an edge. `page`: what it may do, and what it calls upon. */
export function show(thing, graph, page) {
  endTerminal();
  shown = { key: thing.key, container: thing.container?.id ?? null, log: null };
  panel.hidden = false;
  const title = thing.name ?? `${names(thing.from, graph) || "anybody"} → ${names(thing.to, graph)}`;
  fill(panel,
    tag("button", { type: "button", class: "close", "aria-label": "Close", onclick: page.close }, "×"),
    tag("h2", {}, title),
    tag("p", { class: "kind" }, thing.kind),
    shown.facts = tag("div"),
    shown.more = tag("div"));
  refresh(thing, graph);
  if (shown.container) showContainer(thing, page);
  if (thing.link?.carried) showHistory(thing, page);
}

function names(keys, graph) {
  return keys.map((key) => graph.nodes.get(key)?.name ?? key).join(", ");
}

/** Brings the figures up to date; `thing` is null once it is gone. */
export function refresh(thing, graph) {
  if (!shown) return;
  if (!thing) {
    fill(shown.facts, tag("p", { class: "gone", role: "status" }, "This is gone: it was removed, or its host is no longer heard of."));
    return;
  }
  const about = { container: ofContainer, host: ofHost, service: ofService };
  fill(shown.facts, facts((thing.from ? ofEdge : about[thing.kind] ?? (() => []))(thing, graph)));
}

function ofContainer({ container, host }, graph) {
  const networks = Object.entries(container.networks).map(([name, address]) => `${name} ${address}`);
  return [["State", container.state], ["Host", graph.nodes.get(host)?.name ?? ""], ["Networks", networks.join(", ")],
    ["Id", container.id.slice(0, 12)]];
}

function ofHost({ host, own, path }) {
  const way = path && [
    ["Way there", path.around ? "around, by TLS" : path.reachable === false ? "not reached by VXLAN" : "VXLAN"],
    ["Round trip", path.round_trip === null ? "" : milliseconds(path.round_trip * 1000)],
    ["Loss", `${Math.round(path.loss * 100)} %`],
    ["Largest packet", path.mtu ? `${path.mtu} bytes` : ""],
    ["Sent", path.sent_bytes === null ? "" : size(path.sent_bytes)],
    ["Received", path.received_bytes === null ? "" : size(path.received_bytes)],
  ];
  return [["Address", host.address], ["State", own ? "this host" : host.alive ? "alive" : "not heard of"], ...(way ?? [])];
}

function ofService({ service }, graph) {
  return [["Network", service.network], ["Behind it", names(service.members.map((id) => `container/${id}`), graph)]];
}

function ofEdge({ alias, way, figures, key }) {
  const about = [["Known as", alias ?? ""], ["Way", way === "straight" ? "straight, not counted" : "by the ambassador"], ["Name", key]];
  if (!figures) return about;
  const { rate } = figures;
  return [...about,
    ["There", `${rate ? `${size(rate.bytes_in)}/s, ` : ""}${size(figures.bytes_in)} in all`],
    ["Back", `${rate ? `${size(rate.bytes_out)}/s, ` : ""}${size(figures.bytes_out)} in all`],
    ["Flows", `${figures.open} open of ${figures.flows}`],
    ["Time to connect", milliseconds(figures.latency)],
    ["Errors", plural(figures.errors, "error")]];
}

async function showContainer(thing, page) {
  const mine = shown;
  mine.info = tag("div");
  mine.taken = tag("p", { class: "taken" }, "…");
  mine.note = tag("p", { class: "gone", role: "status", hidden: "" });
  mine.log = tag("pre", { class: "log", tabindex: 0, "aria-label": "What it writes" });
  mine.terminal = tag("div", { class: "terminal", hidden: "" });
  fill(mine.more, mine.info, tag("h3", {}, "Takes"), mine.taken, mine.note,
    tag("h3", {}, "Writes"), mine.log, tag("h3", {}, "Terminal"), mine.shell = tag("div"), mine.terminal);
  try {
    const answer = await fetch(`containers/${encodeURIComponent(thing.container.id)}`);
    const told = await answer.json();
    if (shown !== mine) return;
    if (!answer.ok) return tellAbsent(told.message);
    fill(mine.shell, told.here === false ? elsewhere(told.host) : terminalButton(thing, page));
    fill(mine.info, facts([["Image", told.image], ["Runs", told.command?.join(" ")],
      ["Created", told.created && new Date(told.created).toLocaleString()],
      ["Links", told.links?.map(({ alias, target }) => `${target} as ${alias}`).join(", ")]]));
  } catch (error) {
    if (shown === mine) tellAbsent(String(error.message));
  }
}

/** Hosts tell each other what containers write and take, and run nothing for each other. */
function elsewhere(host) {
  return tag("p", { class: "hint" }, `It runs on ${host}: a shell in it is opened by the dashboard there.`);
}

function terminalButton(thing, page) {
  if (!page.exec) {
    return tag("p", { class: "hint" }, "This dashboard only shows. One that is begun with ",
      tag("code", {}, "nuncio dashboard --allow-exec"), " runs programs, too.");
  }
  return tag("button", { type: "button", class: "run", onclick: async () => {
    endTerminal();
    const mine = shown;
    mine.terminal.hidden = false;
    fill(mine.terminal);
    // What is out of sight a terminal does not draw.
    mine.terminal.scrollIntoView({ block: "nearest" });
    const close = await openTerminal(thing.container.id, mine.terminal);
    if (shown === mine) closeTerminal = close;
    else close();
  } }, "Open a shell");
}

function tellAbsent(why) {
  if (!shown?.note) return;
  shown.note.hidden = false;
  shown.note.textContent = why;
}

/** What the daemon says of the container that is watched. */
export function hear({ lines, taken, absent }) {
  if (!shown?.log) return;
  const mine = (lines ?? taken ?? absent).id === shown.container;
  if (!mine) return;
  if (absent) tellAbsent(absent.why);
  if (taken) tellTaken(taken);
  if (lines) tellLines(lines.lines);
}

function tellTaken(taken) {
  if (!taken.runs) {
    shown.taken.textContent = "It does not run.";
    return;
  }
  const cpu = taken.cpu === null ? "" : `${taken.cpu.toFixed(1)} % of a processor · `;
  shown.taken.textContent = `${cpu}${size(taken.memory)} of ${size(taken.limit)} · ${taken.processes === 1 ? "1 process" : `${taken.processes} processes`}`
    + ` · received ${size(taken.received)}, sent ${size(taken.sent)}`;
}

function tellLines(lines) {
  const { log } = shown;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  for (const [stream, time, text] of lines) {
    log.append(tag("span", stream === 2 ? { class: "stderr", title: clock(time) } : { title: clock(time) }, text));
  }
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

/** Begins the log anew, when it is told again from its end. */
export function forget() {
  if (shown?.log) fill(shown.log);
}

/** Draws what a link has carried in the last hour. */
async function showHistory({ link: { id, host } }, page) {
  const mine = shown;
  const map = await page.history();
  const link = map?.links.find((link) => link.id === id && link.host === host);
  if (shown !== mine || !link?.samples?.length) return;
  const now = Date.parse(map.time);
  const steps = 90;
  const rates = [];
  for (let step = 0; step < steps; step += 1) {
    const at = (share) => page.carriedAt(link.samples, now - 3_600_000 * (1 - share / steps));
    const [before, then] = [at(step), at(step + 1)];
    const bytes = (carried) => carried.bytes_in + carried.bytes_out;
    rates.push(before && then ? Math.max(0, bytes(then) - bytes(before)) / (3600 / steps) : 0);
  }
  const most = Math.max(...rates, 1);
  const points = rates.map((rate, index) => `${(index / (steps - 1) * 300).toFixed(1)},${(58 - rate / most * 54).toFixed(1)}`);
  const chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  chart.setAttribute("viewBox", "0 0 300 60");
  chart.setAttribute("class", "chart");
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `Bytes per second in the last hour, at most ${size(most)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  chart.append(line);
  mine.more.append(tag("h3", {}, `Last hour, at most ${size(most)}/s`), chart);
}
