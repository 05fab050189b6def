// The outcome of a grid: every method by the number of experts, then every model.
import { html } from "./view.js";
import { counted, interval, score } from "./words.js";

const scored = (it) =>
  it ? html`${score(it.value)}<div class="small quiet">${interval(it)}</div>` : "–";

function Methods({ rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Methods">
    <table>
      <thead>
        <tr>
          <th scope="col">method</th>
          <th scope="col" class="n">experts</th>
          <th scope="col" class="n">merges</th>
          <th scope="col" class="n">failed</th>
          <th scope="col" class="n">held-in</th>
          <th scope="col" class="n">spread</th>
          <th scope="col" class="n">held-out</th>
          <th scope="col" class="n">spread</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) =>
            html`<tr key=${`${row.method} ${row.experts}`}>
              <th scope="row">${row.method}</th>
              <td class="n">${row.experts}</td>
              <td class="n">${row.merges}</td>
              <td class="n">${row.failed}</td>
              <td class="n">${scored(row.normalised.held_in)}</td>
              <td class="n">${score(row.spread_held_in)}</td>
              <td class="n">${scored(row.normalised.held_out)}</td>
              <td class="n">${score(row.spread_held_out)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Models({ models }) {
  const measures = [
    ...new Map(
      models.flatMap(({ means }) =>
        Object.entries(means).flatMap(([task, metrics]) =>
          Object.keys(metrics).map((metric) => [`${task}/${metric}`, [task, metric]]),
        ),
      ),
    ).values(),
  ];
  const failed = models.some((model) => model.failure);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Every model">
    <table>
      <thead>
        <tr>
          <th scope="col">model</th>
          <th scope="col" class="n">seed</th>
          <th scope="col" class="n">held-in</th>
          <th scope="col" class="n">held-out</th>
          ${measures.map(
            ([task, metric]) => html`<th scope="col" class="n">${task}<br /><span class="quiet">${metric}</span></th>`,
          )}
          ${failed && html`<th scope="col">failure</th>`}
        </tr>
      </thead>
      <tbody>
        ${models.map(
          (model) =>
            html`<tr key=${`${model.candidate} ${model.label}`}>
              <th scope="row" class="name">${model.label}<div class="small quiet">${model.role}</div></th>
              <td class="n">${model.seed ?? "–"}</td>
              <td class="n">${scored(model.normalised.held_in)}</td>
              <td class="n">${scored(model.normalised.held_out)}</td>
              ${measures.map(([task, metric]) => html`<td class="n">${score(model.means[task]?.[metric])}</td>`)}
              ${failed && html`<td class="name">${model.failure ?? ""}</td>`}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

export function Grid({ job }) {
  const { split, items, held_in: heldIn, held_out: heldOut, models, rows, notes } = job.result;
  return html`<p class="caption">
      Scored on the ${split} items: ${Object.entries(items).map(([task, count]) => `${counted(count, "item")} of ${task}`).join(", ")}.
    </p>
    <p class="small">
      Held-in: the mean over the tasks of a merge’s experts, each divided by its own expert’s score
      (${Object.entries(heldIn).map(([metric, expert]) => `${metric} by ${expert}`).join(", ")}).
      ${heldOut.length > 0 && ` Held-out: the mean over ${heldOut.join(", ")}, each divided by the base’s score.`}
    </p>
    ${notes.map((note) => html`<p key=${note}>${note}</p>`)}
    <h3>Methods</h3>
    <p class="caption">
      Means over the merges of a method, with their 95% intervals for a draw of other items. The
      spread is the standard deviation of the merges’ own scores.
    </p>
    <${Methods} rows=${rows} />
    <section>
      <h3>Every model</h3>
      <p class="caption">Scores of the tasks as they are, not divided.</p>
      <${Models} models=${models} />
    </section>`;
}
