"""Prepares a job: opens and checks everything, cheapest checks first."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from evomerge.errors import JobError, RecipeError
from evomerge.evaluate import Objective, TaskSuite, check_routable, find_members, find_tasks
from evomerge.job import JobSpec, parse_job
from evomerge.merge import (
    MergeEngine,
    SharedSettings,
    check_loadable,
    end_tokens,
    merged_config,
    open_stages,
)
from evomerge.optimize import choose_population
from evomerge.recipe import DType, Recipe, Slice, SliceSource, TokenizerSpec
from evomerge.sources import Adapter, Source, check_compatible, open_source, shared_structure
from evomerge.space import DataFlowSpace, SearchSpace, read_space, switches_of
from evomerge.startup import end_loading
from evomerge.vocabulary import (
    Alignment,
    TokenizerReader,
    align_sources,
    end_rows,
    settings_of,
    vocabularies_agree,
)
from evomerge.workers.preparation.models_alone import ModelsAlone
from evomerge.workers.preparation.prepared_job import PreparedJob, stage_space


def open_models_of(job: JobSpec) -> dict[str, Source]:
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


def prepare(job: JobSpec) -> PreparedJob:
    """Open and check everything a job names. Raises InputError in one line."""
    job.check_package_algorithms()
    job.check_draws()
    models = job.models
    reader = TokenizerReader(trust_remote_code=models.trust_remote_code)
    opened = open_models_of(job)
    structure = check_compatible(list(opened.values()), vocabularies_may_differ=True)
    dtype = job.compute.dtype
    out_dtype: DType = structure.dtype if dtype == "auto" else dtype
    alignment, vocabulary = _align(job, opened, reader)
    sources, tokenizer = alignment.sources, alignment.tokenizer
    assert tokenizer is not None
    spaces = _check_spaces(job, sources, out_dtype)
    evaluation = job.evaluation
    load = partial(
        TaskSuite.load,
        job.all_tasks,
        folders=tuple(Path(folder) for folder in evaluation.task_folders),
        num_fewshot=evaluation.num_fewshot,
        apply_chat_template=evaluation.apply_chat_template,
        split=evaluation.split,
    )
    suite = load(tokenizer=tokenizer)
    models_alone = ModelsAlone(
        suite,
        load=lambda own_tokenizer: load(tokenizer=own_tokenizer),
        reader=reader,
        otherwise=opened[models.base],
        chat=evaluation.apply_chat_template,
    )
    objective = Objective.build(
        job.objectives,
        aggregate=job.aggregate,
        constraints=job.constraints,
        find=suite.metric,
        count=lambda task, split: len(suite.items(task, split)),
    )
    _check_items(job, suite)
    _check_budget(job, suite, spaces)
    end_loading()
    return PreparedJob(
        job=job,
        sources=sources,
        structure=shared_structure(list(sources.values())),
        out_dtype=out_dtype,
        space=spaces[0],
        tokenizer=tokenizer,
        tokenizer_source=alignment.tokenizer_source,
        vocabulary=vocabulary,
        suite=suite,
        objective=objective,
        alone={name: models_alone.make(source) for name, source in opened.items()},
        models_alone=models_alone,
        settings=_settings(job, opened, alignment, vocabulary, reader),
    )


def _check_spaces(
    job: JobSpec, sources: Mapping[str, Source], out_dtype: DType
) -> list[SearchSpace]:
    """The space of every stage; a stage's start takes the place of its winner.

    Refuses merges that cannot be made, for example of models that were not calibrated. Reads no
    tensor.
    """
    structure = shared_structure(list(sources.values()))
    spaces: list[SearchSpace] = []
    winners: dict[str, Recipe] = {}
    for stage, search in enumerate(job.searches):
        space = stage_space(job, stage, structure=structure, out_dtype=out_dtype, winners=winners)
        start = space.decode(space.start)
        opened = open_stages(start, sources)
        _check_merge(start, opened)
        if isinstance(space, DataFlowSpace):
            first = opened[start.references[0]]
            _check_moved_layers(first)
            check_routable(
                first,
                trust_remote_code=job.models.trust_remote_code,
                settings=settings_of(first),
            )
        winners[search.name] = start.model_copy(update={"stages": {}})
        spaces.append(space)
    return spaces


def _check_merge(recipe: Recipe, sources: Mapping[str, Source]) -> None:
    """Refuse a merge that cannot be made, or that transformers would not load completely."""
    engine = MergeEngine(sources)
    engine.execute(recipe)
    plan = engine.plan(recipe)
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    check_loadable(merged_config(recipe, plan, sources), shapes)


def _check_moved_layers(source: Source) -> None:
    """Check that the configuration can describe layers that routes have moved."""
    depth = source.structure.depth
    slices = tuple(
        Slice(sources=(SliceSource(model=source.reference, layer_range=(start, depth)),))
        for start in (0, 1)
        if start < depth
    )
    moved = Recipe(merge_method="passthrough", slices=slices)
    try:
        sources = {source.reference: source}
        merged_config(moved, MergeEngine(sources).plan(moved), sources)
    except RecipeError as error:
        raise JobError(
            f"search_space: routes change the order of layers, which {source.reference} does not "
            f"allow ({error}); search a space of merge weights"
        ) from error


def _settings(
    job: JobSpec,
    opened: Mapping[str, Source],
    alignment: Alignment,
    vocabulary: TokenizerSpec | None,
    reader: TokenizerReader,
) -> SharedSettings:
    """The settings of merges where the models disagree."""
    tokenizer = None if vocabulary is None else alignment.tokenizer
    ends = end_rows(opened, end_tokens, tokenizer=tokenizer, reader=reader)
    return SharedSettings(opened, ends, unite=job.models.tokenizer in ("base", "union"))


def _align(
    job: JobSpec, sources: Mapping[str, Source], reader: TokenizerReader
) -> tuple[Alignment, TokenizerSpec | None]:
    """The models with the vocabulary of the job, and a recipe's entry for it.

    The entry is None if it is the base's vocabulary and all models agree on it.
    """
    models = job.models
    base = sources[models.base]
    if models.tokenizer == "base" and vocabularies_agree(sources, reader):
        alignment = Alignment(sources=sources, tokenizer=reader.load(base), tokenizer_source=base)
        return alignment, None
    # A recipe may have no base, so the model is named.
    spec = TokenizerSpec(source=models.base if models.tokenizer == "base" else models.tokenizer)
    return align_sources(spec, sources, base=models.base, reader=reader), spec


def _check_items(job: JobSpec, suite: TaskSuite) -> None:
    """Check that every task has items in its splits, and that a generation reaches every task."""
    for task in job.search_tasks:
        suite.items(task, "search")
        suite.items(task, "validation")
    for task in job.all_tasks:
        suite.items(task, "test")
    for field in ("items_per_generation", "items_for_baselines"):
        count = getattr(job.evaluation, field)
        if count != "auto" and count < len(job.search_tasks):
            raise JobError(
                f"evaluation.{field}: {count} items cannot cover {len(job.search_tasks)} tasks; "
                f"give at least {len(job.search_tasks)}"
            )


def _items_of_first_generation(job: JobSpec, suite: TaskSuite, space: SearchSpace) -> int:
    """Items planned for each candidate; all items if later draws are chosen by them."""
    size = sum(len(suite.items(task, "search")) for task in job.search_tasks)
    facts = job.evaluation.draw_facts
    if facts.every_item or facts.asks_all_first:
        return size
    return min(size, job.items_each(len(space.genes)))


def _check_budget(job: JobSpec, suite: TaskSuite, spaces: Sequence[SearchSpace]) -> None:
    """Check that every stage's part of the budget pays for at least one whole generation."""
    spent = {"candidates": 0, "items": 0}
    for stage, (search, space) in enumerate(zip(job.searches, spaces, strict=True)):
        population = choose_population(
            job.optimizer_of(search), switches_of(space), objectives=job.front_objectives
        )
        items = _items_of_first_generation(job, suite, space)
        limit = job.budget_after(stage)
        for field, needed in (("candidates", population), ("items", population * items)):
            allowed = getattr(limit, field)
            if allowed is None:
                continue
            part = allowed - spent[field]
            if part < needed:
                of_stage = f" of stage {search.name}" if job.stages else ""
                shares = sum(stage_search.share for stage_search in job.searches) / search.share
                in_all = math.ceil(needed * shares)
                left = f"{part} of {getattr(job.budget, field)}" if job.stages else str(part)
                raise JobError(
                    f"budget.{field}: {left} does not pay for one generation{of_stage} "
                    f"({population} candidates); give at least {in_all}"
                )
            spent[field] = allowed


