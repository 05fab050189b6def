"""The progress of a search on stderr.

A terminal gets a live display. Elsewhere plain lines are printed: one for each generation and each
stage, and in the other phases one from time to time, so that no log is silent for long. The record
is only read.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evomerge.errors import visible
from evomerge.evaluate import CandidateKey, Step
from evomerge.report.pace import FinalItems, Pace
from evomerge.report.tally import (
    Generation,
    Stage,
    best_of,
    generations_of,
    limits_of,
    parents_among,
    scores_are_shares,
    searched,
    spending_of,
    stage_of,
)
from evomerge.report.words import (
    bars_text,
    count_text,
    duration_text,
    estimate_text,
    one_line,
    opening_text,
    range_text,
    score_text,
)
from evomerge.search import CandidateDone, Event, Note, Planned, Progress
from evomerge.study import Study, Trial

_SPARKS_SHOWN = 24
_LABEL_COLUMNS = 18
_WIDEST = 100
"""Columns; a wider bar shows nothing more."""

_REFRESHES_PER_S = 2

_LINE_EVERY_S = 30.0
"""Least seconds between two lines about the progress of a phase."""


class SearchProgress:
    """An observer (see `evaluate.Observer`) that shows a search on stderr; use it in a `with`.

    with SearchProgress(study) as progress:
        run_search(Ledger(preparation=preparation, study=study, pool=pool, observe=progress))

    final_items: the items of the final selection; without them the estimate of the time left stops
    before the final selection.
    """

    def __init__(
        self,
        study: Study,
        *,
        final_items: FinalItems | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._job = study.job
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._trials: list[Trial] = list(study.trials)
        self._fresh: set[int] = set()  # generations with a candidate scored by this process
        self._told: set[int] = set()  # generations that are complete
        self._pace = Pace(study.job, clock)
        self._began_s = clock()
        self._final_items = final_items
        self._key: CandidateKey | None = None  # of the last step
        self._planned: tuple[tuple[CandidateKey, ...], int] = ((), 0)  # models, items of each
        self._last_line_s = clock()
        self._stage = stage_of(study)
        self._announced: Stage | None = None
        self._doing = ""
        self._live: Live | None = None

    def __enter__(self) -> SearchProgress:
        self._began_s = self._clock()
        self.say(f"{self._job.name}: {opening_text(self._job, self._trials)}")
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.page,
                refresh_per_second=_REFRESHES_PER_S,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if kind is None:
            self._end_phase()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, step: Step, key: CandidateKey) -> None:
        """Take note of a step."""
        self._enter(key)
        if step == "asked":
            self._stage = stage_of(self._study)
        elif step == "merged":
            self._doing = f"scoring {key}"
        elif step == "recorded":
            self._take(key)
        elif step == "told":
            self._told.add(key.generation)
            if key.generation in self._fresh and self._live is None:
                self.say(self._generation_line(generations_of(self._beside(key))[0]))

    def show(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case Progress(step=step, candidate=key):
                self(step, key)
            case CandidateDone(candidate=key):
                self("recorded", key)
            case Planned(candidates=keys, items=items):
                self.plan(keys, items)
            case Note(text=text):
                self.say(text)

    def plan(self, keys: Sequence[CandidateKey], items: int) -> None:
        """Take note of the models that are scored next (see `evaluate.Plan`), and print a line."""
        if not keys:
            return
        self._enter(keys[0])
        self._planned = (tuple(keys), items)
        waiting = self._waiting()
        if waiting:
            done = len(keys) - waiting
            recorded = [f"{done} of them taken from the record"] if done else []
            scope = f"{count_text(len(keys), 'model')} on {count_text(items, 'item')} each"
            left = filter(None, [self._time_left()])
            self.say(f"{self._phase}: {', '.join([scope, *recorded, *left])}")

    def _enter(self, key: CandidateKey) -> None:
        """Note the candidate's phase; a new phase starts its own pace and plan."""
        if self._key is None or key.phase != self._key.phase:
            self._end_phase()
            self._pace.begin_phase()
            self._planned = ((), 0)
        self._key = key

    @property
    def _phase(self) -> str:
        return "starting" if self._key is None else self._key.phase

    def _waiting(self) -> int:
        """How many of the planned models have no record yet."""
        recorded = {trial.key for trial in self._trials}
        return sum(key not in recorded for key in self._planned[0])

    def _take(self, key: CandidateKey) -> None:
        trial = self._study.find(key)
        if trial is None:
            return
        if key.generation > 0 and self._stage != self._announced:
            self._announced = self._stage
            self.say(str(self._stage))
        self._pace.take(trial)
        self._trials.append(trial)
        self._fresh.add(key.generation)
        if self._doing:
            self._doing = "merging"
        if self._live is None and self._clock() - self._last_line_s >= _LINE_EVERY_S:
            self._say_how_far()

    def _say_how_far(self) -> None:
        """Print a line in a phase that has no generations."""
        if self._phase == "baselines":
            self.say(f"baselines: {count_text(len(self._beside_now()), 'model')} scored so far")
        elif self._phase != "search" and self._waiting():
            left = filter(None, [self._time_left()])
            self.say(f"{self._phase}: {', '.join([self._scored_of_planned(), *left])}")

    def _scored_of_planned(self) -> str:
        models = len(self._planned[0])
        return f"{models - self._waiting()} of {count_text(models, 'model')} scored"

    # Lines that stay.

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._last_line_s = self._clock()
        self._console.print(Text(visible(line)), soft_wrap=True)

    def _end_phase(self) -> None:
        """Print one line for a phase in which this process scored something."""
        if not self._pace.scored or self._key is None:
            return
        phase = self._key.phase
        if phase == "baselines":
            self.say(self._baselines_line())
        elif phase == "search":
            population = generations_of(self._trials)
            self.say(f"search: {count_text(len(population), 'generation')} done, {self._left()}")
        else:
            self.say(f"{phase}: {self._scored_count(self._beside(self._key), 'model')}")

    def _baselines_line(self) -> str:
        trials = [trial for trial in self._trials if trial.kind == "baseline"]
        parts = [self._scored_count(trials, "model")]
        for name, trial in (("parent", self._best_parent()), ("baseline", best_of(trials))):
            if trial is not None:
                parts.append(f"best {name} {self._scored(trial)}")
        return f"baselines: {'; '.join(parts)}"

    def _generation_line(self, generation: Generation) -> str:
        parts = [
            f"generation {generation.number}: {generation.scored} scored on "
            f"{range_text(generation.least, generation.most, 'item')}"
        ]
        if generation.mean is not None:
            parts.append(self._mean_and_best(generation))
        parent = self._best_parent()
        if parent is not None:
            parts.append(f"best parent {self._scored(parent)} on the baselines' items")
        if generation.failed:
            parts.append(f"{generation.failed} failed, last: {self._last_failure()}")
        return "; ".join([*parts, self._left()])

    def _scored_count(self, trials: list[Trial], noun: str) -> str:
        scored = [trial for trial in trials if trial.failure is None]
        items = max((trial.item_count for trial in trials), default=0)
        text = f"{count_text(len(scored), noun)} scored on {count_text(items, 'item')} each"
        failed = len(trials) - len(scored)
        return f"{text}, {failed} failed, last: {self._last_failure()}" if failed else text

    # The current state.

    def _beside(self, key: CandidateKey) -> list[Trial]:
        """The recorded candidates of the generation of `key`, or of the same final selection."""
        beside = [trial for trial in self._trials if trial.key.generation == key.generation]
        if key.generation >= 0:
            return beside
        return [trial for trial in beside if trial.key.selected_after == key.selected_after]

    def _beside_now(self) -> list[Trial]:
        return self._beside(self._key) if self._key else []

    def _best_parent(self) -> Trial | None:
        return best_of(parents_among(self._trials, self._job))

    def _scored(self, trial: Trial) -> str:
        return f"{self._score(trial.score)} ({one_line(trial.label)})"

    def _score(self, value: float | None) -> str:
        return score_text(value, scores_are_shares(self._trials, self._job))

    def _mean_and_best(self, generation: Generation) -> str:
        return f"mean {self._score(generation.mean)}, best {self._score(generation.best)}"

    def _last_failure(self) -> str:
        reasons = [trial.failure for trial in self._trials if trial.failure is not None]
        return one_line(reasons[-1]) if reasons else ""

    def _left(self) -> str:
        """The used part of the budget, and an estimate of the time left."""
        limit = limits_of(self._job.budget, spending_of(searched(self._trials)))[0]
        return ", ".join(filter(None, [str(limit), self._time_left()]))

    def _time_left(self) -> str:
        """An estimate of the time left, and what it covers; empty if nothing is known yet."""
        phase, final, trials = self._phase, self._final_items, self._trials
        stages = 0 if self._stage is None else self._stage.count - self._stage.number
        parts: list[float | None] = []
        if phase in ("validation", "test"):
            waiting, items = self._waiting(), self._planned[1]
            parts.append(self._pace.models_s(trials, waiting, items) if waiting else None)
            ending = "" if final else f" of {phase}"
            if phase == "validation" and final:
                ending = ", the next stages and test included" if stages else ", test included"
        else:
            ending = ", validation and test included" if final else " before validation"
        limit = limits_of(self._job.budget, spending_of(searched(trials)))[0]
        if phase not in ("validation", "test") or (stages and phase == "validation" and final):
            left_s = self._pace.left_s(trials) if limit.share < 1.0 else 0.0
            parts.append(left_s if final or left_s else None)
        if final and phase != "test":
            ahead = stages if phase == "validation" else stages + 1
            validation_s = self._pace.validation_s(trials, final)
            parts += [*([validation_s] * ahead), self._pace.test_s(trials, final)]
        known = [seconds for seconds in parts if seconds is not None]
        if not known or len(known) < len(parts):
            return ""
        return f"{estimate_text(sum(known))} left{ending}"

    # The live display.

    def page(self) -> RenderableType:
        """The live display now, as wide as the console allows."""
        width = min(self._console.width, _WIDEST)
        key, phase = self._key, self._phase
        title = f"generation {key.generation}" if key and phase == "search" else phase
        if self._stage is not None and phase == "search":
            title = f"{title}, {self._stage}"
        head = Table.grid(expand=True, padding=(0, 1, 0, 0))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        elapsed = duration_text(self._clock() - self._began_s)
        name = Text.assemble((self._job.name, "bold"), "  ", (title, "cyan"))
        if self._doing:
            name.append(f"  {self._doing}", "dim")
        head.add_row(name, Text(elapsed, "dim"))
        rows = Table.grid(expand=True)
        rows.add_column(width=_LABEL_COLUMNS, no_wrap=True, style="dim")
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for label, text in self._rows(phase):
            rows.add_row(label, Text(visible(text)))
        page = Table.grid()
        page.add_column(width=width)
        for part in (head, self._bar(width), rows):
            page.add_row(part)
        return page

    def _bar(self, width: int) -> RenderableType:
        spent = spending_of(searched(self._trials))
        limit = limits_of(self._job.budget, spent)[0]
        bar = Table.grid(padding=(0, 1, 0, 0))
        share = ProgressBar(total=1.0, completed=limit.share, width=width - 6)
        bar.add_row(share, f"{limit.share:4.0%}")
        return bar

    def _rows(self, phase: str) -> list[tuple[str, str]]:
        rows = [("budget", self._left())]
        beside = self._beside_now()
        if phase == "search" and beside:
            rows.append(("this generation", self._population_text(generations_of(beside)[0])))
        elif self._planned[0]:
            rows.append(("scored", self._scored_of_planned().removesuffix(" scored")))
        elif phase not in ("starting", "search"):
            rows.append(("scored", count_text(len(beside), "model")))
        complete = [
            generation
            for generation in generations_of(self._trials)
            if generation.number in self._told
        ]
        means = [generation.mean for generation in complete if generation.mean is not None]
        if len(means) > 1:
            rows.append(("generation means", self._trend(means)))
        baselines = [trial for trial in self._trials if trial.kind == "baseline"]
        for label, trial in (
            ("best parent", self._best_parent()),
            ("best baseline", best_of(baselines)),
        ):
            if trial is not None:
                text = f"{self._scored(trial)} on {count_text(trial.item_count, 'item')}"
                rows.append((label, text))
        failed = sum(trial.failure is not None for trial in self._trials)
        if failed:
            rows.append(("failed", f"{failed}, last: {self._last_failure()}"))
        if means or phase == "search":
            rows.append(("", "scores vary: fresh items each generation"))
        return rows

    def _population_text(self, generation: Generation) -> str:
        done = f"{generation.scored + generation.failed} scored"
        if generation.mean is None:
            return done
        return f"{done}, {self._mean_and_best(generation)}"

    def _trend(self, means: list[float]) -> str:
        """The last generation means as bars, with the first and the last as numbers."""
        shown = means[-_SPARKS_SHOWN:]
        return f"{self._score(shown[0])} {bars_text(shown)} {self._score(shown[-1])}"
