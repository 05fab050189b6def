"""The report: one HTML file that shows a whole search, finished or not, and needs no network.

This module collects the values of the page from the record and the selection. The page itself is
`templates/report.html.j2`; other modules here make the figures.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from evomerge.errors import StorageError
from evomerge.evaluate import ScoreSummary
from evomerge.job import DRAWS, JobSpec
from evomerge.report.answers import answers_part
from evomerge.report.figures import Figure, interval_figure, spread_of
from evomerge.report.front import front_parts
from evomerge.report.recipe_views import merged_so_far, published_form, routes_of
from evomerge.report.search_curve import search_figure
from evomerge.report.tally import (
    Generation,
    SearchPhase,
    Spent,
    best_of,
    failures_of,
    generations_of,
    generations_selected,
    limits_of,
    model_alone,
    parents_among,
    phase_of,
    scores_are_shares,
    searched,
    spending_of,
)
from evomerge.report.words import (
    count_text,
    duration_text,
    gain_text,
    one_line,
    range_text,
    score_text,
)
from evomerge.search import Front, SearchOutcome, Selection, Verdict, outcome_of
from evomerge.sources import Structure
from evomerge.study import ESTIMATES, FACTS, Study, Trial, write_whole
from evomerge.version import __version__

_WINNER = "winner"
_KEYS_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A reason, and the candidates that failed for this reason."""

    reason: str
    count: int
    keys: str


@dataclass(frozen=True, kw_only=True)
class TestFigures:
    """Scores on the test items: the combined score, then every metric of every task."""

    combined: Figure
    tasks: tuple[Figure, ...]


def write_report(study: Study, *, structure: Structure | None, out: Path) -> Path:
    """Write the report of a study to the file `out` and return its path.

    structure: of the base model, for the winner's coefficients over depth; None leaves them out.
    Raises StorageError when the file cannot be written.
    """
    page = render_report(study, structure=structure)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, lambda path: path.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise StorageError(
            f"{out}: the report cannot be written ({error.strerror}); give another path with --out"
        ) from error
    return out


