"""The choice of the way to estimate a mean over all items from a few, measured on left-out models.

Fresh draws, anchors and item response theory all estimate the mean over all items from some of
them. Models with known means are left out in turn. Each way is prepared without them and estimates
their means. A more elaborate way is chosen only if it ranks these models no worse and its squared
error is lower by more than the standard error of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.search.sampling.anchors import choose_anchors
from evomerge.search.sampling.informative import draw_informative, draw_weighted
from evomerge.search.sampling.irt import (
    MOST_DIMENSIONS,
    AbilityEstimate,
    ItemCurves,
    fit_item_curves,
    measure_blend,
)
from evomerge.search.sampling.responses import (
    Responses,
    WeightedItems,
    are_binary,
    check_responses,
    whole_rows,
)

Kind = Literal["random", "informative", "anchors", "p_irt", "gp_irt", "mp_irt"]

NAMES: Mapping[Kind, str] = {
    "random": "a plain random draw",
    "informative": "a draw that prefers items models disagree on",
    "anchors": "anchors",
    "p_irt": "item response theory (p-IRT)",
    "gp_irt": "item response theory with anchors (gp-IRT)",
    "mp_irt": "item response theory on the parents' abilities (mp-IRT)",
}
"""Every kind in words, from the simplest to the most elaborate."""

FRESH: tuple[Kind, ...] = ("random", "informative")
"""Kinds that draw other items every time."""

DRAWS = 10
"""Draws over which the error of a fresh draw is averaged."""

FOLDS = 5
"""Parts into which models are split; each is left out once."""

FEWEST_LEFT_OUT = 4
"""Fewest models with known means, besides the parents, that a measurement needs."""


class ItemEstimate(Protocol):
    """Items to score, and an estimate from the outcomes on them."""

    @property
    def items(self) -> NDArray[np.int64]:
        """(k,) int64, sorted and unique."""

    def estimate(self, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates (models,) of the mean over all items, of outcomes (models, k)."""


Plan = Callable[[np.random.PCG64], ItemEstimate]
"""Gives the items to score next. Fresh draws use the random bits; a fixed choice ignores them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """How one kind did on the models left out.

    squared_errors: (models,) of each model's estimate, averaged over draws. rank_agreement:
    Kendall's tau among models left out together; NaN where no two of them differ.
    """

    kind: Kind
    squared_errors: NDArray[np.float64]
    rank_agreement: float

    @property
    def error(self) -> float:
        """Root mean squared error of an estimate."""
        return float(np.sqrt(self.squared_errors.mean()))

    def beats(self, simpler: Measured) -> bool:
        """Whether the squared error is lower by more than its standard error, and ranks no worse.

        An estimate that is shrunk towards a mean has a small error but hardly tells models apart;
        the ranks show that.
        """
        if self.rank_agreement < simpler.rank_agreement:
            return False
        gains = simpler.squared_errors - self.squared_errors
        return float(gains.mean()) > float(gains.std(ddof=1)) / math.sqrt(len(gains))


@dataclass(frozen=True, kw_only=True, eq=False)
class EstimatorChoice:
    """The kind that was chosen, its plan prepared from all models, and what was measured of all."""

    kind: Kind
    plan: Plan
    measured: tuple[Measured, ...]
    items: int
    count: int

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was measured and chosen, for a report."""
        models = len(self.measured[0].squared_errors)
        rows = [
            f"{NAMES[entry.kind]}: error {entry.error:.4f}, {_say_agreement(entry.rank_agreement)}."
            for entry in self.measured
        ]
        return (
            f"The mean over {self.items} items was estimated from {self.count}, for {models} "
            "models left out in turn.",
            *(row[0].upper() + row[1:] for row in rows),
            f"Chosen: {NAMES[self.kind]}. A more elaborate way is chosen only where it ranks no "
            "worse and its squared error is lower by more than the standard error of the "
            "difference.",
        )


def choose_estimator(
    responses: Responses, count: int, *, seed: int, parents: Sequence[int] = ()
) -> EstimatorChoice:
    """Measure every way to estimate a mean from `count` items, and choose one.

    responses: (models, items), NaN where not scored; the models that are left out are those scored
    on every item, but never the parents. parents: rows; with two or more, mp-IRT is measured too.
    Item response theory is left out where outcomes are not all 0 or 1. Raises ValueError where
    fewer than FEWEST_LEFT_OUT models can be left out, or for an impossible count.
    """
    check_responses(responses, models=2)
    number = responses.shape[1]
    if not 1 <= count <= number:
        raise ValueError(f"count: {count} of {number} items; give 1 to {number}")
    known = np.setdiff1d(whole_rows(responses), parents)
    if len(known) < FEWEST_LEFT_OUT:
        raise ValueError(
            f"responses: {len(known)} models besides the parents were scored on every item; "
            f"{FEWEST_LEFT_OUT} are needed to measure an estimate"
        )
    kinds = _kinds(responses, parents)
    measured = _measure(kinds, responses, known, count, seed=seed, parents=parents)
    best = measured[0]
    for entry in measured[1:]:
        if entry.beats(best):
            best = entry
    return EstimatorChoice(
        kind=best.kind,
        plan=_Estimators(responses, count, seed=seed, parents=parents).plan(best.kind),
        measured=measured,
        items=number,
        count=count,
    )


