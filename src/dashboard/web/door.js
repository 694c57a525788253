// Gives the token behind the address's # for a cookie, which this page's scripts cannot read.

const told = document.getElementById("told");

async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  told.textContent = "…";
  // The token is to be in no history, whatever comes of it.
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("login", { method: "POST", body: token });
  if (answer.ok) location.replace("./");
  else told.textContent = await answer.text();
}

addEventListener("hashchange", enter);
enter().catch((error) => { told.textContent = `The dashboard does not answer: ${error.message}`; });
