// Your data: a table of questions and answers is uploaded, becomes a task, and then a job.
import { get, post, upload } from "./api.js";
import { Field, ProblemBox, tell, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { Kept } from "./uploads.js";
import { html, useRef, useState } from "./view.js";
import { bytes, counted } from "./words.js";

const KINDS = [
  ["", "proposed by the answers"],
  ["choices", "one of several choices"],
  ["exact", "the same text"],
  ["number", "the same number"],
  ["contains", "the answer is in the text"],
  ["json", "the same JSON"],
  ["regex", "a regular expression fits"],
];
const ENCODINGS = ["utf-8", "utf-16", "cp1252", "cp932", "euc_jp", "gb18030", "euc_kr", "cp1251", "koi8_r"];
const EMPTY = { name: "", question: "", answer: "", choices: "", context: "", kind: "", prompt: "", stop: "", fewshot: "", model: "" };
const FIELDS = new Set(["name", "question", "answer", "choices", "context", "kind", "prompt", "stop", "fewshot", "models"]);

const named = (file) =>
  file.name
    .replace(/\.[^.]*$/, "")
    .replace(/[^A-Za-z0-9_]/g, "_")
    .replace(/^[^A-Za-z]+/, "")
    .slice(0, 60) || "my_questions";

// What the route takes; what is left empty is found or proposed.
function asked(form, table, keep) {
  const { stop, fewshot, model, ...rest } = form;
  return {
    ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== "")),
    ...(stop && { stop: [stop.replaceAll("\\n", "\n")] }),
    ...(fewshot && { fewshot: Number(fewshot) }),
    ...(model && { models: [model] }),
    upload: table.id,
    keep,
  };
}

export function YourData() {
  const [table, setTable] = useState(null);
  const [round, setRound] = useState(0);
  return html`<div class="head"><h1>Your data</h1></div>
    <p class="caption">
      A table with a question and its right answer in every row becomes a task. Look at the prompts first; no task is kept
      until you make it.
    </p>
    <${Sender}
      onTable=${(made) => {
        setTable(made);
        setRound(round + 1);
      }}
    />
    ${table && html`<${TaskForm} key=${table.id} table=${table} onMade=${() => setRound(round + 1)} />`}
    <${Kept}
      round=${round}
      onUse=${setTable}
      onGone=${(id) => {
        if (table?.id === id) setTable(null);
      }}
    />`;
}

