// Light, dark, or what the system has; charts ask for the colours in use.
import { signal } from "./view.js";

const root = document.documentElement;
export const theme = signal(root.dataset.theme ?? "system");

// Changes with every change of colours, so that charts are drawn again.
export const colours = signal(0);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours.value += 1;
});

export function nextTheme() {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(theme.value) + 1) % order.length];
  theme.value = next;
  try {
    if (next === "system") localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
  } catch {
    // Storage is switched off: the choice holds until the page is left.
  }
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  colours.value += 1;
}

// "var(--name)" -> the colour that the style sheet gives now.
export function colour(text) {
  const name = /^var\((--[\w-]+)\)$/.exec(text)?.[1] ?? (text?.startsWith("--") ? text : null);
  return name ? getComputedStyle(root).getPropertyValue(name).trim() : text;
}
