"""evomerge's own item samplers, and the sampler class of a name.

Facts about them that a job is checked against are in job/draws.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.job import DRAWS, load_draws
from evomerge.search.sampling.estimators import FEWEST_LEFT_OUT, EstimatorChoice, choose_estimator
from evomerge.search.sampling.informative import disagreement, draw_probabilities, predict_items
from evomerge.search.sampling.responses import Responses, whole_rows
from evomerge.search.sampling.sample import TaskSample
from evomerge.search.sampling.sampler import ItemSampler


@final
class FreshSampler(ItemSampler):
    """Other items every generation, all with the same probability."""

    facts = DRAWS["fresh"]

    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """Other items than in any other generation."""
        return self.draw_plain(task, count, generation)


class _OneDraw(ItemSampler):
    """The sample of the first draw in every generation."""

    def __init__(
        self,
        pools: Mapping[str, NDArray[np.int64]],
        metrics: Mapping[str, Sequence[str]],
        *,
        seed: int,
        parents: Sequence[int] = (),
    ) -> None:
        super().__init__(pools, metrics, seed=seed, parents=parents)
        self._drawn: dict[str, TaskSample] = {}

    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """The items of the first call."""
        if task not in self._drawn:
            self._drawn[task] = self.draw_plain(task, count, generation)
        return self._drawn[task]


@final
class FixedSampler(_OneDraw):
    """One subset of the items for all generations."""

    facts = DRAWS["fixed"]


@final
class AllSampler(_OneDraw):
    """All items for all generations."""

    facts = DRAWS["all"]


RECENT = 192
"""Number of latest candidates that disagreement is measured on: with default populations those of
the last ten to twenty generations. Older ones are from a distribution that has moved on."""


@final
class InformativeSampler(ItemSampler):
    """Draws items more often if recent candidates disagree on them, by any of the metrics."""

    facts = DRAWS["informative"]

    def __init__(
        self,
        pools: Mapping[str, NDArray[np.int64]],
        metrics: Mapping[str, Sequence[str]],
        *,
        seed: int,
        parents: Sequence[int] = (),
    ) -> None:
        super().__init__(pools, metrics, seed=seed, parents=parents)
        self._responses = _no_responses(self.pools, self.metrics)
        self._lessons = 0
        self._starts = 0  # rows of the baselines, which are first

    def learn(self, responses: Mapping[tuple[str, str], Responses]) -> None:
        """Keep the latest responses, and forget the baselines after two generations."""
        new = len(next(iter(responses.values())))
        known = len(next(iter(self._responses.values())))
        self._lessons += 1
        self._starts = new if self._lessons == 1 else self._starts
        # Baselines differ much; two generations predict better where later candidates disagree.
        old = self._starts if self._lessons == 3 else 0
        forget = min(known, max(old, known + new - RECENT))
        self._starts = max(0, self._starts - forget)
        for key, before in self._responses.items():
            self._responses[key] = np.vstack([before[forget:], responses[key]])

    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """Items by how far recent candidates disagree on them."""
        known = {m: r for (t, m), r in self._responses.items() if t == task and _says_some(r)}
        if not known or count == len(self.pools[task]):
            return self.draw_plain(task, count, generation)
        variances = np.zeros(len(self.pools[task]))
        for responses in known.values():
            found = disagreement(responses)
            if found.max() > 0.0:  # metrics differ in their units
                variances = np.maximum(variances, found / found.mean())
        guesses = {metric: predict_items(responses) for metric, responses in known.items()}
        probabilities = draw_probabilities(variances)
        return self.draw_by(task, probabilities, count, generation, guesses=guesses)


@final
class AnchorSampler(ItemSampler):
    """The items, and the estimate, that did best on left-out models."""

    facts = DRAWS["anchors"]

    def __init__(
        self,
        pools: Mapping[str, NDArray[np.int64]],
        metrics: Mapping[str, Sequence[str]],
        *,
        seed: int,
        parents: Sequence[int] = (),
    ) -> None:
        super().__init__(pools, metrics, seed=seed, parents=parents)
        self._responses = _no_responses(self.pools, self.metrics)
        self._choices: dict[str, EstimatorChoice] = {}

    def learn(self, responses: Mapping[tuple[str, str], Responses]) -> None:
        """Keep all responses, until the anchors are chosen."""
        if self._choices:
            return
        for key, before in self._responses.items():
            self._responses[key] = np.vstack([before, responses[key]])

    @property
    def ready(self) -> bool:
        """Whether enough models besides the parents are known."""
        known = [whole_rows(responses) for responses in self._responses.values()]
        return all(len(np.setdiff1d(rows, self.parents)) >= FEWEST_LEFT_OUT for rows in known)

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """task -> what was measured of the ways to estimate it from anchors, in sentences."""
        return {task: choice.sentences for task, choice in self._choices.items()}

    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """The anchors of a task, chosen at its first draw; a plain draw where nothing is known."""
        known = [r for (t, _), r in self._responses.items() if t == task and _says_some(r)]
        if not known or count == len(self.pools[task]):
            return self.draw_plain(task, count, generation)
        if task not in self._choices:
            self._choices[task] = choose_estimator(
                known[0], count, seed=self.seed, parents=self.parents
            )
        chosen = self._choices[task].plan(self.bits(task, generation, "draw"))
        return TaskSample(
            items=self.pools[task][chosen.items],
            scales=np.ones(len(chosen.items)),
            guesses={},
            offsets={},
            estimate=lambda outcomes: float(chosen.estimate(outcomes[None])[0]),
        )


def _no_responses(
    pools: Mapping[str, NDArray[np.int64]], metrics: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], Responses]:
    return {
        (task, metric): np.empty((0, len(pool)))
        for task, pool in pools.items()
        for metric in metrics[task]
    }


def _says_some(responses: Responses) -> bool:
    return bool((~np.isnan(responses)).any())


BUILT_IN: dict[str, type[ItemSampler]] = {
    "informative": InformativeSampler,
    "fresh": FreshSampler,
    "anchors": AnchorSampler,
    "fixed": FixedSampler,
    "all": AllSampler,
}
"""`evaluation.draws` of a job -> evomerge's own class."""


def sampler_of(name: str) -> type[ItemSampler]:
    """The sampler class of a name. Raises JobError where its package cannot be used."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = load_draws(name).sampler
    if found is None or not issubclass(found, ItemSampler):
        raise JobError(f"evaluation.draws: {name}: its class is no evomerge.search.ItemSampler")
    return found
