import { html } from "./view.js";

export function Admin() {
  return html`<h1>…</h1>`;
}
