// Webhooks: who is told of jobs; made, tested, disabled, rotated, deleted; and what has arrived.
import { get, may, path, post, send } from "./api.js";
import { Block, Dialog, Field, ProblemBox, tell, useEvery, useFetched } from "./parts.js";
import { html, useState } from "./view.js";
import { moment } from "./words.js";

const EVENTS = [
  "job.queued",
  "job.started",
  "job.resumed",
  "job.paused",
  "job.succeeded",
  "job.failed",
  "job.cancelled",
  "job.lost",
  "job.retrying",
  "export.succeeded",
];
// The looks of the states of jobs.
const LOOKS = {
  active: "succeeded",
  failing: "failed",
  disabled: "cancelled",
  delivered: "succeeded",
  waiting: "queued",
  failed: "failed",
};
const REFRESH_S = 3;

const Look = ({ name }) => html`<span class=${`state ${LOOKS[name]}`}>${name}</span>`;
const nameOf = (hook) => hook.name || hook.url;

export function Webhooks() {
  const { value, problem, again } = useFetched((stop) => get("webhooks", {}, stop), []);
  const projects = useFetched((stop) => get("projects", {}, stop), []);
  const [made, setMade] = useState(null);
  const [asking, setAsking] = useState(null);
  const [seen, setSeen] = useState(null);
  useEvery(REFRESH_S, again, []);
  const act = async (work) => {
    try {
      await work();
    } catch (refused) {
      tell(refused.message);
    }
    again();
  };
  const show = (hook) => {
    setMade(hook);
    again();
  };
  const change = (hook, changes) => act(() => send("PATCH", path("webhooks", hook.id), changes));
  const test = (hook) =>
    act(async () => {
      await post(path("webhooks", hook.id, "test"));
      setSeen(hook);
      tell("A test is on its way; its delivery is shown below.");
    });
  const confirm = () => {
    const { hook, what } = asking;
    setAsking(null);
    if (what === "rotate") {
      return act(async () => show(await post(path("webhooks", hook.id, "rotate"), {})));
    }
    return act(async () => {
      await send("DELETE", path("webhooks", hook.id));
      if (seen?.id === hook.id) setSeen(null);
      tell(`${nameOf(hook)} is deleted.`);
    });
  };
  return html`<div class="head"><h1>Webhooks</h1></div>
    <p class="quiet">An address is told what happens to the jobs of a project, by a signed request.</p>
    <${ProblemBox} problem=${problem} />
    ${may("runner") &&
    html`<section>
      <h2>Make a webhook</h2>
      <${NewWebhook} projects=${projects.value ?? []} onMade=${show} />
    </section>`}
    ${made &&
    html`<div role="status">
      <p>The secret of ${nameOf(made)} is shown only now. Its receiver needs it to verify what comes:</p>
      <${Block} text=${made.secret} label="New secret" />
    </div>`}
    <section>
      <h2>Webhooks</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Webhooks">
        <table class="stack">
          <thead>
            <tr>
              ${["Name", "Project", "Told of", "State", "Waiting", "Last sent", ""].map(
                (label) => html`<th scope="col">${label || html`<span class="unseen">Acts</span>`}</th>`,
              )}
            </tr>
          </thead>
          <tbody>
            ${(value ?? []).map(
              (hook) =>
                html`<tr key=${hook.id}>
                  <td class="name">${hook.name}<div class="small quiet">${hook.url}</div></td>
                  <td data-label="project">${hook.project}</td>
                  <td class="small" data-label="told of">${hook.events.length === EVENTS.length ? "everything" : hook.events.join(", ")}</td>
                  <td>
                    <${Look} name=${hook.condition} />
                    ${hook.condition !== "active" &&
                    html`<div class="small quiet">${hook.disabled_why ?? hook.last_error}</div>`}
                  </td>
                  <td data-label="waiting">${hook.waiting}</td>
                  <td class="when" data-label="last sent">${moment(hook.last_at)}</td>
                  <td>
                    <div class="row">
                      <${Act} label="Deliveries" of=${hook} onClick=${() => setSeen(hook)} />
                      ${may("runner") &&
                      html`${!hook.disabled && html`<${Act} label="Test" of=${hook} onClick=${() => test(hook)} />`}
                        <${Act}
                          label=${hook.disabled ? "Enable" : "Disable"}
                          of=${hook}
                          onClick=${() => change(hook, { enabled: Boolean(hook.disabled) })}
                        />
                        <${Act} label="New secret …" of=${hook} onClick=${() => setAsking({ hook, what: "rotate" })} />
                        <${Act} danger label="Delete …" of=${hook} onClick=${() => setAsking({ hook, what: "delete" })} />`}
                    </div>
                  </td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
      ${value?.length === 0 && html`<p class="quiet">There is none yet.</p>`}
    </section>
    ${seen && html`<${Deliveries} key=${seen.id} hook=${seen} />`}
    ${asking && html`<${Ask} ...${asking} onYes=${confirm} onClose=${() => setAsking(null)} />`}`;
}

function Act({ label, of, danger, onClick }) {
  const plain = label.replace(" …", "");
  return html`<button class=${danger ? "icon danger" : "icon"} aria-label=${`${plain}: ${nameOf(of)}`} onClick=${onClick}>
    ${label}
  </button>`;
}

function Ask({ hook, what, onYes, onClose }) {
  const rotates = what === "rotate";
  return html`<${Dialog} title=${rotates ? "Make a new secret?" : "Delete this webhook?"} onClose=${onClose}>
    <p>
      ${rotates
        ? `For a day, what is sent to ${nameOf(hook)} has a signature of the new secret and of the one before.`
        : `${nameOf(hook)} is told nothing more, at once and for good; its deliveries are removed too.`}
    </p>
    <div class="row">
      <button class=${rotates ? "main" : "danger"} onClick=${onYes}>
        ${rotates ? "Make a new secret" : "Delete the webhook"}
      </button>
      <button onClick=${onClose}>Leave it</button>
    </div>
  <//>`;
}

