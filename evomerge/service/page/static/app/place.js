// Where the page is: the part of the address after #, as parts and a query.
import { signal } from "./view.js";

function read() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    parts: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: new URLSearchParams(query ?? ""),
  };
}

export const place = signal(read());

addEventListener("hashchange", () => {
  const before = place.value.parts.slice(0, 2).join("/");
  place.value = read();
  if (place.value.parts.slice(0, 2).join("/") !== before) scrollTo(0, 0);
});

export function hash(parts, query) {
  const given = new URLSearchParams(
    Object.entries(query ?? {}).filter(([, value]) => value !== "" && value != null),
  ).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${given ? `?${given}` : ""}`;
}

export function go(name, ...rest) {
  location.hash = hash([name, ...rest]);
}

// Changes the query without another entry in the history.
export function setQuery(changes) {
  const now = place.value;
  const query = { ...Object.fromEntries(now.query), ...changes };
  history.replaceState(null, "", hash(now.parts, query));
  place.value = read();
}
