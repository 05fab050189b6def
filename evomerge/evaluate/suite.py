"""The task suite: every task of a job built once, then scored for candidate after candidate.

It connects tasks with an engine: items go out as requests, and answers come back as item scores.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import TaskError
from evomerge.evaluate.answers import Answers, bounded
from evomerge.evaluate.candidate import ItemIds, Split, TaskItems
from evomerge.evaluate.catalogue import TaskCatalogue, hash_files
from evomerge.evaluate.encoding import Encoder
from evomerge.evaluate.engines.base import (
    Continuation,
    CountingEngine,
    Engine,
    Generated,
    LogLikelihood,
    Prompt,
)
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.opened_files import (
    OpenedFile,
    WatchedTask,
    functions_of,
    listen,
    opened_in_loading,
)
from evomerge.evaluate.scored_task import ScoredTask
from evomerge.evaluate.seeds import quiet_lm_eval, stock_seeds
from evomerge.evaluate.splits import place_item
from evomerge.evaluate.task_facts import ShownItem, TaskFacts, facts_of
from evomerge.job import SplitSpec

_MOST_SHOWN = 0.25
"""Largest share of a task's items that may be few-shot examples; more points to a mistake."""


class TaskSuite:
    """The tasks of a job. Items are addressed by their position in the task's own documents.

    If an item is a few-shot example in any prompt of the job, its answer is visible, so it is in no
    split.

    task_files: path -> sha256 of every file that defines a task; `items of <task>` -> sha256 of its
    items and encoded prompts, wherever its data are stored. A resumed search compares them.
    tokenizer: it encodes the requests.
    """

    def __init__(
        self,
        tasks: Sequence[ScoredTask],
        *,
        split: SplitSpec,
        task_files: Mapping[str, str],
        watched: Mapping[str, WatchedTask] | None = None,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._watched = watched or {}
        self.tokenizer = tokenizer
        self._split = split
        self._tasks = {task.name: task for task in tasks}
        self._scored = _scored_items(tasks)
        self.task_files = {**task_files, **self._items_files()}
        self._items: dict[tuple[str, Split], tuple[int, ...]] = {
            (task.name, split_name): tuple(
                index
                for index in self._scored[task.name]
                if place_item(task.digests[index], split) == split_name
            )
            for task in tasks
            for split_name in ("search", "validation", "test")
        }
        requests = [request for task in tasks for request in task.all_requests()]
        self._longest_tokens = max(
            len(r.tokens) + (r.limit_tokens if isinstance(r, Prompt) else 0) for r in requests
        )
        self._longest_scored = max(r.scored if isinstance(r, Continuation) else 1 for r in requests)

    @classmethod
    def load(
        cls,
        tasks: Sequence[str],
        *,
        tokenizer: PreTrainedTokenizerBase | Path,
        folders: Sequence[Path] = (),
        num_fewshot: int | None = None,
        apply_chat_template: bool = False,
        split: SplitSpec | None = None,
    ) -> TaskSuite:
        """Find, build and encode tasks by name.

        folders: task folders of the user, searched first. num_fewshot: replaces the tasks' own
        numbers. tokenizer: that of the merged model, or its folder. split: shares of items. Raises
        TaskError in one line. Global random generators are left as they were.
        """
        if isinstance(tokenizer, Path):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        if apply_chat_template and tokenizer.chat_template is None:
            raise TaskError(
                "evaluation.apply_chat_template: the tokenizer has no chat template; set it to "
                "false or name a tokenizer that has one"
            )
        encoder = Encoder(tokenizer)
        built = []
        task_files: dict[str, str] = {}
        watched: dict[str, WatchedTask] = {}
        with stock_seeds(), quiet_lm_eval():
            catalogue = TaskCatalogue(folders)
            for name in dict.fromkeys(tasks):
                file = catalogue.file_of(name)
                opened = opened_in_loading(file)
                with listen(opened):
                    found = catalogue.find(name)
                    task = ScoredTask(
                        found, encoder=encoder, num_fewshot=num_fewshot, chat=apply_chat_template
                    )
                built.append(task)
                _add(task_files, hash_files(found), task=name)
                functions = functions_of(found.task)
                watched[name] = WatchedTask(file=file, opened=opened.copy(), functions=functions)
        return cls(
            built,
            split=split or SplitSpec(),
            task_files=task_files,
            watched=watched,
            tokenizer=tokenizer,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order given."""
        return tuple(self._tasks)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest request, with its answer."""
        return self._longest_tokens

    def size(self, task: str) -> int:
        """How many items the task has, over all splits."""
        return len(self._task(task))

    @property
    def generates(self) -> bool:
        """Whether any task needs generated answers, not log-likelihoods alone."""
        return any(
            isinstance(request, Prompt)
            for task in self._tasks.values()
            for request in task.all_requests()
        )

    def digests(self, task: str) -> tuple[str, ...]:
        """sha256 of the content of each item of a task."""
        return self._task(task).digests

    def largest_token(self, task: str) -> int:
        """The largest token id in the requests of a task; -1 if there is none."""
        tokens = (request.tokens for request in self._task(task).all_requests())
        return max((int(ids.max()) for ids in tokens if len(ids)), default=-1)

    def metrics(self, task: str) -> Mapping[str, bool]:
        """Usable metrics -> whether higher is better, named as in TaskItems.metrics.

        With one filter the name is bare (`acc`), with several it is lm-eval's own
        (`exact_match,strict-match`).
        """
        return self._task(task).metrics

    def metric(self, task: str, name: str) -> Metric:
        """The metric that the user calls `name`; see ScoredTask.metric. Raises TaskError."""
        return self._task(task).metric(name)

    def facts(self, task: str) -> TaskFacts:
        """What is asked of a model in a task."""
        found = self._task(task)
        return facts_of(
            found.all_requests(), output_type=found.output_type, examples=found.examples
        )

    def show(self, task: str, items: Sequence[int]) -> tuple[ShownItem, ...]:
        """The texts of some items of a task."""
        with stock_seeds(), quiet_lm_eval():
            return tuple(self._task(task).show(item) for item in items)

    def scored(self, task: str) -> tuple[int, ...]:
        """Items of all splits, sorted: those that are an example in no prompt."""
        self._task(task)
        return self._scored[task]

    def items(self, task: str, split: Split) -> tuple[int, ...]:
        """Items of a split, sorted. Raises TaskError where the task has none there."""
        size = self.size(task)
        items = self._items[task, split]
        if not items:
            share = getattr(self._split, split)
            raise TaskError(
                f"task {task}: none of its {size} items falls in the {split} split "
                f"(share {share:g}); raise evaluation.split.{split} or give the task more items"
            )
        return items

    def requests(self, items: ItemIds) -> list[Continuation | Prompt]:
        """Every request of these items, task after task and item after item."""
        return [
            request for task, ids in items.items() for request in self._task(task).requests(ids)
        ]

    def prompt(self, task: str, item: int) -> str:
        """What a model reads before its answer to an item, as text."""
        return self._task(task).prompt(item)

    def make_ready(self, engine: Engine) -> None:
        """Let an engine choose its batch sizes for the longest requests of the tasks."""
        engine.prepare(longest_tokens=self._longest_tokens, longest_scored=self._longest_scored)

    def score(self, engine: Engine, items: ItemIds) -> dict[str, TaskItems]:
        """Score the engine's present weights on these items (task -> sorted positions).

        The same weights and items give the same numbers. Raises NonFiniteLogits and other
        Unscorable signals, which fail the candidate. Raises TaskError if a request does not fit the
        model.
        """
        return self._score(engine, items, counted=False)[0]

    def score_and_keep(
        self, engine: Engine, items: ItemIds
    ) -> tuple[dict[str, TaskItems], Answers]:
        """The scores as `score` gives them, and the answers that they are of, to be looked at."""
        scores, given = self._score(engine, items, counted=True)
        # Apart from the scores: what the tasks' own code does here changes no seed of theirs.
        with stock_seeds(), quiet_lm_eval():
            kept = {task: self._task(task).kept(ids, given[task]) for task, ids in items.items()}
        return scores, bounded(kept)

    def _score(
        self, engine: Engine, items: ItemIds, *, counted: bool
    ) -> tuple[dict[str, TaskItems], dict[str, list[LogLikelihood | Generated]]]:
        self.make_ready(engine)
        with stock_seeds(), quiet_lm_eval():
            requests = {task: self.requests({task: ids}) for task, ids in items.items()}
            answers = iter(
                self._answer(
                    engine,
                    [r for task_requests in requests.values() for r in task_requests],
                    counted=counted,
                )
            )
            scores, given = {}, {}
            for task, ids in items.items():
                given[task] = [next(answers) for _ in requests[task]]
                said = [each.text if isinstance(each, Generated) else each for each in given[task]]
                with self._watch(task):
                    scores[task] = self._task(task).score(ids, said)
            return scores, given

    @property
    def opened_files(self) -> Mapping[str, OpenedFile]:
        """Files that the tasks' code has read until now, in any folder, with their hashes now."""
        files: dict[str, OpenedFile] = {}
        for task, watched in self._watched.items():
            for name, file in watched.files().items():
                known = files.setdefault(name, file)
                if known.sha256 != file.sha256:
                    files[f"{name} of {task}"] = file
        return files

    @property
    def opened_count(self) -> int:
        """How many files were opened until now, counted or not; it grows when more are opened."""
        return sum(watched.opened.count for watched in self._watched.values())

    @contextlib.contextmanager
    def _watch(self, task: str) -> Iterator[None]:
        watched = self._watched.get(task)
        if watched is None:
            yield
            return
        with listen(watched.opened):
            yield

    def _items_files(self) -> dict[str, str]:
        """The part of `task_files` about what is scored of each task."""
        digests = {}
        for name, task in self._tasks.items():
            fingerprint = task.fingerprint()
            if len(self._scored[name]) < len(task):
                text = f"{fingerprint} {self._scored[name]}"
                fingerprint = hashlib.sha256(text.encode()).hexdigest()
            digests[f"items of {name}"] = fingerprint
        return digests

    def _answer(
        self, engine: Engine, requests: Sequence[Continuation | Prompt], *, counted: bool
    ) -> list[LogLikelihood | Generated]:
        """Answers in the order of the requests; both kinds are batched over all tasks.

        counted: whether to ask how the generated ones ended, of an engine that says it.
        """
        likelihoods = iter(
            engine.loglikelihood([r for r in requests if isinstance(r, Continuation)])
        )
        prompts = [r for r in requests if isinstance(r, Prompt)]
        if counted and isinstance(engine, CountingEngine):
            texts = iter(engine.generate_counted(prompts))
        else:
            texts = iter([Generated(text=text) for text in engine.generate(prompts)])
        return [next(likelihoods) if isinstance(r, Continuation) else next(texts) for r in requests]

    def _task(self, name: str) -> ScoredTask:
        task = self._tasks.get(name)
        if task is None:
            raise TaskError(f"task {name}: not loaded; loaded are {', '.join(self._tasks)}")
        return task


def _scored_items(tasks: Sequence[ScoredTask]) -> dict[str, tuple[int, ...]]:
    """Task -> items that are no example in any prompt. Raises TaskError if too few are left."""
    shown = frozenset().union(*(task.shown for task in tasks))
    scored = {}
    for task in tasks:
        scored[task.name] = tuple(
            index for index, identity in enumerate(task.identities) if not identity & shown
        )
        lost = len(task) - len(scored[task.name])
        if lost > _MOST_SHOWN * len(task):
            raise TaskError(
                f"task {task.name}: {lost} of its {len(task)} items are few-shot examples in "
                "prompts, with their answers; name a fewshot_split in its YAML that is not "
                "scored, or set evaluation.num_fewshot to 0"
            )
    return scored


def hash_tasks(tasks: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """The files that define tasks, as in `TaskSuite.task_files`, without their items."""
    files: dict[str, str] = {}
    with stock_seeds(), quiet_lm_eval():
        catalogue = TaskCatalogue(folders)
        for name in dict.fromkeys(tasks):
            _add(files, hash_files(catalogue.find(name)), task=name)
    return files


def _add(files: dict[str, str], more: Mapping[str, str], *, task: str) -> None:
    """Add the files of a task; if a name is taken by another file, the task is added to it."""
    for name, digest in more.items():
        known = files.setdefault(name, digest)
        if known != digest:
            files[f"{name} of {task}"] = digest
