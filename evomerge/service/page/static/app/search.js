// The search as it runs: scores against the baselines, what failed, what was found.
import { Chart } from "./chart.js";
import { Waiting, useRecord } from "./record.js";
import { ranked, scoresOption } from "./scores_chart.js";
import { html, useMemo } from "./view.js";
import { counted, gain, interval, score } from "./words.js";

const HEIGHT = 420;

export function Outcome({ outcome }) {
  if (!outcome) return null;
  const tone = outcome.verdict.replaceAll(" ", "-");
  return html`<div class=${`verdict ${tone}`}>
    <strong>${{ gained: "Gain", "not settled": "Not settled", "no gain": "No gain" }[outcome.verdict]}</strong>
    <p>${outcome.headline}</p>
  </div>`;
}

function Gains({ outcome }) {
  const won = outcome?.winner?.scores.score;
  if (!won || !outcome.gain) return null;
  return html`<dl class="tiles">
    <div>
      <dt>Winner, test items</dt>
      <dd>${score(won.value)}<small>${interval(won)}</small></dd>
    </div>
    <div>
      <dt>Winner − ${outcome.gain.against}</dt>
      <dd>
        ${gain(outcome.gain.value)}<small
          >${gain(outcome.gain.low)} to ${gain(outcome.gain.high)}</small
        >
      </dd>
    </div>
  </dl>`;
}

function Stroke({ paint, dash, width }) {
  return html`<svg width="26" height="10" aria-hidden="true">
    <line x1="0" x2="26" y1="5" y2="5" stroke=${`var(${paint})`} stroke-width=${width} stroke-dasharray=${dash} />
  </svg>`;
}

function Legend({ scored, failed }) {
  return html`<ul class="legend">
    ${scored &&
    html`<li><${Stroke} paint="--accent" dash="none" width="2.5" />generation mean</li>
      <li><${Stroke} paint="--c2" dash="2 3" width="1.5" />generation best</li>
      <li>
        <svg width="8" height="10" aria-hidden="true"><circle cx="4" cy="5" r="3" fill="var(--dot)" /></svg>
        candidate
      </li>`}
    <li><${Stroke} paint="--ink" dash="6 4" width="1.5" />base or parent</li>
    <li><${Stroke} paint="--line" dash="none" width="1.5" />default merge</li>
    <li>
      <svg width="8" height="12" aria-hidden="true">
        <line x1="4" x2="4" y1="0" y2="12" stroke="var(--ink)" stroke-width="2" />
        <circle cx="4" cy="6" r="2.5" fill="var(--ink)" /></svg
      >its 95% interval
    </li>
    ${failed &&
    html`<li>
      <svg width="10" height="10" aria-hidden="true">
        <path d="M1 1L9 9M9 1L1 9" stroke="var(--warn)" stroke-width="2" /></svg
      >failed
    </li>`}
  </ul>`;
}

// The names for the numbers in a narrow chart, which has no room for them; elsewhere not shown.
function Names({ lines }) {
  return html`<ol class="names" aria-label="Baselines in the chart">
    ${ranked(lines).map(
      (line) =>
        html`<li key=${line.candidate} class=${line.alone ? "alone" : undefined}>
          ${line.label} <span class="quiet">${score(line.score)}</span>
        </li>`,
    )}
  </ol>`;
}

function Baselines({ series }) {
  const tasks = [...new Set(series.lines.flatMap((line) => Object.keys(line.means)))];
  const lines = ranked(series.lines);
  return html`<details>
    <summary>Baselines in numbers</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="Baselines in numbers">
      <table>
        <thead>
          <tr>
            <th scope="col">baseline</th>
            <th scope="col" class="n">score</th>
            <th scope="col" class="n">95% interval</th>
            ${tasks.map((task) => html`<th scope="col" class="n">${task}</th>`)}
            <th scope="col" class="n">items</th>
          </tr>
        </thead>
        <tbody>
          ${lines.map(
            (line) =>
              html`<tr key=${line.candidate}>
                <td class="name">${line.label} ${line.alone && html`<span class="quiet">unmerged</span>`}</td>
                <td class="n">${score(line.score)}</td>
                <td class="n">${interval(line.interval)}</td>
                ${tasks.map(
                  (task) =>
                    html`<td class="n">${Object.values(line.means[task] ?? {}).map((v) => score(v)).join(" ")}</td>`,
                )}
                <td class="n">${line.items}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}

function Failures({ status }) {
  if (!status?.failures.length) return null;
  return html`<section>
    <h2>Failures</h2>
    <p class="caption">A failed candidate counts against the budget; the search goes on without it.</p>
    <table>
      <thead>
        <tr>
          <th scope="col">reason</th>
          <th scope="col" class="n">candidates</th>
        </tr>
      </thead>
      <tbody>
        ${status.failures.map(
          ({ reason, candidates }) =>
            html`<tr key=${reason}>
              <td class="name">${reason}</td>
              <td class="n">${candidates}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </section>`;
}

export function Search({ job, status, beat }) {
  const series = useRecord(job, "series", {}, [beat]);
  const outcome = useRecord(job, "winner", {}, [status?.finished]);
  const found = series.value?.search;
  const option = useMemo(
    () => found && ((width) => scoresOption(found, series.value.stages, width, HEIGHT)),
    [found],
  );
  const shown = outcome.problem ? null : outcome.value;
  const warnings = status?.warnings ?? [];
  return html`<${Outcome} outcome=${shown} />
    <${Gains} outcome=${shown} />
    ${warnings.map((text) => html`<p class="quiet" key=${text}>${text}</p>`)}
    <h2>Scores of the candidates</h2>
    <${Waiting} it=${series} words="The search has not scored anything yet." />
    ${found &&
    html`<p class="caption">
        ${counted(found.dots.length, "candidate")} scored. Each is scored on a sample of items, so a dot moves by
        chance as well as by merit: read the means.
      </p>
      <${Legend} scored=${found.generations.length > 0} failed=${found.crosses.length > 0} />
      <${Chart}
        size=${HEIGHT}
        option=${option}
        label=${`Scores of ${found.dots.length} candidates in ${found.generations.length} generations; generation means ${found.generations
          .slice(-12)
          .map((each) => score(each.mean, found.shares))
          .join(", ") || "none yet"}; baselines ${found.lines
          .map((line) => `${line.label} ${score(line.score)}`)
          .join(", ")}`}
      />
      <${Names} lines=${found.lines} />
      <${Baselines} series=${found} />`}
    <${Failures} status=${status} />`;
}
