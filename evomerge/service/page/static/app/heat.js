// A heat map of rows over columns, with a scale from low to high.
import { tip } from "./chart.js";
import { number } from "./words.js";

export function heatOption({ rows, columns, values, columnName, said }, width) {
  const flat = values.flatMap((row, y) => row.map((value, x) => [x, y, value])).filter((cell) => cell[2] !== null);
  const numbers = flat.map((cell) => cell[2]);
  const low = numbers.length ? numbers.reduce((a, b) => Math.min(a, b)) : 0;
  const high = numbers.length ? numbers.reduce((a, b) => Math.max(a, b)) : 1;
  const letters = width < 560 ? 16 : 40;
  return {
    grid: { left: 24, right: 12, top: 34, bottom: 42, containLabel: true },
    xAxis: {
      type: "category",
      data: columns.map(String),
      name: columnName,
      nameGap: 26,
      splitLine: { show: false },
    },
    yAxis: {
      type: "category",
      data: rows,
      inverse: true,
      splitLine: { show: false },
      axisLabel: {
        formatter: (text) => (text.length > letters ? `…${text.slice(-letters + 1)}` : text),
        interval: rows.length > 60 ? "auto" : 0,
        hideOverlap: true,
      },
    },
    visualMap: {
      type: "continuous",
      min: low,
      max: high === low ? low + 1e-9 : high,
      calculable: false,
      orient: "horizontal",
      right: 12,
      top: 2,
      itemHeight: 110,
      itemWidth: 10,
      text: [number(high), number(low)],
      textStyle: { color: "var(--ink-2)", fontSize: 12 },
      inRange: { color: ["var(--low)", "var(--accent)", "var(--high)"] },
    },
    series: [
      {
        type: "heatmap",
        progressive: 4000,
        data: flat,
        itemStyle: { borderColor: "var(--page)", borderWidth: columns.length > 80 || rows.length > 80 ? 0 : 1 },
        emphasis: { itemStyle: { borderColor: "var(--ink)", borderWidth: 1 } },
        tooltip: { formatter: ({ value: [x, y, cell] }) => tip(...said(y, x, cell)) },
      },
    ],
  };
}

export function heatHeight(rows, least = 220) {
  return Math.min(900, Math.max(least, 90 + rows * (rows > 40 ? 13 : 22)));
}
