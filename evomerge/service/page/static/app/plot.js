// A figure of the report (its data and layout are plotly's) as an option of ECharts.
//
// It knows what the report uses: points, lines, intervals, heat maps, shapes, annotations.
import { tip } from "./chart.js";
import { colour } from "./theme.js";

const SYMBOLS = {
  circle: "circle",
  diamond: "diamond",
  square: "rect",
  "triangle-up": "triangle",
  cross: "path://M4 0h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
  star: "path://M6 0l1.8 4 4.2.4-3.2 2.8 1 4.2L6 9.200l-3.800 2.200 1-4.200L0 4.400l4.200-.400z",
};

// Plotly's text has <br> and escaped signs, nothing else.
function plain(text) {
  const box = new DOMParser().parseFromString(
    String(text ?? "").replaceAll("<extra></extra>", "").replaceAll(/<br\s*\/?>/g, "\n"),
    "text/html",
  );
  return box.body.textContent;
}

const list = (value, length) =>
  Array.isArray(value) ? value : Array.from({ length }, () => value ?? null);

function axisOf(given, { rotate }) {
  const axis = {
    type: given.type === "category" ? "category" : "value",
    name: plain(given.title?.text),
    nameGap: rotate ? 42 : 30,
    splitLine: { show: given.showgrid !== false && !/rgba\(0, ?0, ?0, ?0\)/.test(given.gridcolor ?? "") },
    axisLabel: { show: given.showticklabels !== false },
  };
  if (axis.type === "category") {
    axis.data = (given.categoryarray ?? []).map(plain);
    axis.inverse = given.autorange === "reversed";
    axis.splitLine = { show: false };
    axis.axisLabel = { ...axis.axisLabel, lineHeight: 15, hideOverlap: false };
    return axis;
  }
  const [from, to] = given.range ?? [];
  axis.scale = true;
  if (/d$/.test(given.tickformat ?? "")) axis.minInterval = 1;
  if (from !== undefined) {
    axis.min = Math.min(from, to);
    axis.max = Math.max(from, to);
    axis.inverse = from > to;
  }
  if (given.tickvals) {
    const texts = new Map(
      given.tickvals.map((value, n) => [value, plain(given.ticktext?.[n] ?? value)]),
    );
    axis.axisLabel = {
      ...axis.axisLabel,
      customValues: [...given.tickvals],
      formatter: (value) => texts.get(value) ?? "",
      lineHeight: 15,
      hideOverlap: false,
    };
  } else {
    axis.axisLabel = {
      ...axis.axisLabel,
      showMinLabel: Number.isInteger(from) ? undefined : false,
      showMaxLabel: Number.isInteger(to) ? undefined : false,
      formatter: (value) => Number(value.toPrecision(6)).toLocaleString("en"),
    };
  }
  return axis;
}

function pointSeries(trace, n) {
  const count = trace.x.length;
  const hover = list(trace.hovertext, count);
  const made = [];
  const mode = trace.mode ?? "lines";
  const names = list(trace.text, count);
  const silent = trace.hoverinfo === "skip";
  const said = (at) => {
    if (hover[at]) return plain(hover[at]);
    if (!trace.hovertemplate) return "";
    return plain(
      trace.hovertemplate
        .replace(/%\{x[^}]*\}/, trace.x[at])
        .replace(/%\{y[^}]*\}/, Number(trace.y[at]?.toFixed?.(2) ?? trace.y[at])),
    );
  };
  const tooltip = {
    formatter: ({ dataIndex }) => {
      const [head, ...rest] = said(dataIndex).split("\n");
      return head ? tip(head, ...rest) : "";
    },
  };
  if (mode.includes("lines")) {
    made.push({
      type: "line",
      data: trace.x.map((x, at) => [x, trace.y[at]]),
      showSymbol: false,
      silent: true,
      z: 3 + n * 0.01,
      lineStyle: {
        width: trace.line?.width ?? 2,
        color: trace.line?.color,
        type: { dash: "dashed", dot: "dotted" }[trace.line?.dash] ?? "solid",
      },
    });
  }
  if (mode.includes("markers") && trace.marker?.symbol !== "arrow") {
    const sizes = list(trace.marker?.size, count);
    const paints = list(trace.marker?.color, count);
    const symbols = list(trace.marker?.symbol, count);
    for (const axis of ["x", "y"]) {
      const bar = trace[`error_${axis}`];
      if (bar) made.push(intervals(trace, axis, bar));
    }
    made.push({
      type: "scatter",
      z: 5,
      silent,
      tooltip,
      data: trace.x.map((x, at) => ({
        value: [typeof x === "string" ? plain(x) : x, typeof trace.y[at] === "string" ? plain(trace.y[at]) : trace.y[at]],
        symbol: SYMBOLS[symbols[at]] ?? (String(symbols[at]).startsWith("x") ? CROSS : "circle"),
        symbolSize: sizes[at] ?? 6,
        itemStyle: { color: paints[at] },
        label: mode.includes("text")
          ? { show: true, formatter: plain(names[at]), position: "right", color: "var(--ink-2)", fontSize: 11 }
          : undefined,
      })),
      labelLayout: { dx: 1, dy: -9 },
    });
  }
  if (trace.marker?.symbol === "arrow") made.push(arrows(trace));
  return made;
}

