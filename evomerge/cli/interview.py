"""The command `evomerge init`: it asks the few questions that make a job, and writes its file.

Every answer is also an option, so the command works without a terminal.
"""

from __future__ import annotations

import enum
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from evomerge.cli.endings import answering, say
from evomerge.errors import EvomergeError, InputError, JobError, one_line, visible

T = TypeVar("T")


class GoalName(enum.StrEnum):
    """What a search looks for, on the command line."""

    score = "score"
    balance = "balance"
    front = "front"


def init(
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")] = Path(
        "job.yaml"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the search; that of the file if not given.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base model: a folder or hub id.")] = None,
    sources: Annotated[
        list[str] | None, typer.Option("--source", help="A fine-tuned model; may be repeated.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME:METRIC", help="An objective; may be repeated."),
    ] = None,
    folders: Annotated[
        list[str] | None,
        typer.Option("--task-folder", metavar="DIR", help="A folder of your own tasks."),
    ] = None,
    goal: Annotated[
        GoalName | None,
        typer.Option(help="score: best mean; balance: no task may fall far; front: trade-offs."),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="The search space; see `evomerge list spaces`.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="Budget in candidates.")] = None,
    hours: Annotated[float | None, typer.Option(help="Budget in worker hours.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Ask the few questions that make a job, and write its file.

    Without a terminal, --base, --source and --task are needed; the rest has defaults.
    """
    with answering():
        from evomerge.api import (
            check_budget,
            objective_of,
            plain_job_name,
            refuse_written,
            write_job,
        )
        from evomerge.evaluate import check_folders
        from evomerge.job import JobDraft
        from evomerge.space import shipped_spaces

        refuse_written(out)
        check_budget(candidates, hours)
        if device is not None:
            _device(device, where="--device ")
        ask = _Questions(asked=_on_terminal())
        base = base or ask.model("Base model (folder or hub id)", "--base")
        sources = sources or ask.several_models(base)
        where = [Path(folder) for folder in folders or ()]
        check_folders(where, where="--task-folder")
        objectives = [objective_of(task, where) for task in tasks or ()] or ask.objectives(where)
        if goal is None:
            goal = ask.goal() if len(objectives) > 1 else GoalName.score
        elif goal is GoalName.front and len(objectives) < 2:
            raise InputError(
                "--goal front: needs two objectives or more; give another --task, or leave "
                "--goal out"
            )
        space = space or ask.space()
        if candidates is None and hours is None:
            candidates, hours = ask.budget()
        said = {ready.name: ready.summary for ready in shipped_spaces()}
        draft = JobDraft(
            name=name or plain_job_name(out.stem),
            base=base,
            sources=tuple(sources),
            objectives=tuple(objectives),
            goal=goal.value,
            space=space,
            space_says=said.get(space or "", ""),
            candidates=candidates,
            hours=hours,
            device=ask.device() if device is None else device,
            task_folders=tuple(folders or ()),
        )
        write_job(draft, out)
        say(f"job: {out}")
        say(f"next: evomerge check {shlex.quote(str(out))}")


class _Questions:
    """The questions. asked: whether there is a terminal to ask them on."""

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked

    def model(self, question: str, option: str) -> str:
        """A model that exists."""
        self._need(option)
        return self._until(question, _existing)

    def several_models(self, base: str) -> list[str]:
        """One model or more, each once and not the base; an empty answer ends them."""
        self._need("--source")
        found: list[str] = []

        def new(text: str) -> str:
            if text in (base, *found):
                raise JobError(f"{text}: is the base or given already; name another")
            return _existing(text)

        found.append(self._until("Fine-tuned model", new))
        while answer := self._until("Another one (Enter: no more)", new, default=""):
            found.append(answer)
        return found

    def objectives(self, folders: Sequence[Path]) -> list[tuple[str, str]]:
        """Tasks and metrics that exist."""
        self._need("--task")
        from evomerge.api import objective_of
        from evomerge.evaluate import list_tasks

        for task in list_tasks(folders):
            usable = [metric.name for metric in task.metrics or () if metric.usable]
            say(f"  {task.name}: {', '.join(usable)}", err=True)
        say("  or a task or group of lm-eval: evomerge list tasks --all", err=True)
        found: list[tuple[str, str]] = []

        def new(text: str) -> tuple[str, str] | None:
            objective = objective_of(text, folders) if text else None
            if objective in found:
                raise JobError(f"{text}: is given already; name another")
            return objective

        while True:
            question = "Another task (Enter: no more)" if found else "Task, or TASK:METRIC"
            answer = self._until(question, new, default="" if found else None)
            if answer is None:
                return found
            say(f"  {answer[0]}, {answer[1]}", err=True)
            found.append(answer)

    def goal(self) -> GoalName:
        """What matters with several objectives."""
        if not self._asked:
            return GoalName.score
        say(
            "  score: the best mean; balance: no task may fall far; front: all trade-offs", err=True
        )
        return self._until("What matters", _goal, default=GoalName.score.value)

    def space(self) -> str | None:
        """The search space; None for the default."""
        if not self._asked:
            return None
        from evomerge.space import read_space

        def known(text: str) -> str | None:
            if text:
                read_space(text)
            return text or None

        say("  see evomerge list spaces; start coarse", err=True)
        return self._until("Search space (Enter: one_weight_per_model)", known, default="")

    def budget(self) -> tuple[int | None, float | None]:
        """Candidates or hours."""
        from evomerge.api import CANDIDATES

        if not self._asked:
            return CANDIDATES, None
        question = "Budget: candidates, or hours as 2h"
        return self._until(question, _budget, default=str(CANDIDATES))

    def device(self) -> str:
        """Where models run."""
        if not self._asked:
            return "auto"
        return self._until("Device: auto, cpu or cuda", _device, default="auto")

    def _need(self, option: str) -> None:
        if not self._asked:
            raise InputError(
                f"{option}: not given, and there is no terminal to ask on; give --base, --source "
                "and --task NAME:METRIC"
            )

    def _until(self, question: str, read: Callable[[str], T], default: str | None = None) -> T:
        """Ask until the answer can be read; what is wrong with it is said."""
        while True:
            try:
                text = typer.prompt(
                    visible(question), default=default, show_default=bool(default), err=True
                )
            except typer.Abort:
                say("", err=True)  # the end of the input leaves the cursor in the question's line
                raise InputError(
                    "the answers ended before the last question, and nothing is written; begin "
                    "again, or give the answers as options"
                ) from None
            try:
                return read(text.strip())
            except EvomergeError as error:
                say(f"  {one_line(error)}", err=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _existing(reference: str) -> str:
    if reference and "+" not in reference:
        from evomerge.sources import locate

        locate(reference, reference)
    return reference


def _goal(text: str) -> GoalName:
    if text not in list(GoalName):
        raise JobError(f"{text}: write score, balance or front")
    return GoalName(text)


def _budget(text: str) -> tuple[int | None, float | None]:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h?)", text)
    if found is None or float(found[1]) <= 0.0 or (not found[2] and "." in found[1]):
        raise JobError(f"{text}: write a number of candidates, as 200, or hours, as 2h")
    return (None, float(found[1])) if found[2] else (int(found[1]), None)


def _device(text: str, *, where: str = "") -> str:
    """where: the option, if it is not the answer to a question."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise JobError(f"{where}{text}: write auto, cpu or cuda")
    return text
