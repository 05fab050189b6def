import { html } from "./view.js";

export function Compare() {
  return html`<h1>…</h1>`;
}
