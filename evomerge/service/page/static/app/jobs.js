// The list of jobs, with filters and pages. It looks again by itself while the page is seen.
import { get, may } from "./api.js";
import { ProblemBox, State, useEvery, useFetched } from "./parts.js";
import { go, hash, place, setQuery } from "./place.js";
import { html, useEffect, useState } from "./view.js";
import { KINDS, duration, moment } from "./words.js";

const STATES = ["queued", "starting", "running", "paused", "succeeded", "failed", "cancelled"];
const MOVING = ["queued", "starting", "running"];

// How far a job is: of the limits of its budget the one that is used most.
function useProgress(jobs) {
  const [known, setKnown] = useState({});
  const running = (jobs ?? []).filter(
    (job) => job.kind === "search" && ["running", "paused"].includes(job.state),
  );
  const marks = running.map((job) => `${job.id} ${job.last_event}`).join();
  useEffect(() => {
    let left = false;
    for (const job of running.slice(0, 12)) {
      get(`jobs/${job.id}/status`).then(
        (status) => left || setKnown((old) => ({ ...old, [job.id]: status })),
        () => {}, // there is no record yet
      );
    }
    return () => {
      left = true;
    };
  }, [marks]);
  return known;
}

function Progress({ job, status }) {
  if (job.state === "succeeded" || !status?.limits.length) {
    const said = job.message ?? (job.result?.headline || job.result?.says);
    return html`<span class="small quiet">${said ?? ""}</span>`;
  }
  const limit = status.limits[0];
  const share = Math.min(1, limit.used / limit.most);
  const words = `${Math.floor(limit.used).toLocaleString("en")} of ${limit.most.toLocaleString("en")} ${limit.unit}`;
  return html`<progress max="1" value=${share} aria-label=${`Progress of ${job.name}`}></progress>
    <span class="small quiet">${words}${status.failed ? `, ${status.failed} failed` : ""}</span>`;
}

export function JobList() {
  const query = Object.fromEntries(place.value.query);
  const [before, setBefore] = useState([]); // cursors of the pages before this one
  const [chosen, setChosen] = useState(() => new Set());
  const asked = { ...query, state: query.state?.split(","), limit: 25 };
  const { value, problem, again } = useFetched(
    (stop) => get("jobs", asked, stop),
    [JSON.stringify(query)],
  );
  const projects = useFetched((stop) => get("projects", {}, stop), []);
  const moving = value?.items.some((job) => MOVING.includes(job.state));
  useEvery(moving ? 2 : 10, again, [JSON.stringify(query)]);
  const progress = useProgress(value?.items);

  const filter = (name) => (event) => {
    setBefore([]);
    setQuery({ [name]: event.target.value, cursor: "" });
  };
  const pick = (job) => (event) => {
    const next = new Set(chosen);
    if (event.target.checked) next.add(job.id);
    else next.delete(job.id);
    setChosen(next);
  };
  const compare = () => {
    location.hash = hash(["compare"], { jobs: [...chosen].join(",") });
  };
  const onward = () => {
    setBefore([...before, query.cursor ?? ""]);
    setQuery({ cursor: value.cursor });
  };
  const back = () => {
    setBefore(before.slice(0, -1));
    setQuery({ cursor: before.at(-1) });
  };
  const counts = value
    ? `${value.total.toLocaleString("en")} ${value.total === 1 ? "job" : "jobs"}`
    : "";
  return html`<div class="head">
      <h1>Jobs</h1>
      <div class="row">
        ${chosen.size > 1 && html`<button onClick=${compare}>Compare ${chosen.size}</button>`}
        ${may("runner") && html`<button class="main" onClick=${() => go("new")}>New search</button>`}
      </div>
    </div>
    <form class="filters" role="search" aria-label="Filter jobs" onSubmit=${(e) => e.preventDefault()}>
      <label>Name or id<input type="search" value=${query.q ?? ""} onInput=${filter("q")} /></label>
      <label
        >State<select value=${query.state ?? ""} onChange=${filter("state")}>
          <option value="">any</option>
          <option value=${MOVING.join()}>queued or running</option>
          ${STATES.map((state) => html`<option value=${state}>${state}</option>`)}
        </select></label
      >
      <label
        >Kind<select value=${query.kind ?? ""} onChange=${filter("kind")}>
          <option value="">any</option>
          ${Object.entries(KINDS).map(([kind, word]) => html`<option value=${kind}>${word}</option>`)}
        </select></label
      >
      <label
        >Project<select value=${query.project ?? ""} onChange=${filter("project")}>
          <option value="">all</option>
          ${(projects.value ?? []).map(
            (project) => html`<option value=${project.name}>${project.name}</option>`,
          )}
        </select></label
      >
      <label>Owner<input class="short" value=${query.owner ?? ""} onInput=${filter("owner")} /></label>
    </form>
    <${ProblemBox} problem=${problem} />
    <p class="unseen" role="status" aria-live="polite">${counts}</p>
    ${value && value.items.length === 0
      ? html`<p class="empty">
          ${Object.values(query).some(Boolean)
            ? "No job matches these filters."
            : "There are no jobs yet. Begin with a new search."}
        </p>`
      : value &&
        html`<table class="stack">
            <thead>
              <tr>
                <th scope="col"><span class="unseen">Choose</span></th>
                <th scope="col">Name</th>
                <th scope="col">State</th>
                <th scope="col">Progress</th>
                <th scope="col">Kind</th>
                <th scope="col">Owner</th>
                <th scope="col">Made</th>
                <th scope="col" class="n">Used</th>
              </tr>
            </thead>
            <tbody>
              ${value.items.map(
                (job) =>
                  html`<tr key=${job.id}>
                    <td>
                      ${job.kind === "search" &&
                      html`<input
                        type="checkbox"
                        aria-label=${`Compare ${job.name} ${job.id}`}
                        checked=${chosen.has(job.id)}
                        onChange=${pick(job)}
                      />`}
                    </td>
                    <td class="name">
                      <a href=${hash(["job", job.id])}>${job.name || job.id}</a>
                      <div class="small quiet">${job.id}</div>
                    </td>
                    <td><${State} job=${job} /></td>
                    <td><${Progress} job=${job} status=${progress[job.id]} /></td>
                    <td>${KINDS[job.kind]}</td>
                    <td data-label="by">${job.owner}${job.project === "default" ? "" : ` / ${job.project}`}</td>
                    <td class="when" data-label="made"><time datetime=${job.made}>${moment(job.made)}</time></td>
                    <td class="n" data-label="used">${job.used_s ? duration(job.used_s) : "–"}</td>
                  </tr>`,
              )}
            </tbody>
          </table>
          <div class="pages">
            <span>${counts}</span>
            ${before.length > 0 && html`<button onClick=${back}>Newer</button>`}
            ${value.cursor && html`<button onClick=${onward}>Older</button>`}
          </div>`}`;
}
