// A figure of the report, with its title.
import { Chart } from "./chart.js";
import { plotOption } from "./plot.js";
import { html, useMemo } from "./view.js";

export function Figure({ figure, title }) {
  const option = useMemo(() => (width) => plotOption(figure, width), [figure]);
  return html`<figure class="figure">
    <h3>${title ?? figure.title}</h3>
    <${Chart} option=${option} height=${figure.height} label=${figure.description} />
  </figure>`;
}
