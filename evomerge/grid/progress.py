"""The progress of a grid on stderr: the models to score, those scored, and the time left.

A terminal shows a live line. Other outputs get plain lines, one for about a tenth of the work.
Searches have the same display as searches without a grid.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from evomerge.errors import visible
from evomerge.evaluate import Candidate, CandidateKey, Observer, Step, count_items
from evomerge.grid.launch import Work
from evomerge.job import BudgetSpec
from evomerge.report import (
    SearchProgress,
    count_text,
    estimate_text,
    limits_of,
    one_line,
    spending_of,
)
from evomerge.search import Observe
from evomerge.study import Study

_LINES = 10
"""Plain lines for one round of scoring."""


class GridProgress:
    """Shows a grid on stderr; GridRun calls `scoring` and `searching`."""

    def __init__(
        self,
        study: Study,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._searches = 0
        self._begun = 0

    def announce(self, work: Work) -> None:
        """Say, before the work begins, what is left to do."""
        self._searches = len(work.searches)
        parts = [f"{count_text(work.models, 'model')} to score on {count_text(work.items, 'item')}"]
        if work.recorded:
            parts.append(f"{work.recorded} taken from the record")
        parts += _searches(work.searches)
        self.say(f"{self._study.job.name}: {'; '.join(parts)}")

    @contextlib.contextmanager
    def scoring(self, candidates: Sequence[Candidate]) -> Iterator[Observer]:
        """Show the progress while these candidates are scored."""
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        scoring = _Scoring(candidates, self._clock)
        with _bar(self._console) if live else contextlib.nullcontext() as bar:
            task = bar.add_task("", total=scoring.items) if bar else None

            def observe(step: Step, key: CandidateKey) -> None:
                if step != "recorded":
                    return
                line = scoring.take(key)
                trial = self._study.find(key)
                if trial is not None and trial.failure is not None:
                    self.say(f"{one_line(trial.label)} failed: {one_line(trial.failure)}")
                if bar is not None and task is not None:
                    bar.update(task, completed=scoring.done_items, description=line)
                elif scoring.worth_a_line():
                    self.say(line)

            yield observe

    @contextlib.contextmanager
    def searching(self, study: Study) -> Iterator[Observe]:
        """Show one search of the grid in the usual display of a search."""
        self._begun += 1
        self.say(f"search {self._begun} of {self._searches}: {study.run_dir.name}")
        with SearchProgress(study, console=self._console, clock=self._clock) as progress:
            yield progress.show

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(visible(line)), soft_wrap=True)


class _Scoring:
    """How far a round of scoring is, and an estimate of the time left from the items."""

    def __init__(self, candidates: Sequence[Candidate], clock: Callable[[], float]) -> None:
        self._items = {candidate.key: count_items(candidate.items) for candidate in candidates}
        self._clock = clock
        self._began_s = clock()
        self._done: list[CandidateKey] = []
        self._last_tenth = 0
        self.items = sum(self._items.values())

    @property
    def done_items(self) -> int:
        """Items of the models that are recorded."""
        return sum(self._items[key] for key in self._done)

    def take(self, key: CandidateKey) -> str:
        """Note that a model is recorded, and return how far the round is, in words."""
        self._done.append(key)
        left_s = (self._clock() - self._began_s) * (self.items / self.done_items - 1.0)
        state = f"{len(self._done)} of {count_text(len(self._items), 'model')} scored"
        return state if len(self._done) == len(self._items) else f"{state}, {_left(left_s)}"

    def worth_a_line(self) -> bool:
        """Whether another tenth of the items is done since the last line."""
        tenth = _LINES * self.done_items // self.items
        if tenth <= self._last_tenth:
            return False
        self._last_tenth = tenth
        return True


def _left(seconds: float) -> str:
    return f"{estimate_text(seconds)} left"


def _searches(budgets: Sequence[BudgetSpec]) -> list[str]:
    """The searches in words, grouped by budget."""
    nothing = spending_of([])
    words = [
        " or ".join(
            f"{limit.most:,g} {'worker hours' if limit.unit == 'hours' else limit.unit}"
            for limit in limits_of(budget, nothing)
        )
        for budget in budgets
    ]
    return [
        f"{count_text(words.count(limits), 'search', 'searches')} of up to {limits} to run"
        for limits in dict.fromkeys(words)
    ]


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        refresh_per_second=2,
    )
