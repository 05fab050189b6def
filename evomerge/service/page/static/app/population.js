// The population as it moves: every candidate on a map of the space, and its genes over time.
import { Chart, tip } from "./chart.js";
import { heatHeight, heatOption } from "./heat.js";
import { Waiting, useRecord } from "./record.js";
import { html, useMemo, useState } from "./view.js";
import { number, score } from "./words.js";

function mapOption(population, upTo) {
  const { x, y, numbers, candidates, scores, generations, shares } = population;
  const shown = x.map((_, n) => n).filter((n) => numbers[n] <= upTo);
  const ends = (values) => {
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const margin = 0.06 * (high - low) || 0.1;
    return { min: low - margin, max: high + margin };
  };
  const centres = generations
    .filter((each) => each <= upTo)
    .map((each) => {
      const members = shown.filter((n) => numbers[n] === each);
      const mean = (values) => members.reduce((sum, n) => sum + values[n], 0) / members.length;
      return [mean(x), mean(y), each];
    });
  const percent = (share) => `${Math.round(100 * share)}% of the variance`;
  const quiet = { axisLabel: { show: false }, scale: true };
  return {
    grid: { left: 34, right: 16, top: 34, bottom: 34 },
    xAxis: { type: "value", ...ends(x), ...quiet, name: `first direction, ${percent(shares[0])}`, nameGap: 12 },
    yAxis: { type: "value", ...ends(y), ...quiet, name: `second direction, ${percent(shares[1])}`, nameGap: 12 },
    visualMap: {
      type: "continuous",
      dimension: 2,
      seriesIndex: 0,
      min: generations[0],
      max: Math.max(generations.at(-1), generations[0] + 1),
      orient: "horizontal",
      right: 12,
      top: 2,
      itemHeight: 110,
      itemWidth: 10,
      text: [`generation ${generations.at(-1)}`, `${generations[0]}`],
      textStyle: { color: "var(--ink-2)", fontSize: 12 },
      inRange: { color: ["var(--line)", "var(--accent)", "var(--high)"] },
    },
    series: [
      {
        type: "scatter",
        symbolSize: shown.length > 2000 ? 3 : 7,
        progressive: 3000,
        data: shown.map((n) => [x[n], y[n], numbers[n]]),
        itemStyle: { opacity: 0.8 },
        tooltip: {
          formatter: ({ dataIndex }) => {
            const n = shown[dataIndex];
            return tip(candidates[n], `generation ${numbers[n]}`, `score ${score(scores[n])}`);
          },
        },
      },
      {
        type: "line",
        data: centres,
        symbol: "circle",
        symbolSize: 5,
        lineStyle: { color: "var(--c2)", width: 2 },
        itemStyle: { color: "var(--c2)" },
        tooltip: { formatter: ({ value }) => tip(`Centre of generation ${value[2]}`) },
      },
    ],
  };
}

export function Population({ job, beat }) {
  const series = useRecord(job, "series", {}, [beat]);
  const population = series.value?.population;
  const last = population?.generations.at(-1);
  const [chosen, setChosen] = useState(null);
  const [spread, setSpread] = useState(false);
  const upTo = chosen === null || chosen > last ? last : chosen;
  const map = useMemo(() => population && mapOption(population, upTo), [population, upTo]);
  const genes = useMemo(
    () =>
      population &&
      ((width) =>
        heatOption(
          {
            rows: population.genes,
            columns: population.generations,
            values: spread ? population.spreads : population.means,
            columnName: "generation",
            said: (row, column, value) => [
              population.genes[row],
              `generation ${population.generations[column]}`,
              `mean ${number(population.means[row][column])}, standard deviation ${number(population.spreads[row][column])}`,
            ],
          },
          width,
        )),
    [population, spread],
  );
  if (!series.value) return html`<${Waiting} it=${series} words="No candidate is recorded yet." />`;
  if (!population) return html`<p class="empty">Two candidates are needed; they are not recorded yet.</p>`;
  return html`<h2>The population on a map</h2>
    <p class="caption">
      Candidates that are near to each other have nearly the same genes. The two directions are those in which all
      candidates differ most; the line goes through the centres of the generations.
    </p>
    <div class="row">
      <label for="upto">Up to generation ${upTo}</label>
      <input
        id="upto"
        type="range"
        min=${population.generations[0]}
        max=${last}
        value=${upTo}
        onInput=${(event) => setChosen(Number(event.target.value))}
      />
    </div>
    <${Chart}
      size=${420}
      option=${map}
      label=${`Map of ${population.candidates.length} candidates in ${population.generations.length} generations`}
    />
    <section>
      <h2>Genes over the generations</h2>
      <div class="row">
        <label class="row"
          ><input type="checkbox" checked=${spread} onChange=${(event) => setSpread(event.target.checked)} />
          how much candidates differ, instead of the mean</label
        >
      </div>
      <${Chart}
        option=${genes}
        height=${heatHeight(population.genes.length)}
        label=${`${spread ? "Standard deviation" : "Mean"} of ${population.genes.length} genes over ${population.generations.length} generations`}
      />
    </section>`;
}
