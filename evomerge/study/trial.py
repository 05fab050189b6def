"""What is recorded of one candidate, and how an Optuna trial holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from evomerge.evaluate import CandidateKey, Cost, Kind, TaskItems
from evomerge.recipe import Recipe, read_recipe

ATTRIBUTES = ("label", "scores", "candidate")
"""Attributes of an Optuna trial that hold a record."""

DIGESTS = "sha256"
"""The attribute that holds the digests of the others and of the parameters."""

T = TypeVar("T")


class Late(Generic[T]):
    """A field that may be given as a function, which is called when the field is first read.

    A search has thousands of trials, and most readers want neither recipes nor parameters.
    default: makes the value of a field that is not given.
    """

    def __init__(self, default: Callable[[], T] | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, of: object | None, owner: type | None = None) -> T:
        if of is None:  # asked by the dataclass for the field's default
            if self._default is None:
                raise AttributeError(self._name)
            return self._default  # type: ignore[return-value]
        value = vars(of)[self._name]
        if callable(value):
            value = vars(of)[self._name] = value()
        found: T = value
        return found

    def __set__(self, of: object, value: T | Callable[[], T]) -> None:
        vars(of)[self._name] = value


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
    results: digest of its item results; None where it failed, and in a record of before there were
    digests. blocks: digests of what it was scored on block by block, of one that failed the blocks
    before; None where it was scored at once, or nobody knows.
    """

    key: CandidateKey
    kind: Kind
    label: str
    recipe: Late[Recipe] = Late()
    genome: tuple[float, ...] | None
    score: float | None
    means: Mapping[str, Mapping[str, float]]
    items: Mapping[str, int]
    cost: Cost
    failure: str | None
    parameters: Late[Mapping[str, float]] = Late(dict)
    stage: int = 0
    results: str | None = None
    blocks: tuple[str, ...] | None = None

    @property
    def item_count(self) -> int:
        """Items it was scored on, over all tasks."""
        return sum(self.items.values())


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
            "results": trial.results,
            "blocks": None if trial.blocks is None else list(trial.blocks),
        },
    }


def read_trial(
    attributes: Mapping[str, Any],
    *,
    values: Sequence[float],
    parameters: Callable[[], Mapping[str, float]],
) -> Trial:
    """The record that an Optuna trial holds.

    values: Optuna's own of the trial. parameters: reads them when they are asked for.
    """
    said = attributes["candidate"]
    key = CandidateKey(said["generation"], said["place"])
    genome, blocks = said["genome"], said["blocks"]
    return Trial(
        key=key,
        kind=said["kind"],
        label=attributes["label"],
        recipe=lambda: read_recipe(said["recipe"], where=f"recipe of {key}"),
        genome=None if genome is None else tuple(genome),
        score=said["score"],
        means=attributes["scores"],
        items=said["items"],
        cost=Cost(**said["cost"]),
        failure=said["failure"],
        parameters=parameters,
        stage=said["stage"],
        results=said["results"],
        blocks=None if blocks is None else tuple(blocks),
    )


# Digests of what a record keeps, so that damage is noticed where it is read.
#
# They are taken of the very text that is kept, or of item results as they are, never of the bytes
# of a file: the same results written by other versions of a library have the same digest.


_DIGEST, _VALUE = "sha256", "value"


def digest_text(*parts: str) -> str:
    """Of texts without line breaks, such as JSON, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_items(tasks: Mapping[str, TaskItems]) -> str:
    """Of item results, to the last bit."""
    rows = [
        [task, list(items.ids), [[m, [float(v) for v in vs]] for m, vs in items.metrics.items()]]
        for task, items in tasks.items()
    ]
    return digest_text(json.dumps(rows))


def digest_result(state: str, values: Sequence[float], attributes: Sequence[str]) -> str:
    """Of what a trial says, but for its parameters; the attributes as JSON."""
    return digest_text(json.dumps([state, list(values)]), *attributes)


def digest_parameters(rows: Sequence[tuple[str, float, str]]) -> str:
    """Of a trial's parameters: name, value, and the distribution as JSON."""
    return digest_text(json.dumps([list(row) for row in rows]))


def sealed(value: Any) -> dict[str, Any]:
    """A JSON value with its digest, which `unsealed` checks."""
    return {_DIGEST: digest_text(json.dumps(value)), _VALUE: value}


def is_sealed(document: Any) -> bool:
    """Whether a value was kept with its digest."""
    return isinstance(document, dict) and set(document) == {_DIGEST, _VALUE}


def unsealed(document: Mapping[str, Any]) -> Any:
    """The value that was sealed. Raises ValueError where it is not what it was."""
    if digest_text(json.dumps(document[_VALUE])) != document[_DIGEST]:
        raise ValueError("a digest does not fit")
    return document[_VALUE]
