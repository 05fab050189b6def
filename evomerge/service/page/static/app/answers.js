// Show me: what the winner answered beside its parents, item by item, lost and gained items first.
import { get, path } from "./api.js";
import { useFetched } from "./parts.js";
import { Waiting } from "./record.js";
import { html, useState } from "./view.js";
import { counted, number } from "./words.js";

const PAGE = 10;
const CHANGES = { lost: "lost", gained: "gained", differs: "differ", same: "the same" };

export function Answers({ job, status }) {
  const [change, setChange] = useState("");
  const [task, setTask] = useState("");
  const [split, setSplit] = useState("");
  const [offset, setOffset] = useState(0);
  // The place of a page comes with its items: until others are here, these stay on screen.
  const found = useFetched(
    (stop) =>
      get(path("jobs", job.id, "answers"), { change, task, split, offset, limit: PAGE }, stop).then((sheet) => ({
        ...sheet,
        offset,
      })),
    [job.id, job.state, change, task, split, offset, status?.finished],
  );
  const tasks = [
    ...new Set((job.request.objectives ?? []).flatMap((each) => (each.members?.length ? each.members.map((m) => m.task ?? m) : [each.task]))),
    ...(job.request.report ?? []),
  ];
  const set = (act) => (event) => {
    act(event.target.value);
    setOffset(0);
  };
  // What is refused has no answers: those of the choice before would pass for its own.
  const it = [409, 422].includes(found.problem?.status) ? null : found.value;
  return html`<h2>Answers, item by item</h2>
    <form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label
        >Show<select value=${change} onChange=${set(setChange)}>
          <option value="">all, lost and gained first</option>
          <option value="lost">lost by the first model</option>
          <option value="gained">gained by the first model</option>
          <option value="differ">any difference</option>
        </select></label
      >
      <label
        >Task<select value=${task} onChange=${set(setTask)}>
          <option value="">all</option>
          ${tasks.map((name) => html`<option value=${name}>${name}</option>`)}
        </select></label
      >
      <label
        >Items<select value=${split} onChange=${set(setSplit)}>
          <option value="">the last split with answers</option>
          <option value="test">test</option>
          <option value="validation">validation</option>
          <option value="search">search</option>
        </select></label
      >
    </form>
    <${Waiting} it=${{ ...found, value: it }} words=${found.problem?.message ?? "No answers are kept yet."} />
    ${it &&
    html`<p class="caption" role="status">
        ${counted(it.total, "item")} of the ${it.split} split${it.against && it.counts
          ? `; against ${it.against}, ${it.models[0].model} lost ${it.counts.lost} and gained ${it.counts.gained}`
          : ""}. ${it.remarks.join(" ")}
      </p>
      ${it.items.length === 0 && html`<p class="empty">No item is like that.</p>`}
      ${it.items.map((item) => html`<${Item} key=${`${item.task} ${item.item} ${item.metric}`} item=${item} />`)}
      <div class="pages">
        <span>${it.total ? `${it.offset + 1} to ${it.offset + it.items.length} of ${it.total.toLocaleString("en")}` : ""}</span>
        <button disabled=${offset === 0} onClick=${() => setOffset(Math.max(0, offset - PAGE))}>Before</button>
        <button disabled=${offset + PAGE >= it.total} onClick=${() => setOffset(offset + PAGE)}>After</button>
      </div>`}`;
}

function Item({ item }) {
  return html`<article class="item">
    <h3>
      ${item.task} ${item.item}
      ${item.change && html`<span class="quiet"> · ${CHANGES[item.change] ?? item.change}</span>`}
    </h3>
    <pre tabindex="0" role="region" aria-label=${`Prompt of ${item.task} ${item.item}`}>${item.prompt}</pre>
    <div class="scroll">
      <table>
        <tbody>
          ${item.target &&
          html`<tr>
            <th scope="row">wanted</th>
            <td class="said">${item.target}</td>
            <td class="n quiet">${item.metric}</td>
          </tr>`}
          ${item.answers.map(
            (answer) =>
              html`<tr key=${answer.model}>
                <th scope="row">${answer.model} <span class="small quiet">${answer.role}</span></th>
                <td class=${`said ${answer.value >= 1 ? "right" : answer.value <= 0 ? "wrong" : ""}`}>
                  ${answer.answer}${answer.cut && html` <span class="quiet">(cut off)</span>`}
                </td>
                <td class="n">${number(answer.value)}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </article>`;
}
