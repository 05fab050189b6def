"""The single models of a job: each with its own files and its own tokenizer.

If a model's tokenizer or chat template differs from that of the job's merges, its requests are
built anew. The items are the same.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from evomerge.errors import TaskError
from evomerge.evaluate import TaskSuite, check_greedy
from evomerge.merge import generation_config
from evomerge.sources import Source, vocabulary_size
from evomerge.vocabulary import (
    AlignedSource,
    TokenizerReader,
    TokenSettings,
    same_files,
    stated_generation,
    tokenizer_folder,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelAlone:
    """One model, not merged with any.

    source: with its own vocabulary. tokenizer: its own. tokenizer_source: the model that an export
    takes the tokenizer from. suite: the tasks, encoded by this tokenizer. chat_template: that of
    the job, if one is used and the model has none. as_merged: whether its tokenizer is that of the
    job's merges, with the same chat template.
    """

    source: Source
    tokenizer: PreTrainedTokenizerBase
    tokenizer_source: Source
    suite: TaskSuite
    generation: GenerationConfig
    as_merged: bool
    chat_template: str | None = None


class ModelsAlone:
    """Makes a ModelAlone of any opened model; what models share is built once.

    suite: the tasks for the job's merges. load: builds the tasks for a tokenizer. otherwise: a
    model without a tokenizer gets that of this one. chat: whether prompts go through chat
    templates.
    """

    def __init__(
        self,
        suite: TaskSuite,
        *,
        load: Callable[[PreTrainedTokenizerBase], TaskSuite],
        reader: TokenizerReader,
        otherwise: Source,
        chat: bool,
    ) -> None:
        self._load = load
        self._reader = reader
        self._otherwise = otherwise
        self._chat = chat
        self._template: Any = suite.tokenizer.chat_template if chat else None
        self._suites = {self._digest(suite.tokenizer, chat=chat): suite}
        self._merged = self._digest(suite.tokenizer, chat=True)
        self._first = suite
        self._known: list[tuple[Source, PreTrainedTokenizerBase]] = []

    def make(self, source: Source) -> ModelAlone:
        """The single model of a source. Raises SourceError, TaskError if it cannot be scored."""
        tokenizer_source = source if tokenizer_folder(source) is not None else self._otherwise
        tokenizer, lent_template = self._tokenizer_of(tokenizer_source), None
        if self._chat and tokenizer.chat_template is None:
            lent_template, tokenizer = self._template, copy.deepcopy(tokenizer)
            tokenizer.chat_template = lent_template
            tokenizer_source = AlignedSource(
                tokenizer_source, tensors={}, settings=TokenSettings(), tokenizer=tokenizer
            )
        suite = self.suite_for(tokenizer)
        generation = generation_config(
            stated_generation(source), source.config, where=source.reference
        )
        if suite.generates:
            check_greedy(generation, where=source.reference)
        return ModelAlone(
            source=source,
            tokenizer=tokenizer,
            tokenizer_source=tokenizer_source,
            suite=suite,
            generation=generation,
            as_merged=self._digest(tokenizer, chat=True) == self._merged,
            chat_template=lent_template if isinstance(lent_template, str) else None,
        )

    def _tokenizer_of(self, source: Source) -> PreTrainedTokenizerBase:
        """The tokenizer of a model, loaded once for models with the same files."""
        for known, tokenizer in self._known:
            if known is source or same_files(known, source):
                return tokenizer
        self._known.append((source, self._reader.load(source)))
        return self._known[-1][1]

    def suite_for(self, tokenizer: PreTrainedTokenizerBase) -> TaskSuite:
        """The tasks, encoded by a tokenizer. Raises TaskError if their items differ."""
        digest = self._digest(tokenizer, chat=self._chat)
        if digest not in self._suites:
            suite = self._load(tokenizer)
            for task in self._first.tasks:
                if suite.digests(task) != self._first.digests(task):
                    raise TaskError(
                        f"task {task}: its items depend on the tokenizer, so models with several "
                        "tokenizers cannot be compared by it; choose another task"
                    )
            self._suites[digest] = suite
        return self._suites[digest]

    @staticmethod
    def _digest(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> str:
        """The same for tokenizers that encode and decode alike, and with `chat` render alike."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        facts = {
            "kind": type(tokenizer).__name__,
            "backend": sorted(tokenizer.get_vocab().items()) if backend is None else "",
            "special": [tokenizer.bos_token, tokenizer.eos_token, *tokenizer.all_special_tokens],
            "begins": [
                getattr(tokenizer, name, None)
                for name in ("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces")
            ],
            "chat": tokenizer.chat_template if chat else None,
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        text += "" if backend is None else backend.to_str()
        return hashlib.sha256(text.encode()).hexdigest()


def check_rows(suite: TaskSuite, source: Source) -> None:
    """Raise TaskError for a task with tokens that a model has no rows for."""
    rows = vocabulary_size(source.config, source.structure.shapes)
    for task in suite.tasks:
        largest = suite.largest_token(task)
        if largest >= rows:
            token = suite.tokenizer.convert_ids_to_tokens(largest)
            raise TaskError(
                f"task {task}: its prompts hold {token!r}, token {largest}, and {source.reference} "
                f"has {rows} rows in its embeddings; name a model with that row as "
                "models.tokenizer, or leave the token out of the prompts and the chat template"
            )
