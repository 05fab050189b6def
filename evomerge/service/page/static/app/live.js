// The live events of a job, each once and in order.
//
// Browsers keep six connections to a server, so all tabs share one for a job, in a SharedWorker;
// and a page that is hidden gives its place up and goes on later from the last event it saw.
import { useEffect, useRef } from "./view.js";

let worker;

function shared() {
  if (worker === undefined) {
    try {
      worker = new SharedWorker("/static/app/stream_worker.js", { name: "evomerge-events" });
      worker.port.start();
    } catch {
      worker = null; // the browser has none: each tab opens its own stream
    }
  }
  return worker;
}

export const NAMES = [
  "state",
  "checking",
  "started",
  "note",
  "planned",
  "progress",
  "candidate_done",
  "generation_done",
  "finished",
  "work",
  "search_progress",
  "search_candidate_done",
  "search_generation_done",
  "search_finished",
  "end",
];

let streams = 0;

function openShared(id, after, take) {
  const { port } = shared();
  streams += 1;
  const stream = `${streams}`;
  const heard = ({ data }) => data.stream === stream && take(data.event, data.connected);
  port.addEventListener("message", heard);
  const say = (what) => port.postMessage({ what, stream, job: id, after });
  say("watch");
  const alive = setInterval(() => say("alive"), 20_000);
  const stop = () => {
    clearInterval(alive);
    port.removeEventListener("message", heard);
    say("leave");
    removeEventListener("pagehide", stop);
  };
  addEventListener("pagehide", stop);
  return stop;
}

function openOwn(id, after, take) {
  const source = new EventSource(`/api/v1/jobs/${encodeURIComponent(id)}/events?after=${after}`);
  for (const name of NAMES) {
    source.addEventListener(name, ({ data }) => {
      const event = JSON.parse(data);
      if (name === "end") source.close();
      take(event);
    });
  }
  source.addEventListener("open", () => take(null, true));
  source.addEventListener("error", () => take(null, false));
  return () => source.close();
}

// Calls `take(event)` for every event after `after`; `connected(yes)` when that changes.
export function useEvents(id, after, take, connected) {
  const taking = useRef(take);
  taking.current = take;
  useEffect(() => {
    if (after === null) return undefined;
    let seq = after;
    let stop = null;
    let ended = false;
    const heard = (event, open) => {
      if (open !== undefined) connected?.(open);
      if (!event) return;
      if (event.seq !== undefined) {
        if (event.seq <= seq) return;
        seq = event.seq;
      }
      ended = event.event === "end";
      taking.current(event);
    };
    const look = () => {
      if (document.hidden) {
        stop?.();
        stop = null;
      } else if (!stop && !ended) {
        stop = (shared() ? openShared : openOwn)(id, seq, heard);
      }
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      stop?.();
    };
  }, [id, after]);
}
