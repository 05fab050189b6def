// Requests to the server. A refusal becomes a Problem with its field, value and mend.
import { signal } from "./view.js";

const ROOT = "/api/v1";

// Who is signed in: undefined until the server was asked, null for nobody.
export const session = signal(undefined);

export class Problem extends Error {
  constructor(document) {
    super(document.detail);
    Object.assign(this, document);
  }
}

export function path(...parts) {
  return parts.map((part) => encodeURIComponent(part)).join("/");
}

function addressOf(where, query) {
  const given = Object.entries(query ?? {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value])
      .filter((each) => each !== undefined && each !== null && each !== "")
      .map((each) => [name, String(each)]),
  );
  const text = new URLSearchParams(given).toString();
  return `${ROOT}/${where}${text ? `?${text}` : ""}`;
}

async function ask(method, where, { query, body, headers, signal: stop } = {}) {
  let answer;
  try {
    answer = await fetch(addressOf(where, query), {
      method,
      signal: stop,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(method === "GET" ? {} : { "X-CSRF-Token": session.value?.csrf ?? "" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw broken(error);
  }
  if (answer.status === 401 && where !== "session") session.value = null;
  if (!answer.ok) throw new Problem(await problemIn(answer));
  return answer;
}

// What a request or an answer ends with when the server is gone.
function broken(error) {
  if (error.name === "AbortError") return error;
  return new Problem({
    status: 0,
    title: "No answer",
    detail: "the server does not answer",
    mend: "it may be starting again; this page tries again by itself",
  });
}

// A server may end in the middle of an answer, too.
async function body(answer, kind) {
  try {
    return await answer[kind]();
  } catch (error) {
    throw broken(error);
  }
}

async function problemIn(answer) {
  const known = { status: answer.status, title: answer.statusText, detail: `status ${answer.status}` };
  try {
    return { ...known, ...(await answer.json()) };
  } catch {
    return known; // by a proxy
  }
}

export async function get(where, query, stop) {
  return body(await ask("GET", where, { query, signal: stop }), "json");
}

export async function getText(where, query) {
  return body(await ask("GET", where, { query, headers: { Accept: "*/*" } }), "text");
}

export async function send(method, where, document, headers) {
  const answer = await ask(method, where, { body: document, headers });
  return answer.status === 204 ? null : body(answer, "json");
}

export const post = (where, document, headers) => send("POST", where, document, headers);

// Sends a file as it lies on the disk, which `fetch` cannot tell the progress of.
// `watch` gets the share that is sent; `stop` is an AbortSignal.
export function upload(where, query, file, watch, stop) {
  return new Promise((done, refuse) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", addressOf(where, query));
    sending.setRequestHeader("Accept", "application/json");
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.setRequestHeader("X-CSRF-Token", session.value?.csrf ?? "");
    sending.upload.onprogress = (event) => watch(event.total ? event.loaded / event.total : 0);
    sending.onload = () => {
      if (sending.status === 401) session.value = null;
      let said;
      try {
        said = JSON.parse(sending.responseText);
      } catch {
        said = { status: sending.status, title: sending.statusText, detail: `status ${sending.status}` };
      }
      if (sending.status < 300) done(said);
      else refuse(new Problem(said));
    };
    sending.onerror = () =>
      refuse(
        new Problem({
          status: 0,
          title: "The upload broke off",
          detail: "the server does not take the rest of the file",
          mend: "check that the file is still there, and send it again",
        }),
      );
    sending.onabort = () => refuse(new DOMException("stopped", "AbortError"));
    stop.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}

export function linkTo(where, query) {
  return addressOf(where, query);
}

// For a request that may be sent twice by accident.
export function newKey() {
  return crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
}

const RANKS = ["viewer", "runner", "admin"];

// Whether who is signed in has this role, or a higher one.
export function may(least) {
  return RANKS.indexOf(session.value?.role) >= RANKS.indexOf(least ?? "viewer");
}
