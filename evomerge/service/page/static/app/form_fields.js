// The fields of a job, and those of when and where it runs.
import { at } from "./form_draft.js";
import { Objectives } from "./form_objectives.js";
import { Sources } from "./form_sources.js";
import { Field } from "./parts.js";
import { html } from "./view.js";

export function Parts({ job, set, wrong, models, tasks, spaces }) {
  const text = (dotted, label, more = {}) => {
    const id = `job-${dotted.replaceAll(".", "-")}`;
    const bad = wrong(dotted);
    const number = more.type === "number";
    return html`<${Field} id=${id} label=${label} hint=${more.hint} wrong=${bad}>
      <input
        id=${id}
        class=${number ? "short" : "wide"}
        type=${more.type ?? "text"}
        step=${more.step}
        min=${more.min}
        placeholder=${more.usual}
        list=${more.list}
        aria-invalid=${bad ? "true" : undefined}
        aria-describedby=${bad ? `${id}-wrong` : more.hint ? `${id}-hint` : undefined}
        value=${at(job, dotted) ?? ""}
        onInput=${({ target: { value } }) =>
          set(dotted, value === "" && (number || dotted.includes(".")) ? undefined : number ? Number(value) : value)}
      />
    <//>`;
  };
  const choose = (dotted, label, options, hint) => {
    const id = `job-${dotted.replaceAll(".", "-")}`;
    return html`<${Field} id=${id} label=${label} hint=${hint} wrong=${wrong(dotted)}>
      <select id=${id} value=${at(job, dotted) ?? ""} onChange=${({ target: { value } }) => set(dotted, value === "" ? undefined : value)}>
        ${options.map(([value, words]) => html`<option value=${value}>${words}</option>`)}
      </select>
    <//>`;
  };
  const space = spaces.find((each) => each.name === job.search_space);
  const custom = job.search_space !== null && typeof job.search_space === "object";
  return html`<datalist id="found-models">
      ${models.map((model) => html`<option value=${model.reference}></option>`)}
    </datalist>
    <datalist id="found-tasks">${tasks.map((task) => html`<option value=${task.name}></option>`)}</datalist>
    ${text("name", "Name", { hint: "Letters, digits, dots and hyphens." })}
    <fieldset>
      <legend>Models</legend>
      ${text("models.base", "Base model", {
        list: "found-models",
        hint: "The model from which the others were fine-tuned.",
      })}
      <${Sources} job=${job} set=${set} models=${models} wrong=${wrong("models.sources", "models")} />
    </fieldset>
    <${Objectives} job=${job} set=${set} tasks=${tasks} wrong=${wrong} />
    <fieldset>
      <legend>Search</legend>
      ${custom
        ? html`<p class="quiet">The search space is written out in the job file; edit it as YAML.</p>`
        : html`<${Field}
            id="job-search_space"
            label="Search space"
            hint=${space ? space.says : "The default is one for these models."}
            wrong=${wrong("search_space")}
          >
            <select
              id="job-search_space"
              class="wide"
              value=${job.search_space ?? ""}
              onChange=${({ target: { value } }) => set("search_space", value || null)}
            >
              <option value="">default</option>
              ${job.search_space && !space && html`<option value=${job.search_space}>${job.search_space}</option>`}
              ${spaces.map(
                (each) =>
                  html`<option value=${each.name}>${each.name} (${each.genes} ${each.genes === 1 ? "gene" : "genes"} with two sources)</option>`,
              )}
            </select>
          <//>`}
      <div class="row end">
        ${text("budget.candidates", "Candidates at most", { type: "number", min: 1, step: 1 })}
        ${text("budget.hours", "Worker hours at most", { type: "number", min: 0, step: "any", usual: "no limit" })}
        ${text("budget.items", "Items at most", { type: "number", min: 1, step: 1, usual: "no limit" })}
      </div>
      ${wrong("budget") && !wrong("budget.candidates", "budget.hours", "budget.items") && html`<p class="wrong">${wrong("budget")}</p>`}
    </fieldset>
    <details>
      <summary>More settings</summary>
      <div class="row end">
        ${text("evaluation.items_per_generation", "Items per generation", { type: "number", min: 1, step: 1, usual: "usual" })}
        ${text("evaluation.items_for_baselines", "Items for baselines", { type: "number", min: 1, step: 1, usual: "usual" })}
        ${text("evaluation.finalists", "Finalists", { type: "number", min: 1, step: 1, usual: "usual" })}
        ${text("optimizer.seed", "Seed", { type: "number", min: 0, step: 1, usual: "0" })}
      </div>
      <div class="row end">
        ${text("evaluation.split.search", "Share of items: search", { type: "number", min: 0, step: 0.01, usual: "0.6" })}
        ${text("evaluation.split.validation", "validation", { type: "number", min: 0, step: 0.01, usual: "0.2" })}
        ${text("evaluation.split.test", "test", { type: "number", min: 0, step: 0.01, usual: "0.2" })}
      </div>
      <div class="row end">
        ${choose("compute.dtype", "Numbers", [["", "usual"], ["float32", "float32"], ["bfloat16", "bfloat16"], ["float16", "float16"]])}
        ${choose("compute.device", "Device", [["", "auto"], ["cpu", "cpu"], ["cuda", "cuda"]])}
        ${choose("compute.engine", "Engine", [["", "auto"], ["transformers", "transformers"], ["vllm", "vllm"]])}
      </div>
      <${Field} id="job-report" label="Scored at the end only" hint="Tasks, separated by commas." wrong=${wrong("report")}>
        <input
          id="job-report"
          class="wide"
          value=${(job.report ?? []).join(", ")}
          onChange=${({ target: { value } }) => set("report", value.split(",").map((each) => each.trim()).filter(Boolean))}
        />
      <//>
    </details>`;
}

export function Running({ run, setRun, projects }) {
  const change = (name) => (event) => setRun({ ...run, [name]: event.target.value });
  return html`<details>
    <summary>When and where it runs</summary>
    <div class="row end">
      ${projects.length > 1 &&
      html`<${Field} id="run-project" label="Project">
        <select id="run-project" value=${run.project} onChange=${change("project")}>
          ${!run.project && html`<option value="">default</option>`}
          ${projects.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
        </select>
      <//>`}
      <${Field} id="run-priority" label="Priority" hint="higher ones run first">
        <input id="run-priority" class="short" type="number" min="-100" max="100" value=${run.priority} onInput=${change("priority")} />
      <//>
      <${Field} id="run-hours" label="Hours it may run at most" hint="over all attempts; a retry or resume by you counts anew; empty: no limit">
        <input id="run-hours" class="short" type="number" min="0" step="any" value=${run.hours} onInput=${change("hours")} />
      <//>
      <${Field} id="run-not-before" label="Not before" hint="empty: at once">
        <input id="run-not-before" type="datetime-local" value=${run.not_before} onInput=${change("not_before")} />
      <//>
    </div>
  </details>`;
}
