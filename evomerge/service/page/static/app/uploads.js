// The tables that a project keeps, and the tasks that were made of them.
import { get, path, send } from "./api.js";
import { Dialog, ProblemBox, tell, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { html, useState } from "./view.js";
import { bytes, counted, moment } from "./words.js";

// Lists of more than one page grow by a button.
function usePages(where, keys) {
  const [limit, setLimit] = useState(50);
  const fetched = useFetched((stop) => get(where, { limit }, stop), [...keys, limit]);
  return { ...fetched, more: fetched.value?.cursor && limit < 500 ? () => setLimit(Math.min(500, limit + 150)) : null };
}

export function Kept({ round, onUse, onGone }) {
  const tables = usePages("uploads", [round]);
  const tasks = usePages("tasks/made", [round]);
  const [asking, setAsking] = useState(null);
  const remove = async () => {
    try {
      const gone = await send("DELETE", asking.where);
      const stay = gone?.tasks?.length ? ` Its tasks stay: ${gone.tasks.join(", ")}.` : "";
      tell(`${asking.name} is deleted.${stay}`);
      if (asking.upload) onGone(asking.upload);
    } catch (refused) {
      tell([refused.message, refused.mend].filter(Boolean).join("; "));
    }
    setAsking(null);
    tables.again();
    tasks.again();
  };
  return html`<${ProblemBox} problem=${tables.problem ?? tasks.problem} />
    <${List}
      title="Uploads"
      none="Nothing is uploaded yet."
      list=${tables}
      heads=${["File", "Project", "Rows", "Size", "By", "When", "Tasks", "Use or delete"]}
      row=${(each) =>
        html`<tr key=${each.id}>
          <td class="name">${each.name}<div class="small quiet">${each.id}</div></td>
          <td data-label="project">${each.project}</td>
          <td data-label="rows">${each.rows.toLocaleString("en")}</td>
          <td>${bytes(each.size_bytes)}</td>
          <td data-label="by">${each.owner}</td>
          <td class="when" data-label="made">${moment(each.made)}</td>
          <td data-label=${each.tasks.length ? "tasks" : undefined}>${each.tasks.join(", ")}</td>
          <td>
            <button class="icon" aria-label=${`Use ${each.name}`} onClick=${() => onUse(each)}>Use</button>${" "}
            <button
              class="icon danger"
              aria-label=${`Delete the upload ${each.name}`}
              onClick=${() => setAsking({ name: each.name, upload: each.id, where: path("uploads", each.id) })}
            >
              Delete …
            </button>
          </td>
        </tr>`}
    />
    <${List}
      title="Tasks"
      none="No task is made yet."
      list=${tasks}
      heads=${["Task", "Project", "Items", "Metric", "File", "By", "When", "Use or delete"]}
      row=${(each) =>
        html`<tr key=${`${each.project} ${each.name}`}>
          <td class="name">${each.name}${each.jobs.length > 0 && html`<div class="small quiet">${counted(each.jobs.length, "job")} with it</div>`}</td>
          <td data-label="project">${each.project}</td>
          <td data-label="items">${each.items?.toLocaleString("en")}</td>
          <td data-label="metric">${each.metric}</td>
          <td data-label="from">${each.file}</td>
          <td data-label="by">${each.owner}</td>
          <td class="when" data-label="made">${moment(each.made)}</td>
          <td>
            ${each.metric && html`<a href=${hash(["new"], { task: each.name, metric: each.metric, folder: each.folder })}>New search</a> `}
            <button
              class="icon danger"
              aria-label=${`Delete the task ${each.name}`}
              onClick=${() =>
                setAsking({
                  name: each.name,
                  where: `${path("tasks", "made", each.name)}?${new URLSearchParams({ project: each.project })}`,
                })}
            >
              Delete …
            </button>
          </td>
        </tr>`}
    />
    ${asking &&
    html`<${Dialog} title=${`Delete ${asking.name}?`} onClose=${() => setAsking(null)}>
      <p>
        ${asking.upload
          ? "The file is removed for good. Tasks that were made of it stay: they hold their own copy of its items."
          : "The task is removed for good. Jobs that have ended keep their results."}
      </p>
      <div class="row">
        <button class="danger" onClick=${remove}>Delete it</button>
        <button onClick=${() => setAsking(null)}>Leave it</button>
      </div>
    <//>`}`;
}

function List({ title, none, list, heads, row }) {
  const items = list.value?.items ?? [];
  return html`<section>
    <h2>${title}</h2>
    ${list.known && !items.length && html`<p class="quiet">${none}</p>`}
    ${items.length > 0 &&
    html`<div class="scroll" tabindex="0" role="region" aria-label=${title}>
      <table class="stack">
        <thead>
          <tr>
            ${heads.map((label, place) => html`<th scope="col">${place < heads.length - 1 ? label : html`<span class="unseen">${label}</span>`}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${items.map(row)}
        </tbody>
      </table>
    </div>`}
    ${list.more && html`<button onClick=${list.more}>Show more of ${list.value.total.toLocaleString("en")}</button>`}
  </section>`;
}
