"""The outcome of a search, and what may honestly be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.candidate import CandidateKey
from evomerge.evaluate.intervals import Interval
from evomerge.recipe import Recipe, read_recipe
from evomerge.standing import Standing, read_standing


@dataclass(frozen=True, kw_only=True)
class ConstraintCheck:
    """What the winner made of a constraint on the test items."""

    task: str
    metric: str
    score: float
    wanted: float

    @property
    def kept(self) -> bool:
        """Whether the winner is at or above what was wanted."""
        return self.score >= self.wanted


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome of a search.

    validation: the finalists, best first. test: the winner first, then base, parents, baselines.
    gain: winner minus the best parent on the test items, paired over items; gain_over_soup: the
    same against the uniform soup. items: split -> task -> items scored.
    """

    winner: str
    recipe: Recipe
    genome: tuple[float, ...] | None
    test_key: CandidateKey  # the winner's record on the test items
    validation: tuple[Standing, ...]
    test: tuple[Standing, ...]
    best_parent: str
    gain: Interval
    gain_over_soup: Interval
    constraints: tuple[ConstraintCheck, ...]
    items: Mapping[str, Mapping[str, int]]

    @property
    def better(self) -> bool:
        """Whether the winner is above the best parent at all."""
        return self.gain.value > 0

    @property
    def settled(self) -> bool:
        """Whether the interval of the gain leaves out zero."""
        return self.gain.low > 0 or self.gain.high < 0

    def headline(self) -> str:
        """What was gained over which parent, in one honest sentence."""
        gain = f"{self.gain.value:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]"
        against = f"against the best parent ({self.best_parent}) on unseen test items"
        kept = all(check.kept for check in self.constraints)
        more = self._said_of_base() + ("" if kept else " A constraint is NOT KEPT.")
        if not self.better:
            return f"No gain: the winner ({self.winner}) scores {gain} {against}.{more}"
        if not self.settled:
            return f"Not settled: the winner ({self.winner}) scores {gain} {against}.{more}"
        return f"Gained {gain}: the winner ({self.winner}) {against}.{more}"

    def _said_of_base(self) -> str:
        """A gain over parents that are all below the base must not look like more than it is."""
        score_of = {(entry.role, entry.label): entry.score.value for entry in self.test}
        base = max((s for (role, _), s in score_of.items() if role == "base"), default=None)
        parents = [score for (role, _), score in score_of.items() if role == "parent"]
        if base is None or not parents or base <= max(parents):
            return ""
        winner = next(score for (role, _), score in score_of.items() if role == "winner")
        return f" The base alone scores {base:.3f}, above every parent; the winner {winner:.3f}."

    def lines(self) -> list[str]:
        """The outcome for a terminal: the headline, then the test scores."""
        width = max(len(entry.label) for entry in self.test)
        rows = [
            f"  {entry.label:<{width}}  {entry.score.value:.3f} "
            f"[{entry.score.low:.3f}, {entry.score.high:.3f}]  {entry.role}"
            for entry in self.test
        ]
        soup = self.gain_over_soup
        return [
            self.headline(),
            f"Against the uniform soup: {soup.value:+.3f} [{soup.low:+.3f}, {soup.high:+.3f}].",
            "Test scores with 95% intervals:",
            *rows,
            *(
                f"  constraint {check.task}/{check.metric}: {check.score:.3f}, wanted "
                f"{check.wanted:.3f}: {'kept' if check.kept else 'NOT KEPT'}"
                for check in self.constraints
            ),
        ]

    def standing(self, label: str) -> Standing:
        """A model's scores on the test items."""
        return next(entry for entry in self.test if entry.label == label)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_selection` reads back equal, and the headline in words."""
        return {**asdict(self), "recipe": self.recipe.to_yaml(), "headline": self.headline()}


def read_selection(document: Mapping[str, Any]) -> Selection:
    """The selection kept in a record (`study.noted("selection")`)."""
    genome = document["genome"]
    return Selection(
        winner=document["winner"],
        recipe=read_recipe(document["recipe"], where="the winner's recipe"),
        genome=None if genome is None else tuple(genome),
        test_key=CandidateKey(**document["test_key"]),
        validation=tuple(read_standing(entry) for entry in document["validation"]),
        test=tuple(read_standing(entry) for entry in document["test"]),
        best_parent=document["best_parent"],
        gain=Interval(**document["gain"]),
        gain_over_soup=Interval(**document["gain_over_soup"]),
        constraints=tuple(ConstraintCheck(**check) for check in document["constraints"]),
        items=document["items"],
    )
