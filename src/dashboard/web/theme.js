// Light or dark: as the system has it, until the switch says otherwise.

const KEPT = "nuncio-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosen() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function keep(theme) {
  try {
    localStorage.setItem(KEPT, theme);
  } catch { /* for this page alone, then */ }
}

export function begin(button) {
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    const other = theme === "dark" ? "light" : "dark";
    button.textContent = other === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to ${other} colours`);
  };
  show(chosen() ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => chosen() ?? show(dark.matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    keep(theme);
    show(theme);
  });
}
