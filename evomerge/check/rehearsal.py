"""A measurement of some seconds on this machine: the engine scores a model of random weights.

The model has the job's shapes and a few of its layers; the texts are the job's own. So the time is
that of the real engine on the real requests, and no weight is read for it. A few tensors of the
models are merged as well, which reads these alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from evomerge.check.footprint import Footprint
from evomerge.check.memory import BYTES
from evomerge.check.workload import spread
from evomerge.errors import one_line
from evomerge.evaluate import (
    Continuation,
    Engine,
    ItemIds,
    LogLikelihood,
    Prompt,
    TaskSuite,
    TransformersEngine,
)
from evomerge.merge import MergeEngine, merged_config
from evomerge.recipe import Recipe, Slice, SliceSource
from evomerge.space import DataFlowSpace
from evomerge.vocabulary import config_folder, settings_of
from evomerge.workers import PreparedJob

Span = tuple[float, float]
"""The least and the most."""

_SIZES = (1, 4, 16, 64)
_WHOLE_BYTES = 64 * 10**6
"""A model up to this size is rehearsed with all of its layers."""

_FEW, _MORE = 1, 3
"""Layers of the two models that stand for a larger one: time grows by the same for each layer."""

_LARGEST_BYTES = 4 * 10**9
"""Most bytes of a model of random weights that are worth the wait."""

_WORTH_TWICE_S = 1.0
"""Runs up to this long are timed twice, and the faster one counts."""

_MERGED_BYTES = 64 * 10**6
"""About so many bytes of the models' tensors are merged."""

_Pair = NDArray[np.float64]
"""Seconds (2,): of the processor and on the clock. Other programs make the second one longer."""


class Unmeasured(Exception):
    """This machine cannot be measured with the job; the text is the reason.

    Used inside this package only.
    """


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What one worker takes on this machine, each as the least and the most.

    fixed_s: seconds of a part of a candidate, whatever its items. item_s: of an item more of each
    task, with answers as long as the right ones. answering: share of a part's time that grows with
    the length of answers. merge_s: to make a merge. layers: of the models that were timed. of:
    those of the job's.
    """

    fixed_s: Span
    item_s: Mapping[str, Span]
    answering: float
    merge_s: Span
    layers: tuple[int, ...]
    of: int

    def part_s(self, counts: Mapping[str, float]) -> Span:
        """Seconds for a part with so many items of each task, without its merge."""
        least, most = (
            self.fixed_s[end] + sum(n * self.item_s[task][end] for task, n in counts.items())
            for end in (0, 1)
        )
        return least, most


def rehearse(
    preparation: PreparedJob,
    footprint: Footprint,
    *,
    part: ItemIds,
    answers: Mapping[str, int],
    limit_s: float,
) -> Rehearsal:
    """Measure this machine for about `limit_s` seconds.

    part: items of one part of a search's candidate. answers: see `expected_answers`. Raises
    Unmeasured, InputError.
    """
    depth = footprint.layers
    whole = footprint.written_bytes <= _WHOLE_BYTES or depth <= _MORE
    depths = (depth,) if whole else (_FEW, _MORE)
    values = footprint.active_parameters * max(depths) / depth + 2 * footprint.head_parameters
    if values * BYTES[preparation.out_dtype] > _LARGEST_BYTES:
        raise Unmeasured(f"already {max(depths)} layers are too large for some seconds")
    sizes: dict[str, tuple[int, int]] | None = None
    found: list[_Measured] = []
    for layers in depths:
        try:
            stage = _Stage(preparation, layers, answers)
            if sizes is None:
                sizes = _sizes(stage, preparation, part, limit_s / (4 * len(depths)))
            found.append(_measure(stage, preparation.suite, part, sizes))
        except RuntimeError as error:
            raise Unmeasured(one_line(error)) from error
    measured = found[0] if whole else _deeper(found[0], found[1], depth)
    return _fitted(measured, part, _merge_s(preparation), depths, depth)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Seconds of a model.

    whole: of a whole part. brief: of a part whose answers have one token. alike: task -> two runs,
    each a number of items and its seconds, the smaller first; they are the same if only one was
    affordable.
    """

    whole: _Pair
    brief: _Pair
    alike: Mapping[str, tuple[tuple[int, _Pair], tuple[int, _Pair]]]