def render_report(study: Study, *, structure: Structure | None) -> str:
    """The report of a study as one HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evomerge.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": score_text,
        "gain": gain_text,
        "duration": duration_text,
        "counted": count_text,
        "line": one_line,
    }
    template = environment.get_template("report.html.j2")
    return template.render(
        plotly_js=get_plotlyjs(),
        version=__version__,
        answers=answers_part(study),
        **parts_of(study, structure=structure),
    )


def parts_of(study: Study, *, structure: Structure | None) -> dict[str, Any]:
    """The values that the page uses, all but the answers, which take longer than all the others."""
    job, trials = study.job, study.trials
    tasks = list(dict.fromkeys(objective.task for objective in job.objectives))
    genomes = [trial for trial in trials if trial.kind == "genome"]
    baselines = [trial for trial in trials if trial.kind == "baseline"]
    parents = parents_among(baselines, job)
    spent = spending_of(searched(trials))
    outcome = outcome_of(study)
    selection = outcome if isinstance(outcome, Selection) else None
    alone = [trial.label for trial in baselines if model_alone(trial, job) is not None]
    return {
        "job": job,
        "run_dir": shlex.quote(str(study.run_dir)),
        "phase": phase_of(study),
        "spent": spent,
        "limits": limits_of(job.budget, spent),
        "generations": generations_of(genomes),
        "draws_sentence": _draws_sentence(job, generations_of(genomes)),
        "estimates": study.noted(ESTIMATES) or {},
        "selected_after": generations_selected(study),
        "selection": selection,
        "front": front_parts(outcome) if isinstance(outcome, Front) else None,
        "study_dir": study.run_dir,
        "verdict": _verdict(outcome, phase_of(study)),
        "best_parent": best_of(parents),
        "best_baseline": best_of(baselines),
        "best_candidate": best_of(genomes),
        "baselines": sorted(baselines, key=lambda t: (t.score is None, -(t.score or 0.0))),
        "alone": alone,
        "shares": scores_are_shares(baselines, job),
        "search": search_figure(
            genomes,
            baselines,
            parents=alone,
            stages=[stage.name for stage in job.stages],
            shares=scores_are_shares(baselines, job),
        )
        if genomes or baselines
        else None,
        "test": _test_figures(selection) if selection else None,
        "validation": _validation_rows(selection) if selection else [],
        "merged": merged_so_far(study, selection, structure),
        "routes": routes_of(trials, selection),
        "costs": _costs(trials),
        "failures": _failures(trials),
        "recipe": published_form(selection.recipe, structure) if selection else None,
        "job_yaml": job.to_yaml(),
        "versions": (study.noted(FACTS) or {}).get("versions", {}),
        "tasks": tasks,
        "scored_tasks": {*tasks, *(task for each in job.objectives for task in each.tasks)},
        "test_counts": _test_counts(selection, job) if selection else {},
        "test_items": sum(
            selection.items["test"][task]
            for task in dict.fromkeys(task for each in job.objectives for task in each.tasks)
        )
        if selection
        else 0,
    }


def _test_counts(selection: Selection, job: JobSpec) -> dict[str, int]:
    """Test items of each task, and of each group."""
    counts = dict(selection.items["test"])
    groups = [scored for scored in job.scored if scored.members]
    return counts | {each.task: sum(counts[task] for task in each.tasks) for each in groups}


def _verdict(outcome: SearchOutcome | None, phase: SearchPhase) -> tuple[str, str]:
    """Two or three words for the outcome, and the tone in which the page shows them."""
    if outcome is None:
        return ("Not started" if phase == "not started" else "Not finished", "open")
    words: dict[Verdict, tuple[str, str]] = {
        "gained": ("Gain", "good"),
        "not settled": ("Not settled", "open"),
        "no gain": ("No gain", "bad"),
    }
    return words[outcome.verdict]


def _test_figures(selection: Selection) -> TestFigures:
    """A figure for the combined score and for each metric; figures of shares have one axis."""
    measures = {
        (task, metric): None
        for summary in selection.test
        for task, metrics in summary.tasks.items()
        for metric in metrics
    }
    combined = [(_called(entry), entry.score) for entry in selection.test]
    tasks = []
    for task, metric in measures:
        rows = [
            (_called(entry), entry.tasks[task][metric])
            for entry in selection.test
            if metric in entry.tasks.get(task, {})
        ]
        tasks.append(_interval_figure(task, rows, selection, axis=metric))
    return TestFigures(
        combined=_interval_figure("All objectives", combined, selection, axis="combined score"),
        tasks=tuple(tasks),
    )


def _interval_figure(
    title: str, rows: Sequence[tuple[str, Any]], selection: Selection, *, axis: str
) -> Figure:
    ends = [end for _, interval in rows for end in (interval.low, interval.high)]
    shares = min(ends) >= 0.0 and max(ends) <= 1.0
    return interval_figure(
        title,
        rows,
        emphasised=_WINNER,
        reference=selection.best_parent,
        axis=axis,
        extent=(-0.02, 1.02) if shares else spread_of(ends),
    )


def _called(summary: ScoreSummary) -> str:
    return _WINNER if summary.role == "winner" else summary.label


def _validation_rows(selection: Selection) -> list[dict[str, Any]]:
    """Finalists, with their intervals on a common scale in percent."""
    low = min((entry.score.low for entry in selection.validation), default=0.0)
    high = max((entry.score.high for entry in selection.validation), default=1.0)
    width = (high - low) or 1.0
    return [
        {
            "entry": entry,
            "won": entry.label == selection.winner,
            "from": 100 * (entry.score.low - low) / width,
            "to": 100 * (entry.score.high - low) / width,
            "at": 100 * (entry.score.value - low) / width,
        }
        for entry in selection.validation
    ]


def _draws_sentence(job: JobSpec, generations: Sequence[Generation]) -> str:
    """Which items the dots of the search were scored on."""
    if not generations:
        return ""
    last = range_text(generations[-1].least, generations[-1].most, "item")
    if job.evaluation.draws not in DRAWS:
        return f"Items are drawn by a package that is not installed here; the last are {last}."
    return job.evaluation.draw_facts.sentence(last)


def _costs(trials: Sequence[Trial]) -> list[tuple[str, Spent]]:
    """The cost of each phase, and of all; phases that have not begun are left out."""
    phases = {
        "baselines": [trial for trial in trials if trial.kind == "baseline"],
        "search": searched(trials),
        "final selection": [trial for trial in trials if trial.kind == "finalist"],
    }
    rows = [(name, spending_of(members)) for name, members in phases.items() if members]
    return [*rows, ("all", spending_of(trials))] if rows else []


def _failures(trials: Sequence[Trial]) -> list[Failure]:
    rows = []
    for reason, count in failures_of(trials):
        keys = [str(trial.key) for trial in trials if trial.failure == reason]
        more = f" and {count - _KEYS_SHOWN} more" if count > _KEYS_SHOWN else ""
        shown = ", ".join(keys[:_KEYS_SHOWN]) + more
        rows.append(Failure(reason=one_line(reason), count=count, keys=shown))
    return rows
