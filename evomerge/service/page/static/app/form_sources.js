// The sources of a job: those that the server found, and others by their names.
import { html, useState } from "./view.js";
import { bytes } from "./words.js";

export function Sources({ job, set, models, wrong }) {
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
            >${reference}${" "}
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
