"""A job made ready: sources opened, tasks built, space and objective made, everything checked.

All that can be wrong with a job is found here, cheapest checks first, before any weight is read.
Nothing here searches, scores or records.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.candidate import count_items
from evomerge.errors import JobError, RunError, SourceError, one_line
from evomerge.evaluate.objective import Objective
from evomerge.evaluate.splits import draw
from evomerge.evaluate.suite import TaskSuite
from evomerge.job import JobSpec, parse_job
from evomerge.optimize.base import default_population
from evomerge.recipe import DType
from evomerge.sources import Source, Structure, check_compatible, open_source
from evomerge.space import SearchSpace, build_space, read_space

_PINNED = ("torch", "transformers", "lm-eval", "cma", "cmaes", "optuna", "numpy")
"""Packages whose version can change a genome or a score."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a search, a worker and an export need of a job.

    sources: reference as written in the job -> opened checkpoint, the base first.
    out_dtype: storage dtype of every merged model, scored or exported.
    """

    job: JobSpec
    sources: Mapping[str, Source]
    structure: Structure
    out_dtype: DType
    space: SearchSpace
    tokenizer: PreTrainedTokenizerBase
    suite: TaskSuite
    objective: Objective

    @property
    def base(self) -> Source:
        """The base model."""
        return self.sources[self.job.models.base]

    @property
    def tokenizer_source(self) -> Source:
        """The model whose tokenizer the merged models take."""
        wanted = self.job.models.tokenizer
        return self.base if wanted == "base" else self.sources[wanted]


def pin(job: JobSpec) -> JobSpec:
    """The job with nothing left that could mean something else tomorrow or in another folder.

    Local paths become absolute, hub ids carry their commit, a named search space is written out.
    """
    sources = {
        reference: pinned_reference(open_source(reference, where=where))
        for where, reference in _references(job)
    }
    models = job.models.model_copy(
        update={
            "base": sources[job.models.base],
            "sources": tuple(sources[reference] for reference in job.models.sources),
            "tokenizer": sources.get(job.models.tokenizer, job.models.tokenizer),
        }
    )
    folders = tuple(str(Path(folder).resolve()) for folder in job.evaluation.task_folders)
    evaluation = job.evaluation.model_copy(update={"task_folders": folders})
    pinned = job.model_copy(
        update={
            "models": models,
            "evaluation": evaluation,
            "search_space": read_space(job.search_space),
        }
    )
    # Two spellings of one folder are the same model now.
    return parse_job(pinned.to_yaml(), where="job")


def prepare(job: JobSpec) -> Preparation:
    """Open and check everything a job names. Raises InputError in one line."""
    _check_device(job.compute.device)
    sources = {
        reference: open_source(reference, where=where) for where, reference in _references(job)
    }
    structure = check_compatible(list(sources.values()))
    dtype = job.compute.dtype
    out_dtype: DType = structure.dtype if dtype == "auto" else dtype
    space = build_space(
        job.search_space,
        base=job.models.base,
        sources=job.models.sources,
        structure=structure,
        out_dtype=out_dtype,
        seed=job.optimizer.seed,
    )
    wanted = job.models.tokenizer
    tokenizer = _load_tokenizer(
        sources[job.models.base if wanted == "base" else wanted],
        trust_remote_code=job.models.trust_remote_code,
    )
    evaluation = job.evaluation
    suite = TaskSuite.load(
        job.all_tasks,
        tokenizer=tokenizer,
        folders=tuple(Path(folder) for folder in evaluation.task_folders),
        num_fewshot=evaluation.num_fewshot,
        apply_chat_template=evaluation.apply_chat_template,
        split=evaluation.split,
    )
    objective = Objective.build(
        job.objectives, aggregate=job.aggregate, constraints=job.constraints, find=suite.metric
    )
    _check_items(job, suite)
    pools = {task: suite.items(task, "search") for task in job.search_tasks}
    drawn = draw(pools, evaluation.items_per_generation, seed=0, generation=1)
    _check_budget(job, genes=len(space.genes), items=count_items(drawn))
    return Preparation(
        job=job,
        sources=sources,
        structure=structure,
        out_dtype=out_dtype,
        space=space,
        tokenizer=tokenizer,
        suite=suite,
        objective=objective,
    )


def facts_of(preparation: Preparation) -> dict[str, Any]:
    """Hashes of everything a result depends on, and the versions it was made with."""
    return {
        "job": preparation.job.fingerprint(),
        "sources": {
            reference: dict(source.sha256()) for reference, source in preparation.sources.items()
        },
        "tasks": dict(preparation.suite.task_files),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in _PINNED},
        },
    }


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> list[str]:
    """Refuse to go on with a search whose job, tasks or sources are not those of its start.

    Returns the versions that changed, in words: they may change scores, so the user is told, but
    they do not stop a search. Raises RunError with the first difference named.
    """
    for part, meaning in (("job", "the job's"), ("tasks", "task file"), ("sources", "source")):
        old, new = before[part], now[part]
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if changed:
            detail = changed[0]
            if part == "sources":
                files = {**old.get(detail, {}), **new.get(detail, {})}
                differs = [
                    name
                    for name in sorted(files)
                    if old.get(detail, {}).get(name) != new.get(detail, {}).get(name)
                ]
                detail = f"{detail}/{differs[0]}"
            raise RunError(
                f"{where}: {meaning} {detail} changed since the search began; put it back as it "
                "was, or start a new search"
            )
    return [
        f"{package} {before['versions'].get(package)} -> {now['versions'][package]}"
        for package in now["versions"]
        if before["versions"].get(package) != now["versions"][package]
    ]


def _check_device(device: str) -> None:
    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise JobError(
            f"compute.device: {device}: no such device; write auto, cpu or cuda"
        ) from error
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise JobError(f"compute.device: {device}: not usable here; write auto or cpu")


def _load_tokenizer(source: Source, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever a damaged tokenizer makes the libraries raise
        raise SourceError(
            f"{source.reference}: its tokenizer cannot be loaded ({one_line(error)}); "
            "name a model that has one as models.tokenizer"
        ) from error
    return cast(PreTrainedTokenizerBase, tokenizer)


def _check_items(job: JobSpec, suite: TaskSuite) -> None:
    """Every task has items in every split it is used in, and a generation reaches every task."""
    for task in job.search_tasks:
        suite.items(task, "search")
        suite.items(task, "validation")
    for task in job.all_tasks:
        suite.items(task, "test")
    for field in ("items_per_generation", "items_for_baselines"):
        count = getattr(job.evaluation, field)
        if count < len(job.search_tasks):
            raise JobError(
                f"evaluation.{field}: {count} items cannot cover {len(job.search_tasks)} tasks; "
                f"give at least {len(job.search_tasks)}"
            )


def _check_budget(job: JobSpec, *, genes: int, items: int) -> None:
    """A budget pays for at least one whole generation."""
    wanted = job.optimizer.population
    population = default_population(genes) if wanted == "auto" else wanted
    for field, needed in (
        ("candidates", population),
        ("items", population * items),
    ):
        given = getattr(job.budget, field)
        if given is not None and given < needed:
            raise JobError(
                f"budget.{field}: {given} does not pay for one generation ({population} "
                f"candidates); give at least {needed}"
            )


def _references(job: JobSpec) -> list[tuple[str, str]]:
    """(where in the job, reference) of every model, the base first."""
    experts = [(f"models.sources.{i}", source) for i, source in enumerate(job.models.sources)]
    return [("models.base", job.models.base), *experts]


def pinned_reference(source: Source) -> str:
    """How to name a model so that it means the same everywhere on this machine."""
    if source.revision is None:
        return str(source.folder)
    return f"{source.reference.partition('@')[0]}@{source.revision}"
