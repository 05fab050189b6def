// A form that builds a job from what the server found, and checks it while it is typed.
import { get, newKey, path, post } from "./api.js";
import { Block, Dialog, Field, ProblemBox, State, tell, useEvery, useFetched } from "./parts.js";
import { go, hash, place } from "./place.js";
import { Plan } from "./plan.js";
import { Trackers } from "./trackers.js";
import { html, useEffect, useMemo, useRef, useState } from "./view.js";
import { bytes } from "./words.js";

const NEW = {
  name: "",
  models: { base: "", sources: [] },
  search_space: null,
  mode: "single",
  objectives: [{ task: "", metric: "" }],
  aggregate: "mean",
  report: [],
  evaluation: {},
  optimizer: {},
  budget: { candidates: 100 },
  compute: {},
};

// A copy with the value at a dotted path changed; an empty value takes the key away.
function changed(document, dotted, value) {
  const [key, ...rest] = dotted.split(".");
  const copy = Array.isArray(document) ? [...document] : { ...document };
  if (rest.length) copy[key] = changed(document[key] ?? {}, rest.join("."), value);
  else if (value === undefined) delete copy[key];
  else copy[key] = value;
  return copy;
}

const at = (document, dotted) => dotted.split(".").reduce((part, key) => part?.[key], document);

// The document as it is sent: without what is empty.
function sent(document) {
  return Object.fromEntries(
    Object.entries(document).filter(
      ([, value]) =>
        value !== null &&
        value !== "" &&
        !(typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length),
    ),
  );
}

