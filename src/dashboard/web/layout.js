// Where everything stands. It follows from names alone, so that the picture does not jump when figures change.

const CHIP = { width: 168, height: 40 };
const GAP = { x: 28, y: 40 };
const PAD = 22;
const HEAD = 46;
const BETWEEN = { x: 270, y: 96 };
const LANE = 60;

/** How many chips stand side by side in a host: it is to become no wider than high. */
function columns(count) {
  return Math.max(1, Math.round(Math.sqrt(count / 3)));
}

function box(host, members) {
  const wide = columns(members.length);
  const rows = Math.max(1, Math.ceil(members.length / wide));
  const width = PAD * 2 + wide * CHIP.width + (wide - 1) * GAP.x;
  const height = HEAD + rows * CHIP.height + (rows - 1) * GAP.y + PAD;
  return { host, members, wide, width: Math.max(width, 240), height };
}

/** Rectangles by key, and how large all of it is. */
export function place(nodes) {
  const all = [...nodes.values()];
  const of = (kind) => all.filter((node) => node.kind === kind);
  const places = new Map();
  const row = (list, y, x) => {
    for (const node of list) {
      places.set(node.key, { x, y, ...CHIP });
      x += CHIP.width + GAP.x;
    }
    return x;
  };

  // Services stand above the hosts.
  const services = of("service");
  const outside = of("outside");
  const left = outside.length > 0 ? CHIP.width + BETWEEN.x * 0.8 : 0;
  row(services, 0, left);
  const top = services.length > 0 ? CHIP.height + LANE * 2 : 0;

  const hosts = of("host").map((host) => box(host, all.filter((node) => node.kind === "container" && node.host === host.key)));
  const across = Math.max(3, Math.ceil(Math.sqrt(hosts.length)));
  let [x, y, tallest, right] = [left, top, 0, left];
  hosts.forEach((one, index) => {
    if (index > 0 && index % across === 0) {
      [x, y, tallest] = [left, y + tallest + BETWEEN.y, 0];
    }
    places.set(one.host.key, { x, y, width: one.width, height: one.height });
    one.members.forEach((member, at) => {
      places.set(member.key, {
        x: x + PAD + (at % one.wide) * (CHIP.width + GAP.x),
        y: y + HEAD + Math.floor(at / one.wide) * (CHIP.height + GAP.y),
        ...CHIP,
      });
    });
    tallest = Math.max(tallest, one.height);
    x += one.width + BETWEEN.x;
    right = Math.max(right, x - BETWEEN.x);
  });
  outside.forEach((node) => places.set(node.key, { x: 0, y: top + HEAD, ...CHIP }));

  // What is told of and not there stands on the right.
  const known = (node) => places.has(node.key);
  all.filter((node) => !known(node)).forEach((node, index) => {
    places.set(node.key, { x: right + BETWEEN.x, y: top + HEAD + index * (CHIP.height + GAP.y), ...CHIP });
  });

  const rects = [...places.values()];
  const bounds = {
    x: Math.min(0, ...rects.map((rect) => rect.x)) - 40,
    y: Math.min(0, ...rects.map((rect) => rect.y)) - 40,
    right: Math.max(400, ...rects.map((rect) => rect.x + rect.width)) + 40,
    bottom: Math.max(240, ...rects.map((rect) => rect.y + rect.height)) + 40,
  };
  return { places, bounds };
}
