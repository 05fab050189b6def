"""Scoring of one model, or of the merge of a recipe, on the tasks of a job, without a record.

A model is loaded from its own files; a merge is scored as `evomerge merge` would write it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from evomerge.job import JobSpec
from evomerge.merge import align_models, open_models, shared_settings
from evomerge.recipe import Recipe, load_recipe
from evomerge.search import only
from evomerge.sources import Source, open_source
from evomerge.vocabulary import TokenizerReader
from evomerge.workers import LocalPool, PreparedJob, check_models, pin, pinned_reference, prepare


def evaluate_model(model: str, job: JobSpec, *, split: Split, say: Say = hush) -> ScoreSummary:
    """Score one model, or the merge of a recipe file, on all items of a split of a job's tasks.

    model: a folder, a hub id, or the path of a recipe; it may be deeper or shallower than the
    models of the job, and may have its own vocabulary. say: gets a line for each setting in which
    the models of a recipe differ, and for each retry after a shortage of memory. Raises InputError,
    WorkerError.
    """
    preparation = prepare(pin(job))
    check_models(preparation)
    recipe, ready = _made_ready(model, preparation, say)
    ready.check_rows()
    suite = preparation.suite
    candidate = Candidate(
        key=CandidateKey(0, 0),
        kind="finalist",
        label=model,
        recipe=recipe,
        items={task: suite.items(task, split) for task in preparation.job.all_tasks},
    )
    with LocalPool(ready, say=say) as pool:
        [(_, outcome)] = pool.evaluate([candidate])
    if isinstance(outcome, Failed):
        raise WorkerError(f"{model}: cannot be scored: {outcome.reason}")
    seed = job.optimizer.seed
    return summarise(
        model, "model", outcome.tasks, objective=preparation.objective.on(split), seed=seed
    )


def _made_ready(
    model: str, preparation: PreparedJob, say: Callable[[str], object]
) -> tuple[Recipe, PreparedJob]:
    """The recipe to score, and the preparation with its models."""
    out_dtype = preparation.out_dtype
    if model.endswith((".yaml", ".yml")):
        recipe = load_recipe(Path(model)).model_copy(update={"out_dtype": out_dtype})
        opened = open_models(recipe)
        if recipe.alone is None:
            return recipe, _ready_to_merge(recipe, opened, preparation, say)
        source = opened[recipe.alone]
    else:
        reference = pinned_reference(open_source(model, where="MODEL"))
        source = open_source(
            reference, where="MODEL"
        )  # so that it has the same name as in the recipe
        recipe = only(reference, out_dtype=out_dtype)
        if reference in preparation.alone:
            return recipe, preparation
    _check_fits(source, preparation)
    alone = {recipe.models[0].model: preparation.models_alone.make(source)}
    return recipe, replace(preparation, alone={**preparation.alone, **alone})


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
