"""A worker: builds one candidate after another in memory and scores it.

It keeps the sources, the live model and the tasks ready, so a candidate costs only its merge and
its forward passes.
"""

from __future__ import annotations

import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from evomerge.errors import InputError, MergeError, SelfCheckError, is_shortage, one_line
from evomerge.evaluate import (
    Answers,
    Candidate,
    Cost,
    Engine,
    Evaluation,
    Failed,
    Observer,
    Reference,
    Scored,
    SelfCheck,
    TaskItems,
    Unscorable,
    check_engine,
    choose_items,
    count_items,
    expect,
    ignore,
    leaves_of,
    load_plain,
)
from evomerge.merge import pass_key
from evomerge.recipe import Recipe
from evomerge.sources import Checkpoint
from evomerge.workers.engines import is_package_engine
from evomerge.workers.live_models import LiveModels
from evomerge.workers.preparation.prepared_job import PreparedJob

# Which candidates are checked against plain transformers, and how.
#
# A single model is compared with its own folder, as transformers loads it: configuration, weights,
# head and end tokens. A merge has no folder, so the reference is its live model, read by plain
# transformers. Each kind of live model is checked once, before the first candidate of the kind is
# scored.


def kind_of(recipe: Recipe, preparation: PreparedJob) -> str:
    """The same text for all recipes with one kind of live model; one check is enough for them."""
    alone = preparation.alone_in(recipe)
    if alone is not None:
        return f"alone {pass_key(alone.source.config)}"
    if recipe.route is not None:
        return "route"
    return "merge" if recipe.slices is None and recipe.modules is None else "layers"


def check_candidate(
    candidate: Candidate, preparation: PreparedJob, models: LiveModels, *, device: str
) -> SelfCheck | None:
    """Check the live model of a candidate; None if it has no score, or if there is no reference.

    Raises SelfCheckError if the engine does not score as plain transformers does.
    """
    alone = preparation.alone_in(candidate.recipe)
    suite = preparation.suite if alone is None else alone.suite
    items = choose_items(suite)
    expected = None
    exact: Callable[[], Reference]
    dtype = preparation.out_dtype
    own = None if alone is None else alone.source
    if alone is not None and isinstance(own, Checkpoint) and own.unpacked_alike(dtype):
        models.release()  # memory holds one model at a time
        load = partial(
            load_plain,
            own.folder,
            device=device,
            tokenizer=alone.tokenizer,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
        reference = load(dtype=dtype)
        exact = partial(load, dtype="float32")
        expected = expect(reference, suite, items)
        model = weakref.ref(reference.model)
        del reference
        if model() is not None:  # its parts refer to each other; collecting takes half a second
            gc.collect()
    try:
        engine = models.hold(candidate.recipe)
        if expected is None:
            plain = engine.plain()
            if plain is None:
                return None
            expected = expect(plain, suite, items)
            exact = partial(_in_float32, plain)
        return check_engine(engine, expected, suite, label=candidate.label, exact=exact)
    except Unscorable:
        return None


def _in_float32(plain: Reference) -> Reference:
    return plain.in_float32()


PAUSES_S = (1.0, 5.0, 15.0)
"""Pauses before each retry on a machine that ran short; after the last retry the search ends."""


Checked = Callable[[SelfCheck], None]
"""Called with a self-check that passed."""


def forget(check: SelfCheck) -> None:
    """Drop the self-check."""


class Shortage(Exception):
    """The machine ran short, of memory or disk, while a candidate was scored; the text is why.

    Used inside this package only: the caller frees memory and tries again later.
    """


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

        checked: called with self-checks that passed.
        """
        self._preparation = preparation
        self._metrics = leaves_of(preparation.objective.metrics)
        self._device = device
        self._checked = checked
        self._kinds: set[str] = set()  # of live models that were checked
        self._models = LiveModels(preparation, device=device, cache_folder=cache_folder)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Announce the recipes that come next, on the same items; scores do not depend on it.

        It changes what they cost. Errors are ignored here: they come again, candidate by candidate.
        """
        with contextlib.suppress(Exception):
            self._models.expect(recipes)

    def evaluate(self, candidate: Candidate, observe: Observer = ignore) -> Evaluation:
        """Build and score one candidate. An error of the candidate is a Failed, never an exception.

        Other errors are raised: an InputError, because an unreadable source concerns every
        candidate, a SelfCheckError and a Shortage.
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
        """Compare the first live model of each kind with plain transformers.

        Other errors are ignored here, because they come again when the candidate is scored. Engines
        of packages are an exception: an engine that was never checked is not trusted. Raises
        SelfCheckError.
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
                    f"{candidate.label}: the engine {engine} cannot be checked against plain "
                    f"transformers ({_reason(error)}); mend its package, or set compute.engine to "
                    "transformers"
                ) from error
            return
        if found is not None:
            self._kinds.add(kind)
            self._checked(found)

    def free(self) -> None:
        """Free all memory that can be filled again."""
        self._models.release()

    def _score(self, candidate: Candidate, engine: Engine, *, merge_s: float) -> Evaluation:
        """Score the live model; raises an InputError and a Shortage."""
        start = time.perf_counter()
        before = engine.forward_s, engine.hops, engine.shared_hops
        reason: str | None = None
        tasks: Mapping[str, TaskItems] = {}
        answers: Answers = {}
        try:
            alone = self._preparation.alone_in(candidate.recipe)
            suite = self._preparation.suite if alone is None else alone.suite
            if candidate.keep_answers:
                tasks, answers = suite.score_and_keep(engine, candidate.items)
            else:
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
        if reason is not None:
            return Failed(reason=reason, cost=cost)
        return Scored(tasks=tasks, cost=cost, answers=answers)

    def _missing(self, tasks: Mapping[str, TaskItems]) -> str | None:
        """Why there is no score: a metric that counts has no value for some item. Else None."""
        for metric in self._metrics:
            if metric.task in tasks and metric.key not in tasks[metric.task].metrics:
                return f"{metric}: the task gives no value of it for some item"
        return None


def _pass_on(error: Exception) -> None:
    """Raise an error that is not the candidate's fault."""
    if is_shortage(error):
        raise Shortage(_reason(error)) from error
    if isinstance(error, InputError | SelfCheckError):
        raise error


def _reason(error: Exception) -> str:
    if isinstance(error, MergeError):
        return str(error)  # is a complete sentence
    return one_line(f"{type(error).__name__}: {error}")
