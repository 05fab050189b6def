"""The status of a search: for `evomerge status`, as text or as JSON.

It is read from the record alone, so it is available while another process writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from evomerge.errors import visible
from evomerge.report.front import FrontRow, rows_of
from evomerge.report.tally import (
    Limit,
    SearchPhase,
    Stage,
    best_of,
    failures_of,
    finalists_after,
    generations_of,
    limits_of,
    parents_among,
    phase_of,
    scores_are_shares,
    searched,
    spending_of,
    stage_of,
)
from evomerge.report.words import count_text, duration_text, one_line, score_text
from evomerge.search import CutAnswers, Front, cut_answers, outcome_of
from evomerge.study import SELECTION, Study, Trial

_REASONS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ScoredName:
    """A candidate or a model by name, with its combined score (higher is better).

    candidate: its key, as `evomerge export --trial` takes it. items: how many it was scored on.
    """

    label: str
    candidate: str
    score: float
    items: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a search is.

    limits: each limit of the budget with the used part, the most used one first.
    stage: the current one; None where the job has no stages.
    candidates, failed: of the optimiser; baselines and finalists are counted apart.
    failures: (reason, how often) over all candidates, the most frequent first.
    best_candidate, best_parent, best_baseline: by search score; None before there is one.
    items, worker_s: over everything that was scored; seconds are summed over workers.
    hops, shared_hops: passes through a layer in the optimiser's routes, and how many of them shared
    prefixes saved.
    headline: the final selection's sentence on the winner, or on the front; None before the
    selection. front: its points; None where the search has one winner, or has not ended. export:
    the command that exports the result; None before the end. shares: whether scores are shares; if
    so, an estimate outside [0, 1] is not shown to people as a score. cut_answers: shares of answers
    that were cut off at the token limit, of each model on the test items; cut_note: the same in a
    sentence, empty if there are none. warnings: sentences on the outcome.
    """

    name: str
    run_dir: str
    phase: SearchPhase
    stage: Stage | None
    generations: int
    candidates: int
    failed: int
    baselines: int
    finalists: int
    limits: tuple[Limit, ...]
    failures: tuple[tuple[str, int], ...]
    best_candidate: ScoredName | None
    best_parent: ScoredName | None
    best_baseline: ScoredName | None
    items: int
    worker_s: float
    hops: int
    shared_hops: int
    headline: str | None
    front: tuple[FrontRow, ...] | None = None
    export: str | None = None
    shares: bool = False
    cut_answers: tuple[dict[str, Any], ...] = ()
    cut_note: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the final selection has been made."""
        return self.phase == "finished"

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs; the field names are those of this class."""
        document = asdict(self)
        document["failures"] = [
            {"reason": reason, "candidates": count} for reason, count in self.failures
        ]
        document["limits"] = [asdict(limit) for limit in self.limits]
        document["front"] = None if self.front is None else [row.to_json() for row in self.front]
        return {**document, "finished": self.finished}


def status_of(study: Study) -> Status:
    """Sum up what a study has recorded."""
    trials = study.trials
    phase = phase_of(study)
    genomes = [trial for trial in trials if trial.kind == "genome"]
    spent = spending_of(searched(trials))
    total = spending_of(trials)
    generations = generations_of(genomes)
    outcome = outcome_of(study) if phase == "finished" else None
    cut = CutAnswers() if outcome is None else cut_answers(study)
    return Status(
        name=study.job.name,
        run_dir=str(study.run_dir),
        phase=phase,
        stage=stage_of(study),
        generations=len(generations),
        candidates=spent.candidates,
        failed=spent.failed,
        baselines=sum(trial.kind == "baseline" for trial in trials),
        finalists=sum(
            trial.key.phase == "validation" for trial in finalists_after(trials, len(generations))
        ),
        limits=limits_of(study.job.budget, spent),
        failures=tuple((one_line(reason), count) for reason, count in failures_of(trials)),
        best_candidate=_named(best_of(genomes)),
        best_parent=_named(best_of(parents_among(trials, study.job))),
        best_baseline=_named(best_of(trial for trial in trials if trial.kind == "baseline")),
        items=total.items,
        worker_s=total.worker_s,
        hops=spent.hops,
        shared_hops=spent.shared_hops,
        headline=None if outcome is None else study.noted(SELECTION)["headline"],
        front=rows_of(outcome) if isinstance(outcome, Front) else None,
        export=None if outcome is None else outcome.export_command(study.run_dir),
        shares=scores_are_shares(trials, study.job),
        cut_answers=tuple(cut.to_json()),
        cut_note=cut.sentence(),
        warnings=cut.warnings,
    )


