"""How one model stands on one split: its combined score and its tasks' scores, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evomerge.candidate import Candidate, CandidateKey, Failed, Split, TaskItems
from evomerge.errors import SourceError, WorkerError
from evomerge.evaluate.intervals import Interval, mean_intervals, score_interval
from evomerge.evaluate.objective import Objective
from evomerge.job import JobSpec
from evomerge.merge.opening import open_checkpoints
from evomerge.preparation import Preparation, pin, pinned_reference, prepare
from evomerge.recipe import Recipe, RecipeModel, Slice, SliceSource, load_recipe
from evomerge.sources import Source, check_compatible, open_source
from evomerge.sources.settings import vocabulary_size
from evomerge.workers.pool import LocalPool

Role = Literal["winner", "finalist", "base", "parent", "baseline", "stage", "model"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model on one split.

    score: the combined objective. tasks: task -> metric -> mean. All with 95% intervals.
    """

    label: str
    role: Role
    score: Interval
    tasks: Mapping[str, Mapping[str, Interval]]

    def lines(self) -> list[str]:
        """The scores for a terminal, one a line."""
        rows = [("objective", self.score)]
        rows += [
            (f"{task}/{metric}", interval)
            for task, metrics in self.tasks.items()
            for metric, interval in metrics.items()
        ]
        width = max(len(name) for name, _ in rows)
        return [
            f"{name:<{width}}  {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            for name, interval in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_standing` reads back equal."""
        return asdict(self)


def stand(
    label: str, role: Role, scores: Mapping[str, TaskItems], *, objective: Objective, seed: int
) -> Standing:
    """The standing of a model with these item results; `seed` is that of the bootstrap."""
    tasks: dict[str, dict[str, Interval]] = {task: {} for task in scores}
    for (task, metric), interval in mean_intervals(scores, seed=seed).items():
        tasks[task][metric] = interval
    return Standing(
        label=label, role=role, score=score_interval(objective, scores, seed=seed), tasks=tasks
    )


def read_standing(entry: Mapping[str, Any]) -> Standing:
    """A standing kept as JSON."""
    return Standing(
        label=entry["label"],
        role=entry["role"],
        score=Interval(**entry["score"]),
        tasks={
            task: {metric: Interval(**interval) for metric, interval in metrics.items()}
            for task, metrics in entry["tasks"].items()
        },
    )


def evaluate_model(model: str, job: JobSpec, *, split: Split) -> Standing:
    """Score one model, or the merge of a recipe file, on all items of a split of a job's tasks.

    model: a folder, a hub id, or the path of a recipe; it may be deeper or shallower than the
    models of the job. Raises InputError, WorkerError.
    """
    preparation = prepare(pin(job))
    recipe = _recipe_of(model, preparation)
    opened = open_checkpoints(recipe, known=preparation.sources)
    for source in opened.values():
        _check_fits(source, preparation.base)
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
