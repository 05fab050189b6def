// Coefficients over depth as a heat map, and the route where the search has routes.
import { Chart } from "./chart.js";
import { Figure } from "./figure.js";
import { heatHeight, heatOption } from "./heat.js";
import { Waiting, useRecord } from "./record.js";
import { html, useMemo } from "./view.js";
import { number } from "./words.js";

function Merge({ merge }) {
  const parameters = [...new Set(merge.rows.map((row) => row.parameter))];
  return html`<section>
    <h2>${merge.title}</h2>
    <p class="caption">${merge.label}. Layers are numbered from the embedding to the head.</p>
    ${parameters.map(
      (parameter) =>
        html`<${Depth}
          key=${parameter}
          parameter=${parameter}
          rows=${merge.rows.filter((row) => row.parameter === parameter)}
          depth=${merge.depth}
        />`,
    )}
    ${merge.outer.length > 0 &&
    html`<details>
      <summary>Outside the layers</summary>
      <table>
        <tbody>
          ${merge.outer.map(
            (outer) =>
              html`<tr>
                <th scope="row">${outer.parameter}</th>
                <td class="name">${outer.tensors.join(", ")}</td>
                <td>
                  ${Object.entries(outer.values)
                    .map(([model, value]) => `${model} ${number(value)}`)
                    .join(", ")}
                </td>
              </tr>`,
          )}
        </tbody>
      </table>
    </details>`}
    ${Object.keys(merge.fixed).length > 0 &&
    html`<p class="quiet small">
      ${Object.entries(merge.fixed)
        .map(([name, value]) => `${name}: ${value}`)
        .join("; ")}
    </p>`}
  </section>`;
}

function Depth({ parameter, rows, depth }) {
  const names = rows.map((row) => (row.model ? `${row.model}, ${row.component}` : row.component));
  const option = useMemo(
    () => (width) =>
      heatOption(
        {
          rows: names,
          columns: Array.from({ length: depth }, (_, layer) => layer),
          values: rows.map((row) => row.values),
          columnName: "layer",
          said: (row, layer, value) => [names[row], `layer ${layer}`, `${parameter} ${number(value)}`],
        },
        width,
      ),
    [rows, depth],
  );
  return html`<h3>${parameter}</h3>
    <${Chart}
      option=${option}
      height=${heatHeight(rows.length, 150)}
      label=${`${parameter} over ${depth} layers for ${names.join("; ")}`}
    />`;
}

export function Coefficients({ job, status }) {
  const found = useRecord(job, "coefficients", {}, [status?.generations, status?.finished]);
  const figures = useRecord(job, "figures", {}, [status?.generations, status?.finished]);
  const routes = Object.entries(figures.value?.figures ?? {}).filter(([place]) => place.startsWith("routes"));
  return html`${routes.length > 0 &&
    html`<section>
      <h2>Routes</h2>
      <p class="caption">
        The way of an input through the layers of the models: a column for each model, from the embedding below to the
        head above.
      </p>
      ${routes.map(([place, figure]) => html`<${Figure} key=${place} figure=${figure} />`)}
    </section>`}
    ${found.value?.merges.map((merge) => html`<${Merge} key=${merge.title} merge=${merge} />`)}
    ${!found.value && html`<${Waiting} it=${found} words="No candidate is recorded yet." />`}
    ${found.value && !found.value.merges.length && !routes.length &&
    html`<p class="empty">No merge is recorded yet.</p>`}`;
}
