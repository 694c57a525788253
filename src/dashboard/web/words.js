// Figures in words, as `nuncio map` has them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes, with three digits. */
export function size(bytes) {
  let unit = 0;
  while (bytes >= 1000 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  const text = unit === 0 ? String(Math.round(bytes)) : String(Number(bytes.toPrecision(3)));
  return `${text} ${UNITS[unit]}`;
}

export function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** Milliseconds. */
export function milliseconds(value) {
  if (value === null) return "–";
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

/** How long ago, of seconds. */
export function ago(seconds) {
  if (seconds < 60) return `${seconds} s ago`;
  const [minutes, rest] = [Math.floor(seconds / 60), seconds % 60];
  return rest === 0 ? `${minutes} min ago` : `${minutes} min ${rest} s ago`;
}

/** Of milliseconds since 1970. */
export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}

/** What passes by a link: one short line each. */
export function passes(edge) {
  const { figures } = edge;
  if (!figures) return ["straight, not counted"];
  const rest = [`${figures.open} open`, milliseconds(figures.latency), plural(figures.errors, "error")];
  return [rateOf(figures), rest.join(" · ")];
}

/** What goes straight to a service's containers is counted by its connections alone. */
function rateOf({ rate }) {
  if (!rate) return "no rate yet";
  if (rate.bytes_in + rate.bytes_out === 0 && rate.flows > 0) return `${rate.flows.toFixed(1)} flows/s`;
  return `↑ ${size(rate.bytes_in)}/s  ↓ ${size(rate.bytes_out)}/s`;
}

/** A link as a sentence, for who hears the map. */
export function spoken(edge, name) {
  const ends = `${edge.from.map(name).join(", ") || "anybody"} to ${edge.to.map(name).join(", ")}`;
  const { figures } = edge;
  if (!figures) return `Link from ${ends}: straight, not counted`;
  const rate = figures.rate
    ? `${size(figures.rate.bytes_in)} per second there, ${size(figures.rate.bytes_out)} per second back, `
    : "";
  const latency = figures.latency === null ? "" : `, connects in ${milliseconds(figures.latency)}`;
  return `Link from ${ends}: ${rate}${figures.open} open of ${plural(figures.flows, "flow")}, ${plural(figures.errors, "error")}${latency}`;
}
