"""The commands that make tasks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.endings import answering, say, say_error, say_json, shown_path
from evomerge.cli.options import AsJson
from evomerge.errors import visible

if TYPE_CHECKING:
    from evomerge.questions import Role

group = typer.Typer(
    name="task", help="Make tasks of your own questions and answers.", no_args_is_help=True
)


@group.callback()
def _group() -> None:
    """Keep `from-file` a command of its own while it is the only one."""


Table = Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet.", show_default=False)]
Name = Annotated[str | None, typer.Option(help="Name of the task.")]
Question = Annotated[str | None, typer.Option(help="Column of the questions.")]
Answer = Annotated[str | None, typer.Option(help="Column of the right answers.")]
Choices = Annotated[
    str | None,
    typer.Option(help="Column that lists the choices, or A,B,C with one each; or none."),
]
Context = Annotated[
    str | None, typer.Option(help="Column of a text that the question is about; or none.")
]
Kind = Annotated[str | None, typer.Option(help="choices, exact, number, json, contains or regex.")]
Prompt = Annotated[
    str | None, typer.Option(help="Wording with {question} and {context}; \\n is a line break.")
]
Stop = Annotated[
    list[str] | None, typer.Option(help="Text that ends an answer; may be given again.")
]
MaxTokens = Annotated[int | None, typer.Option(help="The most tokens of an answer.")]
Fewshot = Annotated[int, typer.Option(help="Rows that become examples in every prompt.")]
CountFrom = Annotated[
    int | None, typer.Option(help="0 or 1: the first choice, where answers are numbers.")
]
Model = Annotated[
    list[str] | None,
    typer.Option(help="Model whose chat template and context count; may be given again."),
]
Within = Annotated[
    float | None, typer.Option(help="Wished half width of a score's interval: 0.05.")
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of the file.")]
Delimiter = Annotated[str | None, typer.Option(help="Sign between cells of a CSV file.")]
HasHeader = Annotated[
    bool, typer.Option(help="Whether the first row of a CSV file names its columns.")
]


@group.command("from-file")
def from_file(
    file: Table,
    out: Annotated[Path, typer.Option(help="Folder to make for the task.", show_default=False)],
    name: Name = None,
    question: Question = None,
    answer: Answer = None,
    choices: Choices = None,
    context: Context = None,
    kind: Kind = None,
    prompt: Prompt = None,
    stop: Stop = None,
    max_tokens: MaxTokens = None,
    fewshot: Fewshot = 0,
    count_from: CountFrom = None,
    model: Model = None,
    within: Within = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    header: HasHeader = True,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a model's own code run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an lm-eval task of your own questions and answers.

    Columns and the kind of answer are found; options overrule them. The questions are checked:
    duplicates, leaks, contradictions, lengths, and whether there are enough.
    """
    with answering():
        from evomerge.api import task_from_file

        report = task_from_file(
            file,
            out,
            name=name,
            question=question,
            answer=answer,
            choices=choices,
            context=context,
            kind=kind,
            prompt=None if prompt is None else unescaped(prompt),
            stop=[unescaped(text) for text in stop] if stop else None,
            max_tokens=max_tokens,
            fewshot=fewshot,
            count_from=count_from,
            models=model or (),
            within=within,
            encoding=encoding,
            delimiter=delimiter,
            header=header,
            trust_remote_code=trust_remote_code,
            ask=_ask if _on_a_terminal() else None,
        )
        if as_json:
            say_json(report.to_json())
            return
        for line in report.lines():
            say(line)
        say("")
        folder = shown_path(report.folder)
        say(f"folder: {folder}")
        say(f"Run it: cd {shlex.quote(str(folder))} && {report.lm_eval_command}")


def unescaped(text: str) -> str:
    """A text of the command line with \\n and \\t as what they mean."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _on_a_terminal() -> bool:
    """Whether there is a user to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(role: Role, columns: Sequence[str]) -> str:
    """Let the user choose a column by its number."""
    say_error(f"Which column is the {role}?")
    for number, column in enumerate(columns, start=1):
        say_error(f"  {number}  {visible(column)}")
    while True:
        try:
            chosen: int = typer.prompt("number", type=int, err=True)
        except typer.Abort as abort:  # the end of the input, or an interrupt
            raise KeyboardInterrupt from abort
        if 1 <= chosen <= len(columns):
            return columns[chosen - 1]
