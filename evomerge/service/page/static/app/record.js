// A part of a search's record, fetched again at every beat; before there is one, a sentence.
import { get, path } from "./api.js";
import { ProblemBox, useFetched } from "./parts.js";
import { html } from "./view.js";

export function useRecord(job, what, query, keys) {
  return useFetched(
    (stop) => get(path("jobs", job.id, what), query ?? {}, stop),
    [job.id, what, job.state, ...(keys ?? [])],
  );
}

export function Waiting({ it, words }) {
  if (it.value) return null;
  if (it.problem?.status === 409) {
    return html`<p class="empty">${words ?? "There is nothing to show yet."}</p>`;
  }
  if (it.problem) return html`<${ProblemBox} problem=${it.problem} />`;
  return html`<p class="empty" role="status">Reading the record …</p>`;
}
