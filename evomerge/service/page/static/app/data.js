// Your data: a table of questions and answers becomes a task, looked at first, and then a job.
import { get, post } from "./api.js";
import { Field, ProblemBox, tell, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { html, useState } from "./view.js";
import { counted } from "./words.js";

const MOST_BYTES = 3_000_000;
const KINDS = [
  ["", "proposed by the answers"],
  ["choices", "one of several choices"],
  ["exact", "the same text"],
  ["number", "the same number"],
  ["contains", "the answer is in the text"],
  ["json", "the same JSON"],
  ["regex", "a regular expression fits"],
];

// The names in the first line; only to be offered, the server reads the table itself.
function columnsOf(text, format) {
  const [line] = text.split(/\r?\n/, 1);
  if (format === "jsonl") {
    try {
      return Object.keys(JSON.parse(line));
    } catch {
      return [];
    }
  }
  const sign = [",", ";", "\t"].sort((a, b) => line.split(b).length - line.split(a).length)[0];
  return line.split(sign).map((name) => name.trim().replace(/^"|"$/g, ""));
}

const named = (file) =>
  file.name
    .replace(/\.[^.]*$/, "")
    .replace(/[^A-Za-z0-9_]/g, "_")
    .replace(/^[^A-Za-z]+/, "") || "my_questions";

export function YourData() {
  const [form, setForm] = useState({ name: "", text: "", format: "csv", question: "", answer: "", choices: "", context: "", kind: "", prompt: "", project: "" });
  const [shown, setShown] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const projects = useFetched((stop) => get("projects", {}, stop), []);
  const columns = form.text ? columnsOf(form.text, form.format) : [];
  const change = (name) => (event) => {
    setForm({ ...form, [name]: event.target.value });
    setShown(null);
  };
  const take = async (event) => {
    const [file] = event.target.files;
    setShown(null);
    setProblem(null);
    if (!file) return;
    if (file.size > MOST_BYTES) {
      setProblem({
        title: "Too large",
        message: `${file.name} has more than ${MOST_BYTES / 1e6} MB.`,
        mend: "Draw some rows; a few thousand are enough for any score.",
      });
      return;
    }
    const format = /\.(jsonl|ndjson|json)$/i.test(file.name) ? "jsonl" : "csv";
    setForm({ ...form, name: form.name || named(file), text: await file.text(), format });
  };
  const ask = (keep) => async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const given = Object.fromEntries(Object.entries(form).filter(([, value]) => value !== ""));
      const made = await post("tasks/from-file", { ...given, keep });
      setShown(made);
      if (keep) tell(`The task ${made.name} is made.`);
    } catch (refused) {
      setProblem(refused);
    } finally {
      setBusy(false);
    }
  };
  const column = (name, label, hint, none) =>
    html`<${Field} id=${`data-${name}`} label=${label} hint=${hint}>
      <select id=${`data-${name}`} value=${form[name]} onChange=${change(name)}>
        <option value="">found by its name</option>
        ${none && html`<option value="none">none</option>`}
        ${columns.map((each) => html`<option value=${each}>${each}</option>`)}
      </select>
    <//>`;
  return html`<div class="head"><h1>Your data</h1></div>
    <p class="caption">
      A table with a question and its right answer in every row becomes a task. Look at the prompts first; nothing is kept
      until you make the task.
    </p>
    <form onSubmit=${ask(false)}>
      <${Field} id="data-file" label="File" hint="CSV or JSON lines, UTF-8.">
        <input id="data-file" type="file" accept=".csv,.tsv,.jsonl,.ndjson,.json" onChange=${take} />
      <//>
      ${form.text &&
      html`<${Field} id="data-name" label="Name of the task" hint="Letters, digits and _." wrong=${problem?.field === "name" && problem.message}>
          <input id="data-name" required value=${form.name} onInput=${change("name")} />
        <//>
        <fieldset>
          <legend>Columns</legend>
          <div class="row end">
            ${column("question", "Question")} ${column("answer", "Right answer")}
            ${column("choices", "Choices", null, true)} ${column("context", "Text that it is about", null, true)}
          </div>
        </fieldset>
        <div class="row end">
          <${Field} id="data-kind" label="An answer is right if it is">
            <select id="data-kind" value=${form.kind} onChange=${change("kind")}>
              ${KINDS.map(([value, words]) => html`<option value=${value}>${words}</option>`)}
            </select>
          <//>
          ${(projects.value ?? []).length > 1 &&
          html`<${Field} id="data-project" label="Project">
            <select id="data-project" value=${form.project} onChange=${change("project")}>
              <option value="">default</option>
              ${projects.value.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
            </select>
          <//>`}
        </div>
        <${Field} id="data-prompt" label="Wording" hint="Empty: the usual one. Write {question} where the question stands.">
          <textarea id="data-prompt" class="wide" rows="2" value=${form.prompt} onInput=${change("prompt")}></textarea>
        <//>
        ${problem?.field !== "name" && html`<${ProblemBox} problem=${problem} />`}
        <button class=${shown ? "" : "main"} disabled=${busy}>${busy ? "It is read …" : "Show three prompts"}</button>`}
      ${!form.text && html`<${ProblemBox} problem=${problem} />`}
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
        html`<h3>${each.place}</h3>
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
