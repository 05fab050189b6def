"""What a search, a worker and an export need of a job, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from evomerge.evaluate.objective import Objective
from evomerge.evaluate.suite import TaskSuite
from evomerge.job import JobSpec, OptimizerSpec, StageSpec
from evomerge.recipe import DType, Recipe, TokenizerSpec
from evomerge.sources import Source, Structure, lead_of
from evomerge.space import SearchSpace
from evomerge.vocabulary import BLOCK_KEY


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a search, a worker and an export need of a job, in one of its stages.

    sources: reference as written in the job -> opened model, the base first, with the vocabulary
    of the merged models. out_dtype: storage dtype of every merged model, scored or exported.
    tokenizer: of the merged models. tokenizer_source: the model that it is from, as an export takes
    it. vocabulary: what a recipe must say of the tokenizer; None where it is the base's and the
    models agree on it. space: of the present stage, which is number `stage` from 0. winners: of the
    stages before it, by name.
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
    stage: int = 0
    winners: Mapping[str, Recipe] = field(default_factory=dict)

    @property
    def base(self) -> Source:
        """The base model."""
        return self.sources[self.job.models.base]

    @property
    def lead(self) -> Source:
        """The model that the merged ones are built like: the base, or what it is a part of."""
        return lead_of(list(self.sources.values()))

    @property
    def search(self) -> StageSpec:
        """What is searched in the present stage."""
        return self.job.searches[self.stage]

    @property
    def items_each(self) -> int:
        """Items of a candidate in the present stage."""
        return self.job.items_each(len(self.space.genes))

    @property
    def optimizer(self) -> OptimizerSpec:
        """Who proposes the genomes of the present stage."""
        return self.job.optimizer_of(self.search)

    def standing_alone(self, recipe: Recipe) -> Recipe:
        """A recipe of this job with all that the job says beside it: dtype and vocabulary."""
        complete = recipe.model_copy(update={"out_dtype": recipe.out_dtype or self.out_dtype})
        if self.vocabulary is None:
            return complete
        # A merge that leaves models out has the tokens of all of them nevertheless.
        block = {**recipe.evomerge, BLOCK_KEY: list(self.sources)}
        return complete.model_copy(update={"tokenizer": self.vocabulary, "evomerge": block})
