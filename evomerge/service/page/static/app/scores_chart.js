// The chart of a search: candidates in order, generations, and every baseline with its interval.
import { tip } from "./chart.js";
import { colour } from "./theme.js";
import { counted, interval, score } from "./words.js";

const LABEL_GAP = 15;
const TOP = 26;
const BOTTOM = 48;
const STEP = 7; // between the intervals beside the plot

// Places as near as possible to the wanted ones (ascending), `gap` apart, in [0, most].
function apart(wanted, gap, most) {
  const groups = [];
  wanted.forEach((place, n) => {
    groups.push([place - n * gap, 1]);
    while (
      groups.length > 1 &&
      groups.at(-2)[0] / groups.at(-2)[1] > groups.at(-1)[0] / groups.at(-1)[1]
    ) {
      const [total, count] = groups.pop();
      groups.at(-1)[0] += total;
      groups.at(-1)[1] += count;
    }
  });
  const firsts = groups.flatMap(([total, count]) => Array(count).fill(total / count));
  const room = Math.max(0, most - (wanted.length - 1) * gap);
  return firsts.map((first, n) => Math.min(Math.max(first, 0), room) + n * gap);
}

function cut(text, letters) {
  return text.length <= letters ? text : `${text.slice(0, letters - 1).trimEnd()}…`;
}

// The baselines from the best to the worst: a narrow chart numbers them so, and the list beneath
// it says their names.
export const ranked = (lines) => [...lines].sort((a, b) => b.score - a.score);

