// Two searches or more beside each other: how far, how well, and their curves in one chart.
import { get, path } from "./api.js";
import { Chart, tip } from "./chart.js";
import { ProblemBox, State, useEvery, useFetched } from "./parts.js";
import { hash, place, setQuery } from "./place.js";
import { html, useMemo } from "./view.js";
import { counted, duration, gain, interval, score } from "./words.js";

// null: there is no such job here.
async function read(id, stop) {
  const unless = (status) => (problem) => {
    if (problem.status === status) return null;
    throw problem;
  };
  const job = await get(path("jobs", id), {}, stop).catch(unless(404));
  if (!job) return null;
  // Before there is a record, or an end.
  const part = (what) => get(path("jobs", id, what), {}, stop).catch(unless(409));
  const [status, series, outcome] = await Promise.all([part("status"), part("series"), part("winner")]);
  return { job, status, series, outcome };
}

const paint = (n) => `var(--c${(n % 8) + 1})`;
const nameOf = (found, { job }) =>
  found.filter((each) => each.job.name === job.name).length > 1 ? `${job.name} ${job.id.slice(0, 6)}` : job.name;

function option(found) {
  const drawn = found.filter((each) => each.series);
  const names = drawn.map((each) => nameOf(found, each));
  const values = drawn.flatMap((each) =>
    each.series.search.generations.flatMap((point) => [point.mean_height, point.best_height]),
  );
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const margin = 0.08 * (high - low) || 0.05;
  const line = (each, n, key, style) => ({
    name: names[n],
    type: "line",
    sampling: "lttb",
    symbol: key === "best_height" ? "diamond" : "circle",
    symbolSize: 6,
    data: each.series.search.generations.map((point) => [point.place, point[key]]),
    lineStyle: { color: paint(n), ...style },
    itemStyle: { color: paint(n) },
    tooltip: {
      formatter: ({ dataIndex }) => {
        const point = each.series.search.generations[dataIndex];
        return tip(`${names[n]}, generation ${point.number}`, `mean ${score(point.mean)}`, `best ${score(point.best)}`);
      },
    },
  });
  return {
    grid: { left: 52, right: 16, top: 36, bottom: 46 },
    legend: { top: 0, left: 0, textStyle: { color: "var(--ink-2)" }, data: [...new Set(names)], icon: "roundRect" },
    xAxis: { type: "value", min: 0, name: "candidates", nameGap: 28, splitLine: { show: false } },
    yAxis: {
      type: "value",
      min: low - margin,
      max: high + margin,
      name: "combined search score",
      nameGap: 38,
      axisLabel: { showMinLabel: false, showMaxLabel: false, formatter: (v) => Number(v.toFixed(3)) },
    },
    series: drawn.flatMap((each, n) => [
      line(each, n, "mean_height", { width: 2.5 }),
      line(each, n, "best_height", { width: 1.25, type: "dotted" }),
    ]),
  };
}

