// The plan of a job: models, tasks, items, time and memory, before anything is searched.
import { html } from "./view.js";
import { bytes, counted, duration } from "./words.js";

const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

function range(pair) {
  if (!Array.isArray(pair)) return whole(pair);
  return pair[0] === pair[1] ? whole(pair[0]) : `${whole(pair[0])} to ${whole(pair[1])}`;
}

function hours(value) {
  if (value === null || value === undefined) return "not timed";
  const words = (each) => duration(each * 3600);
  return Array.isArray(value) ? `${words(value[0])} to ${words(value[1])}` : words(value);
}

export function Plan({ report }) {
  const { models = [], tasks = [], forecast = {}, memory, notes = [] } = report;
  const stages = forecast.stages ?? [];
  return html`<dl class="tiles">
      <div><dt>Items, all together</dt><dd>${range(forecast.total_items)}</dd></div>
      <div><dt>Worker time</dt><dd>${hours(report.hours)}</dd></div>
      ${memory &&
      html`<div>
        <dt>Memory, a worker</dt>
        <dd>
          ${bytes(memory.model_bytes + memory.merge_bytes)}<small>of ${bytes(memory.free_bytes)} free, ${memory.device}</small>
        </dd>
      </div>`}
      ${stages.map(
        (stage) =>
          html`<div>
            <dt>${stages.length > 1 ? `Stage ${stage.name}` : "Search"}</dt>
            <dd>
              ${counted(stage.genes.length, "gene")}<small
                >${stage.population} candidates in a generation, ${stage.generations} generations</small
              >
            </dd>
          </div>`,
      )}
    </dl>
    ${notes.length > 0 && notes.map((note) => html`<p>${note}</p>`)}
    <h3>Tasks</h3>
    <div class="scroll" tabindex="0" role="region" aria-label="Tasks of the plan">
      <table>
        <thead>
          <tr>
            <th scope="col">task</th>
            <th scope="col">metrics</th>
            <th scope="col" class="n">search items</th>
            <th scope="col" class="n">validation</th>
            <th scope="col" class="n">test</th>
            <th scope="col" class="n">interval on test, ±</th>
          </tr>
        </thead>
        <tbody>
          ${tasks.map(
            (task) =>
              html`<tr>
                <th scope="row">${task.name}</th>
                <td>${task.metrics.join(", ")}</td>
                <td class="n">${whole(task.items.search)}</td>
                <td class="n">${whole(task.items.validation)}</td>
                <td class="n">${whole(task.items.test)}</td>
                <td class="n">${task.half_width?.test?.toFixed(3) ?? "–"}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <h3>Work</h3>
    <div class="scroll" tabindex="0" role="region" aria-label="Work of the plan">
      <table>
        <thead>
          <tr>
            <th scope="col">phase</th>
            <th scope="col" class="n">models</th>
            <th scope="col" class="n">items</th>
          </tr>
        </thead>
        <tbody>
          ${(forecast.phases ?? []).map(
            (phase) =>
              html`<tr>
                <th scope="row">${phase.phase}${stages.length > 1 && phase.stage ? `, ${phase.stage}` : ""}</th>
                <td class="n">${range(phase.models)}</td>
                <td class="n">${range(phase.total_items)}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <details>
      <summary>Models and sample prompts</summary>
      <div class="scroll" tabindex="0" role="region" aria-label="Models of the plan">
        <table>
          <tbody>
            ${models.map(
              (model) =>
                html`<tr>
                  <th scope="row">${model.part}</th>
                  <td class="name">${model.reference}</td>
                  <td class="n">${whole(model.parameters)} parameters</td>
                  <td>${model.dtype}</td>
                  <td class="n">${model.layers} layers</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
      ${tasks.map(
        (task) =>
          html`<h3>${task.name}</h3>
            ${(task.shown ?? []).map(
              (item) =>
                html`<pre tabindex="0" role="region" aria-label=${`Prompt of ${task.name}, item ${item.item}`}>${[item.prompts].flat().join("\n")}${item.target ? `\n→ ${item.target}` : ""}</pre>`,
            )}`,
      )}
    </details>`;
}
