"""Scoring one model, or the merge of a recipe, by the tasks of a job: no search, no record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evomerge.candidate import Candidate, CandidateKey, Failed, Split
from evomerge.errors import SourceError, WorkerError
from evomerge.job import JobSpec
from evomerge.merge.opening import open_checkpoints
from evomerge.preparation import Preparation, pin, pinned_reference, prepare
from evomerge.recipe import Recipe, RecipeModel, Slice, SliceSource, load_recipe
from evomerge.sources import Source, check_compatible, open_source
from evomerge.sources.settings import vocabulary_size
from evomerge.standing import Standing, stand
from evomerge.workers.opening import check_models
from evomerge.workers.pool import LocalPool


def evaluate_model(model: str, job: JobSpec, *, split: Split) -> Standing:
    """Score one model, or the merge of a recipe file, on all items of a split of a job's tasks.

    model: a folder, a hub id, or the path of a recipe; it may be deeper or shallower than the
    models of the job. Raises InputError, WorkerError.
    """
    preparation = prepare(pin(job))
    check_models(preparation)
    recipe = _recipe_of(model, preparation)
    opened = open_checkpoints(recipe, known=preparation.sources)
    for source in opened.values():
        _check_fits(source, preparation.base)
        source.sha256()  # refuses weights that are not finite, which would be scored for long
    alone = replace(preparation, sources={**preparation.sources, **opened})
    suite = preparation.suite
    candidate = Candidate(
        key=CandidateKey(0, 0),
        kind="finalist",
        label=model,
        recipe=recipe,
        items={task: suite.items(task, split) for task in job.all_tasks},
    )
    with LocalPool(alone) as pool:
        [(_, outcome)] = pool.evaluate([candidate])
    if isinstance(outcome, Failed):
        raise WorkerError(f"{model}: cannot be scored: {outcome.reason}")
    seed = job.optimizer.seed
    return stand(model, "model", outcome.tasks, objective=preparation.objective, seed=seed)


def _check_fits(source: Source, base: Source) -> None:
    """Raise SourceError for a model that the tasks of the job cannot be put to as they are."""
    ours, theirs = base.structure, source.structure
    if ours.depth == theirs.depth:
        check_compatible([base, source])
        return
    rows = vocabulary_size(base.config, ours.shapes), vocabulary_size(source.config, theirs.shapes)
    if ours.architecture != theirs.architecture or rows[0] != rows[1]:
        raise SourceError(
            f"{source.reference} does not fit {base.reference}: it is a {theirs.architecture} of "
            f"{rows[1]} tokens, not a {ours.architecture} of {rows[0]}; give a model of the job's "
            "family"
        )


def _recipe_of(model: str, preparation: Preparation) -> Recipe:
    if model.endswith((".yaml", ".yml")):
        recipe = load_recipe(Path(model))
        return recipe.model_copy(update={"out_dtype": preparation.out_dtype})
    source = open_source(model, where="MODEL")
    reference, out_dtype = pinned_reference(source), preparation.out_dtype
    depth = source.structure.depth
    if depth == preparation.base.structure.depth:
        alone = RecipeModel(model=reference, parameters={"weight": 1.0})
        return Recipe(merge_method="linear", models=(alone,), out_dtype=out_dtype)
    # A model of another depth is built as slices are.
    whole = Slice(sources=(SliceSource(model=reference, layer_range=(0, depth)),))
    return Recipe(merge_method="passthrough", slices=(whole,), out_dtype=out_dtype)
