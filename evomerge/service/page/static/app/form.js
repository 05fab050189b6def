import { html } from "./view.js";

export function JobForm() {
  return html`<h1>…</h1>`;
}
