"""What a search, a worker and an export need of a job, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from evomerge.errors import JobError
from evomerge.evaluate import Objective, TaskSuite
from evomerge.job import JobSpec, OptimizerSpec, StageSpec
from evomerge.merge import SharedSettings, open_stages
from evomerge.recipe import DType, Recipe, TokenizerSpec
from evomerge.sources import Source, Structure, lead_of
from evomerge.space import DataFlowSpace, SearchSpace, build_space
from evomerge.vocabulary import BLOCK_KEY
from evomerge.workers.preparation.models_alone import ModelAlone, ModelsAlone, check_rows


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """What a search, a worker and an export need of a job, in one of its stages.

    sources: reference as written in the job -> opened model, the base first, with the vocabulary of
    the merged models. out_dtype: storage dtype of every merged model, scored or exported.
    tokenizer: of the merged models. tokenizer_source: the model that an export takes the tokenizer
    from. vocabulary: the entry of a recipe for the tokenizer; None if it is the base's and the
    models agree on it. suite: the tasks for merges. alone: every single model of the job, by
    reference. models_alone: makes more of them. settings: of merges where the models disagree.
    space: of the present stage. stage: its number, from 0. winners: of the stages before it, by
    name.
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
    alone: Mapping[str, ModelAlone]
    models_alone: ModelsAlone
    settings: SharedSettings
    stage: int = 0
    winners: Mapping[str, Recipe] = field(default_factory=dict)

    @property
    def base(self) -> Source:
        """The base model."""
        return self.sources[self.job.models.base]

    @property
    def lead(self) -> Source:
        """The model that merged models are built like: the base, or a model that contains it."""
        return lead_of(list(self.sources.values()))

    @property
    def search(self) -> StageSpec:
        """The search of the present stage."""
        return self.job.searches[self.stage]

    @property
    def items_each(self) -> int:
        """Items of a candidate in the present stage."""
        return self.job.items_each(len(self.space.genes))

    @property
    def optimizer(self) -> OptimizerSpec:
        """The optimizer of the present stage."""
        return self.job.optimizer_of(self.search)

    @property
    def task_files(self) -> Mapping[str, str]:
        """Hashes of the files that define the tasks, and of their items for every tokenizer."""
        own = {
            f"items of {task}, asked of {name}": model.suite.task_files[f"items of {task}"]
            for name, model in self.alone.items()
            if model.suite is not self.suite
            for task in model.suite.tasks
        }
        return {**self.suite.task_files, **own}

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest request, with its answer, by any tokenizer."""
        suites = [self.suite, *(model.suite for model in self.alone.values())]
        return max(suite.longest_tokens for suite in suites)

    @property
    def notes(self) -> tuple[str, ...]:
        """How disagreements of the models are resolved, and what groups are, a sentence each."""
        lent = [name for name, model in self.alone.items() if model.chat_template is not None]
        note = f"{' and '.join(lent)} by itself gets the job's chat template, because it has none"
        groups = [
            f"{scored.task}: a group of {len(scored.tasks)} tasks, "
            + ("weighted by their items" if scored.weight_by_size else "all with the same weight")
            for scored in self.job.scored
            if len(scored.tasks) > 1
        ]
        return (*self.settings.notes(), *([note] if lent else []), *dict.fromkeys(groups))

    def check_rows(self) -> None:
        """Raise TaskError if a task has tokens that a model has no rows for."""
        check_rows(self.suite, self.lead)
        for model in self.alone.values():
            check_rows(model.suite, model.source)

    def alone_in(self, recipe: Recipe) -> ModelAlone | None:
        """The single model that a recipe is; None for a merge."""
        return None if recipe.alone is None else self.alone.get(recipe.alone)

    def exported(self, recipe: Recipe) -> PreparedJob:
        """The preparation for an export of a recipe: a single model has its own files."""
        model = self._exported_alone(recipe)
        if model is None:
            return self
        sources = {**self.sources, model.source.reference: model.source}
        return replace(self, sources=sources, tokenizer_source=model.tokenizer_source)

    def _exported_alone(self, recipe: Recipe) -> ModelAlone | None:
        """The single model that a recipe is, unless it has the vocabulary of merges anyway."""
        model = self.alone_in(recipe)
        if model is None or (
            model.as_merged and self.sources.get(model.source.reference) is model.source
        ):
            return None
        return model

    def in_vocabulary(self, recipe: Recipe) -> Recipe:
        """A recipe of this job with the job's dtype and vocabulary."""
        complete = recipe.model_copy(update={"out_dtype": recipe.out_dtype or self.out_dtype})
        if self.vocabulary is None:
            return complete
        # A merge has the tokens of all models, also of those that it leaves out.
        block = {**recipe.evomerge, BLOCK_KEY: list(self.sources)}
        return complete.model_copy(update={"tokenizer": self.vocabulary, "evomerge": block})

    def standing_alone(self, recipe: Recipe) -> Recipe:
        """A recipe of this job that needs no job: it has all that the job says beside it.

        That is the dtype, the vocabulary and the settings that the models disagree on. A single
        model keeps its own.
        """
        model = self._exported_alone(recipe)
        if model is not None:
            alone: dict[str, Any] = {"out_dtype": recipe.out_dtype or self.out_dtype}
            if model.chat_template is not None:
                alone["chat_template"] = model.chat_template
            return recipe.model_copy(update=alone)
        sources = open_stages(recipe, self.sources) if recipe.stages else self.sources
        return self.in_vocabulary(self.settings.complete(recipe, sources))


# The stages of a job: each searches over the previous winner and the job's sources.


def next_stage(preparation: PreparedJob, winner: Recipe) -> PreparedJob:
    """The job in its next stage: the recipe of `winner`, not a copy, is the first source."""
    alone = preparation.in_vocabulary(winner.model_copy(update={"stages": {}}))
    winners = {**preparation.winners, preparation.search.name: alone}
    space = stage_space(
        preparation.job,
        preparation.stage + 1,
        structure=preparation.structure,
        out_dtype=preparation.out_dtype,
        winners=winners,
    )
    return replace(preparation, space=space, stage=preparation.stage + 1, winners=winners)


def stage_space(
    job: JobSpec,
    stage: int,
    *,
    structure: Structure,
    out_dtype: DType,
    winners: Mapping[str, Recipe],
) -> SearchSpace:
    """The search space of stage number `stage`, from 0. Raises JobError in one line."""
    models = job.models
    space = build_space(
        job.searches[stage].search_space,
        base=models.base,
        sources=(*list(winners)[-1:], *models.sources),
        structure=structure,
        out_dtype=out_dtype,
        seed=job.optimizer.seed,
        statistics=models.statistics,
        stages=winners,
    )
    where = f"stages.{stage}.search_space" if job.stages else "search_space"
    routes = isinstance(space, DataFlowSpace)
    if routes and stage + 1 < len(job.searches):
        raise JobError(
            f"{where}: routes change how deep the model is, so they come last; put this stage at "
            "the end"
        )
    if models.base in models.sources and not routes:
        raise JobError(
            f"models.sources: {models.base} is the base too, so there is nothing to merge; name "
            "the experts, or a search space of routes"
        )
    return space
