// The family tree of a winner: its sources, and theirs where a search of this server made them.
import { get, path } from "./api.js";
import { Waiting, useRecord } from "./record.js";
import { hash } from "./place.js";
import { html, useEffect, useState } from "./view.js";
import { score } from "./words.js";

const MADE_HERE = /(?:job:|\/exports\/)(j[a-z2-7]{15})(?:\/|$)/;
const DEEPEST = 8;

// The export that wrote a model, and the search that it exports; null for a model from outside.
async function originOf(reference) {
  const id = MADE_HERE.exec(reference)?.[1];
  if (!id) return null;
  const made = await get(path("jobs", id));
  return made.parent ? { made, search: await get(path("jobs", made.parent)) } : null;
}

function Model({ reference, role, depth, scores }) {
  const [origin, setOrigin] = useState(null);
  useEffect(() => {
    let left = false;
    if (depth < DEEPEST) {
      originOf(reference).then(
        (value) => left || setOrigin(value),
        () => {}, // of a project that is not seen here, or purged
      );
    }
    return () => {
      left = true;
    };
  }, [reference]);
  const name = reference.split("/").filter(Boolean).at(-1);
  return html`<li>
    <strong>${origin ? origin.search.name : name}</strong> <span class="quiet small">${role}</span>
    ${scores && html` <span class="small">${score(scores.value)}</span>`}
    ${origin
      ? html`<div class="small quiet">
            exported by <a href=${hash(["job", origin.made.id])}>${origin.made.id}</a> of search
            <a href=${hash(["job", origin.search.id])}>${origin.search.name}</a>
          </div>
          <${Sources} job=${origin.search} depth=${depth + 1} />`
      : html`<div class="small quiet">${reference}</div>`}
  </li>`;
}

function Sources({ job, depth, models }) {
  const { base, sources } = job.request.models;
  const found = (reference, role) => {
    const name = reference.split("/").filter(Boolean).at(-1);
    return models?.find((model) => model.role === role && (role === "base" || model.label === name))?.score;
  };
  return html`<ul>
    ${sources.map(
      (source) =>
        html`<${Model} key=${source} reference=${source} role="source" depth=${depth} scores=${found(source, "parent")} />`,
    )}
    <${Model} reference=${base} role="base" depth=${depth} scores=${found(base, "base")} />
  </ul>`;
}

export function Family({ job, status }) {
  const scores = useRecord(job, "scores", {}, [status?.finished]);
  const outcome = useRecord(job, "winner", {}, [status?.finished]);
  const winner = outcome.problem ? null : outcome.value?.winner;
  const models = scores.value?.models;
  if (!scores.value && scores.problem?.status !== 409) return html`<${Waiting} it=${scores} />`;
  return html`<h2>Family tree</h2>
    <p class="caption">
      What this search merges, down to models from outside. Numbers are combined scores on this search’s test items.
    </p>
    <ul class="tree">
      <li>
        <strong>${winner ? winner.label : job.name}</strong>
        <span class="quiet small"> ${winner ? `winner of ${job.name}` : "a search without a winner yet"}</span>
        ${winner && html` <span class="small">${score(winner.scores.score.value)}</span>`}
        <${Sources} job=${job} depth=${1} models=${models} />
      </li>
    </ul>`;
}
