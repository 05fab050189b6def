"""The whole job, and the searches it is made of."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from evomerge.job.sections import (
    Aggregate,
    BudgetSpec,
    ComputeSpec,
    ConstraintSpec,
    EvaluationSpec,
    ModelsSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Section,
    StageOptimizerSpec,
)

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_DEFAULT_SPACE = "one_weight_per_model"


class StageSpec(Section):
    """One search of a job; several of them are stages, each over the winner of the one before.

    name: what later stages, and the exported recipe, call this one's winner. share: of the budget,
    relative to the other stages'.
    """

    name: str = Field(pattern=_NAME)
    search_space: str | dict[str, Any]
    share: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    optimizer: StageOptimizerSpec = StageOptimizerSpec()


class JobSpec(Section):
    """A whole job. See README.md for each field and examples/ for jobs that run.

    search_space: one search; stages: several. One of them is given, or neither.
    """

    name: str = Field(pattern=_NAME)
    models: ModelsSpec
    search_space: str | dict[str, Any] | None = None
    stages: tuple[StageSpec, ...] = ()
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1)
    aggregate: Aggregate = "mean"
    report: tuple[str, ...] = ()
    constraints: tuple[ConstraintSpec, ...] = ()
    evaluation: EvaluationSpec = EvaluationSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    budget: BudgetSpec
    compute: ComputeSpec = ComputeSpec()
    storage: str = "auto"

    @field_validator("objectives")
    @classmethod
    def _some_weight(cls, objectives: tuple[ObjectiveSpec, ...]) -> tuple[ObjectiveSpec, ...]:
        if sum(objective.weight for objective in objectives) <= 0.0:
            raise ValueError("the weights sum to 0; give at least one objective a positive weight")
        seen = [(objective.task, objective.metric) for objective in objectives]
        twice = [pair for pair in seen if seen.count(pair) > 1]
        if twice:
            raise ValueError(f"{twice[0][0]}/{twice[0][1]} is listed twice; add up its weights")
        return objectives

    @model_validator(mode="after")
    def _searches(self) -> JobSpec:
        if self.stages and self.search_space is not None:
            raise ValueError("stages: the job has search_space already; keep one of them")
        names = [stage.name for stage in self.stages]
        taken = {self.models.base, *self.models.sources}
        for place, name in enumerate(names):
            if name in names[:place] or name in taken:
                raise ValueError(f"stages.{place}.name: {name} is taken; choose another")
        return self

    @property
    def searches(self) -> tuple[StageSpec, ...]:
        """The searches of the job in order: its stages, or the one that it is."""
        space = self.search_space or _DEFAULT_SPACE
        return self.stages or (StageSpec(name="search", search_space=space),)

    def optimizer_of(self, stage: StageSpec) -> OptimizerSpec:
        """Who proposes the genomes of a stage."""
        return self.optimizer.model_copy(update=stage.optimizer.model_dump(exclude_none=True))

    def budget_after(self, stage: int) -> BudgetSpec:
        """The part of the budget that may be spent when stage number `stage`, from 0, has ended."""
        shares = [search.share for search in self.searches]
        part = sum(shares[: stage + 1]) / sum(shares) if stage + 1 < len(shares) else 1.0
        limits = self.budget
        return BudgetSpec(
            candidates=limits.candidates and max(1, int(limits.candidates * part)),
            hours=limits.hours and limits.hours * part,
            items=limits.items and max(1, int(limits.items * part)),
        )

    @property
    def search_tasks(self) -> tuple[str, ...]:
        """Tasks that every candidate is scored on, in the order of the job."""
        named = [*(o.task for o in self.objectives), *(c.task for c in self.constraints)]
        return tuple(dict.fromkeys(named))

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task of the job, those that are only reported last."""
        return tuple(dict.fromkeys([*self.search_tasks, *self.report]))

    def fingerprint(self) -> dict[str, str]:
        """sha256 of each part that a resumed search must share with its start.

        Budget, compute (but for the dtype, which changes the models) and the storage's place may
        differ.
        """
        document = self.model_dump(mode="json", exclude={"budget", "compute", "storage"})
        document["compute.dtype"] = self.compute.dtype
        if not self.stages:
            del document["stages"]  # a record of before there were stages is still the same job's
        return {
            key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            for key, value in document.items()
        }

    def to_yaml(self) -> str:
        """The job as a file that `load_job` reads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
