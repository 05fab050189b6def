"""What is recorded of one candidate, and how an Optuna trial holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from evomerge.candidate import CandidateKey, Cost, Kind
from evomerge.recipe import Recipe, read_recipe


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A gene as people read it: its value between its bounds."""

    value: float
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate's record.

    score: the combined objective, higher is better; None when the candidate failed.
    means: task -> metric -> mean over the items used, or what a weighted sample of items makes of
    them; empty when it failed.
    items: how many items of each task it was scored on.
    genome: (n,) float64 in [0, 1]; None for baselines and what the space cannot express.
    parameters: gene -> value as people read it, in the order of the genome; empty without one.
    stage: of the job's searches, the number from 0 of the one that proposed it.
    """

    key: CandidateKey
    kind: Kind
    label: str
    recipe: Recipe
    genome: tuple[float, ...] | None
    score: float | None
    means: Mapping[str, Mapping[str, float]]
    items: Mapping[str, int]
    cost: Cost
    failure: str | None
    parameters: Mapping[str, float] = field(default_factory=dict)
    stage: int = 0


def attributes_of(trial: Trial) -> dict[str, Any]:
    """Few attributes: Optuna spends some 3 ms of Python on each."""
    return {
        "label": trial.label,
        "scores": {task: dict(means) for task, means in trial.means.items()},
        "candidate": {
            "generation": trial.key.generation,
            "place": trial.key.place,
            "kind": trial.kind,
            "stage": trial.stage,
            "score": trial.score,
            "genome": None if trial.genome is None else list(trial.genome),
            "items": dict(trial.items),
            "cost": asdict(trial.cost),
            "failure": trial.failure,
            "recipe": trial.recipe.to_yaml(),
        },
    }


def read_trial(frozen: FrozenTrial) -> Trial:
    """The record that an Optuna trial holds."""
    said = frozen.user_attrs["candidate"]
    key = CandidateKey(said["generation"], said["place"])
    genome = said["genome"]
    return Trial(
        key=key,
        kind=said["kind"],
        label=frozen.user_attrs["label"],
        recipe=read_recipe(said["recipe"], where=f"recipe of {key}"),
        genome=None if genome is None else tuple(genome),
        score=_score_of(frozen),
        means=frozen.user_attrs["scores"],
        items=said["items"],
        cost=Cost(**said["cost"]),
        failure=said["failure"],
        parameters=frozen.params,
        stage=said.get("stage", 0),
    )


def _score_of(frozen: FrozenTrial) -> float | None:
    """The combined score, which Optuna's own values are not where the axes are kept apart."""
    said = frozen.user_attrs["candidate"]
    if "score" in said:
        score: float | None = said["score"]
        return score
    return frozen.value if frozen.state == TrialState.COMPLETE else None