const CROSS = "path://M0 1.500l1.500-1.500 4.500 4.500 4.500-4.500 1.500 1.500-4.500 4.500 4.500 4.500-1.500 1.500-4.500-4.500-4.500 4.500-1.500-1.500 4.500-4.500z";

function own(data, draw, more = {}) {
  return { type: "custom", silent: true, tooltip: { show: false }, data: data.map((_, n) => [n]),
    encode: { x: -1, y: -1 }, renderItem: (params, api) => draw(data[params.dataIndex], api, params.coordSys), ...more };
}

function intervals(trace, axis, bar) {
  const rows = trace.x.map((x, at) => ({
    x: typeof x === "string" ? plain(x) : x,
    y: typeof trace.y[at] === "string" ? plain(trace.y[at]) : trace.y[at],
    more: bar.array[at],
    less: (bar.arrayminus ?? bar.array)[at],
  }));
  return own(
    rows,
    ({ x, y, more, less }, api) => {
      const low = api.coord(axis === "x" ? [x - less, y] : [x, y - less]);
      const high = api.coord(axis === "x" ? [x + more, y] : [x, y + more]);
      return {
        type: "line",
        shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] },
        style: { stroke: colour(bar.color), lineWidth: bar.thickness ?? 2 },
      };
    },
    { z: 4 },
  );
}

function arrows(trace) {
  const heads = [];
  const sizes = list(trace.marker.size, trace.x.length);
  for (let at = 1; at < trace.x.length; at += 1) {
    if (sizes[at] && trace.x[at] !== null && trace.x[at - 1] !== null) {
      heads.push({ at: [trace.x[at], trace.y[at]], from: [trace.x[at - 1], trace.y[at - 1]], size: sizes[at] });
    }
  }
  return own(
    heads,
    ({ at, from, size }, api) => {
      const tipped = api.coord(at);
      const before = api.coord(from);
      const angle = Math.atan2(tipped[1] - before[1], tipped[0] - before[0]);
      const corner = (turn, far) => [
        tipped[0] + far * Math.cos(angle + turn),
        tipped[1] + far * Math.sin(angle + turn),
      ];
      return {
        type: "polygon",
        shape: { points: [corner(0, size * 0.5), corner(2.5, size * 0.55), corner(-2.5, size * 0.55)] },
        style: { fill: colour(trace.marker.color) },
      };
    },
    { z: 6 },
  );
}

function mixed(low, high, share) {
  const parts = (text) => {
    const hex = /^#(..)(..)(..)$/.exec(text);
    return hex ? hex.slice(1).map((each) => parseInt(each, 16)) : [128, 128, 128];
  };
  const [from, to] = [parts(low), parts(high)];
  return `rgb(${from.map((each, n) => Math.round(each + (to[n] - each) * share)).join()})`;
}

