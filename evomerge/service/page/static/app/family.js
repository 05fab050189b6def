// The family tree of a winner: its sources, and theirs where a search of this server made them.
import { get, path } from "./api.js";
import { useFetched } from "./parts.js";
import { Waiting, useRecord } from "./record.js";
import { hash } from "./place.js";
import { html, useRef } from "./view.js";
import { counted, score } from "./words.js";

const MADE_HERE = /(?:^job:|\/exports\/)(j[a-z2-7]{15})(?:\/|$)/;

const partsOf = (reference) => reference.replace(/^job:/, "").split("@")[0].split("/").filter(Boolean);

// Everything down to models from outside, each search once. known: id -> job, or null for one that
// is not seen here; it is kept where a later request fails, so that nothing is asked for again.
async function familyOf(job, known, stop) {
  const shown = new Set([job.id]);
  const look = async (id) => {
    if (!known.has(id)) {
      known.set(
        id,
        await get(path("jobs", id), {}, stop).catch((problem) => {
          if ([403, 404].includes(problem.status)) return null;
          throw problem;
        }),
      );
    }
    return known.get(id);
  };
  const member = async (reference, role) => {
    const id = MADE_HERE.exec(reference)?.[1];
    const made = id ? await look(id) : null;
    const search = made?.parent ? await look(made.parent) : null;
    const again = search && shown.has(search.id);
    if (search) shown.add(search.id);
    return { reference, role, made, search, again, lost: Boolean(id) && !search, members: search && !again ? await membersOf(search) : [] };
  };
  const membersOf = async ({ request }) => {
    const found = [];
    for (const source of request.models.sources) found.push(await member(source, "source"));
    found.push(await member(request.models.base, "base"));
    return found;
  };
  return membersOf(job);
}

// The scores of a search's base and sources. A source has the shortest end of its path as its
// label that no other source has.
function scoresOf(job, models) {
  const sources = job.request.models.sources.map((reference) => partsOf(reference));
  const ends = (parts, label) => parts.slice(-label.length).join("/") === label.join("/");
  return (reference, role) => {
    if (role === "base") return models.find((model) => model.role === "base")?.score;
    const mine = partsOf(reference);
    return models.find((model) => {
      const label = partsOf(model.label);
      const own = sources.filter((parts) => ends(parts, label));
      const whole = own.find((parts) => parts.length === label.length);
      return model.role === "parent" && (whole ?? (own.length === 1 ? own[0] : null))?.join() === mine.join();
    })?.score;
  };
}

const exported = ({ request, result }) =>
  request.trial ? `candidate ${request.trial}` : request.point ? `point ${request.point}` : `winner ${result?.label ?? ""}`;

function Member({ member, found }) {
  const { reference, role, made, search, again, lost, members } = member;
  const it = found?.(reference, role);
  return html`<li>
    <strong>${search ? search.name : partsOf(reference).at(-1)}</strong> <span class="quiet small">${role}</span>
    ${it && html` <span class="small">${score(it.value)}</span>`}
    ${search
      ? html`<div class="small quiet">
          ${exported(made)} of search <a href=${hash(["job", search.id])}>${search.name}</a>, exported by${" "}
          <a href=${hash(["job", made.id])}>${made.id}</a>${again ? "; its sources are drawn above" : ""}
        </div>`
      : html`<div class="small quiet">
          ${reference}${lost ? ": what made it is deleted, or of a project that you do not see" : ""}
        </div>`}
    ${members.length > 0 && html`<${Members} members=${members} />`}
  </li>`;
}

function Members({ members, found }) {
  return html`<ul>
    ${members.map((member) => html`<${Member} key=${`${member.role} ${member.reference}`} member=${member} found=${found} />`)}
  </ul>`;
}

function Head({ job, outcome, members }) {
  if (!outcome) return html`<strong>${job.name}</strong> <span class="quiet small">a search without a winner yet</span>`;
  if (!outcome.winner) {
    return html`<strong>${job.name}</strong>${" "}
      <span class="quiet small">a front of ${counted(outcome.points.length, "point")}</span>`;
  }
  const { label, scores } = outcome.winner;
  const own = members.find((member) => member.search && partsOf(member.reference).at(-1) === label);
  return html`<strong>${own ? own.search.name : label}</strong>${" "}
    <span class="quiet small">winner of ${job.name}</span> <span class="small">${score(scores.score.value)}</span>`;
}

export function Family({ job, status }) {
  const scores = useRecord(job, "scores", {}, [status?.finished]);
  const outcome = useRecord(job, "winner", {}, [status?.finished]);
  const known = useRef(new Map());
  const family = useFetched((stop) => familyOf(job, known.current, stop), [job.id]);
  if (!family.value) return html`<${Waiting} it=${family} />`;
  if (!scores.value && scores.problem?.status !== 409) return html`<${Waiting} it=${scores} />`;
  return html`<h2>Family tree</h2>
    <p class="caption">
      What this search merges, down to models from outside. Numbers are combined scores on this search’s test items.
    </p>
    <ul class="tree" aria-label="Family tree">
      <li>
        <${Head} job=${job} outcome=${outcome.problem ? null : outcome.value} members=${family.value} />
        <${Members} members=${family.value} found=${scoresOf(job, scores.value?.models ?? [])} />
      </li>
    </ul>`;
}
