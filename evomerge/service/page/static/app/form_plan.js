// The plan of a job before it is launched.
import { get, newKey, path, post } from "./api.js";
import { Dialog, ProblemBox, State, useEvery } from "./parts.js";
import { hash } from "./place.js";
import { Plan } from "./plan.js";
import { html, useState } from "./view.js";

// The plan of a job is a job of its own: every check, items, time and memory.
export function PlanDialog({ order, onClose }) {
  const [made, setMade] = useState(null);
  const [problem, setProblem] = useState(null);
  const [timing, setTiming] = useState(false);
  const begin = async () => {
    setProblem(null);
    try {
      setMade(await post("jobs", { kind: "check", timing, ...order }, { "Idempotency-Key": newKey() }));
    } catch (refused) {
      setProblem(refused);
    }
  };
  const over = made && ["succeeded", "failed", "cancelled"].includes(made.state);
  useEvery(made && !over ? 1 : 0, () => get(path("jobs", made.id)).then(setMade, setProblem), [made?.id, over]);
  return html`<${Dialog} title="Plan" onClose=${onClose}>
    <p class="quiet">
      Models, tasks and the search space are opened and checked; items, time and memory are counted. Nothing is searched.
    </p>
    <${ProblemBox} problem=${problem} />
    ${!made
      ? html`<label class="row"
            ><input type="checkbox" checked=${timing} onChange=${(event) => setTiming(event.target.checked)} /> time the
            base for about 20 seconds</label
          >
          <p></p>`
      : html`<p role="status"><${State} job=${made} /> <a href=${hash(["job", made.id])}>${made.id}</a></p>
          ${made.message && html`<p class="wrong">${made.message}</p>`}
          ${made.result?.report && html`<${Plan} report=${made.result.report} />`}`}
    <div class="row">
      ${!made && html`<button type="button" class="main" onClick=${begin}>Make the plan</button>`}
      <button type="button" onClick=${onClose}>Close</button>
    </div>
  <//>`;
}
