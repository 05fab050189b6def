"""The outcome of a search in `mode: single`: a winner, and what may be claimed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.evaluate import CandidateKey, Interval, Role, ScoreSummary, read_summary
from evomerge.recipe import Recipe, read_recipe
from evomerge.search.results.claim import (
    START_ROLES,
    Comparison,
    LeftOut,
    Verdict,
    deciding,
    interval_words,
    read_comparison,
    seen_words,
    settling_words,
    test_items_words,
    verdict_of,
)

_KINDS: dict[Role, tuple[str, str]] = {
    "base": ("the base itself", "a model that you had already"),
    "parent": ("a parent", "a model that you had already"),
    "baseline": ("a merge without a search", "that untuned merge"),
}
"""For a winner that is a start: what it is, and what an export of it is."""


@dataclass(frozen=True, kw_only=True)
class ConstraintCheck:
    """The winner's score for a constraint on the test items."""

    task: str
    metric: str
    score: float
    wanted: float

    @property
    def kept(self) -> bool:
        """Whether the score is at or above the wanted one."""
        return self.score >= self.wanted


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome of a search.

    origin: the winner's role before it won. validation: the finalists, best first. test: the
    winner first, then base, parents, baselines. items: split -> task -> items scored.

    gain: winner minus the best parent on the test items, paired over items. gain_over_soup: the
    same against the uniform soup. comparisons: the same against every other model on the test
    items. All their intervals hold together, so the best parent may be chosen on the same items.
    on_validation: the winner minus the best start on the validation items, adjusted for all
    candidates there; None for a winner that is a start. best_start, best_untuned: the best start
    and the best untuned merge on the validation items. feasible: whether the winner kept the
    constraints on the validation items; if it did not, no model did. left_out: models that could
    not be scored. objective_items: number of test items over all objectives. tested_before: number
    of earlier selections, before the search was extended, that scored models on these test items.
    """

    winner: str
    recipe: Recipe
    genome: tuple[float, ...] | None
    test_key: CandidateKey  # the winner's record on the test items
    validation: tuple[ScoreSummary, ...]
    test: tuple[ScoreSummary, ...]
    best_parent: str
    gain: Interval
    gain_over_soup: Interval | None
    constraints: tuple[ConstraintCheck, ...]
    items: Mapping[str, Mapping[str, int]]
    origin: Role = "finalist"
    comparisons: tuple[Comparison, ...] = ()
    on_validation: Comparison | None = None
    best_start: str | None = None
    best_untuned: str | None = None
    feasible: bool = True
    left_out: tuple[LeftOut, ...] = ()
    objective_items: int = 0
    tested_before: int = 0

    @property
    def found(self) -> bool:
        """Whether the search found the winner; if not, the winner is a start."""
        return self.origin not in START_ROLES

    @property
    def verdict(self) -> Verdict:
        """What may be claimed: a gain only over every parent and over the best start.

        There is no gain for a winner that is a start itself, or that breaks a constraint.
        """
        if not self.found or not self.feasible:
            return "no gain"
        intervals = [
            entry.difference.interval for entry in deciding(self.comparisons, self.best_start)
        ]
        return verdict_of(intervals or [self.gain])

    @property
    def better(self) -> bool:
        """Whether the winner is above every parent and the best start at all."""
        return self.verdict != "no gain"

    def headline(self) -> str:
        """What was gained over which parent, in sentences; the first gives the verdict."""
        return " ".join([self._claim(), *self._besides()])

    def _claim(self) -> str:
        on = f"on {test_items_words(self.tested_before)}"
        against = f"against the best parent ({self.best_parent}) {on}"
        if self.summary(self.best_parent).role not in ("parent", "winner"):
            against = f"against {self.best_parent} (no parent could be scored) {on}"
        gain = f"{interval_words(self.gain)} {against}"
        if not self.feasible:
            return (
                "No gain: nothing keeps the constraints on the validation items; the winner "
                f"({self.winner}), which comes nearest, scores {gain}."
            )
        if not self.found:
            kind, export = _KINDS[self.origin]
            scores = f" that scores {gain}" if self.origin == "baseline" else ""
            return (
                f"No gain: no candidate is better on the validation items than {self.winner}, "
                f"{kind}{scores}; an export is {export}."
            )
        start = self._start_sentence()
        if self.verdict == "no gain":
            return f"No gain: the winner ({self.winner}) scores {gain}{start}."
        if self.verdict == "not settled":
            return f"Not settled: the winner ({self.winner}) scores {gain}{start}."
        return f"Gained {interval_words(self.gain)}: the winner ({self.winner}) {against}{start}."

    def _start_sentence(self) -> str:
        """Words on the best start, which a gain must hold over too; empty where it is a parent."""
        start = self.compared(self.best_start)
        if start is None or start.role == "parent":
            return ""
        words = interval_words(start.difference.interval)
        return f", and {words} against the best that the search began with ({start.label})"

    def _besides(self) -> list[str]:
        """Sentences with what a reader of the first sentence alone would miss."""
        settling = self.settling() if self.found else ""
        untuned = self.compared(self.best_untuned)
        above = untuned is not None and untuned.difference.interval.value < 0.0
        sentences = [
            settling,
            f"The untuned merge {self.best_untuned} scores "
            f"{self.summary(self.best_untuned).score.value:.3f}, above the winner."
            if above and self.best_untuned is not None and self.best_untuned != self.best_start
            else "",
            *(f"Left out: {out}." for out in self.left_out if out.role == "winner"),
            "" if all(check.kept for check in self.constraints) else "A constraint is NOT KEPT.",
            self._base_sentence(),
        ]
        return [sentence for sentence in sentences if sentence]

    def _base_sentence(self) -> str:
        """A sentence on a base that is above every parent, so that a gain is not overrated."""
        score_of = {(entry.role, entry.label): entry.score.value for entry in self.test}
        base = max((s for (role, _), s in score_of.items() if role == "base"), default=None)
        parents = [score for (role, _), score in score_of.items() if role == "parent"]
        if base is None or not parents or base <= max(parents) or self.origin == "base":
            return ""
        winner = next(score for (role, _), score in score_of.items() if role == "winner")
        return f"The base alone scores {base:.3f}, above every parent; the winner {winner:.3f}."

    def settling(self) -> str:
        """How many test items would settle the claim, in a sentence; empty where it is settled."""
        return settling_words(deciding(self.comparisons, self.best_start), self.objective_items)

    def remarks(self) -> list[str]:
        """What else the outcome depends on, in sentences: validation scores, models left out."""
        sentences = [seen_words(self.tested_before)] if self.tested_before else []
        if self.on_validation is not None:
            count = sum(entry.role not in START_ROLES for entry in self.validation)
            difference = self.on_validation.difference
            sentences.append(
                f"On the validation items the winner is {interval_words(difference.interval)} "
                f"against {self.on_validation.label}, the best that the search began with "
                f"(adjusted p {difference.p:.2g}, for {count} candidates compared there)."
            )
        if self.comparisons:
            sentences.append(
                "All intervals of the differences on the test items hold together, with "
                f"{self.gain.confidence:.0%} confidence."
            )
        return [*sentences, *(f"Left out: {out}." for out in self.left_out if out.role != "winner")]

    def lines(self) -> list[str]:
        """The outcome for a terminal: the headline, the remarks, then the test scores."""
        width = max(len(entry.label) for entry in self.test)
        roles = max(len(entry.role) for entry in self.test)
        rows = []
        for entry in self.test:
            row = (
                f"  {entry.label:<{width}}  {entry.score.value:.3f} "
                f"[{entry.score.low:.3f}, {entry.score.high:.3f}]  {entry.role}"
            )
            compared = None if entry.label == self.winner else self.compared(entry.label)
            if compared is not None:
                gap = " " * (roles - len(entry.role))
                row += f"{gap}  {interval_words(compared.difference.interval)}"
            rows.append(row)
        beside = ", and the winner minus each" if self.comparisons else ""
        return [
            self.headline(),
            *self.remarks(),
            f"Test scores with 95% intervals{beside}:",
            *rows,
            *(
                f"  constraint {check.task}/{check.metric}: {check.score:.3f}, wanted "
                f"{check.wanted:.3f}: {'kept' if check.kept else 'NOT KEPT'}"
                for check in self.constraints
            ),
        ]

    def export_command(self, run_dir: Path, program: str = "evomerge") -> str:
        """The command that exports the winner."""
        return f"{program} export {run_dir} --out DIR"

    def summary(self, label: str) -> ScoreSummary:
        """A model's scores on the test items."""
        return next(entry for entry in self.test if entry.label == label)

    def compared(self, label: str | None) -> Comparison | None:
        """The winner minus a model on the test items; None where there is no such comparison."""
        return next((entry for entry in self.comparisons if entry.label == label), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_selection` reads back equal, and the headline in words."""
        return {**asdict(self), "recipe": self.recipe.to_yaml(), "headline": self.headline()}


def read_selection(document: Mapping[str, Any]) -> Selection:
    """The selection kept in a record under `study.notes.SELECTION`."""
    genome, soup = document["genome"], document["gain_over_soup"]
    on_validation = document["on_validation"]
    return Selection(
        winner=document["winner"],
        recipe=read_recipe(document["recipe"], where="the winner's recipe"),
        genome=None if genome is None else tuple(genome),
        test_key=CandidateKey(**document["test_key"]),
        validation=tuple(read_summary(entry) for entry in document["validation"]),
        test=tuple(read_summary(entry) for entry in document["test"]),
        best_parent=document["best_parent"],
        gain=Interval(**document["gain"]),
        gain_over_soup=None if soup is None else Interval(**soup),
        constraints=tuple(ConstraintCheck(**check) for check in document["constraints"]),
        items=document["items"],
        origin=document["origin"],
        comparisons=tuple(read_comparison(entry) for entry in document["comparisons"]),
        on_validation=None if on_validation is None else read_comparison(on_validation),
        best_start=document["best_start"],
        best_untuned=document["best_untuned"],
        feasible=document["feasible"],
        left_out=tuple(LeftOut(**entry) for entry in document["left_out"]),
        objective_items=document["objective_items"],
        tested_before=document["tested_before"],
    )
