// A job: what it is, how far it is, what can be done with it, and a view for each question.
import { get, may, path } from "./api.js";
import { Actions } from "./actions.js";
import { Answers } from "./answers.js";
import { Candidates } from "./candidates.js";
import { Coefficients } from "./coefficients.js";
import { Exports } from "./exports.js";
import { Family } from "./family.js";
import { useEvents } from "./live.js";
import { Log } from "./log.js";
import { QUIET, Steps, stepsAfter } from "./news.js";
import { ProblemBox, State, useEvery, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { Population } from "./population.js";
import { Request } from "./request.js";
import { Result } from "./result.js";
import { Scores } from "./scores.js";
import { Search } from "./search.js";
import { html, useRef, useState } from "./view.js";
import { KINDS, counted, duration, moment, score } from "./words.js";

const TABS = {
  search: [
    ["search", "Search"],
    ["population", "Population"],
    ["coefficients", "Coefficients"],
    ["scores", "Scores"],
    ["answers", "Answers"],
    ["candidates", "Candidates"],
    ["exports", "Export"],
    ["family", "Family"],
    ["log", "Log"],
    ["request", "Job"],
  ],
  export: [
    ["exports", "Files"],
    ["log", "Log"],
    ["request", "Job"],
  ],
  other: [
    ["result", "Result"],
    ["log", "Log"],
    ["request", "Job"],
  ],
};
const OVER = ["succeeded", "failed", "cancelled"];
const RESTING = {
  queued: "It waits for its turn.",
  paused: "It is paused; its record is kept, and it goes on from there.",
};

// A number that grows when something happened, at most once in `seconds()`.
function useBeat(seconds) {
  const [beat, setBeat] = useState(0);
  const waiting = useRef(null);
  const mark = () => {
    waiting.current ??= setTimeout(() => {
      waiting.current = null;
      setBeat((old) => old + 1);
    }, seconds() * 1000);
  };
  return [beat, mark];
}

function Limits({ status, job }) {
  if (!status?.limits.length) return null;
  const words = { candidates: "candidates", hours: "worker hours", items: "items" };
  return html`<dl class="tiles">
    ${status.limits.map((limit) => {
      const left = Math.max(0, limit.most - limit.used);
      const shown = (value) =>
        limit.unit === "hours" ? value.toFixed(2) : Math.round(value).toLocaleString("en");
      return html`<div key=${limit.unit}>
        <dt>${words[limit.unit]} of the budget</dt>
        <dd>
          ${shown(limit.used)} <small class="quiet">of ${shown(limit.most)}; ${shown(left)} left</small>
          <progress
            max="1"
            value=${Math.min(1, limit.used / limit.most)}
            aria-label=${`${words[limit.unit]} used`}
          ></progress>
        </dd>
      </div>`;
    })}
    <div>
      <dt>Worker time so far</dt>
      <dd>${duration(status.worker_s)} <small>${counted(status.items, "item")} scored</small></dd>
    </div>
    ${status.best_candidate &&
    html`<div>
      <dt>Best candidate so far, search items</dt>
      <dd>
        ${score(status.best_candidate.score, status.shares)}
        <small>${status.best_candidate.candidate}; lucky as well as good</small>
      </dd>
    </div>`}
    ${status.best_parent &&
    html`<div>
      <dt>Best parent, search items</dt>
      <dd>
        ${score(status.best_parent.score)} <small>${status.best_parent.label}</small>
      </dd>
    </div>`}
    ${!OVER.includes(job.state) && status.candidates > 0 && status.limits[0].used < status.limits[0].most
      ? html`<div>
          <dt>Left, at this pace</dt>
          <dd>${duration(leftSeconds(status))}<small>of worker time, for the search alone</small></dd>
        </div>`
      : null}
  </dl>`;
}

// Worker seconds until the first limit, by what the search has used so far.
function leftSeconds(status) {
  const share = Math.max(...status.limits.map((limit) => limit.used / limit.most));
  return share > 0 ? Math.max(0, (status.worker_s / share) * (1 - share)) : null;
}

export function JobPage({ id, tab }) {
  const size = useRef(0); // candidates, as far as is known
  const [beat, mark] = useBeat(() => (size.current > 2000 ? 5 : 1.2));
  const [steps, setSteps] = useState({});
  const [connected, setConnected] = useState(true);
  const [state, setState] = useState(null);
  const job = useFetched((stop) => get(path("jobs", id), {}, stop), [id, state?.seq]);
  const isSearch = job.value?.kind === "search";
  const status = useFetched(
    (stop) => (isSearch ? get(path("jobs", id, "status"), {}, stop).catch(notYet) : Promise.resolve(null)),
    [id, isSearch, beat, state?.seq],
  );
  const first = useRef(null);
  const moving = job.value && !OVER.includes(job.value.state);
  size.current = status.value?.candidates ?? 0;
  // An ended job has no news, until it goes on. A search has a record that says how far it is; of
  // others that is counted, from the first event on.
  if (first.current === null && moving) first.current = isSearch ? job.value.last_event : 0;

  useEvents(
    id,
    first.current,
    (event) => {
      if (event.event === "end") {
        job.again();
        mark();
        return;
      }
      if (event.event === "state") setState(event);
      else setSteps((old) => stepsAfter(old, event));
      if (!QUIET.has(event.event)) mark();
    },
    setConnected,
  );
  // Where the job moves without an event that this page saw, and for its used time. The server may
  // have answered the last event with what it had read a little before.
  const look = () => {
    job.again();
    mark();
  };
  useEvery(job.value && !OVER.includes(job.value.state) ? 10 : 0, look, [id, job.value?.state]);

  if (!job.value) return html`<${ProblemBox} problem=${job.problem} />`;
  const it = job.value;
  const tabs = TABS[it.kind] ?? TABS.other;
  const shown = tabs.some(([name]) => name === tab) ? tab : tabs[0][0];
  return html`<div class="head">
      <div>
        <div class="eyebrow">
          ${KINDS[it.kind]} <code>${it.id}</code>, by ${it.owner}, project ${it.project}
          ${it.parent && html`, of <a href=${hash(["job", it.parent])}>${it.parent}</a>`}
        </div>
        <h1>${it.name || it.id}</h1>
        <div class="row">
          <${State} job=${it} />
          <span class="small quiet"
            >${it.started ? `began ${moment(it.started)}` : `queued ${moment(it.queued)}`}${it.ended
              ? `, ended ${moment(it.ended)}`
              : ""}${it.attempts > 1 ? `, attempt ${it.attempts}` : ""}${it.used_s
              ? `, ${duration(it.used_s)} used`
              : ""}</span
          >
        </div>
      </div>
      ${may("runner") && html`<${Actions} job=${it} status=${status.value} onChange=${job.again} />`}
    </div>
    <p class="unseen" role="status" aria-live="polite">
      ${it.state}${status.value?.limits.length
        ? `, ${Math.floor(status.value.limits[0].used)} of ${status.value.limits[0].most} ${status.value.limits[0].unit}`
        : ""}
    </p>
    ${it.message && html`<div class="problem"><strong>${it.cause ?? "failed"}</strong><p>${it.message}</p></div>`}
    ${moving &&
    (!connected
      ? html`<p class="small quiet">The server does not answer; this page goes on when it does.</p>`
      : RESTING[it.state]
        ? html`<p class="small quiet">${RESTING[it.state]}</p>`
        : html`<${Steps} steps=${steps} />`)}
    ${isSearch && html`<${Limits} status=${status.value} job=${it} />`}
    <nav class="tabs" aria-label="Views of this job">
      ${tabs.map(
        ([name, label]) =>
          html`<a
            key=${name}
            href=${hash(["job", it.id, name])}
            aria-current=${name === shown ? "page" : undefined}
            >${label}</a
          >`,
      )}
    </nav>
    ${(!isSearch || status.known) &&
    html`<${Tab} name=${shown} job=${it} status=${status.value} beat=${beat} />`}`;
}

function notYet(problem) {
  if (problem.status === 409) return null;
  throw problem;
}

function Tab({ name, ...rest }) {
  const views = {
    search: Search,
    population: Population,
    coefficients: Coefficients,
    scores: Scores,
    answers: Answers,
    candidates: Candidates,
    exports: Exports,
    family: Family,
    log: Log,
    request: Request,
    result: Result,
  };
  return html`<section key=${name}><${views[name]} ...${rest} /></section>`;
}
