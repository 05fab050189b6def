// The job that a form builds: how it begins, how a field changes it, what of it is sent.
import { place } from "./place.js";

const NEW = {
  name: "",
  models: { base: "", sources: [] },
  search_space: null,
  mode: "single",
  objectives: [{ task: "", metric: "" }],
  aggregate: "mean",
  report: [],
  evaluation: {},
  optimizer: {},
  budget: { candidates: 100 },
  compute: {},
};

// A copy with the value at a dotted path changed; an empty value takes the key away.
export function changed(document, dotted, value) {
  const [key, ...rest] = dotted.split(".");
  const copy = Array.isArray(document) ? [...document] : { ...document };
  if (rest.length) copy[key] = changed(document[key] ?? {}, rest.join("."), value);
  else if (value === undefined) delete copy[key];
  else copy[key] = value;
  return copy;
}

export const at = (document, dotted) => dotted.split(".").reduce((part, key) => part?.[key], document);

// The document as it is sent: without what is empty.
export function sent(document) {
  return Object.fromEntries(
    Object.entries(document).filter(
      ([, value]) =>
        value !== null &&
        value !== "" &&
        !(typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length),
    ),
  );
}

// When and where a copy runs: as the job that is copied, unless it is changed here.
export function runOf(original) {
  if (!original) return { project: "", priority: 0, hours: "", not_before: "" };
  const start = original.not_before && new Date(original.not_before);
  const local = start > new Date() ? new Date(start - start.getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "";
  const hours = original.max_duration_s ? String(original.max_duration_s / 3600) : "";
  return { project: original.project, priority: original.priority, hours, not_before: local };
}

// The part of a job's address to which a problem belongs: job.budget.candidates -> budget.candidates.
export const placeOf = (problem) => problem?.field?.replace(/^job\./, "");

// What the form begins with: the job that is copied, a task that was just made, or nothing.
export function startOf(original) {
  if (!original) {
    const [task, metric, folder] = ["task", "metric", "folder"].map((name) => place.value.query.get(name));
    if (!task) return NEW;
    return { ...NEW, objectives: [{ task, metric }], evaluation: { task_folders: [folder] } };
  }
  const name = `${original.request.name}-copy`;
  return { ...structuredClone(original.request), name };
}
