"""What every result of a search has, whether its record is here or on a server."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.tables import score_table
from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, ScoreSummary, Split
from evomerge.job import JobSpec
from evomerge.recipe import Recipe
from evomerge.search import Front, Point, SearchOutcome, Selection, Verdict

if TYPE_CHECKING:
    import pandas

    from evomerge.export import ExportReport


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The winner minus the best parent on the test items.

    value, low, high: the difference of the combined scores and its interval. against: the best
    parent. settled: whether the winner is surely above every parent and above the best model that
    the search began with; if not, no gain may be claimed.
    """

    value: float
    low: float
    high: float
    confidence: float
    against: str
    settled: bool

    def __str__(self) -> str:
        text = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}] against {self.against}"
        return text if self.settled else f"{text}, not settled"


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The winner of a search.

    label: its name before it won. candidate: its record on the test items. genome: (n,) float64 in
    [0, 1]; None if the search space cannot express it. scores: on the test items.
    """

    label: str
    candidate: CandidateKey
    recipe: Recipe
    genome: tuple[float, ...] | None
    scores: ScoreSummary


class BaseResult(ABC):
    """The state of a search by its record.

    run_dir: the folder of the record; of a search on a server the id of its job, which stands for
    the folder there. job: as it runs. outcome: None before the search has ended. candidates: how
    many the optimiser has recorded.
    """

    def __init__(
        self, *, run_dir: Path, job: JobSpec, outcome: SearchOutcome | None, candidates: int
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self.outcome = outcome
        self.candidates = candidates

    @property
    def finished(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not None

    @property
    def better(self) -> bool:
        """Whether the outcome is above the best parent (or above the parents' front) at all."""
        return self.outcome is not None and self.outcome.better

    @property
    def verdict(self) -> Verdict | None:
        """ "gained", "not settled" or "no gain"; None before the search has ended."""
        return None if self.outcome is None else self.outcome.verdict

    @property
    def headline(self) -> str:
        """The outcome in words; a gain is claimed only if it is settled."""
        if self.outcome is None:
            return f"Not finished: {self.candidates} candidates are recorded."
        return self.outcome.headline()

    @property
    def lines(self) -> list[str]:
        """The outcome as the command line prints it; the headline alone before the end."""
        return [self.headline] if self.outcome is None else self.outcome.lines()

    @property
    def gain(self) -> Gain | None:
        """Winner minus best parent; None before the end, and for a front (see `outcome.gain`)."""
        if not isinstance(self.outcome, Selection):
            return None
        interval = self.outcome.gain
        return Gain(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            confidence=interval.confidence,
            against=self.outcome.best_parent,
            settled=self.outcome.verdict == "gained",
        )

    @property
    def winner(self) -> Winner:
        """The winner. Raises RunError before the search has ended, and if it has a front."""
        if isinstance(self.outcome, Front):
            raise RunError(f"{self.run_dir}: it ended with a front; see `front`")
        if self.outcome is None:
            raise RunError(f"{self.run_dir}: the search has not ended; see evomerge.resume")
        return Winner(
            label=self.outcome.winner,
            candidate=self.outcome.test_key,
            recipe=self.outcome.recipe,
            genome=self.outcome.genome,
            scores=self.outcome.test[0],
        )

    @property
    def front(self) -> tuple[Point, ...]:
        """The points of the front, the worst on the first axis first; empty for one winner."""
        return self.outcome.points if isinstance(self.outcome, Front) else ()

    def scores(self) -> pandas.DataFrame:
        """Test scores: a row a model, columns (task/metric, value | low | high), 95% intervals.

        "score" is the combined objective. A model may have two rows: as the winner, and with its
        earlier name. Empty before the search has ended.
        """
        return score_table(self.tested)

    @abstractmethod
    def recipe(
        self, *, trial: str | CandidateKey | None = None, point: str | None = None
    ) -> Recipe:
        """The recipe of the winner, of a candidate, or of a point of the front.

        Args:
            trial: a candidate instead of the winner, for example "g0012-i003".
            point: of a front: a name, weights ("TASK=0.7,OTHER=0.3") or bounds ("TASK>=0.9").

        Raises:
            RunError: there is no such recipe.
        """

    @abstractmethod
    def trials_dataframe(self) -> pandas.DataFrame:
        """A row for each candidate, in the order of generation and place, finalists first.

        Scores are on the candidate's own items. `task/metric` columns have the means, `gene: NAME`
        columns the readable values of genes.
        """

    @abstractmethod
    def items_dataframe(
        self, candidates: str | CandidateKey | Iterable[str | CandidateKey] | None = None
    ) -> pandas.DataFrame:
        """A row for each result on an item: candidate, task, item, metric, value.

        candidates: one or some (as `trials_dataframe` names them); all if not given. Raises
        RunError if a candidate is not recorded, or its item results are lost or damaged.
        """

    @abstractmethod
    def answers(
        self,
        models: str | Iterable[str] = (),
        *,
        lost: bool = False,
        gained: bool = False,
        differ: bool = False,
        task: str | None = None,
        item: int | None = None,
        split: Split | None = None,
    ) -> pandas.DataFrame:
        """What models answered: a row for each item and model; lost items first, then gained ones.

        Answers of the baselines and of the models of the final selection are kept.

        Args:
            models: labels, names of candidates, or `winner`, `front`, `parents`, `soup`, `base`; by
                default the winner (or a point of the front), its parents and the uniform soup. The
                first is compared with the best parent if that is shown, or else with the second.
            lost: only items on which the first scores less.
            gained: only items on which the first scores more.
            differ: only items on which the models do not all score the same.
            task: only this task, or group of tasks.
            item: only the item with this number.
            split: the items; by default the test items of an ended search, or else the search items
                of the baselines.

        Returns:
            Columns task, item, metric, change, model, role, candidate, value, answer, characters,
            tokens, cut, loglikelihoods, prompt, target, choices. cut: whether the answer was cut
            off at the token limit; None where that is not known.

        Raises:
            RunError: there is no such model, task or item, or no answers of it are kept.
        """

    @abstractmethod
    def export(
        self,
        out: str | Path,
        *,
        verify: bool = False,
        trial: str | CandidateKey | None = None,
        point: str | None = None,
        as_adapter: bool = False,
        rank: int | None = None,
        push: str | None = None,
        public: bool = False,
    ) -> ExportReport:
        """Write the winner, or a point of the front; see `evomerge.export`."""

    @abstractmethod
    def report(self, out: str | Path | None = None) -> Path:
        """Write one HTML file that shows the whole search; see `evomerge.report`."""

    @property
    def tested(self) -> tuple[ScoreSummary, ...]:
        """The models that were scored on the test items; none before the search has ended."""
        if isinstance(self.outcome, Selection):
            return self.outcome.test
        if isinstance(self.outcome, Front):
            return (*(point.test for point in self.outcome.points), *self.outcome.rivals)
        return ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.run_dir}: {self.headline}>"

    def _repr_html_(self) -> str:
        """For notebooks: the headline and the test scores."""
        head = f"<p><b>{html.escape(self.job.name)}</b>: {html.escape(self.headline)}</p>"
        rows = "".join(
            "<tr>"
            f"<td>{html.escape(summary.label)}</td><td>{html.escape(summary.role)}</td>"
            f"<td>{summary.score.value:.3f}</td>"
            f"<td>[{summary.score.low:.3f}, {summary.score.high:.3f}]</td>"
            "</tr>"
            for summary in self.tested
        )
        if not rows:
            return head
        names = "<tr><th>model</th><th>role</th><th>test score</th><th>95% interval</th></tr>"
        return f"{head}<table>{names}{rows}</table>"
