"""Scores a saved model by stock lm-eval: `simple_evaluate` and its own HFLM.

Our own scoring is checked against these scores, so nothing of it is used here: lm-eval loads the
folder, builds the tasks and runs them. Vision-language models are an exception: lm-eval's `hf` does
not load them, and its `hf-multimodal` needs pictures. So transformers loads such a model, and `hf`
gets it ready made.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
import transformers
from lm_eval.api.model import LM
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import ItemIds, TaskItems
from evomerge.evaluate.seeds import quiet_lm_eval
from evomerge.job import shipped_folder
from evomerge.recipe import DType


@dataclass(frozen=True, kw_only=True)
class StockOptions:
    """How lm-eval scores: as the job says, on the device and in the dtype it names.

    batch_size: 1 is the default of the `lm_eval` command; with "auto" lm-eval finds one by trials.
    trust_remote_code: whether modelling code in the folder may run.
    """

    dtype: DType
    device: str
    batch_size: int | str = 1
    task_folders: tuple[Path, ...] = ()
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    trust_remote_code: bool = False


def loader_of(architectures: Sequence[str]) -> Any:
    """The transformers class that loads a model as a text model.

    architectures: as in config.json; an unknown name gets the class for causal language models.
    """
    named = next(iter(architectures), "")
    if named in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return transformers.AutoModelForCausalLM
    if named in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def score_stock(
    folder: Path,
    items: ItemIds,
    metrics: Mapping[str, Sequence[str]],
    options: StockOptions,
    *,
    base: Path | None = None,
) -> Mapping[str, TaskItems]:
    """Score the model in `folder` on `items` by stock lm-eval.

    base: the model that `folder` is a PEFT adapter over.
    items: task -> positions of the items, sorted and unique. metrics: task -> names as in
    TaskItems.metrics. Returns one value for each item and metric. A task with few-shot examples
    that are drawn at random is run whole, because lm-eval draws them item after item. The global
    random generators, which lm-eval seeds, are left as they were. Raises TaskError.
    """
    with _generators_kept(), quiet_lm_eval(), _silent_children():
        manager = _task_manager(tuple(items), options.task_folders)
        tasks = manager.load(list(items))["tasks"]
        samples = {
            task: list(ids)
            for task, ids in items.items()
            if not _draws_examples(tasks[task], options.num_fewshot)
        }
        results = lm_eval.simple_evaluate(
            model=_loaded(folder, options, base) or "hf",
            model_args={
                "pretrained": str(folder),
                "dtype": options.dtype,
                "trust_remote_code": options.trust_remote_code,
            },
            tasks=list(items),
            samples=samples,
            task_manager=manager,
            num_fewshot=options.num_fewshot,
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=options.apply_chat_template,  # as the `lm_eval` command sets it
            batch_size=options.batch_size,
            device=options.device,
            bootstrap_iters=0,
        )
    assert results is not None, "lm-eval returns nothing only outside the first process"
    return {
        task: _items_of(task, results["samples"][task], ids, metrics[task])
        for task, ids in items.items()
    }


def _loaded(folder: Path, options: StockOptions, base: Path | None) -> LM | None:
    """lm-eval's text model around what it does not load itself; None for a plain language model.

    base: the model that `folder` is an adapter over; PEFT merges the two. lm-eval's own `peft`
    would first cut the embeddings to the number of tokens, and many models have more rows; and it
    cannot tie weights of modules that are stored whole.
    """
    whole = base or folder
    config = transformers.AutoConfig.from_pretrained(
        whole, trust_remote_code=options.trust_remote_code
    )
    loader = loader_of(config.architectures or ())
    if base is None and loader is transformers.AutoModelForCausalLM:
        return None
    model = loader.from_pretrained(
        whole, dtype=options.dtype, trust_remote_code=options.trust_remote_code
    )
    if base is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return HFLM(
        pretrained=model.to(options.device),
        tokenizer=str(folder),
        batch_size=options.batch_size,
        trust_remote_code=options.trust_remote_code,
    )


def _task_manager(tasks: Sequence[str], folders: Sequence[Path]) -> TaskManager:
    """Tasks of the user's folders, the shipped ones and lm-eval's own, in that order.

    lm-eval's own list takes seconds to read, so it is read only where a task is in it.
    """
    # Later paths win, so the user's first folder comes last.
    paths = [str(folder) for folder in (shipped_folder("evals"), *reversed(folders))]
    manager = TaskManager(include_defaults=False, include_path=paths)
    if all(task in manager.task_index for task in tasks):
        return manager
    return TaskManager(include_path=paths)


def _draws_examples(task: Task, num_fewshot: int | None) -> bool:
    """Whether the prompts of a task hold few-shot examples that are drawn at random."""
    own = task.get_config("num_fewshot")
    shots = own if own == 0 or num_fewshot is None else num_fewshot
    return bool(shots) and not isinstance(task.sampler, FirstNSampler)


def _items_of(
    task: str, rows: Sequence[Mapping[str, Any]], ids: Sequence[int], metrics: Sequence[str]
) -> TaskItems:
    """lm-eval's sample log, a row for each item and filter, as one column for each metric."""
    single = len({row["filter"] for row in rows}) == 1
    columns: dict[str, dict[int, float]] = {metric: {} for metric in metrics}
    for row in rows:
        for metric in row["metrics"]:
            name = metric if single else f"{metric},{row['filter']}"
            if name in columns:
                columns[name][row["doc_id"]] = float(row[metric])
    for metric, column in columns.items():
        if not column.keys() >= set(ids):
            raise TaskError(
                f"task {task}: lm-eval gives no {metric} for some items; name a metric that every "
                "item has"
            )
    return TaskItems(
        ids=tuple(ids),
        metrics={metric: tuple(column[item] for item in ids) for metric, column in columns.items()},
    )


@contextlib.contextmanager
def _silent_children() -> Iterator[None]:
    """Hide what lm-eval's `git describe` prints outside a repository."""
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
