import { html } from "./view.js";

export function YourData() {
  return html`<h1>…</h1>`;
}
