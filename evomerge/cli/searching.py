"""A search, launched or resumed, from the command line."""

from __future__ import annotations

import contextlib

import typer

from evomerge.cli.beginnings import go_on, keep_check, undone_if_refused
from evomerge.cli.endings import NO_GAIN, interruptible, say_note
from evomerge.cli.screen import say
from evomerge.ledger import Ledger
from evomerge.outcome import Selection
from evomerge.preparation import Preparation, facts_of, sources_digest
from evomerge.report.pace import FinalItems
from evomerge.report.result_table import show_result
from evomerge.report.terminal import SearchProgress
from evomerge.stages import run_job
from evomerge.study import Study
from evomerge.workers.opening import open_pool


def search_job(study: Study, preparation: Preparation, ray_address: str | None) -> None:
    """Search, select, and say what came of it; ends the process with the command's exit code."""
    with study, interruptible(f"evomerge resume {study.run_dir}"):
        now = facts_of(preparation)
        go_on(study, now, what="search")
        study.keep_job()
        for note in preparation.notes:
            say_note(note)
        with contextlib.ExitStack() as opened:
            progress = opened.enter_context(
                SearchProgress(study, final_items=_final_items(preparation))
            )
            with undone_if_refused(study):
                pool = open_pool(
                    preparation,
                    ray_address=ray_address,
                    facts_folder=study.run_dir / "facts" / sources_digest(now),
                    say=progress.say,
                    checked=keep_check(study, progress.say),
                )
            opened.enter_context(pool)
            ledger = Ledger(
                preparation=preparation,
                study=study,
                pool=pool,
                observe=progress,
                say=progress.say,
                plan=progress.plan,
            )
            ending, outcome = run_job(ledger)
    say(f"Ended in generation {ending.last}: {ending.reason}.", err=True)
    for line in outcome.lines():
        say(line)
    if isinstance(outcome, Selection):
        directions = {task: preparation.suite.metrics(task) for task in preparation.job.all_tasks}
        show_result(outcome, _metrics_shown(preparation), directions)
    say(f"next: {outcome.export_command(study.run_dir)}")
    raise typer.Exit(0 if outcome.better else NO_GAIN)


def _final_items(preparation: Preparation) -> FinalItems:
    suite, job = preparation.suite, preparation.job
    return FinalItems(
        validation=sum(len(suite.items(task, "validation")) for task in job.search_tasks),
        test=sum(len(suite.items(task, "test")) for task in job.all_tasks),
    )


def _metrics_shown(preparation: Preparation) -> list[tuple[str, str]]:
    """What is searched for, then what the constraints hold, then all that is only reported."""
    objective, suite, job = preparation.objective, preparation.suite, preparation.job
    asked = [*(term.metric for term in objective.terms), *(c.metric for c in objective.constraints)]
    reported = [task for task in job.all_tasks if task not in job.search_tasks]
    return list(
        dict.fromkeys(
            [
                *((metric.task, metric.key) for metric in asked),
                *((task, metric) for task in reported for metric in suite.metrics(task)),
            ]
        )
    )
