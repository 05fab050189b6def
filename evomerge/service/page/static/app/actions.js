// What can be done with a job: pause, resume with a larger budget, cancel, retry, copy, delete.
import { path, post, send } from "./api.js";
import { Dialog, ProblemBox, tell, useKeptFocus } from "./parts.js";
import { go, hash } from "./place.js";
import { html, useState } from "./view.js";

const UNITS = { candidates: "candidates", hours: "worker hours", items: "items" };

function Resume({ job, status, onDone, onClose }) {
  // What a job was resumed with before counts, and not what it was submitted with.
  const budget = status?.limits.length
    ? Object.fromEntries(status.limits.map((limit) => [limit.unit, limit.most]))
    : (job.request.budget ?? {});
  const [values, setValues] = useState(() =>
    Object.fromEntries(Object.keys(UNITS).map((unit) => [unit, budget[unit] ?? ""])),
  );
  const [problem, setProblem] = useState(null);
  const resume = async (event) => {
    event.preventDefault();
    const set = Object.fromEntries(
      Object.entries(values)
        .filter(([unit, value]) => String(value) !== String(budget[unit] ?? "") && value !== "")
        .map(([unit, value]) => [`budget.${unit}`, Number(value)]),
    );
    try {
      await post(`${path("jobs", job.id)}/resume`, { set });
      onDone("The job goes on from its record.");
    } catch (refused) {
      setProblem(refused);
    }
  };
  return html`<${Dialog} title="Resume" onClose=${onClose}>
    <p class="quiet">It goes on from its record. An ended search needs a larger budget.</p>
    <${ProblemBox} problem=${problem} />
    <form onSubmit=${resume}>
      ${job.kind === "search" &&
      Object.entries(UNITS).map(
        ([unit, words]) =>
          html`<div class="field" key=${unit}>
            <label for=${`budget-${unit}`}>Budget, ${words}</label>
            <input
              id=${`budget-${unit}`}
              class="short"
              type="number"
              min="0"
              step=${unit === "hours" ? "any" : 1}
              placeholder="no limit"
              value=${values[unit]}
              onInput=${(event) => setValues({ ...values, [unit]: event.target.value })}
            />
          </div>`,
      )}
      <div class="row">
        <button class="main">Resume</button>
        <button type="button" onClick=${onClose}>Close</button>
      </div>
    </form>
  <//>`;
}

function Sure({ title, words, button, act, onClose }) {
  const [problem, setProblem] = useState(null);
  const yes = async () => {
    try {
      await act();
      onClose();
    } catch (refused) {
      setProblem(refused);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${words}</p>
    <${ProblemBox} problem=${problem} />
    <div class="row">
      <button class="danger" onClick=${yes}>${button}</button>
      <button autofocus onClick=${onClose}>Leave it</button>
    </div>
  <//>`;
}

export function Actions({ job, status, onChange }) {
  const [open, setOpen] = useState(null);
  const group = useKeptFocus();
  const act = async (what, said) => {
    try {
      await post(`${path("jobs", job.id)}/${what}`);
      tell(said);
    } catch (refused) {
      tell(refused.message);
    }
    onChange();
  };
  const close = () => setOpen(null);
  const done = (said) => {
    tell(said);
    close();
    onChange();
  };
  const { state } = job;
  const moving = ["queued", "starting", "running"].includes(state) && job.wanted === "run";
  const resumable = state === "paused" || (state === "succeeded" && job.kind === "search");
  return html`<div class="row" ref=${group} role="group" aria-label="What can be done" tabindex="-1">
    ${moving && html`<button onClick=${() => act("pause", "The job will pause; its record is kept.")}>Pause</button>`}
    ${resumable &&
    html`<button class=${state === "paused" ? "main" : ""} onClick=${() => setOpen("resume")}>
      ${state === "paused" ? "Resume …" : "Go on …"}
    </button>`}
    ${["failed", "cancelled"].includes(state) &&
    html`<button class="main" onClick=${() => act("retry", "The job is queued again.")}>Retry</button>`}
    ${(moving || state === "paused") && html`<button class="danger" onClick=${() => setOpen("cancel")}>Cancel …</button>`}
    ${job.kind === "search" &&
    html`<a class="button" href=${hash(["new"], { like: job.id })}>Clone with changes</a>`}
    ${job.kind === "search" &&
    html`<a class="button" href=${`/api/v1/jobs/${encodeURIComponent(job.id)}/report`} target="_blank" rel="noopener"
      >Report</a
    >`}
    ${!moving && html`<button class="danger" onClick=${() => setOpen("delete")}>Delete …</button>`}
    ${open === "resume" && html`<${Resume} job=${job} status=${status} onDone=${done} onClose=${close} />`}
    ${open === "cancel" &&
    html`<${Sure}
      title="Cancel this job?"
      words="It stops within seconds. What it recorded is kept, and a retry goes on from there."
      button="Cancel the job"
      act=${() => post(`${path("jobs", job.id)}/cancel`).then(() => done("The job is cancelled."))}
      onClose=${close}
    />`}
    ${open === "delete" &&
    html`<${Sure}
      title="Delete this job?"
      words="It can be restored until the server purges it."
      button="Delete the job"
      act=${() =>
        send("DELETE", path("jobs", job.id)).then(() => {
          tell("The job is deleted.");
          go("jobs");
        })}
      onClose=${close}
    />`}
  </div>`;
}
