// Shared by all tabs: one stream of events for each job that is watched, given to every watcher.

const KEPT = 5000; // events of a job that a later watcher may still get from here
const SILENT_MS = 150_000; // a tab that ended without a word; hidden tabs may wake once a minute
const NAMES = [
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

const feeds = new Map(); // job -> Feed

class Feed {
  constructor(job, after) {
    this.job = job;
    this.after = after;
    this.events = [];
    this.watchers = new Map(); // port and stream -> watcher
    this.open();
  }

  open() {
    const last = this.events.at(-1)?.seq ?? this.after;
    this.source = new EventSource(
      `/api/v1/jobs/${encodeURIComponent(this.job)}/events?after=${last}`,
    );
    for (const name of NAMES) {
      this.source.addEventListener(name, ({ data }) => this.take(name, JSON.parse(data)));
    }
    this.source.addEventListener("open", () => this.tell({ connected: true }));
    this.source.addEventListener("error", () => {
      this.tell({ connected: false });
      // The browser gives up after a refusal; the server may only be starting again.
      if (this.source.readyState === EventSource.CLOSED) {
        clearTimeout(this.later);
        this.later = setTimeout(() => this.watchers.size && this.open(), 3000);
      }
    });
  }

  take(name, event) {
    if (name === "end") {
      this.source.close();
      this.ended = true;
    } else {
      this.events.push(event);
      while (this.events.length > KEPT) this.after = this.events.shift().seq;
    }
    this.tell({ event });
    if (this.ended) feeds.delete(this.job);
  }

  tell(message) {
    for (const { port, stream } of this.watchers.values()) port.postMessage({ stream, ...message });
  }

  add(port, stream, after) {
    this.watchers.set(`${port.number} ${stream}`, { port, stream, at: Date.now() });
    const connected = this.source.readyState === EventSource.OPEN;
    if (connected) port.postMessage({ stream, connected });
    for (const event of this.events) {
      if (event.seq > after) port.postMessage({ stream, event });
    }
  }

  leave(port, stream) {
    this.watchers.delete(`${port.number} ${stream}`);
    if (!this.watchers.size) this.close();
  }

  close() {
    clearTimeout(this.later);
    this.source.close();
    if (feeds.get(this.job) === this) feeds.delete(this.job);
  }
}

let ports = 0;

addEventListener("connect", ({ ports: [port] }) => {
  ports += 1;
  port.number = ports;
  port.addEventListener("message", ({ data: { what, stream, job, after } }) => {
    let feed = feeds.get(job);
    if (what === "watch") {
      if (feed && feed.after > after) {
        // This watcher is further behind than what is kept: all begin again from there; each
        // leaves out what it has seen.
        const watchers = feed.watchers;
        feed.close();
        feed = undefined;
        feeds.set(job, (feed = new Feed(job, after)));
        feed.watchers = watchers;
      }
      if (!feed) feeds.set(job, (feed = new Feed(job, after)));
      feed.add(port, stream, after);
    } else if (what === "leave") {
      feed?.leave(port, stream);
    } else {
      const watcher = feed?.watchers.get(`${port.number} ${stream}`);
      if (watcher) watcher.at = Date.now();
    }
  });
  port.start();
});

setInterval(() => {
  for (const feed of feeds.values()) {
    for (const [key, { at }] of feed.watchers) {
      if (Date.now() - at > SILENT_MS) feed.watchers.delete(key);
    }
    if (!feed.watchers.size) feed.close();
  }
}, 30_000);