def pin(job: JobSpec) -> JobSpec:
    """The job in a form that means the same later and in every folder.

    Local paths become absolute, hub ids carry their commit, a named search space is written out.
    """
    sources = {name: pinned_reference(source) for name, source in open_models_of(job).items()}
    models = job.models.model_copy(
        update={
            "base": sources[job.models.base],
            "sources": tuple(sources[reference] for reference in job.models.sources),
            "tokenizer": _pinned_tokenizer(job.models.tokenizer, sources),
            "statistics": _absolute(job.models.statistics),
        }
    )
    folders = tuple(str(Path(folder).resolve()) for folder in job.evaluation.task_folders)
    scored = _pin_groups(job)
    evaluation = job.evaluation.model_copy(update={"task_folders": folders})
    written = [
        search.model_copy(update={"search_space": _pin_space(search.search_space, sources)})
        for search in job.searches
    ]
    searched = (
        {"stages": tuple(written)} if job.stages else {"search_space": written[0].search_space}
    )
    pinned = job.model_copy(
        update={"models": models, "evaluation": evaluation, **scored, **searched}
    )
    # Two spellings of one folder are the same model now.
    return parse_job(pinned.to_yaml(), where="job")


def _pin_groups(job: JobSpec) -> dict[str, Any]:
    """Objectives, constraints and reported tasks with groups written out. Raises TaskError."""
    folders = [Path(folder) for folder in job.evaluation.task_folders]
    pinned: dict[str, Any] = {}
    for section in ("objectives", "constraints"):
        found = []
        for scored in getattr(job, section):
            group = None if scored.members else find_members(scored.task, scored.metric, folders)
            found.append(scored if group is None else scored.model_copy(update=asdict(group)))
        pinned[section] = tuple(found)
    if job.report:
        reported = [task for name in job.report for task in find_tasks(name, folders)]
        pinned["report"] = tuple(dict.fromkeys(reported))
    return pinned


def _pinned_tokenizer(written: str, pinned: Mapping[str, str]) -> str:
    """The pinned name of a model; `base` and `union` keep their meaning as words of a job."""
    return written if written in ("base", "union") else pinned[written]


def _pin_space(spec: str | Mapping[str, Any], pinned: Mapping[str, str]) -> dict[str, Any]:
    """A space written out, with the model names of the pinned job."""
    space = read_space(spec)
    routes = space.get("routes")
    if isinstance(routes, Mapping) and isinstance(models := routes.get("models"), list):
        space["routes"] = {**routes, "models": [pinned.get(name, name) for name in models]}
    return space


def pinned_reference(source: Source) -> str:
    """A name of a model that means the same in every folder of this machine.

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
    return None if folder is None else str(Path(os.path.expanduser(folder)).resolve())