class _Stage:
    """An engine with a model of random weights that has so many layers."""

    def __init__(self, preparation: PreparedJob, layers: int, answers: Mapping[str, int]) -> None:
        lead, job = preparation.lead, preparation.job
        self._suite = preparation.suite
        self._answers = answers
        self._engine = TransformersEngine(
            config_folder(lead),
            config=_shallow(preparation, layers),
            tokenizer=preparation.tokenizer,
            settings=settings_of(lead),
            dtype=preparation.out_dtype,
            device="cpu",
            batch_size=job.evaluation.batch_size,
            trust_remote_code=job.models.trust_remote_code,
        )
        generation = copy.deepcopy(preparation.alone[job.models.base].generation)
        generation.max_new_tokens = None  # it would replace the lengths that are rehearsed
        self._engine.use(
            tokenizer=preparation.tokenizer, generation=generation, where=lead.reference
        )
        self._suite.make_ready(self._engine)

    def seconds(self, items: ItemIds, *, brief: bool = False) -> _Pair:
        """Seconds to answer these items and to score the answers; brief: answers of one token."""
        given: list[Continuation] = []
        asked: list[Prompt] = []
        for task, ids in items.items():
            for request in self._suite.requests({task: ids}):
                if isinstance(request, Continuation):
                    given.append(request)
                else:
                    limit = 1 if brief else min(request.limit_tokens, self._answers[task])
                    # A random answer must not end by chance.
                    asked.append(replace(request, stop=(), limit_tokens=limit))
        with _Clock() as clock:
            self._engine.loglikelihood(given)
            self._engine.answer(asked)
            self._suite.score(cast(Engine, _Canned()), items)
        return clock.seconds


class _Clock:
    """Seconds of the processor and on the clock, from entering to leaving."""

    def __enter__(self) -> _Clock:
        self._begun = time.process_time(), time.perf_counter()
        self.seconds = np.zeros(2)
        return self

    def __exit__(self, *_: object) -> None:
        busy = time.process_time() - self._begun[0]
        passed = time.perf_counter() - self._begun[1]
        # Several threads are busy at the same time, so the clock is a bound.
        self.seconds = np.array([min(busy, passed), passed])


class _Canned:
    """An engine that has its answers ready: what is left is the work of the tasks themselves."""

    forward_s = 0.0
    hops = shared_hops = 0

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Nothing is to be prepared."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """The same for every request."""
        return [(-1.0, False)] * len(requests)

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """The same for every request."""
        return ["0"] * len(requests)


def tasks_s(suite: TaskSuite, items: ItemIds) -> Span:
    """Seconds that the tasks' own code takes here for these items, without a model."""
    with _Clock() as clock:
        suite.score(cast(Engine, _Canned()), items)
    return _span(clock.seconds)


def _shallow(preparation: PreparedJob, layers: int) -> Mapping[str, object]:
    """The configuration of the merge with so many layers. Raises RecipeError."""
    lead = preparation.lead
    if layers == lead.structure.depth:
        return lead.config
    first = Slice(sources=(SliceSource(model=lead.reference, layer_range=(0, layers)),))
    recipe = Recipe(merge_method="passthrough", slices=(first,))
    sources = {lead.reference: lead}
    return merged_config(recipe, MergeEngine(sources).plan(recipe), sources)


def _sizes(
    stage: _Stage, preparation: PreparedJob, part: ItemIds, limit_s: float
) -> dict[str, tuple[int, int]]:
    """Two numbers of items of each task: runs of them take about `limit_s` seconds in all."""
    found = {}
    stage.seconds({task: ids[:1] for task, ids in part.items()})  # the first pass is slower
    for task in preparation.job.all_tasks:
        pool, left_s, before = (
            preparation.suite.scored(task),
            limit_s / len(preparation.job.all_tasks),
            1,
        )
        found[task] = (1, 1)
        for size in _SIZES:
            spent_s = stage.seconds({task: spread(pool, size)})[1]
            found[task], before = (before, min(size, len(pool))), min(size, len(pool))
            left_s -= spent_s
            if left_s < 4 * spent_s or size >= len(pool):
                break
    return found


