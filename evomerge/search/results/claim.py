"""What a winner is compared with, and what may be claimed from the comparisons.

A gain is claimed only if the winner beats every parent and the best start. The starts are the
models that a search begins with: the base, the parents and untuned merges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evomerge.evaluate import Difference, Interval, Role, Split, read_difference

START_ROLES: tuple[Role, ...] = ("base", "parent", "baseline")
"""Roles of the models that a search begins with, its starts."""

Verdict = Literal["gained", "not settled", "no gain"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The winner minus one other model on the same items, adjusted for its family."""

    label: str
    role: Role
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_comparison` reads back equal."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A model that could not be scored on a split and is missing from the outcome.

    role: `winner` for a model that would have won.
    """

    label: str
    role: Role
    split: Split
    reason: str

    def __str__(self) -> str:
        return f"{self.label}, which could not be scored on the {self.split} items: {self.reason}"


def read_comparison(entry: Mapping[str, Any]) -> Comparison:
    """A comparison kept as JSON."""
    return Comparison(
        label=entry["label"],
        role=entry["role"],
        difference=read_difference(entry["difference"]),
    )


def deciding(comparisons: Sequence[Comparison], best_start: str | None) -> list[Comparison]:
    """The comparisons that a gain must hold in, the least favourable first."""
    found = [entry for entry in comparisons if entry.role == "parent" or entry.label == best_start]
    return sorted(found, key=lambda entry: entry.difference.interval.low)


def verdict_of(intervals: Sequence[Interval]) -> Verdict:
    """What may be claimed from the intervals of all deciding differences."""
    if any(interval.value <= 0.0 for interval in intervals):
        return "no gain"
    return "gained" if all(interval.low > 0.0 for interval in intervals) else "not settled"


def settling_words(comparisons: Sequence[Comparison], items: int) -> str:
    """How many test items would settle the open comparisons, in words; empty where none is open.

    items: the test items that there are, over all objectives.
    """
    wanted = [
        entry.difference.items_to_settle(items)
        for entry in comparisons
        if not entry.difference.settled
    ]
    if not wanted:
        return ""
    if None in wanted:
        return f"No number of test items settles a difference of 0; there were {items:,}."
    most = max(count for count in wanted if count is not None)
    return (
        f"About {most:,} test items would settle a difference of this size; there were {items:,}."
    )


def test_items_words(tested_before: int) -> str:
    """What the test items are called after so many earlier selections of a search."""
    return "test items that were seen before" if tested_before else "unseen test items"


def seen_words(tested_before: int) -> str:
    """How the test items were seen before, in a sentence; empty where they were not."""
    if not tested_before:
        return ""
    selections = "1 selection" if tested_before == 1 else f"{tested_before} selections"
    return (
        f"The test items were seen before: {selections} of this search scored models on them, and "
        "then the search was extended."
    )


def interval_words(interval: Interval) -> str:
    """A difference with its interval."""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
