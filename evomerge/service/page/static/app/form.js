// A form that builds a job from what the server found, and checks it while it is typed.
import { get, newKey, path, post } from "./api.js";
import { changed, placeOf, runOf, sent, startOf } from "./form_draft.js";
import { Parts, Running } from "./form_fields.js";
import { PlanDialog } from "./form_plan.js";
import { Block, Field, ProblemBox, tell, useFetched } from "./parts.js";
import { go, hash } from "./place.js";
import { html, useEffect, useRef, useState } from "./view.js";

export function JobForm({ like }) {
  const source = useFetched((stop) => (like ? get(path("jobs", like), {}, stop) : Promise.resolve(null)), [like]);
  if (like && !source.value) return html`<${ProblemBox} problem=${source.problem} />`;
  return html`<${Form} original=${source.value} />`;
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
      post("jobs/validate", { kind: "search", ...order() }).then(
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
    const changes = { name: request.name, set: request, priority: wanted.priority };
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
      const made = copies ? await copy() : await post("jobs", { kind: "search", ...order() }, { "Idempotency-Key": key.current });
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
