"""A worker: builds one candidate after another in memory and scores it.

It holds the sources, the live model and the tasks ready, so that a candidate costs its merge and
its forward passes. It knows nothing of searches, records or other workers.
"""

from __future__ import annotations

import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from evomerge.errors import InputError, MergeError, SelfCheckError, is_shortage, one_line
from evomerge.evaluate import (
    Candidate,
    Cost,
    Engine,
    Evaluation,
    Failed,
    Observer,
    Scored,
    SelfCheck,
    TaskItems,
    Unscorable,
    check_engine,
    choose_items,
    count_items,
    expect,
    ignore,
    load_plain,
)
from evomerge.merge import pass_key
from evomerge.recipe import Recipe
from evomerge.sources import Checkpoint
from evomerge.workers.engines import is_package_engine
from evomerge.workers.live_models import LiveModels
from evomerge.workers.preparation.prepared_job import PreparedJob

# Which candidates are checked against plain transformers, and how one is.
#
# A model by itself is held to its own folder, as transformers loads it: configuration, weights,
# head and end tokens. A merge has no folder, so it is held to its live model read the plain way.
# One of each kind of live model is checked, before the first of its kind is scored.


def kind_of(recipe: Recipe, preparation: PreparedJob) -> str:
    """The same for recipes whose live models are of one kind; one check serves them all."""
    alone = preparation.alone_in(recipe)
    if alone is not None:
        return f"alone {pass_key(alone.source.config)}"
    if recipe.route is not None:
        return "route"
    return "merge" if recipe.slices is None and recipe.modules is None else "layers"