class _Estimators:
    """Prepares the estimates of every kind from the same responses; shared parts are made once."""

    def __init__(
        self, responses: Responses, count: int, *, seed: int, parents: Sequence[int]
    ) -> None:
        self._responses = responses
        self._count = count
        self._seed = seed
        self._parents = np.asarray(parents, dtype=np.int64)

    def plan(self, kind: Kind) -> Plan:
        """How to estimate by this kind."""
        if kind == "random":
            return self._draw_evenly
        if kind == "informative":
            return lambda bits: draw_informative(self._responses, self._count, bits)
        fixed = self._anchors if kind == "anchors" else self._ability_estimate(kind)
        return lambda bits: fixed

    def _draw_evenly(self, bits: np.random.PCG64) -> WeightedItems:
        number = self._responses.shape[1]
        items, _ = draw_weighted(np.ones(number), self._count, bits)
        return WeightedItems(
            items=items,
            weights=np.full(self._count, 1.0 / self._count),
            offset=0.0,
        )

    @cached_property
    def _anchors(self) -> WeightedItems:
        return choose_anchors(self._responses, self._count, seed=self._seed)

    @cached_property
    def _curves(self) -> ItemCurves:
        return fit_item_curves(self._responses)

    def _ability_estimate(self, kind: Kind) -> AbilityEstimate:
        combined = kind == "mp_irt"
        dimensions = min(len(self._parents), MOST_DIMENSIONS) if combined else 1
        return AbilityEstimate(
            curves=fit_item_curves(self._responses, dimensions=dimensions, seed=self._seed)
            if combined
            else self._curves,
            anchors=self._anchors,
            parents=self._parents if combined else None,
            blend=measure_blend(self._responses, self._count) if kind == "gp_irt" else 0.0,
        )


def _kinds(responses: Responses, parents: Sequence[int]) -> tuple[Kind, ...]:
    """The kinds that these responses allow, from the simplest to the most elaborate."""
    kinds: tuple[Kind, ...] = ("random", "informative", "anchors")
    if are_binary(responses):
        kinds += ("p_irt", "gp_irt")
        if len(parents) >= 2:
            kinds += ("mp_irt",)
    return kinds


def _measure(
    kinds: Sequence[Kind],
    responses: Responses,
    known: NDArray[np.int64],
    count: int,
    *,
    seed: int,
    parents: Sequence[int],
) -> tuple[Measured, ...]:
    """Leave out a part of `known` at a time, and estimate their means by every kind."""
    squared = {kind: np.zeros(len(known)) for kind in kinds}
    agreed = dict.fromkeys(kinds, 0.0)
    pairs = dict.fromkeys(kinds, 0.0)
    for ordinal, fold in enumerate(_split_models(len(known))):
        left_out = known[fold]
        rest = np.setdiff1d(np.arange(len(responses)), left_out)
        places = np.searchsorted(rest, np.asarray(parents, dtype=np.int64)).tolist()
        estimators = _Estimators(responses[rest], count, seed=seed, parents=places)
        truth = responses[left_out].mean(axis=1)
        for kind in kinds:
            plan = estimators.plan(kind)
            draws = DRAWS if kind in FRESH else 1
            for number in range(draws):
                bits = np.random.PCG64(np.random.SeedSequence((seed, ordinal, number)))
                estimator = plan(bits)
                estimates = estimator.estimate(responses[left_out][:, estimator.items])
                squared[kind][fold] += (estimates - truth) ** 2 / draws
                same, counted = _count_pairs(estimates, truth)
                agreed[kind] += same
                pairs[kind] += counted
    return tuple(
        Measured(
            kind=kind,
            squared_errors=squared[kind],
            rank_agreement=agreed[kind] / pairs[kind] if pairs[kind] else math.nan,
        )
        for kind in kinds
    )


def _count_pairs(estimates: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Pairs in the same order less pairs in the other, and all pairs whose truth differs."""
    first, second = np.triu_indices(len(truth), k=1)
    true_order = np.sign(truth[first] - truth[second])
    return (
        float((np.sign(estimates[first] - estimates[second]) * true_order).sum()),
        float(np.abs(true_order).sum()),
    )


def _say_agreement(tau: float) -> str:
    return "rank agreement not known" if np.isnan(tau) else f"rank agreement {tau:.2f}"


def _split_models(number: int) -> list[NDArray[np.int64]]:
    """FOLDS parts of `number` models (fewer where there are fewer), models taken in turn."""
    folds = min(FOLDS, number)
    return [np.arange(fold, number, folds, dtype=np.int64) for fold in range(folds)]
