"""Finds the items that appear in prompts as few-shot examples, with their answers.

If a task names no other split, lm-eval draws examples from the scored items themselves. A separate
split may hold some of these items too. An item with its answer in a prompt measures nothing, and a
test item in a prompt would be seen during the search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask, Task

from evomerge.evaluate.seeds import stock_seeds
from evomerge.evaluate.splits import digest_item

Document = Mapping[str, Any]


class WatchedSampler:
    """A task's sampler that keeps the documents it has drawn."""

    def __init__(self, sampler: ContextSampler) -> None:
        self._sampler = sampler
        self.given: list[Document] = []

    def sample(self, *args: Any, **kwargs: Any) -> Sequence[Document]:
        """Draw documents with the task's own sampler, and change its state as usual."""
        drawn: Sequence[Document] = self._sampler.sample(*args, **kwargs)
        self.given.extend(drawn)
        return drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def watch_examples(task: Task) -> WatchedSampler | None:
    """Keep what the task's sampler draws from now on; None if the task has no sampler."""
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        return None
    watched = WatchedSampler(sampler)
    task.sampler = watched
    return watched


def examples_of(task: Task, watched: WatchedSampler | None) -> list[Document]:
    """The documents that appeared in prompts; all that may appear if none was recorded."""
    if watched is not None and watched.given:
        return watched.given
    return list(task.fewshot_docs())


def identities(task: Task, documents: Iterable[Document], *, shown: bool) -> list[frozenset[str]]:
    """sha256 hashes of each document; documents that share one are the same question.

    One hash is of the content. The others are of the question with its choices, as the prompt words
    it. They are equal for rows that differ only in an id. shown: whether the documents are few-shot
    examples, which may have their own wording.
    """
    with stock_seeds():
        found = [
            {f"content {digest_item(document)}", *_question_texts(task, document, shown=shown)}
            for document in documents
        ]
    questions = [text for identity in found for text in identity if text.startswith("asked")]
    if not shown and len(found) > 1 and len(set(questions)) == 1:
        # A text that is the same for every item is not a question.
        found = [{text for text in identity if text not in questions} for identity in found]
    return [
        frozenset(
            hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() for text in identity
        )
        for identity in found
    ]


def _question_texts(task: Task, document: Document, *, shown: bool) -> Iterable[str]:
    wordings: list[tuple[Any, Any]] = [(None, None)]
    if shown and isinstance(task, ConfigurableTask):
        wordings.append((task.fewshot_cfg.doc_to_text, task.fewshot_cfg.doc_to_choice))
    for to_text, to_choice in wordings:
        try:
            yield f"asked {_question(task, document, to_text, to_choice)}"
        except Exception:  # Task files are code, and examples may lack fields of items.
            continue


def _question(task: Task, document: Document, to_text: Any, to_choice: Any) -> str:
    if not isinstance(task, ConfigurableTask):
        return _plain(task.doc_to_text(document))
    text = task.doc_to_text(document, to_text)
    chooses = (to_choice or task.config.doc_to_choice) is not None
    choices = task.doc_to_choice(document, to_choice) if chooses else ()
    return "\n".join([_plain(text), *map(_plain, choices)])


def _plain(text: object) -> str:
    return " ".join(str(text).split())
