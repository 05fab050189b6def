"""Item response theory: how likely a model solves an item, from its ability and the difficulty.

The two-parameter logistic model in one or more dimensions (Reckase 2009), as tinyBenchmarks uses it
(Maia Polo et al. 2024, section 4): P(y = 1) = sigmoid(a·θ - b), with discriminations a > 0. It is
fitted by maximum a posteriori to few models and many items, which the priors make possible:
θ ~ N(0, 1), log a ~ N(-log(D) / 2, 0.5²), b ~ N(m, 2²) with m fitted. Binary outcomes only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from evomerge.search.sampling.responses import (
    Responses,
    WeightedItems,
    are_binary,
    check_responses,
    whole_rows,
)

LOG_DISCRIMINATION_SPREAD = 0.5
DIFFICULTY_SPREAD = 2.0
_START_SPREAD = 0.3
"""Spread of the abilities in each dimension at the start, so that the dimensions can separate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemCurves:
    """A fitted model: discrimination (items, D), difficulty (items,), abilities (models, D)."""

    discrimination: NDArray[np.float64]
    difficulty: NDArray[np.float64]
    abilities: NDArray[np.float64]

    def predict(self, abilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (models, items) that models of these abilities (models, D) solve each."""
        return np.asarray(expit(abilities @ self.discrimination.T - self.difficulty))

    def estimate_abilities(
        self, outcomes: NDArray[np.float64], items: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Abilities (models, D) of models from outcomes (models, k) on `items`.

        Maximum a posteriori; the prior has the mean and covariance of the fitted models' abilities,
        widened by 0.1² so that a new model may be outside their range.
        """
        spread = np.atleast_2d(np.cov(self.abilities.T, bias=True))
        widened = spread + 0.01 * np.eye(self.abilities.shape[1])
        return _fit_logistic(
            outcomes,
            design=self.discrimination[items],
            intercept=-self.difficulty[items],
            centre=self.abilities.mean(axis=0),
            precision=np.asarray(np.linalg.inv(widened), dtype=np.float64),
        )

    def combine_abilities(
        self,
        outcomes: NDArray[np.float64],
        items: NDArray[np.int64],
        parents: NDArray[np.int64],
        *,
        spread: float = 2.0,
    ) -> NDArray[np.float64]:
        """Abilities (models, D) as weighted sums of the abilities of `parents`, fitted likewise.

        A merge's ability is assumed to be a linear combination of its parents' (Mencattini et al.
        2025, MERGE3, section 4). parents: rows of the fitted models. The weights have the prior
        N(1 / parents, spread²). In one dimension the sum can be any ability, so only the prior
        matters.
        """
        basis = self.abilities[parents]  # (parents, D)
        number = len(parents)
        weights = _fit_logistic(
            outcomes,
            design=self.discrimination[items] @ basis.T,
            intercept=-self.difficulty[items],
            centre=np.full(number, 1.0 / number),
            precision=np.eye(number) / spread**2,
        )
        return np.asarray(weights @ basis)


def fit_item_curves(responses: Responses, *, dimensions: int = 1, seed: int = 0) -> ItemCurves:
    """The two-parameter logistic model of binary responses (models, items), NaN where not scored.

    seed: for the start of a fit in more than one dimension. The fit ends where the posterior is
    stationary; its last bits may differ between machines. Raises ValueError where outcomes are not
    all 0 or 1.
    """
    check_responses(responses, models=2)
    if not are_binary(responses):
        raise ValueError(
            "responses: outcomes other than 0 and 1; item response theory needs 0 or 1"
        )
    models, items = responses.shape
    known = ~np.isnan(responses)
    scored = known.astype(np.float64)
    solved = np.where(known, responses, 0.0)
    split = np.cumsum([models * dimensions, items * dimensions, items])
    centre = -0.5 * np.log(dimensions)

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        abilities = values[: split[0]].reshape(models, dimensions)
        logs = values[split[0] : split[1]].reshape(items, dimensions)
        difficulty = values[split[1] : split[2]]
        mean = values[split[2]]
        slopes = np.exp(logs)
        logits = abilities @ slopes.T - difficulty
        fit = (solved * logits).sum() + (scored * log_expit(-logits)).sum()
        deviation = (logs - centre) / LOG_DISCRIMINATION_SPREAD**2
        offset = (difficulty - mean) / DIFFICULTY_SPREAD**2
        prior = 0.5 * (
            (abilities**2).sum()
            + (deviation * (logs - centre)).sum()
            + (offset * (difficulty - mean)).sum()
        )
        residual = solved - scored * expit(logits)
        gradient = np.concatenate(
            [
                (abilities - residual @ slopes).reshape(-1),
                (deviation - (residual.T @ abilities) * slopes).reshape(-1),
                residual.sum(axis=0) + offset,
                [-offset.sum()],
            ]
        )
        return float(prior - fit), gradient

    start = np.concatenate(
        [
            _first_abilities(solved, scored, dimensions, seed).reshape(-1),
            np.full(items * dimensions, centre),
            -_logit(solved.sum(axis=0) + 1.0, scored.sum(axis=0) + 2.0),
            [0.0],
        ]
    )
    options = {"maxiter": 500, "ftol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return ItemCurves(
        abilities=found[: split[0]].reshape(models, dimensions),
        discrimination=np.exp(found[split[0] : split[1]].reshape(items, dimensions)),
        difficulty=found[split[1] : split[2]],
    )


def _first_abilities(
    solved: NDArray[np.float64], scored: NDArray[np.float64], dimensions: int, seed: int
) -> NDArray[np.float64]:
    """Logits of each model's share of solved items, centred at 0, with noise in each dimension."""
    ability = _logit(solved.sum(axis=1) + 1.0, scored.sum(axis=1) + 2.0)
    abilities = np.repeat((ability - ability.mean())[:, None], dimensions, axis=1)
    if dimensions > 1:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        abilities += _START_SPREAD * generator.standard_normal(abilities.shape)
    return np.asarray(abilities)


def _logit(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(part / (whole - part)))


def _fit_logistic(
    outcomes: NDArray[np.float64],
    *,
    design: NDArray[np.float64],
    intercept: NDArray[np.float64],
    centre: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coefficients (models, p) of logistic regressions of outcomes (models, k), Gaussian prior.

    design: (k, p). Newton's method, all models at once; the posterior is concave, and a step that
    does not raise it is halved.
    """
    coefficients = np.repeat(centre[None, :], len(outcomes), axis=0)

    def loss(values: NDArray[np.float64]) -> NDArray[np.float64]:
        logits = values @ design.T + intercept
        away = values - centre
        fit = (outcomes * logits + log_expit(-logits)).sum(axis=1)
        return np.asarray(0.5 * np.einsum("mp,pq,mq->m", away, precision, away) - fit)

    current = loss(coefficients)
    for _ in range(50):
        solved = expit(coefficients @ design.T + intercept)
        gradient = (coefficients - centre) @ precision - (outcomes - solved) @ design
        curvature = np.einsum("mk,kp,kq->mpq", solved * (1.0 - solved), design, design) + precision
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        size = np.ones((len(outcomes), 1))
        for _ in range(20):
            reached = loss(coefficients - size * step)
            worse = reached > current
            if not worse.any():
                break
            size[worse] *= 0.5
        step = np.where((reached > current)[:, None], 0.0, size * step)
        coefficients = coefficients - step
        current = np.minimum(reached, current)
        if float(np.abs(step).max()) < 1e-9:
            break
    return coefficients


# Estimates of a model's mean over all items from its ability and its outcomes on a few items.
#
# Three ways: p-IRT takes the few outcomes as they are and predicts the rest; gp-IRT blends that
# with the weighted anchors (both Maia Polo et al. 2024, section 4); in mp-IRT the ability is a
# combination of the parents' (Mencattini et al. 2025, MERGE3).


MOST_DIMENSIONS = 3
"""Most dimensions of abilities where the parents' are combined; few models can fit no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AbilityEstimate:
    """Items to score, and the estimate that item response theory makes of their outcomes.

    parents: rows of the fitted models whose abilities are combined, or None for a free ability.
    blend: share of the weighted anchors in the estimate, the rest being p-IRT (or mp-IRT).
    """

    curves: ItemCurves
    anchors: WeightedItems
    parents: NDArray[np.int64] | None
    blend: float

    @property
    def items(self) -> NDArray[np.int64]:
        """(k,) int64, sorted and unique."""
        return self.anchors.items

    def estimate(self, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates (models,) of the mean over all items, of 0 or 1 outcomes (models, k)."""
        if self.parents is None:
            abilities = self.curves.estimate_abilities(outcomes, self.items)
        else:
            abilities = self.curves.combine_abilities(outcomes, self.items, self.parents)
        predicted = self.curves.predict(abilities)
        predicted[:, self.items] = outcomes
        theory = predicted.mean(axis=1)
        return np.asarray(self.blend * self.anchors.estimate(outcomes) + (1 - self.blend) * theory)


def measure_blend(responses: Responses, count: int, *, dimensions: int = 1) -> float:
    """gp-IRT's share of the anchors, b² / (b² + v / (4 count)), as tinyBenchmarks sets it.

    b: mean absolute error of the predicted means of left-out models. Every fifth model that was
    scored on all items is left out of the fit; its ability is estimated on every other item, and
    its mean over the remaining items is predicted. v: mean variance of a model's outcomes; anchors
    are assumed to leave a quarter of it.
    """
    left_out = whole_rows(responses)[::5]
    curves = fit_item_curves(np.delete(responses, left_out, axis=0), dimensions=dimensions)
    seen = np.arange(0, responses.shape[1], 2)
    unseen = np.arange(1, responses.shape[1], 2)
    outcomes = responses[left_out]
    predicted = curves.predict(curves.estimate_abilities(outcomes[:, seen], seen))[:, unseen]
    errors = predicted.mean(axis=1) - outcomes[:, unseen].mean(axis=1)
    bias = float(np.abs(errors).mean())
    variance = float(np.nanvar(responses, axis=1).mean())
    return bias**2 / (bias**2 + variance / (4 * count)) if bias > 0.0 else 0.0
