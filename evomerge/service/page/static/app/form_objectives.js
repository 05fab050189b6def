// The objectives of a job: tasks with their metrics and weights, and how these make one score.
import { Field } from "./parts.js";
import { html, useMemo } from "./view.js";

export function Objectives({ job, set, tasks, wrong }) {
  const byName = useMemo(() => new Map(tasks.map((task) => [task.name, task])), [tasks]);
  const objectives = job.objectives;
  const change = (n, changes) =>
    set("objectives", objectives.map((each, place) => (place === n ? { ...each, ...changes } : each)));
  const setTask = (n) => ({ target: { value } }) => {
    // A task of a folder that the operator allows is found only where the job names the folder.
    const { folder } = byName.get(value) ?? {};
    const named = job.evaluation?.task_folders ?? [];
    if (folder && !named.includes(folder)) set("evaluation.task_folders", [...named, folder]);
    const usable = byName.get(value)?.metrics?.filter((metric) => metric.usable);
    const keeps = usable?.some((metric) => metric.name === objectives[n].metric);
    change(n, { task: value, ...(usable?.length && !keeps ? { metric: usable[0].name } : {}) });
  };
  return html`<fieldset>
    <legend>Objectives</legend>
    ${objectives.map((objective, n) => {
      const metrics = byName.get(objective.task)?.metrics ?? [];
      return html`<div class="objective" key=${n}>
        <${Field} id=${`task-${n}`} label="Task" wrong=${wrong(`objectives.${n}.task`)}>
          <input id=${`task-${n}`} class="wide" list="found-tasks" value=${objective.task} onInput=${setTask(n)} />
        <//>
        <${Field} id=${`metric-${n}`} label="Metric" wrong=${wrong(`objectives.${n}.metric`)}>
          <input
            id=${`metric-${n}`}
            class="wide"
            list=${`metrics-${n}`}
            value=${objective.metric}
            onInput=${({ target: { value } }) => change(n, { metric: value })}
          />
          <datalist id=${`metrics-${n}`}>
            ${metrics.filter((metric) => metric.usable).map((metric) => html`<option value=${metric.name}></option>`)}
          </datalist>
        <//>
        <${Field} id=${`weight-${n}`} label="Weight" wrong=${wrong(`objectives.${n}.weight`)}>
          <input
            id=${`weight-${n}`}
            class="wide"
            type="number"
            min="0"
            step="any"
            placeholder="1"
            value=${objective.weight ?? ""}
            onInput=${({ target: { value } }) => {
              const { weight: _, ...rest } = objective;
              set(
                "objectives",
                objectives.map((each, place) => (place === n ? (value === "" ? rest : { ...rest, weight: Number(value) }) : each)),
              );
            }}
          />
        <//>
        <div class="field">
          <button
            type="button"
            aria-label=${`Remove objective ${n + 1}`}
            disabled=${objectives.length === 1}
            title="Remove"
            onClick=${() => set("objectives", objectives.filter((_, place) => place !== n))}
          >
            ×
          </button>
        </div>
      </div>`;
    })}
    <p>
      <button type="button" onClick=${() => set("objectives", [...objectives, { task: "", metric: "" }])}>
        Add an objective
      </button>
    </p>
    ${wrong("objectives") && html`<p class="wrong">${wrong("objectives")}</p>`}
    <div class="row end">
      <${Field} id="job-mode" label="Result">
        <select id="job-mode" value=${job.mode ?? "single"} onChange=${({ target: { value } }) => set("mode", value)}>
          <option value="single">one winner</option>
          <option value="pareto">a front to pick from</option>
        </select>
      <//>
      ${(job.mode ?? "single") === "single" &&
      html`<${Field} id="job-aggregate" label="Objectives are combined by" wrong=${wrong("aggregate")}>
        <select id="job-aggregate" value=${job.aggregate ?? "mean"} onChange=${({ target: { value } }) => set("aggregate", value)}>
          <option value="mean">mean</option>
          <option value="geometric">geometric mean: rewards balance</option>
          <option value="min">the lowest</option>
        </select>
      <//>`}
    </div>
  </fieldset>`;
}
