"""Scoring of one model, or of the merge of a recipe, on the tasks of a job, without a record.

A model is loaded from its own files; a merge is scored as `evomerge merge` would write it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evomerge.errors import SourceError, WorkerError
from evomerge.evaluate import (
    Candidate,
    CandidateKey,
    Failed,
    Say,
    ScoreSummary,
    Split,
    hush,
    summarise,
)
from evomerge.job import ANYWHERE, JobSpec
from evomerge.merge import align_models, open_models, shared_settings
from evomerge.recipe import DType, Recipe, load_recipe
from evomerge.search import only
from evomerge.sources import Source, open_source
from evomerge.vocabulary import TokenizerReader
from evomerge.workers import (
    PreparedJob,
    check_models,
    check_workers,
    open_one_worker,
    pin,
    pinned_reference,
    prepare,
)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is scored: a recipe. alone: the model, if it was named itself and not in a recipe."""

    recipe: Recipe
    alone: str | None = None


def evaluate_model(
    model: str,
    job: JobSpec,
    *,
    split: Split,
    say: Say = hush,
    ray_address: str | None = None,
) -> ScoreSummary:
    """Score one model, or the merge of a recipe file, on all items of a split of a job's tasks.

    model: a folder, a hub id, or the path of a recipe; it may be deeper or shallower than the
    models of the job, and may have its own vocabulary. say: gets a line for each setting in which
    the models of a recipe differ, and for each retry after a shortage of memory. ray_address: of a
    cluster to score on. Raises InputError, WorkerError.
    """
    check_workers(job.compute.model_copy(update={"workers": 1}), ray_address=ray_address)
    pinned = pin(job)
    preparation = prepare(pinned)
    check_models(preparation, ray_address=ray_address)
    wanted = _read(model, preparation.out_dtype)
    ready = _made_ready(wanted, preparation, say)
    ready.check_rows()
    suite = preparation.suite
    candidate = Candidate(
        key=CandidateKey(0, 0),
        kind="finalist",
        label=model,
        recipe=wanted.recipe,
        items={task: suite.items(task, split) for task in preparation.job.all_tasks},
    )
    again = partial(_made_again, pinned.model_dump_json(), wanted)
    with open_one_worker(ready, make=again, ray_address=ray_address, say=say) as pool:
        [(_, outcome)] = pool.evaluate([candidate])
    if isinstance(outcome, Failed):
        raise WorkerError(f"{model}: cannot be scored: {outcome.reason}")
    seed = job.optimizer.seed
    return summarise(
        model, "model", outcome.tasks, objective=preparation.objective.on(split), seed=seed
    )


def _made_again(job_text: str, wanted: _Wanted) -> PreparedJob:
    """The preparation, made in another process."""
    job = JobSpec.model_validate_json(job_text, context=ANYWHERE)
    return _made_ready(wanted, prepare(job), hush)


def _read(model: str, out_dtype: DType) -> _Wanted:
    if model.endswith((".yaml", ".yml")):
        recipe = load_recipe(Path(model)).model_copy(update={"out_dtype": out_dtype})
        return _Wanted(recipe=recipe)
    # It has the same name as in the recipe.
    reference = pinned_reference(open_source(model, where="MODEL"))
    return _Wanted(recipe=only(reference, out_dtype=out_dtype), alone=reference)


def _made_ready(
    wanted: _Wanted, preparation: PreparedJob, say: Callable[[str], object]
) -> PreparedJob:
    """The preparation with the models of the recipe to score."""
    recipe, reference = wanted.recipe, wanted.alone
    if reference is None:
        opened = open_models(recipe)
        if recipe.alone is None:
            return _ready_to_merge(recipe, opened, preparation, say)
        source = opened[recipe.alone]
    elif reference in preparation.alone:
        return preparation
    else:
        source = open_source(reference, where="MODEL")
    _check_fits(source, preparation)
    alone = {recipe.models[0].model: preparation.models_alone.make(source)}
    return replace(preparation, alone={**preparation.alone, **alone})


def _ready_to_merge(
    recipe: Recipe,
    opened: dict[str, Source],
    preparation: PreparedJob,
    say: Callable[[str], object],
) -> PreparedJob:
    """The preparation with the models, the vocabulary and the tokenizer of a recipe."""
    for source in opened.values():
        _check_fits(source, preparation)
    alignment = align_models(recipe, opened)
    settings = shared_settings(recipe, opened, alignment)
    for note in settings.notes(recipe):
        say(note)
    trusting = preparation.job.models.trust_remote_code
    tokenizer = alignment.tokenizer
    if tokenizer is None:
        reader = TokenizerReader(trust_remote_code=trusting)
        tokenizer = reader.load(alignment.tokenizer_source)
    suite = preparation.models_alone.suite_for(tokenizer)
    return replace(
        preparation,
        sources=alignment.sources,
        suite=suite,
        tokenizer=tokenizer,
        alone={},
        settings=settings,
    )


def _check_fits(source: Source, preparation: PreparedJob) -> None:
    """Raise SourceError for a model of another architecture than the job's models.

    A model with weights that are not finite is refused too, before the long scoring.
    """
    source.sha256()
    ours = [member.structure.architecture for member in preparation.sources.values()]
    theirs = source.structure.architecture
    if theirs not in ours:
        raise SourceError(
            f"{source.reference} does not fit {preparation.base.reference}: it is a {theirs}, not "
            f"a {ours[0]}; "
            "give a model of the job's family"
        )
