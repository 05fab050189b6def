// Small parts that several views show.
import { Problem } from "./api.js";
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "./view.js";

// A line that is shown for some seconds, and read aloud.
const told = signal("");
let clock;

export function tell(text) {
  told.value = text;
  clearTimeout(clock);
  clock = setTimeout(() => {
    told.value = "";
  }, 6000);
}

export function Told() {
  return html`<div role="status" aria-live="polite">
    ${told.value && html`<div class="told">${told.value}</div>`}
  </div>`;
}

export function ProblemBox({ problem }) {
  if (!problem) return null;
  return html`<div class="problem" role="alert">
    <strong>${problem.title ?? "A mistake of this page"}</strong>
    <p>${problem.message}</p>
    ${problem.mend && html`<p class="quiet">${problem.mend}</p>`}
  </div>`;
}

export function State({ job }) {
  const asked = { pause: "about to pause", cancel: "about to stop" }[job.wanted];
  const moving = ["running", "starting"].includes(job.state);
  return html`<span class=${`state ${job.state}`}
    >${job.state}${moving && asked ? `, ${asked}` : ""}</span
  >`;
}

export function Block({ text, label }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch {
      tell("The browser does not let this page copy; select the text instead.");
    }
  };
  return html`<div class="block">
    <pre tabindex="0" role="region" aria-label=${label}>${text}</pre>
    <button type="button" onClick=${copy} aria-label=${`Copy: ${label}`}>
      ${copied ? "Copied" : "Copy"}
    </button>
  </div>`;
}

const PASSING = new Set([0, 429, 502, 503, 504]);

// A value that is fetched, and fetched again when `keys` or `again` change.
export function useFetched(read, keys) {
  const [state, setState] = useState({ value: null, problem: null, busy: true, known: false });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    let later;
    setState((old) => ({ ...old, busy: true }));
    read(stop.signal).then(
      (value) => stop.signal.aborted || setState({ value, problem: null, busy: false, known: true }),
      (problem) => {
        if (stop.signal.aborted || problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) console.error(problem);
        setState((old) => ({ value: old.value, problem, busy: false, known: true }));
        // A server that starts again or is busy for a moment: nothing may stay half shown.
        if (PASSING.has(problem.status)) later = setTimeout(() => setRound((old) => old + 1), 2000);
      },
    );
    return () => {
      clearTimeout(later);
      stop.abort();
    };
  }, [...keys, round]);
  return { ...state, again: () => setRound((old) => old + 1) };
}

// Calls `act` each `seconds`, but not while the page is hidden.
export function useEvery(seconds, act, keys) {
  useEffect(() => {
    if (!seconds) return undefined;
    const timer = setInterval(() => document.hidden || act(), seconds * 1000);
    const seen = () => document.hidden || act();
    document.addEventListener("visibilitychange", seen);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [seconds, ...keys]);
}

export function Dialog({ title, children, onClose }) {
  const box = useRef(null);
  const open = useRef(true);
  useLayoutEffect(() => {
    const dialog = box.current;
    dialog.showModal();
    return () => {
      open.current = false;
      dialog.close(); // gives the focus back to what opened it
    };
  }, []);
  return html`<dialog ref=${box} onClose=${() => open.current && onClose()} aria-label=${title}>
    <h2>${title}</h2>
    ${children}
  </dialog>`;
}

// For a group of buttons that come and go: when the one that has the focus goes, the group gets it.
export function useKeptFocus() {
  const group = useRef(null);
  const inside = useRef(false);
  useEffect(() => {
    const look = ({ target }) => {
      inside.current = group.current?.contains(target);
    };
    document.addEventListener("focusin", look);
    return () => document.removeEventListener("focusin", look);
  }, []);
  useEffect(() => {
    if (inside.current && document.activeElement === document.body) group.current?.focus();
  });
  return group;
}

export function Field({ label, hint, wrong, id, children }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children} ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${wrong && html`<p class="wrong" id=${`${id}-wrong`}>${wrong}</p>`}
  </div>`;
}
