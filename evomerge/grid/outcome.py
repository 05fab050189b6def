"""What a grid came to: normalised scores of every method and number of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evomerge.evaluate.intervals import Interval

Role = Literal["base", "expert", "merge"]


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """Normalised scores of one model; None where no task has one.

    held_in: mean over the tasks of its experts, each divided by its own expert's score. held_out:
    mean over the held-out tasks, each divided by the base's score.
    """

    held_in: Interval | None
    held_out: Interval | None


@dataclass(frozen=True, kw_only=True)
class ModelOutcome:
    """A model alone, or a cell.

    experts: names of those it is merged of. candidate: its key in the record. means: task -> metric
    -> score as it is; empty where it failed, for the reason in `failure`.
    """

    label: str
    role: Role
    method: str
    experts: tuple[str, ...]
    seed: int | None
    candidate: str
    means: Mapping[str, Mapping[str, float]]
    normalised: Normalised
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method with a number of experts: its merges over subsets and seeds, averaged.

    normalised: means over the merges, with 95% intervals for what other items would have said, the
    merges being these. spread_*: standard deviation of the merges' own scores; None below two.
    """

    method: str
    experts: int
    merges: int
    failed: int
    normalised: Normalised
    spread_held_in: float | None
    spread_held_out: float | None


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """The whole outcome; models: the base and the experts alone, then every merge.

    items: task -> how many items each model was scored on. held_in: metric -> the expert that it is
    divided by. held_out: metrics that are divided by the base's. notes: what is left out and why.
    """

    name: str
    split: str
    items: Mapping[str, int]
    held_in: Mapping[str, str]
    held_out: tuple[str, ...]
    models: tuple[ModelOutcome, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs; the field names are those of these classes."""
        return asdict(self)
