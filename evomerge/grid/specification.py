"""The grid file: which methods merge which experts, and the tasks that score them.

The file is checked as far as that needs no checkpoint and no task.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from evomerge.documents import load_text
from evomerge.errors import JobError
from evomerge.job import (
    Aggregate,
    BudgetSpec,
    ComputeSpec,
    EvaluationSpec,
    JobSpec,
    ModelsSpec,
    ObjectiveSpec,
    OptimizerSpec,
    RecordPlace,
    Section,
    StageOptimizerSpec,
    parse_sections,
)
from evomerge.optimize import is_package_algorithm, mode_problem
from evomerge.space import short_names

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_NOTHING_PROPOSED = BudgetSpec(hours=1.0)
"""A job must have a budget; a grid's own job proposes no candidates, so it spends none of it."""


_MOST_SUBSETS = 10**6


class TaskSpec(Section):
    """A metric of an lm-eval task, as an objective of a job names it."""

    task: str
    metric: str


class HeldInSpec(TaskSpec):
    """A task that one expert was trained for; a merge's score is divided by that expert's score.

    expert: one of models.sources, as it is written there or by the end of its path.
    """

    expert: str


class ExpertsSpec(Section):
    """Which experts are merged with each other.

    sizes: how many at a time; by default every number from 2. subsets: how many of each size are
    drawn by `seed`, or `all`.
    """

    sizes: tuple[int, ...] = ()
    subsets: int | Literal["all"] = "all"
    seed: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("subsets")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is below 1; give a number of subsets, or `all`")
        if isinstance(value, int) and value > _MOST_SUBSETS:
            raise ValueError(f"{value} is above {_MOST_SUBSETS}; give that many or fewer, or `all`")
        return value


