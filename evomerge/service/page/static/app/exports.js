// The result as files: recipe, export, download with progress and checksums, commands to use it.
import { get, getText, linkTo, may, newKey, path, post } from "./api.js";
import { Block, Field, ProblemBox, State, tell, useEvery, useFetched } from "./parts.js";
import { hash, place } from "./place.js";
import { html, useState } from "./view.js";
import { bytes, missing, moment } from "./words.js";

export function Exports({ job, status }) {
  return job.kind === "export"
    ? html`<${Files} job=${job} />`
    : html`<${OfSearch} job=${job} status=${status} />`;
}

function OfSearch({ job, status }) {
  const point = place.value.query.get("point") ?? "";
  const list = useFetched((stop) => get("jobs", { parent: job.id, kind: "export", limit: 20 }, stop), [job.id]);
  const recipe = useFetched(
    () => getText(`${path("jobs", job.id)}/recipe`, { point }),
    [job.id, status?.finished, point],
  );
  const moving = list.value?.items.some((each) => ["queued", "starting", "running"].includes(each.state));
  useEvery(moving ? 2 : 0, list.again, [moving]);
  return html`${may("runner") && html`<${NewExport} job=${job} point=${point} finished=${status?.finished} onDone=${list.again} />`}
    <section>
      <h2>Exports</h2>
      ${list.value?.items.length === 0 && html`<p class="quiet">Nothing is exported yet.</p>`}
      ${list.value?.items.map(
        (each) =>
          html`<div key=${each.id}>
            <div class="row">
              <a href=${hash(["job", each.id])}>${each.name || each.id}</a>
              <${State} job=${each} />
              <span class="small quiet">${moment(each.made)}</span>
            </div>
            ${each.message && html`<p class="small quiet">${each.message}</p>`}
            ${each.state === "succeeded" && html`<${Files} job=${each} />`}
          </div>`,
      )}
    </section>
    <section>
      <h2>Recipe</h2>
      <p class="caption">The merge as a document; mergekit reads it too.</p>
      ${recipe.value
        ? html`<${Block} text=${recipe.value} label="Recipe" />`
        : html`<p class="quiet">${recipe.problem?.message ?? "Reading the record …"}</p>`}
    </section>`;
}

