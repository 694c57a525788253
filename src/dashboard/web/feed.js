// The WebSocket to the daemon. It is opened again when it breaks, and says why it could not be.

const SLOWEST = 10_000;

/** `hear` is given each message, `tell` what state the connection is in. */
export function connect(hear, tell) {
  let socket = null;
  let watched = null;
  let pause = 500;

  const send = () => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ watch: watched }));
  };

  /** A browser keeps to itself why a WebSocket was refused. */
  const ask = async () => {
    try {
      const answer = await fetch("live");
      if (answer.status === 426) return "The connection broke off.";
      const text = await answer.text();
      const words = answer.headers.get("content-type")?.includes("json") ? JSON.parse(text).message : text;
      return answer.status === 401 ? "This page's token is no longer valid: run `nuncio dashboard` again." : words;
    } catch {
      return "The dashboard does not answer.";
    }
  };

  const open = () => {
    const address = new URL("live", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      pause = 500;
      tell("live", "");
      if (watched !== null) send();
    });
    socket.addEventListener("message", ({ data }) => hear(JSON.parse(data)));
    socket.addEventListener("close", async ({ reason }) => {
      const why = reason || (opened ? "The connection broke off." : await ask());
      tell("lost", `${why} Trying again …`);
      setTimeout(open, pause);
      pause = Math.min(pause * 2, SLOWEST);
    });
  };

  open();
  return {
    /** Has what a container writes and takes sent along; of null, no longer. */
    watch(id) {
      if (id === watched) return;
      watched = id;
      send();
    },
    /** Asks for it anew. */
    again: send,
  };
}
