"""Kills searches with SIGKILL and resumes them; what came of it is in FOLDER/report.json.

In a process of its own, because it forks: it loads libraries and tasks once, and each search runs
in a fork that is killed at one step, then in another that resumes. Steps are counted by the
observer of the search (asked, merged, scored, recorded, told), so an instant is the same every
time.

light: candidates are scored by a hash, real: by models. A kill takes nothing back that was
written, so where there are many, most are what one more search left behind at their steps: its run
directory, copied at once.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from evomerge.evaluate.candidate import CandidateKey, Step
from evomerge.search.ledger import Ledger
from evomerge.search.run import run_job
from evomerge.study import create_study, read_study, resume_study
from evomerge.workers.pool import LocalPool, Pool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import JOBS, LightPool, make_job, write_models

FEW = 6
"""So many kills are all real ones; of more, every fourth."""


def kill_searches(folder: Path, job: str, kinds: Mapping[str, int]) -> None:
    """For each kind of pool, search undisturbed, then so many times killed; what differs."""
    write_models(folder / "models")
    preparation = prepare(make_job(folder / "models", **JOBS[job]))
    pools: dict[str, Callable[[], Pool]] = {
        "light": LightPool,
        "real": lambda: LocalPool(preparation),
    }
    for kind in kinds:  # what a first search imports and compiles, every fork has then
        _run(folder / f"warm-{kind}", preparation, pools[kind])
    gc.freeze()  # what every fork begins with is no garbage of any
    report = {
        kind: kill_and_resume(folder / kind, preparation, pools[kind], kills)
        for kind, kills in kinds.items()
    }
    (folder / "report.json").write_text(json.dumps(report))


def kill_and_resume(
    folder: Path, preparation: PreparedJob, open_pool: Callable[[], Pool], kills: int
) -> dict[str, Any]:
    """Search undisturbed once, then once for every kill; what differs."""
    folder.mkdir()
    reference = folder / "undisturbed"
    steps_file = folder / "steps"
    in_fork(lambda: _run(reference, preparation, open_pool, steps_file=steps_file))
    steps = steps_file.read_text().split()
    expected = _contents(reference)
    chosen = instants(steps, kills)
    killed = chosen if kills <= FEW else chosen[::4]
    copies = {at: folder / f"killed-{at:03d}" for at in chosen if at not in killed}
    if copies:
        in_fork(lambda: _run(folder / "copied", preparation, open_pool, copies=copies))
    report = []
    for at in chosen:
        run_dir = folder / f"killed-{at:03d}"
        if at in killed:
            status = in_fork(lambda: _run(run_dir, preparation, open_pool, die_at=at))  # noqa: B023
            ended = was_killed(status)
        else:
            ended = run_dir.exists()
        recorded = _recorded(run_dir)
        in_fork(lambda: _run(run_dir, preparation, open_pool))  # noqa: B023
        report.append(
            {
                "step": steps[at],
                "killed": ended,
                "recorded": recorded,
                "differs": _differences(expected, _contents(run_dir)),
            }
        )
    return {"trials": len(expected["trials"]), "kills": report}


def instants(steps: list[str], kills: int) -> list[int]:
    """Different steps to die at: spread evenly, one of each kind among them."""
    spread = [(2 * number + 1) * len(steps) // (2 * kills) for number in range(kills)]
    middle = len(steps) // 2
    for kind in sorted(set(steps) - {steps[at] for at in spread}):
        nearest = min(
            (at for at, step in enumerate(steps) if step == kind), key=lambda at: abs(at - middle)
        )
        kinds = [steps[at] for at in spread]
        often = max(sorted(set(kinds)), key=kinds.count)
        spread[kinds.index(often)] = nearest
    return spread


def _run(
    run_dir: Path,
    preparation: PreparedJob,
    open_pool: Callable[[], Pool],
    *,
    die_at: int | None = None,
    copies: Mapping[int, Path] | None = None,
    steps_file: Path | None = None,
) -> None:
    steps: list[str] = []

    def observe(step: Step, key: CandidateKey) -> None:
        if len(steps) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if copies and len(steps) in copies:
            shutil.copytree(run_dir, copies[len(steps)])
        steps.append(step)

    fresh = not (run_dir / "job.yaml").exists()
    study = create_study(run_dir, preparation.job) if fresh else resume_study(run_dir)
    with study, open_pool() as pool:
        ledger = Ledger(preparation=preparation, study=study, pool=pool, observe=observe)
        run_job(ledger)
    if steps_file is not None:
        steps_file.write_text(" ".join(steps))


def was_killed(status: int) -> bool:
    """Whether a process that ended so was killed."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def in_fork(work: Callable[[], None]) -> int:
    """Do the work in a process of its own; how that ended, as waitpid says it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def _recorded(run_dir: Path) -> int:
    if not (run_dir / "study.db").exists():
        return 0
    with read_study(run_dir) as study:
        return len(study.trials)


def _contents(run_dir: Path) -> dict[str, Any]:
    """Everything of a record that a kill must not change; floats as their exact text."""
    with read_study(run_dir) as study:
        trials = [
            repr((t.key, t.kind, t.label, t.genome, t.score, t.means, t.items, t.failure))
            + t.recipe.to_yaml()
            for t in study.trials
        ]
        items = [repr(study.items_of(t.key)) for t in study.trials]
        url = f"sqlite:///{run_dir / 'study.db'}"
        opened = optuna.load_study(study_name=study.job.name, storage=url)
        numbers = sorted(trial.number for trial in opened.get_trials())
        return {
            "trials": trials,
            "items": items,
            "answers": [repr(study.answers_of(t.key)) for t in study.trials],
            "doubled": len(numbers) != len(set(numbers)),
            "stages": json.dumps(study.noted("stages"), sort_keys=True),
            "selection": json.dumps(study.noted("selection"), sort_keys=True),
            "files": sorted(
                f"{folder}/{path.name}"
                for folder in ("items", "answers")
                for path in (run_dir / folder).iterdir()
            ),
        }


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [part for part in expected if expected[part] != found[part]]
