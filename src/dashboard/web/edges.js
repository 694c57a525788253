// The ways of edges between rectangles, and where their labels stand.

const LABEL = { width: 206, height: 36 };

/** Which sides of two rectangles an edge joins, by how they lie. */
function sides(from, to) {
  const gap = 40;
  // Past what stands between them in one column.
  const between = Math.max(to.y - from.y - from.height, from.y - to.y - to.height);
  if (from.x === to.x && between > gap) return ["right", "right"];
  if (to.x > from.x + from.width + gap) return ["right", "left"];
  if (to.x + to.width + gap < from.x) return ["left", "right"];
  if (to.y > from.y + from.height + gap) return ["bottom", "top"];
  if (to.y + to.height + gap < from.y) return ["top", "bottom"];
  return ["right", "right"];
}

function point(rect, side, share) {
  const along = (start, length) => start + length * share;
  switch (side) {
    case "left": return { x: rect.x, y: along(rect.y, rect.height), dx: -1, dy: 0 };
    case "right": return { x: rect.x + rect.width, y: along(rect.y, rect.height), dx: 1, dy: 0 };
    case "top": return { x: along(rect.x, rect.width), y: rect.y, dx: 0, dy: -1 };
    default: return { x: along(rect.x, rect.width), y: rect.y + rect.height, dx: 0, dy: 1 };
  }
}

function curve(start, end) {
  const reach = Math.max(50, Math.hypot(end.x - start.x, end.y - start.y) * 0.4);
  const one = { x: start.x + start.dx * reach, y: start.y + start.dy * reach };
  const two = { x: end.x + end.dx * reach, y: end.y + end.dy * reach };
  const at = (t) => {
    const mix = (a, b, c, d) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
    return { x: mix(start.x, one.x, two.x, end.x), y: mix(start.y, one.y, two.y, end.y) };
  };
  const text = [start, one, two, end].map(({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`);
  return { d: `M${text[0]}C${text[1]} ${text[2]} ${text[3]}`, at };
}

const apart = (one, other) => one.x + one.width < other.x || other.x + other.width < one.x
  || one.y + one.height < other.y || other.y + other.height < one.y;

/** For each edge its ways, as SVG has them, and where its label stands, if it has one. */
export function routes(edges, places) {
  const strands = [];
  for (const edge of edges) {
    for (const from of edge.from) {
      for (const to of edge.to) {
        const [start, end] = [places.get(from), places.get(to)];
        if (!start || !end) continue;
        strands.push({ edge, from, to, start, end, sides: sides(start, end) });
      }
    }
  }
  // Those that join one side of a rectangle share it, in the order of where they lead.
  const ports = new Map();
  const port = (key, side, strand, other) => {
    const list = ports.get(`${key} ${side}`) ?? [];
    list.push({ strand, other });
    ports.set(`${key} ${side}`, list);
  };
  for (const strand of strands) {
    port(strand.from, strand.sides[0], strand, strand.end);
    port(strand.to, strand.sides[1], strand, strand.start);
  }
  const shares = new Map();
  for (const [key, list] of ports) {
    list.sort((one, other) => one.other.y - other.other.y || one.other.x - other.other.x || one.strand.edge.key.localeCompare(other.strand.edge.key));
    list.forEach((entry, index) => shares.set(`${key} ${strands.indexOf(entry.strand)}`, (index + 1) / (list.length + 1)));
  }
  const found = new Map();
  // Of a host, what is written in it is in the way, not all of it.
  const taken = [...places.entries()].map(([key, rect]) => (key.startsWith("host/") ? { ...rect, height: 42 } : rect));
  strands.forEach((strand, index) => {
    const start = point(strand.start, strand.sides[0], shares.get(`${strand.from} ${strand.sides[0]} ${index}`));
    const end = point(strand.end, strand.sides[1], shares.get(`${strand.to} ${strand.sides[1]} ${index}`));
    const way = curve(start, end);
    const route = found.get(strand.edge.key) ?? { ways: [], label: null };
    route.ways.push(way.d);
    if (!route.label && !strand.edge.quiet) route.label = label(way, taken);
    found.set(strand.edge.key, route);
  });
  return found;
}

/** Where on its way a label is in nobody's way; below all of them, if there is no such place. */
function label(way, taken) {
  const around = (middle, down) => ({ x: middle.x - LABEL.width / 2, y: middle.y - LABEL.height / 2 + down, ...LABEL });
  const free = (rect) => taken.every((other) => apart(rect, other));
  const tries = [0.5, 0.4, 0.6, 0.3, 0.7].map((t) => around(way.at(t), 0));
  for (let down = 1; down < 30; down += 1) {
    tries.push(around(way.at(0.5), down * (LABEL.height / 2 + 2)), around(way.at(0.5), -down * (LABEL.height / 2 + 2)));
  }
  const rect = tries.find(free) ?? tries[0];
  taken.push(rect);
  return rect;
}
