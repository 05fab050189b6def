// The queue: what waits, in the order in which it will run, to be moved by buttons.
import { get, may, post, send } from "./api.js";
import { ProblemBox, State, tell, useEvery, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { html } from "./view.js";
import { KINDS, moment } from "./words.js";

function inOrder(jobs) {
  return [...jobs].sort((a, b) => b.priority - a.priority || a.place - b.place);
}

export function Queue() {
  const { value, problem, again } = useFetched(
    (stop) => get("jobs", { state: ["queued", "starting", "running"], limit: 500 }, stop),
    [],
  );
  useEvery(3, again, []);
  const waiting = inOrder((value?.items ?? []).filter((job) => job.state === "queued"));
  const running = (value?.items ?? []).filter((job) => job.state !== "queued");

  const act = async (work, said) => {
    try {
      await work();
      tell(said);
    } catch (refused) {
      tell(refused.message);
    }
    again();
  };
  const up = (n) => {
    const job = waiting[n];
    const other = waiting[n - 1];
    return act(async () => {
      if (other.priority !== job.priority) {
        await send("PATCH", `jobs/${job.id}`, { priority: other.priority });
      }
      await post(`jobs/${job.id}/move`, { before: other.id });
    }, `${job.name} is number ${n} of the queue now.`);
  };
  const down = (n) => {
    const job = waiting[n];
    const other = waiting[n + 1];
    return act(async () => {
      if (other.priority !== job.priority) {
        await send("PATCH", `jobs/${job.id}`, { priority: other.priority });
      }
      const after = waiting[n + 2];
      const before = after && after.priority === other.priority ? after.id : null;
      await post(`jobs/${job.id}/move`, { before });
    }, `${job.name} is number ${n + 2} of the queue now.`);
  };
  const setPriority = (job) => (event) =>
    act(
      () => send("PATCH", `jobs/${job.id}`, { priority: Number(event.target.value) }),
      `${job.name} has priority ${event.target.value} now.`,
    );

  return html`<div class="head"><h1>Queue</h1></div>
    <${ProblemBox} problem=${problem} />
    <section>
      <h2>Running</h2>
      ${running.length === 0 && html`<p class="quiet">Nothing runs now.</p>`}
      ${running.length > 0 &&
      html`<div class="scroll" tabindex="0" role="region" aria-label="Running jobs">
        <table class="stack">
          <tbody>
            ${running.map(
              (job) =>
                html`<tr key=${job.id}>
                  <td class="name"><a href=${hash(["job", job.id])}>${job.name}</a></td>
                  <td><${State} job=${job} /></td>
                  <td>${KINDS[job.kind]}</td>
                  <td data-label="by">${job.owner}</td>
                  <td>since ${moment(job.started)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>`}
    </section>
    <section>
      <h2>Waiting</h2>
      <p class="caption">
        Higher priorities run first. Among equal ones every person gets a turn; a person’s own jobs run
        in this order.
      </p>
      ${waiting.length === 0 && value && html`<p class="quiet">Nothing waits.</p>`}
      ${waiting.length > 0 &&
      html`<div class="scroll" tabindex="0" role="region" aria-label="Waiting jobs">
        <table class="stack">
          <thead>
            <tr>
              <th scope="col" class="n">No.</th>
              <th scope="col">Name</th>
              <th scope="col">Kind</th>
              <th scope="col">Owner</th>
              <th scope="col">Waits since</th>
              <th scope="col">Priority</th>
              <th scope="col">Move</th>
            </tr>
          </thead>
          <tbody>
            ${waiting.map(
              (job, n) =>
                html`<tr key=${job.id}>
                  <td class="n" data-label="No.">${n + 1}</td>
                  <td class="name">
                    <a href=${hash(["job", job.id])}>${job.name}</a>
                    ${job.not_before &&
                    html`<div class="small quiet">not before ${moment(job.not_before)}</div>`}
                  </td>
                  <td>${KINDS[job.kind]}</td>
                  <td data-label="by">${job.owner}</td>
                  <td data-label="waits since">${moment(job.queued)}</td>
                  <td data-label="priority">
                    <input
                      class="short"
                      type="number"
                      min="-100"
                      max="100"
                      aria-label=${`Priority of ${job.name}`}
                      value=${job.priority}
                      disabled=${!may("runner")}
                      onChange=${setPriority(job)}
                    />
                  </td>
                  <td>
                    <div class="row">
                      <button
                        class="icon"
                        aria-label=${`Move ${job.name} up`}
                        disabled=${n === 0 || !may("runner")}
                        onClick=${() => up(n)}
                      >
                        ↑
                      </button>
                      <button
                        class="icon"
                        aria-label=${`Move ${job.name} down`}
                        disabled=${n === waiting.length - 1 || !may("runner")}
                        onClick=${() => down(n)}
                      >
                        ↓
                      </button>
                    </div>
                  </td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>`}
    </section>`;
}
