"""A task made of a user's own questions and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.api.arguments import read_folder

if TYPE_CHECKING:
    from evomerge.questions import Ask, TaskReport


def task_from_file(
    path: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    choices: str | Sequence[str] | None = None,
    context: str | None = None,
    kind: str | None = None,
    prompt: str | None = None,
    stop: Sequence[str] | None = None,
    max_tokens: int | None = None,
    fewshot: int = 0,
    count_from: int | None = None,
    models: Sequence[str | Path] = (),
    within: float | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: bool = True,
    shown_as: str | None = None,
    trust_remote_code: bool = False,
    ask: Ask | None = None,
) -> TaskReport:
    """Make an lm-eval task of a table of questions and answers, and check the questions.

    Args:
        path: CSV, JSON lines or Parquet file with a row for each question.
        out: folder to make for the task.
        name: of the task; made from the file's name if not given.
        question: column of the questions; found by its name if not given, like the next three.
        answer: column of the right answers.
        choices: column that lists the choices, or columns with one choice each; "none" for none.
        context: column of a text that the question is about; "none" for none.
        kind: "choices", "exact", "number", "json", "contains" or "regex"; proposed if not given.
        prompt: wording with {question}, and {context} where there is one.
        stop: texts that end a generated answer; proposed if not given.
        max_tokens: the most tokens of a generated answer; proposed if not given.
        fewshot: how many rows become examples in every prompt, and no items.
        count_from: 0 or 1, the number of the first choice where answers are numbers of choices.
        models: folders or hub ids; prompts are shown with their chat templates, and measured.
        within: wished half width of a score's 95% interval on the test items, for example 0.05.
        encoding: of a text file; UTF-8 if not given.
        delimiter: of a CSV file; found if not given.
        header: whether a CSV file has its columns' names in the first row.
        shown_as: how messages and the task's README name the file; as its path if not given.
        trust_remote_code: let a model's own tokenizer code run.
        ask: called with a part ("question") and the columns it may be; returns one of them.

    Returns:
        What was proposed, each check as a sentence, and three prompts.

    Raises:
        InputError, StorageError: as their messages say; nothing is written then.
    """
    from evomerge.questions import QuestionOptions, make_task

    options = QuestionOptions(
        name=name,
        question=question,
        answer=answer,
        choices=choices,
        context=context,
        kind=kind,
        prompt=prompt,
        stop=(stop,) if isinstance(stop, str) else stop,
        max_tokens=max_tokens,
        fewshot=fewshot,
        count_from=count_from,
        models=tuple(str(model) for model in models),
        within=within,
        encoding=encoding,
        delimiter=delimiter,
        header=header,
        shown_as=shown_as,
        trust_remote_code=trust_remote_code,
    )
    return make_task(Path(path), read_folder(out), options, ask=ask)


def describe_table(
    path: str | Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: bool = True,
    shown_as: str | None = None,
) -> dict[str, Any]:
    """Read a table as `task_from_file` does, and say what it has.

    Args:
        path: CSV, JSON lines or Parquet file; by its content, whatever its name.
        encoding: of a text file; UTF-8 if not given.
        delimiter: of a CSV file; found if not given.
        header: whether a CSV file has its columns' names in the first row.
        shown_as: how messages name the file; as its path if not given.

    Returns:
        "format" ("csv", "json" or "parquet"), "columns" (their names) and "rows" (their number).

    Raises:
        InputError: it cannot be read, in one line.
    """
    from evomerge.questions import read_table

    table = read_table(
        Path(path), encoding=encoding, delimiter=delimiter, header=header, shown_as=shown_as
    )
    return {"format": table.format, "columns": list(table.columns), "rows": len(table.rows)}