function NewWebhook({ projects, onMade }) {
  const empty = { url: "", name: "", project: "", events: [] };
  const [form, setForm] = useState(empty);
  const [problem, setProblem] = useState(null);
  const change = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const choose = (name) => (event) =>
    setForm({ ...form, events: EVENTS.filter((each) => (each === name ? event.target.checked : form.events.includes(each))) });
  const make = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      onMade(await post("webhooks", { ...form, project: form.project || null }));
      setForm(empty);
    } catch (refused) {
      setProblem(refused);
    }
  };
  const wrong = (field) => problem?.field === field && problem.message;
  return html`<form onSubmit=${make}>
    ${problem && !["url", "name"].includes(problem.field) && html`<${ProblemBox} problem=${problem} />`}
    <div class="row end">
      <${Field} id="webhook-url" label="Address" hint="https, and public" wrong=${wrong("url")}>
        <input id="webhook-url" class="wide" type="url" required value=${form.url} onInput=${change("url")} />
      <//>
      <${Field} id="webhook-name" label="Name" wrong=${wrong("name")}>
        <input id="webhook-name" value=${form.name} onInput=${change("name")} />
      <//>
      ${projects.length > 1 &&
      html`<${Field} id="webhook-project" label="Project">
        <select id="webhook-project" value=${form.project} onChange=${change("project")}>
          <option value="">default</option>
          ${projects
            .filter((project) => project.name !== "default")
            .map((project) => html`<option value=${project.name}>${project.name}</option>`)}
        </select>
      <//>`}
      <div class="field act"><button class="main">Make</button></div>
    </div>
    <details>
      <summary>Events: ${form.events.length ? form.events.join(", ") : "everything"}</summary>
      <fieldset>
        <legend class="unseen">Events</legend>
        ${EVENTS.map(
          (name) =>
            html`<label key=${name}
              ><input type="checkbox" checked=${form.events.includes(name)} onChange=${choose(name)} /> ${name}</label
            > `,
        )}
      </fieldset>
    </details>
  </form>`;
}

function Deliveries({ hook }) {
  const [cursors, setCursors] = useState([]);
  const cursor = cursors.at(-1);
  const read = (stop) => get(path("webhooks", hook.id, "deliveries"), { cursor, limit: 20 }, stop);
  const { value, problem, again } = useFetched(read, [cursor]);
  useEvery(cursor ? 0 : REFRESH_S, again, [cursor]);
  return html`<section>
    <h2>Deliveries to ${nameOf(hook)}</h2>
    <${ProblemBox} problem=${problem} />
    <div class="scroll" tabindex="0" role="region" aria-label="Deliveries">
      <table class="stack">
        <thead>
          <tr>
            ${["When", "Event", "Job", "State", "Tries", "Answer", "Next try"].map(
              (label) => html`<th scope="col">${label}</th>`,
            )}
          </tr>
        </thead>
        <tbody>
          ${(value?.items ?? []).map(
            (each) =>
              html`<tr key=${each.id}>
                <td class="when">${moment(each.made)}</td>
                <td>${each.event}</td>
                <td data-label="job">${each.job ? html`<a href=${`#/job/${each.job}`}>${each.job}</a>` : "–"}</td>
                <td><${Look} name=${each.state} /></td>
                <td data-label="tries">${each.attempts}</td>
                <td class="small" data-label="answer">${each.last_error ?? each.last_status ?? "–"}</td>
                <td class="when" data-label="next try">${moment(each.next_at)}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <div class="pages">
      <span>${value ? `In all: ${value.total.toLocaleString("en")}` : ""}</span>
      ${cursors.length > 0 && html`<button onClick=${() => setCursors(cursors.slice(0, -1))}>Newer</button>`}
      ${value?.cursor && html`<button onClick=${() => setCursors([...cursors, value.cursor])}>Older</button>`}
    </div>
  </section>`;
}
