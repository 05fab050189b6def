"""Which items stand in prompts, as few-shot examples with their answers.

lm-eval draws examples from the scored items themselves where a task names no other split, and a
split of its own may hold some of them too. An item that a prompt answers measures nothing, and one
of the test split would be seen while candidates are searched for.
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
    """A task's sampler that keeps what it gave."""

    def __init__(self, sampler: ContextSampler) -> None:
        self._sampler = sampler
        self.given: list[Document] = []

    def sample(self, *args: Any, **kwargs: Any) -> Sequence[Document]:
        """What the task's own sampler draws, its state moved as ever."""
        drawn: Sequence[Document] = self._sampler.sample(*args, **kwargs)
        self.given.extend(drawn)
        return drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def watch_examples(task: Task) -> WatchedSampler | None:
    """Keep from now on what the task's sampler gives; None where the task has none."""
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        return None
    watched = WatchedSampler(sampler)
    task.sampler = watched
    return watched


def examples_of(task: Task, watched: WatchedSampler | None) -> list[Document]:
    """The documents that stood in prompts; all that may have where nothing was seen of them."""
    if watched is not None and watched.given:
        return watched.given
    return list(task.fewshot_docs())


def identities(task: Task, documents: Iterable[Document], *, shown: bool) -> list[frozenset[str]]:
    """What tells that two documents are one question, in sha256: the same if any is shared.

    The content, and the question with its choices as it is asked, which is the same for rows that
    differ in an id. shown: whether the documents are examples, which may be asked in other words.
    """
    with stock_seeds():
        found = [
            {f"content {digest_item(document)}", *_asked(task, document, shown=shown)}
            for document in documents
        ]
    asked = [said for identity in found for said in identity if said.startswith("asked")]
    if not shown and len(found) > 1 and len(set(asked)) == 1:
        # Such a text stands before every item and asks nothing.
        found = [{said for said in identity if said not in asked} for identity in found]
    return [
        frozenset(hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest() for said in one)
        for one in found
    ]


def _asked(task: Task, document: Document, *, shown: bool) -> Iterable[str]:
    wordings: list[tuple[Any, Any]] = [(None, None)]
    if shown and isinstance(task, ConfigurableTask):
        wordings.append((task.fewshot_cfg.doc_to_text, task.fewshot_cfg.doc_to_choice))
    for to_text, to_choice in wordings:
        try:
            yield f"asked {_question(task, document, to_text, to_choice)}"
        except Exception:  # Task files are code, and examples may lack what items have.
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
