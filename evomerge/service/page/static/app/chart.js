// A chart: ECharts in the colours of the page, drawn again when they or its box change.
import { colour, colours } from "./theme.js";
import { html, useEffect, useRef } from "./view.js";

// The library, fetched at the first chart, and until there is a server that gives it.
let library;

function load() {
  library ??= fetched();
  return library;
}

async function fetched() {
  for (let failed = 0; ; failed += 1) {
    try {
      // Some browsers never ask again for an address that failed once.
      return await import(`../vendor/echarts.js${failed ? `?again=${failed}` : ""}`);
    } catch (error) {
      console.warn(`the charts are not there yet: ${error}`);
      await new Promise((done) => setTimeout(done, Math.min(500 * 2 ** failed, 8000)));
    }
  }
}

// A tooltip as an element, so that no style is written into markup and no text is read as markup.
export function tip(title, ...lines) {
  const box = document.createElement("div");
  box.className = "tip";
  const head = document.createElement("strong");
  head.textContent = title;
  box.append(head);
  for (const line of lines.filter(Boolean)) {
    const row = document.createElement("div");
    row.textContent = line;
    box.append(row);
  }
  return box;
}

// Every "var(--name)" of an option as the colour that it has now.
function coloured(value) {
  if (typeof value === "string") return value.startsWith("var(--") ? colour(value) : value;
  if (ArrayBuffer.isView(value) || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(coloured);
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each)]));
}

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

function complete(option) {
  const axis = {
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: "var(--ink-2)", fontSize: 12, hideOverlap: true },
    splitLine: { lineStyle: { color: "var(--grid)" } },
    nameTextStyle: { color: "var(--ink-2)", fontSize: 12 },
    nameLocation: "middle",
  };
  const each = (given) =>
    given && (Array.isArray(given) ? given : [given]).map((one) => deep(axis, one));
  return coloured({
    animation: false,
    textStyle: { fontFamily: FONT, color: "var(--ink-2)" },
    ...option,
    xAxis: each(option.xAxis),
    yAxis: each(option.yAxis),
    tooltip: {
      trigger: "item",
      confine: true,
      transitionDuration: 0,
      backgroundColor: "var(--raised)",
      borderColor: "var(--line)",
      textStyle: { color: "var(--ink)", fontSize: 12 },
      padding: [6, 10],
      ...option.tooltip,
    },
  });
}

function deep(usual, given) {
  const whole = { ...usual };
  for (const [key, value] of Object.entries(given)) {
    const plain = value && typeof value === "object" && !Array.isArray(value);
    whole[key] = plain && typeof usual[key] === "object" ? deep(usual[key], value) : value;
  }
  return whole;
}

// option: of ECharts, or a function of the width that gives one. label: for who cannot see it.
// onPick: called with what was clicked.
export function Chart({ option, label, size = 330, height, onPick }) {
  const box = useRef(null);
  const chart = useRef(null);
  const wanted = useRef({});
  const scheme = colours.value;
  wanted.current = { option, onPick };

  const draw = () => {
    if (!chart.current || !wanted.current.option || !box.current) return;
    const given = wanted.current.option;
    const made = typeof given === "function" ? given(box.current.clientWidth) : given;
    chart.current.setOption(complete(made), { notMerge: true });
  };

  useEffect(() => {
    let left = false;
    let watching;
    load().then((echarts) => {
      if (left || !box.current) return;
      chart.current = echarts.init(box.current, null, { renderer: "canvas" });
      chart.current.on("click", (event) => wanted.current.onPick?.(event));
      draw();
      let width = box.current.clientWidth;
      watching = new ResizeObserver(() => {
        chart.current?.resize();
        if (box.current && Math.abs(box.current.clientWidth - width) > 40) {
          width = box.current.clientWidth;
          draw();
        }
      });
      watching.observe(box.current);
      box.current.dataset.drawn = "yes";
    });
    return () => {
      left = true;
      watching?.disconnect();
      chart.current?.dispose();
      chart.current = null;
    };
  }, []);
  useEffect(draw, [option, scheme]);
  useEffect(() => {
    if (height && box.current) {
      box.current.style.height = `${height}px`;
      chart.current?.resize();
    }
  }, [height]);

  return html`<div class=${`chart size-${size}`} ref=${box} role="img" aria-label=${label}></div>`;
}