def _named(trial: Trial | None) -> ScoredName | None:
    if trial is None or trial.score is None:
        return None
    return ScoredName(
        label=one_line(trial.label),
        candidate=str(trial.key),
        score=trial.score,
        items=trial.item_count,
    )


def read_status(document: Mapping[str, Any]) -> Status:
    """The status in the plain values of `Status.to_json`."""
    failures = [(each["reason"], each["candidates"]) for each in document["failures"]]
    return TypeAdapter(Status).validate_python({**document, "failures": failures})


def show_status(
    status: Status, *, program: str = "evomerge", console: Console | None = None
) -> None:
    """Print a status for people, to stdout unless a console is given.

    program: how the commands begin that it names.
    """
    out = console or Console(highlight=False)
    if status.headline:
        out.print(Text(visible(status.headline), style="bold"), soft_wrap=True)
    for label, text in _rows(status, program):
        out.print(Text.assemble((f"{label:<16}", "dim"), visible(text)), soft_wrap=True)


def _rows(status: Status, program: str) -> list[tuple[str, str]]:
    rows = [("search", f"{status.name} in {status.run_dir}"), ("phase", _phase_text(status))]
    if status.stage is not None and not status.finished:
        rows.append(("stage", str(status.stage).removeprefix("stage ")))
    rows += [("budget", str(limit)) for limit in status.limits]
    counts = [count_text(status.candidates, "candidate")]
    if status.failed:
        counts.append(f"{status.failed} of them failed")
    counts.append(count_text(status.baselines, "baseline"))
    if status.finalists:
        counts.append(count_text(status.finalists, "finalist"))
    rows.append(("recorded", ", ".join(counts)))
    if not status.finished:  # later the headline has the better scores of the final selection
        rows.append(("best parent", _scored_text(status.best_parent, status.shares)))
        rows.append(("best baseline", _scored_text(status.best_baseline, status.shares)))
        rows.append(("best candidate", _scored_text(status.best_candidate, status.shares)))
        if status.best_candidate is not None:
            rows.append(("", "search scores are rough: few items, fresh ones each generation"))
    rows.append(("cost", f"{status.items:,} items, {duration_text(status.worker_s)} of workers"))
    if status.hops:
        saved = f"{status.shared_hops / status.hops:.0%} of {status.hops:,} passes through a layer"
        rows.append(("shared prefixes", f"saved {saved}"))
    for reason, count in status.failures[:_REASONS_SHOWN]:
        rows.append(("failed", f"{count} × {reason}"))
    more = len(status.failures) - _REASONS_SHOWN
    if more > 0:
        rows.append(("", f"and {count_text(more, 'other reason')}"))
    if not status.finished:
        rows.append(("if it stopped", f"{program} resume {status.run_dir}"))
    else:
        rows += [("on the front", str(row)) for row in status.front or ()]
        if status.cut_note:
            rows.append(("note", one_line(status.cut_note)))
        rows += [("warning", one_line(warning)) for warning in status.warnings]
        rows.append(("next", (status.export or "").replace("evomerge", program, 1)))
    return rows


def _phase_text(status: Status) -> str:
    if status.phase == "search":
        return f"search, generation {status.generations}"
    if status.phase == "finished":
        return f"finished after {count_text(status.generations, 'generation')}"
    return status.phase


def _scored_text(named: ScoredName | None, shares: bool) -> str:
    if named is None:
        return "none yet"
    same = named.label == named.candidate
    name = named.label if same else f"{named.label} ({named.candidate})"
    return f"{score_text(named.score, shares)} {name} on {count_text(named.items, 'item')}"
