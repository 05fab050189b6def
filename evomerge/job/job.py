"""The whole job and its searches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from evomerge.errors import JobError
from evomerge.job.draws import BUILT_IN, load_draws
from evomerge.job.sections import (
    Aggregate,
    BudgetSpec,
    ComputeSpec,
    ConstraintSpec,
    EvaluationSpec,
    ModelsSpec,
    ObjectiveSpec,
    OptimizerSpec,
    RecordPlace,
    Section,
    StageOptimizerSpec,
)
from evomerge.optimize import ALGORITHMS, Mode, is_package_algorithm, limit_problem, mode_problem

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_DEFAULT_SPACE = "one_weight_per_model"


class StageSpec(Section):
    """One search of a job with stages; each stage searches over the winner of the stage before."""

    name: str = Field(pattern=_NAME)
    """Name of this stage's winner in later stages and in the exported recipe."""
    search_space: str | dict[str, Any]
    """As `search_space` of a job; a stage of routes comes last."""
    share: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    """Share of the budget, relative to the other stages' shares."""
    optimizer: StageOptimizerSpec = StageOptimizerSpec()
    """Changes to the job's `optimizer` for this stage."""


class JobSpec(Section):
    """A whole job: the keys of the file. examples/ has jobs that run."""

    name: str = Field(pattern=_NAME)
    """Name of the search; the run directory is `runs/NAME`."""
    models: ModelsSpec
    """The base and the experts."""
    search_space: str | dict[str, Any] | None = None
    """A name in `search_spaces/`, a path, or the mapping itself: a method with its parameters, or
    `routes`. Without it and without stages: `one_weight_per_model`."""
    stages: tuple[StageSpec, ...] = ()
    """Instead of `search_space`: several searches; each searches over the winner of the one
    before."""
    mode: Mode = "single"
    """`single`: the objectives are combined into one score; `pareto`: each objective with a
    positive weight is an axis of a front."""
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1)
    """What is optimised."""
    aggregate: Aggregate = "mean"
    """`mean`, `geometric` or `min` of the objectives."""
    report: tuple[str, ...] = ()
    """Tasks that are scored only at the end; a group or a tag is short for its tasks."""
    constraints: tuple[ConstraintSpec, ...] = ()
    """Scores that the winner must keep."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """The items that candidates are scored on, and how."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimiser that proposes genomes, and its seed."""
    budget: BudgetSpec
    """When the search ends."""
    compute: ComputeSpec = ComputeSpec()
    """Where candidates are built and scored."""
    storage: RecordPlace = "auto"
    """`auto` keeps the record in the run directory. Or the URL of a PostgreSQL database (extra
    `postgres`), without a password; the password is read from `PGPASSWORD` or `~/.pgpass`."""

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
        used = {self.models.base, *self.models.sources}
        for place, name in enumerate(names):
            if name in names[:place] or name in used:
                raise ValueError(f"stages.{place}.name: {name} is taken; choose another")
        return self

    @model_validator(mode="after")
    def _one_front(self) -> JobSpec:
        self._refuse_algorithms("mode", of_packages=False)
        if self.mode == "pareto":
            self._refuse_beside_a_front()
        self._refuse_algorithms("limits", of_packages=False)
        return self

    def _refuse_beside_a_front(self) -> None:
        for field in ("racing", "growing", "elites"):
            if getattr(self.evaluation, field) not in (False, "auto"):
                raise ValueError(
                    f"evaluation.{field}: needs one score, but mode: pareto has several; leave it"
                    " out"
                )
        if len(self.axes) < 2:
            raise ValueError(
                "mode: pareto needs two objectives of positive weight or more; add one, or leave "
                "mode out"
            )
        if self.aggregate != "mean":
            raise ValueError(
                f"aggregate: {self.aggregate} makes one score of all objectives, but mode: pareto "
                "keeps them apart; leave one of the two out"
            )
        if self.stages:
            raise ValueError(
                "stages: each begins from one winner, but mode: pareto ends with a front; give one "
                "search_space, or leave mode out"
            )

    @model_validator(mode="after")
    def _names_of_groups(self) -> JobSpec:
        tasks = self.all_tasks
        named: dict[str, ObjectiveSpec | ConstraintSpec] = {}
        for scored in self.scored:
            first = named.setdefault(scored.task, scored)
            if sorted(first.members) != sorted(scored.members):
                raise ValueError(
                    f"{scored.task} has other members in another place; give it another name there"
                )
            by_size = {s.weight_by_size for s in self.scored if _names(s) == _names(scored)}
            if len(by_size) > 1:
                raise ValueError(
                    f"{scored.task}/{scored.metric} has another weight_by_size in another place; "
                    "give it another name there"
                )
            if scored.weight_by_size and not scored.members:
                raise ValueError(
                    f"{scored.task}: weight_by_size needs members; how the tasks of a group weigh "
                    "is in its file, so leave it out"
                )
            if scored.members and scored.task in tasks:
                raise ValueError(
                    f"{scored.task} has members, and is a task itself; give it another name"
                )
        return self

    @model_validator(mode="after")
    def _metrics_for_draws(self) -> JobSpec:
        if self.evaluation.draws in BUILT_IN:
            self._refuse_second_metric()
        return self

    def _refuse_second_metric(self) -> None:
        named = {(task, scored.metric) for scored in self.scored for task in scored.tasks}
        tasks = sorted(task for task, _ in named)
        several = [task for task in tasks if tasks.count(task) > 1]
        if several and self.evaluation.draw_facts.one_metric:
            raise ValueError(
                f"evaluation.draws: {self.evaluation.draws} estimate one metric of a task, but "
                f"{several[0]} has several; name one, or set draws to another kind"
            )

    def check_draws(self) -> None:
        """Refuse a package's sampler that cannot be used, or does not fit the job.

        evomerge's own samplers are checked when the job is read; no package is imported then.
        Raises JobError.
        """
        load_draws(self.evaluation.draws)
        try:
            self.evaluation.refuse_unfit()
        except ValueError as error:
            raise JobError(f"evaluation.{error}") from error
        try:
            self._refuse_second_metric()
        except ValueError as error:
            raise JobError(str(error)) from error

    def check_package_algorithms(self) -> None:
        """Refuse optimisers of packages that cannot be imported, or do not fit the job.

        evomerge's own are checked when the job is read; no package is imported then. Raises
        JobError.
        """
        try:
            self._refuse_algorithms("mode", of_packages=True)
            self._refuse_algorithms("limits", of_packages=True)
        except ValueError as error:
            raise JobError(str(error)) from error

    def _refuse_algorithms(self, why: Literal["mode", "limits"], *, of_packages: bool) -> None:
        for where, optimizer in self._optimizers():
            name = optimizer.algorithm
            if is_package_algorithm(name) != of_packages:
                continue
            if of_packages and name not in ALGORITHMS:
                raise ValueError(
                    f"{where}.algorithm: {name}: its package is not installed here; install it"
                )
            if why == "mode":
                problem = mode_problem(name, self.mode, where=where)
            else:
                axes = len(self.axes)
                problem = limit_problem(optimizer, self.mode, objectives=axes, where=where)
            if problem is not None:
                raise ValueError(problem)

    def _optimizers(self) -> Iterator[tuple[str, OptimizerSpec]]:
        """Every optimiser of the job, with the section that it is given in."""
        yield "optimizer", self.optimizer
        for place, stage in enumerate(self.stages):
            yield f"stages.{place}.optimizer", self.optimizer_of(stage)

    @property
    def axes(self) -> tuple[ObjectiveSpec, ...]:
        """The objectives of positive weight: the axes of the front in `mode: pareto`."""
        return tuple(objective for objective in self.objectives if objective.weight > 0.0)

    @property
    def front_objectives(self) -> int:
        """How many losses an optimiser gets: one for each axis of the front, or one score."""
        return len(self.axes) if self.mode == "pareto" else 1

    @property
    def races(self) -> bool:
        """Whether losers of a generation are stopped early; this needs one score."""
        wanted = self.mode == "single" and self.evaluation.racing is not False
        return wanted and not self.evaluation.draw_facts.whole_only

    @property
    def searches(self) -> tuple[StageSpec, ...]:
        """The searches of the job in order: its stages, or the single search."""
        space = self.search_space or _DEFAULT_SPACE
        return self.stages or (StageSpec(name="search", search_space=space),)

    def optimizer_of(self, stage: StageSpec) -> OptimizerSpec:
        """The optimiser of a stage: the job's, with the stage's own settings."""
        return self.optimizer.model_copy(update=stage.optimizer.model_dump(exclude_none=True))

    def budget_after(self, stage: int) -> BudgetSpec:
        """The part of the budget for the stages up to number `stage`, from 0."""
        shares = [search.share for search in self.searches]
        part = sum(shares[: stage + 1]) / sum(shares) if stage + 1 < len(shares) else 1.0
        limits = self.budget
        return BudgetSpec(
            candidates=limits.candidates and max(1, int(limits.candidates * part)),
            hours=limits.hours and limits.hours * part,
            items=limits.items and max(1, int(limits.items * part)),
        )

    @property
    def scored(self) -> tuple[ObjectiveSpec | ConstraintSpec, ...]:
        """All objectives, then all constraints."""
        return (*self.objectives, *self.constraints)

    @property
    def search_tasks(self) -> tuple[str, ...]:
        """Tasks that every candidate is scored on, in the order of the job."""
        return tuple(dict.fromkeys(task for each in self.scored for task in each.tasks))

    def items_each(self, genes: int) -> int:
        """Items of a candidate with `genes` genes."""
        return self.evaluation.items_each(genes=genes, tasks=len(self.search_tasks))

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task of the job; tasks that are only reported come last."""
        return tuple(dict.fromkeys([*self.search_tasks, *self.report]))

    def fingerprint(self) -> dict[str, str]:
        """sha256 of each part that a resumed search must share with its start.

        Budget, compute (except the dtype, which changes the models) and storage may differ.
        """
        document = self.model_dump(mode="json", exclude={"budget", "compute", "storage"})
        document["compute.dtype"] = self.compute.dtype
        # Records from before stages, modes and groups existed must still match their job.
        if not self.stages:
            del document["stages"]
        if self.mode == "single":
            del document["mode"]
        _leave_out_members(document)
        return {
            key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            for key, value in document.items()
        }

    def to_yaml(self) -> str:
        """The job as the text of a file; `load_job` reads an equal job from it."""
        document = self.model_dump(mode="json")
        _leave_out_members(document)
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _names(scored: ObjectiveSpec | ConstraintSpec) -> tuple[str, str]:
    return scored.task, scored.metric


def _leave_out_members(document: dict[str, Any]) -> None:
    """Remove the keys of groups where a single task is scored."""
    for scored in (*document["objectives"], *document["constraints"]):
        if not scored["members"]:
            del scored["members"], scored["weight_by_size"]
