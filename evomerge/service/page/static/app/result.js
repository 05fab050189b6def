// The result of a job that is no search.
import { Files } from "./exports.js";
import { Grid } from "./grid.js";
import { Block } from "./parts.js";
import { Plan } from "./plan.js";
import { ScoreTable } from "./scores.js";
import { html } from "./view.js";
import { missing } from "./words.js";

function Evaluation({ job }) {
  return html`<p class="caption">On the ${job.request.split} items of ${job.request.job.name}.</p>
    <${ScoreTable} models=${[job.result.scores]} label=${`Scores on the ${job.request.split} items`} />`;
}

function Calibration({ job }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Statistics">
      <table>
        <thead>
          <tr>
            <th scope="col">statistics</th>
            <th scope="col">model</th>
            <th scope="col">work</th>
          </tr>
        </thead>
        <tbody>
          ${job.result.statistics.map(
            (each) =>
              html`<tr key=${`${each.kind} ${each.model}`}>
                <th scope="row">${each.kind}</th>
                <td class="name">${each.model}</td>
                <td>${each.computed ? "computed" : "kept from before"}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="caption">A search on this server takes them by these lines of its job file:</p>
    <${Block} text=${`models:\n  statistics: job:${job.id}`} label="Use in a search" />
    <h2>Files</h2>
    <${Files} job=${job} />`;
}

const VIEWS = {
  grid: Grid,
  calibration: Calibration,
  evaluation: Evaluation,
  check: ({ job }) => html`<${Plan} report=${job.result.report} />`,
};

export function Result({ job }) {
  if (!job.result) return html`<p class="empty">${missing("There is no result", job.state)}</p>`;
  return html`<h2>Result</h2>
    <${VIEWS[job.kind]} job=${job} />`;
}
