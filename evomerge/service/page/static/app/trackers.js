// Where a search is shown besides this page: the trackers that the operator allows, with names in them.
import { get } from "./api.js";
import { Field, useFetched } from "./parts.js";
import { html, useState } from "./view.js";

export function Trackers({ track, setTrack, wrong }) {
  const found = useFetched((stop) => get("trackers", {}, stop), []);
  const [copied] = useState(track);
  if (!found.value) return null;
  // A job that is copied may name one that is allowed no more.
  const gone = Object.keys(copied).filter((name) => !found.value.some((each) => each.name === name));
  const listed = [...found.value, ...gone.map((name) => ({ name, options: [], gone: true }))];
  if (!listed.length) return null;
  const pick = (name, yes) => {
    const { [name]: _, ...rest } = track;
    setTrack(yes ? { ...rest, [name]: {} } : rest);
  };
  const give = (name, option, value) => {
    const { [option]: _, ...rest } = track[name];
    setTrack({ ...track, [name]: value ? { ...rest, [option]: value } : rest });
  };
  return html`<fieldset>
    <legend>Shown in</legend>
    <p class="caption" id="track-hint">Trackers of this server, where the search can be watched too. They change no result.</p>
    ${listed.map(
      ({ name, options, gone: past }) =>
        html`<div class="row end" key=${name}>
          <div class="field">
            <label class="row"
              ><input
                type="checkbox"
                aria-describedby="track-hint"
                checked=${name in track}
                onChange=${(event) => pick(name, event.target.checked)}
              />${name}${past ? " (not allowed any more)" : ""}</label
            >
          </div>
          ${name in track &&
          options.map((option) => {
            const id = `track-${name}-${option}`;
            const bad = wrong(`track.${name}.${option}`);
            return html`<${Field} id=${id} key=${option} label=${`${name}: ${option}`} wrong=${bad}>
              <input
                id=${id}
                placeholder="usual"
                aria-invalid=${bad ? "true" : undefined}
                aria-describedby=${bad ? `${id}-wrong` : undefined}
                value=${track[name][option] ?? ""}
                onInput=${(event) => give(name, option, event.target.value)}
              />
            <//>`;
          })}
        </div>`,
    )}
  </fieldset>`;
}
