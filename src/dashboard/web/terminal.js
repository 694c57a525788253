// A program in a container, with a terminal.

let parts = null;

function style() {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = "xterm.css";
  document.head.append(sheet);
  return new Promise((resolve) => {
    for (const end of ["load", "error"]) sheet.addEventListener(end, resolve);
  });
}

/** What the terminal is made of is fetched when one is opened. */
function load() {
  parts ??= Promise.all([import("./xterm.js"), import("./addon-fit.js"), style()])
    .then(([{ Terminal }, { FitAddon }]) => ({ Terminal, FitAddon }));
  return parts;
}

/** Opens one in `place`; what is returned closes it. */
export async function open(id, place) {
  const { Terminal, FitAddon } = await load();
  const terminal = new Terminal({ cursorBlink: true, fontSize: 13, scrollback: 2000 });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  fit.fit();
  const address = new URL(`containers/${encodeURIComponent(id)}/terminal`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = new URLSearchParams({ rows: terminal.rows, cols: terminal.cols });
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const bytes = new TextEncoder();
  const send = (data) => socket.readyState === WebSocket.OPEN && socket.send(data);
  let opened = false;
  socket.addEventListener("open", () => {
    opened = true;
    terminal.focus();
  });
  socket.addEventListener("message", ({ data }) => terminal.write(new Uint8Array(data)));
  socket.addEventListener("close", async ({ reason }) => {
    const why = reason || (opened ? "the connection broke off" : await refusal(address));
    terminal.write(`\r\n\x1b[2m[${why}]\x1b[0m\r\n`);
  });
  terminal.onData((text) => send(bytes.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  terminal.onResize(({ rows, cols }) => send(JSON.stringify({ rows, cols })));
  const watch = new ResizeObserver(() => fit.fit());
  watch.observe(place);
  return () => {
    watch.disconnect();
    socket.close();
    terminal.dispose();
  };
}

async function refusal(address) {
  const asked = new URL(address);
  asked.protocol = asked.protocol.replace("ws", "http");
  try {
    return (await (await fetch(asked)).json()).message;
  } catch {
    return "the dashboard does not answer";
  }
}
