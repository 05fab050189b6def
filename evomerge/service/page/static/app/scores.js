// Scores on the test items: every model beside its parents, task by task; the front to pick from.
import { Chart, tip } from "./chart.js";
import { Figure } from "./figure.js";
import { hash } from "./place.js";
import { Waiting, useRecord } from "./record.js";
import { Outcome } from "./search.js";
import { html, useMemo, useState } from "./view.js";
import { interval, score } from "./words.js";

export function ScoreTable({ models, winner, label }) {
  const measures = [
    ...new Map(
      models.flatMap((model) =>
        Object.entries(model.tasks).flatMap(([task, metrics]) =>
          Object.keys(metrics).map((metric) => [`${task}/${metric}`, [task, metric]]),
        ),
      ),
    ).values(),
  ];
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label ?? "Scores on the test items"}>
    <table>
      <caption>
        Each score with its 95% interval.
      </caption>
      <thead>
        <tr>
          <th scope="col">model</th>
          <th scope="col" class="n">combined</th>
          ${measures.map(
            ([task, metric]) => html`<th scope="col" class="n">${task}<br /><span class="quiet">${metric}</span></th>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${models.map(
          (model) =>
            html`<tr key=${model.label} class=${model.label === winner ? "won" : ""}>
              <th scope="row" class="name">
                ${model.label}<div class="small quiet">${model.role}</div>
              </th>
              <td class="n">${score(model.score.value)}<div class="small quiet">${interval(model.score)}</div></td>
              ${measures.map(([task, metric]) => {
                const it = model.tasks[task]?.[metric];
                return html`<td class="n">${score(it?.value)}<div class="small quiet">${interval(it)}</div></td>`;
              })}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function axesOf(points) {
  return [
    ...new Map(
      points.flatMap((point) =>
        Object.entries(point.test.tasks).flatMap(([task, metrics]) =>
          Object.keys(metrics).map((metric) => [`${task}/${metric}`, { task, metric }]),
        ),
      ),
    ),
  ].map(([name, axis]) => ({ name, ...axis }));
}

function frontOption(outcome, models, across, up, chosen) {
  const of = (summary, axis) => summary.tasks[axis.task]?.[axis.metric];
  const names = new Set(outcome.points.map((point) => point.label));
  const rows = [
    ...outcome.points.map((point) => ({ label: point.label, summary: point.test, point: true })),
    ...models.filter((model) => !names.has(model.label)).map((model) => ({ label: model.label, summary: model, point: false })),
  ].filter((row) => of(row.summary, across) && of(row.summary, up));
  return {
    grid: { left: 54, right: 90, top: 16, bottom: 50 },
    xAxis: { type: "value", scale: true, name: across.name, nameGap: 30 },
    yAxis: { type: "value", scale: true, name: up.name, nameGap: 40 },
    series: [
      {
        type: "scatter",
        cursor: "pointer",
        data: rows.map((row) => ({
          name: row.label,
          value: [of(row.summary, across).value, of(row.summary, up).value],
          symbol: row.point ? "diamond" : "circle",
          symbolSize: row.label === chosen ? 17 : row.point ? 12 : 8,
          itemStyle: { color: row.point ? "var(--accent)" : "var(--neutral)", borderColor: "var(--ink)", borderWidth: row.label === chosen ? 2 : 0 },
          label: { show: true, position: "right", formatter: row.label, color: "var(--ink-2)", fontSize: 11 },
        })),
        labelLayout: { moveOverlap: "shiftY", hideOverlap: true },
        tooltip: {
          formatter: ({ dataIndex }) => {
            const { label, summary } = rows[dataIndex];
            return tip(
              label,
              `${across.name} ${score(of(summary, across).value)} (${interval(of(summary, across))})`,
              `${up.name} ${score(of(summary, up).value)} (${interval(of(summary, up))})`,
            );
          },
        },
      },
    ],
  };
}

function Front({ job, outcome, models, objectives }) {
  const every = axesOf(outcome.points);
  const wanted = every.filter((axis) => objectives.has(axis.name));
  const axes = wanted.length > 1 ? wanted : every;
  const [x, setX] = useState(0);
  const [y, setY] = useState(Math.min(1, axes.length - 1));
  const [chosen, setChosen] = useState(outcome.points[0]?.label);
  const option = useMemo(
    () => frontOption(outcome, models, axes[x], axes[y], chosen),
    [outcome, models, x, y, chosen],
  );
  const point = outcome.points.find((each) => each.label === chosen);
  const choose = (label, value, set) => html`<label
    >${label}<select value=${value} onChange=${(event) => set(Number(event.target.value))}>
      ${axes.map((axis, n) => html`<option value=${n}>${axis.name}</option>`)}
    </select></label
  >`;
  return html`<section>
    <h2>The front</h2>
    <p class="caption">
      No point of the front is better than another on every objective. Choose one, in the picture or in the list, and
      export it.
    </p>
    <div class="filters">${choose("Across", x, setX)} ${choose("Up", y, setY)}</div>
    <div class="beside">
      <${Chart}
        size=${420}
        option=${option}
        label=${`Front: ${outcome.points.map((each) => each.label).join(", ")}`}
        onPick=${({ name }) => outcome.points.some((each) => each.label === name) && setChosen(name)}
      />
      <div>
        <fieldset>
          <legend>Points</legend>
          <div class="choices">
            ${outcome.points.map(
              (each) =>
                html`<label key=${each.label}
                  ><input
                    type="radio"
                    name="point"
                    checked=${each.label === chosen}
                    onChange=${() => setChosen(each.label)}
                  />${each.label}</label
                >`,
            )}
          </div>
        </fieldset>
        ${point &&
        html`<p>
            ${axes.map((axis) => {
              const it = point.test.tasks[axis.task]?.[axis.metric];
              return html`<span class="small">${axis.name}: <strong>${score(it?.value)}</strong> <span class="quiet">${interval(it)}</span><br /></span>`;
            })}
            ${point.dominates.length > 0 && html`<span class="small">dominates ${point.dominates.join(", ")}</span>`}
          </p>
          <a class="button main" href=${hash(["job", job.id, "exports"], { point: point.label })}>Export this point</a>`}
      </div>
    </div>
  </section>`;
}

export function Scores({ job, status }) {
  const outcome = useRecord(job, "winner", {}, [status?.finished]);
  const scores = useRecord(job, "scores", {}, [status?.finished]);
  const figures = useRecord(job, "figures", {}, [status?.finished]);
  if (!outcome.value) {
    return html`<${Waiting}
      it=${outcome}
      words="Test items are scored at the end, when the winner is chosen. Until then see the search and its baselines."
    />`;
  }
  const models = [...new Map((scores.value?.models ?? []).map((model) => [model.label, model])).values()];
  const objectives = new Set((job.request.objectives ?? []).map((each) => `${each.task}/${each.metric}`));
  const places = Object.entries(figures.value?.figures ?? {});
  const drawn = places.filter(([place]) => place.startsWith("test.") || place.startsWith("front."));
  return html`<${Outcome} outcome=${outcome.value} />
    ${outcome.value.points.length > 0 &&
    html`<${Front} job=${job} outcome=${outcome.value} models=${models} objectives=${objectives} />`}
    <section>
      <h2>Every model on the test items</h2>
      ${models.length > 0 && html`<${ScoreTable} models=${models} winner=${outcome.value.winner?.label} />`}
    </section>
    <section>
      <h2>Task by task</h2>
      ${!figures.value && html`<${Waiting} it=${figures} />`}
      <div class="panels">
        ${drawn.map(([place, figure]) => html`<${Figure} key=${place} figure=${figure} title=${titleOf(place, figure)} />`)}
      </div>
    </section>`;
}

function titleOf(place, figure) {
  const axis = figure.spec.layout.xaxis?.title?.text;
  return place.startsWith("test.tasks") && axis ? `${figure.title}, ${axis}` : figure.title;
}
