// What the processes of a job printed, the end first, and more of it while the job runs.
import { get, path } from "./api.js";
import { ProblemBox, useEvery } from "./parts.js";
import { html, useEffect, useRef, useState } from "./view.js";

const MOST = 400_000; // letters that are kept in the page

export function Log({ job }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState(null);
  const [read, setRead] = useState(false);
  const next = useRef(null);
  const box = useRef(null);
  const more = async () => {
    try {
      const part = await get(path("jobs", job.id, "logs"), next.current === null ? {} : { after: next.current });
      next.current = part.next;
      setRead(true);
      setProblem(null);
      if (part.text) setText((old) => (old + part.text).slice(-MOST));
    } catch (refused) {
      setProblem(refused);
    }
  };
  useEffect(() => {
    more();
  }, [job.id, job.state]);
  useEvery(["starting", "running"].includes(job.state) ? 2 : 0, more, [job.state]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return html`<h2>Log</h2>
    <${ProblemBox} problem=${problem} />
    ${read && !text && html`<p class="empty">Nothing is printed yet.</p>`}
    ${text && html`<pre ref=${box} tabindex="0" role="log" aria-label="Log of the job">${text}</pre>`}`;
}
