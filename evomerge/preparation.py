"""A job made ready: sources opened, tasks built, space and objective made, everything checked.

All that can be wrong with a job is found here, cheapest checks first, before any weight is read.
Nothing here searches, scores or records.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from evomerge.candidate import count_items
from evomerge.errors import JobError, RunError
from evomerge.evaluate.objective import Objective
from evomerge.evaluate.splits import draw
from evomerge.evaluate.suite import TaskSuite
from evomerge.job import JobSpec, parse_job
from evomerge.merge.engine import MergeEngine
from evomerge.optimize.base import default_population
from evomerge.recipe import DType, Recipe, TokenizerSpec
from evomerge.sources import (
    Adapter,
    Source,
    Structure,
    check_compatible,
    lead_of,
    open_source,
    shared_structure,
)
from evomerge.space import SearchSpace, build_space, read_space
from evomerge.statistics import read_header
from evomerge.vocabulary import (
    BLOCK_KEY,
    Alignment,
    TokenizerReader,
    align_sources,
    vocabularies_agree,
)

_PINNED = ("torch", "transformers", "lm-eval", "cma", "cmaes", "optuna", "numpy")
"""Packages whose version can change a genome or a score."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a search, a worker and an export need of a job.

    sources: reference as written in the job -> opened model, the base first, with the vocabulary
    of the merged models. out_dtype: storage dtype of every merged model, scored or exported.
    tokenizer: of the merged models. tokenizer_source: the model that it is from, as an export takes
    it. vocabulary: what a recipe must say of the tokenizer; None where it is the base's and the
    models agree on it.
    """

    job: JobSpec
    sources: Mapping[str, Source]
    structure: Structure
    out_dtype: DType
    space: SearchSpace
    tokenizer: PreTrainedTokenizerBase
    tokenizer_source: Source
    vocabulary: TokenizerSpec | None
    suite: TaskSuite
    objective: Objective

    @property
    def base(self) -> Source:
        """The base model."""
        return self.sources[self.job.models.base]

    @property
    def lead(self) -> Source:
        """The model that the merged ones are built like: the base, or what it is a part of."""
        return lead_of(list(self.sources.values()))

    def standing_alone(self, recipe: Recipe) -> Recipe:
        """A recipe of this job with all that the job says beside it: dtype and vocabulary."""
        complete = recipe.model_copy(update={"out_dtype": recipe.out_dtype or self.out_dtype})
        if self.vocabulary is None:
            return complete
        # A merge that leaves models out has the tokens of all of them nevertheless.
        block = {**recipe.evomerge, BLOCK_KEY: list(self.sources)}
        return complete.model_copy(update={"tokenizer": self.vocabulary, "evomerge": block})


def pin(job: JobSpec) -> JobSpec:
    """The job with nothing left that could mean something else tomorrow or in another folder.

    Local paths become absolute, hub ids carry their commit, a named search space is written out.
    """
    sources = {name: pinned_reference(source) for name, source in _open(job).items()}
    models = job.models.model_copy(
        update={
            "base": sources[job.models.base],
            "sources": tuple(sources[reference] for reference in job.models.sources),
            "tokenizer": sources.get(job.models.tokenizer, job.models.tokenizer),
            "statistics": _absolute(job.models.statistics),
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
    opened = _open(job)
    structure = check_compatible(list(opened.values()), vocabularies_may_differ=True)
    dtype = job.compute.dtype
    out_dtype: DType = structure.dtype if dtype == "auto" else dtype
    space = build_space(
        job.search_space,
        base=job.models.base,
        sources=job.models.sources,
        structure=shared_structure(list(opened.values())),
        out_dtype=out_dtype,
        seed=job.optimizer.seed,
        statistics=job.models.statistics,
    )
    alignment, vocabulary = _align(job, opened)
    sources, tokenizer = alignment.sources, alignment.tokenizer
    assert tokenizer is not None
    # Refuses what cannot be merged, such as models that were not calibrated; reads no tensor.
    MergeEngine(sources).execute(space.decode(space.start))
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
        structure=shared_structure(list(sources.values())),
        out_dtype=out_dtype,
        space=space,
        tokenizer=tokenizer,
        tokenizer_source=alignment.tokenizer_source,
        vocabulary=vocabulary,
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
        "statistics": _statistics_files(preparation.job),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in _PINNED},
        },
    }


def sources_digest(facts: Mapping[str, Any]) -> str:
    """A short name for what these sources hold in this job's vocabulary, from `facts_of`."""
    text = json.dumps([facts["sources"], facts["job"]["models"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> list[str]:
    """Refuse to go on with a search whose job, tasks or sources are not those of its start.

    Returns the versions that changed, in words: they may change scores, so the user is told, but
    they do not stop a search. Raises RunError with the first difference named.
    """
    meanings = {"job": "the job's", "tasks": "task file", "sources": "source"}
    meanings["statistics"] = "the statistics"
    for part, meaning in meanings.items():
        old, new = before.get(part, {}), now[part]
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


def _open(job: JobSpec) -> dict[str, Source]:
    """Every model of the job by its reference, the base first; adapters are opened over the base.

    Raises SourceError.
    """
    models = job.models
    base = open_source(models.base, where="models.base")
    experts = {
        reference: open_source(reference, where=f"models.sources.{place}", base=base)
        for place, reference in enumerate(models.sources)
    }
    return {models.base: base, **experts}


def _align(job: JobSpec, sources: Mapping[str, Source]) -> tuple[Alignment, TokenizerSpec | None]:
    """The models with the vocabulary of the job, and what says the same in a recipe.

    The base's tokenizer asks for nothing where all models agree on it.
    """
    models = job.models
    reader = TokenizerReader(trust_remote_code=models.trust_remote_code)
    base = sources[models.base]
    if models.tokenizer == "base" and vocabularies_agree(sources, reader):
        alignment = Alignment(sources=sources, tokenizer=reader.load(base), tokenizer_source=base)
        return alignment, None
    # A recipe may have no base, so the model is named.
    spec = TokenizerSpec(source=models.base if models.tokenizer == "base" else models.tokenizer)
    return align_sources(spec, sources, base=models.base, reader=reader), spec


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


def pinned_reference(source: Source) -> str:
    """How to name a model so that it means the same everywhere on this machine.

    An adapter is named with its base, as recipes write it.
    """
    reference = (
        source.reference.rpartition("+")[2] if isinstance(source, Adapter) else source.reference
    )
    own = str(source.folder)
    if source.revision is not None:
        own = f"{reference.partition('@')[0]}@{source.revision}"
    return f"{pinned_reference(source.base)}+{own}" if isinstance(source, Adapter) else own


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(folder).expanduser().resolve())


def _statistics_files(job: JobSpec) -> dict[str, str]:
    """What a job's statistics were computed of, file by file; their values follow from that."""
    folder = job.models.statistics
    if folder is None:
        return {}
    headers = {file.name: read_header(file) for file in sorted(Path(folder).glob("*.safetensors"))}
    return {
        name: json.dumps(header.to_metadata(), sort_keys=True)
        for name, header in headers.items()
        if header is not None
    }
