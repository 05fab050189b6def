"""From a file to a task: read, understood, checked, written, and tried as lm-eval loads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import TaskError
from evomerge.evaluate import digest_item
from evomerge.export import check_free, whole_folder
from evomerge.job import SplitSpec
from evomerge.questions.checks import (
    check_answers,
    check_enough,
    check_examples,
    check_rows,
    check_similar,
    distinct_items,
    splits_of,
)
from evomerge.questions.columns import Ask, find_columns
from evomerge.questions.items import Item, read_items
from evomerge.questions.kind import answered, propose_kind, propose_limit, propose_stop
from evomerge.questions.prompt import doc_to_text, next_question
from evomerge.questions.table import read_table
from evomerge.questions.task import Task, task_name, write_task
from evomerge.questions.task_report import TaskReport

_MOST_EXAMPLES = 64
_MOST_TOKENS = 32_768


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """How a file of questions is read; what is None is found or proposed.

    The fields are those of `evomerge.task_from_file`.
    """

    name: str | None = None
    question: str | None = None
    answer: str | None = None
    choices: str | Sequence[str] | None = None
    context: str | None = None
    kind: str | None = None
    prompt: str | None = None
    stop: Sequence[str] | None = None
    max_tokens: int | None = None
    fewshot: int = 0
    count_from: int | None = None
    models: Sequence[str] = ()
    within: float | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: bool = True
    shown_as: str | None = None
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raise TaskError for a value outside its range."""
        if not 0 <= self.fewshot <= _MOST_EXAMPLES:
            mend = "0 for no examples, or more" if self.fewshot < 0 else "a smaller number"
            raise TaskError(f"--fewshot {self.fewshot}: outside 0 to {_MOST_EXAMPLES}; give {mend}")
        if self.within is not None and not 0.001 <= self.within < 0.5:
            raise TaskError(
                f"--within {self.within:g}: outside 0.001 to 0.5; give half the width of the "
                "interval, for example 0.05"
            )
        if self.max_tokens is not None and not 1 <= self.max_tokens <= _MOST_TOKENS:
            raise TaskError(
                f"--max-tokens {self.max_tokens}: outside 1 to {_MOST_TOKENS:,}; give the most "
                "tokens of an answer"
            )
        if self.count_from not in (None, 0, 1):
            raise TaskError(f"--count-from {self.count_from}: give 0 or 1")
        if self.stop is not None and not all(self.stop):
            raise TaskError("--stop: is empty; give a text that ends an answer, or leave it out")


def make_task(
    path: Path, out: Path, options: QuestionOptions, *, ask: Ask | None = None
) -> TaskReport:
    """Make a task of a file's questions in the new folder `out`.

    ask: asks the user for a column where the names are not enough. Nothing is written when there is
    an error. Raises TaskError, SourceError (a model), RunError (`out` holds something) and
    StorageError.
    """
    options.check()
    name = task_name(options.name, path)
    check_free(out)
    table = read_table(
        path,
        encoding=options.encoding,
        delimiter=options.delimiter,
        header=options.header,
        shown_as=options.shown_as,
    )
    columns = find_columns(
        table,
        question=options.question,
        answer=options.answer,
        choices=options.choices,
        context=options.context,
        ask=ask,
    )
    read = read_items(table, columns)
    proposal = propose_kind(read, options.kind)
    read_answers, reason = answered(
        read, proposal, where=str(table.path), count_from=options.count_from
    )
    items, checks = distinct_items(read_answers)
    examples, items = _with_examples(items, options.fewshot, columns.context is not None)
    task = Task(
        name=name,
        kind=proposal.kind,
        items=items,
        examples=examples,
        with_context=columns.context is not None,
        doc_to_text=doc_to_text(options.prompt, with_context=columns.context is not None),
        stop=propose_stop(proposal.kind, items, next_question=next_question(options.prompt))
        if options.stop is None
        else tuple(options.stop),
        max_tokens=options.max_tokens or propose_limit(proposal.kind, items),
    )
    # Large libraries are imported only now, after what needs none of them.
    from evomerge.questions.trial import open_readers, try_task

    readers = open_readers(options.models, trust_remote_code=options.trust_remote_code)
    shares = SplitSpec()
    splits = splits_of(task.documents, shares)
    checks = [
        *check_rows(read),
        *checks,
        *check_answers(items, task.kind),
        check_similar(items, splits),
        *check_examples(items, examples),
        check_enough(splits, shares, options.within),
    ]
    with whole_folder(out) as folder:
        write_task(folder, task)
        prompts, lengths = try_task(folder, task, readers)
        counted = Counter(splits)
        report = TaskReport(
            folder=out,
            name=name,
            source=table.path,
            sha256=table.sha256,
            columns=columns,
            kind=task.kind,
            reason=reason,
            stop=task.stop,
            max_tokens=task.max_tokens,
            items=len(items),
            examples=len(examples),
            splits={part: counted[part] for part in ("search", "validation", "test")},
            checks=[*checks, *lengths],
            prompts=prompts,
        )
        (folder / "README.md").write_text(report.readme(), encoding="utf-8")
    return report


def _with_examples(
    items: tuple[Item, ...], count: int, with_context: bool
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The few-shot examples and the other items, both in order.

    Examples are those with the smallest hashes, so that new rows rarely change them.
    """
    if count == 0:
        return (), items
    if count >= len(items):
        raise TaskError(
            f"--fewshot {count}: there are {len(items)} items in all; give fewer examples"
        )
    digests = [digest_item(item.document(with_context=with_context)) for item in items]
    chosen = set(sorted(range(len(items)), key=lambda place: digests[place])[:count])
    return (
        tuple(item for place, item in enumerate(items) if place in chosen),
        tuple(item for place, item in enumerate(items) if place not in chosen),
    )
