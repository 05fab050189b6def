// The frame of the page: sign in, navigation, and the view that the address names.
import { Problem, get, may, post, send, session } from "./api.js";
import { Admin } from "./admin.js";
import { Compare } from "./compare.js";
import { YourData } from "./data.js";
import { JobForm } from "./form.js";
import { JobPage } from "./job.js";
import { JobList } from "./jobs.js";
import { ProblemBox, Told, tell } from "./parts.js";
import { go, place } from "./place.js";
import { Queue } from "./queue.js";
import { nextTheme, theme } from "./theme.js";
import { html, render, useEffect, useRef, useState } from "./view.js";
import { Webhooks } from "./webhooks.js";

function Login() {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const enter = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      session.value = await post("session", { token: token.trim() });
    } catch (error) {
      setProblem(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<main class="login" id="main">
    <h1>evomerge</h1>
    <p class="quiet">
      Sign in with a token. The operator of this server makes one with <code>evomerge token make</code>;
      the first one was printed when the server started.
    </p>
    <${ProblemBox} problem=${problem} />
    <form onSubmit=${enter}>
      <div class="field">
        <label for="token">Token</label>
        <input
          id="token"
          class="wide"
          type="password"
          autocomplete="current-password"
          required
          value=${token}
          onInput=${(event) => setToken(event.target.value)}
        />
      </div>
      <button class="main" disabled=${busy}>Sign in</button>
    </form>
  </main>`;
}

const VIEWS = [
  { name: "jobs", label: "Jobs" },
  { name: "queue", label: "Queue" },
  { name: "new", label: "New search", least: "runner" },
  { name: "data", label: "Your data", least: "runner" },
  { name: "compare", label: "Compare" },
  { name: "webhooks", label: "Webhooks" },
  { name: "admin", label: "Admin", least: "admin" },
];
function View() {
  const [first, ...rest] = place.value.parts;
  switch (first) {
    case "job":
      return html`<${JobPage} key=${rest[0]} id=${rest[0]} tab=${rest[1] ?? "search"} />`;
    case "queue":
      return html`<${Queue} />`;
    case "new":
      return html`<${JobForm} key=${place.value.query.get("like")} like=${place.value.query.get("like")} />`;
    case "data":
      return html`<${YourData} />`;
    case "compare":
      return html`<${Compare} />`;
    case "webhooks":
      return html`<${Webhooks} />`;
    case "admin":
      return html`<${Admin} tab=${rest[0] ?? "tokens"} />`;
    default:
      return html`<${JobList} />`;
  }
}

function Frame() {
  const here = place.value.parts[0] ?? "jobs";
  const shown = place.value.parts.slice(0, 2).join("/");
  const before = useRef(shown);
  useEffect(() => {
    // What had the focus went with the view before, as the button of a form that was sent.
    const lost = before.current !== shown && document.activeElement === document.body;
    before.current = shown;
    if (lost) document.getElementById("main").focus({ preventScroll: true });
  }, [shown]);
  const leave = async () => {
    try {
      await send("DELETE", "session");
    } catch (problem) {
      if (problem instanceof Problem && problem.status !== 401) tell(problem.message);
    }
    session.value = null;
  };
  return html`<a class="skip" href="#main" onClick=${skip}>To the content</a>
    <header class="top">
      <a class="brand" href="#/jobs"><img src="/static/icon.svg" alt="" />evomerge</a>
      <nav aria-label="Main">
        ${VIEWS.filter((view) => may(view.least)).map(
          (view) =>
            html`<a
              href=${`#/${view.name}`}
              aria-current=${here === view.name || (here === "job" && view.name === "jobs")
                ? "page"
                : undefined}
              >${view.label}</a
            >`,
        )}
      </nav>
      <span class="who">${session.value.person}, ${session.value.role}</span>
      <button class="plain" onClick=${nextTheme} aria-label=${`Colours: ${theme.value}; change`}>
        ${{ system: "◐", light: "☀", dark: "☾" }[theme.value]}
      </button>
      <button class="plain" onClick=${leave}>Sign out</button>
    </header>
    <main id="main" tabindex="-1"><${View} /></main>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Page() {
  useEffect(() => {
    get("session").then(
      (value) => {
        // A token in a header has no CSRF value; a browser always has one.
        session.value = value.csrf ? value : null;
      },
      () => {
        session.value = null;
      },
    );
  }, []);
  if (session.value === undefined) return html`<p class="login quiet">Asking the server …</p>`;
  return html`${session.value ? html`<${Frame} />` : html`<${Login} />`}<${Told} />`;
}

if (!location.hash) go("jobs");
render(html`<${Page} />`, document.getElementById("page"));
