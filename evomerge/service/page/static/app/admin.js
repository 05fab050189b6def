// For admins: tokens and projects, the audit log, whether the server is well.
import { get, path, post, send } from "./api.js";
import { Block, Dialog, Field, ProblemBox, tell, useEvery, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { html, useState } from "./view.js";
import { moment } from "./words.js";

const TABS = [
  ["tokens", "Tokens"],
  ["projects", "Projects"],
  ["audit", "Audit log"],
  ["health", "Health"],
];

export function Admin({ tab }) {
  const views = { tokens: Tokens, projects: Projects, audit: Audit, health: HealthView };
  return html`<div class="head"><h1>Admin</h1></div>
    <nav class="tabs" aria-label="Admin">
      ${TABS.map(
        ([name, label]) =>
          html`<a href=${hash(["admin", name])} aria-current=${name === tab ? "page" : undefined}>${label}</a>`,
      )}
    </nav>
    <section><${views[tab] ?? Tokens} /></section>`;
}

function Tokens() {
  const { value, problem, again } = useFetched((stop) => get("tokens", {}, stop), []);
  const projects = useFetched((stop) => get("projects", {}, stop), []);
  const [made, setMade] = useState(null);
  const [asking, setAsking] = useState(null);
  const [left, setLeft] = useState(null);
  const revoke = async () => {
    try {
      const { person, webhooks } = await send("DELETE", path("tokens", asking.id));
      tell(`${asking.name} is revoked.`);
      setLeft(webhooks.length ? { person, webhooks } : null);
    } catch (refused) {
      tell(refused.message);
    }
    setAsking(null);
    again();
  };
  return html`<${ProblemBox} problem=${problem} />
    <h2>Make a token</h2>
    <${NewToken}
      projects=${projects.value ?? []}
      onMade=${(token) => {
        setMade(token);
        again();
      }}
    />
    ${made &&
    html`<div role="status">
      <p>The token of ${made.person} is shown only now:</p>
      <${Block} text=${made.secret} label="New token" />
    </div>`}
    ${left && html`<${LeftWebhooks} ...${left} onDone=${() => setLeft(null)} />`}
    <section>
      <h2>Tokens</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Tokens">
        <table class="stack">
          <thead>
            <tr>
              ${["For", "Person", "Role", "Projects", "Made", "Expires", "Last used", ""].map(
                (label) => html`<th scope="col">${label || html`<span class="unseen">Revoke</span>`}</th>`,
              )}
            </tr>
          </thead>
          <tbody>
            ${(value ?? []).map(
              (token) =>
                html`<tr key=${token.id}>
                  <td class="name">${token.name}<div class="small quiet">${token.id}</div></td>
                  <td data-label="person">${token.person}</td>
                  <td data-label="role">${token.role}</td>
                  <td data-label="projects">${token.projects ? token.projects.join(", ") : "all"}</td>
                  <td class="when" data-label="made">${moment(token.made)}</td>
                  <td class="when" data-label="expires">${token.expires ? moment(token.expires) : "never"}</td>
                  <td class="when" data-label="last used">${moment(token.last_used)}</td>
                  <td>
                    ${token.revoked
                      ? html`<span class="quiet">revoked</span>`
                      : html`<button class="icon danger" aria-label=${`Revoke ${token.name} of ${token.person}`} onClick=${() => setAsking(token)}>
                          Revoke …
                        </button>`}
                  </td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </section>
    ${asking &&
    html`<${Dialog} title="Revoke this token?" onClose=${() => setAsking(null)}>
      <p>${asking.name} of ${asking.person} works no more, at once and for good, and its browser sessions end.</p>
      <div class="row">
        <button class="danger" onClick=${revoke}>Revoke the token</button>
        <button onClick=${() => setAsking(null)}>Leave it</button>
      </div>
    <//>`}`;
}

// Webhooks belong to their project: they go on when a token of who made them is revoked.
function LeftWebhooks({ person, webhooks, onDone }) {
  const remove = async () => {
    try {
      await send("DELETE", `webhooks?owner=${encodeURIComponent(person)}`);
      tell(`The webhooks of ${person} are deleted.`);
      onDone();
    } catch (refused) {
      tell(refused.message);
    }
  };
  return html`<div role="status">
    <p>Webhooks that ${person} made go on:</p>
    <ul>
      ${webhooks.map((each) => html`<li key=${each.id}>${each.name || each.id} of ${each.project}, to ${each.url}</li>`)}
    </ul>
    <div class="row">
      <button class="danger" onClick=${remove}>Delete them</button>
      <button onClick=${onDone}>Leave them</button>
    </div>
  </div>`;
}

function NewToken({ projects, onMade }) {
  const empty = { name: "", person: "", role: "viewer", project: "", days: "90" };
  const [form, setForm] = useState(empty);
  const [problem, setProblem] = useState(null);
  const change = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const make = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      const expires = form.days ? new Date(Date.now() + Number(form.days) * 86_400_000).toISOString() : null;
      onMade(
        await post("tokens", {
          name: form.name,
          person: form.person,
          role: form.role,
          projects: form.project ? [form.project] : null,
          expires,
        }),
      );
      setForm(empty);
    } catch (refused) {
      setProblem(refused);
    }
  };
  const wrong = (field) => problem?.field === field && problem.message;
  return html`<form onSubmit=${make}>
    ${problem && !["name", "person", "role", "projects", "expires"].includes(problem.field) && html`<${ProblemBox} problem=${problem} />`}
    <div class="row end">
      <${Field} id="token-person" label="Person" wrong=${wrong("person")}>
        <input id="token-person" required value=${form.person} onInput=${change("person")} />
      <//>
      <${Field} id="token-name" label="What it is for" wrong=${wrong("name")}>
        <input id="token-name" required value=${form.name} onInput=${change("name")} />
      <//>
      <${Field} id="token-role" label="Role" wrong=${wrong("role")}>
        <select id="token-role" value=${form.role} onChange=${change("role")}>
          <option value="viewer">viewer: reads</option>
          <option value="runner">runner: also submits</option>
          <option value="admin">admin: also makes tokens</option>
        </select>
      <//>
      <${Field} id="token-project" label="Projects" wrong=${wrong("projects")}>
        <select id="token-project" value=${form.project} onChange=${change("project")}>
          <option value="">all</option>
          ${projects.map((project) => html`<option value=${project.name}>${project.name}</option>`)}
        </select>
      <//>
      <${Field} id="token-days" label="Days until it expires" hint="empty: never" wrong=${wrong("expires")}>
        <input id="token-days" class="short" type="number" min="1" value=${form.days} onInput=${change("days")} />
      <//>
      <div class="field act"><button class="main">Make</button></div>
    </div>
  </form>`;
}

function Projects() {
  const { value, problem, again } = useFetched((stop) => get("projects", {}, stop), []);
  const [name, setName] = useState("");
  const [refused, setRefused] = useState(null);
  const make = async (event) => {
    event.preventDefault();
    setRefused(null);
    try {
      await post("projects", { name });
      setName("");
      again();
    } catch (wrong) {
      setRefused(wrong);
    }
  };
  return html`<${ProblemBox} problem=${problem ?? refused} />
    <form class="row end" onSubmit=${make}>
      <${Field} id="project-name" label="New project">
        <input id="project-name" required value=${name} onInput=${(event) => setName(event.target.value)} />
      <//>
      <div class="field act"><button class="main">Make</button></div>
    </form>
    <table>
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">Id</th>
          <th scope="col">Made</th>
        </tr>
      </thead>
      <tbody>
        ${(value ?? []).map(
          (project) =>
            html`<tr key=${project.id}>
              <td class="name">${project.name}</td>
              <td><code>${project.id}</code></td>
              <td class="when">${moment(project.made)}</td>
            </tr>`,
        )}
      </tbody>
    </table>`;
}

function Audit() {
  const [filter, setFilter] = useState({ who: "", act: "", what: "" });
  const [cursors, setCursors] = useState([]);
  const cursor = cursors.at(-1);
  const { value, problem } = useFetched((stop) => get("audit", { ...filter, cursor, limit: 50 }, stop), [
    JSON.stringify(filter),
    cursor,
  ]);
  const change = (name) => (event) => {
    setFilter({ ...filter, [name]: event.target.value });
    setCursors([]);
  };
  return html`<form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label>Who<input value=${filter.who} onInput=${change("who")} /></label>
      <label>Act<input placeholder="job.submit" value=${filter.act} onInput=${change("act")} /></label>
      <label>What<input placeholder="id" value=${filter.what} onInput=${change("what")} /></label>
    </form>
    <${ProblemBox} problem=${problem} />
    <div class="scroll" tabindex="0" role="region" aria-label="Audit log">
      <table class="stack">
        <thead>
          <tr>
            ${["When", "Who", "Act", "What", "From", "Detail"].map((label) => html`<th scope="col">${label}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${(value?.items ?? []).map(
            (entry) =>
              html`<tr key=${entry.id}>
                <td class="when">${moment(entry.at)}</td>
                <td>${entry.who}</td>
                <td>${entry.act}</td>
                <td>
                  ${/^j[a-z2-7]{15}$/.test(entry.what)
                    ? html`<a href=${hash(["job", entry.what])}>${entry.what}</a>`
                    : entry.what}
                </td>
                <td data-label="from">${entry.address ?? "–"}</td>
                <td class="small quiet name">${Object.keys(entry.detail).length ? JSON.stringify(entry.detail) : ""}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <div class="pages">
      <span>${value ? `${value.total.toLocaleString("en")} acts` : ""}</span>
      ${cursors.length > 0 && html`<button onClick=${() => setCursors(cursors.slice(0, -1))}>Newer</button>`}
      ${value?.cursor && html`<button onClick=${() => setCursors([...cursors, value.cursor])}>Older</button>`}
    </div>`;
}

const CHECKS = { database: "database", supervisor: "jobs are started", disk: "room on the disk" };

async function healthOf() {
  const ready = await fetch("/ready", { credentials: "same-origin" });
  const health = await fetch("/health", { credentials: "same-origin" });
  return { ...(await ready.json()), version: (await health.json()).version };
}

function HealthView() {
  const { value, problem, again } = useFetched(healthOf, []);
  useEvery(5, again, []);
  if (problem) return html`<p class="problem" role="alert">The server does not answer.</p>`;
  if (!value) return null;
  return html`<h2>${value.ready ? "The server is ready" : "The server is not ready"}</h2>
    <p class="caption">evomerge ${value.version}</p>
    <table>
      <tbody>
        ${value.checks.map(
          (check) =>
            html`<tr key=${check.name}>
              <th scope="row">${CHECKS[check.name] ?? check.name}</th>
              <td><span class=${`state ${check.ok ? "succeeded" : "failed"}`}>${check.ok ? "well" : "not well"}</span></td>
              <td>${check.says}</td>
            </tr>`,
        )}
      </tbody>
    </table>`;
}
