// Every candidate in a table that draws only the rows that are seen.
import { get, path } from "./api.js";
import { useFetched } from "./parts.js";
import { Waiting } from "./record.js";
import { html, useEffect, useMemo, useRef, useState } from "./view.js";
import { duration, number, score } from "./words.js";

const ROW = 31; // CSS pixels
const AROUND = 12;

const PART = 5000;

// Every row, in parts; from the begin where the search has recorded more meanwhile, because the
// rows of finalists come before the others.
async function everyRow(job, stop) {
  for (;;) {
    const rows = [];
    let total;
    for (let grown = false; !grown; ) {
      const part = await get(path("jobs", job.id, "candidates"), { offset: rows.length, limit: PART }, stop);
      grown = total !== undefined && part.total !== total;
      total = part.total;
      rows.push(...part.items);
      if (!grown && (rows.length >= total || !part.items.length)) return { items: rows };
    }
  }
}

export function Candidates({ job, beat }) {
  const found = useFetched((stop) => everyRow(job, stop), [job.id, job.state, beat]);
  const [sort, setSort] = useState({ by: null, down: true });
  const [q, setQ] = useState("");
  const [genes, setGenes] = useState(false);
  const items = found.value?.items;
  const columns = useMemo(() => {
    const names = new Set();
    for (const row of items ?? []) for (const name in row) names.add(name);
    const metrics = [...names].filter((name) => name.includes("/") && !name.startsWith("gene: "));
    const shown = [...names].filter((name) => name.startsWith("gene: "));
    return { metrics, genes: shown };
  }, [items]);
  const rows = useMemo(() => {
    const word = q.toLowerCase();
    const kept = (items ?? []).filter(
      (row) => !word || `${row.candidate} ${row.label} ${row.phase} ${row.failure ?? ""}`.toLowerCase().includes(word),
    );
    if (!sort.by) return kept;
    const turn = sort.down ? -1 : 1;
    return [...kept].sort((a, b) => {
      const [x, y] = [a[sort.by], b[sort.by]];
      if (x === y) return 0;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : 1) * turn;
    });
  }, [items, sort, q]);
  if (!items) return html`<${Waiting} it=${found} words="No candidate is recorded yet." />`;
  const shown = [
    ["candidate", "candidate"],
    ["phase", "phase"],
    ["label", "name"],
    ["score", "score"],
    ["items", "items"],
    ...columns.metrics.map((name) => [name, name]),
    ["merge_s", "merge"],
    ["evaluate_s", "scoring"],
    ["failure", "failure"],
    ...(genes ? columns.genes.map((name) => [name, name.slice(6)]) : []),
  ];
  const order = (name) => () => setSort({ by: name, down: sort.by === name ? !sort.down : true });
  return html`<h2>Candidates</h2>
    <form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label>Find<input type="search" value=${q} onInput=${(event) => setQ(event.target.value)} /></label>
      <label class="row"
        ><input type="checkbox" checked=${genes} onChange=${(event) => setGenes(event.target.checked)} />
        genes too</label
      >
    </form>
    <p class="caption" role="status">${rows.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}</p>
    <${Seen} rows=${rows} columns=${shown} sort=${sort} order=${order} />`;
}

const WORDS = {
  merge_s: duration,
  evaluate_s: duration,
  score: (value) => score(value),
  items: (value) => value,
};

function cell(row, name) {
  const value = row[name];
  if (value === null || value === undefined) return "–";
  if (WORDS[name]) return WORDS[name](value);
  return typeof value === "number" ? number(value) : value;
}

const isText = (name) => ["candidate", "phase", "label", "failure"].includes(name);

function Seen({ rows, columns, sort, order }) {
  const box = useRef(null);
  const [view, setView] = useState({ top: 0, height: 520 });
  useEffect(() => {
    const look = () => setView({ top: box.current.scrollTop, height: box.current.clientHeight });
    const node = box.current;
    node.addEventListener("scroll", look, { passive: true });
    look();
    return () => node.removeEventListener("scroll", look);
  }, []);
  const from = Math.max(0, Math.floor(view.top / ROW) - AROUND);
  const to = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW) + AROUND);
  const gap = (count) =>
    count > 0 &&
    html`<tr aria-hidden="true">
      <td class="gap" colspan=${columns.length} style=${{ height: `${count * ROW}px` }}></td>
    </tr>`;
  return html`<div class="tall" ref=${box} tabindex="0" role="region" aria-label="Candidates">
    <table aria-rowcount=${rows.length + 1}>
      <thead>
        <tr>
          ${columns.map(
            ([name, label]) =>
              html`<th
                key=${name}
                scope="col"
                class=${isText(name) ? "" : "n"}
                aria-sort=${sort.by === name ? (sort.down ? "descending" : "ascending") : undefined}
              >
                <button onClick=${order(name)}>${label}${sort.by === name ? (sort.down ? " ↓" : " ↑") : ""}</button>
              </th>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${gap(from)}
        ${rows.slice(from, to).map(
          (row, n) =>
            html`<tr key=${row.candidate} aria-rowindex=${from + n + 2}>
              ${columns.map(
                ([name]) => html`<td class=${isText(name) ? "name" : "n"}>${cell(row, name)}</td>`,
              )}
            </tr>`,
        )}
        ${gap(rows.length - to)}
      </tbody>
    </table>
  </div>`;
}