// When and where a copy runs: as the job that is copied, unless it is changed here.
function runOf(original) {
  if (!original) return { project: "", priority: 0, hours: "", not_before: "", track: {} };
  const start = original.not_before && new Date(original.not_before);
  const local = start > new Date() ? new Date(start - start.getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "";
  const hours = original.max_duration_s ? String(original.max_duration_s / 3600) : "";
  return { project: original.project, priority: original.priority, hours, not_before: local, track: original.track };
}

// The part of a job's address to which a problem belongs: job.budget.candidates -> budget.candidates.
const placeOf = (problem) => problem?.field?.replace(/^job\./, "");

export function JobForm({ like }) {
  const source = useFetched((stop) => (like ? get(path("jobs", like), {}, stop) : Promise.resolve(null)), [like]);
  if (like && !source.value) return html`<${ProblemBox} problem=${source.problem} />`;
  return html`<${Form} original=${source.value} />`;
}

function startOf(original) {
  if (!original) {
    const [task, metric, folder] = ["task", "metric", "folder"].map((name) => place.value.query.get(name));
    if (!task) return NEW;
    return { ...NEW, objectives: [{ task, metric }], evaluation: { task_folders: [folder] } };
  }
  const name = `${original.request.name}-copy`;
  return { ...structuredClone(original.request), name };
}

function Form({ original }) {
  const [job, setJob] = useState(() => startOf(original));
  const [run, setRun] = useState(() => runOf(original));
  const [asCopied] = useState(run);
  const [text, setText] = useState(null); // the job as YAML, where it is edited so
  const [checked, setChecked] = useState({ yaml: "", problem: null, busy: true });
  const [touched, setTouched] = useState(Boolean(original));
  const [refused, setRefused] = useState(null);
  const [plan, setPlan] = useState(null);
  const [busy, setBusy] = useState(false);
  const key = useRef(newKey());

  const models = useFetched((stop) => get("models", {}, stop), []);
  const tasks = useFetched((stop) => get("tasks", {}, stop), []);
  const spaces = useFetched((stop) => get("spaces", {}, stop), []);
  const projects = useFetched((stop) => get("projects", {}, stop), []);

  const given = text ?? sent(job);
  const order = () => ({
    job: given,
    ...(run.project ? { project: run.project } : {}),
    priority: Number(run.priority) || 0,
    ...(run.hours ? { max_duration_s: Number(run.hours) * 3600 } : {}),
    ...(run.not_before ? { not_before: new Date(run.not_before).toISOString() } : {}),
  });
  const marks = JSON.stringify([given, run]);
  useEffect(() => {
    let left = false;
    const timer = setTimeout(() => {
      setChecked((old) => ({ ...old, busy: true }));
      post("jobs/validate", { kind: "search", ...order(), track: run.track }).then(
        (found) => left || setChecked({ yaml: found.yaml, problem: null, busy: false }),
        (problem) => left || setChecked((old) => ({ yaml: old.yaml, problem, busy: false })),
      );
    }, 350);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [marks]);

  const set = (dotted, value) => {
    setTouched(true);
    setJob((old) => changed(old, dotted, value));
  };
  const setTrack = (track) => {
    setTouched(true);
    setRun((old) => ({ ...old, track }));
  };
  const wrong = (...places) => {
    const where = placeOf(checked.problem);
    const mine = where !== undefined && places.some((each) => where === each || where.startsWith(`${each}.`));
    return touched && mine ? checked.problem.message : null;
  };
  // A job of another project is no copy: whoever sees it there may not see the one that is copied.
  const copies = original && (!run.project || run.project === original.project);
  const copy = async () => {
    // The whole job as the server completes it, so that the copy is what is shown here, whatever
    // was changed when the other was resumed.
    const { request } = await post("jobs/validate", { kind: "search", ...order() });
    const wanted = order();
    const changes = { name: request.name, set: request, priority: wanted.priority, track: run.track };
    // These two are shown rounded; where nobody changed them they stay to the second.
    if (run.hours !== asCopied.hours) changes.max_duration_s = wanted.max_duration_s ?? null;
    if (run.not_before !== asCopied.not_before) changes.not_before = wanted.not_before ?? null;
    return post(`${path("jobs", original.id)}/clone`, changes);
  };
  const launch = async (event) => {
    event.preventDefault();
    setBusy(true);
    setRefused(null);
    try {
      const made = copies
        ? await copy()
        : await post("jobs", { kind: "search", ...order(), track: run.track }, { "Idempotency-Key": key.current });
      tell(`${made.name} is queued.`);
      go("job", made.id);
    } catch (problem) {
      key.current = newKey();
      setRefused(problem);
      setTouched(true);
    } finally {
      setBusy(false);
    }
  };
  const ready = !checked.problem && !checked.busy;
  const shownProblem = refused ?? (touched ? checked.problem : null);

  return html`<div class="head">
      <div>
        ${original && html`<div class="eyebrow">a copy of <a href=${hash(["job", original.id])}>${original.name}</a></div>`}
        <h1>New search</h1>
      </div>
    </div>
    <form onSubmit=${launch} class="beside" novalidate>
      <div>
        ${text === null
          ? html`<${Parts}
              job=${job}
              set=${set}
              wrong=${wrong}
              models=${models.value ?? []}
              tasks=${tasks.value ?? []}
              spaces=${spaces.value ?? []}
              track=${run.track}
              setTrack=${setTrack}
            />`
          : html`<${Field} id="yaml" label="The job as YAML" hint="Its keys are those of a job file.">
              <textarea
                id="yaml"
                class="wide"
                rows="28"
                spellcheck="false"
                value=${text}
                onInput=${(event) => {
                  setTouched(true);
                  setText(event.target.value);
                }}
              ></textarea>
            <//>`}
        <${Running} run=${run} setRun=${setRun} projects=${projects.value ?? []} />
      </div>
      <div class="sticky">
        <h2>The job file</h2>
        <p class="caption" role="status" aria-live="polite">
          ${checked.busy ? "It is checked …" : checked.problem ? "Not yet a job that the server accepts." : "The server would accept this job."}
        </p>
        ${original && !copies && html`<p class="caption">In another project it is a new job, without a link to the one it copies.</p>`}
        <${ProblemBox} problem=${shownProblem} />
        <div class="row">
          <button class="main" disabled=${busy || !ready}>Launch</button>
          <button type="button" disabled=${!ready} onClick=${() => setPlan(order())}>Plan first …</button>
          ${text === null
            ? html`<button type="button" class="plain" onClick=${() => setText(checked.yaml || "name: my-search\n")}>
                Edit as YAML
              </button>`
            : html`<button type="button" class="plain" onClick=${() => setText(null)}>Back to the form</button>`}
        </div>
        ${checked.yaml && text === null && html`<${Block} text=${checked.yaml} label="Job file" />`}
      </div>
    </form>
    ${plan && html`<${PlanDialog} order=${plan} onClose=${() => setPlan(null)} />`}`;
}

function Parts({ job, set, wrong, models, tasks, spaces, track, setTrack }) {
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
      <${Trackers} track=${track} setTrack=${setTrack} wrong=${wrong} />
    </details>`;
}

function Sources({ job, set, models, wrong }) {
  const [q, setQ] = useState("");
  const [typed, setTyped] = useState("");
  const sources = job.models.sources;
  const pick = (reference, yes) =>
    set("models.sources", yes ? [...sources, reference] : sources.filter((each) => each !== reference));
  // A job that is copied names whole paths; the list names them inside the allowed folders.
  const whole = (reference) => sources.find((each) => each === reference || each.endsWith(`/${reference}`));
  const known = new Map(models.map((model) => [whole(model.reference) ?? model.reference, model]));
  const listed = [...sources.filter((each) => !known.has(each)), ...known.keys()].filter(
    (reference) => sources.includes(reference) || reference.toLowerCase().includes(q.toLowerCase()),
  );
  const add = () => {
    if (typed.trim() && !sources.includes(typed.trim())) pick(typed.trim(), true);
    setTyped("");
  };
  return html`<div class="field" role="group" aria-label="Sources">
    <div class="label">Sources</div>
    ${models.length > 10 &&
    html`<input type="search" class="wide" aria-label="Find a model" placeholder="Find a model" value=${q} onInput=${(e) => setQ(e.target.value)} />`}
    <div class="choices">
      ${listed.map((reference) => {
        const model = known.get(reference);
        return html`<label key=${reference}
          ><input
            type="checkbox"
            checked=${sources.includes(reference)}
            onChange=${(event) => pick(reference, event.target.checked)}
          /><span
            >${reference}
            <span class="small quiet"
              >${model ? `${model.adapter ? "adapter" : (model.architecture ?? "model")}, ${bytes(model.size_bytes)}` : ""}</span
            ></span
          ></label
        >`;
      })}
      ${listed.length === 0 && html`<p class="quiet small">No model is found in the allowed folders.</p>`}
    </div>
    <div class="row">
      <input aria-label="Another source" placeholder="folder, hub id, job:ID" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <button type="button" onClick=${add} disabled=${!typed.trim()}>Add</button>
    </div>
    ${wrong && html`<p class="wrong">${wrong}</p>`}
  </div>`;
}

function Objectives({ job, set, tasks, wrong }) {
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

function Running({ run, setRun, projects }) {
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

// The plan of a job is a job of its own: every check, items, time and memory.
function PlanDialog({ order, onClose }) {
  const [made, setMade] = useState(null);
  const [problem, setProblem] = useState(null);
  const [timing, setTiming] = useState(false);
  const begin = async () => {
    setProblem(null);
    try {
      setMade(await post("jobs", { kind: "check", timing, ...order }, { "Idempotency-Key": newKey() }));
    } catch (refused) {
      setProblem(refused);
    }
  };
  const over = made && ["succeeded", "failed", "cancelled"].includes(made.state);
  useEvery(made && !over ? 1 : 0, () => get(path("jobs", made.id)).then(setMade, setProblem), [made?.id, over]);
  return html`<${Dialog} title="Plan" onClose=${onClose}>
    <p class="quiet">
      Models, tasks and the search space are opened and checked; items, time and memory are counted. Nothing is searched.
    </p>
    <${ProblemBox} problem=${problem} />
    ${!made
      ? html`<label class="row"
            ><input type="checkbox" checked=${timing} onChange=${(event) => setTiming(event.target.checked)} /> time the
            base for about 20 seconds</label
          >
          <p></p>`
      : html`<p role="status"><${State} job=${made} /> <a href=${hash(["job", made.id])}>${made.id}</a></p>
          ${made.message && html`<p class="wrong">${made.message}</p>`}
          ${made.result?.report && html`<${Plan} report=${made.result.report} />`}`}
    <div class="row">
      ${!made && html`<button type="button" class="main" onClick=${begin}>Make the plan</button>`}
      <button type="button" onClick=${onClose}>Close</button>
    </div>
  <//>`;
}
