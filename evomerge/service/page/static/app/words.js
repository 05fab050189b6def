// Numbers, times and states in words.
const DASH = "–";

export function score(value, shares = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  if (shares && value > 1 + 1e-9) return "≥ 1";
  if (shares && value < -1e-9) return "≤ 0";
  return value.toFixed(3);
}

export function gain(value) {
  if (value === null || value === undefined) return DASH;
  const text = Math.abs(value).toFixed(3);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

export function interval(it, shares = false) {
  return it ? `${score(it.low, shares)} to ${score(it.high, shares)}` : "";
}

export function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 172800) {
    return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  }
  return `${(seconds / 86400).toFixed(1)} days`;
}

export function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = number;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? counted(number, "byte") : `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function moment(text) {
  if (!text) return DASH;
  const at = new Date(text);
  const today = new Date().toDateString() === at.toDateString();
  return today
    ? at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })
    : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short", hour12: false });
}

const STATES = {
  queued: "it waits for its turn",
  starting: "it starts",
  running: "it runs",
  paused: "it is paused",
  failed: "the job failed",
  cancelled: "the job was cancelled",
};

// Why there is nothing to see of a job: missing("There is no result", "running").
export function missing(what, state) {
  const over = ["failed", "cancelled"].includes(state);
  return `${what}${over ? "" : " yet"}: ${STATES[state] ?? state}.`;
}

export const KINDS = {
  search: "search",
  grid: "grid",
  calibration: "calibration",
  evaluation: "evaluation",
  export: "export",
  check: "plan",
};

export function number(value) {
  if (value === null || value === undefined) return DASH;
  return Number(value.toPrecision(4)).toString();
}
