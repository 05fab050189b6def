"""One lm-eval task, built once: its items, their requests, and how answers become scores.

It uses lm-eval's own task object (prompts, filters, metrics), so the scores are those of lm-eval.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask, Task

from evomerge.errors import TaskError, is_interrupt, is_shortage, one_line
from evomerge.evaluate.answers import Question, TaskAnswers
from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.catalogue import FoundTask
from evomerge.evaluate.compiled_task import check_settings, compile_templates
from evomerge.evaluate.encoding import ChatTemplateError, Encoder
from evomerge.evaluate.engines.base import (
    Continuation,
    Generated,
    LogLikelihood,
    Prompt,
    Unscorable,
)
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.questions import keep_answer, question_of
from evomerge.evaluate.seeds import FEWSHOT_SEED
from evomerge.evaluate.shown_items import examples_of, identities, watch_examples
from evomerge.evaluate.splits import digest_item
from evomerge.evaluate.task_facts import ShownItem

Answer = LogLikelihood | str

LARGEST = 1e100
"""Largest size of a metric's values; sums and squares of larger values overflow."""


@dataclass(frozen=True, kw_only=True)
class _Item:
    document: Mapping[str, Any]
    digest: str
    instances: tuple[Instance, ...]
    requests: tuple[Continuation | Prompt, ...]


