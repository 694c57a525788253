// From what the daemon tells to what is drawn: nodes, edges and their figures, now or in the last hour.

/** Milliseconds over which a rate of the past is taken: that between two samples. */
const STEP = 10_000;
/** Milliseconds for which an error is new. */
const RECENT = 15_000;

/** What was seen of each link before, for what has changed since. */
const seen = new Map();

/** What one link has carried by `time`, of its samples; null before there were any. */
export function carriedAt(samples, time) {
  let found = null;
  for (const [then, carried] of samples) {
    if (then > time) break;
    found = carried;
  }
  return found;
}

function meanLatency(carried) {
  return carried.connects > 0 ? carried.connect_micros / carried.connects / 1000 : null;
}

/** The time it took to connect of late, else of all connections. */
function latencySince(now, before) {
  const connects = before ? now.connects - before.connects : 0;
  if (connects <= 0) return meanLatency(now);
  return (now.connect_micros - before.connect_micros) / connects / 1000;
}

/** Several hosts may have a link of one name. */
export function keyOf(link, map) {
  return link.host === map.host ? link.id : `${link.id}@${link.host}`;
}

function figuresNow(link, key, time) {
  if (!link.carried) return null;
  const last = seen.get(key);
  const { carried } = link;
  const changed = last && carried.connects !== last.carried.connects && carried.connects >= last.carried.connects;
  const latency = changed ? latencySince(carried, last.carried) : last?.latency ?? meanLatency(carried);
  let failed = last?.failed ?? -Infinity;
  if (last && carried.errors > last.carried.errors) failed = time;
  seen.set(key, { carried, latency, failed });
  return { ...carried, rate: link.rate, latency, failing: time - failed < RECENT };
}

function figuresThen(link, time) {
  if (!link.carried) return null;
  const none = { open: 0, flows: 0, bytes_in: 0, bytes_out: 0, errors: 0, connects: 0, connect_micros: 0 };
  const then = carriedAt(link.samples ?? [], time);
  if (!then) return { ...none, rate: null, latency: null, failing: false, unknown: true };
  // Samples that came from elsewhere may have been thinned out.
  const step = STEP * (link.every ?? 1);
  const before = carriedAt(link.samples, time - step);
  const per = (key) => (before ? Math.max(0, then[key] - before[key]) / (step / 1000) : 0);
  const rate = { bytes_in: per("bytes_in"), bytes_out: per("bytes_out"), flows: per("flows") };
  const failing = before !== null && then.errors > before.errors;
  return { ...then, rate, latency: latencySince(then, before), failing };
}

/** Nodes and edges. `at`: milliseconds since 1970, or null for now. */
export function build(map, at) {
  const nodes = new Map();
  const add = (node) => nodes.set(node.key, node);
  const hosts = [...map.hosts].sort((one, other) => one.name.localeCompare(other.name));
  const containers = [...map.containers].sort((one, other) => one.name.localeCompare(other.name) || one.id.localeCompare(other.id));
  const paths = new Map(map.paths.map((path) => [path.to, path]));
  for (const host of hosts) {
    add({ key: `host/${host.id}`, kind: "host", name: host.name, host, own: host.id === map.host, path: paths.get(host.id) ?? null });
  }
  for (const container of containers) {
    add({ key: `container/${container.id}`, kind: "container", name: container.name, container, host: `host/${container.host}` });
  }
  for (const service of map.services) {
    add({ key: service.id, kind: "service", name: service.name, service });
  }
  const byName = new Map();
  for (const container of containers) {
    const key = `container/${container.id}`;
    if (!byName.has(container.name) || container.state === "running") byName.set(container.name, key);
  }
  const edges = [];
  for (const service of map.services) {
    for (const member of service.members) {
      const to = `container/${member}`;
      if (!nodes.has(to)) continue;
      edges.push({ key: `member/${service.id}/${member}`, kind: "member", from: [service.id], to: [to], figures: null, quiet: true });
    }
  }
  const time = Date.parse(map.time);
  for (const link of map.links) {
    const from = link.from.map((id) => end(id, link, nodes, add));
    const to = link.to.map((name) => target(name, link, nodes, byName, add));
    // Of a service it is known which host asked for it, not which container.
    if (link.kind === "service" && from.length === 0) from.push(`host/${link.host}`);
    const figures = at === null ? figuresNow(link, keyOf(link, map), time) : figuresThen(link, at);
    edges.push({ key: keyOf(link, map), kind: link.kind, alias: link.alias, way: link.way, from, to, figures, link });
  }
  const live = new Set(map.links.map((link) => keyOf(link, map)));
  for (const id of seen.keys()) if (!live.has(id)) seen.delete(id);
  return { nodes, edges: edges.filter((edge) => edge.from.length > 0 || edge.to.length > 0) };
}

function end(id, link, nodes, add) {
  if (id === "outside") {
    add({ key: "outside", kind: "outside", name: "outside" });
    return "outside";
  }
  const key = `container/${id}`;
  if (!nodes.has(key)) add({ key, kind: "missing", name: id.slice(0, 12) });
  return key;
}

/** The node that a link leads to; one that is not there is shown as missing, for the link still is. */
function target(name, link, nodes, byName, add) {
  if (nodes.has(name)) return name;
  const found = byName.get(name);
  if (found) return found;
  const key = `missing/${name}`;
  add({ key, kind: "missing", name });
  return key;
}

/** Whether a node or edge is what somebody looks for; an edge is by what it joins, too. */
export function matches(text, thing, nodes) {
  const ends = [...(thing.from ?? []), ...(thing.to ?? [])].map((key) => nodes.get(key)?.name);
  const words = [...(thing.quiet ? [] : ends), thing.name, thing.key, thing.kind, thing.alias, thing.container?.state, thing.container?.id,
    thing.host?.address, ...Object.values(thing.container?.networks ?? {}), ...Object.keys(thing.container?.networks ?? {})];
  return words.some((word) => typeof word === "string" && word.toLowerCase().includes(text));
}