function Sender({ onTable }) {
  const [share, setShare] = useState(null);
  const [problem, setProblem] = useState(null);
  const [project, setProject] = useState("");
  const [encoding, setEncoding] = useState("");
  const stopping = useRef(null);
  const projects = useFetched((stop) => get("projects", {}, stop), []);
  const take = async (event) => {
    const { target } = event;
    const [file] = target.files;
    setProblem(null);
    if (!file) return;
    setShare(0);
    stopping.current = new AbortController();
    const { signal } = stopping.current;
    try {
      const { largest_bytes: most } = await get("uploads", { limit: 1 }, signal);
      if (file.size > most) {
        setProblem({
          title: "Too large",
          message: `${file.name} has ${bytes(file.size)}, and ${bytes(most)} may be sent.`,
          mend: "Draw some rows; a few thousand are enough for any score.",
        });
        return;
      }
      onTable(await upload("uploads", { name: file.name, project, encoding }, file, setShare, signal));
    } catch (refused) {
      if (refused.name !== "AbortError") setProblem(refused);
    } finally {
      target.value = "";
      setShare(null);
    }
  };
  return html`<form onSubmit=${(event) => event.preventDefault()}>
    <div class="row end">
      <${Field} id="data-file" label="File" hint="CSV, JSON lines or Parquet.">
        <input id="data-file" type="file" accept=".csv,.tsv,.jsonl,.ndjson,.json,.parquet" disabled=${share !== null} onChange=${take} />
      <//>
      <${Field} id="data-encoding" label="Encoding of a text">
        <select id="data-encoding" value=${encoding} onChange=${(event) => setEncoding(event.target.value)}>
          <option value="">UTF-8, or as it is marked</option>
          ${ENCODINGS.map((each) => html`<option value=${each}>${each}</option>`)}
        </select>
      <//>
      ${(projects.value ?? []).length > 1 &&
      html`<${Field} id="data-project" label="Project">
        <select id="data-project" value=${project} onChange=${(event) => setProject(event.target.value)}>
          <option value="">default</option>
          ${projects.value.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
        </select>
      <//>`}
    </div>
    ${share !== null &&
    html`<div class="row">
      <progress max="1" value=${share} aria-label="Upload"></progress>
      <span class="small quiet">${share < 1 ? `${Math.floor(100 * share)}% sent` : "The server reads it …"}</span>
      <button type="button" onClick=${() => stopping.current.abort()}>Stop</button>
    </div>`}
    <${ProblemBox} problem=${problem} />
  </form>`;
}

function TaskForm({ table, onMade }) {
  const [form, setForm] = useState({ ...EMPTY, name: named(table) });
  const [shown, setShown] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const models = useFetched((stop) => get("models", {}, stop), []);
  const change = (name) => (event) => {
    setForm({ ...form, [name]: event.target.value });
    setShown(null);
  };
  const ask = (keep) => async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const made = await post("tasks/from-file", asked(form, table, keep));
      setShown(made);
      if (!keep) return;
      tell(`The task ${made.name} is made.`);
      onMade();
    } catch (refused) {
      setProblem(refused);
    } finally {
      setBusy(false);
    }
  };
  const field = problem?.field?.split(".")[0];
  const wrong = (name) => field === name && problem.message;
  const column = (name, label, none) =>
    html`<${Field} id=${`data-${name}`} label=${label} wrong=${wrong(name)}>
      <select id=${`data-${name}`} value=${form[name]} onChange=${change(name)}>
        <option value="">found by its name</option>
        ${none && html`<option value="none">none</option>`}
        ${table.columns.map((each) => html`<option value=${each}>${each}</option>`)}
      </select>
    <//>`;
  return html`<form onSubmit=${ask(false)}>
      <h2>${table.name}</h2>
      <p class="small quiet">
        ${counted(table.rows, "row")}, ${counted(table.columns.length, "column")}, ${bytes(table.size_bytes)}, ${table.format},
        sha256 ${table.sha256.slice(0, 12)}
      </p>
      <${Field} id="data-name" label="Name of the task" hint="Letters, digits and _." wrong=${wrong("name")}>
        <input id="data-name" required value=${form.name} onInput=${change("name")} />
      <//>
      <fieldset>
        <legend>Columns</legend>
        <div class="row end">
          ${column("question", "Question")} ${column("answer", "Right answer")} ${column("choices", "Choices", true)}
          ${column("context", "Text that it is about", true)}
        </div>
      </fieldset>
      <div class="row end">
        <${Field} id="data-kind" label="An answer is right if it is" wrong=${wrong("kind")}>
          <select id="data-kind" value=${form.kind} onChange=${change("kind")}>
            ${KINDS.map(([value, words]) => html`<option value=${value}>${words}</option>`)}
          </select>
        <//>
        <${Field} id="data-fewshot" label="Examples in every prompt" wrong=${wrong("fewshot")}>
          <input id="data-fewshot" type="number" min="0" max="64" placeholder="0" value=${form.fewshot} onInput=${change("fewshot")} />
        <//>
        <${Field} id="data-stop" label="An answer ends at" hint="Empty: proposed. \\n is a line break." wrong=${wrong("stop")}>
          <input id="data-stop" value=${form.stop} onInput=${change("stop")} />
        <//>
        <${Field} id="data-model" label="With the chat template of" wrong=${wrong("models")}>
          <select id="data-model" value=${form.model} onChange=${change("model")}>
            <option value="">no model</option>
            ${(models.value ?? []).filter((each) => !each.adapter).map((each) => html`<option value=${each.reference}>${each.reference}</option>`)}
          </select>
        <//>
      </div>
      <${Field} id="data-prompt" label="Wording" hint="Empty: the usual one. Write {question} where the question stands." wrong=${wrong("prompt")}>
        <textarea id="data-prompt" class="wide" rows="2" value=${form.prompt} onInput=${change("prompt")}></textarea>
      <//>
      ${!FIELDS.has(field) && html`<${ProblemBox} problem=${problem} />`}
      <button class=${shown ? "" : "main"} disabled=${busy}>${busy ? "It is read …" : "Show three prompts"}</button>
    </form>
    ${shown && html`<${Shown} task=${shown} onMake=${ask(true)} busy=${busy} />`}`;
}

function Shown({ task, onMake, busy }) {
  const { columns } = task;
  const used = [
    ["question", columns.question],
    ["answer", columns.answer],
    ["choices", columns.choices.join(", ")],
    ["text", columns.context],
  ].filter(([, name]) => name);
  return html`<section role="status">
    <h2>${task.name}</h2>
    <dl class="tiles">
      <div><dt>Items</dt><dd>${task.items.toLocaleString("en")}</dd></div>
      <div><dt>Scored as</dt><dd>${task.kind}<small>${task.reason}</small></dd></div>
      <div><dt>Metric</dt><dd>${task.metric}</dd></div>
      <div>
        <dt>In a job with the usual shares</dt>
        <dd>
          <small>${Object.entries(task.splits).map(([split, count]) => counted(count, `${split} item`)).join(", ")}</small>
        </dd>
      </div>
    </dl>
    <p class="small quiet">Columns: ${used.map(([part, name]) => `${part}: ${name}`).join("; ")}.</p>
    <ul>
      ${task.checks.map((check) => html`<li><strong>${check.level}</strong> ${check.sentence}</li>`)}
    </ul>
    ${task.prompts.map(
      (each) =>
        html`<h3>${each.place}${each.model && ` for ${each.model}`}</h3>
          <pre tabindex="0" role="region" aria-label=${`Prompt of ${each.place}`}>${each.prompt}</pre>
          <p class="small">right: <strong>${each.answer}</strong></p>`,
    )}
    ${task.folder
      ? html`<a class="button main" href=${hash(["new"], { task: task.name, metric: task.metric, folder: task.folder })}
          >New search with this task</a
        >`
      : html`<button class="main" disabled=${busy} onClick=${onMake}>Make the task</button>`}
  </section>`;
}
