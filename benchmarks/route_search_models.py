"""Route searches on real models: what each optimiser delivers, scored on items it never saw.

Part of route_search.py (`--models`). It runs evomerge's own search, and chooses among its routes
as the made-up searches do: no baseline that is no route takes part.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evomerge.evaluate.candidate import Candidate, CandidateKey, Split
from evomerge.job import load_job
from evomerge.recipe import Recipe
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.study import Trial, create_study
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import pin, prepare

FINALISTS = 3
JOB = Path(__file__).parents[1] / "examples/kana/data_flow.yaml"
ALGORITHMS: tuple[str, ...] = ("cat_cma_es", "cma_es", "cma_es_threshold", "random")


def compare_on_models(seeds: int, candidates: int) -> None:
    """Search routes through the demo's models and print what each optimiser delivers."""
    print("| optimiser | median | of the seeds | start | s a search |\n|---|---:|---|---:|---:|")
    for algorithm in ALGORITHMS:
        began = time.perf_counter()
        found = [
            search_models(algorithm, seed=seed, candidates=candidates) for seed in range(seeds)
        ]
        each_s = (time.perf_counter() - began) / seeds
        delivered = [score for score, _ in found]
        listed = ", ".join(f"{score:.3f}" for score in delivered)
        row = (algorithm, f"{np.median(delivered):.3f}", listed, f"{found[0][1]:.3f}")
        print(f"| {' | '.join(row)} | {each_s:.0f} |", flush=True)


def search_models(algorithm: str, *, seed: int, candidates: int) -> tuple[float, float]:
    """Scores on the test items of what one search delivers, and of its start."""
    overrides = (
        f"optimizer={{algorithm: {algorithm}, seed: {seed}}}",
        f"budget={{candidates: {candidates}}}",
        "compute.workers=1",
    )
    preparation = prepare(pin(load_job(JOB, overrides=overrides)))
    space = preparation.space
    with (
        tempfile.TemporaryDirectory() as folder,
        create_study(Path(folder) / "run", preparation.job) as study,
        LocalPool(preparation) as pool,
    ):
        ledger = Ledger(preparation=preparation, study=study, pool=pool)
        means = run_search(ledger).means
        start = space.decode(space.start)
        finalists = [start]
        if means:
            halves = (np.mean(means[len(means) // 2 :], axis=0), means[-1])
            finalists += [space.decode(mean) for mean in halves]
        finalists += [trial.recipe for trial in ledger.fittest("genome")[:FINALISTS]]
        validated = score(ledger, finalists, "validation")
        winner = finalists[int(np.argmax([trial.score or 0.0 for trial in validated]))]
        delivered, began = score(ledger, [winner, start], "test")
    assert delivered.score is not None and began.score is not None
    return delivered.score, began.score


def score(ledger: Ledger, recipes: Sequence[Recipe], split: Split) -> list[Trial]:
    """The trials of recipes on all items of a split."""
    preparation = ledger.preparation
    tasks = preparation.job.search_tasks
    items = {task: preparation.suite.items(task, split) for task in tasks}
    generation = {"validation": -1, "test": -2}[split]
    return ledger.complete(
        [
            Candidate(
                key=CandidateKey(generation, place),
                kind="finalist",
                label=str(place),
                recipe=recipe,
                items=items,
            )
            for place, recipe in enumerate(recipes)
        ]
    )