class MethodSpec(Section):
    """One way to merge a subset of the experts: a merge method, or a search.

    method: the name in recipes; without `parameters` it has the values of its paper. parameters:
    of the recipe. search_space: searched in place of a method, on the held-in tasks of the subset,
    with `budget`, and with `optimizer` and `aggregate` as in a job. label: its name in tables.
    """

    label: str | None = Field(default=None, min_length=1)
    method: str | None = None
    parameters: dict[str, bool | float | str] | None = None
    search_space: str | dict[str, Any] | None = None
    budget: BudgetSpec | None = None
    optimizer: StageOptimizerSpec | None = None
    aggregate: Aggregate | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_word(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(schema)
        mapping = handler.resolve_ref_schema(made)
        whole = dict(mapping)
        mapping.clear()
        word = {"type": "string", "description": "The name of a method alone."}
        mapping["anyOf"] = [word, whole]
        return made

    @model_validator(mode="after")
    def _one_of_two(self) -> MethodSpec:
        if (self.method is None) == (self.search_space is None):
            raise ValueError("give either method, or search_space and budget")
        if self.search_space is not None:
            for key in ("label", "budget"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key}: missing; a search needs it")
            if self.parameters is not None:
                raise ValueError(
                    "parameters: a search finds its own; remove them, or name a method"
                )
        else:
            for key in ("budget", "optimizer", "aggregate"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: {self.method} is no search; remove it")
        return self


class GridSpec(Section):
    """A whole grid. See docs/grids.md for each field and examples/ for one that runs.

    held_out: tasks that no expert was trained for; scores are divided by the base model's. seeds:
    for random masks and searches; a merge that does not depend on them is scored once. split: the
    items that all models are scored on; `all` only where no method is a search.
    """

    name: str = Field(pattern=_NAME)
    models: ModelsSpec
    held_in: tuple[HeldInSpec, ...] = Field(min_length=1)
    held_out: tuple[TaskSpec, ...] = ()
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    experts: ExpertsSpec = ExpertsSpec()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    split: Literal["test", "all"] = "test"
    evaluation: EvaluationSpec = EvaluationSpec()
    compute: ComputeSpec = ComputeSpec()
    storage: RecordPlace = "auto"

    @field_validator("seeds")
    @classmethod
    def _whole_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        for seed in seeds:
            if not 0 <= seed < 2**32:
                raise ValueError(f"{seed} is outside 0 to 2^32 - 1; give another")
        if len(set(seeds)) < len(seeds):
            raise ValueError("one of them is listed twice; list each seed once")
        return seeds

    @model_validator(mode="after")
    def _subsets(self) -> GridSpec:
        count = len(self.models.sources)
        if count < 2:
            raise ValueError("models.sources: there is only one expert; name two or more")
        for size in self.experts.sizes:
            if not 2 <= size <= count:
                raise ValueError(
                    f"experts.sizes: {size} is outside 2 to {count}, the number of sources"
                )
        if self.models.tokenizer not in ("base", "union"):
            raise ValueError(
                f"models.tokenizer: {self.models.tokenizer} is not in every subset; write base or "
                "union"
            )
        return self

    @model_validator(mode="after")
    def _tasks(self) -> GridSpec:
        places = [self.expert_of(task) for task in self.held_in]
        for place, name in enumerate(self.models.sources):
            if place not in places:
                raise ValueError(
                    f"held_in: no task belongs to {name}; add the one that it was trained for"
                )
        named = [(task.task, task.metric) for task in (*self.held_in, *self.held_out)]
        for pair in named:
            if named.count(pair) > 1:
                raise ValueError(f"held_in, held_out: {pair[0]}/{pair[1]} is listed twice")
        both = {task.task for task in self.held_in} & {task.task for task in self.held_out}
        if both:
            raise ValueError(f"held_out: {min(both)} is in held_in too; keep one of the two")
        return self

    @model_validator(mode="after")
    def _methods(self) -> GridSpec:
        labels = [method.label for method in self.methods if method.label is not None]
        plain = [method.method for method in self.methods if method.label is None]
        for label in [*labels, *plain]:
            if [*labels, *plain].count(label) > 1:
                raise ValueError(f"methods: {label} is listed twice; give each a label of its own")
        for place, method in enumerate(self.methods):
            name = (method.optimizer and method.optimizer.algorithm) or "auto"
            if is_package_algorithm(name):
                continue  # its package is imported and checked just before the first search
            problem = mode_problem(name, "single", where=f"methods.{place}.optimizer")
            if problem is not None:
                raise ValueError(problem)
        searched = next((m.label for m in self.methods if m.search_space is not None), None)
        if searched is not None and self.split == "all":
            raise ValueError(
                f"split: {searched} is a search, and `all` has the items that it searches on; "
                "write test"
            )
        return self

    def expert_of(self, held: HeldInSpec) -> int:
        """The place in models.sources of the expert that a task belongs to."""
        sources = self.models.sources
        if held.expert in sources:
            return sources.index(held.expert)
        names = list(short_names(sources).values())
        if held.expert in names:
            return names.index(held.expert)
        raise ValueError(
            f"held_in: {held.task}: {held.expert} is none of the sources; write one of "
            f"{', '.join(names)}"
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many experts are merged at a time, ascending."""
        every = range(2, len(self.models.sources) + 1)
        return tuple(sorted(set(self.experts.sizes or every)))

    def held_in_of(self, experts: tuple[int, ...]) -> tuple[HeldInSpec, ...]:
        """The tasks that these experts were trained for."""
        return tuple(task for task in self.held_in if self.expert_of(task) in experts)

    def job(self) -> JobSpec:
        """The job that prepares, checks and records the grid's models and tasks."""
        return JobSpec(
            name=self.name,
            models=self.models,
            objectives=_objectives(self.held_in),
            report=tuple(dict.fromkeys(task.task for task in self.held_out)),
            evaluation=self.evaluation,
            budget=_NOTHING_PROPOSED,
            compute=self.compute,
            storage=self.storage,
        )

    def search_job(self, method: MethodSpec, experts: tuple[int, ...], *, seed: int) -> JobSpec:
        """The search of a method over some experts, with only their held-in tasks."""
        assert method.budget is not None and method.search_space is not None
        optimizer = method.optimizer or StageOptimizerSpec()
        chosen = tuple(self.models.sources[place] for place in experts)
        return JobSpec(
            name=self.name,
            models=self.models.model_copy(update={"sources": chosen}),
            search_space=method.search_space,
            objectives=_objectives(self.held_in_of(experts)),
            aggregate=method.aggregate or "mean",
            evaluation=self.evaluation,
            optimizer=OptimizerSpec(seed=seed, **optimizer.model_dump(exclude_none=True)),
            budget=method.budget,
            compute=self.compute,
        )


def _objectives(held_in: tuple[HeldInSpec, ...]) -> tuple[ObjectiveSpec, ...]:
    return tuple(ObjectiveSpec(task=task.task, metric=task.metric) for task in held_in)


# Grid files are read, checked and written here.


def load_grid(path: Path, *, overrides: Iterable[str] = ()) -> GridSpec:
    """Read and check a grid file; `overrides` are as in load_job. Raises JobError in one line."""
    text = load_text(path, kind="a grid", error=JobError)
    return parse_grid(text, where=str(path), overrides=overrides)


def parse_grid(text: str, *, where: str, overrides: Iterable[str] = ()) -> GridSpec:
    """The same as load_grid for the text of a grid; `where` names it in messages."""
    expected = "name, models, held_in and methods"
    return parse_sections(GridSpec, text, where=where, expected=expected, overrides=overrides)


def written(grid: GridSpec) -> str:
    """The grid as a file that `load_grid` reads back equal."""
    document = grid.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