class ScoredTask:
    """A task with every item's requests encoded.

    num_fewshot: as the option of `lm_eval`: it replaces the task's number unless that is 0. chat:
    whether prompts go through the tokenizer's chat template, each few-shot example as its own turn.
    An item's prompt is the one that a run of `lm_eval` over the whole task gives it. Few-shot
    examples that are drawn at random depend on the item's place in the task and are the same in
    every generation.
    digests: sha256 of each item's content. identities: hashes of each item; items that share one
    are the same question. shown: such hashes of all few-shot examples.
    Raises TaskError for tasks that cannot be scored this way.
    """

    def __init__(
        self, found: FoundTask, *, encoder: Encoder, num_fewshot: int | None, chat: bool
    ) -> None:
        self.name = found.name
        self._task: Task = found.task
        self._refuse_unsupported()
        check_settings(self._task, where=f"task {self.name}")
        if self._task.get_config("num_fewshot") != 0 and num_fewshot is not None:
            self._task.set_config(key="num_fewshot", value=num_fewshot)
        self._task.set_fewshot_seed(seed=FEWSHOT_SEED)
        compile_templates(self._task)
        self._filters: tuple[str, ...] = tuple(f.name for f in self._task._filters)
        watched = watch_examples(self._task)
        self._items = self._build_items(encoder, chat=chat)
        self._refuse_unlabelled()
        self.digests = tuple(item.digest for item in self._items)
        self.identities = identities(
            self._task, [item.document for item in self._items], shown=False
        )
        self.shown: frozenset[str] = frozenset()
        if self._task.get_config("num_fewshot"):
            examples = examples_of(self._task, watched)
            self.shown = frozenset().union(*identities(self._task, examples, shown=True))
        self._questions: dict[int, Question] = {}
        means, self._others = self._sort_metrics()
        single = len(self._filters) == 1
        self.metrics: Mapping[str, bool] = {
            name if single else f"{name},{filter_name}": higher
            for filter_name in self._filters
            for name, higher in means.items()
        }

    def __len__(self) -> int:
        return len(self._items)

    def fingerprint(self) -> str:
        """sha256 of every item's content and every request's token ids, in order."""
        total = hashlib.sha256()
        for item in self._items:
            total.update(item.digest.encode())
            for request in item.requests:
                total.update(request.tokens.tobytes())
        return total.hexdigest()

    def metric(self, name: str) -> Metric:
        """The metric of a name: `acc`, or `exact_match,strict-match` where filters differ.

        A bare name means the task's first filter. Raises TaskError with the usable names.
        """
        bare, _, filter_name = name.partition(",")
        single = len(self._filters) == 1
        key = bare if single else f"{bare},{filter_name or self._filters[0]}"
        if key in self.metrics and filter_name in ("", *self._filters):
            return Metric(task=self.name, key=key, higher_is_better=self.metrics[key])
        usable = ", ".join(self.metrics) or "none"
        if bare in self._others:
            raise TaskError(
                f"task {self.name}: {name} is no mean over items, so it has no score per item; "
                f"usable here: {usable}"
            )
        raise TaskError(f"task {self.name}: no metric {name}; usable here: {usable}")

    @property
    def output_type(self) -> str:
        """How it is answered: `multiple_choice`, `loglikelihood` or `generate_until`."""
        return str(self._task.OUTPUT_TYPE)

    @property
    def examples(self) -> int:
        """Few-shot examples in a prompt."""
        return int(self._task.get_config("num_fewshot") or 0)

    def show(self, index: int) -> ShownItem:
        """The texts of an item. A right answer that cannot be read is told as such."""
        item = self._items[index]
        texts = [tuple(map(str, instance.args[:2])) for instance in item.instances]
        generates = self.output_type == "generate_until"
        answers = () if generates else tuple(dict.fromkeys(answer for _, answer in texts))
        prompts = tuple(dict.fromkeys(prompt for prompt, _ in texts))
        return ShownItem(
            item=index, prompts=prompts, answers=answers, target=self._target(item, answers)
        )

    def _target(self, item: _Item, answers: Sequence[str]) -> str:
        try:
            target = self._task.doc_to_target(item.document)
        except Exception as error:  # a task's own code
            return f"not known ({one_line(error)})"
        places = target if isinstance(target, list) else [target]
        named = [
            answers[place]
            if isinstance(place, int) and 0 <= place < len(answers) == len(item.instances)
            else str(place)
            for place in places
        ]
        return " | ".join(named)

    def requests(self, ids: Sequence[int]) -> list[Continuation | Prompt]:
        """Every request of these items, item after item."""
        return [request for index in ids for request in self._items[index].requests]

    def prompt(self, index: int) -> str:
        """What a model reads before its answer to an item, as text."""
        return str(self._items[index].instances[0].args[0])

    def all_requests(self) -> list[Continuation | Prompt]:
        """Every request of the task."""
        return self.requests(range(len(self._items)))

    def score(self, ids: Sequence[int], answers: Sequence[Answer]) -> TaskItems:
        """Filter and score the answers to `requests(ids)`.

        A metric is left out if the task gives no value of it for some item. Raises Unscorable if
        the task's own code fails on an answer or gives a value that is not a finite number.
        """
        items = [self._items[index] for index in ids]
        instances = [instance for item in items for instance in item.instances]
        for instance, answer in zip(instances, answers, strict=True):
            instance.resps = [answer] * (instance.repeats or 1)
            instance.filtered_resps = {}
        self._task._instances = instances
        values: dict[str, list[float]] = {key: [] for key in self.metrics}
        single = len(self._filters) == 1
        with self._own_code("filters"):
            self._task.apply_filters()
        for filter_name in self._filters:
            for index, item in zip(ids, items, strict=True):
                with self._own_code(f"item {index}"):
                    results = [i.filtered_resps[filter_name] for i in item.instances]
                    scored = dict(self._task.process_results(item.document, results))
                for name, value in scored.items():
                    key = name if single else f"{name},{filter_name}"
                    if key in values:
                        with self._own_code(f"item {index}, {key}"):
                            values[key].append(_number(value))
        complete = {key: tuple(v) for key, v in values.items() if len(v) == len(items)}
        return TaskItems(ids=tuple(ids), metrics=complete)

    def kept(self, ids: Sequence[int], given: Sequence[LogLikelihood | Generated]) -> TaskAnswers:
        """The answers to `requests(ids)` as they are kept, each with the end of its prompt."""
        answers, items = iter(given), []
        for index in ids:
            item = self._items[index]
            if index not in self._questions:
                self._questions[index] = question_of(self._task, item.document, item.instances)
            of_item = [next(answers) for _ in item.instances]
            items.append(keep_answer(index, self._questions[index], of_item))
        lower = tuple(name for name, higher in self.metrics.items() if not higher)
        return TaskAnswers(items=tuple(items), lower_is_better=lower)

    @contextlib.contextmanager
    def _own_code(self, step: str) -> Iterator[None]:
        """Within, an error of the task's own code becomes Unscorable.

        The code may get answers that its author did not expect. Interrupts are raised as they are,
        and so are errors of a machine that runs short of memory or disk.
        """
        try:
            yield
        except BaseException as error:
            if is_interrupt(error) or is_shortage(error):
                raise
            reason = one_line(f"{type(error).__name__}: {error}")
            raise Unscorable(
                f"task {self.name}: its own code failed on {step} ({reason})"
            ) from error

    def _refuse_unsupported(self) -> None:
        kind = self._task.OUTPUT_TYPE
        if kind not in ("multiple_choice", "loglikelihood", "generate_until"):
            raise TaskError(
                f"task {self.name}: output_type {kind} has no score per item; use a "
                "multiple_choice, loglikelihood or generate_until task"
            )
        if getattr(self._task, "UNSAFE_CODE", False):
            raise TaskError(
                f"task {self.name}: runs code that a model wrote (unsafe_code); choose another task"
            )
        if getattr(self._task, "MULTIMODAL", False):
            raise TaskError(f"task {self.name}: needs images or audio; choose a text task")

    def _refuse_unlabelled(self) -> None:
        """Raise TaskError if no item's answer is among its choices.

        Test splits with secret answers are like that (the answer is often -1): every model would
        score 0. A few items of a good task may be so too.
        """
        task = self._task
        if task.OUTPUT_TYPE != "multiple_choice" or not isinstance(task, ConfigurableTask):
            return
        if callable(task.config.process_results):
            return
        answer_of = task.doc_to_text if task.multiple_input else task.doc_to_target
        documents = [item.document for item in self._items]
        if any(
            _is_among(answer_of(document), task.doc_to_choice(document)) for document in documents
        ):
            return
        raise TaskError(
            f"task {self.name}: no item's answer is among its choices (for item 0 it is "
            f"{one_line(repr(answer_of(documents[0])))}); score a split that has answers, or mend "
            "doc_to_target in its YAML"
        )

    def _build_items(self, encoder: Encoder, *, chat: bool) -> tuple[_Item, ...]:
        """Build the requests of every document, in order: few-shot draws depend on the order."""
        shots = self._task.get_config("num_fewshot") or 0
        render = encoder.render_chat if chat else None
        built: list[tuple[Mapping[str, Any], tuple[Instance, ...]]] = []
        try:
            for index, document in self._task.doc_iterator():
                context = self._task.fewshot_context(
                    document,
                    num_fewshot=shots,
                    system_instruction=None,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                    chat_template=render,
                    gen_prefix=self._task.doc_to_prefix(document),
                )
                made = self._task.construct_requests(
                    doc=document,
                    ctx=context,
                    metadata=(self.name, index, self._task.get_config("repeats") or 1),
                    apply_chat_template=chat,
                    chat_template=render,
                )
                instances = made if isinstance(made, list) else [made]
                built.append((document, tuple(sorted(instances, key=lambda i: i.idx))))
        except ChatTemplateError as error:
            raise TaskError(f"task {self.name}: item {len(built)}: {error}") from error
        except (Exception, SystemExit) as error:  # Task files are code and may raise anything.
            reason = one_line(f"{type(error).__name__}: {error}")
            if shots and "larger than population" in reason:
                raise TaskError(
                    f"task {self.name}: there are fewer than {shots} few-shot examples for item "
                    f"{len(built)}; lower evaluation.num_fewshot, or num_fewshot in its YAML"
                ) from error
            raise TaskError(
                f"task {self.name}: no prompt can be built for item {len(built)} ({reason}); "
                "check its YAML"
            ) from error
        if not built:
            raise TaskError(f"task {self.name}: has no items; check its data")
        return self._encode(built, encoder)

    def _encode(
        self,
        built: Sequence[tuple[Mapping[str, Any], tuple[Instance, ...]]],
        encoder: Encoder,
    ) -> tuple[_Item, ...]:
        arguments = [instance.args for _, instances in built for instance in instances]
        where = f"task {self.name}"
        encode: Callable[..., Sequence[Continuation | Prompt]] = (
            encoder.prompts if self._task.OUTPUT_TYPE == "generate_until" else encoder.continuations
        )
        requests = iter(encode(arguments, where=where))
        return tuple(
            _Item(
                document=document,
                digest=digest_item(document),
                instances=instances,
                requests=tuple(next(requests) for _ in instances),
            )
            for document, instances in built
        )

    def _sort_metrics(self) -> tuple[dict[str, bool], frozenset[str]]:
        """Metrics that are means over items with their direction, and the names of the others."""
        aggregations: Mapping[str, object] = self._task.aggregation()
        directions: Mapping[str, bool] = self._task.higher_is_better()
        means = {
            name: bool(directions[name])
            for name, aggregation in aggregations.items()
            if aggregation is mean and name in directions
        }
        return means, frozenset(aggregations) - frozenset(means)


def _is_among(answer: object, choices: Sequence[str]) -> bool:
    """Whether an answer, as lm-eval reads it, is one of the choices; of a list, one is enough."""
    if isinstance(answer, list):
        return any(_is_among(part, choices) for part in answer)
    if isinstance(answer, int):
        return 0 <= answer < len(choices)
    return not isinstance(answer, str) or answer in choices


def _number(value: Any) -> float:
    """A metric's value as a number to average. Raises ValueError, TypeError."""
    if isinstance(value, str | bytes | bytearray) or np.iscomplexobj(value) or np.ndim(value):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the value is {number}")
    if abs(number) > LARGEST:
        raise ValueError(f"the value {number:g} is too large to make a mean of")
    return number