function heatmap(trace) {
  const cells = trace.y.flatMap((y, row) =>
    trace.x.map((x, column) => ({ x, y, value: trace.z[row][column], said: trace.hovertext?.[row]?.[column] })),
  );
  const low = colour(trace.colorscale[0][1]);
  const high = colour(trace.colorscale.at(-1)[1]);
  return {
    type: "custom",
    data: cells.map((cell) => [cell.x, cell.y]),
    z: 2,
    tooltip: {
      formatter: ({ dataIndex }) => tip(...plain(cells[dataIndex].said).split("\n")),
    },
    renderItem: (params, api) => {
      const cell = cells[params.dataIndex];
      const [x, y] = api.coord([cell.x, cell.y]);
      const [width, height] = api.size([1, 1]);
      const share = (cell.value - trace.zmin) / (trace.zmax - trace.zmin || 1);
      return {
        type: "rect",
        shape: { x: x - width / 2, y: y - height / 2, width: width + 0.5, height: height + 0.5 },
        style: { fill: mixed(low, high, Math.min(1, Math.max(0, share))) },
      };
    },
  };
}

function corner(api, box, x, y, xref, yref) {
  const at = api.coord([xref === "paper" ? 0 : x, yref === "paper" ? 0 : y]);
  return [
    xref === "paper" ? box.x + x * box.width : at[0],
    yref === "paper" ? box.y + (1 - y) * box.height : at[1],
  ];
}

function shapes(given) {
  return own(
    given,
    (shape, api, box) => {
      const xref = shape.xref ?? "x";
      const yref = shape.yref ?? "y";
      const [x1, y1] = corner(api, box, shape.x0, shape.y0, xref, yref);
      const [x2, y2] = corner(api, box, shape.x1, shape.y1, xref, yref);
      const style = {
        stroke: colour(shape.line?.color),
        lineWidth: shape.line?.width ?? 1,
        lineDash: { dash: [6, 4], dot: [2, 3] }[shape.line?.dash],
        fill: shape.fillcolor ? colour(shape.fillcolor) : "none",
        opacity: shape.opacity ?? 1,
      };
      if (shape.type === "rect") {
        return {
          type: "rect",
          shape: { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) },
          style,
        };
      }
      return { type: "line", shape: { x1, y1, x2, y2 }, style };
    },
    { z: 1 },
  );
}

function annotations(given) {
  return own(
    given,
    (note, api, box) => {
      const [x, y] = corner(api, box, note.x, note.y, note.xref ?? "x", note.yref ?? "y");
      const dx = note.showarrow ? (note.ax ?? 0) : (note.xshift ?? 0);
      const dy = note.showarrow ? (note.ay ?? 0) : -(note.yshift ?? 0);
      const text = {
        type: "text",
        style: {
          text: plain(note.text),
          x: x + dx,
          y: y + dy,
          fill: colour(note.font?.color ?? "var(--ink-2)"),
          font: `${note.font?.size ?? 12}px system-ui, sans-serif`,
          align: { left: "left", right: "right" }[note.xanchor] ?? "center",
          verticalAlign: { top: "top", bottom: "bottom" }[note.yanchor] ?? "middle",
        },
      };
      if (!note.showarrow) return text;
      return {
        type: "group",
        children: [
          { type: "line", shape: { x1: x, y1: y, x2: x + dx - 3, y2: y + dy },
            style: { stroke: colour(note.arrowcolor), lineWidth: 1 } },
          text,
        ],
      };
    },
    { z: 7, clip: false },
  );
}

export function plotOption(figure, width) {
  const { data, layout, narrow } = figure.spec;
  const laid = width < 560 && narrow ? { ...layout, ...narrow } : layout;
  const margin = laid.margin ?? {};
  const wide = laid.yaxis?.automargin || laid.yaxis?.type === "category";
  const series = data.flatMap((trace, n) =>
    trace.type === "heatmap" ? [heatmap(trace)] : pointSeries(trace, n),
  );
  if (laid.shapes?.length) series.push(shapes(laid.shapes));
  if (laid.annotations?.length) series.push(annotations(laid.annotations));
  return {
    grid: {
      left: laid.yaxis?.type === "category" ? 12 : wide ? 56 : (margin.l ?? 48),
      right: data.some((trace) => trace.mode?.includes("text")) ? 96 : (margin.r ?? 16),
      top: margin.t ?? 8,
      bottom: margin.b ?? 46,
      containLabel: laid.yaxis?.type === "category",
    },
    xAxis: axisOf(laid.xaxis ?? {}, { rotate: false }),
    yAxis: axisOf(laid.yaxis ?? {}, { rotate: true }),
    series,
  };
}