function NewExport({ job, point, finished, onDone }) {
  const [trial, setTrial] = useState("");
  const [chosen, setChosen] = useState(point);
  const [verify, setVerify] = useState(false);
  const [adapter, setAdapter] = useState(false);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await post(
        `${path("jobs", job.id)}/exports`,
        { trial: trial || null, point: chosen || null, verify, as_adapter: adapter },
        { "Idempotency-Key": newKey() },
      );
      tell("The export is queued.");
      onDone();
    } catch (refused) {
      setProblem(refused);
    } finally {
      setBusy(false);
    }
  };
  const wrong = (field) => problem?.field === field && problem.message;
  return html`<form onSubmit=${submit}>
    <h2>Export as a checkpoint</h2>
    <p class="caption">
      Recipe, weights, tokenizer, model card and manifest, as a folder that stock tools load. It is a job of its own.
    </p>
    ${problem && !problem.field && html`<${ProblemBox} problem=${problem} />`}
    <div class="row end">
      ${job.request.mode === "pareto" || chosen
        ? html`<${Field} id="export-point" label="Point of the front" hint="a name, weights or bounds" wrong=${wrong("point")}>
            <input id="export-point" value=${chosen} onInput=${(event) => setChosen(event.target.value)} />
          <//>`
        : null}
      <${Field}
        id="export-trial"
        label="Candidate"
        hint=${finished ? "empty: the winner" : "the search has no winner yet; name a candidate"}
        wrong=${wrong("trial")}
      >
        <input
          id="export-trial"
          placeholder="g0012-i003"
          value=${trial}
          onInput=${(event) => setTrial(event.target.value)}
        />
      <//>
    </div>
    <div class="row">
      <label class="row"
        ><input type="checkbox" checked=${verify} onChange=${(event) => setVerify(event.target.checked)} /> load and
        score it with stock tools</label
      >
      <label class="row"
        ><input type="checkbox" checked=${adapter} onChange=${(event) => setAdapter(event.target.checked)} /> as one
        LoRA adapter over the base</label
      >
    </div>
    ${problem?.field && !["trial", "point"].includes(problem.field) && html`<${ProblemBox} problem=${problem} />`}
    <p><button class="main" disabled=${busy}>Export</button></p>
  </form>`;
}

// Also those of a calibration.
export function Files({ job }) {
  const found = useFetched(
    (stop) => (job.state === "succeeded" ? get(path("jobs", job.id, "files"), {}, stop) : Promise.resolve(null)),
    [job.id, job.state],
  );
  if (job.state !== "succeeded") return html`<p class="empty">${missing("There are no files", job.state)}</p>`;
  if (!found.value) {
    return found.problem ? html`<${ProblemBox} problem=${found.problem} />` : html`<p class="quiet">Checksums are computed …</p>`;
  }
  const { folder, commands } = found.value;
  return html`<div>
    <div class="row">
      <a class="button main" href=${linkTo(path("jobs", job.id, "archive"))} download>
        Download all (${bytes(found.value.size_bytes)}, tar)
      </a>
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label="Files">
      <table class="stack">
        <thead>
          <tr>
            <th scope="col">file</th>
            <th scope="col" class="n">size</th>
            <th scope="col">sha256</th>
            <th scope="col">download</th>
          </tr>
        </thead>
        <tbody>
          ${found.value.files.map((file) => html`<${File} key=${file.path} job=${job} file=${file} />`)}
        </tbody>
      </table>
    </div>
    ${commands.length > 0 &&
    html`<section>
      <h2>Use it</h2>
      <p class="caption">After <code>tar xf ${folder}.tar</code>:</p>
      ${commands.map(
        ({ tool, text }) => html`<h3>${tool}</h3>
          <${Block} text=${text} label=${`Use with ${tool}`} />`,
      )}
    </section>`}
  </div>`;
}

const IN_MEMORY = 512e6; // larger files are left to the browser's own download

async function digestOf(parts) {
  const whole = await new Blob(parts).arrayBuffer();
  const digest = await crypto.subtle.digest("SHA-256", whole);
  return [...new Uint8Array(digest)].map((each) => each.toString(16).padStart(2, "0")).join("");
}

function File({ job, file }) {
  const [done, setDone] = useState(null);
  const [said, setSaid] = useState("");
  const href = linkTo(`${path("jobs", job.id)}/files/${file.path.split("/").map(encodeURIComponent).join("/")}`);
  const checked = async () => {
    setSaid("");
    setDone(0);
    try {
      const answer = await fetch(href, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const parts = [];
      let got = 0;
      const reader = answer.body.getReader();
      for (;;) {
        const { done: over, value } = await reader.read();
        if (over) break;
        parts.push(value);
        got += value.length;
        setDone(got);
      }
      const sum = await digestOf(parts);
      if (sum !== file.sha256) {
        setSaid("The checksum differs: the download is damaged. Try it again.");
        return;
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(parts));
      link.download = file.path.split("/").at(-1);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      setSaid("Checksum right");
    } catch (error) {
      setSaid(`It was not downloaded: ${error.message}`);
    } finally {
      setDone(null);
    }
  };
  const able = file.size_bytes <= IN_MEMORY && globalThis.crypto?.subtle;
  return html`<tr>
    <td class="name">${file.path}</td>
    <td class="n">${bytes(file.size_bytes)}</td>
    <td data-label="sha256"><code title=${file.sha256}>${file.sha256.slice(0, 16)}…</code></td>
    <td>
      ${able
        ? html`<button class="icon" onClick=${checked} disabled=${done !== null} aria-label=${`Download ${file.path}`}>
            Download
          </button>`
        : html`<a href=${href} download aria-label=${`Download ${file.path}`}>Download</a>`}
      ${done !== null &&
      html`<progress max=${file.size_bytes} value=${done} aria-label=${`Download of ${file.path}`}></progress>`}
      <span class="small quiet" role="status">${said}</span>
    </td>
  </tr>`;
}