export function scoresOption(series, stages, width, height) {
  const { dots, crosses, generations, shares } = series;
  const lines = ranked(series.lines);
  const narrow = width < 560;
  const count = Math.max(1, dots.length + crosses.length);
  const drawn = (value) => (shares ? Math.min(1, Math.max(0, value)) : value);
  const values = [
    ...dots.map((dot) => dot.height),
    ...lines.flatMap((line) => [line.score, line.interval?.low, line.interval?.high]),
  ].filter((value) => value !== undefined && value !== null);
  let low = values.length ? values.reduce((a, b) => Math.min(a, b)) : 0;
  let high = values.length ? values.reduce((a, b) => Math.max(a, b)) : 1;
  const margin = 0.06 * (high - low) || 0.05 * Math.max(Math.abs(high), 1);
  low -= margin;
  high += margin;
  const strip = 10 + lines.length * STEP;
  const right = strip + (narrow ? 24 : 158);
  const plot = height - TOP - BOTTOM;
  const places = apart(
    lines.map((line) => ((high - line.score) / (high - low)) * plot),
    LABEL_GAP,
    plot,
  );
  const told = (line) =>
    tip(
      line.label,
      `score ${score(line.score)} on ${counted(line.items, "item")}`,
      line.interval && `95%: ${interval(line.interval)}`,
    );
  const broken = [];
  generations.forEach((each, n) => {
    if (n && generations[n - 1].stage !== each.stage) broken.push(null);
    broken.push(each);
  });
  const generationLine = (key, heightKey, name, style) => ({
    name,
    type: "line",
    z: 5,
    sampling: "lttb",
    symbol: style.symbol,
    symbolSize: style.size,
    showSymbol: generations.length < 200,
    lineStyle: { width: style.width, color: style.paint, type: style.type },
    itemStyle: { color: style.paint },
    data: broken.map((each) => (each ? [each.place, each[heightKey]] : [null, null])),
    tooltip: {
      formatter: ({ dataIndex }) => {
        const each = broken[dataIndex];
        return tip(`Generation ${each.number}`, `${name} ${score(each[key], shares)}`);
      },
    },
  });
  return {
    grid: { left: 50, right, top: TOP, bottom: BOTTOM },
    xAxis: {
      type: "value",
      min: 0.5 - 0.01 * count,
      max: count + 0.5 + 0.01 * count,
      name: "candidate, in order of generation",
      nameGap: 28,
      splitLine: { show: false },
      minInterval: 1,
      axisLabel: { showMinLabel: false, showMaxLabel: false, formatter: (v) => v.toLocaleString("en") },
    },
    yAxis: {
      type: "value",
      min: low,
      max: high,
      name: "combined search score",
      nameGap: 36,
      axisLabel: { showMinLabel: false, showMaxLabel: false, formatter: (v) => Number(v.toFixed(3)) },
    },
    series: [
      {
        name: "baselines",
        type: "custom",
        z: 2,
        clip: false,
        data: lines.map((line) => [count, line.score]),
        tooltip: { formatter: ({ dataIndex }) => told(lines[dataIndex]) },
        renderItem: ({ dataIndex, coordSys: box }, api) => {
          const line = lines[dataIndex];
          const paint = colour(line.alone ? "var(--ink)" : "var(--line)");
          const y = api.coord([count, line.score])[1];
          const edge = box.x + box.width;
          const x = edge + 6 + dataIndex * STEP;
          const children = [
            {
              type: "line",
              shape: { x1: box.x, y1: y, x2: edge, y2: y },
              style: { stroke: paint, lineWidth: line.alone ? 1.5 : 1, lineDash: line.alone ? [6, 4] : undefined },
            },
            { type: "circle", shape: { cx: x, cy: y, r: 2.5 }, style: { fill: paint } },
          ];
          if (line.interval) {
            const from = api.coord([count, drawn(line.interval.low)])[1];
            const to = api.coord([count, drawn(line.interval.high)])[1];
            children.push({
              type: "line",
              shape: { x1: x, y1: from, x2: x, y2: to },
              style: { stroke: paint, lineWidth: 2 },
            });
          }
          const at = box.y + places[dataIndex];
          children.push(
            {
              type: "line",
              shape: { x1: x + 4, y1: y, x2: edge + strip + 2, y2: at },
              style: { stroke: colour("var(--grid)"), lineWidth: 1 },
            },
            {
              type: "text",
              style: {
                text: narrow ? String(dataIndex + 1) : cut(line.label, 22),
                x: edge + strip + 5,
                y: at,
                verticalAlign: "middle",
                font: `${line.alone ? 600 : 400} 12px system-ui, sans-serif`,
                fill: colour(line.alone ? "var(--ink)" : "var(--ink-2)"),
              },
            },
          );
          return { type: "group", children };
        },
      },
      {
        name: "candidates",
        type: "scatter",
        z: 3,
        symbolSize: count > 2000 ? 3 : 5,
        large: count > 2000,
        largeThreshold: 2000,
        itemStyle: { color: "var(--dot)" },
        data: dots.map((dot) => [dot.place, dot.height]),
        tooltip: {
          formatter: ({ dataIndex }) => {
            const dot = dots[dataIndex];
            return tip(dot.candidate, `score ${score(dot.score, shares)} on ${counted(dot.items, "item")}`);
          },
        },
      },
      {
        name: "failed",
        type: "scatter",
        z: 4,
        symbol: "path://M0 1.500l1.500-1.500 4.500 4.500 4.500-4.500 1.500 1.500-4.500 4.500 4.500 4.500-1.500 1.500-4.500-4.500-4.500 4.500-1.500-1.500 4.500-4.500z",
        symbolSize: 8,
        itemStyle: { color: "var(--warn)" },
        data: crosses.map((cross) => [cross.place, low + 0.03 * (high - low)]),
        tooltip: {
          formatter: ({ dataIndex }) => tip(`${crosses[dataIndex].candidate} failed`, crosses[dataIndex].reason),
        },
      },
      {
        ...generationLine("best", "best_height", "best", {
          symbol: "diamond",
          size: 7,
          width: 1.25,
          type: "dotted",
          paint: "var(--c2)",
        }),
        markLine: {
          silent: true,
          symbol: "none",
          lineStyle: { color: "var(--ink-2)", type: "dashed", width: 1 },
          label: { color: "var(--ink)", position: "end", formatter: ({ name }) => name },
          data: stages.length
            ? series.stages.map(([place, stage]) => ({ xAxis: place - 0.5, name: cut(stages[stage] ?? "", 24) }))
            : [],
        },
      },
      generationLine("mean", "mean_height", "mean", {
        symbol: "circle",
        size: 6,
        width: 2.5,
        type: "solid",
        paint: "var(--accent)",
      }),
    ],
  };
}
