// What a job does now: a sentence for its last event, and how far it is where that is counted.
import { html } from "./view.js";
import { counted, score } from "./words.js";

// After these nothing is recorded that the page would have to read.
export const QUIET = new Set(["progress", "planned", "note", "checking", "work", "search_progress"]);

function wordsOf(event) {
  switch (event.event) {
    case "checking":
      return "Models, tasks and search space are checked.";
    case "note":
      return event.text;
    case "planned":
      return `${counted(event.candidates.length, "model")} of the ${event.phase} are scored next, on ${counted(event.items, "item")} each.`;
    case "work":
      return `${counted(event.models, "model")} to score on ${counted(event.items, "item")}${event.recorded ? `; ${event.recorded} taken from the record` : ""}.`;
    case "progress":
    case "search_progress":
      return event.count === undefined
        ? `${inSearch(event)}${event.label ?? event.candidate}: ${event.step}.`
        : `${event.label}: ${event.done} of ${counted(event.count, "sequence")}.`;
    case "candidate_done":
    case "search_candidate_done":
      return event.failure
        ? `${inSearch(event)}${event.label} failed: ${event.failure}`
        : `${inSearch(event)}${event.label} scored ${score(event.score)} on ${counted(event.items, "item")}.`;
    case "generation_done":
    case "search_generation_done":
      return `${inSearch(event)}Generation ${event.generation}: ${event.scored} scored, best ${score(event.best)}, mean ${score(event.mean)}.`;
    case "finished":
    case "search_finished":
      return `${inSearch(event)}${event.headline}`;
    default:
      return null;
  }
}

// A grid may have searches among its methods.
const inSearch = ({ search }) => (search ? `${search}: ` : "");

// How far a calibration is with a model, or a grid with its models.
function farAfter(far, event) {
  if (event.event === "work") return { done: 0, count: event.models, what: "models" };
  if (event.event !== "progress") return far;
  if (event.count !== undefined) return { done: event.done, count: event.count, what: "sequences" };
  return far && event.step === "recorded" ? { ...far, done: far.done + 1 } : far;
}

// steps: {words, far}, both of the events so far.
export function stepsAfter(steps, event) {
  return { words: wordsOf(event) ?? steps.words, far: farAfter(steps.far, event) };
}

export function Steps({ steps: { words, far } }) {
  return html`${far &&
    html`<div class="bar small">
      <progress max=${far.count} value=${far.done} aria-label=${`${far.what} that are done`}></progress>
      <span>${far.done.toLocaleString("en")} of ${counted(far.count, far.what.slice(0, -1))}</span>
    </div>`}
    <p class="small quiet">${words ?? "Waiting for news …"}</p>`;
}