export function Compare() {
  const ids = (place.value.query.get("jobs") ?? "").split(",").filter(Boolean);
  const list = useFetched((stop) => get("jobs", { kind: "search", limit: 100 }, stop), []);
  const { value, problem, again } = useFetched(
    (stop) => Promise.all(ids.map((id) => read(id, stop))).then((read) => ({ ids: ids.join(), read })),
    [ids.join()],
  );
  const found = value?.ids === ids.join() ? value.read.filter(Boolean) : null;
  const missing = found ? ids.filter((id) => !found.some((each) => each.job.id === id)) : [];
  const moving = found?.some((each) => ["starting", "running"].includes(each.job.state));
  useEvery(moving ? 5 : 0, again, [moving]);
  // Also those that are too old for the list.
  const listed = list.value?.items ?? [];
  const others = (found ?? []).map((each) => each.job).filter((job) => !listed.some((each) => each.id === job.id));
  const drawn = useMemo(() => found?.some((each) => each.series?.search.generations.length) && option(found), [value, ids.join()]);
  const toggle = (id) => (event) =>
    setQuery({ jobs: (event.target.checked ? [...ids, id] : ids.filter((each) => each !== id)).join(",") });
  const tasks = [
    ...new Set(
      (found ?? []).flatMap(({ outcome }) =>
        Object.entries(outcome?.winner?.scores.tasks ?? {}).flatMap(([task, metrics]) =>
          Object.keys(metrics).map((metric) => `${task}/${metric}`),
        ),
      ),
    ),
  ];
  const row = (label, show) =>
    html`<tr>
      <th scope="row">${label}</th>
      ${found.map((each) => html`<td class="n">${show(each)}</td>`)}
    </tr>`;
  const stacked = (it) => (it ? html`${score(it.value)}<div class="small quiet">${interval(it)}</div>` : "–");
  return html`<div class="head"><h1>Compare searches</h1></div>
    <fieldset>
      <legend>Searches</legend>
      <div class="choices">
        ${[...others, ...listed].map(
          (job) =>
            html`<label key=${job.id}
              ><input type="checkbox" checked=${ids.includes(job.id)} onChange=${toggle(job.id)} />${job.name}${" "}
              <span class="small quiet">${job.id}, ${job.state}</span></label
            >`,
        )}
      </div>
    </fieldset>
    <${ProblemBox} problem=${problem ?? list.problem} />
    ${missing.map((id) => html`<p key=${id}>There is no job <code>${id}</code> that you see. <button onClick=${toggle(id)}>Leave it out</button></p>`)}
    ${ids.length < 2 && html`<p class="empty">Choose two searches or more.</p>`}
    ${found &&
    found.length > 0 &&
    html`${drawn &&
      html`<p class="caption">
          Means of the generations, and dotted their best. Scores of different jobs compare only where their objectives
          are the same.
        </p>
        <${Chart} size=${330} option=${drawn} label=${`Generation means of ${found.map((each) => nameOf(found, each)).join(", ")}`} />`}
      <div class="scroll" tabindex="0" role="region" aria-label="Searches in numbers">
        <table>
          <thead>
            <tr>
              <th scope="col"><span class="unseen">What</span></th>
              ${found.map(
                (each) => html`<th scope="col" class="n"><a href=${hash(["job", each.job.id])}>${nameOf(found, each)}</a></th>`,
              )}
            </tr>
          </thead>
          <tbody>
            ${row("state", (each) => html`<${State} job=${each.job} />`)}
            ${row("winner, test items", ({ outcome }) =>
              outcome?.kind === "front" ? `a front of ${counted(outcome.points.length, "point")}` : stacked(outcome?.winner?.scores.score),
            )}
            ${row("gain over the best parent", (each) =>
              each.outcome?.gain
                ? html`${gain(each.outcome.gain.value)}<div class="small quiet">${gain(each.outcome.gain.low)} to ${gain(each.outcome.gain.high)}</div>`
                : "–",
            )}
            ${row("verdict", (each) => each.outcome?.verdict ?? "–")}
            ${row("candidates", (each) => each.status?.candidates ?? "–")}
            ${row("failed", (each) => each.status?.failed ?? "–")}
            ${row("worker time", (each) => duration(each.status?.worker_s))}
            ${row("items", (each) => each.status?.items.toLocaleString("en") ?? "–")}
            ${row("search space", ({ job }) =>
              typeof job.request.search_space === "object" && job.request.search_space
                ? (job.request.search_space.method ?? "its own")
                : (job.request.search_space ?? "default"),
            )}
            ${row("sources", ({ job }) => job.request.models.sources.length)}
            ${tasks.map((name) =>
              row(name, ({ outcome }) => {
                const [task, metric] = [name.slice(0, name.lastIndexOf("/")), name.slice(name.lastIndexOf("/") + 1)];
                return stacked(outcome?.winner?.scores.tasks[task]?.[metric]);
              }),
            )}
          </tbody>
        </table>
      </div>`}`;
}
