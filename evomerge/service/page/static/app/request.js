// What was asked for, as the file that it is.
import { post } from "./api.js";
import { Block, useFetched } from "./parts.js";
import { hash } from "./place.js";
import { html } from "./view.js";
import { duration, moment } from "./words.js";

// A document as YAML; the server writes it where it can, because it knows the order of the keys.
function yamlOf(value, indent = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const entries = Array.isArray(value) ? value.map((each) => ["-", each]) : Object.entries(value);
  if (!entries.length) return Array.isArray(value) ? "[]" : "{}";
  return entries
    .map(([key, each]) => {
      const head = key === "-" ? `${indent}-` : `${indent}${key}:`;
      const nested = each !== null && typeof each === "object" && Object.keys(each).length;
      return nested ? `${head}\n${yamlOf(each, `${indent}  `)}` : `${head} ${yamlOf(each)}`;
    })
    .join("\n");
}

export function Request({ job }) {
  const yaml = useFetched(
    () =>
      job.kind === "search"
        ? post("jobs/validate", { kind: "search", project: job.project, job: job.request }).then(
            (found) => found.yaml,
            () => yamlOf(job.request),
          )
        : Promise.resolve(yamlOf(job.request)),
    [job.id, job.state],
  );
  return html`<h2>The job</h2>
    <dl class="tiles">
      <div><dt>Priority</dt><dd>${job.priority}</dd></div>
      <div><dt>Attempts</dt><dd>${job.attempts}<small>${job.retries_left} retries left</small></dd></div>
      <div><dt>Runs at most</dt><dd>${job.max_duration_s ? duration(job.max_duration_s) : "no limit"}</dd></div>
      <div><dt>Made</dt><dd>${moment(job.made)}</dd></div>
    </dl>
    ${yaml.value && html`<${Block} text=${yaml.value} label="Job file" />`}
    ${job.parent && html`<p>Made from <a href=${hash(["job", job.parent])}>${job.parent}</a>.</p>`}`;
}
