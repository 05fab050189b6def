"""Tries a written task: loads it as evomerge and lm-eval do, and reads its prompts as models do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from evomerge.evaluate import Prompt, TaskSuite
from evomerge.questions.checks import Check, check_lengths
from evomerge.questions.items import Item
from evomerge.questions.task import Task, write_task
from evomerge.questions.task_report import Shown
from evomerge.sources import context_tokens, open_source
from evomerge.vocabulary import TokenizerReader

_SHOWN_PROMPTS = 3
_MOST_TRIED = 2_000


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model as far as prompts need it. context: the most tokens that it reads."""

    label: str
    tokenizer: PreTrainedTokenizerBase
    context: int


def open_readers(references: Sequence[str], *, trust_remote_code: bool) -> list[Reader]:
    """The tokenizers and contexts of models. Raises SourceError."""
    loader = TokenizerReader(trust_remote_code=trust_remote_code)
    sources = [open_source(reference, where="--model") for reference in references]
    return [
        Reader(
            label=reference, tokenizer=loader.load(source), context=context_tokens(source.config)
        )
        for reference, source in zip(references, sources, strict=True)
    ]


def try_task(
    folder: Path, task: Task, readers: Sequence[Reader]
) -> tuple[list[Shown], list[Check]]:
    """The first prompts as the models read them, and the check of their lengths.

    The task is loaded as evomerge and lm-eval load it, so a task that is written can be run. Of a
    large task, a copy with the first items and the longest ones is loaded.
    """
    if len(task.items) <= _MOST_TRIED:
        return _try(folder, task, readers, task.items, whole=True)
    by_length = sorted(range(len(task.items)), key=lambda n: -_characters(task.items[n]))
    tried = sorted({*range(_SHOWN_PROMPTS), *by_length[:_MOST_TRIED]})
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        part = replace(task, items=[task.items[number] for number in tried])
        write_task(Path(copy), part)
        return _try(Path(copy), part, readers, task.items, whole=False)


def _characters(item: Item) -> int:
    return sum(map(len, (*item.asked, item.right)))


def _try(
    folder: Path, task: Task, readers: Sequence[Reader], items: Sequence[Item], *, whole: bool
) -> tuple[list[Shown], list[Check]]:
    """items: those of the whole task."""
    prompts: list[Shown] = []
    checks: list[Check] = []
    places = [item.place for item in task.items]
    for reader in readers or (Reader(label="", tokenizer=_bytes_tokenizer(), context=0),):
        suite = TaskSuite.load(
            [task.name],
            folders=[folder],
            tokenizer=reader.tokenizer,
            apply_chat_template=reader.tokenizer.chat_template is not None,
        )
        prompts += [
            Shown(
                place=item.place,
                prompt=suite.prompt(task.name, number),
                answer=item.right,
                model=reader.label or None,
            )
            for number, item in enumerate(task.items[:_SHOWN_PROMPTS])
        ]
        if readers:
            lengths = [_tokens(suite, task.name, number) for number in range(len(places))]
            checks.append(
                check_lengths(
                    reader.label,
                    lengths,
                    places,
                    reader.context,
                    whole=whole,
                    limit=None if task.kind == "choices" else task.max_tokens,
                    needed=_answer_tokens(items, reader.tokenizer),
                )
            )
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return prompts, checks


def _tokens(suite: TaskSuite, task: str, item: int) -> int:
    """Tokens of an item's longest request with its answer."""
    return max(
        len(request.tokens) + (request.limit_tokens if isinstance(request, Prompt) else 0)
        for request in suite.requests({task: (item,)})
    )


def _answer_tokens(items: Sequence[Item], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest right answer; of a list of texts, all of them."""
    answers = {
        "\n".join(item.answer) if isinstance(item.answer, tuple) else item.right for item in items
    }
    longest = sorted(answers, key=len)[-_MOST_TRIED:]
    tokens: list[list[int]] = tokenizer(longest, add_special_tokens=False)["input_ids"]
    return max(map(len, tokens))


def _bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each byte, where no model is given."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate(["<s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")