def check_candidate(
    candidate: Candidate, preparation: PreparedJob, models: LiveModels, *, device: str
) -> SelfCheck | None:
    """Check the live model of a candidate; None where it has no score, or nothing to be held to.

    Raises SelfCheckError where the engine does not score as plain transformers does.
    """
    alone = preparation.alone_in(candidate.recipe)
    suite = preparation.suite if alone is None else alone.suite
    items = choose_items(suite)
    expected = None
    if alone is not None and isinstance(alone.source, Checkpoint):
        models.release()  # memory holds one model at a time
        reference = load_plain(
            alone.source.folder,
            dtype=preparation.out_dtype,
            device=device,
            tokenizer=alone.tokenizer,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
        expected = expect(reference, suite, items)
        model = weakref.ref(reference.model)
        del reference
        if model() is not None:  # its parts hold each other; collecting takes half a second
            gc.collect()
    try:
        engine = models.hold(candidate.recipe)
        if expected is None:
            plain = engine.plain()
            if plain is None:
                return None
            expected = expect(plain, suite, items)
        return check_engine(engine, expected, suite, label=candidate.label)
    except Unscorable:
        return None


PAUSES_S = (1.0, 5.0, 15.0)
"""Before each further try where the machine ran short; after the last the search ends."""


Checked = Callable[[SelfCheck], None]
"""Called with a self-check that held."""


def forget(check: SelfCheck) -> None:
    """Keeps nothing."""


class Shortage(Exception):
    """The machine ran short, of memory or disk, while a candidate was scored; the text is why.

    A signal inside the room: whoever asked frees memory, and asks again later.
    """


def choose_device(wanted: str) -> str:
    """The device a job's `compute.device` means on this machine."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


class Worker:
    """Scores candidates on one device, in this process."""

    def __init__(
        self,
        preparation: PreparedJob,
        *,
        device: str,
        cache_folder: Path | None = None,
        checked: Checked = forget,
    ) -> None:
        """cache_folder: where large arrays of the tensor cache are kept, beside the run.

        checked: told of self-checks that held.
        """
        self._preparation = preparation
        objective = preparation.objective
        self._metrics = [
            *(term.metric for term in objective.terms),
            *(constraint.metric for constraint in objective.constraints),
        ]
        self._device = device
        self._checked = checked
        self._kinds: set[str] = set()  # of live models that were checked
        self._models = LiveModels(preparation, device=device, cache_folder=cache_folder)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Which recipes come next, on the same items; it changes what they cost, never a score.

        What goes wrong here is found again, candidate by candidate.
        """
        with contextlib.suppress(Exception):
            self._models.expect(recipes)

    def evaluate(self, candidate: Candidate, observe: Observer = ignore) -> Evaluation:
        """Build and score one candidate. What goes wrong with it is a Failed, never an exception.

        What is not the candidate's fault passes: an InputError, for a source that became unreadable
        concerns every candidate, a SelfCheckError and a Shortage.
        """
        self._check(candidate)
        start = time.perf_counter()
        try:
            engine = self._models.hold(candidate.recipe)
        except Exception as error:
            _pass_on(error)
            return Failed(reason=_reason(error), cost=Cost(merge_s=time.perf_counter() - start))
        merged = time.perf_counter()
        observe("merged", candidate.key)
        outcome = self._score(candidate, engine, merge_s=merged - start)
        if isinstance(outcome, Scored):
            observe("scored", candidate.key)
        return outcome

    def _check(self, candidate: Candidate) -> None:
        """Hold the first of each kind of live model to plain transformers.

        What goes wrong beside that is found again when the candidate is scored, but for engines of
        packages: one that was never held to anything is not trusted. Raises SelfCheckError.
        """
        kind = kind_of(candidate.recipe, self._preparation)
        if kind in self._kinds:
            return
        try:
            found = check_candidate(candidate, self._preparation, self._models, device=self._device)
        except Exception as error:
            _pass_on(error)
            engine = self._preparation.job.compute.engine
            if is_package_engine(engine):
                raise SelfCheckError(
                    f"{candidate.label}: the engine {engine} cannot be held to plain transformers "
                    f"({_reason(error)}); mend its package, or set compute.engine to transformers"
                ) from error
            return
        if found is not None:
            self._kinds.add(kind)
            self._checked(found)

    def free(self) -> None:
        """Give back all memory that can be made again."""
        self._models.release()

    def _score(self, candidate: Candidate, engine: Engine, *, merge_s: float) -> Evaluation:
        """Score the live model; an InputError and a Shortage pass."""
        start = time.perf_counter()
        before = engine.forward_s, engine.hops, engine.shared_hops
        reason: str | None = None
        tasks: Mapping[str, TaskItems] = {}
        try:
            alone = self._preparation.alone_in(candidate.recipe)
            suite = self._preparation.suite if alone is None else alone.suite
            tasks = suite.score(engine, candidate.items)
            reason = self._missing(tasks)
        except Unscorable as error:
            reason = str(error)
        except Exception as error:
            _pass_on(error)
            reason = _reason(error)
        cost = Cost(
            merge_s=merge_s,
            evaluate_s=time.perf_counter() - start,
            forward_s=engine.forward_s - before[0],
            items=count_items(candidate.items),
            hops=engine.hops - before[1],
            shared_hops=engine.shared_hops - before[2],
        )
        return (
            Scored(tasks=tasks, cost=cost) if reason is None else Failed(reason=reason, cost=cost)
        )

    def _missing(self, tasks: Mapping[str, TaskItems]) -> str | None:
        """Why there is no score where a task left a metric that counts out for some item."""
        for metric in self._metrics:
            if metric.task in tasks and metric.key not in tasks[metric.task].metrics:
                return f"{metric}: the task gives no value of it for some item"
        return None


def _pass_on(error: Exception) -> None:
    """Raise what is not the candidate's fault."""
    if is_shortage(error):
        raise Shortage(_reason(error)) from error
    if isinstance(error, InputError | SelfCheckError):
        raise error


def _reason(error: Exception) -> str:
    if isinstance(error, MergeError):
        return str(error)  # says all by itself
    return one_line(f"{type(error).__name__}: {error}")
