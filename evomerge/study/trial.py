"""The record of one candidate, and how an Optuna trial stores it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from evomerge.evaluate import CandidateKey, Cost, Kind, TaskItems
from evomerge.recipe import Recipe, read_recipe

ATTRIBUTES = ("label", "scores", "candidate")
"""Attributes of an Optuna trial that store a record."""

DIGESTS = "sha256"
"""The attribute with the digests of the other attributes and of the parameters."""

T = TypeVar("T")


class Late(Generic[T]):
    """A field that may be given as a function, which is called when the field is first read.

    A search has thousands of trials, and most readers need neither recipes nor parameters.
    default: makes the value of a field that is not given.
    """

    def __init__(self, default: Callable[[], T] | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, of: object | None, owner: type | None = None) -> T:
        if of is None:  # the dataclass looks for the field's default
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
    means: task -> metric -> mean over the items used, or an estimate from a weighted sample of
    items; empty when it failed.
    items: how many items of each task it was scored on.
    genome: (n,) float64 in [0, 1]; None for baselines and recipes that the space cannot express.
    parameters: gene -> value for people, in the order of the genome; empty without a genome.
    stage: number of the job's search that proposed it, from 0.
    results: digest of its item results; None if it failed, and in old records without digests.
    answers: digest of the answers that are kept of it; None if none are.
    blocks: digests of its results block by block, up to the block where it failed; None if it was
    scored in one piece, or if that is not known.
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
    answers: str | None = None
    blocks: tuple[str, ...] | None = None

    @property
    def item_count(self) -> int:
        """Items it was scored on, over all tasks."""
        return sum(self.items.values())


def attributes_of(trial: Trial) -> dict[str, Any]:
    """The attributes of an Optuna trial; few, because Optuna takes some 3 ms for each."""
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
            **({} if trial.answers is None else {"answers": trial.answers}),
        },
    }


def read_trial(
    attributes: Mapping[str, Any],
    *,
    values: Sequence[float],
    parameters: Callable[[], Mapping[str, float]],
) -> Trial:
    """The record that an Optuna trial stores.

    values: the trial's values in Optuna. parameters: reads the parameters when they are needed.
    """
    stored = attributes["candidate"]
    key = CandidateKey(stored["generation"], stored["place"])
    genome, blocks = stored["genome"], stored["blocks"]
    return Trial(
        key=key,
        kind=stored["kind"],
        label=attributes["label"],
        recipe=lambda: read_recipe(stored["recipe"], where=f"recipe of {key}"),
        genome=None if genome is None else tuple(genome),
        score=stored["score"],
        means=attributes["scores"],
        items=stored["items"],
        cost=Cost(**stored["cost"]),
        failure=stored["failure"],
        parameters=parameters,
        stage=stored["stage"],
        results=stored["results"],
        answers=stored.get("answers"),
        blocks=None if blocks is None else tuple(blocks),
    )


# Digests of the record's contents, so that damage is noticed on reading.
#
# They are computed from the stored text, or from the item results, never from the bytes of a file.
# So the same results have the same digest if another version of a library writes them.


_DIGEST, _VALUE = "sha256", "value"


def digest_text(*parts: str) -> str:
    """The digest of texts without line breaks, for example JSON, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_items(tasks: Mapping[str, TaskItems]) -> str:
    """The digest of item results, exact to the last bit."""
    rows = [
        [task, list(items.ids), [[m, [float(v) for v in vs]] for m, vs in items.metrics.items()]]
        for task, items in tasks.items()
    ]
    return digest_text(json.dumps(rows))


def digest_result(state: str, values: Sequence[float], attributes: Sequence[str]) -> str:
    """The digest of a trial without its parameters; attributes: as JSON."""
    return digest_text(json.dumps([state, list(values)]), *attributes)


def digest_parameters(rows: Sequence[tuple[str, float, str]]) -> str:
    """The digest of a trial's parameters: name, value, and the distribution as JSON."""
    return digest_text(json.dumps([list(row) for row in rows]))


def sealed(value: Any) -> dict[str, Any]:
    """A JSON value with its digest, which `unsealed` checks."""
    return {_DIGEST: digest_text(json.dumps(value)), _VALUE: value}


def is_sealed(document: Any) -> bool:
    """Whether a document is a value with its digest."""
    return isinstance(document, dict) and set(document) == {_DIGEST, _VALUE}


def unsealed(document: Mapping[str, Any]) -> Any:
    """The value that was sealed. Raises ValueError if it has changed."""
    if digest_text(json.dumps(document[_VALUE])) != document[_DIGEST]:
        raise ValueError("a digest does not fit")
    return document[_VALUE]