def _measure(
    stage: _Stage, suite: TaskSuite, part: ItemIds, sizes: Mapping[str, tuple[int, int]]
) -> _Measured:
    def twice(items: ItemIds, *, brief: bool = False) -> _Pair:
        first = stage.seconds(items, brief=brief)
        if first[1] > _WORTH_TWICE_S:
            return first
        return np.minimum(first, stage.seconds(items, brief=brief))

    alike = {}
    for task, counts in sizes.items():
        few, many = (twice({task: spread(suite.scored(task), count)}) for count in counts)
        alike[task] = ((counts[0], few), (counts[1], many))
    return _Measured(whole=twice(part), brief=twice(part, brief=True), alike=alike)


def _deeper(few: _Measured, more: _Measured, depth: int) -> _Measured:
    """What a model of the whole depth takes, from two shallow ones."""

    def line(a: _Pair, b: _Pair) -> _Pair:
        deeper: _Pair = b + np.maximum(0.0, (b - a) / (_MORE - _FEW)) * (depth - _MORE)
        return deeper

    alike = {}
    for task, runs in few.alike.items():
        (count, a), (larger, b) = runs
        deep, deeper = more.alike[task][0][1], more.alike[task][1][1]
        alike[task] = ((count, line(a, deep)), (larger, line(b, deeper)))
    return _Measured(
        whole=line(few.whole, more.whole), brief=line(few.brief, more.brief), alike=alike
    )


def _fitted(
    measured: _Measured, part: ItemIds, merge_s: _Pair, layers: tuple[int, ...], depth: int
) -> Rehearsal:
    """Seconds of an item from the two runs of its task, and the rest of a whole part."""
    item_s = {}
    for task, ((few, few_s), (many, many_s)) in measured.alike.items():
        alone = many_s / many
        # An item more costs something, and no more than one of a run does on the average.
        item_s[task] = (
            np.clip((many_s - few_s) / (many - few), 0.02 * alone, alone) if many > few else alone
        )
    whole, brief = measured.whole, measured.brief
    expected = sum((len(ids) * item_s[task] for task, ids in part.items()), np.zeros(2))
    # Items alone take longer than in a batch, and there may be time for few of them only.
    fewer = np.minimum(1.0, whole / np.maximum(expected, 1e-9))
    item_s = {task: pair * (fewer if task in part else 1.0) for task, pair in item_s.items()}
    expected = expected * fewer
    return Rehearsal(
        fixed_s=_span(np.maximum(0.0, whole - expected)),
        item_s={task: _span(pair) for task, pair in item_s.items()},
        answering=float(np.clip(1.0 - brief[0] / max(whole[0], 1e-9), 0.0, 1.0)),
        merge_s=_span(merge_s),
        layers=layers,
        of=depth,
    )


def _merge_s(preparation: PreparedJob) -> _Pair:
    """Seconds of a merge: some tensors are merged twice, the second time counts."""
    if isinstance(preparation.space, DataFlowSpace):
        return np.zeros(2)  # a route copies no weight
    recipe = preparation.space.decode(preparation.space.start)
    engine = MergeEngine(preparation.sources)
    sizes = {tensor.name: math.prod(tensor.shape) for tensor in engine.plan(recipe).tensors}
    chosen, bytes_left = [], float(_MERGED_BYTES)
    names = list(sizes)
    for name in [*names[::7], *(name for place, name in enumerate(names) if place % 7)]:
        if 4 * sizes[name] <= bytes_left:
            chosen.append(name)
            bytes_left -= 4 * sizes[name]
    if not chosen:
        chosen = [min(names, key=lambda name: sizes[name])]
    for _ in range(2):
        with _Clock() as clock:
            for _tensor in engine.execute(recipe, order=chosen):
                pass
    return clock.seconds * sum(sizes.values()) / max(1, sum(sizes[name] for name in chosen))


def _span(pair: _Pair) -> Span:
    return float(pair[0]), float(pair[1])
